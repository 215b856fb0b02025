package tiering

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/objectstore/faulty"
	"github.com/firnlog/firn/record"
	"github.com/firnlog/firn/tiering/format"
)

// stuck is a bucket with one key that cannot be deleted (an object lock).
type stuck struct {
	objectstore.Bucket
	key     string
	asked   int
	deleted []string
}

func (b *stuck) Delete(ctx context.Context, keys []string) error {
	var rest []string
	var err error
	b.asked++
	for _, k := range keys {
		if k == b.key {
			err = fmt.Errorf("delete %s: %w", k, objectstore.ErrDenied)
			continue
		}
		rest = append(rest, k)
	}
	b.deleted = append(b.deleted, rest...)
	return errors.Join(b.Bucket.Delete(ctx, rest), err)
}

// TestOneUndeletableObjectKeepsOnlyItself: its grave stays, the others empty.
func TestOneUndeletableObjectKeepsOnlyItself(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := small(w)
		l.a.shape.inline = 100
		l.sink(12)
		b := &stuck{Bucket: l.a.bucket, key: w.folder() + w.head().Entries[3].Name()}
		l.a.bucket = b
		w.log.SetStart(8)
		for range 4 {
			l.pass()
			time.Sleep(l.a.cfg.Grace + time.Minute)
		}
		h := w.head()
		if len(h.Graves) != 1 || w.folder()+h.Graves[0].Name() != b.key {
			t.Fatalf("graves %+v", h.Graves)
		}
		w.fill(2)
		for range 4 {
			time.Sleep(time.Second)
			l.pass()
		}
		if h := w.head(); h.End != w.log.End() {
			t.Fatalf("uploads stopped at %d of %d", h.End, w.log.End())
		}
	})
}

// TestAPartGoesAfterItsObjects: a part that lists buried objects outlives them.
func TestAPartGoesAfterItsObjects(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := small(w)
		l.sink(14)
		e := w.entries(w.head())[1]
		part := w.folder() + w.head().Parts[0].Name()
		b := &stuck{Bucket: l.a.bucket, key: w.folder() + e.Name()}
		l.a.bucket = b
		w.log.SetStart(12)
		for range 4 {
			l.pass()
			time.Sleep(l.a.cfg.Grace + time.Minute)
		}
		if _, err := w.raw.Head(context.Background(), part); err != nil {
			t.Fatalf("the only list of an object that is still there: %v", err)
		}
		b.key = ""
		l.settle()
		for _, k := range []string{part, w.folder() + e.Name()} {
			if _, err := w.raw.Head(context.Background(), k); !errors.Is(err, objectstore.ErrNotFound) {
				t.Errorf("%s: %v", k, err)
			}
		}
	})
}

// TestOneBadPartStopsNothingElse: uploads, burials, local deletions and purges go
// on beside a part that cannot be read, though retention needs it in every pass.
func TestOneBadPartStopsNothingElse(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := small(w)
		for range 14 {
			l.sink(1)
			time.Sleep(time.Minute)
		}
		part := w.head().Parts[0]
		w.raw.Put(context.Background(), w.folder()+part.Name(), strings.NewReader("damaged"), 7, objectstore.Cond{})
		l.a.parts = newLRU[format.Nonce, *format.Part](32, 1<<30)
		w.cfg.RetentionMs = time.Since(time.UnixMilli((part.MinTs + part.MaxTs) / 2)).Milliseconds()
		w.cfg.LocalRetentionMs = 0
		w.log.Roll()
		w.fill(1)
		end, local := w.log.End(), w.log.LocalStart()
		w.log.SetStart(2) // within the bad part: nothing can be trimmed, and yet the head knows
		for range 6 {
			time.Sleep(time.Second)
			if err := l.pass(); !errors.Is(err, format.ErrCorrupt) {
				t.Fatalf("retention does not need the part: %v", err)
			}
		}
		if h := w.head(); h.End < end {
			t.Fatalf("uploads stopped at %d of %d", h.End, end)
		}
		if h := w.head(); h.LogStart < 2 {
			t.Fatalf("the head's log start is %d", h.LogStart)
		}
		// What local deletion asks of the bucket is in the bad part.
		if w.log.LocalStart() != local {
			t.Fatalf("local start %d", w.log.LocalStart())
		}
		w.cfg.RetentionMs = -1
		for range 20 { // spills past it
			w.fill(1)
			for range 3 {
				time.Sleep(2 * time.Millisecond)
				l.pass()
			}
		}
		w.log.SetStart(30)
		for range 4 {
			l.pass()
			time.Sleep(l.a.cfg.Grace + time.Minute)
		}
		if h := w.head(); len(h.Graves) != 0 {
			t.Fatalf("graves stay: %+v", h.Graves)
		}
		// What the part named is found as orphans.
		for range 3 {
			l.run()
			time.Sleep(l.a.cfg.OrphanAge + time.Hour)
		}
		h := w.head()
		if got, want := len(w.names()), len(w.entries(h))+len(h.Parts)+1; got != want {
			t.Fatalf("%d objects in the folder, %d are named", got, want)
		}
	})
}

// TestALostObjectIsNotAskedForInEveryPass: the listing comes at its own pace, and
// uploads at theirs.
func TestALostObjectIsNotAskedForInEveryPass(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.tune = func(c *Config) { c.ScrubEvery = 6 * time.Hour }
		l := w.lead()
		w.fill(30)
		w.cfg.LocalRetentionMs = 0
		time.Sleep(time.Second)
		l.settle()
		e := w.head().Entries[0]
		w.raw.Delete(context.Background(), []string{w.folder() + e.Name()})
		time.Sleep(12 * time.Hour)
		before := w.bucket.Count(objectstore.OpList).Requests
		for range 24 {
			if l.archive.due(time.Now()) {
				l.archive.run(context.Background())
			}
			time.Sleep(10 * time.Minute)
		}
		if n := w.bucket.Count(objectstore.OpList).Requests - before; n == 0 || n > 3 {
			t.Fatalf("%d listings in four hours, with one every six", n)
		}
		w.raw.Delete(context.Background(), []string{w.folder() + format.HeadName}) // nothing for w.check
	})
}

// TestSlowUploadsEnd: an upload that takes longer than a pass's timeout is not
// cut off while bytes move.
func TestSlowUploadsEnd(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.tune = func(c *Config) { c.BytesPerSecond, c.Timeout = 10, time.Minute }
		l := w.lead()
		w.fill(10)
		if err := l.pass(); err != nil {
			t.Fatal(err)
		}
		if h := w.head(); h == nil || h.End == 0 {
			t.Fatal("nothing was uploaded")
		}
	})
}

// TestASilentStoreEndsThePass: no byte moves for the timeout.
func TestASilentStoreEndsThePass(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := w.lead()
		w.fill(10)
		w.bucket.Inject(faulty.Fault{Kind: faulty.Slow, Op: objectstore.OpPut, Match: ".seg", Delay: 1000 * time.Hour})
		start := time.Now()
		if err := l.pass(); err == nil || time.Since(start) > l.a.cfg.Timeout+time.Minute {
			t.Fatalf("after %v: %v", time.Since(start), err)
		}
	})
}

// TestRetentionInPartsIsQuiet: a part whose oldest record is past retention.ms,
// but none of its objects, makes no pass due.
func TestRetentionInPartsIsQuiet(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.cfg.MaxUnuploaded = time.Millisecond
		w.cfg.RetentionMs = 3600_000
		l := small(w)
		for range 14 {
			b := record.NewBuilder(record.NewBatchOptions())
			b.Append(record.Record{TimestampDelta: time.Now().UnixMilli() - 2*3600_000, Value: make([]byte, 100)})
			b.Append(record.Record{TimestampDelta: time.Now().UnixMilli(), Value: make([]byte, 100)})
			w.appendBatch(b.Build())
			for range 2 {
				time.Sleep(30 * time.Second)
				if err := l.pass(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if len(w.head().Parts) == 0 {
			t.Fatal("no parts")
		}
		for range 3 {
			if l.archive.due(time.Now()) {
				l.archive.run(context.Background())
			}
		}
		if l.archive.due(time.Now()) {
			t.Fatal("a pass is due again and again")
		}
		// And in time it is.
		time.Sleep(50 * time.Minute)
		start := w.log.Start()
		for range 3 {
			if l.archive.due(time.Now()) {
				l.archive.run(context.Background())
			}
		}
		if w.log.Start() <= start {
			t.Fatal("nothing expired")
		}
	})
}

// TestAnEmptyPartitionIsQuiet: with nothing in the bucket and nothing for it, no
// pass is due, not even after the time of a scrub.
func TestAnEmptyPartitionIsQuiet(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.tune = func(c *Config) { c.ScrubEvery = time.Hour }
		l := w.lead()
		passes := 0
		for range 100 {
			if l.archive.due(time.Now()) {
				passes++
				l.archive.run(context.Background())
			}
			time.Sleep(5 * time.Minute)
		}
		if passes > 20 {
			t.Fatalf("%d passes in eight hours", passes)
		}
	})
}

// TestResignIsTheEnd: a pass that begins after Resign does nothing.
func TestResignIsTheEnd(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := w.lead()
		w.fill(20)
		l.settle()
		w.fill(20)
		l.a.Resign(w.tp)
		puts := w.bucket.Count(objectstore.OpPut).Requests + w.bucket.Count(objectstore.OpGet).Requests
		w.cfg.RetentionBytes = 0
		if err := l.pass(); err == nil {
			t.Error("a pass after Resign succeeds")
		}
		synctest.Wait()
		if n := w.bucket.Count(objectstore.OpPut).Requests + w.bucket.Count(objectstore.OpGet).Requests; n != puts || w.log.Start() != 0 {
			t.Fatalf("%d requests after Resign, log start %d", n-puts, w.log.Start())
		}
	})
}

// TestPassesMeetEachOther: workers, DeleteRecords, readers and metrics at once.
func TestPassesMeetEachOther(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.cfg.MaxUnuploaded = time.Millisecond
		l := w.lead()
		l.sink(3)
		w.bucket.Chaos(faulty.Chaos{Seed: 3, Before: 0.3})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 20 {
					l.archive.run(context.Background())
					time.Sleep(time.Millisecond)
				}
			})
			wg.Go(func() {
				for range 20 {
					l.archive.CommitLogStart(context.Background(), 1)
					l.archive.due(time.Now())
					l.archive.Refresh(context.Background())
					l.archive.Usage()
					time.Sleep(time.Millisecond)
				}
			})
		}
		wg.Wait()
		w.bucket.Heal()
		l.settle()
	})
}

// TestCommitLogStartKeepsItsDeadline: DeleteRecords does not wait for an upload
// longer than it wants to, and an offset that the log never reached is an error.
func TestCommitLogStartKeepsItsDeadline(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := w.lead()
		w.fill(10)
		l.settle()
		w.fill(10)
		w.bucket.Inject(faulty.Fault{Kind: faulty.Slow, Op: objectstore.OpPut, Match: ".seg", Delay: time.Minute})
		done := make(chan struct{})
		go func() { l.pass(); close(done) }()
		synctest.Wait()
		w.log.SetStart(2)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		start := time.Now()
		if err := l.archive.CommitLogStart(ctx, 2); err == nil || time.Since(start) > 11*time.Second {
			t.Fatalf("after %v: %v", time.Since(start), err)
		}
		<-done
		if err := l.archive.CommitLogStart(context.Background(), 2); err != nil {
			t.Fatal(err)
		}
		ctx, cancel = context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := l.archive.CommitLogStart(ctx, 1000); err == nil {
			t.Fatal("a log start that nobody set is committed")
		}
	})
}

// TestManyProofsTakeManyPasses: what was proved is deleted although there is more
// than one pass can prove.
func TestManyProofsTakeManyPasses(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := w.lead()
		w.fill(200)
		l.settle()
		w.cfg.LocalRetentionMs = 0
		time.Sleep(time.Second)
		l.a.proofs = 4
		if err := l.pass(); err != nil {
			t.Fatal(err)
		}
		first := w.log.LocalStart()
		if first == 0 || first == w.head().End {
			t.Fatalf("local start %d", first)
		}
		l.settle()
		if got := w.log.LocalStart(); got != w.head().End {
			t.Fatalf("local start %d of %d", got, w.head().End)
		}
	})
}

// TestGravesSurviveClockJumps: burials are stamped with the store's time whatever
// our wall clock does between, and a stamp from the future is put right by the
// next leader.
func TestGravesSurviveClockJumps(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := w.lead()
		w.fill(20)
		l.settle()
		now := time.Now()
		l.archive.clock.ours = now.Add(-time.Hour) // an hour passed since the store was asked
		l.archive.clock.store = now.Add(-time.Hour).Round(0)
		if got := l.archive.stamp(); got != now.UnixMilli() {
			t.Fatalf("stamp %d, the store's clock says %d", got, now.UnixMilli())
		}
		w.log.SetStart(10)
		l.archive.clock.store = now.Add(10 * 365 * 24 * time.Hour) // a store whose clock was wrong for a moment
		if err := l.pass(); err != nil {
			t.Fatal(err)
		}
		if len(w.head().Graves) == 0 {
			t.Fatal("no graves")
		}
		next := w.lead()
		if err := next.run(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(next.a.cfg.Grace - time.Second)
		if next.settle(); len(w.head().Graves) == 0 {
			t.Fatal("the graves were opened before the grace time")
		}
		time.Sleep(2 * time.Second)
		if next.settle(); len(w.head().Graves) != 0 {
			t.Fatal("the graves stay closed")
		}
	})
}

// TestALocalHoleIsAnAlarm: records that are not on disk were in the bucket; a
// bucket and a memory that know nothing of it are no beginning (SAFETY 10).
func TestALocalHoleIsAnAlarm(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.cfg.LocalRetentionMs = 0
		l := w.lead()
		w.fill(30)
		time.Sleep(time.Second)
		l.settle()
		if w.log.LocalStart() == 0 {
			t.Fatal("nothing went")
		}
		w.raw.Delete(context.Background(), append([]string{w.folder() + format.HeadName}, keysOf(w)...))
		if err := w.memory.Forget(w.tp.TopicID); err != nil {
			t.Fatal(err)
		}
		w.fill(20)
		n := w.lead()
		if err := n.pass(); !errors.Is(err, ErrSafeMode) || w.head() != nil {
			t.Fatalf("a new beginning: %v", err)
		}
		if _, err := n.archive.Locate(context.Background(), 0); !errors.Is(err, ErrSafeMode) {
			t.Fatalf("a reader is told: %v", err)
		}
	})
}

func keysOf(w *world) (keys []string) {
	for _, n := range w.names() {
		keys = append(keys, w.folder()+n)
	}
	return keys
}

// TestWhatWasReadIsRemembered: a head that this broker has seen is the least it
// accepts, also when another broker wrote it (SAFETY 10).
func TestWhatWasReadIsRemembered(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := w.lead()
		w.fill(10)
		l.settle()
		key := w.folder() + format.HeadName
		older, _, _ := w.raw.Get(context.Background(), key)
		w.fill(10)
		l.settle()
		// Another broker, with a memory of its own, looks at the head and no more.
		w.memory.Forget(w.tp.TopicID)
		other := w.lead()
		w.cfg.RemoteCopy = false
		if err := other.pass(); err != nil {
			t.Fatal(err)
		}
		w.raw.Put(context.Background(), key, strings.NewReader(string(older)), int64(len(older)), objectstore.Cond{})
		if err := w.lead().run(); !errors.Is(err, ErrSafeMode) {
			t.Fatalf("an older head: %v", err)
		}
	})
}

// forgetful cannot write.
type forgetful struct {
	Memory
	broken bool
}

func (m *forgetful) Remember(tp metadata.TopicPartition, g uint64, end int64) error {
	if m.broken {
		return errors.New("no space left on device")
	}
	return m.Memory.Remember(tp, g, end)
}

// TestNoLocalDeletionWithoutMemory: the last local copy stays until it is durable
// that the head which replaces it was there (SAFETY 10, 13).
func TestNoLocalDeletionWithoutMemory(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		m := &forgetful{Memory: w.memory, broken: true}
		w.tune = func(c *Config) { c.Memory = m }
		w.cfg.LocalRetentionMs = 0
		l := w.lead()
		w.fill(30)
		time.Sleep(time.Second)
		l.pass()
		l.pass()
		if w.head() == nil || w.log.LocalStart() != 0 {
			t.Fatalf("head %v, local start %d", w.head() != nil, w.log.LocalStart())
		}
		m.broken = false
		l.settle()
		if w.log.LocalStart() == 0 || w.memory.Generation(w.tp) == 0 {
			t.Fatal("nothing went")
		}
	})
}
