package tiering

import (
	"container/heap"
	"context"

	"github.com/firnlog/firn/record"
	"github.com/firnlog/firn/tiering/format"
)

// place is a part, an object or a chunk, and the greatest timestamp that it may
// hold. The bound may be too high: a part counts when records without a timestamp
// were uploaded, the greatest record may lie below the log start, and a batch's
// header may lie.
type place struct {
	maxTs, base int64
	part        *format.PartRef
	entry       *format.Entry
	footer      *format.Footer // of entry, for a chunk
	chunk       int
}

// places is a heap: the greatest bound first, of equal ones the lowest offset.
type places []place

func (p places) Len() int      { return len(p) }
func (p places) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *places) Push(x any)   { *p = append(*p, x.(place)) }
func (p places) Less(i, j int) bool {
	return p[i].maxTs > p[j].maxTs || p[i].maxTs == p[j].maxTs && p[i].base < p[j].base
}

func (p *places) Pop() any {
	last := (*p)[len(*p)-1]
	*p = (*p)[:len(*p)-1]
	return last
}

// MaxTimestamp returns the first record in the bucket, at or above the log start,
// with the greatest timestamp. It looks into the places with the greatest bounds
// until none can hold a better record: mostly one chunk.
func (ar *Archive) MaxTimestamp(ctx context.Context) (offset, at int64, ok bool, err error) {
	err = ar.again(ctx, func() error { offset, at, ok, err = ar.maxTimestamp(ctx); return err })
	return offset, at, ok, err
}

func (ar *Archive) maxTimestamp(ctx context.Context) (offset, at int64, ok bool, err error) {
	v, err := ar.viewed(ctx)
	if err != nil || v.head == nil {
		return -1, -1, false, err
	}
	logStart, _, _ := ar.src.Offsets()
	offset, at = -1, -1
	var open places
	add := func(end int64, p place) {
		if end > logStart && p.maxTs >= 0 {
			heap.Push(&open, p)
		}
	}
	entries := func(all []format.Entry) {
		for i := range all {
			add(all[i].End, place{maxTs: all[i].MaxTs, base: all[i].Base, entry: &all[i]})
		}
	}
	for i := range v.head.Parts {
		r := &v.head.Parts[i]
		add(r.To, place{maxTs: r.MaxTs, base: r.From, part: r})
	}
	entries(v.head.Entries)
	for open.Len() > 0 {
		p := heap.Pop(&open).(place)
		if ok && (p.maxTs < at || p.maxTs == at && p.base >= offset) {
			break
		}
		switch {
		case p.part != nil:
			part, err := ar.a.part(ctx, ar.tp, p.part)
			if err != nil {
				return -1, -1, false, err
			}
			entries(part.Entries)
		case p.footer == nil:
			f, err := ar.Footer(ctx, p.entry)
			if err != nil {
				return -1, -1, false, err
			}
			for i, c := range f.Chunks {
				end := f.End
				if i+1 < len(f.Chunks) {
					end = f.Chunks[i+1].Base
				}
				add(end, place{maxTs: c.MaxTs, base: c.Base, entry: p.entry, footer: f, chunk: i})
			}
		default:
			err := ar.readChunk(ctx, p.entry, p.footer, p.chunk, func(b record.Batch) error {
				if b.NextOffset() <= logStart || b.MaxTimestamp() < max(at, 0) {
					return nil
				}
				for r, err := range b.Records(maxDecoded) {
					if unreadable(err) {
						return nil
					}
					if err != nil {
						return err
					}
					o, t := b.Offset(r), b.Timestamp(r)
					if o >= logStart && t >= 0 && (t > at || t == at && o < offset) {
						offset, at, ok = o, t, true
					}
				}
				return nil
			})
			if err != nil {
				return -1, -1, false, err
			}
		}
	}
	return offset, at, ok, nil
}
