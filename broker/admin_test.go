package broker

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/metadata/memory"
)

// everyone may do everything, or nothing of what is denied.
type everyone struct{ denied map[string]bool }

func (e everyone) Allowed(op kmsg.ACLOperation, kind kmsg.ACLResourceType, name string) bool {
	return !e.denied[op.String()+" "+name]
}

func (e everyone) Address(b *metadata.Broker) (string, int32) { return "host", 9092 + b.Node }

// fakeReplicas has two partitions of one topic.
type fakeReplicas struct{ md *metadata.Client }

func (f fakeReplicas) DeleteRecords(_ context.Context, topic string, partition int32, offset int64) (int64, error) {
	t, ok := f.md.Image().TopicByName(topic)
	switch {
	case !ok || partition >= t.Partitions:
		return -1, metadata.ErrUnknownTopic
	case offset == -1:
		return 4, nil
	}
	return offset, nil
}

func (f fakeReplicas) Each(visit func(tp metadata.TopicPartition, dir string, bytes int64)) {
	for _, t := range f.md.Image().Topics() {
		for n := range t.Partitions {
			visit(metadata.TopicPartition{TopicID: t.ID, Topic: t.Name, Partition: n}, "/data", 100+int64(n))
		}
	}
}

func newAdmin(t *testing.T) *Admin {
	t.Helper()
	s := memory.NewServer(1, time.Now)
	md, err := metadata.Open(t.Context(), metadata.Config{Store: s.Open(), Cluster: "c", NodeID: 1, Now: time.Now, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { md.Close() })
	if err := md.RegisterBroker(t.Context(), metadata.Broker{Node: 1, Incarnation: 1, Rack: "r1"}); err != nil {
		t.Fatal(err)
	}
	return &Admin{
		Metadata: md, NodeID: 1, Replicas: fakeReplicas{md}, BucketName: "b",
		Dirs:        []LogDir{{Path: "/data", Space: func() (int64, int64, error) { return 10, 20, nil }}, {Path: "/broken", Space: func() (int64, int64, error) { return 0, 0, errors.New("io") }}},
		RemoteBytes: func(tp metadata.TopicPartition) int64 { return 7 * int64(tp.Partition) },
		Controller:  func(*metadata.Image) int32 { return 1 },
	}
}

// askAdmin sends a request over the wire format of its version, and its answer back.
func askAdmin[Res kmsg.Response](t *testing.T, a *Admin, c Caller, version int16, req kmsg.Request) Res {
	t.Helper()
	req.SetVersion(version)
	in := kmsg.RequestForKey(req.Key())
	in.SetVersion(version)
	if err := in.ReadFrom(req.AppendTo(nil)); err != nil {
		t.Fatalf("%s v%d: request: %v", kmsg.NameForKey(req.Key()), version, err)
	}
	res := a.Handle(t.Context(), c, in)
	if res.GetVersion() != version {
		t.Fatalf("%s v%d answered as v%d", kmsg.NameForKey(req.Key()), version, res.GetVersion())
	}
	out := in.ResponseKind()
	out.SetVersion(version)
	if err := out.ReadFrom(res.AppendTo(nil)); err != nil {
		t.Fatalf("%s v%d: response: %v", kmsg.NameForKey(req.Key()), version, err)
	}
	return out.(Res)
}

// codeName is a code's name.
func codeName(code int16) string {
	if code == 0 {
		return "NONE"
	}
	return kerr.TypedErrorForCode(code).Message
}

func topicRequest(topic string, partitions int32, rf int16, configs ...string) *kmsg.CreateTopicsRequest {
	r := kmsg.NewPtrCreateTopicsRequest()
	r.TimeoutMillis = 5000
	x := kmsg.NewCreateTopicsRequestTopic()
	x.Topic, x.NumPartitions, x.ReplicationFactor = topic, partitions, rf
	for i := 0; i < len(configs); i += 2 {
		x.Configs = append(x.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: configs[i], Value: &configs[i+1]})
	}
	r.Topics = append(r.Topics, x)
	return r
}

func createOne(t *testing.T, a *Admin, r *kmsg.CreateTopicsRequest) kmsg.CreateTopicsResponseTopic {
	t.Helper()
	return askAdmin[*kmsg.CreateTopicsResponse](t, a, everyone{}, 7, r).Topics[0]
}

func mustCreate(t *testing.T, a *Admin, topic string, partitions int32, configs ...string) *metadata.Topic {
	t.Helper()
	if r := createOne(t, a, topicRequest(topic, partitions, 1, configs...)); r.ErrorCode != 0 {
		t.Fatalf("create %s: %s %s", topic, codeName(r.ErrorCode), *r.ErrorMessage)
	}
	got, _ := a.Metadata.Image().TopicByName(topic)
	return got
}

// TestEveryVersionOfEveryAPIAnswers sends an empty and a filled request in every
// version that is offered.
func TestEveryVersionOfEveryAPIAnswers(t *testing.T) {
	a := newAdmin(t)
	mustCreate(t, a, "t", 2)
	for key, versions := range AdminVersions {
		if versions[1] > kmsg.RequestForKey(key).MaxVersion() {
			t.Errorf("%s is offered up to v%d, the codec knows v%d", kmsg.NameForKey(key), versions[1], kmsg.RequestForKey(key).MaxVersion())
		}
		for v := versions[0]; v <= versions[1]; v++ {
			askAdmin[kmsg.Response](t, a, everyone{}, v, kmsg.RequestForKey(key))
			r := kmsg.RequestForKey(key)
			fillRequest(r)
			askAdmin[kmsg.Response](t, a, everyone{}, v, r)
		}
	}
}

// fillRequest puts one element, of the topic t where it has a name, into a request.
func fillRequest(r kmsg.Request) {
	topic := "t"
	switch r := r.(type) {
	case *kmsg.CreateTopicsRequest:
		r.Topics = topicRequest("new", 1, 1, "retention.ms", "1").Topics
		r.ValidateOnly = true
	case *kmsg.DeleteTopicsRequest:
		r.TopicNames = []string{"none"}
		r.Topics = []kmsg.DeleteTopicsRequestTopic{{TopicID: [16]byte{1}}}
	case *kmsg.DeleteRecordsRequest:
		r.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: topic, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Offset: -1}}}}
	case *kmsg.DescribeConfigsRequest:
		r.IncludeDocumentation, r.IncludeSynonyms = true, true
		r.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: topic}, {ResourceType: kmsg.ConfigResourceTypeBroker, ResourceName: "1"}}
	case *kmsg.AlterConfigsRequest:
		r.Resources = []kmsg.AlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: topic}}
	case *kmsg.IncrementalAlterConfigsRequest:
		r.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeBroker, ResourceName: "1"}}
	case *kmsg.DescribeLogDirsRequest:
		r.Topics = []kmsg.DescribeLogDirsRequestTopic{{Topic: topic, Partitions: []int32{1}}}
	case *kmsg.CreatePartitionsRequest:
		r.Topics = []kmsg.CreatePartitionsRequestTopic{{Topic: topic, Count: 1}}
	case *kmsg.DescribeClusterRequest:
		r.EndpointType, r.IncludeClusterAuthorizedOperations = 1, true
	case *kmsg.DescribeTopicPartitionsRequest:
		r.Topics = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: topic}, {Topic: "none"}}
	}
}
