package commitlog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/internal/failpoint"
	"github.com/firnlog/firn/record"
)

// Recovery says what Open had to do.
type Recovery struct {
	// ScannedBytes is how much of the log was read and verified.
	ScannedBytes int64
	// CutAt is the offset at which a torn tail was cut off, -1 when none was.
	CutAt    int64
	CutBytes int64
	// Clean says that the log was closed cleanly and trusted without a scan.
	Clean bool
	// Refolded says that files were missing or damaged that a power cut cannot
	// take, and what they said was folded again from the batches.
	Refolded bool
}

// Open opens or makes the log in cfg.Dir, which exists. After a clean close it
// reads next to nothing; after a crash it verifies what lies past the checkpoint,
// cuts at the first bad batch there, and syncs what it kept. ErrDamaged when what
// the checkpoint vouches for is not there.
func Open(ctx context.Context, cfg Config) (*Log, Recovery, error) {
	cfg.setDefaults()
	rec := Recovery{CutAt: -1}
	if err := checkMeta(&cfg); err != nil {
		return nil, rec, err
	}
	l := &Log{cfg: cfg, logger: cfg.Logger.With("topic", cfg.Topic, "partition", cfg.Partition), aborted: &abortedList{}, syncWaitersCh: make(chan struct{})}
	l.producers.Store(newProducers())
	l.segBytes.Store(cfg.SegmentBytes)
	l.segAge.Store(int64(cfg.SegmentAge))
	l.lastCkpt.Store(cfg.Now().UnixMilli())
	found, err := l.ckpt.open(cfg.FS, cfg.Dir)
	if err == nil {
		err = l.recover(ctx, found, &rec)
	}
	if err != nil {
		if segs := l.segments.Load(); segs != nil {
			for _, s := range *segs {
				s.close()
			}
		}
		l.ckpt.close()
		return nil, rec, err
	}
	return l, rec, nil
}

// recover builds the segment list and every fold over it.
func (l *Log) recover(ctx context.Context, found bool, rec *Recovery) error {
	bases, err := l.listFolder()
	if err != nil {
		return err
	}
	if !found {
		l.ckpt.last = checkpoint{snapshot: noSnapshot}
	}
	k := l.ckpt.get()
	kept, _ := slices.BinarySearch(bases, k.localStart)
	// Before anything is removed: the folder names these two durably before a slot
	// does, and without them the good segments behind would look like a tail.
	for _, base := range []int64{k.localStart, k.segment} {
		if found && !slices.Contains(bases, base) {
			return fmt.Errorf("%w: segment %d is missing", ErrDamaged, base)
		}
	}
	// Segments below the local start were being deleted.
	for _, base := range bases[:kept] {
		if err := l.removeFiles(base); err != nil {
			return err
		}
	}
	bases = bases[kept:]
	at := slices.Index(bases, k.segment)
	l.dirtyDir = l.makeFolds()
	segs, bad, err := l.openSealed(bases[:max(at, 0)], k)
	l.segments.Store(&segs)
	if err != nil {
		return err
	}
	refold, err := l.restoreFolds(segs, k, bad, rec)
	if err != nil {
		return err
	}
	end, err := l.scan(ctx, bases[max(at, 0):], k, found, refold, rec)
	if err != nil {
		return err
	}
	if !found && end > 0 {
		rec.Refolded = true
		l.logger.Warn("no slot of the checkpoint is readable; the whole log was scanned and its start and high watermark begin anew", "event", "checkpoint_lost", "offset", end)
	}
	l.end.Store(end)
	l.start.Store(min(k.start, end))
	l.ckpt.last.start = l.start.Load()
	l.localStart.Store((*l.segments.Load())[0].base)
	l.start.Store(max(l.start.Load(), 0))
	l.hw.Store(k.hw)
	if err := l.restoreEpochs(end); err != nil {
		return err
	}
	l.synced.Store(min(k.synced, end))
	if rec.Clean {
		l.synced.Store(end)
		return nil
	}
	// What was read back may still be only in the page cache of a process that
	// was killed: it becomes durable before anyone counts on it.
	l.dirtyDir = true
	active := l.active()
	for _, s := range *l.segments.Load() {
		if s != active && s.base >= k.segment {
			l.dirtySegments = append(l.dirtySegments, s)
		}
	}
	return l.flush(true)
}

// listFolder removes leftovers and returns the bases of the segments, sorted.
func (l *Log) listFolder() ([]int64, error) {
	entries, err := l.cfg.FS.ReadDir(l.cfg.Dir)
	if err != nil {
		return nil, err
	}
	var bases []int64
	for _, e := range entries {
		name := e.Name()
		if strings.HasSuffix(name, ".tmp") {
			if err := l.cfg.FS.Remove(filepath.Join(l.cfg.Dir, name)); err != nil {
				return nil, err
			}
			continue
		}
		if l.staleFold(name) {
			if err := l.cfg.FS.Remove(filepath.Join(l.cfg.Dir, name)); err != nil {
				return nil, err
			}
			continue
		}
		digits, ok := strings.CutSuffix(name, ".log")
		if !ok || len(digits) != 20 {
			continue
		}
		base, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || base < 0 {
			return nil, fmt.Errorf("%w: file %s has no offset for a name", ErrDamaged, name)
		}
		bases = append(bases, base)
	}
	slices.Sort(bases)
	return bases, nil
}

func (l *Log) removeFiles(base int64) error {
	for _, n := range []string{logName(base), indexName(base), snapshotName(base)} {
		if err := l.cfg.FS.Remove(filepath.Join(l.cfg.Dir, n)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", n, err)
		}
	}
	return nil
}

// openSealed describes the segments before the one of the checkpoint, from their
// index headers; where those are no use, from the batches. bad is the first one
// whose aborted transactions are not known, len(segs) when there is none.
func (l *Log) openSealed(bases []int64, k checkpoint) (segs []*segment, bad int, err error) {
	bad = len(bases)
	for i, base := range bases {
		next := k.segment
		if i+1 < len(bases) {
			next = bases[i+1]
		}
		s := newSegment(&l.cfg, l.cfg.Flusher.Files, base)
		segs = append(segs, s)
		s.sealed.Store(true)
		st, err := l.cfg.FS.Stat(s.path())
		if err != nil {
			return segs, bad, err
		}
		s.size.Store(st.Size())
		s.idx.prefix = st.Size()
		h, err := s.readIndexHeader()
		if err == nil && h.base == base && h.end == next && h.size == st.Size() {
			s.end.Store(h.end)
			s.maxTs.Store(h.maxTs)
			s.maxTsOffset.Store(h.maxTsOffset)
			s.firstAppend.Store(h.firstAppend)
			if h.aborted > 0 {
				raw, err := disk.ReadFile(l.cfg.FS, filepath.Join(l.cfg.Dir, indexName(base)), maxIndexBytes)
				if err != nil {
					return segs, bad, err
				}
				_, _, list, err := decodeIndex(raw)
				if err != nil {
					bad = min(bad, i)
				}
				for _, a := range list {
					l.aborted.add(a)
				}
			}
			continue
		}
		if err != nil && !errors.Is(err, errIndex) {
			return segs, bad, err
		}
		bad = min(bad, i)
		s.firstAppend.Store(max(1, st.ModTime().UnixMilli()))
		end := base
		if err := s.fold(0, st.Size(), func(b record.Batch) error {
			if b.BaseOffset() != end {
				return fmt.Errorf("%w: segment %d has offset %d where %d is due", ErrDamaged, base, b.BaseOffset(), end)
			}
			end = b.NextOffset()
			if ts := b.MaxTimestamp(); ts > s.maxTs.Load() {
				s.maxTs.Store(ts)
				s.maxTsOffset.Store(b.LastOffset())
			}
			return nil
		}); err != nil {
			return segs, bad, err
		}
		s.end.Store(end)
		if end != next {
			return segs, bad, fmt.Errorf("%w: segment %d ends at %d, the next one begins at %d", ErrDamaged, base, end, next)
		}
	}
	return segs, bad, nil
}

// restoreFolds makes the producer state as it was at the checkpoint, and the
// aborted transactions of the sealed segments from bad on. The checkpoint's
// snapshot says the first at once; only what a damaged disk took is folded again,
// from the nearest snapshot of a segment's base. refold says that the checkpoint's
// own segment has to be folded from its beginning, too.
func (l *Log) restoreFolds(segs []*segment, k checkpoint, bad int, rec *Recovery) (refold bool, err error) {
	var restored *producers
	if k.snapshot == noSnapshot {
		restored = newProducers()
	} else if list, aborted, err := l.readFold(k); err == nil && k.snapshot == k.synced {
		restored = restoreProducers(list, l.now())
		for _, a := range aborted {
			l.aborted.add(a)
		}
	} else {
		l.logger.Warn("producer snapshot is missing or damaged and is folded again", "event", "snapshot_rebuilt", "offset", k.snapshot, "err", err)
	}
	if restored != nil && bad == len(segs) {
		l.producers.Store(restored)
		return false, nil
	}
	rec.Refolded = true
	p, from, err := l.nearestSnapshot(segs, bad, k.segment)
	if err != nil {
		return false, err
	}
	for _, s := range segs[from:] {
		if err := s.fold(0, s.size.Load(), func(b record.Batch) error {
			if a, ok := p.apply(b, l.now()); ok {
				l.aborted.add(a)
			}
			return nil
		}); err != nil {
			return false, err
		}
	}
	l.rewriteIndexes(segs[bad:])
	if restored != nil {
		l.producers.Store(restored)
		return false, nil
	}
	l.producers.Store(p)
	return true, nil
}

// rewriteIndexes makes the lost ones among the indexes of segs again, so that the
// next start has not to fold for them. It is not synced: they save work, no more.
func (l *Log) rewriteIndexes(segs []*segment) {
	for _, s := range segs {
		raw, err := disk.ReadFile(l.cfg.FS, filepath.Join(l.cfg.Dir, indexName(s.base)), maxIndexBytes)
		if err == nil {
			if h, _, _, err := decodeIndex(raw); err == nil && h.base == s.base && h.end == s.end.Load() && h.size == s.size.Load() {
				continue
			}
		}
		if err = s.ensureIndex(); err == nil {
			err = s.writeIndex(l.aborted.decidedIn(s.base, s.end.Load()))
		}
		if err != nil {
			l.logger.Warn("index of a sealed segment was not written", "event", "index_write_failed", "segment", s.base, "err", err)
			l.cfg.FS.Remove(filepath.Join(l.cfg.Dir, indexName(s.base)))
		}
	}
}

// nearestSnapshot finds the last readable snapshot at the base of segment bad (the
// one that begins at next, when bad is len(segs)) or of one before it, and returns
// the producers there and the segment to fold on from. Offset 0 needs none.
// ErrDamaged when there is none: the batches below that would tell are gone.
func (l *Log) nearestSnapshot(segs []*segment, bad int, next int64) (*producers, int, error) {
	base := next
	for j := bad; j >= 0; j-- {
		if j < len(segs) {
			base = segs[j].base
		}
		if at, list, _, err := readSnapshot(l.cfg.FS, l.cfg.Dir, snapshotName(base)); err == nil && at == base {
			return restoreProducers(list, l.now()), j, nil
		}
	}
	if base > 0 {
		return nil, 0, fmt.Errorf("%w: the producers at %d are lost", ErrDamaged, base)
	}
	return newProducers(), 0, nil
}

// scan opens the checkpoint's segment and what follows it, verifies what the
// checkpoint does not vouch for, and cuts at the first bad batch. Where no checkpoint
// was found nobody knows what was synced or where the log starts: the first slot is
// durable before the first append, so a log with records had one. Then nothing is cut,
// and a bad batch is damage, as is a first segment that is not at 0.
func (l *Log) scan(ctx context.Context, bases []int64, k checkpoint, found, refold bool, rec *Recovery) (end int64, err error) {
	if len(bases) == 0 {
		bases = []int64{k.segment}
	}
	end = k.segment
	for i, base := range bases {
		if base != end && !found {
			return 0, fmt.Errorf("%w: no slot of the checkpoint is readable, and segment %d begins where %d is due", ErrDamaged, base, end)
		}
		if base != end || rec.CutAt >= 0 {
			if err := l.dropTail(bases[i:], end, rec); err != nil {
				return 0, err
			}
			break
		}
		if i > 0 {
			// The files of the one before may never have reached the disk: they are
			// written again, and synced with it.
			if err := l.sealScanned(base); err != nil {
				return 0, err
			}
		}
		s := newSegment(&l.cfg, l.cfg.Flusher.Files, base)
		f, err := l.cfg.FS.OpenFile(s.path(), os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return 0, err
		}
		s.files.adopt(s, f)
		segs := append(slices.Clone(*l.segments.Load()), s)
		l.segments.Store(&segs)
		if len(segs) > 1 {
			segs[len(segs)-2].sealed.Store(true)
		}
		size, err := f.Size()
		if err != nil {
			return 0, err
		}
		if base == k.segment {
			if size < k.pos {
				return 0, fmt.Errorf("%w: segment %d has %d bytes, the checkpoint vouches for %d", ErrDamaged, base, size, k.pos)
			}
			if err := l.vouched(s, k, refold); err != nil {
				return 0, err
			}
			end = k.synced
			if l.closedBefore(k) && size == k.pos && len(bases) == 1 {
				rec.Clean = true
				return end, nil
			}
		}
		if end, err = l.scanTail(ctx, s, end, size, found, rec); err != nil {
			return 0, err
		}
		failpoint.Hit(failpoint.Recovery)
	}
	return end, nil
}

// closedBefore says whether the process just before this one closed the log cleanly,
// and whether k is what it left: any other checkpoint is of an older time.
func (l *Log) closedBefore(k checkpoint) bool {
	return l.cfg.Clean && k.clean && (l.cfg.Incarnation == 0 || k.closedBy+1 == l.cfg.Incarnation)
}

// sealScanned writes the index of the last segment so far, and the producers at
// its end, where the next one begins.
func (l *Log) sealScanned(next int64) error {
	s := l.active()
	if err := s.ensureIndex(); err != nil {
		return err
	}
	if err := s.writeIndex(l.aborted.decidedIn(s.base, next)); err != nil {
		l.logger.Warn("index of a sealed segment was not written", "event", "index_write_failed", "segment", s.base, "err", err)
		l.cfg.FS.Remove(filepath.Join(l.cfg.Dir, indexName(s.base)))
	}
	if err := l.writeSnapshot(next, l.producers.Load().states()); err != nil {
		l.logger.Warn("producer snapshot was not written", "event", "snapshot_write_failed", "segment", next, "err", err)
		l.cfg.FS.Remove(filepath.Join(l.cfg.Dir, snapshotName(next)))
	}
	return nil
}

// vouched takes over what the checkpoint says of its own segment: the batches
// before k.pos are synced and need no check. They are only folded when something
// that is derived from them has been lost.
func (l *Log) vouched(s *segment, k checkpoint, refold bool) error {
	s.size.Store(k.pos)
	s.end.Store(k.synced)
	s.idx.prefix, s.idx.nextPos = k.pos, k.pos
	if k.pos == 0 {
		return nil
	}
	s.maxTs.Store(k.maxTs)
	s.maxTsOffset.Store(k.maxTsOffset)
	s.firstAppend.Store(k.firstAppend)
	if k.firstAppend > 0 && !refold {
		return nil
	}
	if k.firstAppend <= 0 {
		st, err := l.cfg.FS.Stat(s.path())
		if err != nil {
			return err
		}
		s.firstAppend.Store(max(1, st.ModTime().UnixMilli()))
	}
	p := l.producers.Load()
	return s.fold(0, k.pos, func(b record.Batch) error {
		if ts := b.MaxTimestamp(); ts > s.maxTs.Load() {
			s.maxTs.Store(ts)
			s.maxTsOffset.Store(b.LastOffset())
		}
		if refold {
			if a, ok := p.apply(b, l.now()); ok {
				l.aborted.add(a)
			}
		}
		return nil
	})
}

// scanTail verifies s from its present size on, publishing every good batch.
func (l *Log) scanTail(ctx context.Context, s *segment, end, size int64, found bool, rec *Recovery) (int64, error) {
	pos := s.size.Load()
	var buf []byte
	for pos < size {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		b, err := nextBatch(s.file, pos, size, &buf)
		if err != nil {
			return 0, err
		}
		if b == nil || b.BaseOffset() != end {
			if !found {
				return 0, fmt.Errorf("%w: no slot of the checkpoint is readable, and the batch at %d of segment %d is bad", ErrDamaged, pos, s.base)
			}
			rec.CutAt, rec.CutBytes = end, rec.CutBytes+size-pos
			if err := s.file.Truncate(pos); err != nil {
				return 0, err
			}
			break
		}
		l.noteEpoch(b.LeaderEpoch(), b.BaseOffset())
		l.publishLocked(s, b, pos)
		pos += int64(len(b))
		end = b.NextOffset()
		rec.ScannedBytes += int64(len(b))
		s.end.Store(end)
		s.size.Store(pos)
	}
	s.end.Store(end)
	return end, nil
}

// nextBatch reads the batch at pos, nil when it is torn or damaged. Disk errors
// are errors: nothing is cut because of them.
func nextBatch(f disk.File, pos, size int64, buf *[]byte) (record.Batch, error) {
	if size-pos < record.HeaderSize {
		return nil, nil
	}
	var head [record.LogOverhead]byte
	if _, err := f.ReadAt(head[:], pos); err != nil {
		return nil, err
	}
	n, err := record.SizeOf(head[:])
	if err != nil || int64(n) > size-pos {
		return nil, nil
	}
	if cap(*buf) < n {
		*buf = make([]byte, n)
	}
	p := (*buf)[:n]
	if _, err := f.ReadAt(p, pos); err != nil {
		return nil, err
	}
	b, _, err := record.Parse(p)
	if err != nil || b.CheckCRC() != nil || b.NextOffset() <= b.BaseOffset() {
		return nil, nil
	}
	return b, nil
}

// dropTail removes the segments behind a cut.
func (l *Log) dropTail(bases []int64, end int64, rec *Recovery) error {
	for _, base := range bases {
		if st, err := l.cfg.FS.Stat(filepath.Join(l.cfg.Dir, logName(base))); err == nil {
			rec.CutBytes += st.Size()
		}
		if err := l.removeFiles(base); err != nil {
			return err
		}
	}
	if rec.CutAt < 0 {
		rec.CutAt = end
	}
	return nil
}

// noteEpoch adds an epoch that a scanned batch carries and the file does not.
func (l *Log) noteEpoch(epoch int32, start int64) {
	if epoch > l.epochs.latest() {
		l.epochs.list = append(l.epochs.list, EpochStart{epoch, start})
	}
}

// restoreEpochs merges the file with what the scan saw; a lost file is made again
// from the batches.
func (l *Log) restoreEpochs(end int64) error {
	seen := l.epochs.list
	list, err := readEpochs(l.cfg.FS, l.cfg.Dir)
	switch {
	case errors.Is(err, errEpochs):
		l.epochs.list = nil
		for _, s := range *l.segments.Load() {
			if err := s.fold(0, s.size.Load(), func(b record.Batch) error {
				l.noteEpoch(b.LeaderEpoch(), b.BaseOffset())
				return nil
			}); err != nil {
				return err
			}
		}
		if len(l.epochs.list) == 0 {
			return nil
		}
		return l.writeEpochs(l.epochs.list)
	case err != nil:
		return err
	}
	kept := slices.DeleteFunc(slices.Clone(list), func(e EpochStart) bool { return e.Start > end })
	for _, e := range seen {
		if len(kept) == 0 || e.Epoch > kept[len(kept)-1].Epoch {
			kept = append(kept, e)
		}
	}
	l.epochs.list = kept
	if !slices.Equal(kept, list) {
		return l.writeEpochs(kept)
	}
	return nil
}
