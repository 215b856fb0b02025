package group

import (
	"container/heap"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// shard is one partition of Topic and the groups in it. Its goroutine waits for
// the leadership, loads the groups, and then is the journal's only writer.
type shard struct {
	c      *Coordinator
	n      int32
	logger *slog.Logger
	wake   chan struct{} // capacity 1: look again
	cancel context.CancelFunc
	done   chan struct{}

	mu sync.Mutex
	// status is why requests are refused: ErrNotCoordinator, ErrLoading, or nil
	// when the groups are loaded.
	status error
	// ready is closed when the shard has loaded; another takes its place when it
	// is unloaded.
	ready    chan struct{}
	groups   map[string]*group
	unknown  map[string][]byte // records of later versions, by key
	wakes    wakes
	queue    []*entry
	queued   int // bytes
	maxBatch int
}

func newShard(c *Coordinator, n int32) *shard {
	return &shard{c: c, n: n, logger: c.logger.With("topic", Topic, "partition", n), wake: make(chan struct{}, 1), done: make(chan struct{}), ready: make(chan struct{}), status: ErrLoading}
}

func (s *shard) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run leads the partition again and again until ctx ends.
func (s *shard) run(ctx context.Context) {
	defer close(s.done)
	for {
		log, epoch, ok := s.awaitLeadership(ctx)
		if !ok {
			return
		}
		err := s.lead(ctx, log, epoch)
		if ctx.Err() != nil {
			s.unload(ErrNotCoordinator, ErrNotCoordinator)
			return
		}
		s.unload(ErrNotCoordinator, ErrLoading)
		s.logger.Warn("groups are unloaded", "event", "groups_unloaded", "epoch", epoch, "err", err)
	}
}

// awaitLeadership returns the partition once this broker leads it.
func (s *shard) awaitLeadership(ctx context.Context) (Log, int32, bool) {
	// A partition says that it leads a moment after the image does, without a
	// poke: ask again, soon and then less often.
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		if log, err := s.c.cfg.Partition(s.n); err == nil {
			if epoch, leading := log.Epoch(); leading {
				return log, epoch, true
			}
		}
		s.mu.Lock()
		s.status = ErrLoading
		if st, ok := s.c.partitionState(s.n); !ok || st.Leader >= 0 && st.Leader != s.c.cfg.NodeID {
			s.status = ErrNotCoordinator
		}
		s.mu.Unlock()
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-s.wake:
			t.Stop()
		case <-ctx.Done():
			t.Stop()
			return nil, -1, false
		}
	}
}

// lead loads the groups and serves them until the leadership ends.
func (s *shard) lead(ctx context.Context, log Log, epoch int32) error {
	s.mu.Lock()
	s.status = ErrLoading
	s.mu.Unlock()
	began := s.c.cfg.Now()
	f, err := load(ctx, log, s)
	if err != nil {
		if ctx.Err() == nil {
			// Not in a loop as fast as the disk can fail.
			t := time.NewTimer(time.Second)
			defer t.Stop()
			select {
			case <-t.C:
			case <-ctx.Done():
			}
		}
		return err
	}
	if f.bad > 0 {
		s.logger.Warn("records of the journal cannot be read and are left out", "event", "group_records_unreadable", "records", f.bad)
	}
	w := &writer{log: log, epoch: epoch, max: max(log.MaxBatchBytes(), minBatch), m: s.c.metrics, size: f.bytes, now: func() int64 { return s.c.cfg.Now().UnixMilli() }}
	if w.garbage = minGarbage; s.c.cfg.garbageForTest > 0 {
		w.garbage = s.c.cfg.garbageForTest
	}
	w.snapshot = w.garbage
	cancel := log.Subscribe(s.wake)
	defer cancel()
	s.mu.Lock()
	s.groups, s.unknown, s.wakes = f.groups, f.unknown, nil
	s.maxBatch = w.max
	s.status = nil
	for _, g := range s.groups {
		for _, m := range g.members {
			g.heard(m)
		}
		if len(g.members) > s.c.cfg.MaxSize {
			g.prepareRebalance("the group is above group.max.size")
		}
		s.scheduleLocked(g, g.deadline())
	}
	s.dropDeletedLocked(s.c.cfg.Cluster.Image().Tombstones())
	close(s.ready)
	groups := len(s.groups)
	s.mu.Unlock()
	s.logger.Debug("groups are loaded", "event", "groups_loaded", "epoch", epoch, "groups", groups, "bytes", f.bytes, "took", s.c.cfg.Now().Sub(began))
	return s.serve(ctx, w)
}

// unload forgets the groups and answers everybody who waits with err; from now on
// requests are refused with status.
func (s *shard) unload(err, status error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuseLocked(status)
	queue := s.queue
	s.queue, s.queued = nil, 0
	for _, e := range queue {
		e.done(err)
	}
	for _, g := range s.groups {
		g.fail(err)
	}
	s.groups, s.unknown, s.wakes = nil, nil, nil
}

// refuseLocked refuses requests with status from now on.
func (s *shard) refuseLocked(status error) {
	if s.status == nil {
		s.ready = make(chan struct{})
	}
	s.status = status
}

// awaitReady returns when the groups are loaded.
func (s *shard) awaitReady(ctx context.Context) error {
	for {
		s.mu.Lock()
		status, ready := s.status, s.ready
		s.mu.Unlock()
		if status == nil {
			return nil
		}
		if errors.Is(status, ErrNotCoordinator) {
			return status
		}
		select {
		case <-ready:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.done:
			return ErrNotAvailable
		}
	}
}

// groupLocked is the group, made when create says so.
func (s *shard) groupLocked(id string, create bool) *group {
	g := s.groups[id]
	if g == nil && create {
		g = newGroup(strings.Clone(id), s)
		s.groups[g.id] = g
	}
	return g
}

// settleLocked is called after the state machine has moved: it schedules the
// group's next deadline, and forgets a group of which nothing is left and nothing
// was ever journaled.
func (s *shard) settleLocked(g *group) {
	if g.state == Empty && len(g.pending) == 0 && len(g.offsets) == 0 && g.journaled == nil && g.commits == 0 && g.writing == 0 && !g.deleting {
		if s.groups[g.id] == g {
			s.forgetLocked(g)
		}
		return
	}
	s.scheduleLocked(g, g.deadline())
}

func (s *shard) forgetLocked(g *group) {
	delete(s.groups, g.id)
	if g.heap >= 0 {
		heap.Remove(&s.wakes, g.heap)
	}
}

// scheduleLocked makes sure that the group is looked at by at. Only an earlier
// moment than the one planned moves it: a heartbeat, which moves a session's end
// away, costs nothing here, and the group is found not to be due when its time
// comes. So there is one entry for each group with members, whatever they do.
func (s *shard) scheduleLocked(g *group, at time.Time) {
	if at.IsZero() || g.heap >= 0 && !at.Before(g.wake) {
		return
	}
	g.wake = at
	if g.heap >= 0 {
		heap.Fix(&s.wakes, g.heap)
	} else {
		heap.Push(&s.wakes, g)
	}
	if s.wakes[0] == g {
		s.c.pokeTimer()
	}
}

// fire runs the deadlines that are due and returns when to come again, zero for
// never.
func (s *shard) fire(now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.wakes) > 0 && !s.wakes[0].wake.After(now) {
		g := heap.Pop(&s.wakes).(*group)
		g.tick()
		s.settleLocked(g)
	}
	if len(s.wakes) == 0 {
		return time.Time{}
	}
	return s.wakes[0].wake
}

// The shard is the host of its groups.

func (s *shard) now() time.Time                   { return s.c.cfg.Now() }
func (s *shard) limits() *Limits                  { return &s.c.cfg.Limits }
func (s *shard) newMemberID(prefix string) string { return prefix + "-" + s.c.cfg.NewID() }

func (s *shard) rebalancing(g *group, reason string) {
	s.c.metrics.rebalances.Inc()
	s.logger.Info("group is rebalancing", "event", "group_rebalance", "group", g.id, "generation", g.generation, "members", len(g.members), "reason", reason)
}

func (s *shard) persist(g *group, value []byte, done func(error)) {
	g.writing++
	s.enqueueLocked(&entry{records: []kv{{groupKey(g.id), value}}, done: func(err error) {
		g.writing--
		if err == nil {
			g.journaled = value
		}
		done(err)
		if s.groups[g.id] == g {
			s.settleLocked(g)
		}
	}}, ErrStateTooLarge)
}

// wakes is a heap of groups by when they are looked at.
type wakes []*group

func (h wakes) Len() int           { return len(h) }
func (h wakes) Less(i, j int) bool { return h[i].wake.Before(h[j].wake) }
func (h wakes) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heap, h[j].heap = i, j
}
func (h *wakes) Push(x any) {
	g := x.(*group)
	g.heap = len(*h)
	*h = append(*h, g)
}
func (h *wakes) Pop() any {
	old := *h
	g := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	g.heap, g.wake = -1, time.Time{}
	return g
}
