package clients

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/integration/node"
)

// pinned are the clients' versions, as setup.sh and go.mod get them. Debian's kcat is
// not setup.sh's to choose: a later one shows here.
var pinned = map[string]string{
	"franz-go": "franz-go v1.22.2", "kcat": "kcat 1.7.1, librdkafka 2.0.2", "python": "confluent-kafka 2.16.1, librdkafka 2.16.0",
	"kafkajs": "kafkajs 2.2.4", "java": "kafka-clients 4.3.1",
}

// patience is how long one call of a client may take, a JVM's start included.
const patience = 2 * time.Minute

// TestUnmodifiedClients takes every client through all its cases, at the same
// time. The server is restarted in the middle, and what follows has to go on
// where the first half left off.
func TestUnmodifiedClients(t *testing.T) {
	needClients(t)
	bootstrap, restart := server(t)
	run := fmt.Sprintf("clients-%d", time.Now().UnixMilli())
	all := start(t, bootstrap)
	admin := adminOf(t, bootstrap)
	cold := newColdTopic(t, bootstrap, run+"-cold")
	var shelf shelf

	t.Run("first", func(t *testing.T) {
		for _, c := range all {
			t.Run(c.name(), func(t *testing.T) {
				t.Parallel()
				v, err := c.version(within(t))
				if err != nil {
					t.Fatal(err)
				}
				if v != pinned[c.name()] {
					t.Errorf("this is %s; the matrix is for %s", v, pinned[c.name()])
				}
				for _, codec := range codecs {
					t.Run(codec, func(t *testing.T) {
						topic := run + "-" + c.name() + "-" + codec
						shelf.put(topic, testCodec(t, c, franz{bootstrap}, admin, topic, codec))
					})
				}
				t.Run("group", func(t *testing.T) { testGroupBegins(t, c, admin, run+"-"+c.name()+"-group") })
			})
		}
	})
	if t.Failed() {
		return
	}
	restart()
	cold.awaitCold(t, bootstrap)
	t.Run("second", func(t *testing.T) {
		for _, c := range all {
			t.Run(c.name(), func(t *testing.T) {
				t.Parallel()
				t.Run("group resumes", func(t *testing.T) { testGroupResumes(t, c, admin, run+"-"+c.name()+"-group") })
				t.Run("seek", func(t *testing.T) { testSeek(t, c, cold) })
				t.Run("others' records", func(t *testing.T) { testOthers(t, c, &shelf) })
			})
		}
	})
}

// needClients makes sure that the clients are there. In CI it gets them; a
// developer without them is told how.
func needClients(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs five clients; not with -short")
	}
	out, err := exec.Command("./setup.sh", "--check").CombinedOutput()
	if err == nil {
		return
	}
	if os.Getenv("CI") != "true" {
		t.Skipf("run integration/clients/setup.sh first:\n%s", out)
	}
	if out, err := exec.Command("./setup.sh").CombinedOutput(); err != nil {
		t.Fatalf("setup.sh: %v\n%s", err, out)
	}
}

// server returns where to find the server under test, and how to restart it.
func server(t *testing.T) (bootstrap string, restart func()) {
	t.Helper()
	if b := os.Getenv("FIRN_TEST_BOOTSTRAP"); b != "" {
		return b, func() { t.Log("the server is not ours: no restart") }
	}
	n := node.Start(t)
	return n.Addr, func() { n.Stop(); n.Up() }
}

// start returns all clients, each ready for commands.
func start(t *testing.T, bootstrap string) []client {
	t.Helper()
	tools := os.Getenv("FIRN_TOOLS")
	if tools == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			t.Fatal(err)
		}
		tools = filepath.Join(home, ".cache", "firn-tools")
	}
	tools = filepath.Join(tools, "clients")
	all := []client{franz{bootstrap}, kcat{bootstrap: bootstrap}}
	for _, d := range []struct {
		name    string
		less    lacks
		command []string
	}{
		{"python", lacks{}, []string{filepath.Join(tools, "python", "bin", "python"), "python/driver.py", bootstrap}},
		{"kafkajs", lacks{nullHeaders: true}, []string{"node", "node/driver.js", bootstrap, filepath.Join(tools, "node", "node_modules")}},
		{"java", lacks{}, []string{"java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp",
			filepath.Join(tools, "java", "classes") + ":" + filepath.Join(tools, "java", "libs", "*"), "Driver", bootstrap}},
	} {
		c, err := startDriver(d.name, d.less, d.command[0], d.command[1:]...)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	t.Cleanup(func() {
		for _, c := range all {
			if err := c.close(); err != nil && !t.Failed() {
				t.Errorf("%s did not end well: %v", c.name(), err)
			}
		}
	})
	return all
}

// within bounds one call of a client.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func adminOf(t *testing.T, bootstrap string) *kadm.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(bootstrap))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

// create makes a topic that keeps records however old they say they are.
func create(t *testing.T, admin *kadm.Client, topic string, partitions int32, more map[string]string) {
	t.Helper()
	configs := map[string]*string{"retention.ms": kadm.StringPtr("-1")}
	for k, v := range more {
		configs[k] = &v
	}
	made, err := admin.CreateTopic(within(t), partitions, -1, configs, topic)
	if err == nil {
		err = made.Err
	}
	if err != nil {
		t.Fatalf("create %s: %v", topic, err)
	}
	// A leader may need a moment more than the creation.
	await(t, topic+" to have leaders", func(ctx context.Context) (bool, error) {
		ends, err := admin.ListEndOffsets(ctx, topic)
		return err == nil && ends.Error() == nil && len(ends[topic]) == int(partitions), nil
	})
}

// await asks again and again until ready says yes.
func await(t *testing.T, what string, ready func(ctx context.Context) (bool, error)) {
	t.Helper()
	ctx := within(t)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := ready(ctx)
		if err != nil {
			t.Fatalf("waiting for %s: %v", what, err)
		}
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// write has a client produce its workload and returns what must be in the topic
// then: its records at the offsets it was told.
func write(t *testing.T, c client, topic, codec string, n int) []record {
	t.Helper()
	want := workload(n, c.lacks())
	before := time.Now().UnixMilli()
	offsets, err := c.produce(within(t), topic, codec, want)
	if err != nil {
		t.Fatal(err)
	}
	after := time.Now().UnixMilli()
	next := map[int32]int64{}
	for i := range want {
		want[i].Offset = offsets[i]
		if p := want[i].Partition; offsets[i] != next[p] {
			t.Fatalf("record %d was acknowledged at %d/%d, want offset %d", i, p, offsets[i], next[p])
		}
		next[want[i].Partition]++
	}
	if c.lacks().timestamps {
		want = stamped(t, c, topic, want, before, after)
	}
	return want
}

// stamped fills in timestamps that the client chose, after checking that they
// lie between before and after.
func stamped(t *testing.T, c client, topic string, want []record, before, after int64) []record {
	t.Helper()
	got, err := c.consume(within(t), topic, len(want))
	if err != nil {
		t.Fatal(err)
	}
	at := map[[2]int64]int64{}
	for _, r := range got {
		at[[2]int64{int64(r.Partition), r.Offset}] = r.Timestamp
	}
	for i, w := range want {
		ts := at[[2]int64{int64(w.Partition), w.Offset}]
		if ts < before || ts > after {
			t.Fatalf("record %d/%d has timestamp %d, it was made in [%d, %d]", w.Partition, w.Offset, ts, before, after)
		}
		want[i].Timestamp = ts
	}
	return want
}

// compare holds what was read against what must be there: every record once,
// in order within its partition, and the same in all it carries.
func compare(t *testing.T, reader string, got, want []record) {
	t.Helper()
	byPlace := func(a, b record) int {
		if a.Partition != b.Partition {
			return int(a.Partition) - int(b.Partition)
		}
		return int(a.Offset - b.Offset)
	}
	last := map[int32]int64{}
	for _, r := range got {
		if o, seen := last[r.Partition]; seen && r.Offset <= o {
			t.Fatalf("%s read %d/%d behind %d", reader, r.Partition, r.Offset, o)
		}
		last[r.Partition] = r.Offset
	}
	got, want = slices.SortedFunc(slices.Values(got), byPlace), slices.SortedFunc(slices.Values(want), byPlace)
	if len(got) != len(want) {
		t.Fatalf("%s read %d records, want %d", reader, len(got), len(want))
	}
	for i := range got {
		if d := difference(got[i], want[i]); d != "" {
			t.Fatalf("%s: record %d/%d %s", reader, want[i].Partition, want[i].Offset, d)
		}
	}
}

// testCodec writes with one codec and reads back with the client and franz-go. The
// codec must have reached the log: a client that believes the broker too old for it
// sends uncompressed and says nothing.
func testCodec(t *testing.T, c, judge client, admin *kadm.Client, topic, codec string) []record {
	create(t, admin, topic, partitions, nil)
	want := write(t, c, topic, codec, 300)
	for _, reader := range []client{c, judge} {
		got, err := reader.consume(within(t), topic, len(want))
		if err != nil {
			t.Fatal(err)
		}
		compare(t, reader.name(), got, want)
	}
	stored, err := judge.(franz).codecs(within(t), topic, len(want))
	if err != nil {
		t.Fatal(err)
	}
	if stored[codec] == 0 || codec == "none" && stored[codec] != len(want) {
		t.Fatalf("%s wrote %v, not %s", c.name(), stored, codec)
	}
	return want
}

// shelf keeps what must be in the topics of the first half.
type shelf struct {
	mu     sync.Mutex
	topics map[string][]record
}

func (s *shelf) put(topic string, records []record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.topics == nil {
		s.topics = map[string][]record{}
	}
	s.topics[topic] = records
}

// testOthers reads what the other clients wrote, in every codec, behind the restart.
func testOthers(t *testing.T, c client, s *shelf) {
	k, text := c.(kcat)
	if text { // it prints headers as text, which the others' are not; the rest it prints by length
		k.bare = true
		c = k
	}
	for topic, want := range s.topics {
		if strings.Contains(topic, "-"+c.name()+"-") {
			continue
		}
		if text {
			want = slices.Clone(want)
			for i := range want {
				want[i].Headers = nil
			}
		}
		got, err := c.consume(within(t), topic, len(want))
		if err != nil {
			t.Fatal(err)
		}
		compare(t, c.name()+" of "+topic, got, want)
	}
}

// The group's work, kept between the two halves of the test by name.
const groupRecords, groupFirst = 300, 110

func testGroupBegins(t *testing.T, c client, admin *kadm.Client, topic string) {
	create(t, admin, topic, partitions, nil)
	write(t, c, topic, "none", groupRecords)
	first, err := c.group(within(t), topic, topic, groupFirst)
	if err != nil {
		t.Fatal(err)
	}
	if len(first) != groupFirst {
		t.Fatalf("the group read %d records, want %d", len(first), groupFirst)
	}
	want := map[int32]int64{}
	for _, r := range first {
		want[r.Partition] = r.Offset + 1
	}
	wantCommitted(t, admin, topic, want)
}

// wantCommitted checks the group's offsets as the server keeps them.
func wantCommitted(t *testing.T, admin *kadm.Client, group string, want map[int32]int64) {
	t.Helper()
	offsets, err := admin.FetchOffsets(within(t), group)
	if err != nil {
		t.Fatal(err)
	}
	for p, offset := range want {
		if got, ok := offsets.Lookup(group, p); !ok || got.Err != nil || got.At != offset {
			t.Fatalf("partition %d is committed at %d (%v, %v), want %d", p, got.At, ok, got.Err, offset)
		}
	}
}

// testGroupResumes reads the rest and checks that both halves are the whole,
// without a repeat and without a gap, in order for each key.
func testGroupResumes(t *testing.T, c client, admin *kadm.Client, topic string) {
	committed, err := admin.FetchOffsets(within(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	all, err := c.consume(within(t), topic, groupRecords)
	if err != nil {
		t.Fatal(err)
	}
	var rest []record
	for _, r := range all {
		if at, ok := committed.Lookup(topic, r.Partition); !ok || r.Offset >= at.At {
			rest = append(rest, r)
		}
	}
	if len(rest) != groupRecords-groupFirst {
		t.Fatalf("%d records are left behind the commits, want %d", len(rest), groupRecords-groupFirst)
	}
	got, err := c.group(within(t), topic, topic, len(rest))
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "the group", got, rest)
	want := map[int32]int64{}
	for _, r := range all {
		want[r.Partition] = max(want[r.Partition], r.Offset+1)
	}
	wantCommitted(t, admin, topic, want)
}

// coldTopic is one partition of old records that leave the local disk as soon
// as they are in the bucket. One record a second, from longAgo on.
type coldTopic struct {
	name    string
	records []record
}

const coldTarget = 700 // the record that is sought; all of its segment must be cold

func newColdTopic(t *testing.T, bootstrap, name string) *coldTopic {
	t.Helper()
	admin := adminOf(t, bootstrap)
	configs := map[string]string{"segment.bytes": "1048576", "local.retention.ms": "1"}
	if os.Getenv("FIRN_TEST_COLD") != "0" {
		configs["remote.storage.enable"] = "true"
	} else {
		delete(configs, "local.retention.ms")
	}
	create(t, admin, name, 1, configs)
	c := &coldTopic{name: name, records: make([]record, 6000)}
	for i := range c.records {
		c.records[i] = record{Timestamp: longAgo + int64(i)*1000, Key: fmt.Appendf(nil, "k%d", i%50),
			Value: []byte(strings.Repeat(fmt.Sprintf("cold %d ", i), 100))}
	}
	for from := 0; from < len(c.records); from += 500 {
		offsets, err := franz{bootstrap}.produce(within(t), name, "none", c.records[from:from+500])
		if err != nil {
			t.Fatal(err)
		}
		for i, o := range offsets {
			c.records[from+i].Offset = o
		}
	}
	return c
}

// awaitCold waits until the target has left the local disk (ListOffsets -4).
func (c *coldTopic) awaitCold(t *testing.T, bootstrap string) {
	t.Helper()
	if os.Getenv("FIRN_TEST_COLD") == "0" {
		return
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(bootstrap))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var local int64
	await(t, c.name+" to leave the local disk", func(ctx context.Context) (bool, error) {
		req := kmsg.NewPtrListOffsetsRequest()
		req.ReplicaID = -1
		topic := kmsg.NewListOffsetsRequestTopic()
		topic.Topic = c.name
		part := kmsg.NewListOffsetsRequestTopicPartition()
		part.Timestamp = -4 // the earliest local offset (KIP-405)
		topic.Partitions = append(topic.Partitions, part)
		req.Topics = append(req.Topics, topic)
		for _, shard := range cl.RequestSharded(ctx, req) {
			if shard.Err != nil {
				return false, shard.Err
			}
			local = shard.Resp.(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0].Offset
		}
		return local > 2*coldTarget, nil
	})
	t.Logf("%s begins at %d on the local disk", c.name, local)
}

// testSeek looks for a time between two records and reads on from there.
func testSeek(t *testing.T, c client, cold *coldTopic) {
	want := cold.records[coldTarget : coldTarget+200]
	offset, got, err := c.seek(within(t), cold.name, want[0].Timestamp-1, len(want))
	if err != nil {
		t.Fatal(err)
	}
	if offset != want[0].Offset {
		t.Fatalf("the lookup gave offset %d, want %d", offset, want[0].Offset)
	}
	compare(t, c.name(), got, want)
}
