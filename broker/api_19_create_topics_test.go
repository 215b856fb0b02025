package broker

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestCreateTopicsAnswersAsKafka holds Kafka 4.3.1's recorded answers.
func TestCreateTopicsAnswersAsKafka(t *testing.T) {
	a := newAdmin(t)
	mustCreate(t, a, "topics", 2)
	mustCreate(t, a, "topics.coll", 1)
	for _, tc := range []struct {
		name       string
		partitions int32
		rf         int16
		configs    []string
		want       string
	}{
		{"topics", 1, -1, nil, "TOPIC_ALREADY_EXISTS"},
		{"topics", 0, 99, nil, "TOPIC_ALREADY_EXISTS"},
		{"new", -1, -1, nil, "NONE"},
		{"", 1, -1, nil, "INVALID_TOPIC_EXCEPTION"},
		{".", 1, -1, nil, "INVALID_TOPIC_EXCEPTION"},
		{"..", 1, -1, nil, "INVALID_TOPIC_EXCEPTION"},
		{"a b", 1, -1, nil, "INVALID_TOPIC_EXCEPTION"},
		{"a/b", 1, -1, nil, "INVALID_TOPIC_EXCEPTION"},
		{"é", 1, -1, nil, "INVALID_TOPIC_EXCEPTION"},
		{strings.Repeat("x", 249), 1, -1, nil, "NONE"},
		{strings.Repeat("x", 250), 1, -1, nil, "INVALID_TOPIC_EXCEPTION"},
		{"topics_coll", 1, -1, nil, "INVALID_TOPIC_EXCEPTION"},
		{"new", 0, -1, nil, "INVALID_PARTITIONS"},
		{"new", -2, -1, nil, "INVALID_PARTITIONS"},
		{"new", 1<<31 - 1, -1, nil, "INVALID_PARTITIONS"},
		{"new", 1, 0, nil, "INVALID_REPLICATION_FACTOR"},
		{"new", 1, -2, nil, "INVALID_REPLICATION_FACTOR"},
		{"new", 1, 99, nil, "INVALID_REPLICATION_FACTOR"},
		{"new", 1, -1, []string{"no.such.config", "1"}, "INVALID_CONFIG"},
		{"new", 1, -1, []string{"retention.ms", "soon"}, "INVALID_CONFIG"},
		{"new", 1, -1, []string{"retention.ms", "-2"}, "INVALID_CONFIG"},
		{"new", 1, -1, []string{"cleanup.policy", "delete,compact"}, "NONE"},
		{"new", 1, -1, []string{"cleanup.policy", "shred"}, "INVALID_CONFIG"},
		{"new", 1, -1, []string{"compression.type", "brotli"}, "INVALID_CONFIG"},
		{"new", 1, -1, []string{"segment.bytes", "1"}, "INVALID_CONFIG"},
		{"new", 1, -1, []string{"min.insync.replicas", "0"}, "INVALID_CONFIG"},
		{"new", 1, -1, []string{"max.message.bytes", "-1"}, "INVALID_CONFIG"},
		{"new", 1, -1, []string{"message.timestamp.type", "Never"}, "INVALID_CONFIG"},
		{"new", 1, -1, []string{"segment.ms", "0"}, "INVALID_CONFIG"},
		{"new", 1, -1, []string{"unclean.leader.election.enable", "maybe"}, "INVALID_CONFIG"},
	} {
		r := topicRequest(tc.name, tc.partitions, tc.rf, tc.configs...)
		r.ValidateOnly = true
		if got := codeName(createOne(t, a, r).ErrorCode); got != tc.want {
			t.Errorf("%.30q, %d partitions, factor %d, %v: %s, want %s", tc.name, tc.partitions, tc.rf, tc.configs, got, tc.want)
		}
	}
	if n := len(a.Metadata.Image().Topics()); n != 2 {
		t.Errorf("validation made topics: there are %d", n)
	}
}

func TestAssignmentsAnswerAsKafka(t *testing.T) {
	a := newAdmin(t)
	for _, tc := range []struct {
		name       string
		partitions int32
		assignment map[int32][]int32
		want       string
	}{
		{"good", -1, map[int32][]int32{0: {1}, 1: {1}}, "NONE"},
		{"unknown broker", -1, map[int32][]int32{0: {9999}}, "INVALID_REPLICA_ASSIGNMENT"},
		{"twice the same broker", -1, map[int32][]int32{0: {1, 1}}, "INVALID_REPLICA_ASSIGNMENT"},
		{"gap in the partitions", -1, map[int32][]int32{0: {1}, 2: {1}}, "INVALID_REPLICA_ASSIGNMENT"},
		{"no replicas", -1, map[int32][]int32{0: {}}, "INVALID_REPLICA_ASSIGNMENT"},
		{"and a partition count", 2, map[int32][]int32{0: {1}, 1: {1}}, "INVALID_REQUEST"},
	} {
		r := topicRequest("t", tc.partitions, -1)
		r.ValidateOnly = true
		for p, replicas := range tc.assignment {
			r.Topics[0].ReplicaAssignment = append(r.Topics[0].ReplicaAssignment, kmsg.CreateTopicsRequestTopicReplicaAssignment{Partition: p, Replicas: replicas})
		}
		if got := codeName(createOne(t, a, r).ErrorCode); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

func TestATopicTwiceInARequestIsAnsweredOnce(t *testing.T) {
	a := newAdmin(t)
	r := topicRequest("twice", 1, -1)
	r.Topics = append(r.Topics, r.Topics[0], topicRequest("once", 1, -1).Topics[0])
	res := askAdmin[*kmsg.CreateTopicsResponse](t, a, everyone{}, 7, r)
	if len(res.Topics) != 2 || codeName(res.Topics[0].ErrorCode) != "INVALID_REQUEST" || res.Topics[1].ErrorCode != 0 {
		t.Fatalf("%+v", res.Topics)
	}
}

func TestACreatedTopicIsDescribed(t *testing.T) {
	a := newAdmin(t)
	y := createOne(t, a, topicRequest("ans", 3, 1, "retention.ms", "1000"))
	var c string
	for _, k := range y.Configs {
		if k.Name == "retention.ms" || k.Name == "cleanup.policy" {
			c += fmt.Sprintf(" %s=%s/%d", k.Name, *k.Value, k.Source)
		}
	}
	got := fmt.Sprintf("%s id=%v parts=%d rf=%d%s", codeName(y.ErrorCode), y.TopicID != [16]byte{}, y.NumPartitions, y.ReplicationFactor, c)
	if want := "NONE id=true parts=3 rf=1 cleanup.policy=delete/5 retention.ms=1000/1"; got != want {
		t.Fatalf("%s\nwant %s", got, want)
	}
	denied := everyone{map[string]bool{"CREATE x": true, "CREATE kafka-cluster": true}}
	if res := askAdmin[*kmsg.CreateTopicsResponse](t, a, denied, 7, topicRequest("x", 1, 1)); codeName(res.Topics[0].ErrorCode) != "TOPIC_AUTHORIZATION_FAILED" {
		t.Fatalf("without the right: %+v", res.Topics[0])
	}
}
