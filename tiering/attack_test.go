package tiering

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/objectstore/faulty"
	"github.com/firnlog/firn/record"
	"github.com/firnlog/firn/tiering/format"
)

// hooked calls a function before a request reaches the store: the moment in
// which something else happens.
type hooked struct {
	objectstore.Bucket
	put func(key string, size int64)
	get func(key string)
}

func (b *hooked) Put(ctx context.Context, key string, body io.ReadSeeker, size int64, c objectstore.Cond) (string, error) {
	if b.put != nil {
		b.put(key, size)
	}
	return b.Bucket.Put(ctx, key, body, size, c)
}

func (b *hooked) Get(ctx context.Context, key string) ([]byte, string, error) {
	data, etag, err := b.Bucket.Get(ctx, key)
	if b.get != nil {
		b.get(key)
	}
	return data, etag, err
}

// hook puts a hooked bucket in front of a leader's store.
func (l *leader) hook() *hooked {
	b := &hooked{Bucket: l.a.bucket}
	l.a.bucket = b
	return b
}

// small makes objects of one batch, and parts of a few objects.
func small(w *world) *leader {
	w.cfg.MaxUnuploaded = time.Millisecond
	l := w.lead()
	l.a.shape = shape{inline: 8, spill: 4, part: 16, trim: 2, graves: 1024}
	return l
}

// sink appends n batches and uploads each as an object of its own.
func (l *leader) sink(n int) {
	l.t.Helper()
	for range n {
		l.fill(1)
		for {
			time.Sleep(2 * time.Millisecond)
			if err := l.pass(); err != nil {
				l.t.Fatal(err)
			}
			if h := l.head(); h != nil && h.End == l.world.log.End() {
				break
			}
		}
	}
}

// lineaged is a leader whose log says it descends from somewhere else.
type lineaged struct {
	*leader
	epochs []commitlog.EpochStart
}

func (l *lineaged) Lineage() []commitlog.EpochStart { return l.epochs }

// TestForeignObjectsGoWhileTheLogStartMoves: a claim that drops the objects of
// another lineage drops exactly those, also when the log start has passed others
// (SAFETY 9).
func TestForeignObjectsGoWhileTheLogStartMoves(t *testing.T) {
	for _, start := range []int64{0, 1, 3, 5, 6} {
		in(t, func(t *testing.T, w *world) {
			l := small(w)
			l.a.shape.inline = 100
			l.sink(10)
			w.epoch++
			src := &lineaged{leader: &leader{world: w, log: w.log, epoch: w.epoch}, epochs: []commitlog.EpochStart{{Epoch: 1, Start: 0}, {Epoch: 2, Start: 6}}}
			src.a = l.a
			src.archive = l.a.Lead(src)
			if err := w.log.SetStart(start); err != nil {
				t.Fatal(err)
			}
			if err := src.archive.claimForTest(); err != nil {
				t.Fatal(err)
			}
			h := w.head()
			if h.End != 6 || h.Start() != start {
				t.Fatalf("log start %d: the head names [%d, %d), of our lineage is [%d, 6)", start, h.Start(), h.End, start)
			}
		})
	}
}

func (ar *Archive) claimForTest() error { return ar.claim(context.Background()) }

// TestSpillUnderARisingLogStart: the log start passes all parts while a part is
// being written.
func TestSpillUnderARisingLogStart(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := small(w)
		l.sink(12) // one part of [0, 4), then 8 entries
		if h := w.head(); len(h.Parts) != 1 || len(h.Entries) != 8 {
			t.Fatalf("%d parts, %d entries", len(h.Parts), len(h.Entries))
		}
		l.hook().put = func(key string, _ int64) {
			if strings.Contains(key, "/manifest.") {
				w.log.SetStart(w.head().Parts[0].To)
			}
		}
		l.sink(1)
		w.check()
		if h := w.head(); h.Start() != h.LogStart {
			t.Fatalf("the head starts at %d, log start %d", h.Start(), h.LogStart)
		}
	})
}

// TestManyAbortsFitTheHead: entries with many aborted transactions and long
// ETags do not grow the head past its bound.
func TestManyAbortsFitTheHead(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.cfg.MaxUnuploaded = time.Millisecond
		l := w.lead()
		var largest int64
		l.hook().put = func(key string, size int64) {
			if strings.HasSuffix(key, format.HeadName) {
				largest = max(largest, size)
			}
		}
		l.fill(1)
		time.Sleep(2 * time.Millisecond)
		if err := l.pass(); err != nil {
			t.Fatal(err)
		}
		// The objects are made of thin air: only the head matters here.
		h := cloneHead(l.archive.head)
		for len(h.Entries) < 200 {
			o := h.End
			e := format.Entry{Base: o, End: o + 1, Epoch: 1, Nonce: newNonce(), Size: 1 << 27, Bytes: 1 << 27, Records: 1 << 20, Batches: 1 << 16,
				MinTs: time.Now().UnixMilli(), MaxTs: time.Now().UnixMilli(), ETag: strings.Repeat("e", 40), CRC: 1<<32 - 1, CreatedMs: time.Now().UnixMilli()}
			for i := range int64(format.MaxAborted) {
				e.Aborted = append(e.Aborted, format.Aborted{ProducerID: 1<<40 + i, First: 1<<40 + o, Last: 1<<40 + o, LastStable: 1<<40 + o})
			}
			h.Entries, h.End = append(h.Entries, e), o+1
		}
		l.archive.head = h
		proto := h.Entries[len(h.Entries)-1]
		for range 350 {
			err := l.archive.commit(context.Background(), func(h *format.Head) error {
				e := proto
				e.Base, e.End, e.Nonce = h.End, h.End+1, newNonce()
				h.Entries, h.End = append(h.Entries, e), e.End
				return nil
			})
			if err == nil {
				err = l.archive.spill(context.Background())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if h := w.head(); h.End != 550 || len(h.Parts) == 0 || largest > format.MaxHead {
			t.Fatalf("end %d, %d parts, the largest head had %d bytes", h.End, len(h.Parts), largest)
		}
		w.raw.Delete(context.Background(), []string{w.folder() + format.HeadName}) // nothing for w.check
	})
}

// TestDamageInAPartIsRepaired: an object that only a part names is written again
// from the log, once, and local deletion goes on.
func TestDamageInAPartIsRepaired(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := small(w)
		l.sink(14)
		e := w.entries(w.head())[1]
		w.raw.Delete(context.Background(), []string{w.folder() + e.Name()})
		if err := l.run(); err != nil {
			t.Fatal(err)
		}
		w.check()
		w.raw.Delete(context.Background(), []string{w.folder() + w.entries(w.head())[2].Name()})
		w.cfg.LocalRetentionMs = 0
		time.Sleep(time.Second)
		w.log.Roll()
		l.settle()
		w.check()
		if w.log.LocalStart() == 0 {
			t.Fatal("nothing was deleted locally")
		}
		time.Sleep(l.a.cfg.OrphanAge + time.Hour)
		for range 3 {
			if err := l.run(); err != nil {
				t.Fatal(err)
			}
		}
		h := w.head()
		if got, want := len(w.names()), len(w.entries(h))+len(h.Parts)+1; got != want {
			t.Fatalf("%d objects in the folder, %d are named", got, want)
		}
	})
}

// TestGreatestTimestampBelowTheLogStart: the record with the greatest timestamp
// of an object is deleted; the greatest of what is left is in another object.
func TestGreatestTimestampBelowTheLogStart(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.cfg.MaxUnuploaded = time.Millisecond
		l := w.lead()
		base := time.Now().UnixMilli()
		add := func(stamps ...int64) {
			for _, ts := range stamps {
				b := record.NewBuilder(record.NewBatchOptions())
				b.Append(record.Record{TimestampDelta: base + ts, Value: make([]byte, 50)})
				w.appendBatch(b.Build())
			}
			time.Sleep(2 * time.Millisecond)
			if err := l.pass(); err != nil {
				t.Fatal(err)
			}
		}
		add(100, 50, 60)
		add(90, 10)
		add(90, 20)
		w.log.SetStart(1)
		got, at, ok, err := l.archive.MaxTimestamp(context.Background())
		if err != nil || !ok || got != 3 || at != base+90 {
			t.Fatalf("offset %d at %d (%v, %v), want 3 at 90", got, at-base, ok, err)
		}
	})
}

// TestALyingMaxTimestampHurtsOnlyItsBatch: a compressed batch may announce a
// timestamp that none of its records has.
func TestALyingMaxTimestampHurtsOnlyItsBatch(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.cfg.MaxUnuploaded = time.Millisecond
		l := w.lead()
		base := time.Now().UnixMilli()
		for i, lie := range []int64{0, 1<<63 - 1, 0} {
			b := record.NewBuilder(record.NewBatchOptions())
			b.Append(record.Record{TimestampDelta: base + int64(i), Value: make([]byte, 50)})
			x := b.Build()
			if lie > 0 {
				lieAboutTime(x, lie)
			}
			w.appendBatch(x)
		}
		time.Sleep(2 * time.Millisecond)
		if err := l.pass(); err != nil {
			t.Fatal(err)
		}
		got, at, ok, err := l.archive.MaxTimestamp(context.Background())
		if err != nil || !ok || got != 2 || at != base+2 {
			t.Fatalf("offset %d at %d (%v, %v), want 2", got, at-base, ok, err)
		}
		if _, _, ok, err = l.archive.OffsetForTime(context.Background(), 1<<63-1); ok || err != nil {
			t.Fatalf("a record at the end of time: %v, %v", ok, err)
		}
		for _, ts := range []int64{-1, 0} {
			if got, _, ok, err := l.archive.OffsetForTime(context.Background(), ts); got != 0 || !ok || err != nil {
				t.Fatalf("time %d: offset %d, %v, %v", ts, got, ok, err)
			}
		}
	})
}

// TestAnOrphanMayBeTheLastCopy: an object that no manifest names is kept while
// the object that covers it is missing (SAFETY 10).
func TestAnOrphanMayBeTheLastCopy(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := w.lead()
		w.fill(30)
		l.settle()
		w.cfg.LocalRetentionMs = 0
		time.Sleep(time.Second)
		l.settle()
		e := w.head().Entries[0]
		p := make([]byte, e.Size)
		if err := w.raw.GetRange(context.Background(), w.folder()+e.Name(), p, 0); err != nil {
			t.Fatal(err)
		}
		copyOf := format.SegmentName(e.Base, e.End, e.Epoch, format.Nonce{42})
		w.raw.Put(context.Background(), w.folder()+copyOf, strings.NewReader(string(p)), e.Size, objectstore.Cond{})
		w.raw.Delete(context.Background(), []string{w.folder() + e.Name()})
		for range 4 {
			l.run() // says that the object is lost
			time.Sleep(l.a.cfg.OrphanAge + time.Hour)
		}
		if _, err := w.raw.Head(context.Background(), w.folder()+copyOf); err != nil {
			t.Fatalf("the last copy of [%d, %d): %v", e.Base, e.End, err)
		}
		w.raw.Delete(context.Background(), []string{w.folder() + format.HeadName}) // nothing for w.check
	})
}

// TestAFullGraveyardEmpties: more is to be buried than the graveyard takes, and
// the log start has passed the bucket's end.
func TestAFullGraveyardEmpties(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := small(w)
		l.a.shape = shape{inline: 100, spill: 50, part: 100, trim: 4, graves: 8}
		l.sink(30)
		w.cfg.MaxUnuploaded = time.Hour
		w.fill(30)
		w.log.Roll()
		w.fill(1)
		w.log.SetStart(w.log.End() - 1)
		w.log.DeleteLocal(w.log.Start())
		for range 20 {
			l.pass()
			time.Sleep(l.a.cfg.Grace + time.Minute)
		}
		w.fill(1)
		time.Sleep(2 * time.Hour)
		l.settle()
		if h := w.head(); h.End <= 60 || h.Start() < 60 {
			t.Fatalf("the head names [%d, %d), log [%d, %d); %v", h.Start(), h.End, w.log.Start(), w.log.End(), l.archive.Err())
		}
	})
}

// TestARestoredHeadIsTakenUpAgain: the head vanishes and comes back as it was;
// the leader that wrote it goes on, without a restart.
func TestARestoredHeadIsTakenUpAgain(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := w.lead()
		w.fill(10)
		l.settle()
		key := w.folder() + format.HeadName
		newest, _, _ := w.raw.Get(context.Background(), key)
		w.raw.Delete(context.Background(), []string{key})
		w.fill(10)
		for range 3 {
			if err := l.run(); !errors.Is(err, ErrSafeMode) {
				t.Fatalf("without a head: %v", err)
			}
		}
		w.raw.Put(context.Background(), key, strings.NewReader(string(newest)), int64(len(newest)), objectstore.Cond{})
		l.settle()
		segs := w.log.Segments()
		if h := w.head(); h.End != segs[len(segs)-1].Base {
			t.Fatalf("end %d of %d", h.End, segs[len(segs)-1].Base)
		}
	})
}

// TestReadersRaceACommit: a head that was read just before a commit is not older
// than what was known when the question was asked.
func TestReadersRaceACommit(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := w.lead()
		w.fill(10)
		l.settle()
		hook := l.hook()
		hook.get = func(string) {
			hook.get = nil
			w.fill(10)
			l.settle()
		}
		if err := l.archive.Refresh(context.Background()); err != nil {
			t.Fatal(err)
		}
		if v := l.archive.view.Load(); v.head.Generation != w.head().Generation {
			t.Fatalf("readers see generation %d of %d", v.head.Generation, w.head().Generation)
		}
	})
}

// lieAboutTime gives a batch a greatest timestamp that no record has.
func lieAboutTime(b record.Batch, ts int64) {
	binary.BigEndian.PutUint64(b[35:], uint64(ts))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
}

// TestAVanishedAnswerKeepsTheHeadOurs: our head landed, the answer got lost, and
// the look at what refused the second attempt finds nothing for a moment (SAFETY
// 12).
func TestAVanishedAnswerKeepsTheHeadOurs(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := w.lead()
		w.fill(10)
		l.settle()
		for range 3 {
			w.fill(10)
			w.bucket.Inject(faulty.Fault{Kind: faulty.After, Op: objectstore.OpPut, Match: format.HeadName},
				faulty.Fault{Kind: faulty.Missing, Op: objectstore.OpGet, Match: format.HeadName})
			l.pass()
			l.settle()
		}
		segs := w.log.Segments()
		if h := w.head(); h.End != segs[len(segs)-1].Base {
			t.Fatalf("end %d of %d", h.End, segs[len(segs)-1].Base)
		}
	})
}
