package broker

// ListOffsets (key 2), v1 to v11; KIP-79 (by time), KIP-207, KIP-320, KIP-405 (-4),
// KIP-734 (-3), KIP-1005 (-5), KIP-1023 (-6), KIP-1075 (a timeout for lookups in the
// bucket, from v10).

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/fetch"
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

// lookupTime bounds what a request without a timeout of its own waits for the bucket:
// the default of Kafka's remote.list.offsets.request.timeout.ms.
const lookupTime = 30 * time.Second

func listOffsets(_ context.Context, s *Server, r *Request) Reply {
	// A lookup by time reads batches: not on the reader.
	return Reply{Wait: func(ctx context.Context) kmsg.Response {
		req := r.Body.(*kmsg.ListOffsetsRequest)
		resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
		// For all partitions together. What is on disk is answered after it, too.
		within := lookupTime
		if r.Version >= 10 && req.TimeoutMillis > 0 {
			within = time.Duration(req.TimeoutMillis) * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(ctx, within)
		defer cancel()
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
	switch q.Timestamp {
	case latest:
		end := st.HighWatermark
		if committed {
			end = st.LastStable
		}
		rp.Offset, rp.LeaderEpoch = end, st.LeaderEpoch
	case earliest:
		rp.Offset, rp.LeaderEpoch = st.LogStart, epochAt(p, st.LogStart)
	case earliestLocal:
		rp.Offset, rp.LeaderEpoch = fetch.EarliestLocal(p)
	case latestTiered:
		rp.Offset, rp.LeaderEpoch, err = fetch.LatestTiered(ctx, p)
		return err
	case earliestPending:
		rp.Offset, rp.LeaderEpoch, err = fetch.EarliestPending(ctx, p)
		return err
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
