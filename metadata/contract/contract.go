// Package contract is the suite that every metadata.Store passes.
package contract

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/firnlog/firn/metadata"
)

// Run checks a driver. fresh returns a function that opens stores, each a client
// of its own, on one bucket that does not exist yet.
func Run(t *testing.T, fresh func(t *testing.T) (open func() metadata.Store)) {
	for _, c := range []struct {
		name string
		fn   func(t *testing.T, open func() metadata.Store)
	}{
		{"a missing bucket is said to be missing", missingBucket},
		{"an update is a compare and set", compareAndSet},
		{"a deletion is a compare and set", deletion},
		{"of racing writers exactly one wins", racing},
		{"a watch reports the present, then every last value", watching},
		{"a watch resumes where it left off", resuming},
		{"a bootstrap never empties a bucket", bootstrapTwice},
		{"a large value comes back whole", largeValue},
		{"a batch is made whole or not at all", batching},
		{"a call with an ended context changes nothing silently", endedContext},
	} {
		t.Run(c.name, func(t *testing.T) { c.fn(t, fresh(t)) })
	}
}

func ctx(t *testing.T) context.Context {
	t.Helper()
	c, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return c
}

func bootstrapped(t *testing.T, open func() metadata.Store) metadata.Store {
	t.Helper()
	s := open()
	if err := s.Bootstrap(ctx(t)); err != nil {
		t.Fatal(err)
	}
	return s
}

func mustUpdate(t *testing.T, s metadata.Store, key, value string, rev uint64) uint64 {
	t.Helper()
	got, err := s.Update(ctx(t), key, []byte(value), rev)
	if err != nil {
		t.Fatalf("update %s at %d: %v", key, rev, err)
	}
	return got
}

func missingBucket(t *testing.T, open func() metadata.Store) {
	s := open()
	if _, err := s.Status(ctx(t)); !errors.Is(err, metadata.ErrNoBucket) {
		t.Fatalf("status of no bucket: %v", err)
	}
	if err := s.Watch(ctx(t), 0, func(metadata.Event) {}); !errors.Is(err, metadata.ErrNoBucket) {
		t.Fatalf("watch of no bucket: %v", err)
	}
	if _, err := s.Get(ctx(t), "a"); err == nil || errors.Is(err, metadata.ErrNotFound) {
		t.Fatalf("a read without a bucket must not look like a missing key: %v", err)
	}
	c, cancel := context.WithTimeout(ctx(t), time.Second)
	defer cancel()
	if _, err := s.Update(c, "a", []byte("x"), 0); err == nil {
		t.Fatal("a write without a bucket succeeded")
	}
}

func compareAndSet(t *testing.T, open func() metadata.Store) {
	s := bootstrapped(t, open)
	if _, err := s.Get(ctx(t), "topics.a-b_C"); !errors.Is(err, metadata.ErrNotFound) {
		t.Fatalf("missing key: %v", err)
	}
	r1 := mustUpdate(t, s, "topics.a-b_C", "one", 0)
	r2 := mustUpdate(t, s, "other", "x", 0)
	r3 := mustUpdate(t, s, "topics.a-b_C", "two", r1)
	if !(r1 < r2 && r2 < r3) {
		t.Fatalf("revisions %d, %d, %d do not grow over the store", r1, r2, r3)
	}
	for _, stale := range []uint64{0, r1, r2, r3 + 1} {
		_, err := s.Update(ctx(t), "topics.a-b_C", []byte("no"), stale)
		var c *metadata.ConflictError
		if !errors.Is(err, metadata.ErrConflict) || !errors.As(err, &c) || c.Current != r3 {
			t.Fatalf("update at %d instead of %d: %v", stale, r3, err)
		}
	}
	e, err := s.Get(ctx(t), "topics.a-b_C")
	if err != nil || string(e.Value) != "two" || e.Revision != r3 || e.Deleted {
		t.Fatalf("got %+v, %v", e, err)
	}
	st, err := s.Status(ctx(t))
	if err != nil || st.LastRevision != r3 || st.Keys != 2 || st.Created.IsZero() {
		t.Fatalf("status %+v, %v", st, err)
	}
}

func deletion(t *testing.T, open func() metadata.Store) {
	s := bootstrapped(t, open)
	r1 := mustUpdate(t, s, "a", "one", 0)
	if _, err := s.Delete(ctx(t), "a", r1+1); !errors.Is(err, metadata.ErrConflict) {
		t.Fatalf("delete at a wrong revision: %v", err)
	}
	r2, err := s.Delete(ctx(t), "a", r1)
	if err != nil || r2 <= r1 {
		t.Fatalf("delete: revision %d, %v", r2, err)
	}
	if e, err := s.Get(ctx(t), "a"); !errors.Is(err, metadata.ErrNotFound) || e.Revision != r2 {
		t.Fatalf("a deleted key read as %+v, %v; want not found at revision %d", e, err, r2)
	}
	all, err := metadata.List(ctx(t), s)
	if err != nil || len(all) != 1 || !all[0].Deleted || all[0].Revision != r2 {
		t.Fatalf("list %+v, %v; want the deletion", all, err)
	}
	if _, err := s.Update(ctx(t), "a", []byte("x"), 0); !errors.Is(err, metadata.ErrConflict) {
		t.Fatalf("a deleted key was created as if it had never been: %v", err)
	}
	mustUpdate(t, s, "a", "again", r2)
	if st, err := s.Status(ctx(t)); err != nil || st.Keys != 1 {
		t.Fatalf("status %+v, %v", st, err)
	}
}

func racing(t *testing.T, open func() metadata.Store) {
	const writers, rounds = 16, 30
	s := bootstrapped(t, open)
	stores := []metadata.Store{s, open(), open(), open()}
	rev := uint64(0)
	for round := range rounds {
		var wg sync.WaitGroup
		var mu sync.Mutex
		var wins []uint64
		for w := range writers {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for {
					got, err := stores[w%len(stores)].Update(ctx(t), "race", fmt.Appendf(nil, "%d by %d", round, w), rev)
					if errors.Is(err, metadata.ErrInDoubt) {
						continue // in flight too long: the key decides
					}
					if err == nil {
						mu.Lock()
						wins = append(wins, got)
						mu.Unlock()
					} else if !errors.Is(err, metadata.ErrConflict) {
						t.Errorf("round %d: %v", round, err)
					}
					return
				}
			}()
		}
		wg.Wait()
		if len(wins) != 1 {
			t.Fatalf("round %d: %d of %d writers won from revision %d", round, len(wins), writers, rev)
		}
		rev = wins[0]
	}
}

// recorder collects what a watch reports.
type recorder struct {
	mu     sync.Mutex
	events []metadata.Event
	poke   chan struct{}
	cancel context.CancelFunc
	done   chan error
}

func record(t *testing.T, s metadata.Store, after uint64) *recorder {
	c, cancel := context.WithCancel(ctx(t))
	r := &recorder{poke: make(chan struct{}, 1), cancel: cancel, done: make(chan error, 1)}
	go func() {
		r.done <- s.Watch(c, after, func(e metadata.Event) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events = append(r.events, e)
			select {
			case r.poke <- struct{}{}:
			default:
			}
		})
	}()
	return r
}

// await waits until cond holds of what was reported.
func (r *recorder) await(t *testing.T, cond func([]metadata.Event) bool) []metadata.Event {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		r.mu.Lock()
		events := slices.Clone(r.events)
		r.mu.Unlock()
		if cond(events) {
			return events
		}
		select {
		case <-r.poke:
		case <-deadline:
			t.Fatalf("the watch reported only %+v", events)
		}
	}
}

func (r *recorder) stop(t *testing.T) {
	t.Helper()
	r.cancel()
	if err := <-r.done; !errors.Is(err, context.Canceled) {
		t.Fatalf("a cancelled watch returned %v", err)
	}
}

func watching(t *testing.T, open func() metadata.Store) {
	s := bootstrapped(t, open)
	empty := record(t, s, 0)
	if e := empty.await(t, func(e []metadata.Event) bool { return len(e) > 0 }); !e[0].CaughtUp {
		t.Fatalf("an empty bucket's watch began with %+v", e[0])
	}
	empty.stop(t)
	a := mustUpdate(t, s, "a", "1", 0)
	b := mustUpdate(t, s, "b", "1", 0)
	a = mustUpdate(t, s, "a", "2", a)
	r := record(t, open(), 0)
	events := r.await(t, func(e []metadata.Event) bool { return len(e) >= 3 })
	if events[0].Key != "b" || events[1].Key != "a" || string(events[1].Value) != "2" || events[1].Revision != a || !events[2].CaughtUp {
		t.Fatalf("reported %+v; want b, a at its last value, caught up", events)
	}
	for i := range 50 {
		b = mustUpdate(t, s, "b", fmt.Sprint(i), b)
	}
	events = r.await(t, func(e []metadata.Event) bool { return len(e) > 0 && e[len(e)-1].Revision == b })
	last := uint64(0)
	for _, e := range events {
		if e.CaughtUp {
			continue
		}
		if e.Revision < last {
			t.Fatalf("revision %d after %d", e.Revision, last)
		}
		last = e.Revision
	}
	if got := string(events[len(events)-1].Value); got != "49" {
		t.Fatalf("last value %q", got)
	}
	r.stop(t)
}

func resuming(t *testing.T, open func() metadata.Store) {
	s := bootstrapped(t, open)
	a := mustUpdate(t, s, "a", "1", 0)
	b := mustUpdate(t, s, "b", "1", 0)
	c := mustUpdate(t, s, "c", "1", 0)
	r := record(t, s, b)
	events := r.await(t, func(e []metadata.Event) bool { return len(e) >= 2 })
	if events[0].Key != "c" || events[0].Revision != c || !events[1].CaughtUp {
		t.Fatalf("resumed after %d with %+v", b, events)
	}
	r.stop(t)
	r = record(t, s, c)
	mustUpdate(t, s, "a", "2", a)
	r.await(t, func(e []metadata.Event) bool {
		return slices.ContainsFunc(e, func(e metadata.Event) bool { return e.Key == "a" && string(e.Value) == "2" })
	})
	r.stop(t)
}

func bootstrapTwice(t *testing.T, open func() metadata.Store) {
	s := bootstrapped(t, open)
	mustUpdate(t, s, "a", "1", 0)
	before, err := s.Status(ctx(t))
	if err != nil {
		t.Fatal(err)
	}
	other := open()
	if err := other.Bootstrap(ctx(t)); err != nil {
		t.Fatal(err)
	}
	after, err := other.Status(ctx(t))
	if err != nil || !after.Created.Equal(before.Created) || after.LastRevision != before.LastRevision || after.Keys != 1 {
		t.Fatalf("second bootstrap: %+v became %+v, %v", before, after, err)
	}
}

func largeValue(t *testing.T, open func() metadata.Store) {
	s := bootstrapped(t, open)
	value := make([]byte, 700<<10)
	for i := range value {
		value[i] = byte(i * 7)
	}
	rev, err := s.Update(ctx(t), "big", value, 0)
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.Get(ctx(t), "big")
	if err != nil || e.Revision != rev || !slices.Equal(e.Value, value) {
		t.Fatalf("%d bytes at %d, %v", len(e.Value), e.Revision, err)
	}
}

func batching(t *testing.T, open func() metadata.Store) {
	s, ok := bootstrapped(t, open).(metadata.Batcher)
	if !ok {
		t.Skip("the store takes no batches")
	}
	a := mustUpdate(t, s, "k.0", "old", 0)
	var batch []metadata.Entry
	for i := range metadata.MaxBatch {
		batch = append(batch, metadata.Entry{Key: fmt.Sprintf("k.%d", i), Value: fmt.Append(nil, i)})
	}
	batch[0].Revision = a
	revs, err := s.UpdateAll(ctx(t), batch)
	if err != nil || len(revs) != len(batch) {
		t.Fatalf("%d revisions, %v", len(revs), err)
	}
	for _, i := range []int{0, 1, len(batch) - 1} {
		e, err := s.Get(ctx(t), batch[i].Key)
		if err != nil || e.Revision != revs[i] || string(e.Value) != fmt.Sprint(i) {
			t.Fatalf("entry %d is %+v at %d, %v", i, e, revs[i], err)
		}
	}
	// One stale revision in the middle, or at the end: nothing is written.
	for _, bad := range []int{1, 2} {
		next := []metadata.Entry{{Key: "k.0", Value: []byte("x"), Revision: revs[0]}, {Key: "k.1", Value: []byte("x"), Revision: revs[1]}, {Key: "k.2", Value: []byte("x"), Revision: revs[2]}}
		next[bad].Revision = revs[0]
		if _, err := s.UpdateAll(ctx(t), next); !errors.Is(err, metadata.ErrConflict) {
			t.Fatalf("a batch with a stale revision: %v", err)
		}
		for i := range next {
			if e, err := s.Get(ctx(t), next[i].Key); err != nil || e.Revision != revs[i] {
				t.Fatalf("half a batch was made: %+v, %v", e, err)
			}
		}
	}
	mustUpdate(t, s, "k.0", "alone", revs[0])
}

func endedContext(t *testing.T, open func() metadata.Store) {
	s := bootstrapped(t, open)
	c, cancel := context.WithCancel(ctx(t))
	cancel()
	if _, err := s.Update(c, "a", []byte("x"), 0); !errors.Is(err, metadata.ErrInDoubt) {
		t.Fatalf("update with an ended context: %v, want in doubt", err)
	}
	if _, err := s.Get(c, "a"); err == nil || errors.Is(err, metadata.ErrNotFound) {
		t.Fatalf("get with an ended context: %v", err)
	}
}
