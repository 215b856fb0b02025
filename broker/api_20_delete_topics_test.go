package broker

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestDeleteTopicsAnswersAsKafka(t *testing.T) {
	a := newAdmin(t)
	known := mustCreate(t, a, "topics", 1)
	ans := mustCreate(t, a, "ans", 1)
	none, topics := "none", "topics"
	for _, tc := range []struct {
		name    string
		version int16
		topics  []kmsg.DeleteTopicsRequestTopic
		want    string
	}{
		{"unknown v5", 5, []kmsg.DeleteTopicsRequestTopic{{Topic: &none}}, "UNKNOWN_TOPIC_OR_PARTITION"},
		{"unknown v6", 6, []kmsg.DeleteTopicsRequestTopic{{Topic: &none}}, "UNKNOWN_TOPIC_OR_PARTITION"},
		{"unknown id", 6, []kmsg.DeleteTopicsRequestTopic{{TopicID: [16]byte{5, 5}}}, "UNKNOWN_TOPIC_ID"},
		{"name and id", 6, []kmsg.DeleteTopicsRequestTopic{{Topic: &topics, TopicID: [16]byte{5, 5}}}, "INVALID_REQUEST"},
		{"neither", 6, []kmsg.DeleteTopicsRequestTopic{{}}, "INVALID_REQUEST"},
		{"twice", 6, []kmsg.DeleteTopicsRequestTopic{{Topic: &topics}, {Topic: &topics}}, "INVALID_REQUEST"},
		{"by id", 6, []kmsg.DeleteTopicsRequestTopic{{TopicID: ans.ID}}, "NONE"},
		{"by name", 6, []kmsg.DeleteTopicsRequestTopic{{Topic: &topics}}, "NONE"},
	} {
		r := kmsg.NewPtrDeleteTopicsRequest()
		r.TimeoutMillis = 5000
		for _, x := range tc.topics {
			if tc.version < 6 {
				r.TopicNames = append(r.TopicNames, *x.Topic)
			}
		}
		r.Topics = tc.topics
		res := askAdmin[*kmsg.DeleteTopicsResponse](t, a, everyone{}, tc.version, r)
		if len(res.Topics) != len(tc.topics) || codeName(res.Topics[0].ErrorCode) != tc.want {
			t.Errorf("%s: %+v, want %s", tc.name, res.Topics, tc.want)
		}
	}
	im := a.Metadata.Image()
	if len(im.Topics()) != 0 || !im.Tombstoned(known.ID) || !im.Tombstoned(ans.ID) {
		t.Fatal("deleted topics must be gone, with tombstones")
	}
	if again := mustCreate(t, a, "topics", 1); again.ID == known.ID {
		t.Fatal("a recreated topic has the old id")
	}
}

func TestDeletionNeedsItsRight(t *testing.T) {
	a := newAdmin(t)
	topic := mustCreate(t, a, "t", 1)
	r := kmsg.NewPtrDeleteTopicsRequest()
	r.Topics = []kmsg.DeleteTopicsRequestTopic{{TopicID: topic.ID}}
	res := askAdmin[*kmsg.DeleteTopicsResponse](t, a, everyone{map[string]bool{"DESCRIBE t": true}}, 6, r)
	if codeName(res.Topics[0].ErrorCode) != "TOPIC_AUTHORIZATION_FAILED" || res.Topics[0].Topic != nil {
		t.Fatalf("whoever may not describe a topic learned its name: %+v", res.Topics[0])
	}
	res = askAdmin[*kmsg.DeleteTopicsResponse](t, a, everyone{map[string]bool{"DELETE t": true}}, 6, r)
	if codeName(res.Topics[0].ErrorCode) != "TOPIC_AUTHORIZATION_FAILED" || len(a.Metadata.Image().Topics()) != 1 {
		t.Fatalf("%+v", res.Topics[0])
	}
}
