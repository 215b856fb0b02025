package broker

// OffsetCommit (key 8), v2 to v10; KIP-211 (retention), KIP-320 (leader epochs
// from v6), KIP-345 (static members from v7), KIP-848 (topic ids from v10). v9
// answers GROUP_ID_NOT_FOUND where older ones answer ILLEGAL_GENERATION. Left out:
// the member epochs of KIP-848's groups, which are not served.

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/group"
)

// slot is where the answer about one partition goes.
type slot struct{ topic, part int }

func offsetCommit(_ context.Context, s *Server, r *Request) Reply {
	req := r.Body.(*kmsg.OffsetCommitRequest)
	resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
	allowed := r.Conn.mayReadGroup(req.Group)
	q := group.CommitRequest{Group: req.Group, MemberID: req.MemberID, InstanceID: req.InstanceID, Generation: req.Generation, Retention: -1}
	if req.RetentionTimeMillis >= 0 && r.Version <= 4 {
		q.Retention = min(time.Duration(req.RetentionTimeMillis), maxRetention) * time.Millisecond
	}
	im := s.cfg.Metadata.Image()
	var slots []slot
	for _, t := range req.Topics {
		rt := kmsg.NewOffsetCommitResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		topic, ok := im.TopicByName(t.Topic)
		code := codeUnknownTopic
		if r.Version >= 10 {
			topic, ok = im.TopicByID(t.TopicID)
			code = codeUnknownTopicID
		}
		switch {
		case !allowed:
			ok, code = false, codeGroupDenied
		case ok && !r.Conn.Allowed(kmsg.ACLOperationRead, kmsg.ACLResourceTypeTopic, topic.Name):
			ok, code = false, codeTopicDenied
		}
		for _, p := range t.Partitions {
			rp := kmsg.NewOffsetCommitResponseTopicPartition()
			rp.Partition = p.Partition
			switch {
			case !ok:
				rp.ErrorCode = code
			case p.Partition < 0 || p.Partition >= topic.Partitions:
				rp.ErrorCode = codeUnknownTopic
			default:
				c := group.Commit{Topic: topic.Name, TopicID: topic.ID, Partition: p.Partition, Offset: p.Offset, Epoch: -1, Metadata: text(p.Metadata)}
				if r.Version >= 6 {
					c.Epoch = p.LeaderEpoch
				}
				q.Offsets = append(q.Offsets, c)
				slots = append(slots, slot{len(resp.Topics), len(rt.Partitions)})
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	if len(q.Offsets) == 0 {
		return Reply{Response: resp}
	}
	return later(s.cfg.Groups.Commit(q), journalTimeout, func(res group.CommitResult, err error) kmsg.Response {
		if err == nil {
			err = res.Err
		}
		code := groupCode(err)
		if errors.Is(err, group.ErrGroupNotFound) && r.Version < 9 {
			code = codeIllegalGeneration
		}
		for i, at := range slots {
			rp := &resp.Topics[at.topic].Partitions[at.part]
			if rp.ErrorCode = code; err == nil {
				rp.ErrorCode = groupCode(res.Errs[i])
			}
		}
		return resp
	})
}

// maxRetention is the longest retention of a client, in milliseconds: more is for
// ever.
const maxRetention = 1 << 43
