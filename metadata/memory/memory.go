// Package memory is a metadata.Store in memory, with JetStream's bad manners on
// demand: stale reads, lost acknowledgements, writes that land later, conflicts
// that are only "in flight", watches that are late, silent, repeat themselves or
// break, and a store that goes back in time. All of it follows from one seed and
// the order of calls.
//
// Read memory.go for the sound store, then manners.go.
package memory

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/firnlog/firn/metadata"
)

// Server is what survives: the bucket. Any number of stores, one a broker, are
// opened on it.
type Server struct {
	now func() time.Time

	mu struct {
		sync.Mutex
		rng     *rand.Rand
		manners Manners
		exists  bool
		created time.Time
		last    uint64
		keys    map[string]metadata.Entry
		older   map[string][]metadata.Entry // superseded, newest last: what stale reads see
		pending []func()                    // writes that land later
		changed chan struct{}               // closed on every change
		breaks  uint64                      // counts the watches' forced breaks
		down    bool
	}
}

// NewServer returns a server without a bucket. now stamps its creation.
func NewServer(seed uint64, now func() time.Time) *Server {
	s := &Server{now: now}
	s.mu.rng = rand.New(rand.NewPCG(seed, 0x6d656d6f7279))
	s.mu.keys = map[string]metadata.Entry{}
	s.mu.older = map[string][]metadata.Entry{}
	s.mu.changed = make(chan struct{})
	return s
}

// Store is one client's connection to a Server.
type Store struct {
	s      *Server
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

var _ metadata.Batcher = (*Store)(nil)

// Open connects.
func (s *Server) Open() *Store {
	st := &Store{s: s}
	st.ctx, st.cancel = context.WithCancel(context.Background())
	return st
}

// Get implements metadata.Store.
func (st *Store) Get(ctx context.Context, key string) (metadata.Entry, error) {
	s := st.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := st.reachableLocked(ctx); err != nil {
		return metadata.Entry{}, fmt.Errorf("%w: %w", metadata.ErrUnavailable, err)
	}
	e, ok := s.mu.keys[key]
	if old := s.mu.older[key]; s.rollLocked(s.mu.manners.StaleRead) && (ok || len(old) > 0) {
		// Any older version, or none at all.
		if i := s.mu.rng.IntN(len(old) + 1); i < len(old) {
			e, ok = old[i], true
		} else {
			e, ok = metadata.Entry{}, false
		}
	}
	if !ok || e.Deleted {
		return metadata.Entry{Key: key, Revision: e.Revision, Deleted: true}, metadata.ErrNotFound
	}
	e.Value = slices.Clone(e.Value)
	return e, nil
}

// Update implements metadata.Store.
func (st *Store) Update(ctx context.Context, key string, value []byte, rev uint64) (uint64, error) {
	return st.write(ctx, metadata.Entry{Key: key, Value: slices.Clone(value)}, rev)
}

// Delete implements metadata.Store.
func (st *Store) Delete(ctx context.Context, key string, rev uint64) (uint64, error) {
	return st.write(ctx, metadata.Entry{Key: key, Deleted: true}, rev)
}

func (st *Store) write(ctx context.Context, e metadata.Entry, rev uint64) (uint64, error) {
	s := st.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleLocked()
	if err := st.reachableLocked(ctx); err != nil {
		return 0, fmt.Errorf("%w: %w", metadata.ErrInDoubt, err)
	}
	m := &s.mu.manners
	switch {
	case s.rollLocked(m.InFlight):
		// 10164 for longer than the driver was willing to wait.
		return 0, fmt.Errorf("%w: another write of %s is in flight", metadata.ErrInDoubt, e.Key)
	case s.rollLocked(m.LostRequest):
		return 0, fmt.Errorf("%w: timeout", metadata.ErrInDoubt)
	case s.rollLocked(m.LateWrite):
		// The request is on its way: it lands before some later write.
		s.mu.pending = append(s.mu.pending, func() { s.applyLocked(e, rev) })
		return 0, fmt.Errorf("%w: timeout", metadata.ErrInDoubt)
	}
	got, err := s.applyLocked(e, rev)
	if s.rollLocked(m.LostAck) {
		return 0, fmt.Errorf("%w: no answer", metadata.ErrInDoubt)
	}
	return got, err
}

// UpdateAll implements metadata.Batcher.
func (st *Store) UpdateAll(ctx context.Context, entries []metadata.Entry) ([]uint64, error) {
	s := st.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleLocked()
	if err := st.reachableLocked(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", metadata.ErrInDoubt, err)
	}
	all := func() ([]uint64, error) {
		for _, e := range entries {
			if cur := s.mu.keys[e.Key]; cur.Revision != e.Revision {
				return nil, &metadata.ConflictError{Key: e.Key, Current: cur.Revision}
			}
		}
		var revs []uint64
		for _, e := range entries {
			rev, err := s.applyLocked(metadata.Entry{Key: e.Key, Value: slices.Clone(e.Value)}, e.Revision)
			if err != nil {
				panic(fmt.Sprintf("BUG: a checked update of %s failed: %v", e.Key, err))
			}
			revs = append(revs, rev)
		}
		return revs, nil
	}
	m := &s.mu.manners
	switch {
	case s.rollLocked(m.LostRequest):
		return nil, fmt.Errorf("%w: timeout", metadata.ErrInDoubt)
	case s.rollLocked(m.LateWrite):
		s.mu.pending = append(s.mu.pending, func() { all() })
		return nil, fmt.Errorf("%w: timeout", metadata.ErrInDoubt)
	}
	revs, err := all()
	if s.rollLocked(m.LostAck) {
		return nil, fmt.Errorf("%w: no answer", metadata.ErrInDoubt)
	}
	return revs, err
}

// applyLocked is the compare-and-set itself.
func (s *Server) applyLocked(e metadata.Entry, rev uint64) (uint64, error) {
	cur, ok := s.mu.keys[e.Key]
	if cur.Revision != rev {
		c := &metadata.ConflictError{Key: e.Key, Current: cur.Revision}
		if s.rollLocked(s.mu.manners.SilentConflict) {
			c.Current = 0
		}
		return 0, c
	}
	if ok {
		old := append(s.mu.older[e.Key], cur)
		s.mu.older[e.Key] = old[max(0, len(old)-4):]
	}
	s.mu.last++
	e.Revision = s.mu.last
	s.mu.keys[e.Key] = e
	s.notifyLocked()
	return e.Revision, nil
}

func (s *Server) notifyLocked() {
	close(s.mu.changed)
	s.mu.changed = make(chan struct{})
}

// reachableLocked fails while the server is down, has no bucket, or the caller
// is gone.
func (st *Store) reachableLocked(ctx context.Context) error {
	switch {
	case st.ctx.Err() != nil:
		return st.ctx.Err()
	case ctx.Err() != nil:
		return ctx.Err()
	case st.s.mu.down:
		return fmt.Errorf("server is down")
	case !st.s.mu.exists:
		return metadata.ErrNoBucket
	}
	return nil
}

// Watch implements metadata.Store.
func (st *Store) Watch(ctx context.Context, after uint64, fn func(metadata.Event)) error {
	s := st.s
	st.wg.Add(1)
	defer st.wg.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(st.ctx, cancel)()
	s.mu.Lock()
	breaks := s.mu.breaks
	s.mu.Unlock()
	for first := true; ; first = false {
		s.mu.Lock()
		if err := st.reachableLocked(ctx); err != nil {
			s.mu.Unlock()
			return err
		}
		if breaks != s.mu.breaks || !first && s.rollLocked(s.mu.manners.WatchBreak) {
			s.mu.Unlock()
			return fmt.Errorf("watch lost its connection")
		}
		var news []metadata.Entry
		for _, e := range s.mu.keys {
			if e.Revision > after {
				news = append(news, e)
			}
		}
		slices.SortFunc(news, func(a, b metadata.Entry) int { return int(a.Revision) - int(b.Revision) })
		for _, e := range news {
			after = e.Revision
			if s.rollLocked(s.mu.manners.WatchRepeat) {
				news = append(news, e)
			}
		}
		var late time.Duration
		if !first && s.rollLocked(s.mu.manners.WatchLate) {
			late = time.Duration(s.mu.rng.Int64N(int64(s.mu.manners.WatchDelay) + 1))
		}
		silent := s.mu.manners.WatchSilent && !first
		changed := s.mu.changed
		s.mu.Unlock()
		if late > 0 {
			select {
			case <-time.After(late):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		for _, e := range news {
			if silent {
				continue // it looks healthy and says nothing
			}
			e.Value = slices.Clone(e.Value)
			fn(metadata.Event{Entry: e})
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		if first {
			fn(metadata.Event{CaughtUp: true})
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Status implements metadata.Store.
func (st *Store) Status(ctx context.Context) (metadata.Status, error) {
	s := st.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := st.reachableLocked(ctx); err != nil {
		return metadata.Status{}, err
	}
	return metadata.Status{Created: s.mu.created, LastRevision: s.mu.last, Keys: uint64(len(s.mu.keys))}, nil
}

// Bootstrap implements metadata.Store.
func (st *Store) Bootstrap(ctx context.Context) error {
	s := st.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.down || ctx.Err() != nil {
		return metadata.ErrUnavailable
	}
	if !s.mu.exists {
		s.mu.exists, s.mu.created = true, s.now()
		s.notifyLocked()
	}
	return nil
}

// Close implements metadata.Store. The server stays.
func (st *Store) Close() error {
	st.cancel()
	st.wg.Wait()
	return nil
}
