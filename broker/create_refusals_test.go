package broker

import (
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/metadata/memory"
)

// refusedNames are names that no topic may have while there is one named a.b.
var refusedNames = []string{"", ".", "..", strings.Repeat("x", 250), "a_b", "a b", "a/b", "../a", "é", "a\x00"}

// adminServer serves the topic a.b and administration; left lists what the metadata
// store and the data dir have.
func adminServer(t *testing.T) (a *asker, meta *metadata.Client, left func() []string) {
	t.Helper()
	path, store := t.TempDir(), memory.NewServer(1, time.Now)
	addr, meta, stop := serveAt(t, path, store, withFetch(t), func(cfg *Config) {
		cfg.Admin = &Admin{Metadata: cfg.Metadata, NodeID: 1, Replicas: fakeReplicas{cfg.Metadata}, Controller: func(*metadata.Image) int32 { return 1 }}
	})
	t.Cleanup(stop)
	if _, err := meta.EnsureTopic(t.Context(), metadata.NewTopic{Name: "a.b", Partitions: 1, ReplicationFactor: 1}); err != nil {
		t.Fatal(err)
	}
	a = dialAsker(t, addr)
	led(t, a, meta, "a.b")
	return a, meta, func() []string {
		all := store.Keys()
		if err := filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, name)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		slices.Sort(all)
		return all
	}
}

// TestRefusedTopicsLeaveNothing asks for topics that cannot be, in earnest: each gets
// Kafka's code, alone or beside one that can be, and neither the metadata nor the disk
// has anything of it.
func TestRefusedTopicsLeaveNothing(t *testing.T) {
	a, meta, left := adminServer(t)
	type refusedTopic struct {
		topic kmsg.CreateTopicsRequestTopic
		want  string
	}
	var asked []refusedTopic
	add := func(want, name string, partitions int32, rf int16, configs ...string) {
		asked = append(asked, refusedTopic{topicRequest(name, partitions, rf, configs...).Topics[0], want})
	}
	for _, name := range refusedNames {
		add("INVALID_TOPIC_EXCEPTION", name, 1, 1)
	}
	add("TOPIC_ALREADY_EXISTS", "a.b", 1, 1)
	for i, partitions := range []int32{0, -2, math.MinInt32, math.MaxInt32} {
		add("INVALID_PARTITIONS", "partitions"+string(rune('a'+i)), partitions, 1)
	}
	for i, rf := range []int16{0, -2, 2, math.MaxInt16} {
		add("INVALID_REPLICATION_FACTOR", "factor"+string(rune('a'+i)), 1, rf)
	}
	for i, kv := range [][2]string{
		{"no.such.config", "1"}, {"retention.ms", "soon"}, {"retention.ms", "-2"}, {"retention.ms", "9223372036854775808"}, {"cleanup.policy", "shred"},
		{"compression.type", "brotli"}, {"segment.bytes", "1"}, {"min.insync.replicas", "0"}, {"max.message.bytes", "-1"},
		{"message.timestamp.type", "Never"}, {"segment.ms", "0"}, {"unclean.leader.election.enable", "maybe"},
	} {
		add("INVALID_CONFIG", "config"+string(rune('a'+i)), 1, 1, kv[0], kv[1])
	}
	before := left()
	unchanged := func(what string) {
		t.Helper()
		if after := left(); !slices.Equal(before, after) {
			t.Errorf("%s left something: before %q, after %q", what, before, after)
		}
	}
	eachVersion(t, 19, func(t *testing.T, v int16) {
		for _, x := range asked {
			r := kmsg.NewPtrCreateTopicsRequest()
			r.TimeoutMillis = 5000
			r.Topics = append(r.Topics, x.topic)
			got := ask(a, v, r, kmsg.NewPtrCreateTopicsResponse()).Topics[0]
			if codeName(got.ErrorCode) != x.want || got.Topic != x.topic.Topic || got.TopicID != [16]byte{} {
				t.Errorf("%.30q: %s, want %s", x.topic.Topic, codeName(got.ErrorCode), x.want)
			}
			unchanged(x.topic.Topic)
		}
	})
	for _, count := range []int32{-1, 0, 1, math.MaxInt32} {
		r := kmsg.NewPtrCreatePartitionsRequest()
		r.TimeoutMillis = 5000
		r.Topics = append(r.Topics, kmsg.CreatePartitionsRequestTopic{Topic: "a.b", Count: count})
		if got := ask(a, 2, r, kmsg.NewPtrCreatePartitionsResponse()).Topics[0]; codeName(got.ErrorCode) != "INVALID_PARTITIONS" {
			t.Errorf("a.b with %d partitions: %s", count, codeName(got.ErrorCode))
		}
		unchanged("a.b with other partitions")
	}
	// In one request with them, what can be is made, and no more. -1 is the default.
	r := topicRequest("fine", -1, -1)
	for _, x := range asked {
		r.Topics = append(r.Topics, x.topic)
	}
	for _, got := range ask(a, 7, r, kmsg.NewPtrCreateTopicsResponse()).Topics {
		if (got.ErrorCode == 0) != (got.Topic == "fine") {
			t.Errorf("%.30q beside a good one: %s", got.Topic, codeName(got.ErrorCode))
		}
	}
	if slices.Equal(before, left()) {
		t.Error("BUG: what is left of a topic is not seen")
	}
	var names []string
	for _, topic := range meta.Image().Topics() {
		names = append(names, topic.Name)
	}
	if slices.Sort(names); !slices.Equal(names, []string{"a.b", "fine"}) {
		t.Errorf("there are %q", names)
	}
	if topic, ok := meta.Image().TopicByName("fine"); ok && (topic.Partitions < 1 || topic.ReplicationFactor() != 1) {
		t.Errorf("with the defaults it has %d partitions, factor %d", topic.Partitions, topic.ReplicationFactor())
	}
}

// TestBadNamesAreNotMadeByTheWay asks for the metadata of topics that cannot be, and
// may make what is missing: nothing is made of them, in any version.
func TestBadNamesAreNotMadeByTheWay(t *testing.T) {
	a, meta, left := adminServer(t)
	before := left()
	eachVersion(t, 3, func(t *testing.T, v int16) {
		r := kmsg.NewPtrMetadataRequest()
		r.AllowAutoTopicCreation = true
		for _, name := range refusedNames {
			r.Topics = append(r.Topics, kmsg.MetadataRequestTopic{Topic: &name})
		}
		got := ask(a, v, r, kmsg.NewPtrMetadataResponse()).Topics
		if len(got) != len(refusedNames) {
			t.Fatalf("%d topics are answered, want %d", len(got), len(refusedNames))
		}
		for i, topic := range got {
			if codeName(topic.ErrorCode) != "INVALID_TOPIC_EXCEPTION" || topic.Topic == nil || *topic.Topic != refusedNames[i] || len(topic.Partitions) != 0 || topic.TopicID != [16]byte{} {
				t.Errorf("%.30q: %s, %d partitions", refusedNames[i], codeName(topic.ErrorCode), len(topic.Partitions))
			}
		}
		if after := left(); !slices.Equal(before, after) {
			t.Errorf("something is left: before %q, after %q", before, after)
		}
	})
	if n := len(meta.Image().Topics()); n != 1 {
		t.Errorf("there are %d topics", n)
	}
}
