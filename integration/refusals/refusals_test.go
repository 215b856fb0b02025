// Package refusals starts the real binary where it must not run and looks at how
// it says no: with an exit code, within a bounded time, in one line that names
// the cause and what to do next, and with not one byte changed in the data dir
// or in the bucket.
package refusals

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/firnlog/firn/integration/node"
	"github.com/firnlog/firn/integration/s3"
)

// bound is how long a refusal may take.
const bound = 20 * time.Second

// tree is every file below root, with a hash of what it holds, and every folder.
// Left out are the lock files of a bucket in a folder, which are empty and stay
// after use, and in a folder of versitygw what is not an object.
func tree(t *testing.T, root string, folders bool) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if strings.HasSuffix(rel, filepath.Join(".firn", "locks")) || d.Name() == ".sgwtmp" || d.Name() == ".vgwlocks" {
				return filepath.SkipDir
			}
			if folders {
				all[rel] = "folder"
			}
			return nil
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		all[rel] = fmt.Sprintf("%d bytes %x", len(raw), sha256.Sum256(raw))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// difference names what two trees do not share.
func difference(before, after map[string]string) []string {
	var d []string
	for name, was := range before {
		if is, ok := after[name]; !ok {
			d = append(d, name+" is gone")
		} else if is != was {
			d = append(d, name+" was "+was+", is "+is)
		}
	}
	for name := range after {
		if _, ok := before[name]; !ok {
			d = append(d, name+" is new")
		}
	}
	slices.Sort(d)
	return d
}

// refused starts n, which has to end by itself as bound says, and returns its
// line. bucket is a folder that holds the bucket, "" when that is in the data dir.
func refused(t *testing.T, n *node.Node, bucket string, want ...string) string {
	t.Helper()
	dirBefore := tree(t, n.DataDir, true)
	var bucketBefore map[string]string
	if bucket != "" {
		bucketBefore = tree(t, bucket, false)
	}
	var out, errs bytes.Buffer
	cmd := n.Command()
	cmd.Stdout, cmd.Stderr = &out, &errs
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	var err error
	select {
	case err = <-exited:
	case <-time.After(bound):
		cmd.Process.Kill()
		<-exited
		t.Fatalf("firn still runs after %v; it said:\n%s", bound, errs.String())
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() <= 0 {
		t.Fatalf("firn ended with %v, want an exit code; it said:\n%s", err, errs.String())
	}
	line := strings.TrimSuffix(errs.String(), "\n")
	if line == "" || strings.Contains(line, "\n") || !strings.HasPrefix(line, "firn: ") {
		t.Errorf("want one line of stderr that begins with \"firn: \", got:\n%s", errs.String())
	}
	if out.Len() > 0 {
		t.Errorf("stdout has %q", out.String())
	}
	for _, w := range want {
		if !strings.Contains(line, w) {
			t.Errorf("%q is not in: %s", w, line)
		}
	}
	if d := difference(dirBefore, tree(t, n.DataDir, true)); len(d) > 0 {
		t.Errorf("the data dir has changed:\n  %s", strings.Join(d, "\n  "))
	}
	if bucket != "" {
		if d := difference(bucketBefore, tree(t, bucket, false)); len(d) > 0 {
			t.Errorf("the bucket has changed:\n  %s", strings.Join(d, "\n  "))
		}
	}
	t.Logf("exit code %d after %v: %s", exit.ExitCode(), time.Since(began).Round(time.Millisecond), line)
	return line
}

// place is a bucket and the folder in which it can be looked at.
type place struct {
	url, folder string
	env         []string
}

func folder(t *testing.T) place {
	dir := filepath.Join(t.TempDir(), "bucket")
	return place{url: "file://" + dir, folder: dir}
}

func gateway(t *testing.T) place {
	dir := t.TempDir()
	e := s3.ServeVersityGW(t, dir)
	return place{url: e.BucketURL(t, "logs"), folder: dir, env: e.Env()}
}

// places runs a test on a folder and on an S3 store.
func places(t *testing.T, test func(t *testing.T, where place)) {
	t.Run("file", func(t *testing.T) { test(t, folder(t)) })
	t.Run("s3", func(t *testing.T) { test(t, gateway(t)) })
}

func at(t *testing.T, where place, args ...string) *node.Node {
	n := node.New(t, append([]string{"--bucket", where.url}, args...)...)
	n.Env = where.env
	return n
}

// live is a node that ran on where, has a record, and was stopped.
func live(t *testing.T, where place) *node.Node {
	t.Helper()
	n := at(t, where)
	n.Up()
	fill(t, n, "orders")
	n.Stop()
	return n
}

// uploaded is live with the record in the bucket.
func uploaded(t *testing.T, where place) *node.Node {
	t.Helper()
	n := at(t, where)
	n.Up()
	fill(t, n, "orders")
	sink(t, n, "orders")
	n.Stop()
	return n
}

// fill makes a topic with one record.
func fill(t *testing.T, n *node.Node, topic string) {
	t.Helper()
	run(t, n, "topic", "create", topic, "-c", "firn.remote.max.unuploaded.ms=1000")
	produce(t, n, topic, "first")
}

// sink waits until the topic's record is in the bucket.
func sink(t *testing.T, n *node.Node, topic string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		var d struct {
			Partitions []struct {
				Tiered int64 `json:"tiered_up_to_offset"`
			} `json:"partitions"`
		}
		if err := json.Unmarshal([]byte(run(t, n, "topic", "storage", "describe", topic, "-o", "json")), &d); err != nil {
			t.Fatal(err)
		}
		if len(d.Partitions) == 1 && d.Partitions[0].Tiered > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing was uploaded")
		}
		<-time.After(20 * time.Millisecond)
	}
}

func run(t *testing.T, n *node.Node, args ...string) string {
	t.Helper()
	out, stderr, err := n.CLI(t.Context(), nil, args...)
	if err != nil {
		t.Fatalf("firn %s: %v: %s", strings.Join(args, " "), err, stderr)
	}
	return out
}

func produce(t *testing.T, n *node.Node, topic, value string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(n.Addr))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// TestASecondProcessOnADataDir: the first is frozen, so that whatever changes is
// the second's doing, and then goes on.
func TestASecondProcessOnADataDir(t *testing.T) {
	t.Parallel()
	for name, where := range map[string]func(t *testing.T) place{
		"default bucket": func(*testing.T) place { return place{} },
		"file":           folder, "s3": gateway,
	} {
		t.Run(name, func(t *testing.T) {
			w := where(t)
			var args []string
			if w.url != "" {
				args = []string{"--bucket", w.url}
			}
			n := node.New(t, args...)
			n.Env = w.env
			n.Up()
			fill(t, n, "orders")
			sink(t, n, "orders")
			other := node.New(t, args...)
			other.Env, other.DataDir = w.env, n.DataDir
			freeze(t, n)
			refused(t, other, w.folder, n.DataDir, "in use by another process", "stop that process or choose another --data-dir")
			// The same command line once more: the ports are taken too, and
			// still the data dir is what it is about.
			other.Addr, other.Admin = n.Addr, n.Admin
			refused(t, other, w.folder, "in use by another process")
			if err := n.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			produce(t, n, "orders", "second")
			if got := run(t, n, "topic", "consume", "orders", "-O", ":end", "-f", "%v\n"); got != "first\nsecond\n" {
				t.Errorf("the first process has %q", got)
			}
		})
	}
}

// freeze stops n with SIGSTOP and returns when all of it stands still.
func freeze(t *testing.T, n *node.Node) {
	t.Helper()
	if err := n.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", n.Pid()))
		if err != nil || len(tasks) == 0 {
			t.Fatalf("threads of firn: %v, %v", tasks, err)
		}
		moving := 0
		for _, task := range tasks {
			raw, err := os.ReadFile(task)
			if err != nil {
				t.Fatal(err)
			}
			if i := bytes.LastIndex(raw, []byte(") ")); i < 0 || raw[i+2] != 'T' {
				moving++
			}
		}
		if moving == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d threads still run", moving)
		}
		<-time.After(time.Millisecond)
	}
}

// TestAnotherClusterUnderThePrefix: a data dir with a life of its own comes to a
// bucket that is somebody else's.
func TestAnotherClusterUnderThePrefix(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, where place) {
		live(t, where)
		ours := folder(t)
		n := live(t, ours)
		n.Args = []string{"--bucket", where.url}
		n.Env = where.env
		refused(t, n, where.folder, "belongs to another cluster", "name another --cluster or another prefix in --bucket")
		// Where it belongs it starts.
		n.Args = []string{"--bucket", ours.url}
		n.Up()
		if got := run(t, n, "topic", "consume", "orders", "-O", ":end", "-f", "%v\n"); got != "first\n" {
			t.Errorf("after the refusal the data dir has %q", got)
		}
	})
}

// TestAWipedDataDir: the bucket lives, the data dir is gone, or an empty folder.
func TestAWipedDataDir(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, where place) {
		n := live(t, where)
		if err := os.RemoveAll(n.DataDir); err != nil {
			t.Fatal(err)
		}
		refused(t, n, where.folder, "belongs to another cluster", "this data dir is empty", "start with that cluster's data dir, or name another --cluster or another prefix in --bucket")
		if err := os.Mkdir(n.DataDir, 0o755); err != nil {
			t.Fatal(err)
		}
		refused(t, n, where.folder, "this data dir is empty")
	})
}

// TestAWipedDataDirAndNoClusterFile: topics without the file that says whose they
// are must not be taken for an empty prefix.
func TestAWipedDataDirAndNoClusterFile(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, where place) {
		n := uploaded(t, where)
		if err := os.RemoveAll(n.DataDir); err != nil {
			t.Fatal(err)
		}
		found := 0
		err := filepath.WalkDir(where.folder, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Name() == "cluster.json" {
				found++
				return os.Remove(path)
			}
			return err
		})
		if err != nil || found != 1 {
			t.Fatalf("%d cluster.json: %v", found, err)
		}
		refused(t, n, where.folder, "cluster.json", "put that file back, or name another --cluster or another prefix in --bucket")
	})
}

// TestAnEmptyBucketForALiveDataDir: another bucket, or one that was emptied. To
// go on without it is a decision, and the line says how to make it.
func TestAnEmptyBucketForALiveDataDir(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, where place) {
		n := uploaded(t, where)
		url, ok := strings.CutSuffix(where.url, "/bucket")
		if url += "/another"; !ok {
			url = strings.Replace(where.url, "/logs?", "/another?", 1)
		} else if err := os.MkdirAll(strings.TrimPrefix(url, "file://")+"/.firn", 0o755); err != nil { // a bucket, and empty
			t.Fatal(err)
		}
		n.Args = []string{"--bucket", url}
		memory := filepath.Join(n.DataDir, "bucket-memory")
		refused(t, n, where.folder, "has no firn/cluster.json", "this data dir has uploaded to one that has", "name that bucket or prefix in --bucket", "remove "+memory)
		if err := os.RemoveAll(memory); err != nil {
			t.Fatal(err)
		}
		n.Up()
		if got := run(t, n, "topic", "consume", "orders", "-O", ":end", "-f", "%v\n"); got != "first\n" {
			t.Errorf("without the bucket the data dir has %q", got)
		}
	})
}

// TestAnotherClusterName: --cluster does not fit the data dir. The bucket has
// nothing under that name, and must not get anything.
func TestAnotherClusterName(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, where place) {
		n := live(t, where)
		n.Args = append(n.Args, "--cluster", "other")
		refused(t, n, where.folder, "data dir belongs to another cluster or node", "made for --cluster firn", "start with those or choose another --data-dir")
	})
}

// TestCredentialsThatDoNotFit changes one of them, or gives none.
func TestCredentialsThatDoNotFit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := s3.ServeVersityGW(t, dir)
	bucket := e.NewBucket(t)
	none := []string{"AWS_REGION=" + s3.Region, "AWS_EC2_METADATA_DISABLED=true", "AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_PROFILE=", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null"}
	for _, driver := range []string{"aws", "minio"} {
		for _, tt := range []struct {
			what string
			env  []string
		}{
			{"a wrong secret", append(e.Env(), "AWS_SECRET_ACCESS_KEY=wrong")},
			{"an unknown key", append(e.Env(), "AWS_ACCESS_KEY_ID=nobody")},
			{"none", none},
		} {
			t.Run(driver+", "+tt.what, func(t *testing.T) {
				n := node.New(t, "--bucket", e.URLOf(bucket, "logs", driver))
				n.Env = tt.env
				refused(t, n, dir, "bucket s3://"+bucket, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
			})
		}
	}
	t.Run("of a live data dir", func(t *testing.T) {
		n := live(t, place{url: e.URLOf(bucket, "logs", ""), env: e.Env(), folder: dir})
		n.Env = append(n.Env, "AWS_SECRET_ACCESS_KEY=wrong")
		refused(t, n, dir, "AWS_SECRET_ACCESS_KEY")
		n.Env = e.Env()
		n.Up()
	})
}

// TestAMissingBucket: in a store that runs, in one that does not, and a folder
// without the folder it would be in.
func TestAMissingBucket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := s3.ServeVersityGW(t, dir)
	for _, driver := range []string{"aws", "minio"} {
		t.Run(driver, func(t *testing.T) {
			n := node.New(t, "--bucket", e.URLOf("firn-absent", "logs", driver))
			n.Env = e.Env()
			refused(t, n, dir, "bucket s3://firn-absent", "bucket not found", "create it first")
		})
		t.Run(driver+", no store", func(t *testing.T) {
			n := node.New(t, "--bucket", e.Through("http://"+closed(t)).URLOf("firn", "logs", driver))
			n.Env = e.Env()
			refused(t, n, dir, "unreachable", "check endpoint= and that the store runs")
		})
	}
	t.Run("a file instead", func(t *testing.T) {
		outer := t.TempDir()
		path := filepath.Join(outer, "bucket")
		if err := os.WriteFile(path, []byte("not a folder"), 0o644); err != nil {
			t.Fatal(err)
		}
		n := node.New(t, "--bucket", "file://"+path)
		refused(t, n, outer, "is not a folder")
	})
	t.Run("folder", func(t *testing.T) {
		outer := t.TempDir()
		n := node.New(t, "--bucket", "file://"+filepath.Join(outer, "not", "there"))
		refused(t, n, outer, "bucket not found", "create it first")
	})
	t.Run("of a live data dir", func(t *testing.T) {
		where := folder(t)
		n := uploaded(t, where)
		away := where.folder + ".away"
		if err := os.Rename(where.folder, away); err != nil {
			t.Fatal(err)
		}
		// An unmounted bucket looks like this, or like an empty folder. One that
		// is made anew would hide everything that was uploaded.
		refused(t, n, filepath.Dir(where.folder), "bucket not found", "mount it")
		if err := os.Mkdir(where.folder, 0o755); err != nil {
			t.Fatal(err)
		}
		refused(t, n, filepath.Dir(where.folder), "bucket not found", "mount it")
		if err := errors.Join(os.Remove(where.folder), os.Rename(away, where.folder)); err != nil {
			t.Fatal(err)
		}
		n.Up()
	})
}

func closed(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// forgetful is a store that does not know some headers: it drops them from what
// comes, signs the rest again, and passes it on.
func forgetful(t *testing.T, e s3.Endpoint, headers ...string) s3.Endpoint {
	t.Helper()
	target, err := url.Parse(e.URL)
	if err != nil {
		t.Fatal(err)
	}
	rp := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		for _, h := range headers {
			r.Out.Header.Del(h)
		}
		// A proxy's own headers are not signed; what was is signed anew.
		r.Out.Host = target.Host
		r.Out.Header.Del("Authorization")
		credentials := aws.Credentials{AccessKeyID: s3.AccessKey, SecretAccessKey: s3.SecretKey}
		if err := v4.NewSigner().SignHTTP(r.In.Context(), credentials, r.Out, r.In.Header.Get("X-Amz-Content-Sha256"), "s3", s3.Region, time.Now()); err != nil {
			t.Errorf("sign: %v", err)
		}
	}}
	server := httptest.NewServer(http.HandlerFunc(rp.ServeHTTP))
	t.Cleanup(server.Close)
	return e.Through(server.URL)
}

// TestAStoreWithoutConditionalPut ignores one of the conditions, or both.
func TestAStoreWithoutConditionalPut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := s3.ServeVersityGW(t, dir)
	bucket := e.NewBucket(t)
	for _, driver := range []string{"aws", "minio"} {
		for _, headers := range [][]string{{"If-None-Match"}, {"If-Match"}, {"If-Match", "If-None-Match"}} {
			t.Run(driver+", without "+strings.Join(headers, " and "), func(t *testing.T) {
				n := node.New(t, "--bucket", forgetful(t, e, headers...).URLOf(bucket, "logs", driver))
				n.Env = e.Env()
				refused(t, n, dir, "store lacks safe conditional writes", headers[0], "use a store that has them, such as Amazon S3, versitygw or MinIO")
			})
		}
		t.Run(driver+", with all it needs", func(t *testing.T) {
			n := node.New(t, "--bucket", forgetful(t, e).URLOf(bucket, driver, driver))
			n.Env = e.Env()
			n.Up() // the proxy alone is no reason
		})
	}
}

// TestAFormatOfTheFuture: an unknown major version is refused before any write.
func TestAFormatOfTheFuture(t *testing.T) {
	t.Parallel()
	rewrite := func(t *testing.T, path, from, to string) {
		t.Helper()
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		next := strings.Replace(string(raw), from, to, 1)
		if next == string(raw) {
			t.Fatalf("no %s in %s", from, raw)
		}
		if err := os.WriteFile(path, []byte(next), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("data dir", func(t *testing.T) {
		where := folder(t)
		n := live(t, where)
		rewrite(t, filepath.Join(n.DataDir, "meta.json"), `"major": 1`, `"major": 2`)
		refused(t, n, where.folder, "meta.json", "format 2.0", "start a newer firn")
	})
	t.Run("bucket", func(t *testing.T) {
		where := folder(t)
		n := live(t, where)
		rewrite(t, filepath.Join(where.folder, "firn", "cluster.json"), `"1.0"`, `"2.0"`)
		refused(t, n, where.folder, "cluster.json", "2.0", "newer firn")
	})
}

// TestAPortThatIsTaken leaves a data dir as it was, the mark of its clean stop
// included: the next start need not recover anything.
func TestAPortThatIsTaken(t *testing.T) {
	t.Parallel()
	where := folder(t)
	n := live(t, where)
	if _, ok := tree(t, n.DataDir, true)["clean.json"]; !ok {
		t.Fatal("no mark of a clean stop")
	}
	good := []string{n.Addr, n.Admin}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	n.Addr = ln.Addr().String()
	refused(t, n, where.folder, "address already in use", n.Addr, "choose another --kafka-addr")
	n.Addr, n.Admin = good[0], ln.Addr().String()
	refused(t, n, where.folder, "address already in use", n.Admin, "choose another --admin-addr")
	n.Addr, n.Admin = good[0], good[1]
	n.Up()
}

// TestWrongFlags are about the command line alone; all faults come at once.
func TestWrongFlags(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"--buckett", "x"}, []string{"unknown flag", `did you mean "--bucket"`, "--help"}},
		{[]string{"--bucket", "s3://b?endpont=http://x"}, []string{`did you mean "endpoint"`}},
		{[]string{"--bucket", "gs://b"}, []string{"unknown scheme", "use file:///PATH or s3://BUCKET/PREFIX"}},
		{[]string{"--set", "log.retention.hourz=1"}, []string{"log.retention.hourz"}},
		{[]string{"--cluster", "a b", "--log-level", "loud", "--cache-size", "much"}, []string{"--cluster", "--log-level", "--cache-size", "want debug, info, warn or error"}},
		{[]string{"--config", "/does/not/exist.yaml"}, []string{"/does/not/exist.yaml", "does not exist"}},
		{[]string{"--listener", "PLAINTEXT=:9092"}, []string{"name the host to listen at"}},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			refused(t, node.New(t, tt.args...), "", tt.want...)
		})
	}
}

// TestAStoreThatIsNone: something listens at the endpoint, but it is no store, or
// one that is not well. (One that never answers is given up after 30 s.)
func TestAStoreThatIsNone(t *testing.T) {
	t.Parallel()
	for what, answer := range map[string]func(w http.ResponseWriter){
		"500": func(w http.ResponseWriter) {
			w.WriteHeader(500)
			fmt.Fprint(w, "<Error><Code>InternalError</Code><Message>We encountered\nan internal error.</Message></Error>")
		},
		"503": func(w http.ResponseWriter) {
			w.WriteHeader(503)
			fmt.Fprint(w, "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>")
		},
		"a web page": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, "<!DOCTYPE html>\n<html><body>\nHello\n</body></html>")
		},
		"404":       func(w http.ResponseWriter) { http.Error(w, "404 page not found", 404) },
		"a 301":     func(w http.ResponseWriter) { w.Header().Set("Location", "http://127.0.0.1:1/"); w.WriteHeader(301) },
		"a hang-up": func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	} {
		for _, driver := range []string{"aws", "minio"} {
			t.Run(what+", "+driver, func(t *testing.T) {
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w) }))
				defer server.Close()
				e := s3.Endpoint{URL: server.URL}
				n := node.New(t, "--bucket", e.URLOf("firn", "logs", driver))
				n.Env = e.Env()
				line := refused(t, n, "", "bucket s3://firn/logs")
				// One library takes any 404 for a missing bucket.
				if !strings.Contains(line, "check endpoint=") && (what != "404" || !strings.Contains(line, "create it first")) {
					t.Errorf("no next step in: %s", line)
				}
			})
		}
	}
}

// TestTheMetadataIsGone: the one case that runs, because its bytes may be all
// there is, but serves nothing that could do harm: nothing is created over what
// was, no log and no object changes, /readyz says why. With the metadata put back
// everything is there again.
func TestTheMetadataIsGone(t *testing.T) {
	t.Parallel()
	where := folder(t)
	n := uploaded(t, where)
	nats := filepath.Join(n.DataDir, "nats")
	if err := os.Rename(nats, nats+".away"); err != nil {
		t.Fatal(err)
	}
	logs, bucket := tree(t, filepath.Join(n.DataDir, "log"), true), tree(t, where.folder, false)
	n.Launch()
	deadline := time.Now().Add(bound)
	for {
		resp, err := http.Get("http://" + n.Admin + "/readyz")
		if err == nil {
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusServiceUnavailable && strings.Contains(string(body), "metadata safe mode: the store has no bucket for a cluster that this broker knows") {
				break
			}
			if resp.StatusCode == http.StatusOK {
				t.Fatal("it is ready")
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("/readyz does not say why: %v", err)
		}
		<-time.After(10 * time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	for _, args := range [][]string{{"topic", "create", "orders"}, {"topic", "delete", "orders", "-y"}, {"topic", "consume", "orders", "-O", ":end"}} {
		out, stderr, err := n.CLI(ctx, nil, args...)
		if err == nil || ctx.Err() != nil || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "safe mode") {
			t.Errorf("firn %s: %v, %q, %q", strings.Join(args, " "), err, out, stderr)
		}
		t.Logf("firn %s: %s", strings.Join(args, " "), strings.TrimSpace(stderr))
	}
	n.Stop()
	if d := append(difference(logs, tree(t, filepath.Join(n.DataDir, "log"), true)), difference(bucket, tree(t, where.folder, false))...); len(d) > 0 {
		t.Errorf("changed:\n  %s", strings.Join(d, "\n  "))
	}
	if err := errors.Join(os.RemoveAll(nats), os.Rename(nats+".away", nats)); err != nil {
		t.Fatal(err)
	}
	n.Up()
	produce(t, n, "orders", "second")
	if got := run(t, n, "topic", "consume", "orders", "-O", ":end", "-f", "%v\n"); got != "first\nsecond\n" {
		t.Errorf("with the metadata put back there is %q", got)
	}
}
