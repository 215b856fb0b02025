package broker

// ListOffsets (key 2), v1 to v11; KIP-79 (by time), KIP-207, KIP-320, KIP-405 (-4),
// KIP-734 (-3), KIP-1005 (-5), KIP-1023 (-6). Left out: v10's timeout, which bounds
// lookups in a bucket.

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/replication"
)

// Special timestamps, and the version that brought each.
const (
	latest          = -1
	earliest        = -2
	maxTimestamp    = -3 // v7
	earliestLocal   = -4 // v8
	latestTiered    = -5 // v9
	earliestPending = -6 // v11
)

var specialSince = map[int64]int16{latest: 1, earliest: 1, maxTimestamp: 7, earliestLocal: 8, latestTiered: 9, earliestPending: 11}

func listOffsets(_ context.Context, s *Server, r *Request) Reply {
	// A lookup by time reads batches: not on the reader.
	return Reply{Wait: func(ctx context.Context) kmsg.Response {
		req := r.Body.(*kmsg.ListOffsetsRequest)
		resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
		for _, t := range req.Topics {
			rt := kmsg.NewListOffsetsResponseTopic()
			rt.Topic = t.Topic
			for _, q := range t.Partitions {
				rp := kmsg.NewListOffsetsResponseTopicPartition()
				rp.Partition, rp.Offset, rp.Timestamp, rp.LeaderEpoch = q.Partition, -1, -1, -1
				if since, special := specialSince[q.Timestamp]; q.Timestamp < 0 && (!special || r.Version < since) {
					rp.ErrorCode = codeUnsupportedVersion
				} else if err := s.listOffset(ctx, r, t.Topic, q, req.IsolationLevel == 1, &rp); err != nil {
					rp.ErrorCode = codeOf(err)
				}
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp
	}}
}

func (s *Server) listOffset(ctx context.Context, r *Request, topic string, q kmsg.ListOffsetsRequestTopicPartition, committed bool, rp *kmsg.ListOffsetsResponseTopicPartition) error {
	if !r.Conn.mayTopic(kmsg.ACLOperationDescribe, topic) {
		return errTopicDenied
	}
	p, err := s.cfg.Replication.ByName(topic, q.Partition)
	if err != nil {
		return err
	}
	current := q.CurrentLeaderEpoch
	if r.Version < 4 {
		current = -1
	}
	if err := p.CheckEpoch(current); err != nil {
		return err
	}
	st := p.State()
	epoch := func(offset int64) { rp.Offset, rp.LeaderEpoch = offset, epochAt(p, offset) }
	switch q.Timestamp {
	case latest:
		end := st.HighWatermark
		if committed {
			end = st.LastStable
		}
		rp.Offset, rp.LeaderEpoch = end, st.LeaderEpoch
	case earliest:
		epoch(st.LogStart)
	case earliestLocal:
		epoch(max(st.LocalStart, st.LogStart))
	case latestTiered:
		if tier := p.Tier(); tier != nil && tier.TieredEnd() > st.LogStart {
			epoch(tier.TieredEnd() - 1)
		}
	case earliestPending:
		if tier := p.Tier(); tier != nil {
			epoch(max(tier.TieredEnd(), st.LogStart))
		}
	case maxTimestamp:
		o, at, e, ok, err := s.cfg.Fetch.MaxTimestamp(ctx, p)
		if err != nil || !ok {
			return err
		}
		rp.Offset, rp.Timestamp, rp.LeaderEpoch = o, at, e
	default:
		o, at, e, ok, err := s.cfg.Fetch.OffsetForTime(ctx, p, q.Timestamp)
		if err != nil || !ok || committed && o >= st.LastStable {
			return err
		}
		rp.Offset, rp.Timestamp, rp.LeaderEpoch = o, at, e
	}
	return nil
}

// epochAt is the leader epoch that offset was, or will be, written in.
func epochAt(p *replication.Partition, offset int64) int32 {
	if e := p.Log().EpochAt(offset); e >= 0 {
		return e
	}
	epoch, _ := p.Leadership()
	return epoch
}
