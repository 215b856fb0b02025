package commitlog

import (
	"math"
	"testing"
	"time"

	"github.com/firnlog/firn/internal/disk"
)

// TestTheGreatestProducerIDIsKnown, below any bound, also after a kill (SAFETY 18).
func TestTheGreatestProducerIDIsKnown(t *testing.T) {
	dir := t.TempDir()
	l, _ := open(t, disk.OS(), dir)
	if id := l.MaxProducerID(math.MaxInt64); id != -1 {
		t.Fatalf("an empty log knows producer %d", id)
	}
	for _, id := range []int64{5, 1 << 50, 7} {
		mustAppend(t, l, 1, stamped(id, 0, time.Now()))
	}
	mustAppend(t, l, 1, batch(0, 1))
	for range 2 {
		for below, want := range map[int64]int64{math.MaxInt64: 1 << 50, 1 << 50: 7, 7: 5, 5: -1} {
			if id := l.MaxProducerID(below); id != want {
				t.Errorf("below %d: %d, want %d", below, id, want)
			}
		}
		l.Close(false)
		l, _ = open(t, disk.OS(), dir)
	}
	l.Close(false)
}
