package golden

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/integration/node"
	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/record"
)

var writing = flag.Bool("write", false, "write testdata of the version of FIRN_TEST_BINARY, which must be a release's")

// limit bounds what a version adds to the repository.
const limit = 150 << 10

// Topics of the state. All of them tier but compacted.
var topics = []string{"plain", "keyed", "headers", "codecs", "txn", "trimmed", "compacted", "empty"}

var groups = []string{"crew", "watch"}

func tiered(topic string) bool { return topic != "compacted" }

// began is the timestamp of the first record: a fixed one.
const began = 1_700_000_000_000

// TestWrite makes the state, checks that it reads back, and stores it.
func TestWrite(t *testing.T) {
	if !*writing {
		return // not a test of the product
	}
	raw, err := exec.Command(node.Binary(t), "version", "-o", "json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var v struct{ Version string }
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	if v.Version == "" || v.Version == "dev" || strings.HasSuffix(v.Version, "-dirty") {
		t.Fatalf("version %q is nobody's: build a commit with `make build`, and name bin/firn in FIRN_TEST_BINARY", v.Version)
	}
	out, err := filepath.Abs(filepath.Join("..", "testdata", "golden", v.Version))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Fatalf("%s is there; what a version wrote never changes", out)
	}

	// Relative names, or the metadata would keep this machine's.
	root := t.TempDir()
	t.Chdir(root)
	n := node.New(t, append([]string{"--bucket", "file://bucket"}, forever...)...)
	n.DataDir = "data"
	n.Up()
	fill(t, n)
	n.Stop()
	transactions(t, n)
	n.Up()
	sink(t, n)
	facts := read(t, n, topics, groups)
	n.Stop()
	if err := os.RemoveAll(filepath.Join(n.DataDir, "cache")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		t.Fatal(err)
	}
	pack(t, root, filepath.Join(out, stateFile), "data", "bucket")
	text := strings.Join(facts, "\n") + "\n"
	if err := os.WriteFile(filepath.Join(out, expectFile), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(out, stateFile))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d bytes of state, %d facts in %d bytes", out, st.Size(), len(facts), len(text))
	if size := st.Size() + int64(len(text)); size > limit {
		t.Errorf("%d bytes are more than a version may add (%d)", size, limit)
	}
}

// fill makes the topics, their records and the groups' offsets through clients.
func fill(t *testing.T, n *node.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := func(opts ...kgo.Opt) *kgo.Client {
		cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(n.Addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cl.Close)
		return cl
	}
	adm := kadm.NewClient(client())
	for i, topic := range append(topics, "deleted") {
		configs := map[string]*string{}
		for k, v := range map[string]string{
			"internal.segment.bytes": "2000", "retention.ms": "-1", "local.retention.ms": "-1", "firn.remote.max.unuploaded.ms": "1000",
			"message.timestamp.after.max.ms": fmt.Sprint(1 << 50), "max.message.bytes": fmt.Sprint(1<<20 + i),
		} {
			configs[k] = &v
		}
		if !tiered(topic) {
			compact := "compact"
			configs["cleanup.policy"] = &compact
		}
		partitions := map[string]int32{"keyed": 3, "codecs": 5}[topic]
		if _, err := adm.CreateTopic(ctx, max(partitions, 1), 1, configs, topic); err != nil {
			t.Fatal(err)
		}
	}
	seq := int64(0)
	produce := func(cl *kgo.Client, records ...*kgo.Record) {
		t.Helper()
		for _, r := range records {
			r.Timestamp = time.UnixMilli(began + seq)
			seq++
		}
		if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	cl := client(kgo.ProducerBatchCompression(kgo.NoCompression()))
	for i := range 20 {
		produce(cl, &kgo.Record{Topic: "plain", Value: fmt.Appendf(nil, "plain %d %s", i, strings.Repeat("p", 10*i))})
		produce(cl, &kgo.Record{Topic: "keyed", Partition: int32(i % 3), Key: fmt.Appendf(nil, "key-%d", i%4), Value: fmt.Appendf(nil, "value %d", i)})
		produce(cl, &kgo.Record{Topic: "trimmed", Value: fmt.Appendf(nil, "trimmed %d", i)}, &kgo.Record{Topic: "deleted", Value: []byte("gone")},
			&kgo.Record{Topic: "compacted", Key: fmt.Appendf(nil, "key-%d", i%4), Value: fmt.Appendf(nil, "state %d", i)})
	}
	for _, r := range []kgo.Record{
		{Key: nil, Value: nil}, {Key: []byte{}, Value: []byte{}}, {Key: []byte("tombstone")}, {Value: []byte{0, 0xff, '\n'}},
		{Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "a", Value: []byte("2")}, {Key: "", Value: nil}, {Key: "empty", Value: []byte{}}}},
		{Key: []byte("ключ"), Value: []byte("Wert ß"), Headers: []kgo.RecordHeader{{Key: "заголовок", Value: []byte{0}}}},
	} {
		r.Topic = "headers"
		produce(cl, &r)
	}
	for i, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		cl := client(kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(100*time.Millisecond))
		for round := range 3 {
			var batch []*kgo.Record
			for j := range 5 {
				batch = append(batch, &kgo.Record{Topic: "codecs", Partition: int32(i), Key: fmt.Appendf(nil, "%d", j), Value: []byte(strings.Repeat(fmt.Sprintf("codec %d round %d. ", i, round), 20))})
			}
			produce(cl, batch...)
		}
	}
	trim := kadm.Offsets{}
	trim.AddOffset("trimmed", 0, 7, -1)
	if d, err := adm.DeleteRecords(ctx, trim); err != nil || d.Error() != nil {
		t.Fatal(err, d.Error())
	}
	if d, err := adm.DeleteTopics(ctx, "deleted"); err != nil || d["deleted"].Err != nil {
		t.Fatal(err, d["deleted"].Err)
	}
	for i, g := range groups {
		offsets := kadm.Offsets{}
		for p := range int32(3) {
			offsets.Add(kadm.Offset{Topic: "keyed", Partition: p, At: int64(i + int(p)), LeaderEpoch: -1, Metadata: fmt.Sprintf("of %s", g)})
		}
		offsets.Add(kadm.Offset{Topic: "plain", At: 11, LeaderEpoch: 0})
		if err := adm.CommitAllOffsets(ctx, g, offsets); err != nil {
			t.Fatal(err)
		}
	}
}

// transactions appends to the log of the stopped node what a transaction
// coordinator would: one that committed, one that aborted across segments, one
// more of the same producer.
func transactions(t *testing.T, n *node.Node) {
	t.Helper()
	metas, err := filepath.Glob(filepath.Join(n.DataDir, "log", "*", "0", "partition.meta"))
	if err != nil {
		t.Fatal(err)
	}
	dir := ""
	for _, path := range metas {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(raw), "\x00\x03txn") {
			dir = filepath.Dir(path)
		}
	}
	id, err := hex.DecodeString(filepath.Base(filepath.Dir(dir)))
	if dir == "" || err != nil {
		t.Fatalf("no log of txn: %q, %v", dir, err)
	}
	flusher := commitlog.NewFlusher(1)
	defer flusher.Close()
	l, _, err := commitlog.Open(t.Context(), commitlog.Config{
		FS: disk.OS(), Dir: dir, TopicID: [16]byte(id), Topic: "txn", Now: time.Now, Logger: slog.New(slog.DiscardHandler), Flusher: flusher, Clean: true, SegmentBytes: 2000,
	})
	if err != nil {
		t.Fatal(err)
	}
	epoch := int32(0)
	if e := l.Epochs(); len(e) > 0 {
		epoch = e[len(e)-1].Epoch
	}
	seq := map[int64]int32{}
	add := func(producer int64, count int) {
		o := record.NewBatchOptions()
		o.ProducerID, o.ProducerEpoch, o.BaseSequence, o.Transactional = producer, 0, seq[producer], true
		b := record.NewBuilder(o)
		for range count {
			b.Append(record.Record{TimestampDelta: began + int64(seq[producer]), Key: fmt.Appendf(nil, "producer %d", producer), Value: fmt.Appendf(nil, "sequence %d", seq[producer])})
			seq[producer]++
		}
		if _, err := l.Append(epoch, b.Build()); err != nil {
			t.Fatal(err)
		}
	}
	end := func(producer int64, typ record.ControlType) {
		if _, err := l.Append(epoch, record.ControlMarker(record.Marker{Type: typ, ProducerID: producer, CoordinatorEpoch: 1, Timestamp: began})); err != nil {
			t.Fatal(err)
		}
	}
	add(900, 3)
	add(901, 2)
	end(900, record.Commit)
	for range 30 {
		add(901, 2)
		add(902, 1)
	}
	end(901, record.Abort)
	end(902, record.Commit)
	add(901, 4)
	end(901, record.Commit)
	add(900, 1)
	end(900, record.Abort)
	if err := errors.Join(l.Sync(t.Context()), l.Close(true)); err != nil {
		t.Fatal(err)
	}
}

// sink waits until the bucket has everything.
func sink(t *testing.T, n *node.Node) {
	t.Helper()
	for _, topic := range topics {
		if tiered(topic) {
			wait(t, topic+" is in the bucket", func() bool {
				return storage(t, n, topic, func(r row) bool { return r.End == r.Start || r.Tiered == r.End })
			})
		}
	}
}

type row struct {
	Start  int64 `json:"log_start_offset"`
	Local  int64 `json:"local_start_offset"`
	Tiered int64 `json:"tiered_up_to_offset"`
	End    int64 `json:"end_offset"`
}

// storage says whether every partition of the topic is as is asks.
func storage(t *testing.T, n *node.Node, topic string, is func(row) bool) bool {
	t.Helper()
	out, stderr, err := n.CLI(t.Context(), nil, "topic", "storage", "describe", topic, "-o", "json")
	if err != nil {
		t.Fatalf("%v: %s", err, stderr)
	}
	var d struct{ Partitions []row }
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		t.Fatal(err)
	}
	for _, r := range d.Partitions {
		if !is(r) {
			return false
		}
	}
	return len(d.Partitions) > 0
}

func wait(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		<-time.After(30 * time.Millisecond)
	}
}
