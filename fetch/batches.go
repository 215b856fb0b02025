package fetch

import (
	"encoding/binary"
	"fmt"
	"io"
	"sort"

	"github.com/firnlog/firn/record"
)

// batchIndex says where batches begin in a chunk: one entry for about every
// 16 KiB, so that finding an offset reads one small window of it.
type batchIndex struct {
	entries []batchAt
	size    int64 // of the chunk
	end     int64 // offset after its last record
}

type batchAt struct {
	base int64 // base offset
	pos  int64 // within the chunk
}

// indexStep is the least distance of two entries, and the window of a search.
const indexStep = 16 << 10

// batchHead is what a walk needs of a batch's header.
type batchHead struct {
	base, last int64 // first and last offset
	pos, size  int64 // within the chunk
}

// headBytes is how much of a batch a walk reads: up to its last offset delta.
const headBytes = 27

// walk visits the batches from pos to the chunk's end, until visit returns
// false. window is the caller's scratch space.
func walk(r io.ReaderAt, size, pos int64, window []byte, visit func(batchHead) bool) error {
	var have []byte // the bytes of the chunk from at on
	at := pos
	for pos < size {
		if pos < at || pos+headBytes > at+int64(len(have)) {
			n, err := r.ReadAt(window[:min(int64(len(window)), size-pos)], pos)
			if n < headBytes {
				if err == nil || err == io.EOF {
					err = fmt.Errorf("%w: %d bytes after the last batch", errBadChunk, n)
				}
				return err
			}
			have, at = window[:n], pos
		}
		p := have[pos-at:]
		n, err := record.SizeOf(p)
		if err != nil || pos+int64(n) > size {
			return fmt.Errorf("%w: batch at %d of %d", errBadChunk, pos, size)
		}
		base := int64(binary.BigEndian.Uint64(p))
		delta := int32(binary.BigEndian.Uint32(p[23:]))
		h := batchHead{base: base, last: base + int64(delta), pos: pos, size: int64(n)}
		if base < 0 || delta < 0 || h.last < base {
			return fmt.Errorf("%w: batch at %d says offsets %d to %d", errBadChunk, pos, base, h.last)
		}
		if !visit(h) {
			return nil
		}
		pos += int64(n)
	}
	return nil
}

// indexBatches reads a whole chunk, which begins at base, and refuses one whose
// batches do not follow each other to its very end.
func indexBatches(r io.ReaderAt, size, base int64) (*batchIndex, error) {
	x := &batchIndex{size: size, end: base}
	window := make([]byte, 64<<10)
	bad := false
	err := walk(r, size, 0, window, func(h batchHead) bool {
		if h.base < x.end {
			bad = true
			return false
		}
		if n := len(x.entries); n == 0 || h.pos-x.entries[n-1].pos >= indexStep {
			x.entries = append(x.entries, batchAt{h.base, h.pos})
		}
		x.end = h.last + 1
		return true
	})
	if err == nil && bad {
		err = fmt.Errorf("%w: offsets go back", errBadChunk)
	}
	if err != nil {
		return nil, err
	}
	return x, nil
}

// find returns the position of the batch that holds offset, or of the first one
// after it; the chunk's size when all are before it.
func (x *batchIndex) find(r io.ReaderAt, offset int64, window []byte) (int64, error) {
	if offset >= x.end {
		return x.size, nil
	}
	i := sort.Search(len(x.entries), func(i int) bool { return x.entries[i].base > offset })
	from := int64(0)
	if i > 0 {
		from = x.entries[i-1].pos
	}
	found := x.size
	err := walk(r, x.size, from, window, func(h batchHead) bool {
		if h.last < offset {
			return true
		}
		found = h.pos
		return false
	})
	return found, err
}

// cut returns how many bytes of whole batches from pos fit into max and lie
// below limit, and the offset after them. With minOne a first batch of any size
// fits.
func (x *batchIndex) cut(r io.ReaderAt, pos, max, limit int64, minOne bool, window []byte) (n, end int64, err error) {
	if x.size-pos <= max && x.end <= limit {
		return x.size - pos, x.end, nil
	}
	from := pos
	// Every batch before an entry that begins within max and below limit is in.
	i := sort.Search(len(x.entries), func(i int) bool {
		return x.entries[i].pos > pos+max || x.entries[i].base > limit
	})
	if i > 0 && x.entries[i-1].pos > pos {
		from = x.entries[i-1].pos
		n, end = from-pos, x.entries[i-1].base
	}
	err = walk(r, x.size, from, window, func(h batchHead) bool {
		first := h.pos == pos
		if h.last >= limit || (h.pos+h.size-pos > max && !(first && minOne)) {
			return false
		}
		n, end = h.pos+h.size-pos, h.last+1
		return true
	})
	return n, end, err
}
