package group

import (
	"context"
	"errors"
	"fmt"

	"github.com/firnlog/firn/record"
	"github.com/firnlog/firn/replication"
)

const (
	// batchTarget is where the writer stops adding entries to a batch: more would
	// save nothing, and one batch is what a reader of the topic holds in memory.
	batchTarget = 256 << 10
	// maxQueued bounds what waits for the writer in one shard. A disk that hangs
	// must turn into refusals, not into memory; a thousand clients with a commit
	// of a few KiB each stay below it.
	maxQueued = 16 << 20
	// minBatch is what the journal takes for a batch however small
	// max.message.bytes is.
	minBatch = 64 << 10
)

// entry is one thing to journal. Entries are appended and applied in the order
// they were queued.
type entry struct {
	records []kv
	bytes   int
	// prepare makes the records of an entry that depends on what is committed:
	// it runs when everything queued before has been applied, and nothing queued
	// behind has. Such an entry is journaled alone and may span batches.
	prepare func() []kv
	// done applies the entry, or says that it failed. An entry without records
	// waits for those before it.
	done func(err error)
}

// enqueueLocked queues e, or fails it at once.
func (s *shard) enqueueLocked(e *entry, tooLarge error) {
	for _, r := range e.records {
		e.bytes += r.size() + perRecord
	}
	switch {
	case s.status != nil:
		e.done(s.status)
	case e.bytes+record.HeaderSize > s.maxBatch:
		e.done(tooLarge)
	case s.queued+e.bytes > maxQueued:
		e.done(ErrNotAvailable)
	default:
		s.queue = append(s.queue, e)
		s.queued += e.bytes
		s.poke()
	}
}

// takeLocked takes what goes out next: one entry to prepare, or all that fit into
// one batch.
func (s *shard) takeLocked() []*entry {
	if len(s.queue) == 0 {
		return nil
	}
	n, size := 0, 0
	for ; n < len(s.queue); n++ {
		e := s.queue[n]
		if n > 0 && (e.prepare != nil || size+e.bytes > min(batchTarget, s.maxBatch-record.HeaderSize)) {
			break
		}
		size += e.bytes
		if e.prepare != nil {
			n++
			break
		}
	}
	taken := s.queue[:n:n]
	if s.queue = s.queue[n:]; len(s.queue) == 0 {
		s.queue = nil
	}
	s.queued -= size
	return taken
}

// errInDoubt means that the log may hold more than memory does.
var errInDoubt = errors.New("it is not known what is in the journal")

// serve journals what is queued until the leadership ends, the outcome of an
// append is not known, or the shard is closed. It returns why.
func (s *shard) serve(ctx context.Context, w *writer) error {
	for {
		s.mu.Lock()
		taken := s.takeLocked()
		var records []kv
		for _, e := range taken {
			if e.prepare != nil {
				e.records = e.prepare()
			}
			records = append(records, e.records...)
		}
		s.mu.Unlock()
		if len(taken) == 0 {
			if _, leading := w.log.Epoch(); !leading {
				return replication.ErrNotLeader
			}
			select {
			case <-s.wake:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		_, err := w.write(ctx, records)
		s.mu.Lock()
		if err != nil && lost(err) {
			// Before anybody is told: whoever asks again must not be answered from
			// a memory that may be behind the log.
			s.refuseLocked(ErrLoading)
		}
		for i, e := range taken {
			taken[i] = nil
			e.done(refusal(err))
		}
		s.mu.Unlock()
		if err == nil && w.due() {
			err = s.snapshot(ctx, w)
		}
		if err != nil {
			if lost(err) {
				return err
			}
			s.logger.Warn("group journal could not be written", "event", "group_journal_failed", "err", err)
		}
	}
}

// lost says that the leadership is over, or that only a new one knows the log.
func lost(err error) bool {
	for _, e := range []error{errInDoubt, replication.ErrNotLeader, replication.ErrFencedEpoch, replication.ErrUnknownEpoch, replication.ErrOffline} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// refusal is what requests are told of a failed append.
func refusal(err error) error {
	switch {
	case err == nil:
		return nil
	case lost(err):
		return ErrNotCoordinator
	}
	return fmt.Errorf("%w: %w", ErrNotAvailable, err)
}

// writer appends to one partition in one leadership. Only the shard's goroutine
// uses it.
type writer struct {
	log   Log
	epoch int32
	now   func() int64 // unix ms
	max   int          // bytes of a batch
	m     *metrics

	garbage  int64 // minGarbage
	size     int64 // bytes of the log since its start, about
	live     int64 // of them, what the last snapshot took
	snapshot int64 // size at which the next one is due
}

// write appends the records, in as many batches as they need, and waits until
// they are committed. It returns the offset of the first. An error that is not
// errInDoubt means that nothing was appended.
func (w *writer) write(ctx context.Context, records []kv) (base int64, err error) {
	base = -1
	if len(records) == 0 {
		return base, nil
	}
	var last replication.Appended
	flush := func(b *record.Builder) error {
		batch := b.Build()
		a, err := w.log.Append(w.epoch, batch)
		if err != nil {
			if base >= 0 {
				return fmt.Errorf("%w: %w", errInDoubt, err)
			}
			return err
		}
		if base < 0 {
			base = a.Base
		}
		last = a
		w.size += int64(len(batch))
		w.m.bytes.Add(float64(len(batch)))
		return nil
	}
	b := record.NewBuilder(record.NewBatchOptions())
	now := w.now()
	for _, r := range records {
		if b.Count() > 0 && b.Size()+r.size()+perRecord > w.max {
			if err := flush(b); err != nil {
				return base, err
			}
		}
		b.Append(record.Record{TimestampDelta: now, Key: r.key, Value: r.value})
	}
	if err := flush(b); err != nil {
		return base, err
	}
	if err := w.log.WaitCommitted(ctx, last); err != nil {
		return base, fmt.Errorf("%w: %w", errInDoubt, err)
	}
	return base, nil
}
