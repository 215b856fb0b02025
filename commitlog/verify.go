package commitlog

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// VerifySealed reads the first sealed segment that begins at or above base and checks
// every batch: its CRC, its epoch, and that it goes on where the one before ended. next is the
// base to go on with, -1 when there is no further sealed segment. pace is called with
// the bytes that are about to be read, and its error ends the walk.
//
// A segment whose bytes are not what was written is marked (SegmentInfo.Damaged) and
// is ErrDamaged; it stays as it is. Disk errors are errors of their own.
func (l *Log) VerifySealed(ctx context.Context, base int64, pace func(ctx context.Context, n int64) error) (next int64, err error) {
	segs := *l.segments.Load()
	i := find(segs, base)
	if i < 0 || segs[i].base < base {
		i++
	}
	if i >= len(segs)-1 { // the last one takes writes
		return -1, nil
	}
	s := segs[i]
	next = segs[i+1].base
	f, err := s.files.acquire(s)
	if errors.Is(err, os.ErrNotExist) {
		return next, nil // it was deleted meanwhile
	}
	if err != nil {
		return next, err
	}
	defer s.files.release(s)
	var buf []byte
	at := s.base
	for pos, size := int64(0), s.size.Load(); pos < size; {
		b, err := nextBatch(f, pos, size, &buf)
		if err != nil {
			return next, err
		}
		// The CRC covers neither the offset nor the epoch.
		if b == nil || b.BaseOffset() != at || l.EpochAt(at) >= 0 && l.EpochAt(at) != b.LeaderEpoch() {
			s.damaged.Store(true)
			return next, fmt.Errorf("%w: segment %d at offset %d", ErrDamaged, s.base, at)
		}
		if err := pace(ctx, int64(len(b))); err != nil {
			return next, err
		}
		pos, at = pos+int64(len(b)), b.NextOffset()
	}
	if at != s.end.Load() {
		s.damaged.Store(true)
		return next, fmt.Errorf("%w: segment %d ends at offset %d, not at %d", ErrDamaged, s.base, at, s.end.Load())
	}
	s.damaged.Store(false)
	return next, nil
}
