// Package s3 starts S3-compatible stores in containers for the integration
// tests, and holds the tests of the bucket drivers against them.
//
// The images are built FROM scratch around the static binaries of
// scripts/tools.sh; no registry takes part. What is missing is a failure that
// names the script to run, never a skip.
//
//	store := s3.StartVersityGW(t)            // or s3.StartMinIO(t)
//	url := store.BucketURL(t, "prefix")      // a fresh bucket, as --bucket takes it
//	node.Env = store.Env()
//
// proxy counts and disturbs the traffic to a store.
package s3

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/wait"

	"github.com/firnlog/firn/objectstore"
	drivers "github.com/firnlog/firn/objectstore/s3"
)

// The credentials and region of every store here.
const (
	AccessKey = "firn-test-access"
	SecretKey = "firn-test-secret"
	Region    = "us-east-1"
)

// Endpoint is a store that runs.
type Endpoint struct {
	Name string // versitygw or minio
	URL  string // http://127.0.0.1:PORT; changes when the container is stopped and started
	// Container is for tests that stop, pause or inspect the store.
	Container *testcontainers.DockerContainer

	port string // in the container, such as 9000/tcp
}

// Env is the environment in which a process finds the credentials.
func (e Endpoint) Env() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + AccessKey, "AWS_SECRET_ACCESS_KEY=" + SecretKey, "AWS_REGION=" + Region, "AWS_EC2_METADATA_DISABLED=true"}
}

// Through is the same store reached by way of another URL, a proxy's.
func (e Endpoint) Through(proxyURL string) Endpoint {
	e.URL = proxyURL
	return e
}

// Config is how drivers open bucket in this store.
func (e Endpoint) Config(bucket, prefix, driver string) drivers.Config {
	return drivers.Config{Bucket: bucket, Prefix: prefix, Endpoint: e.URL, Region: Region, PathStyle: true, Driver: driver, AccessKey: AccessKey, SecretKey: SecretKey}
}

// NewBucket makes a bucket with a fresh name.
func (e Endpoint) NewBucket(t testing.TB) string {
	t.Helper()
	id := make([]byte, 6)
	rand.Read(id)
	return e.MakeBucket(t, "firn-"+hex.EncodeToString(id))
}

// MakeBucket makes a bucket of a name and returns the name.
func (e Endpoint) MakeBucket(t testing.TB, name string) string {
	t.Helper()
	b, err := drivers.Open(t.Context(), e.Config(name, "", drivers.AWS))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	return name
}

// URLOf is a bucket as --bucket takes it; the credentials are in Env. An empty
// driver means the default.
func (e Endpoint) URLOf(bucket, prefix, driver string) string {
	v := url.Values{"endpoint": {e.URL}, "region": {Region}, "path-style": {"true"}}
	if driver != "" {
		v.Set("driver", driver)
	}
	place := bucket
	if prefix != "" {
		place += "/" + prefix
	}
	return "s3://" + place + "?" + v.Encode()
}

// BucketURL makes a bucket and returns its URL.
func (e Endpoint) BucketURL(t testing.TB, prefix string) string {
	t.Helper()
	return e.URLOf(e.NewBucket(t), prefix, "")
}

// StartVersityGW starts versitygw on a volume of its own, until the test ends.
// By default it closes each connection after one answer; every other store keeps
// them, so here it does too.
func StartVersityGW(t testing.TB) Endpoint {
	t.Helper()
	return start(t, "versitygw", "7070/tcp",
		[]string{"--access", AccessKey, "--secret", SecretKey, "--port", ":7070", "--region", Region, "--keep-alive", "posix", "/data"}, nil)
}

// StartMinIO starts MinIO on a volume of its own, until the test ends.
func StartMinIO(t testing.TB) Endpoint {
	t.Helper()
	return start(t, "minio", "9000/tcp", []string{"server", "--address", ":9000", "/data"},
		map[string]string{"MINIO_ROOT_USER": AccessKey, "MINIO_ROOT_PASSWORD": SecretKey, "MINIO_BROWSER": "off"})
}

// Environment prepares this process for testcontainers on a machine of any kind:
// no reaper image (no registry can be asked), published ports on the loopback
// interface even when the tests run in a container, the classic builder.
var Environment = sync.OnceFunc(func() {
	for k, v := range map[string]string{"TESTCONTAINERS_RYUK_DISABLED": "true", "TESTCONTAINERS_HOST_OVERRIDE": "127.0.0.1", "DOCKER_BUILDKIT": "0"} {
		os.Setenv(k, v)
	}
})

// startTime bounds a start: a container is ready in half a second, the first
// build of an image takes a few.
const startTime = 90 * time.Second

func start(t testing.TB, name, port string, cmd []string, env map[string]string) Endpoint {
	t.Helper()
	Environment()
	ctx, cancel := context.WithTimeout(t.Context(), startTime)
	defer cancel()
	image := image(t, ctx, name)
	ctr, err := testcontainers.Run(ctx, image,
		testcontainers.WithCmd(cmd...), testcontainers.WithEnv(env), testcontainers.WithExposedPorts(port),
		testcontainers.WithLabels(map[string]string{"firn.test": t.Name()}),
		testcontainers.WithWaitStrategy(wait.ForListeningPort(port).SkipInternalCheck().WithStartupTimeout(startTime)))
	testcontainers.CleanupContainer(t, ctr)
	if err != nil {
		t.Fatalf("start %s in a container: %v%s", name, err, logs(ctr))
	}
	e := Endpoint{Name: name, Container: ctr, port: port}
	e.Refresh(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of %s's log:%s", name, logs(ctr))
		}
	})
	return e
}

// Refresh finds the URL again after the container was stopped and started, and
// waits until the store answers: docker's proxy accepts connections before it.
func (e *Endpoint) Refresh(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		if e.URL, last = e.Container.PortEndpoint(ctx, e.port, "http"); last == nil {
			b, err := drivers.Open(ctx, e.Config("firn-absent", "", drivers.AWS))
			if err != nil {
				t.Fatal(err)
			}
			last = b.Check(ctx)
			b.Close()
			if errors.Is(last, objectstore.ErrNoBucket) { // it knows its buckets
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s does not answer: %v%s", e.Name, last, logs(e.Container))
		}
	}
}

func logs(ctr *testcontainers.DockerContainer) string {
	if ctr == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r, err := ctr.Logs(ctx)
	if err != nil {
		return ""
	}
	defer r.Close()
	all, _ := io.ReadAll(io.LimitReader(r, 1<<20))
	return "\n" + string(all[max(0, len(all)-4000):])
}

// Binary is a static test tool, or the end of the test.
func Binary(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("FIRN_TOOLS")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(home, ".cache", "firn-tools")
	}
	path, err := filepath.EvalSymlinks(filepath.Join(dir, "bin", name))
	if err != nil {
		t.Fatalf("%s is not built (%v); run scripts/tools.sh", name, err)
	}
	return path
}

var images sync.Map // name -> func() (string, error)

// image builds the image of a tool once a process; the engine keeps it, so that
// later runs only compare.
func image(t testing.TB, ctx context.Context, name string) string {
	t.Helper()
	binary := Binary(t, name)
	build, _ := images.LoadOrStore(name, sync.OnceValues(func() (string, error) { return Image(ctx, binary, "firn-test/"+name, "/data") }))
	tag, err := build.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return tag
}

// Image builds repo:NAME-OF-THE-BINARY FROM scratch around a static binary, with
// volume as working directory, and returns its name. Rebuilding an unchanged one
// costs the comparison.
func Image(ctx context.Context, binary, repo, volume string) (string, error) {
	Environment()
	provider, err := testcontainers.NewDockerProvider()
	if err == nil {
		defer provider.Close()
		err = provider.Health(ctx)
	}
	if err != nil {
		return "", fmt.Errorf("no container engine answers (%w); run scripts/docker.sh as root, or start Docker", err)
	}
	dir, err := os.MkdirTemp("", "firn-image-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := place(binary, filepath.Join(dir, "program")); err != nil {
		return "", err
	}
	dockerfile := fmt.Sprintf("FROM scratch\nCOPY program /program\nWORKDIR %s\nVOLUME %s\nENTRYPOINT [\"/program\"]\n", volume, volume)
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
		return "", err
	}
	req := testcontainers.ContainerRequest{FromDockerfile: testcontainers.FromDockerfile{Context: dir, Repo: repo, Tag: "test", KeepImage: true}}
	tag, err := provider.BuildImage(ctx, &req)
	if err != nil {
		return "", fmt.Errorf("build an image for %s: %w", binary, err)
	}
	return tag, nil
}

// place links a file into a build context, or copies it from another disk.
func place(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
