package broker

// Fetch (key 1), v4 to v18; KIP-74 (a first batch of any size), KIP-227 (fetch
// sessions), KIP-320 (leader epochs), KIP-516 (topic ids from v13), KIP-595
// (diverging epochs). Left out: replicas, which have a listener of their own in a
// cluster, and KIP-392's preferred replica.

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/fetch"
)

func fetchRecords(_ context.Context, s *Server, r *Request) Reply {
	req := r.Body.(*kmsg.FetchRequest)
	resp := req.ResponseKind().(*kmsg.FetchResponse)
	replica := req.ReplicaID
	if r.Version >= 15 {
		replica = req.ReplicaState.ID
	}
	if replica >= 0 {
		resp.ErrorCode = codeInvalidRequest
		return Reply{Response: resp}
	}
	q := fetch.SessionRequest{ID: req.SessionID, Epoch: req.SessionEpoch, ByID: r.Version >= 13}
	if r.Version < 7 {
		q.Epoch = -1
	}
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			part := fetch.SessionPart{
				SessionKey: fetch.SessionKey{ID: t.TopicID, Topic: t.Topic, Partition: p.Partition},
				Offset:     p.FetchOffset, MaxBytes: p.PartitionMaxBytes, CurrentEpoch: p.CurrentLeaderEpoch,
				LastFetchedEpoch: p.LastFetchedEpoch, LogStart: p.LogStartOffset,
			}
			if r.Version < 9 {
				part.CurrentEpoch = -1
			}
			if r.Version < 12 {
				part.LastFetchedEpoch = -1
			}
			q.Parts = append(q.Parts, part)
		}
	}
	for _, t := range req.ForgottenTopics {
		for _, p := range t.Partitions {
			q.Forgotten = append(q.Forgotten, fetch.SessionKey{ID: t.TopicID, Topic: t.Topic, Partition: p})
		}
	}
	turn, err := s.cfg.Sessions.Begin(q)
	if err != nil {
		resp.ErrorCode = codeOf(err)
		return Reply{Response: resp}
	}
	// A fetch may wait for records and reads files: not on the reader.
	return Reply{Wait: func(ctx context.Context) kmsg.Response {
		return s.fetchTurn(ctx, r, req, resp, turn)
	}}
}

func (s *Server) fetchTurn(ctx context.Context, r *Request, req *kmsg.FetchRequest, resp *kmsg.FetchResponse, turn *fetch.Turn) kmsg.Response {
	parts := turn.Parts()
	q := fetch.Request{
		Client: r.ClientID, MaxWait: time.Duration(max(req.MaxWaitMillis, 0)) * time.Millisecond,
		MinBytes: int(req.MinBytes), MaxBytes: int(min(req.MaxBytes, s.cfg.FetchMaxBytes)), ReadCommitted: req.IsolationLevel == 1,
		Parts: make([]fetch.Part, len(parts)),
	}
	for i, sp := range parts {
		p, err := s.permitted(r.Conn, kmsg.ACLOperationRead, r.Version >= 13, sp.Topic, sp.ID, sp.Partition)
		q.Parts[i] = fetch.Part{P: p, Err: err, Offset: sp.Offset, MaxBytes: int(sp.MaxBytes), CurrentEpoch: sp.CurrentEpoch, LastFetchedEpoch: sp.LastFetchedEpoch}
	}
	results := s.cfg.Fetch.Fetch(ctx, q)
	answer := &fetchAnswer{FetchResponse: resp}
	found := make([]fetch.SessionOutcome, len(results))
	for i, res := range results {
		found[i] = fetch.SessionOutcome{Bytes: res.Records.Len(), HighWatermark: res.HighWatermark, LogStart: res.LogStart, Err: res.Err != nil, Diverging: res.Diverging != nil}
	}
	id, mention, err := turn.Finish(found)
	if err != nil {
		fetch.Release(results)
		resp.ErrorCode = codeOf(err)
		return answer
	}
	resp.SessionID = id
	topics := map[fetch.SessionKey]int{}
	for i, res := range results {
		if !mention[i] {
			res.Records.Release()
			continue
		}
		key := fetch.SessionKey{ID: parts[i].ID, Topic: parts[i].Topic}
		at, ok := topics[key]
		if !ok {
			at = len(resp.Topics)
			topics[key] = at
			t := kmsg.NewFetchResponseTopic()
			t.Topic, t.TopicID = key.Topic, key.ID
			resp.Topics = append(resp.Topics, t)
			answer.records = append(answer.records, nil)
		}
		resp.Topics[at].Partitions = append(resp.Topics[at].Partitions, fetchedPartition(parts[i].Partition, res, q.ReadCommitted))
		answer.records[at] = append(answer.records[at], res.Records)
	}
	return answer
}

// fetchedPartition is one partition of the answer, without its records.
func fetchedPartition(n int32, res fetch.Result, committed bool) kmsg.FetchResponseTopicPartition {
	p := kmsg.NewFetchResponseTopicPartition()
	p.Partition, p.PreferredReadReplica = n, -1
	p.HighWatermark, p.LastStableOffset, p.LogStartOffset = res.HighWatermark, res.LastStable, res.LogStart
	if res.Err != nil {
		p.ErrorCode = codeOf(res.Err)
		p.HighWatermark, p.LastStableOffset, p.LogStartOffset = -1, -1, -1
		return p
	}
	if res.Diverging != nil {
		p.DivergingEpoch.Epoch, p.DivergingEpoch.EndOffset = res.Diverging.Epoch, res.Diverging.End
		return p
	}
	if committed {
		p.AbortedTransactions = []kmsg.FetchResponseTopicPartitionAbortedTransaction{}
		for _, a := range res.Aborted {
			t := kmsg.NewFetchResponseTopicPartitionAbortedTransaction()
			t.ProducerID, t.FirstOffset = a.ProducerID, a.First
			p.AbortedTransactions = append(p.AbortedTransactions, t)
		}
	}
	return p
}
