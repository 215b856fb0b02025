package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/integration/node"
	"github.com/firnlog/firn/record"
)

func client(t *testing.T, n *node.Node) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(n.Addr), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// topicConsume: every shape that a record can have as JSON, and as text.
func topicConsume(t *testing.T, n *node.Node) {
	create(t, n, "shapes")
	binary := []byte{0xff, 0x00}
	cl := client(t, n)
	for _, r := range []*kgo.Record{
		{Key: []byte("key"), Value: []byte("<value> ü")},
		{Value: []byte{}},
		{Key: []byte("tombstone")},
		{Key: binary, Value: binary},
		{Value: []byte("h"), Headers: []kgo.RecordHeader{{Key: "text", Value: []byte("x")}, {Key: "empty", Value: []byte{}}, {Key: "null"}, {Key: "binary", Value: binary}}},
	} {
		r.Topic = "shapes"
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	plain := on(t, n, "topic", "consume", "shapes", "-O", ":end").ok(t)
	golden(t, "topic-consume", plain, "timestamp")
	if lines := strings.Count(plain, "\n"); lines != 5 {
		t.Errorf("5 records are %d lines", lines)
	}
	if got := on(t, n, "topic", "consume", "shapes", "-O", ":end", "-o", "json").ok(t); got != plain {
		t.Errorf("with -o json it is %s", got)
	}
	if got := on(t, n, "topic", "consume", "shapes", "-O", ":end", "-f", `%t/%p/%o %k\n`, "-n", "3").ok(t); got != "shapes/0/0 key\nshapes/0/1 \nshapes/0/2 tombstone\n" {
		t.Errorf("as text it is %q", got)
	}
	before := time.Now()
	if got := on(t, n, "topic", "consume", "shapes", "-O", "end", "--exit-after-idle", "300ms").ok(t); got != "" || time.Since(before) < 300*time.Millisecond {
		t.Errorf("printed %q in %v", got, time.Since(before))
	}
}

// ranges: each form of -O prints what it names, and one with an end comes to it.
func ranges(t *testing.T, n *node.Node) {
	create(t, n, "ranged", "-p", "2")
	create(t, n, "void", "-p", "2")
	cl := client(t, n)
	old := time.Now().Add(-48 * time.Hour).Truncate(time.Millisecond)
	for i := range 10 { // a record an hour, and only in partition 1
		r := &kgo.Record{Topic: "ranged", Partition: 1, Value: fmt.Append(nil, i), Timestamp: old.Add(time.Duration(i) * time.Hour)}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	ms := func(hours int) string { return fmt.Sprint(old.Add(time.Duration(hours) * time.Hour).UnixMilli()) }
	for o, want := range map[string]string{
		":end": "0123456789", "7:end": "789", "2-5": "234", "2-2": "", "8-99": "89", "10:end": "", "500:end": "", "500-600": "",
		"@-1h:end": "", "@" + ms(7) + ":end": "789", "@" + ms(2) + ":" + ms(5): "234", "@" + ms(-5) + ":" + ms(1): "0", "@" + ms(-5) + ":" + ms(-1): "",
		"@" + ms(8) + ":" + ms(1000): "89", "@" + ms(1000) + ":" + ms(2000): "", "@-50h:-45h": "0123",
	} {
		if got := on(t, n, "topic", "consume", "ranged", "-O", o, "-f", "%v").ok(t); got != want {
			t.Errorf("-O %s: %q, want %q", o, got, want)
		}
		if got := on(t, n, "topic", "consume", "void", "-O", o).ok(t); got != "" {
			t.Errorf("-O %s of an empty topic: %q", o, got)
		}
	}
	for o, want := range map[string]string{"start": "012", "8": "89", "+7": "789", "-2": "89", "-200": "012", "@" + ms(8): "89"} {
		if got := on(t, n, "topic", "consume", "ranged", "-p", "1", "-O", o, "-n", fmt.Sprint(len(want)), "-f", "%v").ok(t); got != want {
			t.Errorf("-O %s: %q, want %q", o, got, want)
		}
	}
	if got := on(t, n, "topic", "consume", "ranged", "-O", "+99", "--exit-after-idle", "200ms", "-f", "%v").ok(t); got != "" {
		t.Errorf("-O +99: %q", got)
	}

	// An offset that is still to come is waited for; what is there is not printed.
	r := on(t, n, "topic", "consume", "ranged", "-p", "1", "-O", "12", "--exit-after-idle", "300ms", "-f", "%v")
	r.fails(t, 0, "partition 1 of ranged ends at 10: waiting for offset 12")
	if r.out != "" {
		t.Errorf("-O 12 in a log that ends at 10 prints %q", r.out)
	}
	waiting := follow(t, n, "ranged", "-p", "1", "-O", "12", "-n", "2", "-f", "%v")
	waiting.says("waiting for offset 12")
	for _, v := range []string{"A", "B", "C", "D"} {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "ranged", Partition: 1, Value: []byte(v)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	waiting.read("CD")
	if err := waiting.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// follower is `firn topic consume` while it runs.
type follower struct {
	t           *testing.T
	cmd         *exec.Cmd
	out, stderr io.Reader
}

func follow(t *testing.T, n *node.Node, topic string, args ...string) *follower {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*bound)
	t.Cleanup(cancel)
	f := &follower{t: t, cmd: exec.CommandContext(ctx, node.Binary(t), append([]string{"topic", "consume", topic, "-X", "brokers=" + n.Addr}, args...)...)}
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := f.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	f.out, f.stderr = out, stderr
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *follower) signal(s syscall.Signal) {
	f.t.Helper()
	if err := f.cmd.Process.Signal(s); err != nil {
		f.t.Fatal(err)
	}
}

// read wants these as the next bytes on stdout.
func (f *follower) read(want string) {
	f.t.Helper()
	got := make([]byte, len(want))
	if k, err := io.ReadFull(f.out, got); err != nil || string(got) != want {
		f.t.Fatalf("printed %q, %v; want %q", got[:k], err, want)
	}
}

// says wants a line on stderr that holds this.
func (f *follower) says(want string) {
	f.t.Helper()
	var line []byte
	for one := make([]byte, 1); !bytes.HasSuffix(line, []byte("\n")); line = append(line, one[0]) {
		if _, err := f.stderr.Read(one); err != nil {
			break
		}
	}
	if !strings.Contains(string(line), want) {
		f.t.Fatalf("says %q, without %q", line, want)
	}
}

// TestAFollowerGoesOn over a restart of the broker and behind records that are
// deleted under it, and ends with an error when its topic is deleted, also when
// another is made under the name.
func TestAFollowerGoesOn(t *testing.T) {
	t.Parallel()
	n := node.Start(t)
	create(t, n, "followed")
	create(t, n, "replaced")
	f, r := follow(t, n, "followed", "-f", "%v"), follow(t, n, "replaced", "-f", "%v")
	for _, v := range []string{"a", "b"} {
		produce(t, n, "followed", v+"\n")
		produce(t, n, "replaced", v+"\n")
		f.read(v)
		r.read(v)
		n.Stop()
		n.Up()
	}

	// While it is stopped its place leaves the log, unless the broker's answer was
	// on its way.
	f.signal(syscall.SIGSTOP)
	produce(t, n, "followed", "c\nd\ne\n")
	on(t, n, "topic", "trim-prefix", "followed", "-O", "4", "-y").ok(t)
	n.Stop()
	n.Up()
	f.signal(syscall.SIGCONT)
	produce(t, n, "followed", "f\n")
	var got []byte
	for one := make([]byte, 1); !bytes.HasSuffix(got, []byte("f")); got = append(got, one[0]) {
		if _, err := io.ReadFull(f.out, one); err != nil {
			t.Fatalf("printed %q: %v", got, err)
		}
	}
	if string(got) == "ef" {
		f.says("begins at 4 now: offsets from 2 are gone")
	} else if string(got) != "cdef" {
		t.Errorf("printed %q", got)
	}

	r.signal(syscall.SIGSTOP)
	on(t, n, "topic", "delete", "followed", "replaced", "-y").ok(t)
	create(t, n, "replaced")
	r.signal(syscall.SIGCONT)
	f.says("topic followed does not exist")
	r.says("topic replaced was deleted and created anew")
	for _, f := range []*follower{f, r} {
		if err := f.cmd.Wait(); f.cmd.ProcessState.ExitCode() != 1 {
			t.Errorf("%v", err)
		}
	}
}

// farTimestamps: a record's timestamp is shown as the log has it, over all 64 bits,
// in JSON and in text, to a reader and to a member of a group.
func farTimestamps(t *testing.T, n *node.Node) {
	create(t, n, "far", "-c", fmt.Sprintf("message.timestamp.after.max.ms=%d", math.MaxInt64))
	stamps := []int64{0, math.MaxInt64, -1, 1 << 57, 1<<62 + 12345, time.Now().UnixMilli()}
	b := record.NewBuilder(record.NewBatchOptions())
	for i, ts := range stamps {
		b.Append(record.Record{TimestampDelta: ts, Value: fmt.Append(nil, i)})
	}
	cl := client(t, n)
	topics, err := kadm.NewClient(cl).ListTopics(t.Context(), "far")
	if err != nil {
		t.Fatal(err)
	}
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = b.Build()
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.TopicID, rt.Partitions = "far", topics["far"].ID, append(rt.Partitions, p)
	req := kmsg.NewProduceRequest()
	req.Acks, req.TimeoutMillis, req.Topics = -1, 10_000, append(req.Topics, rt)
	resp, err := req.RequestWith(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	if err := kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for i, ts := range stamps {
		fmt.Fprintln(&text, i, ts)
	}
	for _, where := range [][]string{{"-O", ":end"}, {"-g", "far", "-n", fmt.Sprint(len(stamps))}} {
		args := append([]string{"topic", "consume", "far"}, where...)
		if got := on(t, n, append(args, "-f", `%v %d\n`)...).ok(t); got != text.String() {
			t.Errorf("%v: printed\n%swant\n%s", where, got, text.String())
		}
		if where[0] == "-g" {
			args[len(args)-3] = "far-json" // that group has committed all
		}
		d := json.NewDecoder(strings.NewReader(on(t, n, append(args, "-o", "json")...).ok(t)))
		d.UseNumber()
		for i, ts := range stamps {
			var r struct {
				Timestamp json.Number `json:"timestamp"`
			}
			if err := d.Decode(&r); err != nil || r.Timestamp.String() != fmt.Sprint(ts) {
				t.Errorf("%v: record %d has timestamp %s, %v; want %d", where, i, r.Timestamp, err, ts)
			}
		}
	}
}
