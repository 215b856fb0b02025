package commitlog

import (
	"errors"
	"fmt"
	"sort"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/record"
)

// maxDecoded bounds what a lookup by time decompresses of one batch.
const maxDecoded = 256 << 20

// errStop ends a walk early.
var errStop = errors.New("stop")

// find is the index of the segment that holds offset.
func find(segs []*segment, offset int64) int {
	return sort.Search(len(segs), func(i int) bool { return segs[i].base > offset }) - 1
}

// Read returns whole batches, the first being the one that contains offset, all
// of them below upTo, at most maxBytes together; minOne allows a first batch of
// any size. The slice never spans two segments. Reading at upTo is legal and
// gives an empty slice.
//
// Errors: ErrBelowLocal, ErrOffsetOutOfRange, ErrDamaged, or the disk's.
func (l *Log) Read(offset, upTo int64, maxBytes int, minOne bool) (Slice, error) {
	s, err := l.read(offset, upTo, maxBytes, minOne)
	if err != nil && offset < l.LocalStart() {
		return Slice{}, ErrBelowLocal // it was deleted under the read
	}
	return s, err
}

func (l *Log) read(offset, upTo int64, maxBytes int, minOne bool) (Slice, error) {
	if offset < l.LocalStart() {
		return Slice{}, ErrBelowLocal
	}
	if upTo = min(upTo, l.End()); offset >= upTo {
		if offset > upTo {
			return Slice{}, ErrOffsetOutOfRange
		}
		return Slice{}, nil
	}
	segs := *l.segments.Load()
	i := find(segs, offset)
	if i < 0 {
		return Slice{}, ErrBelowLocal
	}
	s := segs[i]
	// Size before end: the end then belongs to at least that size.
	size := s.size.Load()
	end := s.end.Load()
	if err := s.ensureIndex(); err != nil {
		return Slice{}, err
	}
	file, err := s.files.acquire(s)
	if err != nil {
		return Slice{}, fmt.Errorf("open segment %d: %w", s.base, err)
	}
	out := Slice{seg: s, file: file, FirstBase: -1}
	err = s.cut(&out, size, end, offset, upTo, int64(maxBytes), minOne)
	if err != nil || out.n == 0 {
		s.files.release(s)
		return Slice{}, err
	}
	return out, nil
}

// cut sets where the slice begins and ends.
func (s *segment) cut(out *Slice, size, end, offset, upTo, maxBytes int64, minOne bool) error {
	var first batchHeader
	err := walkHeaders(out.file, s.idx.byOffset(offset), size, func(pos int64, h batchHeader) error {
		if h.next <= offset {
			return nil
		}
		out.pos, out.FirstBase, first = pos, h.base, h
		return errStop
	})
	if err != nil && !errors.Is(err, errStop) {
		return err
	}
	if out.FirstBase < 0 || out.FirstBase > offset {
		return fmt.Errorf("%w: segment %d has no batch with offset %d", ErrDamaged, s.base, offset)
	}
	if first.next > upTo {
		return nil // the batch is not wholly readable yet
	}
	if first.size > maxBytes {
		if minOne {
			out.n, out.End = int(first.size), first.next
		}
		return nil
	}
	if size-out.pos <= maxBytes && end <= upTo {
		out.n, out.End = int(size-out.pos), end
		return nil
	}
	from := max(out.pos, min(s.idx.byPos(out.pos+maxBytes), s.idx.byOffset(upTo)))
	stop := out.pos
	err = walkHeaders(out.file, from, size, func(pos int64, h batchHeader) error {
		if pos == from && from > out.pos {
			stop, out.End = from, h.base
		}
		if pos+h.size-out.pos > maxBytes || h.next > upTo {
			return errStop
		}
		stop, out.End = pos+h.size, h.next
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		return err
	}
	out.n = int(stop - out.pos)
	return nil
}

// readBatch reads the whole batch of size bytes at pos.
func readBatch(f disk.File, pos, size int64) (record.Batch, error) {
	p := make([]byte, size)
	if _, err := f.ReadAt(p, pos); err != nil {
		return nil, err
	}
	b, _, err := record.Parse(p)
	if err == nil {
		err = b.CheckCRC()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: batch at %d: %w", ErrDamaged, pos, err)
	}
	return b, nil
}

// OffsetForTime returns the first local record, by offset, whose timestamp is at
// or after ts, with its own timestamp. ok is false when there is none.
func (l *Log) OffsetForTime(ts int64) (offset, at int64, ok bool, err error) {
	start := l.Start()
	for _, s := range *l.segments.Load() {
		if s.maxTs.Load() < ts || s.end.Load() <= start {
			continue
		}
		size := s.size.Load()
		if err := s.ensureIndex(); err != nil {
			return -1, -1, false, err
		}
		f, err := s.files.acquire(s)
		if err != nil {
			return -1, -1, false, err
		}
		err = walkHeaders(f, s.idx.byTime(ts), size, func(pos int64, h batchHeader) error {
			if h.maxTs < ts || h.next <= start {
				return nil
			}
			b, err := readBatch(f, pos, h.size)
			if err != nil {
				return err
			}
			if offset, at, ok, err = b.FindTimestamp(ts, start, maxDecoded); err != nil || ok {
				return errors.Join(err, errStop)
			}
			return nil
		})
		s.files.release(s)
		if ok {
			return offset, at, true, nil
		}
		if err != nil {
			return -1, -1, false, err
		}
	}
	return -1, -1, false, nil
}

// MaxTimestamp is the record with the greatest timestamp in the local log, the
// first of them by offset; -1, -1 when there is none (KIP-734).
func (l *Log) MaxTimestamp() (offset, ts int64, err error) {
	var best *segment
	for _, s := range *l.segments.Load() {
		if m := s.maxTs.Load(); m >= 0 && (best == nil || m > best.maxTs.Load()) {
			best = s
		}
	}
	if best == nil {
		return -1, -1, nil
	}
	last := best.maxTsOffset.Load()
	sl, err := l.Read(last, last+1, 1, true)
	if err != nil || sl.Len() == 0 {
		return -1, -1, err
	}
	defer sl.Release()
	raw, err := sl.Bytes()
	if err != nil {
		return -1, -1, err
	}
	b, _, err := record.Parse(raw)
	if err != nil {
		return -1, -1, err
	}
	o, at, ok, err := b.OffsetOfMaxTimestamp(maxDecoded)
	if err != nil || !ok {
		return -1, -1, err
	}
	return o, at, nil
}

// FirstUnstable is the first offset of a transaction that is open, or whose
// marker is not yet below hw; -1 when there is none. The last stable offset is
// the lesser of it and hw.
func (l *Log) FirstUnstable(hw int64) int64 { return l.producers.Load().firstUnstable(hw) }

// ProducersAt is the producer state folded from all batches below offset, which
// is a batch boundary of the local log (SAFETY 14). ErrDamaged when the snapshot at
// the local start is lost and no later one is below offset.
func (l *Log) ProducersAt(offset int64) ([]ProducerState, error) {
	l.appending.Lock()
	if offset == l.end.Load() {
		defer l.appending.Unlock()
		return l.producers.Load().states(), nil
	}
	l.appending.Unlock()
	segs := *l.segments.Load()
	i := find(segs, offset)
	if i < 0 || offset > l.End() {
		return nil, ErrOffsetOutOfRange
	}
	p, from, err := l.nearestSnapshot(segs, i, segs[i].base)
	if err != nil && offset < l.LocalStart() {
		return nil, ErrBelowLocal // it was deleted meanwhile
	}
	if err != nil {
		return nil, err
	}
	now := l.now()
	for _, s := range segs[from : i+1] {
		if err := s.fold(0, s.size.Load(), func(b record.Batch) error {
			if b.NextOffset() > offset {
				return errStop
			}
			p.apply(b, now)
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return p.states(), nil
}

// fold calls fn for each batch in [pos, limit): whole for control batches, else
// only its header.
func (s *segment) fold(pos, limit int64, fn func(record.Batch) error) error {
	f, err := s.files.acquire(s)
	if err != nil {
		return err
	}
	defer s.files.release(s)
	err = walkHeaders(f, pos, limit, func(pos int64, h batchHeader) error {
		b := record.Batch(h.raw)
		if b.IsControl() {
			if b, err = readBatch(f, pos, h.size); err != nil {
				return err
			}
		}
		return fn(b)
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}
