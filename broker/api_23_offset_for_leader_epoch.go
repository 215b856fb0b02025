package broker

// OffsetForLeaderEpoch (key 23), v2 to v4; KIP-101, KIP-279, KIP-320.

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func offsetForLeaderEpoch(_ context.Context, s *Server, r *Request) Reply {
	req := r.Body.(*kmsg.OffsetForLeaderEpochRequest)
	resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
	for _, t := range req.Topics {
		rt := kmsg.NewOffsetForLeaderEpochResponseTopic()
		rt.Topic = t.Topic
		for _, q := range t.Partitions {
			rp := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			rp.Partition, rp.LeaderEpoch, rp.EndOffset = q.Partition, -1, -1
			if !r.Conn.mayTopic(kmsg.ACLOperationDescribe, t.Topic) {
				rp.ErrorCode = codeTopicDenied
				rt.Partitions = append(rt.Partitions, rp)
				continue
			}
			p, err := s.cfg.Replication.ByName(t.Topic, q.Partition)
			if err == nil {
				err = p.CheckEpoch(q.CurrentLeaderEpoch)
			}
			if err != nil {
				rp.ErrorCode = codeOf(err)
			} else {
				rp.LeaderEpoch, rp.EndOffset = p.EpochEnd(q.LeaderEpoch)
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return Reply{Response: resp}
}
