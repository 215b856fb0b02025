package tiering

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/objectstore/faulty"
	"github.com/firnlog/firn/record"
	"github.com/firnlog/firn/tiering/format"
)

// TestALateLeaderClaimsNothing: one that never looked at the head before a later
// leader claimed it (SAFETY 9).
func TestALateLeaderClaimsNothing(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		late := w.lead()
		w.fill(20)
		young := w.lead()
		young.settle()
		late.deposed = true
		before := w.head()
		w.fill(20)
		for range 3 {
			if late.run() == nil {
				t.Fatal("the pass of a deposed leader succeeds")
			}
		}
		if w.head().Nonce != before.Nonce {
			t.Fatal("a deposed leader wrote the head")
		}
	})
}

// TestADeposedLeaderDeletesNothingLocally: it has nothing to upload, an old head
// in memory that covers the segments, and local retention says that they may go
// (SAFETY 9, 13).
func TestADeposedLeaderDeletesNothingLocally(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		old := w.lead()
		w.fill(20)
		old.settle()
		if err := w.lead().run(); err != nil {
			t.Fatal(err)
		}
		old.deposed = true
		w.cfg.LocalRetentionMs = 0
		time.Sleep(time.Minute)
		for range 2 {
			old.pass()
		}
		if w.log.LocalStart() != 0 {
			t.Fatalf("local start %d", w.log.LocalStart())
		}
	})
}

// dated is a store whose clock is off.
type dated struct {
	objectstore.Bucket
	shift time.Duration
}

func (b *dated) Date(ctx context.Context) (time.Time, error) {
	d, err := b.Bucket.Date(ctx)
	return d.Add(b.shift), err
}

// TestGraceNeedsBothClocks: neither a jump of the store's clock nor time that
// passes here alone opens a grave (SAFETY 11).
func TestGraceNeedsBothClocks(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := w.lead()
		b := &dated{Bucket: l.a.bucket}
		l.a.bucket = b
		w.fill(20)
		l.settle()
		w.log.SetStart(10)
		l.settle()
		graves := len(w.head().Graves)
		if graves == 0 {
			t.Fatal("no graves")
		}
		b.shift = 48 * time.Hour
		time.Sleep(time.Minute)
		if l.run(); len(w.head().Graves) != graves {
			t.Fatal("the store's clock jumped and graves were opened")
		}
		b.shift = -2 * time.Hour
		time.Sleep(time.Hour)
		if l.run(); len(w.head().Graves) != graves {
			t.Fatal("the store's clock says that no time has passed, and graves were opened")
		}
		b.shift = 0
		time.Sleep(time.Hour)
		l.settle()
		if len(w.head().Graves) != 0 {
			t.Fatal("the graves stay")
		}
	})
}

// TestOnlyRipeGravesAreOpened: of two burials a few minutes apart the first is due,
// and the store's clock is far ahead: the second one still has to wait (SAFETY 11).
func TestOnlyRipeGravesAreOpened(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := w.lead()
		b := &dated{Bucket: l.a.bucket}
		l.a.bucket = b
		w.fill(40)
		l.settle()
		w.log.SetStart(10)
		l.settle()
		first := len(w.head().Graves)
		time.Sleep(l.a.cfg.Grace / 2)
		w.log.SetStart(25)
		l.settle()
		all := w.head().Graves
		if first == 0 || len(all) <= first {
			t.Fatalf("%d graves, then %d", first, len(all))
		}
		b.shift = 48 * time.Hour
		time.Sleep(l.a.cfg.Grace/2 + time.Second)
		if err := l.pass(); err != nil {
			t.Fatal(err)
		}
		if got := w.head().Graves; !slices.Equal(got, all[first:]) {
			t.Fatalf("of the graves %v there are %v", all, got)
		}
	})
}

// TestBurialsAreStampedByTheStore: our wall clock is wrong by days, and a grave
// says since when it is one by the store's (SAFETY 11): another leader, whose clock
// may be right, goes by it, and by our own it would stay closed for days.
func TestBurialsAreStampedByTheStore(t *testing.T) {
	for _, off := range []time.Duration{-72 * time.Hour, 72 * time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				w.tune = func(c *Config) { c.Now = func() time.Time { return time.Now().Add(off) } }
				l := w.lead()
				w.fill(20)
				l.settle()
				time.Sleep(3 * time.Hour) // since the store was asked
				w.log.SetStart(10)
				l.settle()
				graves := w.head().Graves
				for i := range graves {
					if d := time.Since(time.UnixMilli(graves[i].Since)); d < 0 || d > time.Minute {
						t.Errorf("%s was buried just now, and is stamped as buried %v ago", graves[i].Name(), d)
					}
				}
				if len(graves) == 0 {
					t.Fatal("no graves")
				}
				time.Sleep(l.a.cfg.Grace + time.Minute)
				if l.settle(); len(w.head().Graves) != 0 {
					t.Fatal("the graves stay closed")
				}
			})
		})
	}
}

// TestANewLeaderBeginsToCountAnew: how long a burial is ago only a leader that
// saw it can say (SAFETY 11).
func TestANewLeaderBeginsToCountAnew(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := w.lead()
		w.fill(20)
		l.settle()
		w.log.SetStart(10)
		l.settle()
		graves := len(w.head().Graves)
		time.Sleep(l.a.cfg.Grace - time.Second)
		next := w.lead()
		b := &dated{Bucket: next.a.bucket, shift: 48 * time.Hour}
		next.a.bucket = b
		if err := next.run(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if err := next.run(); err != nil || len(w.head().Graves) != graves {
			t.Fatalf("%d graves of %d: %v", len(w.head().Graves), graves, err)
		}
	})
}

// TestDoubtOutlivesACertainFailure: the first attempt at a head may have landed,
// the second one certainly did not; what is pending stays pending (SAFETY 12). A
// leader that forgot it would take its own head for that of another leader in its
// epoch, and archive nothing for the rest of it.
func TestDoubtOutlivesACertainFailure(t *testing.T) {
	for _, kind := range []faulty.Kind{faulty.After, faulty.Late} {
		t.Run(kind.String(), func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				l := w.lead()
				w.fill(10)
				l.settle()
				w.fill(10)
				w.bucket.Inject(faulty.Fault{Kind: kind, Op: objectstore.OpPut, Match: format.HeadName},
					faulty.Fault{Kind: faulty.Before, Op: objectstore.OpPut, Match: format.HeadName, Times: 3, Err: objectstore.ErrUnreachable})
				for range 4 {
					l.pass()
					w.bucket.Land(context.Background())
					w.check()
				}
				for range 2 {
					l.settle()
					segs := w.log.Segments()
					if h := w.head(); h.End != segs[len(segs)-1].Base {
						t.Fatalf("end %d of %d: %v", h.End, segs[len(segs)-1].Base, l.archive.Err())
					}
					w.fill(10) // and it goes on
				}
			})
		})
	}
}

// TestObjectsAreNeverReplaced: a name that is taken is left alone, and the next
// attempt takes another (SAFETY 12).
func TestObjectsAreNeverReplaced(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := w.lead()
		w.fill(20)
		real := newNonce
		defer func() { newNonce = real }()
		taken := map[string]bool{}
		l.hook().put = func(key string, _ int64) {
			if strings.HasSuffix(key, ".seg") && len(taken) < 2 {
				taken[key] = true
				w.raw.Put(context.Background(), key, strings.NewReader("somebody's"), 10, objectstore.Cond{})
			}
		}
		for range 2 {
			if l.pass() == nil {
				t.Fatal("a taken name was used")
			}
		}
		l.settle()
		for key := range taken {
			data, _, err := w.raw.Get(context.Background(), key)
			if err != nil || string(data) != "somebody's" {
				t.Errorf("%s: %q, %v", key, data, err)
			}
		}
	})
}

// TestFootersFoldExactlyAtTheirEnd: objects that end within a transaction that is
// decided by the time of the upload (SAFETY 14): each names every aborted
// transaction that overlaps it, marker inside or not, and the producers as they
// were at exactly its end.
func TestFootersFoldExactlyAtTheirEnd(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.tune = func(c *Config) { c.ObjectBytes = 800 }
		w.cfg.MaxUnuploaded = time.Second
		type txn struct{ pid, first, marker int64 }
		var txns []txn
		seq := map[int64]int32{}
		write := func(pid int64) int64 {
			o := record.NewBatchOptions()
			o.ProducerID, o.ProducerEpoch, o.BaseSequence, o.Transactional = pid, 0, seq[pid], true
			seq[pid]++
			return w.append(900, o)
		}
		end := func(x txn, kind record.ControlType) {
			x.marker = w.appendBatch(record.ControlMarker(record.Marker{Type: kind, ProducerID: x.pid}))
			if kind == record.Abort {
				txns = append(txns, x)
			}
		}
		w.fill(2)
		one := txn{pid: 1, first: write(1)}
		w.fill(3)
		two := txn{pid: 2, first: write(2)}
		w.fill(3)
		end(one, record.Abort)
		w.fill(2)
		end(two, record.Commit)
		three := txn{pid: 1, first: write(1)}
		w.fill(5)
		end(three, record.Abort)
		w.fill(3)
		time.Sleep(time.Minute)
		l := w.lead()
		for range 60 {
			time.Sleep(2 * time.Second)
			if err := l.pass(); err != nil {
				t.Fatal(err)
			}
		}
		h := w.head()
		if len(h.Entries) < 5 || h.End != w.log.End() {
			t.Fatalf("%d objects up to %d of %d", len(h.Entries), h.End, w.log.End())
		}
		within := 0
		for i := range h.Entries {
			e := &h.Entries[i]
			f, err := l.a.readFooter(context.Background(), w.tp, e)
			if err != nil {
				t.Fatal(err)
			}
			var want, got []int64
			for _, x := range txns {
				if x.first < f.End && x.marker >= f.Base {
					want = append(want, x.first)
				}
			}
			for _, a := range f.Aborted {
				got = append(got, a.First)
			}
			slices.Sort(got)
			if !slices.Equal(got, want) || len(e.Aborted) != len(want) {
				t.Errorf("[%d, %d) names the aborted transactions that begin at %v, want %v", f.Base, f.End, got, want)
			}
			for _, p := range f.Producers {
				open := int64(-1)
				for _, x := range []txn{one, three} {
					if x.pid == p.ID && x.first < f.End {
						open = x.first
					}
				}
				for _, x := range txns {
					if x.pid == p.ID && x.first == open && x.marker < f.End {
						open = -1
					}
				}
				if p.ID == 1 && p.TxnFirst != open {
					t.Errorf("[%d, %d): producer %d has a transaction open since %d, want %d", f.Base, f.End, p.ID, p.TxnFirst, open)
				}
				if p.TxnFirst >= 0 {
					within++
				}
				for _, b := range p.Batches {
					if b.LastOffset >= f.End {
						t.Errorf("[%d, %d): producer %d has a batch at %d", f.Base, f.End, p.ID, b.LastOffset)
					}
				}
			}
		}
		if within == 0 {
			t.Fatal("no object ends within a transaction")
		}
	})
}

// TestAnEpochHasOneLeader: a head of our own epoch that we did not write is
// another's (SAFETY 9).
func TestAnEpochHasOneLeader(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.fill(20)
		w.lead().settle()
		before := w.head()
		w.epoch--
		twin := w.lead()
		w.fill(20)
		for range 2 {
			if twin.run() == nil {
				t.Fatal("two leaders in one epoch")
			}
		}
		if w.head().Nonce != before.Nonce {
			t.Fatal("the twin wrote the head")
		}
	})
}

// summed is a store that records a checksum for one key.
type summed struct {
	objectstore.Bucket
	key string
}

func (b *summed) Head(ctx context.Context, key string) (objectstore.Info, error) {
	info, err := b.Bucket.Head(ctx, key)
	if err == nil && key == b.key {
		other := uint32(12345)
		info.CRC32C = &other
	}
	return info, err
}

// TestAnotherChecksumKeepsTheLocalCopy: length and ETag are right, the checksum
// that the store recorded is not (SAFETY 13).
func TestAnotherChecksumKeepsTheLocalCopy(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := w.lead()
		w.fill(30)
		l.settle()
		e := w.head().Entries[0]
		l.a.bucket = &summed{Bucket: l.a.bucket, key: w.folder() + e.Name()}
		w.cfg.LocalRetentionMs = 0
		time.Sleep(time.Second)
		l.pass()
		if w.log.LocalStart() != 0 {
			t.Fatalf("local start %d", w.log.LocalStart())
		}
		l.settle() // it was written again
		if w.log.LocalStart() == 0 || w.head().Entries[0].Nonce == e.Nonce {
			t.Fatal("it was not repaired")
		}
	})
}

// sumless is a store that keeps no checksums.
type sumless struct{ objectstore.Bucket }

func (b *sumless) Head(ctx context.Context, key string) (objectstore.Info, error) {
	info, err := b.Bucket.Head(ctx, key)
	info.CRC32C = nil
	return info, err
}

// TestWithoutChecksumsLengthAndETagDecide: a store that keeps no checksum has
// another object in the place of the one that was committed (SAFETY 13).
func TestWithoutChecksumsLengthAndETagDecide(t *testing.T) {
	for _, how := range []string{"shorter", "other bytes"} {
		t.Run(how, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				l := w.lead()
				l.a.bucket = &sumless{Bucket: l.a.bucket}
				w.fill(30)
				l.settle()
				e := w.head().Entries[0]
				size := e.Size
				if how == "shorter" {
					size = 7
				}
				w.raw.Put(context.Background(), w.folder()+e.Name(), strings.NewReader(strings.Repeat("x", int(size))), size, objectstore.Cond{})
				w.cfg.LocalRetentionMs = 0
				time.Sleep(time.Second)
				l.pass()
				if w.log.LocalStart() != 0 {
					t.Fatalf("local start %d", w.log.LocalStart())
				}
				l.settle() // it was written again
				if w.log.LocalStart() == 0 || w.head().Entries[0].Nonce == e.Nonce {
					t.Fatal("it was not repaired")
				}
			})
		})
	}
}

// TestSafeModeKeepsAll: while the metadata is not believed nothing goes, neither here
// nor in the bucket, whatever the topic's configuration says; uploads go on (SAFETY 17).
func TestSafeModeKeepsAll(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		keep := true
		w.tune = func(c *Config) { c.KeepAll = func() bool { return keep } }
		l := w.lead()
		w.fill(20)
		l.settle()
		w.cfg.LocalRetentionMs, w.cfg.RetentionMs = 0, 1
		w.fill(20)
		for range 10 {
			time.Sleep(time.Hour)
			l.run()
		}
		h := w.head()
		if w.log.LocalStart() != 0 || w.log.Start() != 0 || h.Start() != 0 || len(h.Graves) != 0 {
			t.Fatalf("log start %d, local start %d, the bucket begins at %d with %d graves", w.log.Start(), w.log.LocalStart(), h.Start(), len(h.Graves))
		}
		if segs := w.log.Segments(); h.End < segs[len(segs)-1].Base {
			t.Fatalf("uploads stopped at %d", h.End)
		}
		keep = false
		for range 3 {
			time.Sleep(time.Hour)
			l.run()
		}
		if w.log.Start() == 0 || w.log.LocalStart() == 0 {
			t.Fatal("nothing goes after it")
		}
	})
}

// rot changes a byte of a sealed segment on the disk, and has the log look.
func (w *world) rot(seg commitlog.SegmentInfo) {
	w.t.Helper()
	f, err := os.OpenFile(filepath.Join(w.log.Dir(), fmt.Sprintf("%020d.log", seg.Base)), os.O_RDWR, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	f.ReadAt(b, seg.Bytes-1)
	b[0] ^= 1
	if _, err := f.WriteAt(b, seg.Bytes-1); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.log.VerifySealed(context.Background(), seg.Base, func(context.Context, int64) error { return nil }); !errors.Is(err, commitlog.ErrDamaged) {
		w.t.Fatalf("%v, want damage", err)
	}
}

// TestADamagedSegmentGoesWhenTheBucketHasIt: readers get the bucket's copy, whatever
// local retention says. One that the bucket does not have is neither uploaded nor
// deleted (SAFETY 8, 13).
func TestADamagedSegmentGoesWhenTheBucketHasIt(t *testing.T) {
	for i := range 6 { // anywhere in an object of several segments
		uploaded := i%2 == 0
		in(t, func(t *testing.T, w *world) {
			w.fill(30)
			l := w.lead()
			if uploaded {
				l.settle()
			}
			seg := w.log.Segments()[i/2]
			if !seg.Sealed {
				t.Fatal("nothing is sealed")
			}
			w.rot(seg)
			for range 5 {
				time.Sleep(time.Minute)
				l.pass()
			}
			local := w.log.LocalStart()
			if uploaded && local < seg.End {
				t.Fatalf("local start %d, the damaged segment ends at %d", local, seg.End)
			}
			if h := w.head(); !uploaded && (local > seg.Base || h != nil && h.End > seg.Base) {
				t.Fatalf("local start %d, the bucket has %+v", local, h)
			}
			if uploaded {
				w.check()
			}
		})
	}
}
