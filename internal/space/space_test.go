package space

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// volume is a disk with a cache on it.
type volume struct {
	mu    sync.Mutex
	total int64
	other int64 // used by all but the cache
	cache int64
	max   int64
	err   error
	asked int
}

func (v *volume) measure() (int64, int64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asked++
	if v.err != nil {
		return 0, 0, v.err
	}
	return v.total - v.other - v.cache, v.total, nil
}

func (v *volume) Used() int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.cache
}

func (v *volume) SetMaxBytes(n int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.max = n
	v.cache = min(v.cache, n)
}

func (v *volume) use(other int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.other = other
}

func newGuard(t *testing.T, v *volume, cache int64) *Guard {
	t.Helper()
	g, err := New(Config{Measure: v.measure, Cache: v, CacheBytes: cache, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

const gib = 1 << 30

// TestThePartsGiveWayInOrder fills a disk and empties it: the cache shrinks first,
// then what the bucket covers goes early, then producers are refused, and each takes
// its place again with some distance, so that nothing flaps (SAFETY 22).
func TestThePartsGiveWayInOrder(t *testing.T) {
	v := &volume{total: 20 * gib, cache: 4 * gib, max: 4 * gib} // the reserve is 1 GiB
	g := newGuard(t, v, 4*gib)
	steps := []struct {
		other  int64
		level  Level
		cache  int64
		refuse bool
	}{
		{8 * gib, Ample, 4 * gib, false},
		{13 * gib, Ample, 4 * gib, false}, // 3 GiB free
		{15 * gib, Tight, 2 * gib, false}, // the cache gave 2
		{17 * gib, Tight, 0, false},       // and now all of it: 3 GiB free
		{18*gib + gib/2, Low, 0, false},   // 1.5 free
		{19*gib + gib/2, Full, 0, true},   // 0.5 free
		{19*gib - gib/10, Full, 0, true},  // 1.1 free is not yet room
		{19*gib - gib/2, Low, 0, false},   // 1.5 free
		{10 * gib, Ample, 0, false},       // 10 free
	}
	for i, s := range steps {
		v.use(s.other)
		g.measure()
		g.measure() // what the first freed counts
		if v.Used() != s.cache {
			t.Fatalf("step %d: the cache has %d MiB, want %d", i, v.Used()>>20, s.cache>>20)
		}
		if g.Level() != s.level {
			t.Fatalf("step %d: level %v, want %v", i, g.Level(), s.level)
		}
		if g.Pressed() != (s.level >= Low) {
			t.Fatalf("step %d: at level %v what the bucket covers goes early: %v", i, s.level, g.Pressed())
		}
		if err := g.Take(1, false); errors.Is(err, ErrFull) != s.refuse {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	if v.max != 4*gib {
		t.Fatalf("with room again the cache may have %d MiB", v.max>>20)
	}
}

// TestWhatProtectsMayUseHalfOfTheReserve: where producers are refused the journals
// still have room, down to half of it; the other half is for checkpoints (SAFETY 22).
func TestWhatProtectsMayUseHalfOfTheReserve(t *testing.T) {
	v := &volume{total: 20 * gib, other: 19*gib + gib/4}
	g := newGuard(t, v, 0)
	if err := g.Take(1, false); !errors.Is(err, ErrFull) {
		t.Fatalf("%v", err)
	}
	if err := g.Take(1, true); err != nil {
		t.Fatal(err)
	}
	v.use(19*gib + 3*gib/4)
	if err := g.Take(1, true); !errors.Is(err, ErrFull) {
		t.Fatalf("%v", err)
	}
}

// TestAFastWriterIsMeasuredByItsBytes: a writer faster than the clock meets the limit, not the end of the disk.
func TestAFastWriterIsMeasuredByItsBytes(t *testing.T) { synctest.Test(t, fastWriter) }

func fastWriter(t *testing.T) {
	v := &volume{total: 20 * gib, other: 10 * gib}
	g := newGuard(t, v, 0)
	var written int64
	for {
		const batch = 1 << 20
		if err := g.Take(batch, false); err != nil {
			break
		}
		written += batch
		if written >= 10*gib {
			t.Fatal("the disk was written full")
		}
		v.use(10*gib + written)
	}
	if free := 10*gib - written; free > gib || free < gib/2 {
		t.Fatalf("refused with %d MiB free", free>>20)
	}
	if v.asked > 1000 {
		t.Fatalf("the disk was measured %d times", v.asked)
	}
	// Room comes back by itself.
	v.use(10 * gib)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go g.Run(ctx)
	time.Sleep(g.cfg.Every + time.Millisecond)
	if err := g.Take(1, false); err != nil {
		t.Fatal(err)
	}
}

// TestADiskThatCannotBeMeasuredStaysAsItWas: neither does a measurement that fails
// refuse producers, nor does it let them in.
func TestADiskThatCannotBeMeasuredStaysAsItWas(t *testing.T) {
	v := &volume{total: 20 * gib, other: 10 * gib}
	g := newGuard(t, v, 0)
	v.err = errors.New("gone")
	g.measure()
	if g.Level() != Ample || g.Take(1, false) != nil {
		t.Fatal("a failed measurement changed the level")
	}
	v.err = nil
	v.use(20 * gib)
	g.measure()
	v.err = errors.New("gone")
	g.measure()
	if err := g.Take(1, true); !errors.Is(err, ErrFull) {
		t.Fatalf("a failed measurement let what protects into a full disk: %v", err)
	}
	if _, err := New(Config{Measure: v.measure}); err == nil {
		t.Fatal("a guard of a disk that cannot be measured")
	}
}
