package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/firnlog/firn/metadata"
)

// Headers of an atomic batch (NATS ADR-50).
const (
	batchID       = "Nats-Batch-Id"
	batchSequence = "Nats-Batch-Sequence"
	batchCommit   = "Nats-Batch-Commit"
	expectSubject = "Nats-Expected-Last-Subject-Sequence"
)

// allowBatches lets the bucket take atomic batches. A key-value bucket does not
// by itself.
func (s *Store) allowBatches(ctx context.Context) error {
	st, err := s.js.Stream(ctx, s.stream)
	if err != nil {
		return fmt.Errorf("look at metadata bucket %s: %w", s.bucket, err)
	}
	cfg := st.CachedInfo().Config
	if cfg.AllowAtomicPublish {
		return nil
	}
	cfg.AllowAtomicPublish = true
	if _, err := s.js.UpdateStream(ctx, cfg); err != nil {
		return fmt.Errorf("allow batches in metadata bucket %s: %w", s.bucket, err)
	}
	return nil
}

// UpdateAll implements metadata.Batcher. The messages before the last get no
// answer; the last one's tells of all. A server or bucket without batches refuses
// the whole, and nothing was written.
func (s *Store) UpdateAll(ctx context.Context, entries []metadata.Entry) ([]uint64, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", metadata.ErrInDoubt, err)
	}
	id := nats.NewInbox()
	for i, e := range entries {
		m := &nats.Msg{Subject: s.prefix + e.Key, Data: e.Value, Header: nats.Header{
			batchID:       []string{id[len(nats.InboxPrefix):]},
			batchSequence: []string{strconv.Itoa(i + 1)},
			expectSubject: []string{strconv.FormatUint(e.Revision, 10)},
		}}
		if i < len(entries)-1 {
			if err := s.nc.PublishMsg(m); err != nil {
				return nil, fmt.Errorf("%w: %w", metadata.ErrInDoubt, err)
			}
			continue
		}
		m.Header[batchCommit] = []string{"1"}
		answer, err := s.nc.RequestMsgWithContext(ctx, m)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", metadata.ErrInDoubt, err)
		}
		return batchRevisions(answer.Data, len(entries))
	}
	return nil, errors.New("an empty batch")
}

// batchRevisions reads the answer to a batch of n. The server commits a batch in
// isolation, so its revisions are the n that end at the acknowledged one.
func batchRevisions(answer []byte, n int) ([]uint64, error) {
	var ack struct {
		Error    *jetstream.APIError `json:"error"`
		Sequence uint64              `json:"seq"`
		Count    int                 `json:"count"`
	}
	if err := json.Unmarshal(answer, &ack); err != nil {
		return nil, fmt.Errorf("%w: %w", metadata.ErrInDoubt, err)
	}
	if ack.Error != nil {
		return nil, classify("of a batch", ack.Error)
	}
	if ack.Count != n || ack.Sequence < uint64(n) {
		return nil, fmt.Errorf("%w: a batch of %d was acknowledged as %d up to %d", metadata.ErrInDoubt, n, ack.Count, ack.Sequence)
	}
	revs := make([]uint64, n)
	for i := range revs {
		revs[i] = ack.Sequence - uint64(n) + uint64(i) + 1
	}
	return revs, nil
}
