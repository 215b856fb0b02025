package tiering

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/firnlog/firn/objectstore"
)

// TestObjectsLeaveTheDiskWhole: an object holds two segments and only the first is
// past local retention. Both stay, so that the object can be written again when the
// bucket loses it, and nobody is asked in the meantime.
func TestObjectsLeaveTheDiskWhole(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := w.lead()
		w.fill(40)
		l.settle()
		segs, e := w.log.Segments(), w.head().Entries[0]
		if e.End != segs[1].End {
			t.Fatalf("the first object is [%d, %d), segments %+v", e.Base, e.End, segs)
		}
		var total int64
		for _, s := range segs {
			total += s.Bytes
		}
		w.cfg.LocalRetentionBytes = total - segs[0].Bytes
		l.ticks(time.Minute, nil)
		if w.log.LocalStart() != 0 {
			t.Fatalf("local start %d, the object ends at %d", w.log.LocalStart(), e.End)
		}
		before := w.bucket.Count(objectstore.OpGet).Requests
		if l.ticks(time.Hour, nil); w.bucket.Count(objectstore.OpGet).Requests != before {
			t.Fatal("nothing can go, and the bucket is asked again")
		}
		w.raw.Delete(context.Background(), []string{w.folder() + e.Name()})
		if err := l.run(); err != nil {
			t.Fatalf("it is not repaired: %v", err)
		}
		w.cfg.LocalRetentionBytes -= segs[1].Bytes
		l.ticks(time.Minute, nil)
		if got := w.log.LocalStart(); got != e.End {
			t.Fatalf("local start %d, the object ends at %d", got, e.End)
		}
	})
}

// TestSegmentsCutElsewhereLeaveTheDiskToo: this replica's segments and the objects
// of another one's have no border in common.
func TestSegmentsCutElsewhereLeaveTheDiskToo(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.fill(60)
		w.lead().settle()
		end := w.head().End
		ours := w.open(t.TempDir())
		defer w.log.Close(false)
		for o := range w.log.End() {
			if _, err := ours.Append(w.epoch-1, slices.Clone(w.batches[o])); err != nil {
				t.Fatal(err)
			}
			if o%5 == 1 {
				ours.Roll()
			}
		}
		if err := ours.Sync(context.Background()); err != nil {
			t.Fatal(err)
		}
		ours.SetHighWatermark(ours.End())
		w.log = ours
		l := w.lead()
		for _, s := range w.log.Segments()[:8] {
			w.cfg.LocalRetentionBytes = 0
			for _, o := range w.log.Segments() {
				if o.Base >= s.End {
					w.cfg.LocalRetentionBytes += o.Bytes
				}
			}
			l.ticks(time.Minute, nil)
			if got := w.log.LocalStart(); got > s.End || s.End-got > 15 {
				t.Fatalf("local start %d, segments below %d are past local retention", got, s.End)
			}
		}
		w.cfg.LocalRetentionBytes = 0
		if l.ticks(time.Minute, nil); w.log.LocalStart() < end-15 {
			t.Fatalf("local start %d, the bucket has all below %d", w.log.LocalStart(), end)
		}
	})
}

// TestRepairNeedsNothingBelowTheLogStart: the log start lies in an object, what was
// below it has left the disk, and the bucket loses the object.
func TestRepairNeedsNothingBelowTheLogStart(t *testing.T) {
	for _, parts := range []bool{false, true} {
		in(t, func(t *testing.T, w *world) {
			l := w.lead()
			if parts {
				l.a.shape = shape{inline: 4, spill: 2, part: 16, trim: 2, graves: 1024}
			}
			w.fill(60)
			l.settle()
			segs := w.log.Segments()
			w.log.SetStart(segs[1].Base + 1)
			l.settle()
			e := w.entries(w.head())[0]
			if w.log.LocalStart() != segs[1].Base || e.Base != 0 || len(w.head().Parts) > 0 != parts {
				t.Fatalf("local start %d, the first object is [%d, %d), %d parts", w.log.LocalStart(), e.Base, e.End, len(w.head().Parts))
			}
			w.raw.Delete(context.Background(), []string{w.folder() + e.Name()})
			if err := l.run(); err != nil {
				t.Fatal(err)
			}
			if got := w.entries(w.head())[0]; got.Base != segs[1].Base || got.End != e.End {
				t.Fatalf("the first object is [%d, %d)", got.Base, got.End)
			}
			w.check()
			w.cfg.LocalRetentionMs = 0
			l.ticks(time.Minute, nil)
			if got := w.log.LocalStart(); got != w.head().End {
				t.Fatalf("local start %d of %d", got, w.head().End)
			}
		})
	}
}
