package commitlog

import (
	"errors"
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
