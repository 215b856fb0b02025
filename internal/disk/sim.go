package disk

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrPowerLost is what every call on a Sim returns once its power was cut.
var ErrPowerLost = errors.New("power lost")

// Sim is a file system in memory that knows what would survive a power cut. It
// keeps no promise that POSIX does not make: data that was not synced is lost,
// kept, or torn at sectors of 512 bytes in any order, with or without the growth
// of its file; names that were not synced with their folder are undone, in order
// or not. Everything random comes from the seed.
//
// A Sim is an FS. Crash returns the disk as the next start finds it.
type Sim struct {
	mu       sync.Mutex
	rng      *rand.Rand
	root     *simNode
	seq      int // orders changes of names over all folders
	dead     bool
	left     int // changes until the power goes by itself; negative: never
	changes  int
	used     int64
	capacity int64 // 0: no bound
	failOn   func(op, name string) error
	skip     string
	sites    map[string]bool
	locks    map[string]bool
	read     int64
	written  int64
}

// simNode is a file or a folder.
type simNode struct {
	dir bool
	// A file's content now and as of the last sync, and what happened between.
	data, durable []byte
	unsynced      []simWrite
	// A folder's names now and as of the last sync, and what happened between.
	names, durableNames map[string]*simNode
	renamed             []simName
}

type simWrite struct {
	off  int64
	data []byte
	size int64 // of a truncation; -1 for a write
}

// simName is one change of names in one folder; node nil removes.
type simName struct {
	seq  int
	gone string // a name that goes
	name string // a name that comes
	node *simNode
}

const simSector = 512

// NewSim returns an empty disk.
func NewSim(seed uint64) *Sim {
	return &Sim{rng: rand.New(rand.NewPCG(seed, 0x5109)), root: newSimDir(), left: -1, sites: map[string]bool{}, locks: map[string]bool{}}
}

func newSimDir() *simNode {
	return &simNode{dir: true, names: map[string]*simNode{}, durableNames: map[string]*simNode{}}
}

// CutAfter cuts the power by itself after n more changes: writes, syncs, renames
// and the like.
func (s *Sim) CutAfter(n int) { s.mu.Lock(); defer s.mu.Unlock(); s.left = n }

// Dead says that the power is gone.
func (s *Sim) Dead() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.dead }

// Changes counts the calls that CutAfter counts.
func (s *Sim) Changes() int { s.mu.Lock(); defer s.mu.Unlock(); return s.changes }

// SetCapacity bounds the bytes of all files; a write over it is cut short and
// fails with ENOSPC.
func (s *Sim) SetCapacity(n int64) { s.mu.Lock(); defer s.mu.Unlock(); s.capacity = n }

// FailOn makes calls fail: fn sees the operation ("open", "write", "sync",
// "datasync", "syncdir", "rename", "remove", "truncate", "read") and the name.
func (s *Sim) FailOn(fn func(op, name string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failOn = fn
}

// Skip makes the syncs of one call site do nothing and say that they did, as a
// mutant without them would. Sites names the sites seen so far.
func (s *Sim) Skip(site string) { s.mu.Lock(); defer s.mu.Unlock(); s.skip = site }

// Sites are the functions that synced something, with what they synced.
func (s *Sim) Sites() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.sites {
		all = append(all, k)
	}
	sort.Strings(all)
	return all
}

// ReadBytes and WrittenBytes count what went through files.
func (s *Sim) ReadBytes() int64    { s.mu.Lock(); defer s.mu.Unlock(); return s.read }
func (s *Sim) WrittenBytes() int64 { s.mu.Lock(); defer s.mu.Unlock(); return s.written }

// FlipBit damages one byte of a file, durably.
func (s *Sim) FlipBit(name string, off int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.find("flip", name)
	if err != nil {
		return err
	}
	n.data[off] ^= 1
	if off < int64(len(n.durable)) {
		n.durable[off] ^= 1
	}
	return nil
}

// Crash cuts the power, if it is still there, and returns the disk as it comes
// back. The old one stays dead.
func (s *Sim) Crash() *Sim {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
	c := NewSim(s.rng.Uint64())
	c.capacity, c.skip, c.sites = s.capacity, s.skip, s.sites
	// Either a journal that keeps the order of names over the whole disk, up to
	// some moment, or each change by itself.
	until, each := s.rng.IntN(s.seq+1), s.rng.IntN(2) == 0
	copies := map[*simNode]*simNode{}
	c.root = s.revive(s.root, copies, func(n simName) bool {
		if each {
			return s.rng.IntN(2) == 0
		}
		return n.seq <= until
	})
	for n := range copies {
		c.used += int64(len(copies[n].data))
	}
	return c
}

func (s *Sim) revive(n *simNode, copies map[*simNode]*simNode, survives func(simName) bool) *simNode {
	if c := copies[n]; c != nil {
		return c
	}
	if !n.dir {
		c := &simNode{data: s.settle(n)}
		c.durable = slices.Clone(c.data)
		copies[n] = c
		return c
	}
	c := newSimDir()
	copies[n] = c
	names := map[string]*simNode{}
	for k, v := range n.durableNames {
		names[k] = v
	}
	for _, r := range n.renamed {
		if survives(r) {
			r.apply(names)
		}
	}
	var order []string
	for k := range names {
		order = append(order, k)
	}
	sort.Strings(order) // the generator's draws must not depend on a map
	for _, k := range order {
		c.names[k] = s.revive(names[k], copies, survives)
		c.durableNames[k] = c.names[k]
	}
	return c
}

func (r simName) apply(names map[string]*simNode) {
	if r.gone != "" {
		delete(names, r.gone)
	}
	if r.node != nil {
		names[r.name] = r.node
	}
}

// settle decides what of a file's unsynced changes survives.
func (s *Sim) settle(n *simNode) []byte {
	mode := s.rng.IntN(4)
	if len(n.unsynced) == 0 || mode == 0 {
		return slices.Clone(n.durable)
	}
	if mode == 1 {
		return slices.Clone(n.data)
	}
	out := slices.Clone(n.durable)
	truncated := slices.ContainsFunc(n.unsynced, func(w simWrite) bool { return w.size >= 0 })
	if mode == 2 || truncated {
		// Up to some change; the last one in part.
		k := s.rng.IntN(len(n.unsynced) + 1)
		for i, w := range n.unsynced[:k] {
			if i == k-1 && w.size < 0 {
				w.data = w.data[:s.rng.IntN(len(w.data)+1)]
			}
			out = w.apply(out)
		}
		return out
	}
	// Sectors in any order, the size by itself: what was not written is zeroes.
	for _, w := range n.unsynced {
		for off := w.off; off < w.off+int64(len(w.data)); {
			end := min(off-off%simSector+simSector, w.off+int64(len(w.data)))
			if s.rng.IntN(2) == 0 {
				out = simWrite{off: off, data: w.data[off-w.off : end-w.off], size: -1}.apply(out)
			}
			off = end
		}
	}
	if grown := int64(len(n.data)) - int64(len(out)); grown > 0 && s.rng.IntN(2) == 0 {
		out = append(out, make([]byte, s.rng.Int64N(grown+1))...)
	}
	return out
}

func (w simWrite) apply(b []byte) []byte {
	if w.size >= 0 {
		if int64(len(b)) > w.size {
			return b[:w.size]
		}
		return append(b, make([]byte, w.size-int64(len(b)))...)
	}
	if end := w.off + int64(len(w.data)); end > int64(len(b)) {
		b = append(b, make([]byte, end-int64(len(b)))...)
	}
	copy(b[w.off:], w.data)
	return b
}

// begin is the start of every call. change says that it alters the disk.
func (s *Sim) begin(op, name string, change bool) error {
	if s.dead {
		return &os.PathError{Op: op, Path: name, Err: ErrPowerLost}
	}
	if change {
		s.changes++
		if s.left == 0 {
			s.dead = true
			return &os.PathError{Op: op, Path: name, Err: ErrPowerLost}
		}
		if s.left > 0 {
			s.left--
		}
	}
	if s.failOn != nil {
		if err := s.failOn(op, name); err != nil {
			return &os.PathError{Op: op, Path: name, Err: err}
		}
	}
	return nil
}

func split(name string) []string {
	name = strings.Trim(filepath.Clean(name), "/")
	if name == "" || name == "." {
		return nil
	}
	return strings.Split(name, "/")
}

func (s *Sim) find(op, name string) (*simNode, error) {
	n := s.root
	for _, part := range split(name) {
		if !n.dir || n.names[part] == nil {
			return nil, &os.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
		n = n.names[part]
	}
	return n, nil
}

func (s *Sim) parent(op, name string) (dir *simNode, base string, err error) {
	if dir, err = s.find(op, filepath.Dir(name)); err != nil {
		return nil, "", err
	}
	if !dir.dir {
		return nil, "", &os.PathError{Op: op, Path: name, Err: syscall.ENOTDIR}
	}
	return dir, filepath.Base(name), nil
}

func (s *Sim) change(dir *simNode, r simName) {
	s.seq++
	r.seq = s.seq
	dir.renamed = append(dir.renamed, r)
	r.apply(dir.names)
}

// OpenFile is FS's.
func (s *Sim) OpenFile(name string, flag int, _ fs.FileMode) (File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.begin("open", name, flag&(os.O_CREATE|os.O_TRUNC) != 0); err != nil {
		return nil, err
	}
	dir, base, err := s.parent("open", name)
	if err != nil {
		return nil, err
	}
	n := dir.names[base]
	switch {
	case n == nil && flag&os.O_CREATE == 0:
		return nil, &os.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case n == nil:
		n = &simNode{}
		s.change(dir, simName{name: base, node: n})
	case n.dir:
		return nil, &os.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
	case flag&os.O_EXCL != 0:
		return nil, &os.PathError{Op: "open", Path: name, Err: fs.ErrExist}
	case flag&os.O_TRUNC != 0 && len(n.data) > 0:
		s.truncate(n, 0)
	}
	return &simFile{s: s, n: n, name: name}, nil
}

// MkdirAll is FS's.
func (s *Sim) MkdirAll(name string, _ fs.FileMode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.begin("mkdir", name, true); err != nil {
		return err
	}
	n := s.root
	for _, part := range split(name) {
		next := n.names[part]
		if next == nil {
			next = newSimDir()
			s.change(n, simName{name: part, node: next})
		}
		if !next.dir {
			return &os.PathError{Op: "mkdir", Path: name, Err: syscall.ENOTDIR}
		}
		n = next
	}
	return nil
}

// Remove is FS's.
func (s *Sim) Remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.begin("remove", name, true); err != nil {
		return err
	}
	dir, base, err := s.parent("remove", name)
	if err != nil {
		return err
	}
	n := dir.names[base]
	if n == nil {
		return &os.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	if n.dir && len(n.names) > 0 {
		return &os.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
	}
	s.used -= int64(len(n.data))
	s.change(dir, simName{gone: base})
	return nil
}

// RemoveAll is FS's.
func (s *Sim) RemoveAll(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.begin("remove", name, true); err != nil {
		return err
	}
	dir, base, err := s.parent("remove", name)
	if err != nil || dir.names[base] == nil {
		return nil
	}
	s.removeTree(dir, base)
	return nil
}

func (s *Sim) removeTree(dir *simNode, base string) {
	n := dir.names[base]
	for k := range n.names {
		s.removeTree(n, k)
	}
	s.used -= int64(len(n.data))
	s.change(dir, simName{gone: base})
}

// Rename is FS's. Both names are in one folder.
func (s *Sim) Rename(oldname, newname string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.begin("rename", newname, true); err != nil {
		return err
	}
	dir, from, err := s.parent("rename", oldname)
	if err != nil {
		return err
	}
	to, base, err := s.parent("rename", newname)
	if err != nil {
		return err
	}
	n := dir.names[from]
	if n == nil {
		return &os.PathError{Op: "rename", Path: oldname, Err: fs.ErrNotExist}
	}
	if old := to.names[base]; old != nil {
		s.used -= int64(len(old.data))
	}
	if dir != to {
		s.change(to, simName{name: base, node: n})
		s.change(dir, simName{gone: from})
		return nil
	}
	s.change(dir, simName{gone: from, name: base, node: n})
	return nil
}

// ReadDir is FS's.
func (s *Sim) ReadDir(name string) ([]fs.DirEntry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.begin("readdir", name, false); err != nil {
		return nil, err
	}
	n, err := s.find("open", name)
	if err != nil {
		return nil, err
	}
	var out []fs.DirEntry
	for k, v := range n.names {
		out = append(out, fs.FileInfoToDirEntry(simInfo{k, v.dir, int64(len(v.data))}))
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name() < out[j].Name() })
	return out, nil
}

// Stat is FS's.
func (s *Sim) Stat(name string) (fs.FileInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.begin("stat", name, false); err != nil {
		return nil, err
	}
	n, err := s.find("stat", name)
	if err != nil {
		return nil, err
	}
	return simInfo{filepath.Base(name), n.dir, int64(len(n.data))}, nil
}

// SyncDir is FS's.
func (s *Sim) SyncDir(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.begin("syncdir", name, true); err != nil {
		return err
	}
	n, err := s.find("syncdir", name)
	if err != nil {
		return err
	}
	if s.skipped("syncdir", "") {
		return nil
	}
	for _, r := range n.renamed {
		r.apply(n.durableNames)
	}
	n.renamed = nil
	return nil
}

// skipped notes the site of a sync and says whether it is the mutant's.
func (s *Sim) skipped(op, name string) bool {
	site := ""
	var pcs [12]uintptr
	for frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])]); ; {
		f, more := frames.Next()
		fn := f.Function[strings.LastIndex(f.Function, "/")+1:]
		switch {
		case strings.HasPrefix(fn, "disk.(*Sim)"), strings.HasPrefix(fn, "disk.(*simFile)"):
			// the call itself
		case strings.HasPrefix(fn, "disk."):
			site += fn + " < "
		default:
			site += fn + ":" + strconv.Itoa(f.Line)
			more = false
		}
		if !more {
			break
		}
	}
	site = op + filepath.Ext(name) + " by " + site
	s.sites[site] = true
	return site == s.skip
}

// Space is FS's.
func (s *Sim) Space(string) (free, total int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.capacity == 0 {
		return 1 << 40, 1 << 40, nil
	}
	return max(s.capacity-s.used, 0), s.capacity, nil
}

type simLock struct {
	s    *Sim
	name string
}

func (l *simLock) Close() error {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	delete(l.s.locks, l.name)
	return nil
}

// Lock is FS's.
func (s *Sim) Lock(name string) (io.Closer, error) {
	f, err := s.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	f.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locks[name] {
		return nil, ErrLocked
	}
	s.locks[name] = true
	return &simLock{s, name}, nil
}

type simInfo struct {
	name string
	dir  bool
	size int64
}

func (i simInfo) Name() string       { return i.name }
func (i simInfo) Size() int64        { return i.size }
func (i simInfo) ModTime() time.Time { return time.Time{} }
func (i simInfo) IsDir() bool        { return i.dir }
func (i simInfo) Sys() any           { return nil }
func (i simInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o755
	}
	return 0o644
}

type simFile struct {
	s      *Sim
	n      *simNode
	name   string
	closed bool
}

func (f *simFile) begin(op string, change bool) error {
	if f.closed {
		return &os.PathError{Op: op, Path: f.name, Err: fs.ErrClosed}
	}
	return f.s.begin(op, f.name, change)
}

func (f *simFile) Name() string        { return f.name }
func (f *simFile) Fd() (uintptr, bool) { return 0, false }

func (f *simFile) Close() error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if f.closed {
		return &os.PathError{Op: "close", Path: f.name, Err: fs.ErrClosed}
	}
	f.closed = true
	return nil
}

func (f *simFile) Size() (int64, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	return int64(len(f.n.data)), f.begin("stat", false)
}

func (f *simFile) ReadAt(p []byte, off int64) (int, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.begin("read", false); err != nil {
		return 0, err
	}
	if off >= int64(len(f.n.data)) {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	n := copy(p, f.n.data[off:])
	f.s.read += int64(n)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *simFile) WriteAt(p []byte, off int64) (int, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	err := f.begin("write", true)
	if errors.Is(err, ErrPowerLost) && f.s.left == 0 && len(p) > 0 {
		// The power goes in the middle of it.
		f.n.write(f.s, slices.Clone(p[:f.s.rng.IntN(len(p)+1)]), off)
	}
	if err != nil {
		return 0, err
	}
	if c := f.s.capacity; c > 0 {
		grow := off + int64(len(p)) - int64(len(f.n.data))
		if free := c - f.s.used; grow > free {
			fit := max(int64(len(p))-(grow-max(free, 0)), 0)
			f.n.write(f.s, slices.Clone(p[:fit]), off)
			return int(fit), &os.PathError{Op: "write", Path: f.name, Err: syscall.ENOSPC}
		}
	}
	f.n.write(f.s, slices.Clone(p), off)
	return len(p), nil
}

func (n *simNode) write(s *Sim, p []byte, off int64) {
	if len(p) == 0 {
		return
	}
	before := len(n.data)
	w := simWrite{off: off, data: p, size: -1}
	n.data = w.apply(n.data)
	n.unsynced = append(n.unsynced, w)
	s.used += int64(len(n.data) - before)
	s.written += int64(len(p))
}

func (f *simFile) Truncate(size int64) error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.begin("truncate", true); err != nil {
		return err
	}
	f.s.truncate(f.n, size)
	return nil
}

func (s *Sim) truncate(n *simNode, size int64) {
	before := len(n.data)
	w := simWrite{size: size}
	n.data = slices.Clone(w.apply(n.data))
	n.unsynced = append(n.unsynced, w)
	s.used += int64(len(n.data) - before)
}

func (f *simFile) Sync() error { return f.sync("sync") }

func (f *simFile) Datasync() error { return f.sync("datasync") }

func (f *simFile) sync(op string) error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.begin(op, true); err != nil {
		return err
	}
	if f.s.skipped(op, f.name) {
		return nil
	}
	f.n.durable = slices.Clone(f.n.data)
	f.n.unsynced = nil
	return nil
}
