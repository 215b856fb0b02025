package fetch

import (
	"fmt"
	"testing"

	"github.com/firnlog/firn/localcache"
)

func TestTheWindowGrowsOnlyForAReaderThatWaits(t *testing.T) {
	s := newStreams()
	var p partID
	read := func(chunk int, late bool) int {
		offset := int64(chunk)
		if late {
			s.late("c", p, offset)
		}
		st := s.take("c", p, offset)
		st.enter(localcache.Key{Object: fmt.Sprint(chunk)})
		window := st.window
		o, plan := s.put(st, offset+1)
		if plan {
			s.planned(o.st, offset+1)
		}
		return window
	}
	if w := read(0, true); w != 0 {
		t.Fatalf("the first read has a window of %d: it may be the only one", w)
	}
	for chunk := 1; chunk < 50; chunk++ {
		if w := read(chunk, false); w != 1 {
			t.Fatalf("a reader that never waited has a window of %d at chunk %d", w, chunk)
		}
	}
	for i, want := range []int{2, 4, 8, 16, 16} {
		if w := read(50+i, true); w != want {
			t.Fatalf("after %d waits the window is %d, want %d", i+1, w, want)
		}
	}
	if w := read(55, false); w != 16 {
		t.Fatalf("the window shrank to %d", w)
	}
	// Somebody else's wait is not this reader's.
	s.late("other", p, 56)
	s.late("c", p, 1000)
	if w := read(56, false); w != 16 {
		t.Fatalf("window %d", w)
	}
}
