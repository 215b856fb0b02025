package tiering

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/firnlog/firn/objectstore"
)

// TestARangeIsProvedObjectByObject: only a bucket that has every object of a range,
// as it was committed, lets a replica drop its copy of it; objects that do not
// touch the range are nobody's business (SAFETY 13).
func TestARangeIsProvedObjectByObject(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		l := w.lead()
		if err := l.a.ProveRange(ctx, w.tp, 0, 1); !errors.Is(err, ErrSafeMode) {
			t.Fatalf("an empty bucket: %v", err)
		}
		l.a.shape = shape{inline: 4, spill: 2, part: 8, trim: 4, graves: 1024}
		w.fill(60)
		time.Sleep(time.Hour)
		l.settle()
		h := w.head()
		if len(h.Parts) == 0 || len(h.Entries) < 2 {
			t.Fatalf("%d parts, %d entries", len(h.Parts), len(h.Entries))
		}
		entries := w.entries(h)
		from, to := entries[1].Base+1, h.End
		prove := func() error { return l.a.ProveRange(ctx, w.tp, from, to) }
		if err := prove(); err != nil {
			t.Fatal(err)
		}
		if err := l.a.ProveRange(ctx, w.tp, from, to+1); !errors.Is(err, ErrSafeMode) {
			t.Fatalf("above the bucket's end: %v", err)
		}
		bent := &bentHeads{Bucket: l.a.bucket}
		l.a.bucket = bent
		for what, harm := range map[string]func(*objectstore.Info) error{
			"gone":                  func(*objectstore.Info) error { return objectstore.ErrNotFound },
			"shorter":               func(i *objectstore.Info) error { i.Size--; return nil },
			"another":               func(i *objectstore.Info) error { i.ETag += "x"; return nil },
			"with another checksum": func(i *objectstore.Info) error { sum := uint32(1); i.CRC32C = &sum; return nil },
		} {
			for i, e := range entries {
				bent.key, bent.harm = w.folder()+e.Name(), harm
				err := prove()
				if i == 0 && err != nil {
					t.Errorf("an object below the range is %s: %v", what, err)
				}
				if i > 0 && !errors.Is(err, errLost) {
					t.Errorf("object %d is %s: %v", i, what, err)
				}
			}
		}
		bent.key = ""
		if err := prove(); err != nil {
			t.Fatal(err)
		}
		if w.memory.Generation(w.tp) < h.Generation {
			t.Fatal("the head is not remembered")
		}
	})
}

// bentHeads is a bucket that answers for one object what a test wants.
type bentHeads struct {
	objectstore.Bucket
	key  string
	harm func(*objectstore.Info) error
}

func (b *bentHeads) Head(ctx context.Context, key string) (objectstore.Info, error) {
	info, err := b.Bucket.Head(ctx, key)
	if err == nil && key == b.key {
		err = b.harm(&info)
	}
	return info, err
}

// TestAStoreThatDoesNotAnswerProvesNothing: that is no loss, and no proof.
func TestAStoreThatDoesNotAnswerProvesNothing(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := w.lead()
		w.fill(20)
		time.Sleep(time.Hour)
		l.settle()
		w.bucket.Down(errors.New("no route to host"))
		err := l.a.ProveRange(context.Background(), w.tp, 0, 1)
		if err == nil || errors.Is(err, ErrSafeMode) {
			t.Fatalf("%v", err)
		}
	})
}
