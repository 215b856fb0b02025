// Package fulldisk tests a node whose disk is too small: a tmpfs of its own, which
// needs root. What the bucket covers makes room by itself; where nothing does,
// producers are refused while groups, readers and the recovery go on, and all
// resumes when there is room again (SAFETY 22).
package fulldisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sys/unix"

	"github.com/firnlog/firn/integration/ledger"
	"github.com/firnlog/firn/integration/node"
)

// smallDisk mounts a file system of mib MiB until the test ends.
func smallDisk(t *testing.T, mib int) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)); err != nil {
		t.Fatalf("mount a small tmpfs: %v (this test needs root)", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func newNode(t *testing.T, disk string) *node.Node {
	n := node.New(t, "--bucket", "file://"+filepath.Join(t.TempDir(), "bucket"), "--disk-reserve", "16MiB", "--cache-size", "64MiB")
	n.DataDir = filepath.Join(disk, "data")
	t.Cleanup(n.Kill) // before the disk goes
	n.Up()
	return n
}

func newClient(t *testing.T, n *node.Node, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(n.Addr), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MetadataMinAge(50 * time.Millisecond), kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond })}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func createTopic(t *testing.T, cl *kgo.Client, topic string, configs map[string]string) {
	t.Helper()
	set := map[string]*string{"segment.bytes": kadm.StringPtr("4194304")}
	for k, v := range configs {
		set[k] = &v
	}
	if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), 2, 1, set, topic); err != nil {
		t.Fatal(err)
	}
}

var value = bytes.Repeat([]byte("0123456789abcdef"), 1024) // 16 KiB

// level is firn_disk_level.
func level(t *testing.T, n *node.Node) string {
	t.Helper()
	resp, err := http.Get("http://" + n.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	for line := range strings.Lines(string(body)) {
		if v, ok := strings.CutPrefix(line, "firn_disk_level "); ok {
			return strings.TrimSpace(v)
		}
	}
	t.Fatal("no firn_disk_level")
	return ""
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Local retention would keep everything for a day, but three times what the disk
// holds goes through it, because the bucket has the rest.
func TestWhatTheBucketCoversMakesRoom(t *testing.T) {
	n := newNode(t, smallDisk(t, 160))
	cl := newClient(t, n)
	createTopic(t, cl, "logs", map[string]string{"firn.remote.max.unuploaded.ms": "1000"})
	l := ledger.New()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	const total = 480 << 20
	for i := 0; i < total/len(value); i++ {
		r := &kgo.Record{Topic: "logs", Key: fmt.Appendf(nil, "%d", i), Value: value}
		cl.Produce(ctx, r, l.Ack)
	}
	if err := cl.Flush(ctx); err != nil {
		t.Fatalf("%v; the disk's level is %s", err, level(t, n))
	}
	if got := l.Count(); got != total/int64(len(value)) {
		t.Fatalf("%d records acknowledged", got)
	}
	if err := l.Verify(ctx, "logs", kgo.SeedBrokers(n.Addr)); err != nil {
		t.Fatal(err)
	}
}

// Where nothing can go, producers are refused before the disk is full, and only
// they.
func TestProducersAreRefusedBeforeTheDiskIsFull(t *testing.T) {
	disk := smallDisk(t, 96)
	n := newNode(t, disk)
	cl := newClient(t, n, kgo.RecordDeliveryTimeout(3*time.Second), kgo.ConsumerGroup("g"), kgo.ConsumeTopics("local"), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	createTopic(t, cl, "local", map[string]string{"remote.storage.enable": "false"})
	createTopic(t, cl, "ballast", map[string]string{"remote.storage.enable": "false"})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	l := ledger.New()
	send := func(topic string) error {
		r := &kgo.Record{Topic: topic, Value: value}
		res := cl.ProduceSync(ctx, r)
		if err := res.FirstErr(); err != nil {
			return err
		}
		if topic == "local" {
			l.Ack(res[0].Record, nil)
		}
		return nil
	}
	if err := send("local"); err != nil {
		t.Fatal(err)
	}
	var refused error
	for range 200 << 20 / len(value) {
		if refused = send("ballast"); refused != nil {
			break
		}
	}
	if refused == nil {
		t.Fatal("more went to the disk than it holds")
	}
	if !errors.Is(refused, kerr.KafkaStorageError) && !errors.Is(refused, kgo.ErrRecordTimeout) {
		t.Fatalf("refused with %v", refused)
	}
	if got := level(t, n); got != "3" {
		t.Fatalf("the disk's level is %s", got)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(disk, &st); err != nil {
		t.Fatal(err)
	}
	if free := int64(st.Bavail) * st.Bsize; free < 8<<20 {
		t.Fatalf("%d KiB are free: the reserve was written", free>>10)
	}

	// Readers and groups go on.
	var seen *kgo.Record
	for seen == nil {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) { seen = r })
	}
	if err := cl.CommitRecords(ctx, seen); err != nil {
		t.Fatalf("a commit on a full disk: %v", err)
	}

	// A crash there loses nothing, and the recovery needs no room.
	n.Kill()
	n.Up()
	offsets, err := kadm.NewClient(cl).FetchOffsets(ctx, "g")
	if err != nil {
		t.Fatal(err)
	}
	if at, ok := offsets.Lookup("local", seen.Partition); !ok || at.At != seen.Offset+1 {
		t.Fatalf("the commit on the full disk is gone: %+v", offsets)
	}
	if err := l.Verify(ctx, "local", kgo.SeedBrokers(n.Addr)); err != nil {
		t.Fatal(err)
	}

	// Room comes back, and nobody has to do anything.
	if _, err := kadm.NewClient(cl).DeleteTopic(ctx, "ballast"); err != nil {
		t.Fatalf("delete a topic on a full disk: %v", err)
	}
	eventually(t, "producers stay refused", func() bool { return send("local") == nil })
	if err := l.Verify(ctx, "local", kgo.SeedBrokers(n.Addr)); err != nil {
		t.Fatal(err)
	}
}

// Somebody else takes the last byte: an append that does not fit is cut back.
func TestADiskFilledByOthersLosesNothing(t *testing.T) {
	disk := smallDisk(t, 96)
	n := newNode(t, disk)
	cl := newClient(t, n, kgo.RecordDeliveryTimeout(2*time.Second))
	createTopic(t, cl, "local", map[string]string{"remote.storage.enable": "false"})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	l := ledger.New()
	send := func() error {
		res := cl.ProduceSync(ctx, &kgo.Record{Topic: "local", Value: value})
		if err := res.FirstErr(); err != nil {
			return err
		}
		l.Ack(res[0].Record, nil)
		return nil
	}
	for range 3 {
		for range 20 {
			if err := send(); err != nil {
				t.Fatal(err)
			}
		}
		filler := filepath.Join(disk, "filler")
		f, err := os.Create(filler)
		if err != nil {
			t.Fatal(err)
		}
		for size := 1 << 20; size > 0; {
			if _, err := f.Write(make([]byte, size)); err != nil {
				size /= 2
			}
		}
		f.Close()
		if err := send(); err == nil {
			t.Fatal("a record was acknowledged with no byte free")
		}
		if err := l.Verify(ctx, "local", kgo.SeedBrokers(n.Addr)); err != nil {
			t.Fatalf("while the disk is full: %v", err)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		eventually(t, "producers stay refused", func() bool { return send() == nil })
	}
	n.Kill()
	n.Up()
	if err := l.Verify(ctx, "local", kgo.SeedBrokers(n.Addr)); err != nil {
		t.Fatal(err)
	}
}
