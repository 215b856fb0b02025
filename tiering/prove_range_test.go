package tiering

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/internal/mutation"
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
		refuses := func(what string) {
			t.Helper()
			if err := l.a.ProveRange(t.Context(), w.tp, 0, 1); err == nil || errors.Is(err, ErrSafeMode) {
				t.Fatalf("%s: %v", what, err)
			}
		}
		key := w.folder() + w.entries(w.head())[0].Name()
		l.a.bucket = &bentHeads{Bucket: w.bucket, key: key, harm: func(*objectstore.Info) error { return errors.New("slow down") }}
		refuses("no answer about an object")
		w.bucket.Down(errors.New("no route to host"))
		refuses("no answer about the head")
	})
}

// TestTheHeadIsRememberedBeforeAnythingGoes: a broker that has never seen this head,
// because its memory is as new as its disk, knows it when it drops its copy; and one
// that cannot remember it proves nothing (SAFETY 10, 13).
func TestTheHeadIsRememberedBeforeAnythingGoes(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.fill(20)
		l := w.lead()
		time.Sleep(time.Hour)
		l.settle()
		sim := disk.NewSim(1)
		memory, err := OpenMemory(sim, "/memory")
		if err != nil {
			t.Fatal(err)
		}
		l.a.cfg.Memory = memory
		full := errors.New("no space left")
		sim.FailOn(func(string, string) error { return full })
		if err := l.a.ProveRange(t.Context(), w.tp, 0, 1); !errors.Is(err, full) {
			t.Fatalf("%v", err)
		}
		sim.FailOn(nil)
		if err := l.a.ProveRange(t.Context(), w.tp, 0, 1); err != nil {
			t.Fatal(err)
		}
		if got, want := memory.Generation(w.tp), w.head().Generation; got != want {
			t.Fatalf("generation %d is remembered, the head has %d", got, want)
		}
	})
}

// TestMutantsOfProofs are those of prove_range.go.
func TestMutantsOfProofs(t *testing.T) {
	m := mutation.Of(t)
	m.Catch("13 the store is asked for each object", "prove_range.go", `err := a.verify(ctx, a.key(tp, e), e); {`, `err := ctx.Err(); {`, "TestARangeIsProved")
	m.Catch("13 of the whole range", "prove_range.go", `return at < to, nil`, `return false, nil`, "TestARangeIsProved")
	m.Catch("13 up to its end", "prove_range.go", `	if at < to {
		return`, `	if at < from {
		return`, "TestARangeIsProved")
	m.Catch("13 an answer that does not come is no proof", "prove_range.go", `		case err != nil:
			return false,`, `		case false:
			return false,`, "TestAStoreThatDoesNotAnswer")
	m.Catch("13 an empty bucket proves nothing", "prove_range.go", `	if h == nil {
		return fmt.Errorf(`, `	if h == nil {
		return nil
		fmt.Printf(`, "TestARangeIsProved")
	m.Catch("13 the head is remembered before anything goes", "prove_range.go", `h.Generation > a.cfg.Memory.Generation(tp)`, `false`, "TestTheHeadIsRemembered")
}
