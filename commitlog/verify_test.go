package commitlog

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/firnlog/firn/internal/disk"
)

func unpaced(context.Context, int64) error { return nil }

// verifyAll returns the bases of the damaged segments.
func verifyAll(t *testing.T, l *Log) (damaged []int64) {
	t.Helper()
	for base := l.LocalStart(); base >= 0; {
		next, err := l.VerifySealed(context.Background(), base, unpaced)
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
		if err != nil {
			damaged = append(damaged, base)
		}
		base = next
	}
	return damaged
}

// TestRotIsFound: one flipped bit anywhere in a sealed segment is found, and names its
// segment; the log itself changes nothing (SAFETY 8).
func TestRotIsFound(t *testing.T) {
	s := disk.NewSim(1)
	s.MkdirAll("/data/p", 0o755)
	l, _ := open(t, s, "/data/p")
	for i := range 40 {
		mustAppend(t, l, int32(1+i/15), batch(i, 3))
		if i%8 == 7 {
			if err := l.Roll(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := verifyAll(t, l); len(got) != 0 {
		t.Fatalf("segments %v of a log that is whole", got)
	}
	segs := l.Segments()
	rng := rand.New(rand.NewPCG(1, 8))
	for range 500 {
		seg := segs[rng.IntN(len(segs)-1)]
		name, at := filepath.Join("/data/p", logName(seg.Base)), rng.Int64N(seg.Bytes)
		s.FlipBit(name, at)
		if got := verifyAll(t, l); len(got) != 1 || got[0] != seg.Base {
			t.Fatalf("byte %d of segment %d was changed, damaged are %v", at, seg.Base, got)
		}
		for _, i := range l.Segments() {
			if i.Damaged != (i.Base == seg.Base) {
				t.Fatalf("segment %d is marked %v", i.Base, i.Damaged)
			}
		}
		s.FlipBit(name, at)
	}
	if got := verifyAll(t, l); len(got) != 0 {
		t.Fatalf("segments %v of a log that is whole again", got)
	}
}
