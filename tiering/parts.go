package tiering

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"sort"

	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/tiering/format"
)

// shape bounds the manifest. A head holds at most inline entries; then the oldest
// spill move into a part. A part grows by rewriting until it has part entries, so
// that a million objects need about 250 references, and a lookup one GET of about
// 500 KiB. The oldest part is written anew without its expired entries once there
// are trim of them. When the graveyard has graves, burials wait for the next
// purge: what is not buried stays named, and costs space only.
type shape struct{ inline, spill, part, trim, graves int }

var defaultShape = shape{inline: 768, spill: 512, part: 4096, trim: 32, graves: 1024}

// spillBytes is the size of a head from which entries move into a part, however
// few they are: a full graveyard and a part reference for each of a million
// objects fit beside it below format.MaxHead.
const spillBytes = 144 << 10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// readPart returns the part at key, from memory when it was read before: parts
// never change.
func (a *Archiver) readPart(ctx context.Context, key string, nonce format.Nonce) (*format.Part, error) {
	if p, ok := a.parts.get(nonce); ok {
		return p, nil
	}
	data, _, err := a.bucket.Get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read part of a manifest %s: %w", key, err)
	}
	p, err := format.DecodePart(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	a.parts.put(nonce, p, weightOf(p))
	return p, nil
}

// weightOf is about what a part takes in memory.
func weightOf(p *format.Part) (n int64) {
	for i := range p.Entries {
		n += 208 + int64(len(p.Entries[i].ETag)+len(p.Entries[i].Key)+32*len(p.Entries[i].Aborted))
	}
	return n
}

// part returns what a reference of a head names, checked against it.
func (a *Archiver) part(ctx context.Context, tp metadata.TopicPartition, r *format.PartRef) (*format.Part, error) {
	p, err := a.readPart(ctx, a.folder(tp)+r.Name(), r.Nonce)
	if err != nil {
		return nil, err
	}
	if p.TopicID != tp.TopicID || p.Partition != tp.Partition || p.Entries[0].Base != r.From || p.Entries[len(p.Entries)-1].End != r.To {
		return nil, fmt.Errorf("%w: part %s is not what the manifest of %s-%d names", format.ErrCorrupt, r.Name(), tp.Topic, tp.Partition)
	}
	return p, nil
}

func (ar *Archive) partEntries(ctx context.Context) func(*format.PartRef) ([]format.Entry, error) {
	return func(r *format.PartRef) ([]format.Entry, error) {
		p, err := ar.a.part(ctx, ar.tp, r)
		if err != nil {
			return nil, err
		}
		return p.Entries, nil
	}
}

func isGone(err error) bool { return errors.Is(err, objectstore.ErrNotFound) }

// each calls fn for the entries of h that end above from, in order, until fn
// says stop.
func (ar *Archive) each(ctx context.Context, h *format.Head, from int64, fn func(*format.Entry) (more bool, err error)) error {
	visit := func(entries []format.Entry) (bool, error) {
		i := sort.Search(len(entries), func(i int) bool { return entries[i].End > from })
		for ; i < len(entries); i++ {
			if more, err := fn(&entries[i]); err != nil || !more {
				return false, err
			}
		}
		return true, nil
	}
	i := sort.Search(len(h.Parts), func(i int) bool { return h.Parts[i].To > from })
	for ; i < len(h.Parts); i++ {
		p, err := ar.a.part(ctx, ar.tp, &h.Parts[i])
		if err != nil {
			return err
		}
		if more, err := visit(p.Entries); err != nil || !more {
			return err
		}
	}
	_, err := visit(h.Entries)
	return err
}

// lastEntry is the newest entry of h.
func (a *Archiver) lastEntry(ctx context.Context, tp metadata.TopicPartition, h *format.Head) (e format.Entry, ok bool, err error) {
	if n := len(h.Entries); n > 0 {
		return h.Entries[n-1], true, nil
	}
	if n := len(h.Parts); n > 0 {
		p, err := a.part(ctx, tp, &h.Parts[n-1])
		if err != nil {
			return e, false, err
		}
		return p.Entries[len(p.Entries)-1], true, nil
	}
	return e, false, nil
}

// spill moves the oldest entries of a long head into a part.
func (ar *Archive) spill(ctx context.Context) error {
	n := ar.a.shape.spill
	if len(ar.head.Entries) <= ar.a.shape.inline {
		// Entries with many aborted transactions take five times the space.
		if ar.headSize <= spillBytes || len(ar.head.Entries) < 2 {
			return nil
		}
		n = min(n, (len(ar.head.Entries)+1)/2)
	}
	moved := ar.head.Entries[:n]
	var old *format.PartRef
	entries := append([]format.Entry(nil), moved...)
	if n := len(ar.head.Parts); n > 0 && ar.head.Parts[n-1].Count+int64(len(moved)) <= int64(ar.a.shape.part) {
		old = &ar.head.Parts[n-1]
		p, err := ar.a.part(ctx, ar.tp, old)
		switch {
		case err == nil:
			entries = append(append([]format.Entry(nil), p.Entries...), moved...)
		case ctx.Err() != nil:
			return err
		default:
			// A part that cannot be read must not stop the next one.
			ar.logger.Error("a part of the manifest cannot be read", "event", "part_unreadable", "offset", old.From, "end", old.To, "err", err)
			old = nil
		}
	}
	ref, err := ar.putPart(ctx, entries)
	if err != nil {
		return err
	}
	return ar.commit(ctx, func(h *format.Head) error {
		if len(h.Entries) < len(moved) || h.Entries[0].Nonce != moved[0].Nonce {
			return nil // buried meanwhile: the part is an orphan
		}
		last := len(h.Parts) - 1
		switch {
		case old == nil:
			h.Parts = append(h.Parts, ref)
		case last >= 0 && h.Parts[last].Nonce == old.Nonce:
			ar.replacePart(h, last, ref)
		default:
			return nil // the old part was buried meanwhile, and with it what ref names
		}
		h.Entries = h.Entries[len(moved):]
		return nil
	})
}

// replacePart puts ref in the place of part i, which is buried alone: its
// objects live on in ref.
func (ar *Archive) replacePart(h *format.Head, i int, ref format.PartRef) {
	p := h.Parts[i]
	h.Graves = append(h.Graves, format.Grave{State: format.Unlinked, Since: ar.stamp(), Part: true, Base: p.From, End: p.To, Epoch: -1, Nonce: p.Nonce, Size: p.Size})
	h.Parts[i] = ref
}

// trimPart writes the oldest part anew when enough of its entries are below the
// log start, so that their objects can be buried.
func (ar *Archive) trimPart(ctx context.Context) error {
	room := ar.a.shape.graves - len(ar.head.Graves) - 1 // one for the part itself
	if len(ar.head.Parts) == 0 || room < ar.a.shape.trim {
		return nil
	}
	logStart, _, _ := ar.src.Offsets()
	first := ar.head.Parts[0]
	if first.From >= logStart || first.To <= logStart {
		return nil
	}
	p, err := ar.a.part(ctx, ar.tp, &first)
	if err != nil {
		return err
	}
	n := sort.Search(len(p.Entries), func(i int) bool { return p.Entries[i].End > logStart })
	n = min(n, room)
	if n < min(ar.a.shape.trim, len(p.Entries)/2) || n == 0 {
		return nil
	}
	ref, err := ar.putPart(ctx, p.Entries[n:])
	if err != nil {
		return err
	}
	return ar.commit(ctx, func(h *format.Head) error {
		if len(h.Parts) == 0 || h.Parts[0].Nonce != first.Nonce {
			return nil
		}
		ar.replacePart(h, 0, ref)
		ar.bury(h, p.Entries[:n])
		return nil
	})
}

// putPart writes a part and checks that the store has it.
func (ar *Archive) putPart(ctx context.Context, entries []format.Entry) (format.PartRef, error) {
	p := &format.Part{TopicID: ar.tp.TopicID, Partition: ar.tp.Partition, Entries: entries}
	data := format.EncodePart(p)
	last := &entries[len(entries)-1]
	ref := format.PartRef{
		From: entries[0].Base, To: last.End, Count: int64(len(entries)), Nonce: newNonce(), Size: int64(len(data)),
		MinTs: -1, MaxTs: -1, CRC: crc32.Checksum(data, castagnoli),
	}
	for i := range entries {
		ref.Bytes += entries[i].Bytes
		ref.Stored += entries[i].Size
		newest := entries[i].MaxTs
		if newest < 0 {
			newest = entries[i].CreatedMs
		}
		ref.MinTs, ref.MaxTs = format.WidenTs(ref.MinTs, ref.MaxTs, entries[i].MinTs, newest)
	}
	key := ar.folder + ref.Name()
	etag, err := ar.a.bucket.Put(ctx, key, bytes.NewReader(data), ref.Size, objectstore.Cond{IfNoneMatch: true})
	if err != nil {
		return ref, fmt.Errorf("write part %s: %w", key, err)
	}
	ref.ETag = etag
	info, err := ar.a.bucket.Head(ctx, key)
	if err != nil {
		return ref, fmt.Errorf("verify part %s: %w", key, err)
	}
	if info.Size != ref.Size || info.ETag != etag || info.CRC32C != nil && *info.CRC32C != ref.CRC {
		return ref, fmt.Errorf("verify part %s: %w", key, errDamaged)
	}
	ar.a.parts.put(ref.Nonce, p, weightOf(p))
	return ref, nil
}
