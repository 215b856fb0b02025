package group

import (
	"context"
	"errors"
	"fmt"

	"github.com/firnlog/firn/replication"
)

// minGarbage is how much a partition's log may hold beyond what the last snapshot
// took before there is another one. A snapshot also waits until the garbage is as
// large as the snapshot, so that journaling costs at most twice its bytes and the
// log stays below twice the live state plus this.
const minGarbage = 1 << 20

// snapshotChunk is how much of a snapshot is built and appended at a time.
const snapshotChunk = 512 << 10

func (w *writer) due() bool { return w.size >= w.snapshot }

// schedule sets when the next snapshot is due, after one that took live bytes.
func (w *writer) schedule(live int64) {
	w.live, w.snapshot = live, w.size+max(w.garbage, live)
}

// snapshot journals the whole state again and drops the log below it. Nothing is
// applied meanwhile, because this is the goroutine that applies; requests queue.
//
// The records are ordinary ones and say what the log says already, so whatever a
// crash leaves of them changes nothing: before the trim the log still begins with
// what they repeat, and the trim waits until all of them are committed and synced.
func (s *shard) snapshot(ctx context.Context, w *writer) error {
	// On failure the next attempt waits for as much garbage again: a full disk
	// would be tried with every commit otherwise.
	w.schedule(w.live)
	if err := w.log.Roll(); err != nil {
		return fmt.Errorf("begin a segment for the snapshot: %w", err)
	}
	base, size := int64(-1), w.size
	var chunk []kv
	chunkBytes := 0
	flush := func() error {
		if len(chunk) == 0 {
			return nil
		}
		at, err := w.write(ctx, chunk)
		if base < 0 {
			base = at
		}
		chunk, chunkBytes = chunk[:0], 0
		return err
	}
	var failed error
	s.eachRecord(func(r kv) bool {
		chunk = append(chunk, r)
		if chunkBytes += r.size() + perRecord; chunkBytes >= snapshotChunk {
			failed = flush()
		}
		return failed == nil
	})
	if failed == nil {
		failed = flush()
	}
	if failed != nil {
		return fmt.Errorf("journal a snapshot: %w", failed)
	}
	if base < 0 {
		// Nothing is left to say: everything below the end can go.
		_, base, _ = w.log.Bounds()
	}
	if err := w.log.Trim(ctx, base); err != nil {
		if errors.Is(err, replication.ErrOffline) || ctx.Err() != nil {
			return fmt.Errorf("%w: trim: %w", errInDoubt, err)
		}
		return fmt.Errorf("trim the journal below its snapshot at %d: %w", base, err)
	}
	w.size -= size
	w.schedule(w.size)
	w.m.snapshots.Inc()
	s.logger.Debug("group journal trimmed to a snapshot", "event", "group_snapshot", "offset", base, "bytes", w.live)
	return nil
}

// eachRecord visits the records that make the committed state. The lock is held
// for one group at a time.
func (s *shard) eachRecord(visit func(kv) bool) {
	s.mu.Lock()
	groups := make([]*group, 0, len(s.groups))
	for _, g := range s.groups {
		groups = append(groups, g)
	}
	var unknown []kv
	for k, v := range s.unknown {
		unknown = append(unknown, kv{[]byte(k), v})
	}
	s.mu.Unlock()
	for _, r := range unknown {
		if !visit(r) {
			return
		}
	}
	for _, g := range groups {
		s.mu.Lock()
		records := make([]kv, 0, len(g.offsets)+1)
		for tp, c := range g.offsets {
			records = append(records, offsetRecord(g.id, tp, c))
		}
		if g.journaled != nil {
			records = append(records, kv{groupKey(g.id), g.journaled})
		}
		s.mu.Unlock()
		for _, r := range records {
			if !visit(r) {
				return
			}
		}
	}
}
