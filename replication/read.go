package replication

import (
	"github.com/firnlog/firn/commitlog"
)

// Read is what one partition answers to a fetch from its hot log.
type Read struct {
	// Slice holds whole batches; the caller releases it. It is empty at the end.
	Slice         commitlog.Slice
	HighWatermark int64
	LastStable    int64
	LogStart      int64
	// Aborted are the aborted transactions that overlap the slice; only filled
	// for read_committed.
	Aborted []commitlog.AbortedTxn
}

// Read returns whole batches from the one that contains offset up to the high
// watermark, or up to the last stable offset when committed asks for it. At most
// maxBytes, except that minOne delivers a first batch of any size (KIP-74).
//
// Errors: ErrNotLeader; ErrOffsetOutOfRange with LogStart and HighWatermark
// filled; commitlog.ErrBelowLocal when the offset is only in the bucket;
// ErrOffline.
func (p *Partition) Read(offset int64, maxBytes int, minOne, committed bool) (Read, error) {
	if _, leading := p.Leadership(); !leading {
		return Read{}, ErrNotLeader
	}
	// The last stable offset is read first: it never passes the watermark read
	// after it.
	r := Read{LastStable: p.lso.Load()}
	r.HighWatermark = p.hw.Load()
	r.LogStart = p.log.Start()
	limit := r.HighWatermark
	if committed {
		limit = r.LastStable
	}
	if offset < r.LogStart || offset > r.HighWatermark {
		return r, ErrOffsetOutOfRange
	}
	if offset >= limit {
		return r, nil
	}
	s, err := p.log.Read(offset, limit, maxBytes, minOne)
	if err != nil {
		return r, err
	}
	r.Slice = s
	if committed && s.Len() > 0 {
		r.Aborted = p.log.Aborted(s.FirstBase, s.End)
	}
	return r, nil
}

// OffsetForTime returns the first record at or after ts in the local log, below
// the high watermark. ok is false when there is none here; the caller asks the
// bucket first, because its offsets are lower.
func (p *Partition) OffsetForTime(ts int64) (offset, at int64, ok bool, err error) {
	offset, at, ok, err = p.log.OffsetForTime(ts)
	if err != nil || !ok || offset >= p.hw.Load() {
		return -1, -1, false, err
	}
	return offset, at, true, nil
}

// Offsets are the bounds the archiver works between: log start, local start, and
// the end of what may be uploaded. Nothing at or above the high watermark, the
// last stable offset or the synced end goes to the bucket: only bytes that no
// crash, election or abort can change.
func (p *Partition) Offsets() (logStart, localStart, uploadEnd int64) {
	uploadEnd = min(p.lso.Load(), p.log.SyncedEnd())
	return p.log.Start(), p.log.LocalStart(), max(uploadEnd, p.log.Start())
}

// ReadLocal returns whole batches of the local log in [offset, upTo), for the
// archiver.
func (p *Partition) ReadLocal(offset, upTo int64, maxBytes int) (commitlog.Slice, error) {
	return p.log.Read(offset, upTo, maxBytes, true)
}

// Segments lists the local segments, oldest first.
func (p *Partition) Segments() []commitlog.SegmentInfo { return p.log.Segments() }

// ProducersAt is the producer state folded up to exactly offset (SAFETY 14).
func (p *Partition) ProducersAt(offset int64) ([]commitlog.ProducerState, error) {
	return p.log.ProducersAt(offset)
}

// Aborted lists the aborted transactions that overlap [start, end).
func (p *Partition) Aborted(start, end int64) []commitlog.AbortedTxn {
	return p.log.Aborted(start, end)
}

// DeleteLocal drops whole local segments that end at or below offset. The
// caller has proved, just now and by itself, that the bucket holds them or that
// the log start passed them (SAFETY 13).
func (p *Partition) DeleteLocal(below int64) (int64, error) {
	if err := p.dir.Err(); err != nil {
		return 0, err
	}
	return p.log.DeleteLocal(below)
}

// Roll seals the active segment so that it can be uploaded.
func (p *Partition) Roll() error {
	if err := p.dir.Err(); err != nil {
		return err
	}
	return p.log.Roll()
}
