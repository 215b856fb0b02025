package tiering

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/objectstore/faulty"
	"github.com/firnlog/firn/record"
	"github.com/firnlog/firn/tiering/format"
)

// in runs fn in a bubble with a clock of its own.
func in(t *testing.T, fn func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		fn(t, w)
		w.check()
	})
}

// TestSealedSegmentsSink: sealed segments are uploaded, the active one stays, and
// local segments go once the bucket has them.
func TestSealedSegmentsSink(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := w.lead()
		w.fill(30)
		l.settle()
		h := w.head()
		segs := w.log.Segments()
		if h == nil || h.End != segs[len(segs)-1].Base || h.End == 0 {
			t.Fatalf("head %+v, active segment at %d", h, segs[len(segs)-1].Base)
		}
		if w.log.LocalStart() != 0 {
			t.Fatal("local segments went though local retention has no bound")
		}
		w.cfg.LocalRetentionMs = 1
		time.Sleep(time.Second)
		l.settle()
		if got := w.log.LocalStart(); got != h.End {
			t.Fatalf("local start %d, tiered end %d", got, h.End)
		}
		for o := range h.End {
			e, err := l.archive.Locate(context.Background(), o)
			if err != nil || o < e.Base || o >= e.End {
				t.Fatalf("offset %d is in [%d, %d): %v", o, e.Base, e.End, err)
			}
		}
		if _, err := l.archive.Locate(context.Background(), h.End); !errors.Is(err, ErrNotTiered) {
			t.Fatalf("the end is located: %v", err)
		}
	})
}

// TestSlowPartitionIsUploadedInTime: the recovery point is bounded by time, and
// an idle partition asks nothing of the store.
func TestSlowPartitionIsUploadedInTime(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := w.lead()
		w.fill(1)
		l.settle()
		if w.head() != nil {
			t.Fatal("a young tail was uploaded")
		}
		time.Sleep(w.cfg.MaxUnuploaded + time.Second)
		if !l.archive.due(time.Now()) {
			t.Fatal("an old tail is not due")
		}
		if err := l.pass(); err != nil {
			t.Fatal(err)
		}
		if h := w.head(); h == nil || h.End != 1 {
			t.Fatalf("head %+v", h)
		}
		l.archive.mu.queued = false
		time.Sleep(time.Hour)
		before := w.bucket.Count(objectstore.OpGet).Requests + w.bucket.Count(objectstore.OpPut).Requests
		if l.archive.due(time.Now()) {
			t.Fatal("an idle partition is due")
		}
		if after := w.bucket.Count(objectstore.OpGet).Requests + w.bucket.Count(objectstore.OpPut).Requests; after != before {
			t.Fatal("an idle partition costs requests")
		}
	})
}

// TestOpenTransactionHoldsTheTieredEnd: nothing above the last stable offset goes
// to the bucket (T3), and a footer has every abort that overlaps it (SAFETY 14).
func TestOpenTransactionHoldsTheTieredEnd(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.cfg.MaxUnuploaded = time.Second
		l := w.lead()
		w.fill(2)
		opts := record.NewBatchOptions()
		opts.ProducerID, opts.ProducerEpoch, opts.BaseSequence, opts.Transactional = 7, 0, 0, true
		w.append(100, opts)
		w.fill(20)
		time.Sleep(time.Minute)
		l.settle()
		if h := w.head(); h == nil || h.End != 2 {
			t.Fatalf("with a transaction open at 2: head %+v", h)
		}
		w.appendBatch(record.ControlMarker(record.Marker{Type: record.Abort, ProducerID: 7}))
		w.fill(5)
		time.Sleep(time.Minute)
		l.settle()
		h := w.head()
		if h.End != w.log.End() {
			t.Fatalf("head ends at %d of %d", h.End, w.log.End())
		}
		for _, e := range h.Entries {
			want := e.Base <= 23 && e.End > 2 // [2, 23]: from its first record to its marker
			if (len(e.Aborted) > 0) != want {
				t.Errorf("object [%d, %d) names %v", e.Base, e.End, e.Aborted)
			}
		}
	})
}

// TestZombieCommitsNothing: a deposed leader with a valid ETag, in the middle of
// whatever it does, changes nothing in the bucket and deletes nothing (SAFETY 9).
func TestZombieCommitsNothing(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		old := w.lead()
		w.fill(10)
		old.settle()
		w.fill(10)
		young := w.lead()
		old.deposed = true
		// It claims although it has nothing to upload yet: a scrub does.
		if err := young.run(); err != nil {
			t.Fatal(err)
		}
		before := w.head()
		w.cfg.LocalRetentionMs = 0
		time.Sleep(time.Minute)
		for range 3 {
			if err := old.run(); err == nil {
				t.Fatal("a deposed leader's pass succeeds")
			}
		}
		if after := w.head(); after.Nonce != before.Nonce {
			t.Fatal("a deposed leader wrote the head")
		}
		young.settle()
	})
}

// TestMissingHeadIsAnAlarm: a head that vanished, or an older one that came back,
// is never a beginning (SAFETY 10), for the leader that knew it and for the next.
func TestMissingHeadIsAnAlarm(t *testing.T) {
	for _, how := range []string{"missing", "older"} {
		t.Run(how, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				l := w.lead()
				w.fill(10)
				l.settle()
				key := w.folder() + format.HeadName
				older, _, _ := w.raw.Get(context.Background(), key)
				w.fill(10)
				l.settle()
				newest, _, _ := w.raw.Get(context.Background(), key)
				if how == "missing" {
					w.raw.Delete(context.Background(), []string{key})
				} else {
					w.raw.Put(context.Background(), key, bytes.NewReader(older), int64(len(older)), objectstore.Cond{})
				}
				w.fill(10)
				w.cfg.LocalRetentionMs = 0
				time.Sleep(time.Second)
				names := w.names()
				for _, l := range []*leader{l, w.lead()} {
					for range 2 {
						if err := l.run(); err == nil {
							t.Fatalf("epoch %d goes on", l.epoch)
						}
					}
				}
				if _, _, err := w.lead().a.Recover(context.Background(), w.tp); !errors.Is(err, ErrSafeMode) {
					t.Fatalf("recover: %v", err)
				}
				if w.log.LocalStart() != 0 {
					t.Fatal("local segments were deleted")
				}
				if got := w.names(); len(got) < len(names) {
					t.Fatalf("objects are gone: %v of %v", got, names)
				}
				w.raw.Put(context.Background(), key, bytes.NewReader(newest), int64(len(newest)), objectstore.Cond{})
				w.lead().settle()
				if w.log.LocalStart() == 0 {
					t.Fatal("work does not resume once the head is back")
				}
			})
		})
	}
}

// TestFirstHeadNeedsAnEmptyFolder: objects without a head, and a broker that
// remembers nothing (SAFETY 10).
func TestFirstHeadNeedsAnEmptyFolder(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		key := w.folder() + format.SegmentName(0, 5, 1, format.Nonce{1})
		w.raw.Put(context.Background(), key, strings.NewReader("x"), 1, objectstore.Cond{})
		w.fill(10)
		if err := w.lead().run(); !errors.Is(err, ErrSafeMode) || !strings.Contains(err.Error(), key) {
			t.Fatal(err)
		}
		if w.head() != nil {
			t.Fatal("a head was made")
		}
	})
}

// TestUnknownOutcomes: each way in which the answer to a head's PUT can get lost
// (SAFETY 12).
func TestUnknownOutcomes(t *testing.T) {
	for _, kind := range []faulty.Kind{faulty.Before, faulty.After, faulty.Late} {
		t.Run(kind.String(), func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				l := w.lead()
				for range 8 {
					w.fill(5)
					w.bucket.Inject(faulty.Fault{Kind: kind, Op: objectstore.OpPut, Match: format.HeadName})
					if err := l.pass(); err != nil {
						t.Fatal(err)
					}
					w.bucket.Land(context.Background())
				}
				l.settle()
				w.check()
				if h := w.head(); h.End == 0 || h.Nonce != l.archive.head.Nonce {
					t.Fatal("memory and bucket differ")
				}
			})
		})
	}
}

// TestDelayedHeadLosesToTheNextLeader: a head whose PUT hangs in the network lands
// after the next leader has claimed.
func TestDelayedHeadLosesToTheNextLeader(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		old := w.lead()
		w.fill(10)
		old.settle()
		w.fill(10)
		w.bucket.Inject(faulty.Fault{Kind: faulty.Late, Op: objectstore.OpPut, Match: format.HeadName, Times: 100})
		if err := old.pass(); err == nil {
			t.Fatal("the outcome is known")
		}
		old.deposed = true
		w.bucket.Heal()
		young := w.lead()
		if err := young.run(); err != nil {
			t.Fatal(err)
		}
		for _, err := range w.bucket.Land(context.Background()) {
			if !errors.Is(err, objectstore.ErrPrecondition) {
				t.Fatalf("a delayed head landed: %v", err)
			}
		}
		w.check()
		young.settle()
		if old.pass() == nil {
			t.Fatal("the old leader goes on")
		}
	})
}

// TestDamagedObjectsKeepTheLocalCopy: an object that is gone or changed is found
// before the local deletion, written again from the log, and only then the local
// copy goes (SAFETY 13).
func TestDamagedObjectsKeepTheLocalCopy(t *testing.T) {
	for _, how := range []string{"gone", "changed"} {
		t.Run(how, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				l := w.lead()
				w.fill(30)
				l.settle()
				e := w.head().Entries[1]
				key := w.folder() + e.Name()
				if how == "gone" {
					w.raw.Delete(context.Background(), []string{key})
				} else {
					w.raw.Put(context.Background(), key, strings.NewReader("damaged"), 7, objectstore.Cond{})
				}
				w.cfg.LocalRetentionMs = 0
				time.Sleep(time.Second)
				if err := l.pass(); !errors.Is(err, errConflict) {
					t.Fatalf("the pass that repairs: %v", err)
				}
				if at := w.log.LocalStart(); at > e.Base {
					t.Fatalf("local start %d, damage at %d", at, e.Base)
				}
				l.settle()
				w.check()
				if w.log.LocalStart() == 0 {
					t.Fatal("nothing went after the repair")
				}
			})
		})
	}
}

// TestRetentionSpansBothTiers by size and by time, and the objects go after the
// grace time, not before.
func TestRetentionSpansBothTiers(t *testing.T) {
	for _, how := range []string{"bytes", "ms", "delete-records"} {
		t.Run(how, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				l := w.lead()
				w.cfg.LocalRetentionMs = 0
				w.fill(40)
				time.Sleep(time.Minute)
				l.settle()
				tiered := w.head().End
				if tiered < 30 {
					t.Fatalf("tiered end %d", tiered)
				}
				switch how {
				case "bytes":
					w.cfg.RetentionBytes = 10 << 10
				case "ms":
					w.fill(5)
					w.cfg.RetentionMs = 10_000
				case "delete-records":
					w.log.SetStart(20)
				}
				objects := len(w.names())
				l.settle()
				h := w.head()
				start := w.log.Start()
				if start == 0 || h.LogStart != start {
					t.Fatalf("log start %d, in the head %d", start, h.LogStart)
				}
				if how == "bytes" && (start < 20 || start > 35) || how == "ms" && start < tiered {
					t.Fatalf("log start %d of tiered end %d", start, tiered)
				}
				if len(w.names()) < objects {
					t.Fatal("objects went without grace")
				}
				for range 3 { // what was active has expired meanwhile, too
					time.Sleep(l.a.cfg.Grace + time.Second)
					l.settle()
				}
				if h = w.head(); len(h.Graves) != 0 {
					t.Fatalf("graves %+v", h.Graves)
				}
				if got := len(w.names()); got >= objects {
					t.Fatalf("%d objects of %d", got, objects)
				}
			})
		})
	}
}

// TestOrphans: one in a covered range is buried first and gone a day later; one
// above the end stays; a stranger's name stays.
func TestOrphans(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := w.lead()
		w.fill(20)
		l.settle()
		put := func(name string) string {
			w.raw.Put(context.Background(), w.folder()+name, strings.NewReader("x"), 1, objectstore.Cond{})
			return name
		}
		covered := put(format.SegmentName(0, 5, 1, format.Nonce{9}))
		part := put(format.PartName(0, 5, format.Nonce{8}))
		fresh := put(format.SegmentName(w.head().End, w.head().End+9, 1, format.Nonce{7}))
		foreign := put("readme.txt")
		has := func(name string) bool { return slices.Contains(w.names(), name) }
		if err := l.run(); err != nil {
			t.Fatal(err)
		}
		if !has(covered) || len(w.head().Graves) != 2 {
			t.Fatalf("orphans are buried, not deleted at once: %v", w.head().Graves)
		}
		time.Sleep(l.a.cfg.OrphanAge - time.Minute)
		if err := l.run(); err != nil || !has(covered) {
			t.Fatalf("gone early: %v", err)
		}
		time.Sleep(2 * time.Minute)
		if err := l.run(); err != nil {
			t.Fatal(err)
		}
		if has(covered) || has(part) || !has(fresh) || !has(foreign) {
			t.Fatalf("in the folder: %v", w.names())
		}
	})
}

// TestManyObjects: entries spill into parts, lookups find every offset, retention
// goes through parts, and the head stays small.
func TestManyObjects(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.cfg.MaxUnuploaded = time.Millisecond
		l := w.lead()
		l.a.shape = shape{inline: 24, spill: 16, part: 64, trim: 4, graves: 1024}
		const n = 200
		for range n {
			w.fill(1)
			time.Sleep(2 * time.Millisecond)
			if err := l.pass(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		l.settle()
		h := w.head()
		if len(h.Parts) < 2 || len(h.Entries) > 24 || h.End != n {
			t.Fatalf("%d parts, %d entries, end %d", len(h.Parts), len(h.Entries), h.End)
		}
		for o := int64(0); o < n; o++ {
			if e, err := l.archive.Locate(context.Background(), o); err != nil || e.Base > o || e.End <= o {
				t.Fatalf("offset %d: %+v %v", o, e, err)
			}
		}
		w.check()
		w.log.SetStart(30)
		l.settle()
		if h = w.head(); h.Start() > 30 || h.Start() < 27 {
			t.Fatalf("after a trim to 30 the bucket starts at %d", h.Start())
		}
		for range 12 {
			time.Sleep(l.a.cfg.Grace + time.Second)
			l.settle()
		}
		if h = w.head(); len(h.Graves) != 0 || len(w.names()) != len(w.entries(h))+len(h.Parts)+1 {
			t.Fatalf("%d graves, %d objects", len(h.Graves), len(w.names()))
		}
		w.check()
		w.log.SetStart(n)
		for range 12 {
			l.settle()
			time.Sleep(l.a.cfg.Grace + time.Second)
		}
		if got := w.names(); len(got) != 1 {
			t.Fatalf("%d objects are left: %v", len(got), w.head())
		}
	})
}

// TestRecover: the bucket says where a lost replica continues, with the producers
// at exactly that offset (SAFETY 4, 14).
func TestRecover(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.cfg.MaxUnuploaded = time.Second
		l := w.lead()
		for i := range 12 {
			opts := record.NewBatchOptions()
			opts.ProducerID, opts.ProducerEpoch, opts.BaseSequence = 5, 1, int32(i)
			w.append(500, opts)
		}
		time.Sleep(time.Minute)
		l.settle()
		r, ok, err := w.lead().a.Recover(context.Background(), w.tp)
		if err != nil || !ok || r.End != 12 || r.LogStart != 0 || r.Epoch != 1 {
			t.Fatalf("%+v %v %v", r, ok, err)
		}
		if len(r.Producers) != 1 || r.Producers[0].ID != 5 || r.Producers[0].Batches[len(r.Producers[0].Batches)-1].LastSeq != 11 {
			t.Fatalf("producers %+v", r.Producers)
		}
		fresh := w.open(t.TempDir())
		defer fresh.Close(false)
		if err := fresh.Reset(r.LogStart, r.End, r.Lineage, r.Producers); err != nil {
			t.Fatal(err)
		}
		old := w.log
		defer old.Close(false)
		w.log = fresh
		l = w.lead()
		w.fill(10)
		time.Sleep(time.Minute)
		l.settle()
		if h := w.head(); h.End != 22 {
			t.Fatalf("end %d", h.End)
		}
	})
}

// TestLookupByTime compares both lookups with the records themselves.
func TestLookupByTime(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.cfg.MaxUnuploaded = time.Second
		l := w.lead()
		rng := rand.New(rand.NewPCG(1, 2))
		base := time.Now().UnixMilli()
		var stamps []int64
		for range 60 {
			b := record.NewBuilder(record.NewBatchOptions())
			for range 1 + rng.IntN(3) {
				ts := base + rng.Int64N(1000)
				stamps = append(stamps, ts)
				b.Append(record.Record{TimestampDelta: ts, Value: make([]byte, 300)})
			}
			w.appendBatch(b.Build())
		}
		time.Sleep(time.Minute)
		l.settle()
		const start = 17
		w.log.SetStart(start)
		for ts := base - 1; ts < base+1001; ts += 13 {
			want := int64(-1)
			for o := start; o < len(stamps); o++ {
				if stamps[o] >= ts {
					want = int64(o)
					break
				}
			}
			got, at, ok, err := l.archive.OffsetForTime(context.Background(), ts)
			if err != nil || ok != (want >= 0) || got != want || ok && at != stamps[got] {
				t.Fatalf("time %d: offset %d at %d (%v), want %d: %v", ts-base, got, at, ok, want, err)
			}
		}
		best := slices.Max(stamps[start:])
		got, at, ok, err := l.archive.MaxTimestamp(context.Background())
		if err != nil || !ok || at != best || stamps[got] != best || got < start {
			t.Fatalf("greatest timestamp: %d at %d, want %d: %v", got, at-base, best-base, err)
		}
	})
}

// TestTopicDeletion goes through unlinked and deleting, and leaves nothing.
func TestTopicDeletion(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := w.lead()
		w.fill(20)
		l.settle()
		l.a.Resign(w.tp)
		w.raw.Put(context.Background(), w.folder()+format.SegmentName(500, 600, 1, format.Nonce{9}), strings.NewReader("x"), 1, objectstore.Cond{})
		del := func() bool {
			done, err := l.a.DeleteTopic(context.Background(), w.tp.TopicID)
			if err != nil {
				t.Fatal(err)
			}
			return done
		}
		if del() {
			t.Fatal("gone without grace")
		}
		time.Sleep(l.a.cfg.Grace - time.Second)
		if del() || len(w.names()) == 0 {
			t.Fatal("gone before the grace time")
		}
		time.Sleep(2 * time.Second)
		if !del() {
			t.Fatal("not gone after the grace time")
		}
		for info := range w.raw.List(context.Background(), "") {
			t.Errorf("left: %s", info.Key)
		}
		if !del() {
			t.Fatal("deleting twice")
		}
		if w.memory.Generation(w.tp) != 0 {
			t.Error("the memory keeps a deleted topic")
		}
	})
}

// TestHistories runs random histories with a failing store, deposed leaders that
// go on, log starts that move and time that passes, and reads the bucket as a
// stranger after every step. FIRN_TEST_SEEDS runs more.
func TestHistories(t *testing.T) {
	seeds := 40
	if s := os.Getenv("FIRN_TEST_SEEDS"); s != "" {
		seeds, _ = strconv.Atoi(s)
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			in(t, func(t *testing.T, w *world) { history(t, w, uint64(seed)) })
		})
	}
}

func history(t *testing.T, w *world, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 77))
	leaders := []*leader{w.lead()}
	w.cfg.MaxUnuploaded = time.Minute
	txns := map[int64]int32{} // open transactions, producer to next sequence
	commits := 0
	for step := range 60 {
		now := leaders[len(leaders)-1]
		switch rng.IntN(12) {
		case 0, 1, 2:
			w.fill(1 + rng.IntN(12))
		case 3:
			pid := 10 + rng.Int64N(3)
			opts := record.NewBatchOptions()
			if _, open := txns[pid]; open && rng.IntN(2) == 0 {
				w.appendBatch(record.ControlMarker(record.Marker{Type: record.ControlType(rng.IntN(2)), ProducerID: pid}))
				delete(txns, pid)
				break
			}
			if _, open := txns[pid]; !open {
				pid = 1000 + int64(step) // a new producer starts at sequence 0
				txns[pid] = 0
			}
			opts.ProducerID, opts.ProducerEpoch, opts.BaseSequence, opts.Transactional = pid, 0, txns[pid], true
			w.append(200, opts)
			txns[pid]++
		case 4, 5, 6:
			if now.run() == nil {
				commits++
			}
		case 7:
			if len(leaders) > 1 {
				before := w.head()
				leaders[rng.IntN(len(leaders)-1)].run()
				if after := w.head(); now.archive.claimed && after.Nonce != before.Nonce {
					t.Fatalf("seed %d step %d: a deposed leader wrote the head", seed, step)
				}
			}
		case 8:
			// The old one does not hear of it. Its first pass may still succeed:
			// until the new leader claims, nothing tells them apart.
			l := w.lead()
			for tries := 0; ; tries++ {
				err := l.run()
				if err == nil {
					break
				}
				if tries > 20 {
					t.Fatalf("seed %d step %d: a new leader cannot begin: %v", seed, step, err)
				}
				w.bucket.Heal()
				time.Sleep(time.Minute)
			}
			leaders = append(leaders, l)
		case 9:
			time.Sleep(time.Duration(rng.Int64N(int64(8 * time.Hour))))
			w.cfg.LocalRetentionMs = []int64{-1, 0, 60_000}[rng.IntN(3)]
			w.cfg.RetentionBytes = []int64{-1, -1, 20 << 10}[rng.IntN(3)]
		case 10:
			if _, _, end := now.Offsets(); end > w.log.Start() && rng.IntN(3) == 0 {
				w.log.SetStart(w.log.Start() + rng.Int64N(end-w.log.Start()+1))
			}
		case 11:
			if rng.IntN(3) == 0 {
				w.bucket.Heal()
			} else {
				w.bucket.Chaos(faulty.Chaos{Seed: seed<<8 + uint64(step), Before: 0.05, After: 0.05, Late: 0.05, Short: 0.02, Corrupt: 0.02, Missing: 0.02, Delay: time.Second})
			}
			w.bucket.Land(context.Background())
		}
		for _, l := range leaders[:len(leaders)-1] {
			l.deposed = l.deposed || leaders[len(leaders)-1].archive.claimed
		}
		w.check()
		if t.Failed() {
			t.Fatalf("seed %d step %d", seed, step)
		}
	}
	// The store recovers: service resumes by itself, and what no manifest names
	// is gone after the orphans' age.
	w.bucket.Heal()
	w.bucket.Land(context.Background())
	time.Sleep(time.Minute)
	for pid := range txns {
		w.appendBatch(record.ControlMarker(record.Marker{Type: record.Abort, ProducerID: pid}))
	}
	w.fill(1)
	time.Sleep(time.Hour)
	l := leaders[len(leaders)-1]
	var last error
	for range 4 {
		for range 12 {
			last = l.run()
			if last != nil && !errors.Is(last, errConflict) {
				t.Fatalf("seed %d: after the store recovered: %v", seed, last)
			}
		}
		time.Sleep(l.a.cfg.OrphanAge + time.Minute)
	}
	w.check()
	h := w.head()
	if _, _, end := l.Offsets(); h.End != end {
		from, to, ok := l.archive.uploadable(w.cfg, time.Now(), l.archive.head)
		t.Fatalf("seed %d: the bucket ends at %d of %d; uploadable [%d, %d) %v, last pass: %v", seed, h.End, end, from, to, ok, last)
	}
	named := map[string]bool{format.HeadName: true}
	for i := range h.Parts {
		named[h.Parts[i].Name()] = true
	}
	for _, e := range w.entries(h) {
		named[e.Name()] = true
	}
	for _, name := range w.names() {
		if !named[name] {
			t.Errorf("seed %d: %s is there and nobody names it; head %d..%d", seed, name, h.Start(), h.End)
		}
	}
	_ = commits
}

// TestIdentify: a prefix belongs to one cluster id, and a broker without a past
// takes none over.
func TestIdentify(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		if g, err := Identify(ctx, w.bucket, "c", "", time.Now()); err != nil || g != 0 {
			t.Fatal(g, err)
		}
		w.bucket.Inject(faulty.Fault{Kind: faulty.After, Op: objectstore.OpPut})
		for range 2 {
			if g, err := Identify(ctx, w.bucket, "c", "one", time.Now()); err != nil || g != 1 {
				t.Fatal(g, err)
			}
		}
		for _, id := range []string{"", "two"} {
			if _, err := Identify(ctx, w.bucket, "c", id, time.Now()); !errors.Is(err, ErrForeign) {
				t.Fatalf("id %q: %v", id, err)
			}
		}
		if g, err := Identify(ctx, w.bucket, "other", "two", time.Now()); err != nil || g != 1 {
			t.Fatal(g, err)
		}
	})
}
