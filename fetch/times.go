package fetch

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/replication"
)

// OffsetForTime returns the first record, by offset, whose timestamp is ts or
// later, wherever it is, with its own timestamp and the epoch it was written in.
// ok is false when there is none below the high watermark. An error of the bucket
// is ErrColdRead.
func (r *Reader) OffsetForTime(ctx context.Context, p *replication.Partition, ts int64) (offset, at int64, epoch int32, ok bool, err error) {
	return offsetForTime(ctx, hotPartition{p}, ts)
}

func offsetForTime(ctx context.Context, p partition, ts int64) (offset, at int64, epoch int32, ok bool, err error) {
	err = bothTiers(ctx, p, func(a archive) (err error) {
		// The bucket has the lower offsets, so what it finds below the local
		// start is the answer.
		var cold, coldAt int64
		var inCold bool
		if a != nil {
			if cold, coldAt, inCold, err = a.offsetForTime(ctx, ts); err != nil {
				return fmt.Errorf("%w: look up timestamp %d: %w", ErrColdRead, ts, err)
			}
			if inCold && cold < p.localStart() {
				offset, at, ok = cold, coldAt, true
				return nil
			}
		}
		if offset, at, ok, err = p.offsetForTime(ts); err != nil {
			return err
		}
		if inCold && (!ok || cold < offset) {
			offset, at, ok = cold, coldAt, true
		}
		return nil
	})
	if err != nil || !ok {
		return -1, -1, -1, false, err
	}
	return offset, at, p.epochOf(offset), true, nil
}

// MaxTimestamp returns the first record that has the greatest timestamp of all,
// wherever it is (ListOffsets -3). ok is false for an empty partition.
func (r *Reader) MaxTimestamp(ctx context.Context, p *replication.Partition) (offset, at int64, epoch int32, ok bool, err error) {
	return maxTimestamp(ctx, hotPartition{p})
}

func maxTimestamp(ctx context.Context, p partition) (offset, at int64, epoch int32, ok bool, err error) {
	err = bothTiers(ctx, p, func(a archive) (err error) {
		if offset, at, err = p.maxTimestamp(); err != nil {
			return err
		}
		ok = offset >= 0
		if a == nil {
			return nil
		}
		cold, coldAt, inCold, err := a.maxTimestamp(ctx)
		if err != nil {
			return fmt.Errorf("%w: greatest timestamp: %w", ErrColdRead, err)
		}
		if inCold && (!ok || coldAt > at || (coldAt == at && cold < offset)) {
			offset, at, ok = cold, coldAt, true
		}
		return nil
	})
	if err != nil || !ok {
		return -1, -1, -1, false, err
	}
	return offset, at, p.epochOf(offset), true, nil
}

// bothTiers looks, with the bucket when records are only there. It looks again
// when the local start has meanwhile passed what the bucket had: in between
// records would be in neither view.
func bothTiers(ctx context.Context, p partition, look func(archive) error) error {
	for {
		a := p.archive()
		covered := p.localStart()
		if a == nil || covered <= p.logStart() {
			a = nil
		} else {
			end, err := tieredEnd(ctx, a)
			if err != nil {
				return err
			}
			covered = max(covered, end)
		}
		if err := look(a); err != nil {
			return err
		}
		if p.localStart() <= covered {
			return nil
		}
	}
}

// EarliestLocal is the first offset on local disk (ListOffsets -4).
func EarliestLocal(p *replication.Partition) (offset int64, epoch int32) {
	return earliestLocal(hotPartition{p})
}

func earliestLocal(p partition) (int64, int32) {
	o := max(p.localStart(), p.logStart())
	return o, p.epochOf(o)
}

// LatestTiered is the last readable offset in the bucket (ListOffsets -5), -1 and
// epoch -1 when there is none. It looks into the bucket when nobody has since the
// start, within ctx; an error is ErrColdRead.
func LatestTiered(ctx context.Context, p *replication.Partition) (offset int64, epoch int32, err error) {
	return latestTiered(ctx, hotPartition{p})
}

func latestTiered(ctx context.Context, p partition) (int64, int32, error) {
	a := p.archive()
	if a == nil {
		return -1, -1, nil
	}
	end, err := tieredEnd(ctx, a)
	if err != nil || end <= p.logStart() {
		return -1, -1, err
	}
	return end - 1, p.epochOf(end - 1), nil
}

// EarliestPending is the first offset that is not in the bucket yet (ListOffsets
// -6), -1 and epoch -1 for a partition that does not tier. It looks into the bucket
// as LatestTiered does.
func EarliestPending(ctx context.Context, p *replication.Partition) (offset int64, epoch int32, err error) {
	return earliestPending(ctx, hotPartition{p})
}

func earliestPending(ctx context.Context, p partition) (int64, int32, error) {
	a := p.archive()
	if a == nil {
		return -1, -1, nil
	}
	end, err := tieredEnd(ctx, a)
	if err != nil {
		return -1, -1, err
	}
	o := max(end, p.logStart())
	return o, p.epochOf(o), nil
}

func tieredEnd(ctx context.Context, a archive) (int64, error) {
	end, err := a.tieredEnd(ctx)
	if err != nil {
		return -1, fmt.Errorf("%w: where the bucket ends: %w", ErrColdRead, err)
	}
	return end, nil
}

// union merges the aborted transactions that two tiers know of.
func union(a, b []commitlog.AbortedTxn) []commitlog.AbortedTxn {
	all := append(slices.Clone(a), b...)
	slices.SortFunc(all, func(x, y commitlog.AbortedTxn) int {
		return cmp.Or(cmp.Compare(x.First, y.First), cmp.Compare(x.ProducerID, y.ProducerID), cmp.Compare(x.Last, y.Last))
	})
	return slices.CompactFunc(all, func(x, y commitlog.AbortedTxn) bool { return x.First == y.First && x.ProducerID == y.ProducerID })
}
