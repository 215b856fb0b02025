package commitlog

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/firnlog/firn/internal/disk"
)

// TestAClosedLogRefusesTrims: retention and DeleteRecords of a topic that is being
// deleted get ErrClosed, whichever comes first, and nothing panics.
func TestAClosedLogRefusesTrims(t *testing.T) {
	full := func(t *testing.T) *Log {
		l, _ := open(t, disk.OS(), t.TempDir())
		for i := range 100 {
			mustAppend(t, l, 1, batch(i, 5))
		}
		if err := l.flush(true); err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := full(t)
	l.Close(false)
	if n, err := l.DeleteLocal(l.End()); n != 0 || !errors.Is(err, ErrClosed) {
		t.Fatalf("%d bytes were deleted: %v, want ErrClosed", n, err)
	}
	if err := l.ckpt.update(func(*checkpoint) {}); !errors.Is(err, ErrClosed) {
		t.Fatalf("a trim that began before the close: %v, want ErrClosed", err)
	}
	for range 50 {
		l := full(t)
		var wg sync.WaitGroup
		for _, trim := range []func(int64) error{l.SetStart, func(to int64) error { _, err := l.DeleteLocal(to); return err }} {
			wg.Go(func() {
				for to := int64(0); to < l.End(); to += 20 {
					if err := trim(to); err != nil {
						if !errors.Is(err, ErrClosed) {
							t.Errorf("trim: %v", err)
						}
						return
					}
				}
			})
		}
		l.Close(false)
		wg.Wait()
		if l.offline.Load() != nil {
			t.Fatalf("a log that was closed says it went offline: %v", *l.offline.Load())
		}
	}
}

// TestTheLogStartNeverGoesBack: whoever raises it at the same time, everybody
// finds it at least where they wanted it, and where the disk has it.
func TestTheLogStartNeverGoesBack(t *testing.T) {
	s := disk.NewSim(1)
	s.MkdirAll("/p", 0o755)
	l, _ := open(t, s, "/p")
	const rounds, callers = 3000, 4
	for range rounds * callers {
		mustAppend(t, l, 1, batch(0, 1))
	}
	if err := l.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(6, 6))
	for round := range int64(rounds) {
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for _, i := range r.Perm(callers) {
			to := round*callers + int64(i) + 1
			wg.Go(func() {
				<-begin
				if err := l.SetStart(to); err != nil || l.Start() < to {
					t.Errorf("raised to %d, the log start is %d: %v", to, l.Start(), err)
				}
			})
		}
		close(begin)
		wg.Wait()
		if want := (round + 1) * callers; l.Start() != want || l.ckpt.get().start != want {
			t.Fatalf("round %d: log start %d, on disk %d, want %d", round, l.Start(), l.ckpt.get().start, want)
		}
	}
}
