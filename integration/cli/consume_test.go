package cli

import (
	"encoding/json"
	"fmt"
	"math"
	"os/exec"
	"strings"
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
	cmd := exec.CommandContext(t.Context(), node.Binary(t), "topic", "consume", "ranged", "-p", "1", "-O", "12", "-n", "2", "-f", "%v", "-X", "brokers="+n.Addr)
	var out strings.Builder
	cmd.Stdout = &out
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stderr.Read(make([]byte, 1)); err != nil { // it waits now
		t.Fatal(err)
	}
	for _, v := range []string{"A", "B", "C", "D"} {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "ranged", Partition: 1, Value: []byte(v)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err != nil || out.String() != "CD" {
		t.Errorf("-O 12 -n 2 printed %q, %v; want CD", out.String(), err)
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
