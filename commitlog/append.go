package commitlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/firnlog/firn/internal/failpoint"
	"github.com/firnlog/firn/record"
)

// Appended says where a batch, or a run of them, went.
type Appended struct {
	Base, End   int64
	Duplicate   bool  // the producer had sent it before; Base and End are those
	LogAppendMs int64 // -1 unless the batch carries log-append time
}

// Append writes batches at the end, as the leader of epoch: it checks sequence
// numbers, assigns offsets and the epoch in place (both outside the CRC) and
// issues one write. Either all batches are in the log when it returns, or none.
// Only a single batch may be a duplicate.
//
// Errors: ErrOutOfOrderSequence, ErrInvalidProducerEpoch, ErrEpochRegression,
// ErrOffsetOverflow, ErrNoSpace, ErrOffline, ErrClosed.
func (l *Log) Append(epoch int32, batches ...record.Batch) (Appended, error) {
	l.appending.Lock()
	defer l.appending.Unlock()
	if err := l.Err(); err != nil {
		return Appended{}, err
	}
	if last := l.epochs.latest(); epoch != last {
		if epoch < last {
			return Appended{}, fmt.Errorf("%w: %d, the log has %d", ErrEpochRegression, epoch, last)
		}
		if err := l.assignEpochLocked(epoch, l.end.Load()); err != nil {
			return Appended{}, l.writeFailure(err)
		}
	}
	base := l.end.Load()
	next, size := base, int64(0)
	for _, b := range batches {
		v, err := l.producers.Load().check(b)
		if err != nil {
			return Appended{}, err
		}
		if v.duplicate {
			return Appended{Base: v.base, End: v.last + 1, Duplicate: true, LogAppendMs: logAppendMs(b)}, nil
		}
		if int64(b.LastOffsetDelta()) >= MaxOffset-next {
			return Appended{}, ErrOffsetOverflow
		}
		b.SetBaseOffset(next)
		b.SetLeaderEpoch(epoch)
		next = b.NextOffset()
		size += int64(len(b))
	}
	s, err := l.roomLocked(size, next-base)
	if err != nil {
		return Appended{}, err
	}
	pos := s.size.Load()
	buf := []byte(nil)
	if len(batches) == 1 {
		buf = batches[0]
	} else {
		buf = make([]byte, 0, size)
		for _, b := range batches {
			buf = append(buf, b...)
		}
	}
	if n, err := s.file.WriteAt(buf, pos); err != nil {
		if n > 0 {
			// What was written of it must not be found by a recovery.
			if terr := s.file.Truncate(pos); terr != nil {
				return Appended{}, l.fail(errors.Join(err, terr))
			}
		}
		return Appended{}, l.writeFailure(err)
	}
	failpoint.Hit(failpoint.Append)
	for _, b := range batches {
		l.publishLocked(s, b, pos)
		pos += int64(len(b))
	}
	// The producers know of a transaction before its bytes become visible, so a
	// reader that sees the new end sees the transaction too.
	// Segment end before size before log end: Read relies on that order.
	s.end.Store(next)
	s.size.Store(pos)
	l.end.Store(next)
	// The flush that writes the checkpoint sets the count back: only it knows that
	// there is one.
	if l.sinceCkpt += size; l.sinceCkpt >= l.cfg.CheckpointBytes {
		l.SyncAsync()
	}
	return Appended{Base: base, End: next, LogAppendMs: logAppendMs(batches[0])}, nil
}

func logAppendMs(b record.Batch) int64 {
	if b.TimestampType() == record.LogAppendTime {
		return b.MaxTimestamp()
	}
	return -1
}

// publishLocked folds a batch into index, time and producer state.
func (l *Log) publishLocked(s *segment, b record.Batch, pos int64) {
	s.idx.add(b.BaseOffset(), pos, s.maxTs.Load())
	if ts := b.MaxTimestamp(); ts > s.maxTs.Load() {
		s.maxTs.Store(ts)
		s.maxTsOffset.Store(b.LastOffset())
	}
	if s.firstAppend.Load() == 0 {
		s.firstAppend.Store(max(1, l.cfg.Now().UnixMilli()))
	}
	if b.ProducerID() >= 0 {
		if a, ok := l.producers.Load().apply(b, l.now()); ok {
			l.aborted.add(a)
		}
	}
}

// writeFailure maps a failed write. A full disk leaves the log as it was; any
// other error means that what the file holds is not known.
func (l *Log) writeFailure(err error) error {
	if noSpace(err) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return l.fail(err)
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// roomLocked returns the segment that takes size more bytes.
func (l *Log) roomLocked(size, offsets int64) (*segment, error) {
	s := l.active()
	have := s.size.Load()
	if have == 0 {
		return s, nil
	}
	full := have+size > l.segBytes.Load()
	if age := l.segAge.Load(); age > 0 && !full {
		full = l.cfg.Now().UnixMilli()-s.firstAppend.Load() >= age/1e6
	}
	// Kafka's tools keep offsets relative to the base in 31 bits.
	if !full && l.end.Load()+offsets-s.base <= 1<<31-1 {
		return s, nil
	}
	if err := l.rollLocked(); err != nil {
		return nil, err
	}
	return l.active(), nil
}

// Roll seals the active segment, if it has any record, and begins the next.
func (l *Log) Roll() error {
	l.appending.Lock()
	defer l.appending.Unlock()
	if err := l.Err(); err != nil {
		return err
	}
	if l.active().size.Load() == 0 {
		return nil
	}
	return l.rollLocked()
}

// rollLocked makes a new active segment. The old one is synced by the next flush.
func (l *Log) rollLocked() error {
	old := l.active()
	base := l.end.Load()
	s := newSegment(&l.cfg, old.files, base)
	f, err := l.cfg.FS.OpenFile(s.path(), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o644)
	if err != nil {
		return l.writeFailure(fmt.Errorf("create segment: %w", err))
	}
	s.files.adopt(s, f)
	failpoint.Hit(failpoint.Roll)
	// Both files save work at the next start and nothing more: on a full disk
	// the log goes on without them.
	err = old.ensureIndex() // a segment of before a restart may have no entries at its front yet
	if err == nil {
		err = old.writeIndex(l.aborted.decidedIn(old.base, base))
	}
	if err != nil {
		l.logger.Warn("index of a sealed segment was not written", "event", "index_write_failed", "segment", old.base, "err", err)
		l.cfg.FS.Remove(filepath.Join(l.cfg.Dir, indexName(old.base)))
	}
	l.producers.Load().expire(l.cfg.Now().Add(-l.cfg.ProducerExpiry).UnixMilli())
	if err := l.writeSnapshot(base, l.producers.Load().states()); err != nil {
		l.logger.Warn("producer snapshot was not written", "event", "snapshot_write_failed", "segment", base, "err", err)
	}
	old.sealed.Store(true)
	segs := *l.segments.Load()
	next := make([]*segment, len(segs), len(segs)+1)
	copy(next, segs)
	next = append(next, s)
	l.segments.Store(&next)
	l.dirtySegments = append(l.dirtySegments, old)
	l.dirtyDir = true
	l.SyncAsync()
	return nil
}
