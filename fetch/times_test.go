package fetch

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/localcache"
	"github.com/firnlog/firn/record"
)

// stamped makes one-record batches with the given timestamps from offset 0 on.
func stamped(ts []int64) []record.Batch {
	var all []record.Batch
	for i, at := range ts {
		opts := record.NewBatchOptions()
		opts.BaseOffset = int64(i)
		b := record.NewBuilder(opts)
		b.Append(record.Record{TimestampDelta: at, Value: []byte("v")})
		all = append(all, b.Build())
	}
	return all
}

// TestTimesAreExactAcrossTiers compares lookups with a walk over all records, for
// random timestamps (also out of order), boundaries and overlaps of the tiers.
func TestTimesAreExactAcrossTiers(t *testing.T) {
	for range 300 {
		seed := rand.Uint64()
		r := rand.New(rand.NewPCG(seed, 0))
		g := newRig(t, Config{}, localcache.Config{})
		ts := make([]int64, 5+r.IntN(30))
		for i := range ts {
			ts[i] = int64(100*i) + r.Int64N(int64(1+r.IntN(1000)))
		}
		l := g.log(1, stamped(ts), r.IntN(len(ts)), 200, 500, false)
		l.start = r.Int64N(l.hw)
		switch r.IntN(3) {
		case 0: // all local
			l.local = l.start
		case 1: // partly in both
			l.local -= r.Int64N(l.local + 1)
		}
		l.local = max(l.local, l.start)
		l.hw -= r.Int64N(3)
		if l.hw < l.start {
			continue
		}
		if end := l.arch.end(); end > l.hw {
			l.hw = end
		}
		l.lineage = []commitlog.EpochStart{{Epoch: 0, Start: 0}, {Epoch: 4, Start: l.hw / 2}}
		for range 20 {
			at := r.Int64N(int64(100*len(ts)) + 1500)
			wantOffset, wantTs, wantOK, _ := firstAt(l.batches, at, l.start, l.hw)
			o, when, epoch, ok, err := offsetForTime(t.Context(), l, at)
			if err != nil || o != wantOffset || when != wantTs || ok != wantOK {
				t.Fatalf("seed %d: time %d: got %d@%d %v %v, want %d@%d %v", seed, at, o, when, ok, err, wantOffset, wantTs, wantOK)
			}
			if want := l.epochOf(o); ok && epoch != want {
				t.Fatalf("seed %d: offset %d: epoch %d, want %d", seed, o, epoch, want)
			}
		}
		wantOffset, wantTs := greatest(l.batches, l.start, l.hw)
		o, when, _, ok, err := maxTimestamp(t.Context(), l)
		if err != nil || o != wantOffset || (ok && when != wantTs) || ok != (wantOffset >= 0) {
			t.Fatalf("seed %d: greatest: got %d@%d %v %v, want %d@%d", seed, o, when, ok, err, wantOffset, wantTs)
		}
		g.close()
	}
}

// TestTiesGoToTheLowerOffset: the greatest timestamp is in both tiers.
func TestTiesGoToTheLowerOffset(t *testing.T) {
	g := newRig(t, Config{}, localcache.Config{})
	l := g.log(1, stamped([]int64{1, 9, 2, 3, 4, 9, 5}), 3, 200, 500, false)
	if o, at, _, ok, err := maxTimestamp(t.Context(), l); o != 1 || at != 9 || !ok || err != nil {
		t.Errorf("got %d@%d %v %v", o, at, ok, err)
	}
}

// TestSpecialOffsets asks for -4, -5 and -6. What is tiered and no longer readable
// does not count.
func TestSpecialOffsets(t *testing.T) {
	g := newRig(t, Config{}, localcache.Config{})
	l := g.log(1, stamped(make([]int64, 20)), 5, 200, 500, false)
	l.lineage = []commitlog.EpochStart{{Epoch: 2, Start: 0}, {Epoch: 5, Start: 15}}
	for _, c := range []struct {
		name      string
		f         func(context.Context, partition) (int64, int32, error)
		offset    int64
		epoch     int32
		untiered  int64
		untieredE int32
	}{
		{"earliest local", func(_ context.Context, p partition) (int64, int32, error) { o, e := earliestLocal(p); return o, e, nil }, 15, 5, 0, 2},
		{"latest tiered", latestTiered, 14, 2, -1, -1},
		{"earliest pending", earliestPending, 15, 5, -1, -1},
	} {
		if o, e, err := c.f(t.Context(), l); o != c.offset || e != c.epoch || err != nil {
			t.Errorf("%s: %d epoch %d, %v", c.name, o, e, err)
		}
		plain := newFakeLog(2, l.batches)
		plain.lineage = l.lineage
		if o, e, err := c.f(t.Context(), plain); o != c.untiered || e != c.untieredE || err != nil {
			t.Errorf("%s, not tiered: %d epoch %d, %v", c.name, o, e, err)
		}
	}
	l.change(func() { l.start, l.local = 17, 17 })
	if o, e, err := latestTiered(t.Context(), l); o != -1 || e != -1 || err != nil {
		t.Errorf("nothing readable is tiered: %d epoch %d, %v", o, e, err)
	}
	if o, e, err := earliestPending(t.Context(), l); o != 17 || e != 5 || err != nil {
		t.Errorf("all that is tiered is below the log start: %d epoch %d, %v", o, e, err)
	}
}

// TestTimesFailWithTheBucket: no guess is made from the local tier alone, and a
// bucket that says nothing is waited for no longer than the request waits.
func TestTimesFailWithTheBucket(t *testing.T) {
	g := newRig(t, Config{}, localcache.Config{})
	l := g.log(1, stamped(make([]int64, 20)), 5, 200, 500, false)
	if _, _, _, _, err := offsetForTime(t.Context(), brokenTier{l}, 0); !errors.Is(err, ErrColdRead) {
		t.Errorf("got %v", err)
	}
	if _, _, _, _, err := maxTimestamp(t.Context(), brokenTier{l}); !errors.Is(err, ErrColdRead) {
		t.Errorf("got %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		for what, ask := range map[string]func(context.Context, partition) error{
			"latest tiered":      func(ctx context.Context, p partition) error { _, _, err := latestTiered(ctx, p); return err },
			"earliest pending":   func(ctx context.Context, p partition) error { _, _, err := earliestPending(ctx, p); return err },
			"by time":            func(ctx context.Context, p partition) error { _, _, _, _, err := offsetForTime(ctx, p, 0); return err },
			"greatest timestamp": func(ctx context.Context, p partition) error { _, _, _, _, err := maxTimestamp(ctx, p); return err },
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			begin := time.Now()
			err := ask(ctx, silentTier{l})
			if d := time.Since(begin); d != 300*time.Millisecond || !errors.Is(err, ErrColdRead) {
				t.Errorf("%s: %v after %v", what, err, d)
			}
			cancel()
		}
	})
}
