package tiering

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/record"
	"github.com/firnlog/firn/tiering/format"
)

// publish shows v to readers, unless they already see a later head.
func (ar *Archive) publish(v *view) {
	ar.publishing.Lock()
	defer ar.publishing.Unlock()
	if old := ar.view.Load(); old != nil && old.head != nil && (v.head == nil || v.head.Generation < old.head.Generation) {
		return
	}
	ar.view.Store(v)
}

// viewed is the view of readers; the head is read when it never was.
func (ar *Archive) viewed(ctx context.Context) (*view, error) {
	if v := ar.view.Load(); v != nil {
		return v, nil
	}
	if err := ar.Refresh(ctx); err != nil {
		return nil, err
	}
	return ar.view.Load(), nil
}

// Refresh reads the head again for readers, after an object that it named was
// not there.
func (ar *Archive) Refresh(ctx context.Context) error {
	h, etag, err := ar.readHead(ctx)
	if err != nil {
		return err
	}
	ar.publish(&view{head: ar.shown(h), etag: etag})
	return nil
}

// shown is h without what is not of our lineage.
func (ar *Archive) shown(h *format.Head) *format.Head {
	if h == nil {
		return nil
	}
	n := ar.ownEntries(h)
	if n == len(h.Entries) {
		return h
	}
	c := cloneHead(h)
	c.Entries = c.Entries[:n]
	c.End = endOf(c)
	return c
}

// TieredEnd is the exclusive end of the contiguous range in the bucket, -1 when
// nothing is there, or when the head was not read yet.
func (ar *Archive) TieredEnd() int64 {
	v := ar.view.Load()
	if v == nil || v.head == nil || v.head.Start() == v.head.End {
		return -1
	}
	return v.head.End
}

// Load reads the head for readers when it never was.
func (ar *Archive) Load(ctx context.Context) error {
	_, err := ar.viewed(ctx)
	return err
}

// EarliestPending is the first offset that is not yet in the bucket.
func (ar *Archive) EarliestPending() int64 {
	logStart, _, _ := ar.src.Offsets()
	return max(ar.TieredEnd(), logStart)
}

// Usage is what a partition takes in the bucket.
type Usage struct {
	Objects int64
	Bytes   int64 // of its batches
	Stored  int64 // of its objects
}

// Usage counts what the manifest names.
func (ar *Archive) Usage() (u Usage) {
	v := ar.view.Load()
	if v == nil || v.head == nil {
		return u
	}
	for i := range v.head.Parts {
		p := &v.head.Parts[i]
		u = Usage{u.Objects + p.Count, u.Bytes + p.Bytes, u.Stored + p.Stored}
	}
	for i := range v.head.Entries {
		e := &v.head.Entries[i]
		u = Usage{u.Objects + 1, u.Bytes + e.Bytes, u.Stored + e.Size}
	}
	return u
}

// Locate returns the object that holds offset, or ErrNotTiered. For recent
// ranges it asks nobody, for an older one it takes at most one GET.
func (ar *Archive) Locate(ctx context.Context, offset int64) (format.Entry, error) {
	v, err := ar.viewed(ctx)
	if err != nil {
		return format.Entry{}, err
	}
	h := v.head
	if h == nil || offset < h.Start() || offset >= h.End {
		return format.Entry{}, fmt.Errorf("%w: offset %d of %s-%d", ErrNotTiered, offset, ar.tp.Topic, ar.tp.Partition)
	}
	entries := h.Entries
	if i := sort.Search(len(h.Parts), func(i int) bool { return h.Parts[i].To > offset }); i < len(h.Parts) {
		p, err := ar.a.part(ctx, ar.tp, &h.Parts[i])
		if err != nil {
			return format.Entry{}, err
		}
		entries = p.Entries
	}
	i := sort.Search(len(entries), func(i int) bool { return entries[i].End > offset })
	if i == len(entries) || entries[i].Base > offset {
		return format.Entry{}, fmt.Errorf("%w: offset %d of %s-%d", ErrNotTiered, offset, ar.tp.Topic, ar.tp.Partition)
	}
	return entries[i], nil
}

// Key is where an entry's object is in the bucket.
func (ar *Archive) Key(e *format.Entry) string { return ar.a.key(ar.tp, e) }

// Footer reads the footer of an entry's object.
func (ar *Archive) Footer(ctx context.Context, e *format.Entry) (*format.Footer, error) {
	return ar.a.footer(ctx, ar.tp, e)
}

func (a *Archiver) footer(ctx context.Context, tp metadata.TopicPartition, e *format.Entry) (*format.Footer, error) {
	key := a.key(tp, e)
	if f, ok := a.footers.get(key); ok {
		return f, nil
	}
	f, err := a.readFooter(ctx, tp, e)
	if err != nil {
		return nil, err
	}
	// Only Recover needs the producers, and there may be very many.
	f.Producers, f.Lineage = nil, nil
	a.footers.put(key, f, int64(len(f.Chunks)*48+len(f.Aborted)*32+512))
	return f, nil
}

// readFooter reads a footer from the bucket, whole.
func (a *Archiver) readFooter(ctx context.Context, tp metadata.TopicPartition, e *format.Entry) (*format.Footer, error) {
	key := a.key(tp, e)
	f, err := format.ReadFooter(e.Size, func(p []byte, off int64) error { return a.bucket.GetRange(ctx, key, p, off) })
	if err != nil {
		return nil, fmt.Errorf("read the footer of %s: %w", key, err)
	}
	if f.TopicID != tp.TopicID || f.Partition != tp.Partition || f.Base != e.Base || f.End != e.End {
		return nil, fmt.Errorf("%w: %s says it holds [%d, %d) of %s-%d", format.ErrCorrupt, key, f.Base, f.End, f.Topic, f.Partition)
	}
	return f, nil
}

// FooterAborted are the aborted transactions of a footer.
func FooterAborted(f *format.Footer) []commitlog.AbortedTxn { return fromAborted(f.Aborted) }

// maxDecoded bounds what a lookup by time decompresses of one batch.
const maxDecoded = 256 << 20

var errStop = errors.New("stop")

// OffsetForTime returns the first record in the bucket, by offset, at or above
// the log start, whose timestamp is ts or later, with its own timestamp.
func (ar *Archive) OffsetForTime(ctx context.Context, ts int64) (offset, at int64, ok bool, err error) {
	err = ar.again(ctx, func() error { offset, at, ok, err = ar.offsetForTime(ctx, ts); return err })
	return offset, at, ok, err
}

// again does it once more with a fresh head when something that the head names
// is not there.
func (ar *Archive) again(ctx context.Context, do func() error) error {
	err := do()
	if !isGone(err) {
		return err
	}
	if err := ar.Refresh(ctx); err != nil {
		return err
	}
	return do()
}

func (ar *Archive) offsetForTime(ctx context.Context, ts int64) (offset, at int64, ok bool, err error) {
	logStart, _, _ := ar.src.Offsets()
	err = ar.chunks(ctx, logStart, func(maxTs int64) bool { return maxTs >= ts }, func(b record.Batch) error {
		if b.MaxTimestamp() < ts || b.NextOffset() <= logStart {
			return nil
		}
		var err error
		offset, at, ok, err = b.FindTimestamp(ts, logStart, maxDecoded)
		if unreadable(err) {
			return nil
		}
		if err != nil || ok {
			return stopWith(err)
		}
		return nil
	})
	if ok {
		return offset, at, true, nil
	}
	return -1, -1, false, err
}

// unreadable says that a batch is not what its header announces. Its producer
// wrote it so; it hurts no lookup but its own.
func unreadable(err error) bool {
	return errors.Is(err, record.ErrCorrupt) || errors.Is(err, record.ErrDecodedSize)
}

// chunks reads, in order of offsets, the chunks whose greatest timestamp wanted
// accepts, in objects where it accepts the object's, and calls fn for their
// batches.
func (ar *Archive) chunks(ctx context.Context, from int64, wanted func(maxTs int64) bool, fn func(record.Batch) error) error {
	v, err := ar.viewed(ctx)
	if err != nil || v.head == nil {
		return err
	}
	h := v.head
	visit := func(e *format.Entry) error {
		if e.End <= from || !wanted(e.MaxTs) {
			return nil
		}
		f, err := ar.Footer(ctx, e)
		if err != nil {
			return err
		}
		for i, c := range f.Chunks {
			if !wanted(c.MaxTs) || i+1 < len(f.Chunks) && f.Chunks[i+1].Base <= from {
				continue
			}
			if err := ar.readChunk(ctx, e, f, i, fn); err != nil {
				return err
			}
		}
		return nil
	}
	for i := range h.Parts {
		if h.Parts[i].To <= from || !wanted(h.Parts[i].MaxTs) {
			continue
		}
		p, err := ar.a.part(ctx, ar.tp, &h.Parts[i])
		if err != nil {
			return err
		}
		for j := range p.Entries {
			if err := visit(&p.Entries[j]); err != nil {
				return stopped(err)
			}
		}
	}
	for i := range h.Entries {
		if err := visit(&h.Entries[i]); err != nil {
			return stopped(err)
		}
	}
	return nil
}

func stopped(err error) error {
	if err == errStop { //nolint:errorlint // a joined error is a real one
		return nil
	}
	return err
}

func (ar *Archive) readChunk(ctx context.Context, e *format.Entry, f *format.Footer, i int, fn func(record.Batch) error) error {
	if f.Codec != format.None {
		return fmt.Errorf("%w: object [%d, %d) has codec %d", format.ErrVersion, e.Base, e.End, f.Codec)
	}
	c := f.Chunks[i]
	p := make([]byte, c.Len)
	if err := ar.a.bucket.GetRange(ctx, ar.Key(e), p, c.Pos); err != nil {
		return fmt.Errorf("read chunk %d of [%d, %d): %w", i, e.Base, e.End, err)
	}
	if err := f.CheckChunk(i, p); err != nil {
		return err
	}
	for len(p) > 0 {
		b, rest, err := record.Parse(p)
		if err != nil {
			return fmt.Errorf("chunk %d of [%d, %d): %w", i, e.Base, e.End, err)
		}
		if err := fn(b); err != nil {
			return err
		}
		p = rest
	}
	return nil
}

// stopWith ends a walk, with the error when there is one.
func stopWith(err error) error {
	if err != nil {
		return err
	}
	return errStop
}
