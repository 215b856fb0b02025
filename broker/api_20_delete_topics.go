package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/metadata"
)

// DeleteTopics (20), versions 1 to 6.
//
// KIP-516 (by id, v6). A deletion is a tombstone; the data goes in the background.
// Left out: mutation quotas (KIP-599).
func (a *Admin) deleteTopics(ctx context.Context, c Caller, req *kmsg.DeleteTopicsRequest) *kmsg.DeleteTopicsResponse {
	res := req.ResponseKind().(*kmsg.DeleteTopicsResponse)
	ctx, cancel := withinTimeout(ctx, req.TimeoutMillis)
	defer cancel()
	asked := req.Topics
	for _, name := range req.TopicNames {
		asked = append(asked, kmsg.DeleteTopicsRequestTopic{Topic: &name})
	}
	names, ids := map[string]int{}, map[[16]byte]int{}
	for _, t := range asked {
		if t.Topic != nil {
			names[*t.Topic]++
		} else {
			ids[t.TopicID]++
		}
	}
	for _, t := range asked {
		out := kmsg.NewDeleteTopicsResponseTopic()
		out.Topic, out.TopicID = t.Topic, t.TopicID
		var err error
		switch {
		case t.Topic != nil && t.TopicID != [16]byte{}:
			err = refusal(metadata.ErrInvalidRequest, "You may not specify both topic name and topic id.")
		case t.Topic == nil && t.TopicID == [16]byte{}:
			err = refusal(metadata.ErrInvalidRequest, "Neither topic name nor id were specified.")
		case t.Topic != nil && names[*t.Topic] > 1:
			err = refusal(metadata.ErrInvalidRequest, "Duplicate topic name.")
		case t.Topic == nil && ids[t.TopicID] > 1:
			err = refusal(metadata.ErrInvalidRequest, "Duplicate topic id.")
		default:
			err = a.deleteTopic(ctx, c, &out)
		}
		out.ErrorCode, out.ErrorMessage = explain(err)
		res.Topics = append(res.Topics, out)
	}
	return res
}

// deleteTopic resolves name or id to the other and deletes.
func (a *Admin) deleteTopic(ctx context.Context, c Caller, out *kmsg.DeleteTopicsResponseTopic) error {
	im := a.Metadata.Image()
	if !im.BrokerConfig().Bool("delete.topic.enable") {
		return errDeletionDisabled
	}
	var t *metadata.Topic
	var ok bool
	if out.Topic == nil {
		if t, ok = im.TopicByID(out.TopicID); !ok {
			return refusal(metadata.ErrUnknownTopicID, "This server does not host this topic ID.")
		}
		// Whoever may not describe a topic does not learn its name.
		if !c.Allowed(kmsg.ACLOperationDescribe, kmsg.ACLResourceTypeTopic, t.Name) {
			return errTopicDenied
		}
		out.Topic = &t.Name
	} else if !c.Allowed(kmsg.ACLOperationDescribe, kmsg.ACLResourceTypeTopic, *out.Topic) {
		return errTopicDenied // nor whether there is a topic of the name
	} else if t, ok = im.TopicByName(*out.Topic); !ok {
		return refusal(metadata.ErrUnknownTopic, "This server does not host this topic-partition.")
	}
	if !c.Allowed(kmsg.ACLOperationDelete, kmsg.ACLResourceTypeTopic, t.Name) {
		return errTopicDenied
	}
	out.TopicID = t.ID
	return a.Metadata.DeleteTopic(ctx, t.Name, t.ID)
}
