package fetch

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"
)

type brokenTier struct{ *fakeLog }

func (b brokenTier) archive() archive { return brokenArchive{b.arch} }

type brokenArchive struct{ *fakeArchive }

func (brokenArchive) offsetForTime(context.Context, int64) (int64, int64, bool, error) {
	return 0, 0, false, errors.New("503")
}
func (brokenArchive) maxTimestamp(context.Context) (int64, int64, bool, error) {
	return 0, 0, false, errors.New("503")
}

// silentTier has a bucket that does not answer before the question is given up, and
// nobody has read the manifest yet.
type silentTier struct{ *fakeLog }

func (s silentTier) archive() archive { return silentArchive{s.arch} }

type silentArchive struct{ *fakeArchive }

func (silentArchive) tieredEnd(ctx context.Context) (int64, error) {
	<-ctx.Done()
	return -1, ctx.Err()
}

// TestCutAgreesWithAPlainWalk compares index lookups with takeBatches.
func TestCutAgreesWithAPlainWalk(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 40 {
		batches := makeBatches(r.Uint64(), r.Int64N(1000), 1+r.IntN(300), func(r *rand.Rand) int {
			if r.IntN(20) == 0 {
				return 40_000
			}
			return 50 + r.IntN(1000)
		})
		data := join(batches)
		first, end := batches[0].BaseOffset(), batches[len(batches)-1].NextOffset()
		x, err := indexBatches(bytes.NewReader(data), int64(len(data)), first)
		if err != nil || x.end != end {
			t.Fatalf("seed %d: end %d, want %d: %v", seed, x.end, end, err)
		}
		window := make([]byte, 64+r.IntN(indexStep))
		for range 100 {
			offset, limit := first+r.Int64N(end-first), first+r.Int64N(end-first+2)
			most, minOne := r.IntN(100_000), r.IntN(2) == 0
			want, _, wantEnd := takeBatches(batches, offset, limit, most, minOne)
			pos, err := x.find(bytes.NewReader(data), offset, window)
			if err != nil {
				t.Fatal(err)
			}
			n, gotEnd, err := x.cut(bytes.NewReader(data), pos, int64(most), limit, minOne, window)
			if err != nil || !bytes.Equal(data[pos:pos+n], want) || (n > 0 && gotEnd != wantEnd) {
				t.Fatalf("seed %d: offset %d limit %d most %d minOne %v: %d bytes to %d, want %d to %d: %v", seed, offset, limit, most, minOne, n, gotEnd, len(want), wantEnd, err)
			}
		}
	}
}

// FuzzIndexBatches: any bytes give an error or an index whose lookups stay inside
// them.
func FuzzIndexBatches(f *testing.F) {
	good := join(makeBatches(1, 5, 4, small))
	f.Add(good, int64(6), 100)
	f.Add(good[:len(good)-1], int64(6), 100)
	f.Add([]byte("0123456789012345678901234567890"), int64(0), 1)
	f.Fuzz(func(t *testing.T, p []byte, offset int64, most int) {
		x, err := indexBatches(bytes.NewReader(p), int64(len(p)), 0)
		if err != nil {
			return
		}
		window := make([]byte, 64)
		pos, err := x.find(bytes.NewReader(p), offset, window)
		if err != nil || pos < 0 || pos > int64(len(p)) {
			t.Fatalf("position %d of %d: %v", pos, len(p), err)
		}
		n, _, err := x.cut(bytes.NewReader(p), pos, int64(max(most, 0)), x.end, true, window)
		if err != nil || n < 0 || pos+n > int64(len(p)) {
			t.Fatalf("%d bytes at %d of %d: %v", n, pos, len(p), err)
		}
	})
}
