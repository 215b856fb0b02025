// Package extremes takes the numbers of a log to where 32 bits, the integers of
// a float64 and 64 bits end: offsets, timestamps and retention, over both tiers,
// each bucket driver, the protocol and the JSON of the command line.
package extremes

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/integration/node"
	"github.com/firnlog/firn/integration/s3"
	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/record"
)

const (
	// noTime is a record without a timestamp, farAway the last one there is.
	noTime  = int64(-1)
	farAway = int64(math.MaxInt64)
	// wideTime is the last timestamp that the client library's own times can hold.
	wideTime = int64(1)<<57 - 1
	max64    = "9223372036854775807"
)

// bases are where the logs begin: each crosses its border with the records of
// the test.
var bases = []int64{0, 1<<31 - 3, 1<<32 - 3, 1<<53 - 1, math.MaxInt64 - 999}

func name(base int64) string { return fmt.Sprintf("from-%d", base) }

func client(t *testing.T, n *node.Node) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(n.Addr), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func create(t *testing.T, n *node.Node, topic string, configs map[string]string) [16]byte {
	t.Helper()
	c := map[string]*string{}
	for k, v := range configs {
		c[k] = &v
	}
	r, err := kadm.NewClient(client(t, n)).CreateTopic(within(t), 1, 1, c, topic)
	if err != nil {
		t.Fatalf("create %s with %v: %v", topic, configs, err)
	}
	return r.ID
}

// beginAt makes the empty log of a topic begin at base, as a log that was lost
// begins where the bucket ends. The node must be stopped.
func beginAt(t *testing.T, n *node.Node, topic string, id [16]byte, base int64) {
	t.Helper()
	dir := filepath.Join(n.DataDir, "log", hex.EncodeToString(id[:]), "0")
	if _, err := os.Stat(dir); err != nil {
		t.Fatal(err)
	}
	flusher := commitlog.NewFlusher(1)
	defer flusher.Close()
	l, _, err := commitlog.Open(t.Context(), commitlog.Config{
		FS: disk.OS(), Dir: dir, TopicID: id, Topic: topic, Now: time.Now, Logger: slog.New(slog.DiscardHandler), Flusher: flusher, Clean: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Reset(base, base, nil, nil), l.Close(true)); err != nil {
		t.Fatal(err)
	}
}

// produce appends one batch of records with these timestamps, as a raw request:
// a client library would not send all of them. The values are "value N".
func produce(t *testing.T, cl *kgo.Client, topic string, first int, timestamps ...int64) (base int64, err error) {
	t.Helper()
	b := record.NewBuilder(record.NewBatchOptions())
	for i, ts := range timestamps {
		b.Append(record.Record{TimestampDelta: ts, Value: fmt.Appendf(nil, "value %d", first+i)})
	}
	id := topicID(t, cl, topic)
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = b.Build()
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.TopicID, rt.Partitions = topic, id, append(rt.Partitions, p)
	req := kmsg.NewProduceRequest()
	req.Acks, req.TimeoutMillis, req.Topics = -1, 10_000, append(req.Topics, rt)
	resp, err := req.RequestWith(within(t), cl)
	if err != nil {
		t.Fatalf("produce to %s: %v", topic, err)
	}
	got := resp.Topics[0].Partitions[0]
	return got.BaseOffset, kerr.ErrorForCode(got.ErrorCode)
}

func topicID(t *testing.T, cl *kgo.Client, topic string) [16]byte {
	t.Helper()
	ts, err := kadm.NewClient(cl).ListTopics(within(t), topic)
	if err != nil || ts[topic].Err != nil {
		t.Fatalf("%s: %v, %v", topic, err, ts[topic].Err)
	}
	return ts[topic].ID
}

type row struct {
	offset, timestamp int64
	value             string
}

// fetch reads [from, end) with raw requests.
func fetch(t *testing.T, cl *kgo.Client, topic string, from, end int64) (rows []row) {
	t.Helper()
	id := topicID(t, cl, topic)
	ctx := within(t)
	for next := from; next < end; {
		p := kmsg.NewFetchRequestTopicPartition()
		p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch, p.LastFetchedEpoch = next, 1<<20, -1, -1
		rt := kmsg.NewFetchRequestTopic()
		rt.Topic, rt.TopicID, rt.Partitions = topic, id, append(rt.Partitions, p)
		req := kmsg.NewFetchRequest()
		req.MaxBytes, req.MinBytes, req.MaxWaitMillis, req.SessionEpoch = 1<<20, 1, 500, -1
		req.Topics = append(req.Topics, rt)
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			t.Fatalf("fetch %s at %d: %v", topic, next, err)
		}
		if len(resp.Topics) == 0 {
			continue
		}
		got := resp.Topics[0].Partitions[0]
		if err := kerr.ErrorForCode(got.ErrorCode); err != nil {
			t.Fatalf("fetch %s at %d: %v", topic, next, err)
		}
		for rest := got.RecordBatches; len(rest) > 0; {
			b, more, err := record.Parse(rest)
			if err != nil {
				t.Fatalf("%s at %d: %v", topic, next, err)
			}
			rest = more
			if b.NextOffset() <= next {
				continue // the batch that holds next may begin before it
			}
			for r, err := range b.Records(1 << 20) {
				if err != nil {
					t.Fatal(err)
				}
				if o := b.Offset(r); o >= next {
					rows = append(rows, row{o, b.Timestamp(r), string(r.Value)})
				}
			}
			next = b.NextOffset()
		}
	}
	return rows
}

// list is ListOffsets for one timestamp.
func list(t *testing.T, cl *kgo.Client, topic string, ts int64) (offset, at int64) {
	t.Helper()
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Timestamp = ts
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic, rt.Partitions = topic, append(rt.Partitions, p)
	req := kmsg.NewListOffsetsRequest()
	req.ReplicaID = -1
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(within(t), cl)
	if err != nil {
		t.Fatalf("ListOffsets %d of %s: %v", ts, topic, err)
	}
	got := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(got.ErrorCode); err != nil {
		t.Fatalf("ListOffsets %d of %s: %v", ts, topic, err)
	}
	return got.Offset, got.Timestamp
}

// exact decodes the JSON of a command with its numbers as they stand there.
func exact(t *testing.T, raw string) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	return v
}

// number is the text of a JSON number at a path of fields and indexes.
func number(t *testing.T, v any, path ...any) string {
	t.Helper()
	for _, step := range path {
		switch s := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[s]
		case int:
			l, _ := v.([]any)
			if s >= len(l) {
				t.Fatalf("no %v", path)
			}
			v = l[s]
		}
	}
	n, ok := v.(json.Number)
	if !ok {
		t.Fatalf("%v is %v (%T), not a number", path, v, v)
	}
	return n.String()
}

func cli(t *testing.T, n *node.Node, args ...string) string {
	t.Helper()
	out, stderr, err := n.CLI(within(t), nil, args...)
	if err != nil {
		t.Fatalf("firn %s: %v: %s", strings.Join(args, " "), err, stderr)
	}
	return out
}

func dec(n int64) string { return strconv.FormatInt(n, 10) }

// TestNumbersKeepTheirValue follows records at extreme offsets with extreme
// timestamps down to the bucket and back.
func TestNumbersKeepTheirValue(t *testing.T) {
	t.Parallel()
	for driver, where := range map[string]func(t *testing.T) (url string, env []string){
		"file": func(t *testing.T) (string, []string) { return "file://" + filepath.Join(t.TempDir(), "bucket"), nil },
		"aws": func(t *testing.T) (string, []string) {
			e := s3.ServeVersityGW(t, t.TempDir())
			return e.URLOf(e.NewBucket(t), "logs", "aws"), e.Env()
		},
		"minio": func(t *testing.T) (string, []string) {
			e := s3.ServeVersityGW(t, t.TempDir())
			return e.URLOf(e.NewBucket(t), "logs", "minio"), e.Env()
		},
	} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			url, env := where(t)
			n := node.New(t, "--bucket", url)
			n.Env = env
			n.Up()
			numbers(t, n, url)
		})
	}
}

func numbers(t *testing.T, n *node.Node, url string) {
	ids := map[int64][16]byte{}
	for i, base := range bases {
		forever := []string{"-1", max64}
		ids[base] = create(t, n, name(base), map[string]string{
			"retention.ms": forever[i%2], "retention.bytes": forever[(i+1)/2%2], "local.retention.bytes": "0", "local.retention.ms": max64,
			"firn.remote.max.unuploaded.ms": "1000", "message.timestamp.after.max.ms": max64, "message.timestamp.before.max.ms": max64,
		})
	}
	n.Stop()
	for base, id := range ids {
		beginAt(t, n, name(base), id, base)
	}
	n.Up()

	now := time.Now().UnixMilli()
	// A batch each, and two that span all there is; the differences of the last
	// one leave 64 bits.
	batches := [][]int64{{noTime}, {0}, {now}, {wideTime}, {0, farAway, now}, {noTime, farAway}}
	var stamps []int64
	cl := client(t, n)
	for _, base := range bases {
		stamps = stamps[:0]
		for _, b := range batches {
			at, err := produce(t, cl, name(base), len(stamps), b...)
			if err != nil || at != base+int64(len(stamps)) {
				t.Fatalf("%s: appended at %d, %v; want %d", name(base), at, err, base+int64(len(stamps)))
			}
			stamps = append(stamps, b...)
		}
	}
	count := int64(len(stamps))
	check := func(t *testing.T, n *node.Node, tier string) {
		cl := client(t, n)
		for _, base := range bases {
			topic := name(base)
			var want []row
			for i, ts := range stamps {
				want = append(want, row{base + int64(i), ts, fmt.Sprintf("value %d", i)})
			}
			for from := range want { // each offset by itself finds its place
				if got := fetch(t, cl, topic, base+int64(from), base+count); !slices.Equal(got, want[from:]) {
					t.Fatalf("%s, %s from %d: read %v, want %v", topic, tier, base+int64(from), got, want[from:])
				}
			}
			for _, q := range []struct{ ts, offset, at int64 }{
				{-1, base + count, -1}, {-2, base, -1}, {-3, base + 5, farAway},
				{0, base + 1, 0}, {1, base + 2, now}, {now, base + 2, now}, {now + 1, base + 3, wideTime},
				{wideTime + 1, base + 5, farAway}, {farAway, base + 5, farAway},
			} {
				if offset, at := list(t, cl, topic, q.ts); offset != q.offset || at != q.at {
					t.Errorf("%s, %s: ListOffsets %d says %d with timestamp %d, want %d with %d", topic, tier, q.ts, offset, at, q.offset, q.at)
				}
			}
		}
	}
	check(t, n, "hot")

	// Down: nothing but the bucket has the records then.
	deadline := time.Now().Add(20 * time.Second)
	for _, base := range bases {
		for {
			if local, _ := list(t, cl, name(base), -4); local == base+count {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s does not sink: %s", name(base), cli(t, n, "topic", "storage", "describe", name(base)))
			}
			<-time.After(50 * time.Millisecond)
		}
	}
	cl.Close()
	n.Stop()
	if err := os.RemoveAll(filepath.Join(n.DataDir, "cache")); err != nil {
		t.Fatal(err)
	}
	n.Up()
	check(t, n, "cold")

	cl = client(t, n)
	for _, base := range bases {
		topic, end := name(base), base+count
		for ts, want := range map[int64]int64{-4: end, -5: end - 1, -6: end} {
			if got, _ := list(t, cl, topic, ts); got != want {
				t.Errorf("%s: ListOffsets %d says %d, want %d", topic, ts, got, want)
			}
		}
		storage := exact(t, cli(t, n, "topic", "storage", "describe", topic, "-o", "json"))
		for field, want := range map[string]int64{
			"log_start_offset": base, "local_start_offset": end, "tiered_up_to_offset": end, "pending_upload_offset": end, "end_offset": end,
		} {
			if got := number(t, storage, "partitions", 0, field); got != dec(want) {
				t.Errorf("%s: storage describe says %s %s, want %d", topic, field, got, want)
			}
		}
		described := exact(t, cli(t, n, "topic", "describe", topic, "-o", "json"))
		for field, want := range map[string]int64{"log_start_offset": base, "high_watermark": end} {
			if got := number(t, described, 0, "partitions", 0, field); got != dec(want) {
				t.Errorf("%s: describe says %s %s, want %d", topic, field, got, want)
			}
		}
		ls := bucketLs(t, n, url, topic)
		if got := number(t, ls, 0, "partitions", 0, "tiered_up_to_offset"); got != dec(end) {
			t.Errorf("%s: bucket ls says %s, want %d", topic, got, end)
		}
		if got := number(t, ls, 0, "partitions", 0, "named", 0, "base_offset"); got != dec(base) {
			t.Errorf("%s: the first object begins at %s, want %d", topic, got, base)
		}

		lines := strings.Split(strings.TrimSpace(cli(t, n, "topic", "consume", topic, "-O", dec(base)+"-"+dec(base+int64(len(stamps))), "-o", "json")), "\n")
		if len(lines) != len(stamps) {
			t.Fatalf("%s: consume printed %d lines of %d: %v", topic, len(lines), len(stamps), lines)
		}
		for i, line := range lines {
			r := exact(t, line)
			if o, ts := number(t, r, "offset"), number(t, r, "timestamp"); o != dec(base+int64(i)) || ts != dec(stamps[i]) {
				t.Errorf("%s: consume says offset %s, timestamp %s; want %d, %d", topic, o, ts, base+int64(i), stamps[i])
			}
		}
		if got, want := cli(t, n, "topic", "consume", topic, "-O", "@"+dec(now+1)+":end", "-n", "1", "-f", "%o %d\n"), fmt.Sprintf("%d %d\n", base+3, wideTime); got != want {
			t.Errorf("%s: consume by time says %q, want %q", topic, got, want)
		}

		// A group's offsets and lag, and the log start after DeleteRecords.
		adm := kadm.NewClient(cl)
		var at kadm.Offsets
		at.AddOffset(topic, 0, base+4, -1)
		if err := adm.CommitAllOffsets(within(t), "g-"+topic, at); err != nil {
			t.Fatal(err)
		}
		group := cli(t, n, "group", "describe", "g-"+topic, "-o", "json")
		for _, want := range []int64{base + 4, end, count - 4} {
			if !strings.Contains(group, " "+dec(want)+",") && !strings.Contains(group, " "+dec(want)+"\n") {
				t.Errorf("%s: %d is not in %s", topic, want, group)
			}
		}
		trim := kadm.Offsets{}
		trim.AddOffset(topic, 0, base+2, -1)
		if d, err := adm.DeleteRecords(within(t), trim); err != nil || d[topic][0].Err != nil || d[topic][0].LowWatermark != base+2 {
			t.Errorf("%s: DeleteRecords: %+v, %v", topic, d, err)
		}
		if got, _ := list(t, cl, topic, -2); got != base+2 {
			t.Errorf("%s: after DeleteRecords it begins at %d, want %d", topic, got, base+2)
		}
		if got := number(t, bucketLs(t, n, url, topic), 0, "partitions", 0, "log_start_offset"); got != dec(base+2) {
			t.Errorf("%s: the manifest begins at %s, want %d", topic, got, base+2)
		}
	}
}

func bucketLs(t *testing.T, n *node.Node, url, topic string) any {
	t.Helper()
	cmd := n.Command()
	cmd.Args = []string{cmd.Args[0], "bucket", "ls", topic, "--objects", "--bucket", url, "-o", "json"}
	raw, err := cmd.Output()
	if err != nil {
		t.Fatalf("bucket ls: %v", err)
	}
	return exact(t, string(raw))
}

// TestNothingExpiresForEver gives every bound in time and size its greatest
// value, where one more millisecond, or nanoseconds, would turn the sign.
func TestNothingExpiresForEver(t *testing.T) {
	t.Parallel()
	names := []string{
		"retention.ms", "retention.bytes", "local.retention.ms", "local.retention.bytes", "segment.ms", "segment.jitter.ms", "delete.retention.ms", "file.delete.delay.ms",
		"flush.ms", "flush.messages", "remote.copy.lag.ms", "remote.copy.lag.bytes", "firn.remote.max.unuploaded.ms", "message.timestamp.after.max.ms",
		"message.timestamp.before.max.ms", "max.compaction.lag.ms", "min.compaction.lag.ms",
	}
	n := node.Start(t)
	all := map[string]string{}
	for _, name := range names {
		all[name] = max64
	}
	create(t, n, "forever", all)
	create(t, n, "minus-one", map[string]string{"retention.ms": "-1", "retention.bytes": "-1", "local.retention.ms": "-1", "local.retention.bytes": "-1"})
	// Beside them one that lets go at once, to know that retention has run.
	create(t, n, "brief", map[string]string{"retention.ms": "1", "remote.storage.enable": "false"})
	create(t, n, "brief-tiered", map[string]string{"retention.ms": "1"})
	cl := client(t, n)
	keep := []string{"forever", "minus-one"}
	for _, topic := range append(keep, "brief", "brief-tiered") {
		if _, err := produce(t, cl, topic, 0, 0, 1, time.Now().UnixMilli()); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		a, _ := list(t, cl, "brief", -2)
		b, _ := list(t, cl, "brief-tiered", -2)
		if a == 3 && b == 3 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("retention of one millisecond has come to %d and %d of 3", a, b)
		}
		<-time.After(50 * time.Millisecond)
	}
	for _, topic := range keep {
		for _, ts := range []int64{-2, -4} {
			if got, _ := list(t, cl, topic, ts); got != 0 {
				t.Errorf("%s: ListOffsets %d says %d: something has expired", topic, ts, got)
			}
		}
		if got := fetch(t, cl, topic, 0, 3); len(got) != 3 {
			t.Errorf("%s: %v", topic, got)
		}
	}
	var described []struct {
		Configs []struct{ Key, Value string } `json:"configs"`
	}
	if err := json.Unmarshal([]byte(cli(t, n, "topic", "describe", "forever", "-o", "json")), &described); err != nil {
		t.Fatal(err)
	}
	shown := map[string]string{}
	for _, c := range described[0].Configs {
		shown[c.Key] = c.Value
	}
	for _, name := range names {
		if shown[name] != max64 {
			t.Errorf("describe says %s=%s, want %s", name, shown[name], max64)
		}
	}
	adm := kadm.NewClient(cl)
	for _, v := range []string{"9223372036854775808", "-2", "1e3", "1.5", ""} {
		r, err := adm.AlterTopicConfigs(within(t), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &v}}, "forever")
		if err != nil || !errors.Is(r[0].Err, kerr.InvalidConfig) {
			t.Errorf("retention.ms=%q: %v, %v; want INVALID_CONFIG", v, err, r[0].Err)
		}
	}
}

// TestTheLastOffset fills a log to its last offset: what does not fit is refused
// whole, and everything that fitted stays readable.
func TestTheLastOffset(t *testing.T) {
	t.Parallel()
	const beyond = math.MaxInt64 // no log grows that far; one that is there must harm nothing
	n := node.Start(t)
	first := commitlog.MaxOffset - 3
	last, past := create(t, n, "last", nil), create(t, n, "past", nil)
	n.Stop()
	beginAt(t, n, "last", last, first)
	beginAt(t, n, "past", past, beyond)
	n.Up()
	cl := client(t, n)
	if at, err := produce(t, cl, "last", 0, 1, 2); err != nil || at != first {
		t.Fatalf("at %d, %v", at, err)
	}
	if _, err := produce(t, cl, "last", 2, 3, 4); !errors.Is(err, kerr.InvalidRecord) {
		t.Errorf("two records at the last offset: %v, want INVALID_RECORD", err)
	}
	if at, err := produce(t, cl, "last", 2, 3); err != nil || at != commitlog.MaxOffset-1 {
		t.Errorf("the last record: at %d, %v", at, err)
	}
	if _, err := produce(t, cl, "last", 3, 4); !errors.Is(err, kerr.InvalidRecord) {
		t.Errorf("a record behind the last offset: %v, want INVALID_RECORD", err)
	}
	if _, err := produce(t, cl, "past", 0, 1); !errors.Is(err, kerr.InvalidRecord) {
		t.Errorf("a record at 2^63-1: %v, want INVALID_RECORD", err)
	}
	for range 2 {
		want := []row{{first, 1, "value 0"}, {first + 1, 2, "value 1"}, {first + 2, 3, "value 2"}}
		if got := fetch(t, cl, "last", first, commitlog.MaxOffset); !slices.Equal(got, want) {
			t.Errorf("read %v, want %v", got, want)
		}
		for topic, bounds := range map[string][2]int64{"last": {first, commitlog.MaxOffset}, "past": {beyond, beyond}} {
			start, _ := list(t, cl, topic, -2)
			end, _ := list(t, cl, topic, -1)
			if start != bounds[0] || end != bounds[1] {
				t.Errorf("%s is [%d, %d), want [%d, %d)", topic, start, end, bounds[0], bounds[1])
			}
			described := exact(t, cli(t, n, "topic", "describe", topic, "-o", "json"))
			if got := number(t, described, 0, "partitions", 0, "high_watermark"); got != dec(bounds[1]) {
				t.Errorf("%s: describe says %s, want %d", topic, got, bounds[1])
			}
		}
		// A reader behind the end, at the last number there is.
		p := kmsg.NewFetchRequestTopicPartition()
		p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = math.MaxInt64, 1<<20, -1
		rt := kmsg.NewFetchRequestTopic()
		rt.Topic, rt.TopicID, rt.Partitions = "last", last, append(rt.Partitions, p)
		req := kmsg.NewFetchRequest()
		req.MaxBytes, req.SessionEpoch, req.Topics = 1<<20, -1, append(req.Topics, rt)
		if resp, err := req.RequestWith(within(t), cl); err != nil || kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode) != kerr.OffsetOutOfRange {
			t.Errorf("a fetch at 2^63-1: %+v, %v; want OFFSET_OUT_OF_RANGE", resp, err)
		}
		cl.Close()
		n.Kill()
		n.Up()
		cl = client(t, n)
	}
}

// TestBrokerBoundsAtTheirEnds gives the broker's own times their greatest values,
// which is how "never" is spelled in many a server.properties: nothing may end
// because a number of milliseconds or minutes has left 64 bits of nanoseconds.
func TestBrokerBoundsAtTheirEnds(t *testing.T) {
	t.Parallel()
	n := node.Start(t, "--set", "offsets.retention.minutes=2147483647", "--set", "offsets.retention.check.interval.ms=1000", "--set", "connections.max.idle.ms="+max64,
		"--set", "log.retention.ms="+max64, "--set", "log.local.retention.ms="+max64, "--set", "log.segment.bytes=2147483647", "--set", "producer.id.expiration.ms=2147483647",
		"--set", "log.roll.ms="+max64, "--set", "replica.lag.time.max.ms="+max64)
	create(t, n, "t", nil)
	cl := client(t, n)
	if _, err := produce(t, cl, "t", 0, 0); err != nil {
		t.Fatal(err)
	}
	adm := kadm.NewClient(cl)
	var at kadm.Offsets
	at.AddOffset("t", 0, 1, -1)
	if err := adm.CommitAllOffsets(within(t), "g", at); err != nil {
		t.Fatal(err)
	}
	// Offsets that expire at once do so at the check every second; a clean restart
	// and the time of two checks are what they have to outlive.
	n.Stop()
	n.Up()
	checked := time.Now()
	for {
		got, err := adm.FetchOffsets(within(t), "g")
		if o, ok := got.Lookup("t", 0); err != nil || !ok || o.At != 1 {
			t.Fatalf("%v after the restart the group has %+v, %v", time.Since(checked), got, err)
		}
		if time.Since(checked) > 2500*time.Millisecond {
			break
		}
		<-time.After(100 * time.Millisecond)
	}
	if start, _ := list(t, cl, "t", -2); start != 0 {
		t.Errorf("the log begins at %d: something has expired", start)
	}
}
