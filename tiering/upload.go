package tiering

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/internal/failpoint"
	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/record"
	"github.com/firnlog/firn/tiering/format"
)

// uploadable is the range [from, to) that the next object should hold: one
// sealed segment, several small ones, or the tail of a slow partition whose
// oldest record has waited for firn.remote.max.unuploaded.ms.
func (ar *Archive) uploadable(cfg *metadata.TopicConfig, now time.Time, h *format.Head) (from, to int64, ok bool) {
	if !cfg.RemoteCopy {
		return 0, 0, false
	}
	logStart, localStart, uploadEnd := ar.src.Offsets()
	from = logStart
	if h != nil {
		if h.End < logStart && h.Start() < h.End {
			return logStart, logStart, false // first everything that is there has to be buried
		}
		from = max(from, h.End)
	}
	if from < localStart || from >= uploadEnd {
		ar.waiting(time.Time{})
		return from, from, false
	}
	segs := ar.src.Segments()
	var waits int64
	var since time.Time
	for _, s := range segs {
		if s.End > from {
			waits += s.Bytes
			if since.IsZero() && s.Base >= from && !s.FirstAppend.IsZero() {
				since = s.FirstAppend
			}
		}
	}
	if since.IsZero() {
		since = now
	}
	aged := now.Sub(ar.waiting(since)) >= cfg.MaxUnuploaded
	to = from
	var bytes int64
	for _, s := range segs {
		if s.End <= from {
			continue
		}
		if !s.Sealed || s.End > uploadEnd || bytes > 0 && bytes+s.Bytes > ar.a.cfg.ObjectBytes {
			break
		}
		lagged := cfg.RemoteCopyLagMs == 0 || cfg.RemoteCopyLagMs > 0 && now.UnixMilli()-s.MaxTs >= cfg.RemoteCopyLagMs ||
			cfg.RemoteCopyLagBytes >= 0 && waits > cfg.RemoteCopyLagBytes
		if !lagged && !aged {
			break
		}
		bytes += s.Bytes
		to = s.End
	}
	if to == from && aged {
		to = uploadEnd
	}
	return from, to, to > from
}

// waiting keeps since when the oldest record outside the bucket has waited: the
// earliest that was told since the last commit. Zero says that nothing waits.
func (ar *Archive) waiting(since time.Time) time.Time {
	ar.mu.Lock()
	defer ar.mu.Unlock()
	if since.IsZero() {
		ar.mu.pending = time.Time{}
	} else if ar.mu.pending.IsZero() || since.Before(ar.mu.pending) {
		ar.mu.pending = since
	}
	return ar.mu.pending
}

// upload puts the next object into the bucket and commits it.
func (ar *Archive) upload(ctx context.Context, cfg *metadata.TopicConfig, now time.Time) error {
	from, to, ok := ar.uploadable(cfg, now, ar.head)
	if !ok {
		if _, localStart, uploadEnd := ar.src.Offsets(); cfg.RemoteCopy && from < localStart && from < uploadEnd && ar.head.End < localStart {
			return fmt.Errorf("%w: offsets [%d, %d) of %s-%d are neither in the bucket nor on disk; DeleteRecords up to %d says that they are lost",
				ErrSafeMode, from, localStart, ar.tp.Topic, ar.tp.Partition, localStart)
		}
		return nil
	}
	entry, err := ar.put(ctx, from, to)
	if err != nil {
		return err
	}
	err = ar.commit(ctx, func(h *format.Head) error {
		if len(h.Entries) == 0 && len(h.Parts) == 0 {
			h.End = entry.Base
		}
		if entry.Base != h.End {
			return fmt.Errorf("%w: object [%d, %d) does not continue the manifest at %d", errConflict, entry.Base, entry.End, h.End)
		}
		h.Entries = append(h.Entries, entry)
		h.End = entry.End
		return nil
	})
	if err != nil {
		return err
	}
	ar.waiting(time.Time{})
	ar.logger.Debug("uploaded", "event", "segment_uploaded", "offset", entry.Base, "end", entry.End, "bytes", entry.Size)
	return ar.spill(ctx)
}

// put writes one object with the batches in [from, to), checks that the store
// has it, and returns the entry that names it. The object is nobody's until a
// commit names it.
func (ar *Archive) put(ctx context.Context, from, to int64) (_ format.Entry, err error) {
	none := format.Entry{}
	defer func() {
		if err != nil && ar.ctx.Err() == nil {
			ar.a.metrics.copyErrors.WithLabelValues(ar.tp.Topic).Inc()
		}
	}()
	b := &sections{}
	defer b.release()
	table := format.NewTable()
	if err := ar.gather(ctx, b, table, from, to); err != nil {
		return none, err
	}
	f := table.Footer()
	logStart, _, _ := ar.src.Offsets()
	producers, err := ar.src.ProducersAt(f.End)
	if err != nil {
		return none, fmt.Errorf("producer state at %d: %w", f.End, err)
	}
	f.ClusterID, f.ClusterGeneration = ar.a.cfg.ClusterID, ar.a.cfg.ClusterGeneration()
	f.TopicID, f.Topic, f.Partition = ar.tp.TopicID, ar.tp.Topic, ar.tp.Partition
	f.Epoch, f.Writer, f.Build, f.LogStart = ar.epoch, ar.a.cfg.NodeID, ar.a.cfg.Build, logStart
	f.Producers, f.Aborted = toProducers(producers), toAborted(ar.src.Aborted(f.Base, f.End))
	for _, e := range mergeLineage(ar.knownLineage(), toEpochs(ar.src.Lineage())) {
		if e.Start < f.End {
			f.Lineage = append(f.Lineage, e)
		}
	}
	tail, sum := table.Finish()
	// What cannot be read back must not be written.
	if err := format.CheckFooter(tail, b.size); err != nil {
		return none, fmt.Errorf("BUG: unreadable footer of [%d, %d): %w", f.Base, f.End, err)
	}
	b.finish(tail, sum)

	entry := f.Entry(len(tail))
	entry.Nonce, entry.CRC, entry.CreatedMs = newNonce(), sum, ar.a.cfg.Now().UnixMilli()
	key := ar.a.key(ar.tp, &entry)
	if entry.Size != b.size {
		return none, fmt.Errorf("BUG: an object of %d bytes has %d", entry.Size, b.size)
	}
	failpoint.Hit(failpoint.Put)
	ar.a.metrics.copyRequests.WithLabelValues(ar.tp.Topic).Inc()
	etag, err := ar.a.bucket.Put(ctx, key, &paced{body: b, ctx: ctx, p: ar.a.pace, now: ar.a.cfg.Now, moved: ar.moved}, b.size, objectstore.Cond{IfNoneMatch: true})
	if err != nil {
		// In doubt or not, this name is never used again: an object that landed
		// after all is an orphan in a range that the next attempt covers.
		return none, fmt.Errorf("upload [%d, %d): %w", entry.Base, entry.End, err)
	}
	entry.ETag = etag
	failpoint.Hit(failpoint.Verify)
	if err := ar.a.verify(ctx, key, &entry); err != nil {
		return none, fmt.Errorf("verify [%d, %d) after its upload: %w", entry.Base, entry.End, err)
	}
	ar.a.metrics.copyBytes.WithLabelValues(ar.tp.Topic).Add(float64(b.size))
	return entry, nil
}

func (ar *Archive) knownLineage() []format.Epoch {
	if ar.head == nil {
		return nil
	}
	return ar.head.Lineage
}

// errDamaged means that the bucket has an object that is not what was committed.
var errDamaged = errors.New("the object is not what was written")

// verify asks the store whether it has exactly the object that e names.
func (a *Archiver) verify(ctx context.Context, key string, e *format.Entry) error {
	info, err := a.bucket.Head(ctx, key)
	if err != nil {
		return err
	}
	if info.Size != e.Size || info.ETag != e.ETag || info.CRC32C != nil && *info.CRC32C != e.CRC {
		return fmt.Errorf("%w: %s has %d bytes and ETag %s, of %d and %s", errDamaged, key, info.Size, info.ETag, e.Size, e.ETag)
	}
	return nil
}

// readPiece is how much of the log is read at once to make the chunk table.
const readPiece = 4 << 20

// gather collects the slices of the log in [from, to) and adds their batches to
// the table. At most about the target size, so that huge segments become several
// objects.
func (ar *Archive) gather(ctx context.Context, b *sections, table *format.Table, from, to int64) error {
	buf := make([]byte, 0, readPiece)
	limit := ar.a.cfg.ObjectBytes + ar.a.cfg.ObjectBytes/4
	for at := from; at < to && b.size < limit; {
		if err := ctx.Err(); err != nil {
			return err
		}
		ar.moved()
		s, err := ar.src.ReadLocal(at, to, readPiece)
		if err != nil {
			return fmt.Errorf("read the log at %d: %w", at, err)
		}
		if s.Len() == 0 {
			s.Release()
			break
		}
		b.add(s)
		if cap(buf) < s.Len() {
			buf = make([]byte, s.Len())
		}
		buf = buf[:s.Len()]
		if err := s.ReadInto(buf); err != nil {
			return fmt.Errorf("read the log at %d: %w", at, err)
		}
		for rest := buf; len(rest) > 0; {
			batch, next, err := record.Parse(rest)
			if err != nil {
				return fmt.Errorf("read the log at %d: %w", at, err)
			}
			if err := table.Add(batch); err != nil {
				return fmt.Errorf("read the log: %w", err)
			}
			rest = next
		}
		at = s.End
	}
	if b.size == 0 {
		return fmt.Errorf("BUG: nothing to upload in [%d, %d)", from, to)
	}
	return nil
}

// sections is the body of an object: slices of the log, then the footer. The
// slices keep their segments open until release.
type sections struct {
	slices []commitlog.Slice
	starts []int64 // where each begins in the object
	tail   []byte
	size   int64
	sum    uint32
	pos    int64
	at     int // the slice that holds pos, len(slices) for the tail
}

func (b *sections) add(s commitlog.Slice) {
	b.slices, b.starts = append(b.slices, s), append(b.starts, b.size)
	b.size += int64(s.Len())
}

func (b *sections) finish(tail []byte, sum uint32) {
	b.tail, b.sum = tail, sum
	b.size += int64(len(tail))
}

func (b *sections) release() {
	for _, s := range b.slices {
		s.Release()
	}
	b.slices = nil
}

// CRC32C is the sum of all bytes (objectstore.Summed).
func (b *sections) CRC32C() uint32 { return b.sum }

func (b *sections) Read(p []byte) (int, error) {
	if b.pos >= b.size {
		return 0, io.EOF
	}
	for b.at < len(b.slices) && b.pos >= b.starts[b.at]+int64(b.slices[b.at].Len()) {
		b.at++
	}
	if b.at == len(b.slices) {
		n := copy(p, b.tail[b.pos-(b.size-int64(len(b.tail))):])
		b.pos += int64(n)
		return n, nil
	}
	s := b.slices[b.at]
	off := b.pos - b.starts[b.at]
	p = p[:min(int64(len(p)), int64(s.Len())-off)]
	f, pos := s.File()
	n, err := readAt(f, p, pos+off)
	b.pos += int64(n)
	return n, err
}

func readAt(f disk.File, p []byte, off int64) (int, error) {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (b *sections) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += b.pos
	case io.SeekEnd:
		offset += b.size
	}
	if offset < 0 || offset > b.size {
		return b.pos, fmt.Errorf("seek to %d of %d", offset, b.size)
	}
	b.pos, b.at = offset, 0
	return offset, nil
}
