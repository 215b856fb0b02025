package commitlog

import (
	"container/list"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/firnlog/firn/internal/disk"
)

// segment is one .log file with what is known about it. The atomics are written
// by the appender and read by everyone; the bytes below size never change.
type segment struct {
	base  int64
	dir   string
	fs    disk.FS
	files *Files

	size        atomic.Int64
	end         atomic.Int64
	maxTs       atomic.Int64 // -1: none
	maxTsOffset atomic.Int64 // last offset of the batch that holds it
	firstAppend atomic.Int64 // unix ms, 0 while empty
	sealed      atomic.Bool
	damaged     atomic.Bool // VerifySealed found other bytes than were written

	idx index

	// handle state, guarded by files.mu.
	file    disk.File
	refs    int
	pinned  bool // active or unsynced: the descriptor must stay open
	gone    bool // deleted or closed: close when the last reader leaves
	lruElem *list.Element
}

func newSegment(l *Config, files *Files, base int64) *segment {
	s := &segment{base: base, dir: l.Dir, fs: l.FS, files: files}
	s.end.Store(base)
	s.maxTs.Store(-1)
	s.maxTsOffset.Store(-1)
	s.idx.interval = int64(l.IndexInterval)
	return s
}

func logName(base int64) string      { return fmt.Sprintf("%020d.log", base) }
func indexName(base int64) string    { return fmt.Sprintf("%020d.index", base) }
func snapshotName(base int64) string { return fmt.Sprintf("%020d.snapshot", base) }

func (s *segment) path() string { return filepath.Join(s.dir, logName(s.base)) }

func (s *segment) info() SegmentInfo {
	i := SegmentInfo{Base: s.base, End: s.end.Load(), Bytes: s.size.Load(), MaxTs: s.maxTs.Load(), Sealed: s.sealed.Load(), Damaged: s.damaged.Load()}
	if ms := s.firstAppend.Load(); ms != 0 {
		i.FirstAppend = time.UnixMilli(ms)
	}
	return i
}

func (s *segment) close() error { return s.files.drop(s) }

// Files bounds how many sealed segments of a process keep their file open. The
// active segment and those that wait for a sync always do: closing a file with
// unsynced pages can lose the error of their write-back.
type Files struct {
	mu   sync.Mutex
	max  int
	open int
	lru  *list.List // unreferenced, unpinned, open; front is newest
}

// NewFiles allows max open sealed segments.
func NewFiles(max int) *Files { return &Files{max: max, lru: list.New()} }

// acquire returns the segment's open file; release must follow.
func (f *Files) acquire(s *segment) (disk.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.gone {
		return nil, os.ErrNotExist
	}
	if s.file == nil {
		file, err := s.fs.OpenFile(s.path(), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		s.file = file
		f.open++
	}
	if s.lruElem != nil {
		f.lru.Remove(s.lruElem)
		s.lruElem = nil
	}
	s.refs++
	f.trimLocked()
	return s.file, nil
}

func (f *Files) release(s *segment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.refs--
	f.settleLocked(s)
}

// settleLocked decides what an unreferenced file becomes.
func (f *Files) settleLocked(s *segment) {
	if s.refs > 0 || s.file == nil || s.pinned {
		return
	}
	if s.gone {
		s.file.Close()
		s.file = nil
		f.open--
		return
	}
	if s.lruElem == nil {
		s.lruElem = f.lru.PushFront(s)
	}
	f.trimLocked()
}

func (f *Files) trimLocked() {
	for f.open > f.max && f.lru.Len() > 0 {
		e := f.lru.Back()
		s := f.lru.Remove(e).(*segment)
		s.lruElem = nil
		s.file.Close()
		s.file = nil
		f.open--
	}
}

// adopt gives the segment an open file and pins it.
func (f *Files) adopt(s *segment, file disk.File) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.file, s.pinned = file, true
	f.open++
}

// unpin lets the file be closed when the bound asks for it.
func (f *Files) unpin(s *segment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.pinned = false
	f.settleLocked(s)
}

// drop closes the file now or when its last reader leaves; it is not opened again.
func (f *Files) drop(s *segment) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.gone, s.pinned = true, false
	if s.lruElem != nil {
		f.lru.Remove(s.lruElem)
		s.lruElem = nil
	}
	if s.file == nil || s.refs > 0 {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	f.open--
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// Slice is a run of whole batches in a segment's file. It keeps the file open,
// and its bytes unchanged, until Release; deleting the segment meanwhile does
// not matter. The zero Slice is empty and needs no Release.
type Slice struct {
	seg  *segment
	file disk.File
	pos  int64
	n    int
	// FirstBase is the base offset of its first batch, End the offset after its
	// last record.
	FirstBase int64
	End       int64
}

// Len is its size in bytes.
func (s Slice) Len() int { return s.n }

// File is where the bytes are, for sendfile.
func (s Slice) File() (f disk.File, pos int64) { return s.file, s.pos }

// Bytes reads the slice into memory.
func (s Slice) Bytes() ([]byte, error) {
	p := make([]byte, s.n)
	return p, s.ReadInto(p)
}

// ReadInto fills p, which has Len bytes.
func (s Slice) ReadInto(p []byte) error {
	if s.n == 0 {
		return nil
	}
	if _, err := s.file.ReadAt(p[:s.n], s.pos); err != nil {
		return fmt.Errorf("read %s at %d: %w", s.seg.path(), s.pos, err)
	}
	return nil
}

// Release gives the file back. Call it once.
func (s Slice) Release() {
	if s.seg != nil {
		s.seg.files.release(s.seg)
	}
}
