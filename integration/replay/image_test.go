package replay

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/exec"
	"github.com/testcontainers/testcontainers-go/wait"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/firnlog/firn/integration/ledger"
	"github.com/firnlog/firn/integration/node"
	"github.com/firnlog/firn/integration/s3"
)

// TestTheImageKeepsItsRecords runs firn from its own image: produce from outside
// by the advertised address, sink, stop, start, replay.
func TestTheImageKeepsItsRecords(t *testing.T) {
	s3.Environment()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	const image = "firn-test:image"
	build := osexec.CommandContext(ctx, filepath.Join("..", "..", "scripts", "image.sh"), image)
	build.Env = append(build.Environ(), "FIRN_BINARY="+node.Binary(t))
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// Clients connect to what Metadata says, so the outer port is known before.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
	ln.Close()
	addr := "127.0.0.1:" + port
	ctr, err := testcontainers.Run(ctx, image,
		testcontainers.WithCmd("up", "--listener", "OUTER=0.0.0.0:9092;advertise="+addr, "--listener", "INNER=127.0.0.1:19092"),
		testcontainers.WithExposedPorts("9092/tcp"),
		testcontainers.WithHostConfigModifier(func(h *container.HostConfig) {
			h.PortBindings = network.PortMap{network.MustParsePort("9092/tcp"): {{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: port}}}
		}),
		testcontainers.WithWaitStrategy(wait.ForLog(`"event":"ready"`).WithStartupTimeout(time.Minute)))
	testcontainers.CleanupContainer(t, ctr)
	if err != nil {
		t.Fatalf("%v%s", err, containerLog(ctr))
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	configs := map[string]*string{}
	for k, v := range map[string]string{"segment.bytes": "1048576", "local.retention.ms": "1", "firn.remote.max.unuploaded.ms": "2000"} {
		configs[k] = &v
	}
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 2, 1, configs, topic); err != nil {
		t.Fatalf("%v%s", err, containerLog(ctr))
	}
	l := ledger.New()
	sent := int64(0)
	flights(t, func(key, row []byte) bool {
		cl.Produce(ctx, &kgo.Record{Topic: topic, Key: key, Value: row}, l.Ack)
		sent += int64(len(key) + len(row))
		return sent < 8<<20
	})
	if err := cl.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	// The binary inside is its own client, by a listener that is only inside.
	for {
		code, out, err := ctr.Exec(ctx, []string{"/firn", "topic", "storage", "describe", topic, "-o", "json", "-X", "brokers=127.0.0.1:19092"}, exec.Multiplexed())
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(out)
		var all storage
		if err := json.Unmarshal(text, &all); code != 0 || err != nil {
			t.Fatalf("exit %d, %v: %s", code, err, text)
		}
		if cold, total := all.cold(); cold == total && total == l.Count() {
			break
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("the log stays on the local disk: %s%s", text, containerLog(ctr))
		}
	}
	stopped := 20 * time.Second
	if err := ctr.Stop(ctx, &stopped); err != nil {
		t.Fatal(err)
	}
	if text := containerLog(ctr); !strings.Contains(text, `"clean":true`) {
		t.Errorf("it did not stop cleanly:%s", text)
	}
	if err := ctr.Start(ctx); err != nil {
		t.Fatalf("%v%s", err, containerLog(ctr))
	}
	if err := l.Verify(ctx, topic, kgo.SeedBrokers(addr)); err != nil {
		t.Fatalf("%v%s", err, containerLog(ctr))
	}
}

func containerLog(ctr *testcontainers.DockerContainer) string {
	if ctr == nil {
		return ""
	}
	r, err := ctr.Logs(context.Background())
	if err != nil {
		return fmt.Sprintf("\n(no log: %v)", err)
	}
	defer r.Close()
	text, _ := io.ReadAll(r)
	return "\n" + string(text[max(0, len(text)-3000):])
}
