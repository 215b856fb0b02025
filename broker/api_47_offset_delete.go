package broker

// OffsetDelete (key 47), v0; KIP-496.

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/group"
)

func offsetDelete(_ context.Context, s *Server, r *Request) Reply {
	req := r.Body.(*kmsg.OffsetDeleteRequest)
	resp := req.ResponseKind().(*kmsg.OffsetDeleteResponse)
	if !r.Conn.Allowed(kmsg.ACLOperationDelete, kmsg.ACLResourceTypeGroup, req.Group) {
		resp.ErrorCode = codeGroupDenied
		return Reply{Response: resp}
	}
	if req.Group == "" {
		resp.ErrorCode = codeInvalidGroupID
		return Reply{Response: resp}
	}
	im := s.cfg.Metadata.Image()
	var topics []string
	var partitions []int32
	var slots []slot
	for _, t := range req.Topics {
		rt := kmsg.NewOffsetDeleteResponseTopic()
		rt.Topic = t.Topic
		topic, ok := im.TopicByName(t.Topic)
		allowed := r.Conn.Allowed(kmsg.ACLOperationRead, kmsg.ACLResourceTypeTopic, t.Topic)
		for _, p := range t.Partitions {
			rp := kmsg.NewOffsetDeleteResponseTopicPartition()
			rp.Partition = p.Partition
			switch {
			case !allowed:
				rp.ErrorCode = codeTopicDenied
			case !ok || p.Partition < 0 || p.Partition >= topic.Partitions:
				rp.ErrorCode = codeUnknownTopic
			default:
				topics, partitions = append(topics, topic.Name), append(partitions, p.Partition)
				slots = append(slots, slot{len(resp.Topics), len(rt.Partitions)})
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return later(s.cfg.Groups.DeleteOffsets(req.Group, topics, partitions), journalTimeout, func(res group.DeleteOffsetsResult, err error) kmsg.Response {
		if err == nil {
			err = res.Err
		}
		if err != nil {
			resp.ErrorCode, resp.Topics = groupCode(err), nil
			return resp
		}
		for i, at := range slots {
			resp.Topics[at.topic].Partitions[at.part].ErrorCode = groupCode(res.Errs[i])
		}
		return resp
	})
}
