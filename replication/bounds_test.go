package replication

import (
	"errors"
	"testing"
	"time"

	"github.com/firnlog/firn/metadata"
)

// appended appends n batches without waiting.
func appended(t *testing.T, p *Partition, n int) (a Appended) {
	t.Helper()
	for i := range n {
		var err error
		if a, err = p.Append(one(i), all); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// TestTooFewInSyncReplicasRefuseAcksAll, and only acks=all; the minimum is capped by
// the replication factor (SAFETY 6).
func TestTooFewInSyncReplicasRefuseAcksAll(t *testing.T) {
	for _, c := range []struct {
		isr, rf, min int
		refused      bool
	}{
		{1, 1, 1, false}, {1, 1, 2, false}, {1, 3, 2, true}, {2, 3, 2, false}, {2, 3, 3, true}, {1, 2, 3, true}, {2, 2, 3, false},
	} {
		p, _ := partition(t, metadata.DurabilityReplicated)
		cfg := *p.Config()
		cfg.MinISR = c.min
		p.setConfig(&cfg)
		p.startLeading(1, c.isr, c.rf)
		if _, err := p.Append(one(0), all); errors.Is(err, ErrNotEnoughReplicas) != c.refused {
			t.Errorf("%+v: %v", c, err)
		}
		for _, acks := range []int16{0, 1} {
			if _, err := p.Append(one(0), AppendOptions{Acks: acks, CurrentEpoch: -1}); err != nil {
				t.Errorf("%+v, acks=%d: %v", c, acks, err)
			}
		}
	}
}

// TestUploadsStopAtTheSyncedEnd even where acknowledgements do not wait for a sync:
// what is in the bucket must outlive a power cut here (SAFETY 1).
func TestUploadsStopAtTheSyncedEnd(t *testing.T) {
	p, g := partition(t, metadata.DurabilityReplicated)
	p.startLeading(1, 1, 1)
	appended(t, p, 1)
	if err := p.log.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	open := g.shut()
	defer open()
	if a := appended(t, p, 1); !p.Committed(a) {
		t.Fatal("replicated durability waits for a sync")
	}
	if _, _, end := p.Offsets(); end != 1 {
		t.Fatalf("uploads may go to %d, synced is 1", end)
	}
}

// TestDeleteRecordsKeepsItsBounds: up to the high watermark and no further, never
// back, by the leader only, and not on a compacted topic.
func TestDeleteRecordsKeepsItsBounds(t *testing.T) {
	p, _ := partition(t, metadata.DurabilityFsync)
	if _, err := p.DeleteRecords(0); !errors.Is(err, ErrNotLeader) {
		t.Fatalf("before any leadership: %v", err)
	}
	p.startLeading(1, 1, 1)
	if err := p.WaitCommitted(t.Context(), appended(t, p, 15)); err != nil {
		t.Fatal(err)
	}
	p.hw.Store(10) // as if a follower had only so much
	for _, s := range []struct {
		offset, start int64
		err           error
	}{
		{0, 0, nil}, {4, 4, nil}, {2, 4, nil}, {11, -1, ErrOffsetOutOfRange}, {-2, -1, ErrOffsetOutOfRange}, {5, 5, nil}, {-1, 10, nil}, {10, 10, nil}, {0, 10, nil},
	} {
		start, err := p.DeleteRecords(s.offset)
		if start != s.start || !errors.Is(err, s.err) {
			t.Errorf("up to %d: log start %d, %v; want %d, %v", s.offset, start, err, s.start, s.err)
		}
	}
	if err := p.RaiseLogStart(3); err != nil || p.log.Start() != 10 {
		t.Errorf("the log start went to %d: %v", p.log.Start(), err)
	}
	if r, err := p.Read(9, 1<<20, true, false); !errors.Is(err, ErrOffsetOutOfRange) || r.LogStart != 10 {
		t.Errorf("below the log start: %+v %v", r, err)
	}
	cfg := *p.Config()
	cfg.Compact, cfg.Delete = true, false
	p.setConfig(&cfg)
	if _, err := p.DeleteRecords(10); !errors.Is(err, ErrPolicyViolation) {
		t.Errorf("compacted: %v", err)
	}
	p.stopLeading()
	if _, err := p.DeleteRecords(10); !errors.Is(err, ErrNotLeader) {
		t.Errorf("after the leadership: %v", err)
	}
}

// TestRetentionStopsAtTheHighWatermark: what is not committed stays, however old or
// large it is, and so does a segment that is committed in part.
func TestRetentionStopsAtTheHighWatermark(t *testing.T) {
	for _, by := range []string{"ms", "bytes"} {
		p, g := partition(t, metadata.DurabilityFsync)
		p.startLeading(1, 1, 1)
		if err := p.WaitCommitted(t.Context(), appended(t, p, 100)); err != nil {
			t.Fatal(err)
		}
		open := g.shut()
		appended(t, p, 200) // several segments above the high watermark
		cfg := *p.Config()
		if by == "ms" {
			cfg.RetentionMs = 0
		} else {
			cfg.RetentionBytes = 0
		}
		p.setConfig(&cfg)
		below := p.expired(time.UnixMilli(1_000_000))
		var want int64
		for _, s := range p.log.Segments() {
			if s.End <= 100 {
				want = s.End
			}
		}
		if hw := p.hw.Load(); hw != 100 || want == 0 || below != want {
			t.Errorf("by %s: everything below %d may go, the high watermark is %d, the last whole segment below it ends at %d", by, below, hw, want)
		}
		open()
	}
}

// TestEpochEndsAreThoseOfTheLog: the end of an epoch is where the next one begins,
// that of the leader's own is the log end, and nobody knows one that is to come
// (KIP-101, KIP-279, KIP-320).
func TestEpochEndsAreThoseOfTheLog(t *testing.T) {
	p, _ := partition(t, metadata.DurabilityReplicated)
	for _, epoch := range []int32{2, 5, 6} {
		p.startLeading(epoch, 1, 1)
		appended(t, p, 3)
	}
	p.startLeading(9, 1, 1) // without a record of its own yet
	for asked, want := range map[int32]struct {
		epoch int32
		end   int64
	}{2: {2, 3}, 4: {2, 3}, 5: {5, 6}, 6: {6, 9}, 8: {6, 9}, 9: {9, 9}, 10: {-1, -1}} {
		if epoch, end := p.EpochEnd(asked); epoch != want.epoch || end != want.end {
			t.Errorf("epoch %d ends: (%d, %d), want %+v", asked, epoch, end, want)
		}
	}
}

// TestAnEmptyLogEndsEveryOlderEpoch at its end, as a Kafka leader says: a consumer that
// stands there since an older epoch goes on, it is not reset.
func TestAnEmptyLogEndsEveryOlderEpoch(t *testing.T) {
	p, _ := partition(t, metadata.DurabilityReplicated)
	p.startLeading(3, 1, 1)
	for asked, want := range map[int32]struct {
		epoch int32
		end   int64
	}{-1: {-1, -1}, 0: {0, 0}, 2: {2, 0}, 3: {3, 0}, 4: {-1, -1}} {
		if epoch, end := p.EpochEnd(asked); epoch != want.epoch || end != want.end {
			t.Errorf("epoch %d ends: (%d, %d), want %+v", asked, epoch, end, want)
		}
	}
}

// TestAWatermarkThatPassesDoesNotAnswerForAnotherEpoch: the waits of epoch 5 are
// still registered when the watermark passes them in epoch 7 (SAFETY 5). Each way
// that ends a wait is looked at alone.
func TestAWatermarkThatPassesDoesNotAnswerForAnotherEpoch(t *testing.T) {
	p, g := partition(t, metadata.DurabilityFsync)
	p.startLeading(5, 1, 1)
	open := g.shut()
	defer open()
	a := appended(t, p, 1)
	wait := func() <-chan error {
		done := make(chan error, 1)
		before := p.waiting.Load()
		go func() { done <- p.WaitCommitted(soon(t), a) }()
		for ctx := soon(t); p.waiting.Load() == before && ctx.Err() == nil; {
		}
		return done
	}
	over := func(how string, done <-chan error) {
		t.Helper()
		if err := <-done; !errors.Is(err, ErrNotLeader) {
			t.Errorf("%s: the wait ended with %v", how, err)
		}
	}
	done := wait()
	p.stopLeading()
	over("the leadership ends", done)

	p.lead.Lock()
	p.lead.leading = true // as if it had never ended
	p.lead.Unlock()
	done = wait()
	p.startLeading(7, 1, 1)
	over("the next one begins", done)

	p.lead.Lock()
	p.lead.epoch = 5
	p.lead.Unlock()
	done = wait()
	p.lead.Lock()
	p.lead.epoch = 7
	p.lead.Unlock()
	p.wake(a.End)
	over("the watermark passes", done)

	open()
	if err := p.log.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.advance()
	if p.Committed(a) {
		t.Error("it counts as committed in epoch 7")
	}
	if err := p.WaitCommitted(soon(t), a); !errors.Is(err, ErrNotLeader) {
		t.Errorf("a wait that begins in epoch 7 ended with %v", err)
	}
}
