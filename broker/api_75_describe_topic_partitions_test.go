package broker

import (
	"fmt"
	"math"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/metadata"
)

// TestTopicPartitionsComeInPages walks 3 topics of 5 partitions in pages of every
// size; each partition comes once, in order.
func TestTopicPartitionsComeInPages(t *testing.T) {
	a := newAdmin(t)
	var want []string
	for _, topic := range []string{"a", "b", "c"} {
		mustCreate(t, a, topic, 5)
		for n := range 5 {
			want = append(want, fmt.Sprint(topic, n))
		}
	}
	for limit := int32(1); limit <= 16; limit++ {
		var got []string
		var cursor *kmsg.DescribeTopicPartitionsRequestCursor
		for range 20 {
			r := kmsg.NewPtrDescribeTopicPartitionsRequest()
			r.ResponsePartitionLimit, r.Cursor = limit, cursor
			res := askAdmin[*kmsg.DescribeTopicPartitionsResponse](t, a, everyone{}, 0, r)
			n := 0
			for _, topic := range res.Topics {
				for _, p := range topic.Partitions {
					got = append(got, fmt.Sprint(*topic.Topic, p.Partition))
					n++
				}
			}
			if n > int(limit) {
				t.Fatalf("%d partitions in a page of %d", n, limit)
			}
			if res.NextCursor == nil {
				break
			}
			cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: res.NextCursor.Topic, Partition: res.NextCursor.Partition}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("pages of %d: %v", limit, got)
		}
	}
}

func TestTopicPartitionsSayWhoLeads(t *testing.T) {
	a := newAdmin(t)
	topic := mustCreate(t, a, "t", 2)
	a.Metadata.Lead(t.Context(), []metadata.LeadRequest{{TopicPartition: metadata.TopicPartition{TopicID: topic.ID}, Node: 1, MinEpoch: 4}})
	r := kmsg.NewPtrDescribeTopicPartitionsRequest()
	r.Topics = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: "none"}, {Topic: "t"}, {Topic: "a b"}, {Topic: "t"}}
	r.Cursor = nil
	res := askAdmin[*kmsg.DescribeTopicPartitionsResponse](t, a, everyone{}, 0, r)
	var got []string
	for _, x := range res.Topics {
		got = append(got, fmt.Sprint(*x.Topic, " ", codeName(x.ErrorCode), " ", x.TopicID == topic.ID))
	}
	if want := "[a b INVALID_TOPIC_EXCEPTION false none UNKNOWN_TOPIC_OR_PARTITION false t NONE true]"; fmt.Sprint(got) != want {
		t.Fatalf("%v, want %s", got, want)
	}
	p := res.Topics[2].Partitions
	if len(p) != 2 || p[0].LeaderID != 1 || p[0].LeaderEpoch != 5 || len(p[0].ISR) != 1 || p[0].ErrorCode != 0 || p[1].LeaderID != -1 || codeName(p[1].ErrorCode) != "LEADER_NOT_AVAILABLE" {
		t.Fatalf("%+v", p)
	}
}

func TestCreatePartitionsAnswersAsKafka(t *testing.T) {
	a := newAdmin(t)
	mustCreate(t, a, "t", 2)
	for _, tc := range []struct {
		name, topic string
		count       int32
		assignment  [][]int32
		want        string
	}{
		{"to 4", "t", 4, nil, "NONE"},
		{"to the same", "t", 4, nil, "INVALID_PARTITIONS"},
		{"to fewer", "t", 2, nil, "INVALID_PARTITIONS"},
		{"to 0", "t", 0, nil, "INVALID_PARTITIONS"},
		{"to too many", "t", 1<<31 - 1, nil, "INVALID_PARTITIONS"},
		{"unknown topic", "none", 2, nil, "UNKNOWN_TOPIC_OR_PARTITION"},
		{"assignment to an unknown broker", "t", 5, [][]int32{{9999}}, "INVALID_REPLICA_ASSIGNMENT"},
		{"assignment of the wrong length", "t", 6, [][]int32{{1}}, "INVALID_REPLICA_ASSIGNMENT"},
		{"assignment", "t", 5, [][]int32{{1}}, "NONE"},
	} {
		r := kmsg.NewPtrCreatePartitionsRequest()
		r.TimeoutMillis = 5000
		x := kmsg.NewCreatePartitionsRequestTopic()
		x.Topic, x.Count = tc.topic, tc.count
		for _, y := range tc.assignment {
			x.Assignment = append(x.Assignment, kmsg.CreatePartitionsRequestTopicAssignment{Replicas: y})
		}
		r.Topics = append(r.Topics, x)
		if got := codeName(askAdmin[*kmsg.CreatePartitionsResponse](t, a, everyone{}, 3, r).Topics[0].ErrorCode); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
	if topic, _ := a.Metadata.Image().TopicByName("t"); topic.Partitions != 5 {
		t.Errorf("%d partitions", topic.Partitions)
	}
}

func TestLogDirsShowTheBucketToo(t *testing.T) {
	a := newAdmin(t)
	mustCreate(t, a, "t", 2)
	r := kmsg.NewPtrDescribeLogDirsRequest()
	res := askAdmin[*kmsg.DescribeLogDirsResponse](t, a, everyone{}, 5, r)
	var got []string
	for _, d := range res.Dirs {
		s := fmt.Sprint(d.Dir, " ", codeName(d.ErrorCode), " ", d.UsableBytes, "/", d.TotalBytes)
		for _, x := range d.Topics {
			for _, p := range x.Partitions {
				s += fmt.Sprintf(" %s-%d=%d", x.Topic, p.Partition, p.Size)
			}
		}
		got = append(got, s)
	}
	if want := "[/data NONE 10/20 t-0=100 t-1=101 /broken KAFKA_STORAGE_ERROR -1/-1 remote://b NONE -1/-1 t-1=7]"; fmt.Sprint(got) != want {
		t.Fatalf("%v, want %s", got, want)
	}
	if res := askAdmin[*kmsg.DescribeLogDirsResponse](t, a, everyone{map[string]bool{"DESCRIBE kafka-cluster": true}}, 5, r); codeName(res.ErrorCode) != "CLUSTER_AUTHORIZATION_FAILED" || len(res.Dirs) > 0 {
		t.Fatalf("%+v", res)
	}
}

func TestDeleteRecordsAnswersEachPartition(t *testing.T) {
	a := newAdmin(t)
	mustCreate(t, a, "t", 1)
	r := kmsg.NewPtrDeleteRecordsRequest()
	r.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: "t", Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: 0, Offset: -1}, {Partition: 7, Offset: 1}}}}
	p := askAdmin[*kmsg.DeleteRecordsResponse](t, a, everyone{}, 2, r).Topics[0].Partitions
	if p[0].ErrorCode != 0 || p[0].LowWatermark != 4 || codeName(p[1].ErrorCode) != "UNKNOWN_TOPIC_OR_PARTITION" || p[1].LowWatermark != -1 {
		t.Fatalf("%+v", p)
	}
}

func TestDescribeClusterAndACLs(t *testing.T) {
	a := newAdmin(t)
	r := kmsg.NewPtrDescribeClusterRequest()
	r.EndpointType, r.IncludeClusterAuthorizedOperations = 1, true
	res := askAdmin[*kmsg.DescribeClusterResponse](t, a, everyone{}, 2, r)
	if res.ErrorCode != 0 || res.ClusterID != a.Metadata.Image().ClusterID() || res.ControllerID != 1 || len(res.Brokers) != 1 ||
		res.Brokers[0].Host != "host" || res.Brokers[0].Port != 9093 || *res.Brokers[0].Rack != "r1" || res.ClusterAuthorizedOperations <= 0 {
		t.Fatalf("%+v", res)
	}
	r.IncludeClusterAuthorizedOperations = false
	if res := askAdmin[*kmsg.DescribeClusterResponse](t, a, everyone{}, 0, r); res.ClusterAuthorizedOperations != math.MinInt32 || len(res.Brokers) != 1 {
		t.Fatalf("%+v", res)
	}
	for kind, want := range map[int8]string{2: "MISMATCHED_ENDPOINT_TYPE", 3: "UNSUPPORTED_ENDPOINT_TYPE"} {
		r.EndpointType = kind
		if res := askAdmin[*kmsg.DescribeClusterResponse](t, a, everyone{}, 2, r); codeName(res.ErrorCode) != want || len(res.Brokers) > 0 {
			t.Errorf("endpoint type %d: %+v", kind, res)
		}
	}
	acls := askAdmin[*kmsg.DescribeACLsResponse](t, a, everyone{}, 3, kmsg.NewPtrDescribeACLsRequest())
	if codeName(acls.ErrorCode) != "SECURITY_DISABLED" {
		t.Fatalf("%+v", acls)
	}
}
