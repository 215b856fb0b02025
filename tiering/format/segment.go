package format

import (
	"fmt"
	"hash/crc32"

	"github.com/firnlog/firn/record"
)

// ChunkBytes is how large a chunk gets before the next batch starts another one.
const ChunkBytes = 4 << 20

// Table builds the chunk table of an object whose chunks are stored verbatim,
// from its batches in order. It checks what it is given: a batch with a bad CRC
// is never uploaded (SAFETY 8).
type Table struct {
	footer Footer
	sum    uint32 // CRC-32C of all batches
	next   int64  // offset that the next batch must have, -1 at first
}

// NewTable returns an empty table.
func NewTable() *Table {
	t := &Table{next: -1}
	t.footer.MinTs, t.footer.MaxTs = noTs, noTs
	return t
}

// Add appends one batch.
func (t *Table) Add(b record.Batch) error {
	if err := b.CheckCRC(); err != nil {
		return fmt.Errorf("batch at offset %d: %w", b.BaseOffset(), err)
	}
	if t.next >= 0 && b.BaseOffset() != t.next {
		return fmt.Errorf("%w: batch at offset %d where %d belongs", ErrCorrupt, b.BaseOffset(), t.next)
	}
	f := &t.footer
	if t.next < 0 {
		f.Base = b.BaseOffset()
	}
	t.next = b.NextOffset()
	f.End = t.next
	n := int64(len(b))
	if len(f.Chunks) == 0 || f.Chunks[len(f.Chunks)-1].Len+n > ChunkBytes {
		f.Chunks = append(f.Chunks, Chunk{Base: b.BaseOffset(), MaxTs: noTs, Pos: f.Bytes})
	}
	c := &f.Chunks[len(f.Chunks)-1]
	c.Len += n
	c.Size += n
	c.CRC = crc32.Update(c.CRC, castagnoli, b)
	c.MaxTs = max(c.MaxTs, b.MaxTimestamp())
	t.sum = crc32.Update(t.sum, castagnoli, b)
	f.Bytes += n
	f.Batches++
	f.Records += int64(b.Count())
	// The base timestamp is the first record's, not the least; it is what a
	// listing shows, no decision rests on it.
	f.MinTs, f.MaxTs = WidenTs(f.MinTs, f.MaxTs, b.BaseTimestamp(), b.MaxTimestamp())
	return nil
}

// Footer is what was gathered so far, to be completed by the caller.
func (t *Table) Footer() *Footer { return &t.footer }

// Finish encodes the footer with its trailer and returns it with the CRC-32C of
// the whole object.
func (t *Table) Finish() (tail []byte, sum uint32) {
	tail = EncodeFooter(&t.footer)
	return tail, crc32.Update(t.sum, castagnoli, tail)
}

// Entry is the object as a manifest names it; nonce, ETag and whole CRC are the
// caller's.
func (f *Footer) Entry(tail int) Entry {
	e := Entry{
		Base: f.Base, End: f.End, Epoch: f.Epoch, Size: f.payload() + int64(tail), Bytes: f.Bytes,
		Records: f.Records, Batches: f.Batches, MinTs: f.MinTs, MaxTs: f.MaxTs, Codec: f.Codec,
	}
	if len(f.Aborted) <= MaxAborted {
		e.Aborted = f.Aborted
	} else {
		e.AbortedInFooter = true
	}
	return e
}

func (f *Footer) payload() int64 {
	c := f.Chunks[len(f.Chunks)-1]
	return c.Pos + c.Len
}

// ChunkAt is the index of the chunk that holds offset, which lies in [Base, End).
func (f *Footer) ChunkAt(offset int64) int {
	lo, hi := 0, len(f.Chunks)
	for lo+1 < hi {
		if mid := (lo + hi) / 2; f.Chunks[mid].Base <= offset {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}

// CheckChunk says whether stored are the bytes of chunk i.
func (f *Footer) CheckChunk(i int, stored []byte) error {
	c := f.Chunks[i]
	if int64(len(stored)) != c.Len || crc32.Checksum(stored, castagnoli) != c.CRC {
		return fmt.Errorf("%w: chunk %d of [%d, %d) does not match its checksum", ErrCorrupt, i, f.Base, f.End)
	}
	return nil
}
