package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sort"
	"sync"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/record"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// indexEntry says that the batch at byte pos begins with offset, and that no
// record before pos in this segment is newer than maxTs.
type indexEntry struct {
	offset, pos, maxTs int64
}

// index is a segment's sparse index. That of the active segment grows with it;
// that of a sealed one is loaded when first needed and can always be rebuilt by
// walking the batch headers.
type index struct {
	mu       sync.RWMutex
	entries  []indexEntry
	prefix   int64 // bytes at the front that have no entries yet
	interval int64
	nextPos  int64 // position from which on the next batch gets an entry
}

// add notes a batch, in order of position.
func (x *index) add(offset, pos, maxTsBefore int64) {
	if pos < x.nextPos {
		return
	}
	x.mu.Lock()
	x.entries = append(x.entries, indexEntry{offset, pos, maxTsBefore})
	x.mu.Unlock()
	x.nextPos = pos + x.interval
}

// byOffset is the position of an entry at or before offset.
func (x *index) byOffset(offset int64) int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	i := sort.Search(len(x.entries), func(i int) bool { return x.entries[i].offset > offset })
	if i == 0 {
		return 0
	}
	return x.entries[i-1].pos
}

// byPos is the position of the last entry at or before pos.
func (x *index) byPos(pos int64) int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	i := sort.Search(len(x.entries), func(i int) bool { return x.entries[i].pos > pos })
	if i == 0 {
		return 0
	}
	return x.entries[i-1].pos
}

// byTime is a position before which every record is older than ts.
func (x *index) byTime(ts int64) int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	i := sort.Search(len(x.entries), func(i int) bool { return x.entries[i].maxTs >= ts })
	if i == 0 {
		return 0
	}
	return x.entries[i-1].pos
}

// Index file: a header of indexHeaderSize bytes, entries of 24 bytes, aborted
// transactions of 32 bytes, CRC-32C of everything after the header. All numbers
// are big endian. docs/FORMATS.md has the fields.
const (
	indexMagic      = "FIDX"
	indexMajor      = 1
	indexMinor      = 0
	indexHeaderSize = 76
	maxIndexBytes   = 64 << 20
)

type indexHeader struct {
	base, end, size    int64
	maxTs, maxTsOffset int64
	firstAppend        int64
	entries, aborted   uint32
}

func (h indexHeader) encode() []byte {
	b := make([]byte, 0, indexHeaderSize)
	b = append(b, indexMagic...)
	b = binary.BigEndian.AppendUint16(b, indexMajor)
	b = binary.BigEndian.AppendUint16(b, indexMinor)
	for _, v := range []int64{h.base, h.end, h.size, h.maxTs, h.maxTsOffset, h.firstAppend} {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	b = binary.BigEndian.AppendUint32(b, h.entries)
	b = binary.BigEndian.AppendUint32(b, h.aborted)
	b = binary.BigEndian.AppendUint32(b, 0) // reserved
	b = binary.BigEndian.AppendUint32(b, 0) // reserved
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// errIndex means the file is no use and is made again from the log.
var errIndex = errors.New("index is missing or torn")

func decodeIndexHeader(b []byte) (h indexHeader, err error) {
	if len(b) < indexHeaderSize || string(b[:4]) != indexMagic {
		return h, errIndex
	}
	if crc32.Checksum(b[:indexHeaderSize-4], castagnoli) != binary.BigEndian.Uint32(b[indexHeaderSize-4:]) {
		return h, errIndex
	}
	if major := binary.BigEndian.Uint16(b[4:]); major != indexMajor {
		return h, fmt.Errorf("index format %d is not one this build reads (%d): start a newer firn", major, indexMajor)
	}
	for i, p := range []*int64{&h.base, &h.end, &h.size, &h.maxTs, &h.maxTsOffset, &h.firstAppend} {
		*p = int64(binary.BigEndian.Uint64(b[8+8*i:]))
	}
	h.entries, h.aborted = binary.BigEndian.Uint32(b[56:]), binary.BigEndian.Uint32(b[60:])
	if h.base < 0 || h.end < h.base || h.size < 0 || int64(h.entries) > maxIndexBytes/24 || int64(h.aborted) > maxIndexBytes/32 {
		return h, errIndex
	}
	return h, nil
}

func encodeIndex(h indexHeader, entries []indexEntry, aborted []AbortedTxn) []byte {
	h.entries, h.aborted = uint32(len(entries)), uint32(len(aborted))
	b := h.encode()
	for _, e := range entries {
		b = binary.BigEndian.AppendUint64(b, uint64(e.offset))
		b = binary.BigEndian.AppendUint64(b, uint64(e.pos))
		b = binary.BigEndian.AppendUint64(b, uint64(e.maxTs))
	}
	for _, a := range aborted {
		b = appendAborted(b, a)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[indexHeaderSize:], castagnoli))
}

func decodeIndex(b []byte) (h indexHeader, entries []indexEntry, aborted []AbortedTxn, err error) {
	if h, err = decodeIndexHeader(b); err != nil {
		return h, nil, nil, err
	}
	body := b[indexHeaderSize:]
	want := int(h.entries)*24 + int(h.aborted)*abortedSize + 4
	if len(body) != want || crc32.Checksum(body[:want-4], castagnoli) != binary.BigEndian.Uint32(body[want-4:]) {
		return h, nil, nil, errIndex
	}
	entries = make([]indexEntry, h.entries)
	for i := range entries {
		p := body[24*i:]
		entries[i] = indexEntry{int64(binary.BigEndian.Uint64(p)), int64(binary.BigEndian.Uint64(p[8:])), int64(binary.BigEndian.Uint64(p[16:]))}
		if e := entries[i]; e.offset < h.base || e.offset >= h.end || e.pos < 0 || e.pos >= h.size ||
			i > 0 && (e.pos <= entries[i-1].pos || e.offset <= entries[i-1].offset) {
			return h, nil, nil, errIndex
		}
	}
	body = body[24*len(entries):]
	aborted = make([]AbortedTxn, h.aborted)
	for i := range aborted {
		aborted[i] = decodeAborted(body[abortedSize*i:])
	}
	return h, entries, aborted, nil
}

// writeIndex stores the index of a sealed segment. It is no more than a saving of
// work at the next start, so it is not synced.
func (s *segment) writeIndex(aborted []AbortedTxn) error {
	s.idx.mu.RLock()
	raw := encodeIndex(indexHeader{
		base: s.base, end: s.end.Load(), size: s.size.Load(), maxTs: s.maxTs.Load(),
		maxTsOffset: s.maxTsOffset.Load(), firstAppend: s.firstAppend.Load(),
	}, s.idx.entries, aborted)
	s.idx.mu.RUnlock()
	f, err := s.fs.OpenFile(filepath.Join(s.dir, indexName(s.base)), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(raw, 0)
	return errors.Join(err, f.Close())
}

// readIndexHeader is what Open needs of a sealed segment; it reads a few bytes.
func (s *segment) readIndexHeader() (indexHeader, error) {
	f, err := s.fs.OpenFile(filepath.Join(s.dir, indexName(s.base)), os.O_RDONLY, 0)
	if err != nil {
		return indexHeader{}, errIndex
	}
	defer f.Close()
	var b [indexHeaderSize]byte
	if _, err := f.ReadAt(b[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return indexHeader{}, errIndex
	}
	return decodeIndexHeader(b[:])
}

// ensureIndex makes the index cover the segment from its first byte: a segment
// that was there when the log was opened is indexed when first needed.
func (s *segment) ensureIndex() error {
	s.idx.mu.RLock()
	covered := s.idx.prefix == 0
	s.idx.mu.RUnlock()
	if covered {
		return nil
	}
	s.idx.mu.Lock()
	defer s.idx.mu.Unlock()
	if s.idx.prefix == 0 {
		return nil
	}
	raw, err := disk.ReadFile(s.fs, filepath.Join(s.dir, indexName(s.base)), maxIndexBytes)
	if err == nil {
		h, entries, _, derr := decodeIndex(raw)
		if derr == nil && h.base == s.base && h.size == s.idx.prefix {
			s.idx.entries, s.idx.prefix = append(entries, s.idx.entries...), 0
			return nil
		}
	}
	// Missing, torn, stale or of another build: walk the headers.
	file, err := s.files.acquire(s)
	if err != nil {
		return err
	}
	defer s.files.release(s)
	fresh := index{interval: s.idx.interval}
	maxTs := int64(-1)
	err = walkHeaders(file, 0, s.idx.prefix, func(pos int64, h batchHeader) error {
		fresh.add(h.base, pos, maxTs)
		maxTs = max(maxTs, h.maxTs)
		return nil
	})
	if err != nil {
		return fmt.Errorf("rebuild index of %s: %w", s.path(), err)
	}
	s.idx.entries, s.idx.prefix = append(fresh.entries, s.idx.entries...), 0
	return nil
}

// batchHeader is what a walk over a file sees of each batch.
type batchHeader struct {
	base, next int64
	size       int64
	epoch      int32
	maxTs      int64
	raw        []byte // the header's record.HeaderSize bytes, valid during the call
}

// walkHeaders calls fn for each batch that lies whole in [pos, limit) of f, in
// windows that are small where batches are small. It does not read the records.
func walkHeaders(f disk.File, pos, limit int64, fn func(pos int64, h batchHeader) error) error {
	buf := walkBuffers.Get().(*[]byte)
	defer walkBuffers.Put(buf)
	win := (*buf)[:0]
	winPos := pos
	for pos < limit {
		if pos+record.HeaderSize > limit {
			return fmt.Errorf("%w: %d bytes at %d are less than a header", ErrDamaged, limit-pos, pos)
		}
		if off := pos - winPos; off < 0 || off+record.HeaderSize > int64(len(win)) {
			n := min(int64(cap(*buf)), limit-pos)
			win = (*buf)[:n]
			if _, err := f.ReadAt(win, pos); err != nil {
				return err
			}
			winPos = pos
		}
		head := win[pos-winPos:][:record.HeaderSize]
		h, err := parseHeader(head)
		if err != nil || pos+h.size > limit {
			return fmt.Errorf("%w: bad batch header at %d", ErrDamaged, pos)
		}
		if err := fn(pos, h); err != nil {
			return err
		}
		pos += h.size
	}
	return nil
}

var walkBuffers = sync.Pool{New: func() any { b := make([]byte, 16<<10); return &b }}

func parseHeader(head []byte) (batchHeader, error) {
	size, err := record.SizeOf(head)
	if err != nil {
		return batchHeader{}, err
	}
	b := record.Batch(head[:record.HeaderSize])
	h := batchHeader{base: b.BaseOffset(), next: b.NextOffset(), size: int64(size), epoch: b.LeaderEpoch(), maxTs: b.MaxTimestamp(), raw: head}
	if h.base < 0 || h.next <= h.base || head[16] != 2 {
		return batchHeader{}, record.ErrCorrupt
	}
	return h, nil
}
