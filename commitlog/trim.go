package commitlog

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/firnlog/firn/internal/disk"
)

// SetStart raises the log start, durably; a lower offset changes nothing. The
// bytes below it go when DeleteLocal is asked. ErrOffsetOutOfRange above the end.
func (l *Log) SetStart(offset int64) error {
	if err := l.Err(); err != nil {
		return err
	}
	if offset > l.End() {
		return ErrOffsetOutOfRange
	}
	// A durable start above the synced end would, after a power cut, hide the
	// records that are appended below it then.
	if offset > l.SyncedEnd() {
		if err := l.flush(false); err != nil {
			return err
		}
	}
	if err := l.updateCheckpoint(func(c *checkpoint) { c.start = max(c.start, offset) }); err != nil {
		return err
	}
	raise(&l.start, offset)
	return nil
}

// raise is how the log start moves in memory: those who raise it write the slot one
// after the other and come here in any order.
func raise(start *atomic.Int64, offset int64) {
	for was := start.Load(); was < offset && !start.CompareAndSwap(was, offset); was = start.Load() {
	}
}

// DeleteLocal removes the sealed segments that end at or below offset, oldest
// first, and returns how many bytes that were. The caller has proved that the
// bucket covers them or that the log start has passed them. Readers of a deleted
// segment keep its bytes until they release them.
func (l *Log) DeleteLocal(below int64) (int64, error) {
	segs, n := l.deletable(below, MaxOffset)
	if n == 0 {
		return 0, l.Err()
	}
	if l.ckpt.get().segment < segs[n].base {
		if err := l.flush(true); err != nil {
			return 0, err
		}
	}
	// The checkpoint must not point into what goes, and the segment that becomes the
	// first must be in the folder durably: both hold up to the checkpoint's own. More
	// may be sealed and synced by now, and on a full disk the checkpoint stays behind.
	segs, n = l.deletable(below, l.ckpt.get().segment)
	for n > 0 && !l.foldable(segs[n].base) {
		n--
	}
	l.appending.Lock()
	// Meanwhile others may have trimmed or reset the log.
	if now := *l.segments.Load(); n == 0 || now[0] != segs[0] || l.Err() != nil {
		l.appending.Unlock()
		return 0, l.Err()
	}
	segs = *l.segments.Load() // more at the end
	local := segs[n].base
	if err := l.updateBothSlots(func(c *checkpoint) { c.localStart = local }); err != nil {
		l.appending.Unlock()
		return 0, err
	}
	rest := append([]*segment(nil), segs[n:]...)
	l.segments.Store(&rest)
	l.localStart.Store(local)
	l.appending.Unlock()
	var bytes int64
	for _, s := range segs[:n] {
		bytes += s.size.Load()
		if err := s.close(); err != nil {
			l.logger.Warn("close of a deleted segment failed", "event", "segment_close_failed", "segment", s.base, "err", err)
		}
		if err := l.removeFiles(s.base); err != nil {
			return bytes, err // the next Open removes what stays
		}
	}
	l.aborted.dropBelow(l.Start())
	return bytes, nil
}

// deletable counts the segments at the front that may go: sealed, synced, ending
// at or below offset, and followed by one that begins at or below upTo.
func (l *Log) deletable(below, upTo int64) (segs []*segment, n int) {
	segs = *l.segments.Load()
	for n < len(segs)-1 && segs[n].end.Load() <= min(below, l.SyncedEnd()) && segs[n+1].base <= upTo {
		n++
	}
	return segs, n
}

// foldable says that the producers at base are in its snapshot, and makes that again
// where a full disk or a damaged one took it: without the batches below there is no
// other way to know them (SAFETY 14).
func (l *Log) foldable(base int64) bool {
	if at, _, _, err := readSnapshot(l.cfg.FS, l.cfg.Dir, snapshotName(base)); err == nil && at == base {
		return true
	}
	states, err := l.ProducersAt(base)
	if err == nil {
		err = disk.WriteFileAtomic(l.cfg.FS, filepath.Join(l.cfg.Dir, snapshotName(base)), encodeSnapshot(base, states, nil))
	}
	if err != nil {
		l.logger.Warn("a segment stays: the producers behind it cannot be stored", "event", "snapshot_write_failed", "segment", base, "err", err)
	}
	return err == nil
}

// updateBothSlots is for what makes files go that the older slot counts on: should
// the newer one be damaged, the older says the same.
func (l *Log) updateBothSlots(change func(*checkpoint)) error {
	if err := l.updateCheckpoint(change); err != nil {
		return err
	}
	return l.updateCheckpoint(change)
}

// Reset makes the log empty, with its end at end and its log start at start or where
// it is already: the records between are in the bucket. epochs and producers are the
// lineage and the fold at end, also from the bucket. A power cut leaves the log as it
// was, but perhaps for epochs that begin at its end or above, or as it is to be.
//
// ErrNoSpace leaves the log as it was.
func (l *Log) Reset(start, end int64, epochs []EpochStart, producers []ProducerState) error {
	if start > end || end < l.End() {
		return fmt.Errorf("reset to [%d, %d) would drop records above %d", start, end, l.End())
	}
	l.flushing.Lock()
	defer l.flushing.Unlock()
	l.appending.Lock()
	defer l.appending.Unlock()
	if err := l.Err(); err != nil {
		return err
	}
	// Idle time counts from now: nobody can say when they wrote last, older builds
	// put the time of the records there.
	producers = slices.Clone(producers)
	for i := range producers {
		producers[i].LastTimestamp = l.now()
	}
	if err := l.writeEpochs(epochs); err != nil {
		return l.writeFailure(err)
	}
	k := l.ckpt.get()
	k.snapshot = noSnapshot
	if len(producers) > 0 {
		k.snapshot, k.fold = end, 1-k.fold
		if err := l.writeFold(k.fold, end, producers, nil); err != nil {
			return err
		}
	}
	s := l.active()
	discard := func() {}
	if s.base != end {
		s = newSegment(&l.cfg, l.cfg.Flusher.Files, end)
		f, err := l.cfg.FS.OpenFile(s.path(), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o644)
		if err != nil {
			return l.writeFailure(err)
		}
		s.files.adopt(s, f)
		discard = func() {
			s.close()
			l.cfg.FS.Remove(s.path())
		}
	}
	// The older batches go: only this file has the fold at end from now on. It syncs
	// the folder, with the new segment's name.
	if err := disk.WriteFileAtomic(l.cfg.FS, filepath.Join(l.cfg.Dir, snapshotName(end)), encodeSnapshot(end, producers, nil)); err != nil {
		discard()
		return l.writeFailure(err)
	}
	err := l.updateBothSlots(func(c *checkpoint) {
		c.synced, c.segment, c.pos, c.snapshot, c.fold, c.localStart = end, end, 0, k.snapshot, k.fold, end
		c.maxTs, c.maxTsOffset, c.firstAppend = -1, -1, 0
		c.start = max(c.start, start)
	})
	if err != nil {
		return err // closed or offline: the next Open finds the one or the other
	}
	// Nobody sees any of it before it is durable. Readers find no segment before they
	// find the local start above what they ask for, and no end above the segments.
	old := *l.segments.Load()
	l.segments.Store(&[]*segment{s})
	l.producers.Store(restoreProducers(producers, l.now()))
	l.aborted.dropBelow(end)
	l.epochs.mu.Lock()
	l.epochs.list = slices.Clone(epochs)
	l.epochs.mu.Unlock()
	l.dirtySegments, l.dirtyDir, l.sinceCkpt = nil, false, 0
	l.lastCkpt.Store(l.now())
	l.localStart.Store(end)
	l.end.Store(end)
	l.synced.Store(end)
	raise(&l.start, start)
	l.wakeSyncWaiters()
	for _, o := range old {
		if o == s {
			continue
		}
		o.close()
		if err := l.removeFiles(o.base); err != nil {
			return err // the next Open removes what stays
		}
	}
	return nil
}

// RollIfDue seals the active segment when its oldest record has reached the
// segment age, and asks for a checkpoint when one is due by time. Call it every
// second or so; it costs nothing on an idle log.
func (l *Log) RollIfDue(now time.Time) (bool, error) {
	if l.checkpointDue(now.UnixMilli()) && l.Err() == nil {
		l.SyncAsync()
	}
	age := l.segAge.Load()
	s := l.active()
	first := s.firstAppend.Load()
	if age <= 0 || first == 0 || now.UnixMilli()-first < age/1e6 {
		return false, nil
	}
	l.appending.Lock()
	defer l.appending.Unlock()
	if err := l.Err(); err != nil {
		return false, err
	}
	if l.active() != s || s.size.Load() == 0 {
		return false, nil
	}
	return true, l.rollLocked()
}

// Dir is the log's folder.
func (l *Log) Dir() string { return filepath.Clean(l.cfg.Dir) }
