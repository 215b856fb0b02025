package localcache

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/firnlog/firn/internal/disk"
)

// ErrClosed means the cache was closed.
var ErrClosed = errors.New("cache is closed")

// Config is what a Cache is made of. Zero fields take the stated default.
type Config struct {
	FS  disk.FS // the disk; required
	Dir string  // the cache's own folder, created when missing; required

	MaxBytes   int64 // bytes of chunk files on disk; default 1 GiB
	MaxObjects int   // chunks on disk; default 100,000

	// MemoryBytes bounds fills in flight together with the chunks that the disk
	// refused; default 64 MiB. A fill that finds it used up waits.
	MemoryBytes int64

	FillTimeout time.Duration // deadline of one fill; default 60 s
	PinFor      time.Duration // how long an unread chunk is kept for its first reader; default 30 s
	SaveEvery   time.Duration // how often the index file is written when it changed; default 1 min
	DiskRetry   time.Duration // how long a failing disk is left alone; default 5 s

	Now        func() time.Time // required
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

func (cfg *Config) setDefaults() error {
	if cfg.FS == nil || cfg.Dir == "" || cfg.Now == nil {
		return errors.New("localcache: FS, Dir and Now are required")
	}
	def := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	span := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&cfg.MaxBytes, 1<<30)
	def(&cfg.MemoryBytes, 64<<20)
	if cfg.MaxObjects <= 0 {
		cfg.MaxObjects = 100_000
	}
	span(&cfg.FillTimeout, time.Minute)
	span(&cfg.PinFor, 30*time.Second)
	span(&cfg.SaveEvery, time.Minute)
	span(&cfg.DiskRetry, 5*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Cache holds chunks. Safe for concurrent use.
type Cache struct {
	cfg     Config
	log     *slog.Logger
	metrics metrics
	mem     budget
	nonce   atomic.Uint32 // of the last chunk file written

	ctx  context.Context // of all fills and the janitor; ends in Close
	stop context.CancelFunc
	wg   sync.WaitGroup

	// mu guards everything below it and the marked fields of entries. It is
	// never held across I/O.
	mu         sync.Mutex
	entries    map[id]*entry
	flights    map[id]*flight
	queue      *fifo
	max        int64     // byte budget on disk
	reserved   int64     // bytes of files being written
	writing    int       // files being written
	dead       int64     // bytes of dropped files that a reader still holds open
	pinned     list.List // of unread *entry, the oldest pin first
	unread     int64     // their bytes
	memory     list.List // of *entry that live in memory, oldest first
	diskOffTil time.Time // no writes before it: the disk refused one
	changed    bool      // since the index was saved
	closed     bool
}

// entry is one chunk.
type entry struct {
	name fileName
	size int64 // of the file, or of the bytes in memory

	// io is held while the file is opened, verified and closed.
	io   sync.Mutex
	file disk.File // guarded by io; open while there are references
	head header    // guarded by io; known once verified

	// guarded by Cache.mu
	verified    bool // its bytes were written, or checked whole, by this process
	refs        int
	gone        bool // dropped: not in the map any more
	read        bool // somebody read it, or the pin has lapsed
	pinnedUntil time.Time
	pin         *list.Element // in Cache.pinned, while unread
	halfUntil   time.Time     // a reader is inside it: evict others first
	queue       uint8
	freq        uint8
	elem        *list.Element // in its queue
	mem         []byte        // its bytes, when the disk refused them
	charge      int64         // of the memory budget, for mem
	memElem     *list.Element
}

// New opens the cache in cfg.Dir. It fails only on a Config that cannot be: a
// folder that cannot be used gives a cache that lives in memory.
func New(cfg Config) (*Cache, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	c := &Cache{
		cfg: cfg, log: cfg.Logger, max: cfg.MaxBytes, mem: budget{total: cfg.MemoryBytes},
		entries: make(map[id]*entry), flights: make(map[id]*flight), queue: newFIFO(),
	}
	c.metrics = newMetrics(cfg.Registerer, c)
	c.ctx, c.stop = context.WithCancel(context.Background())
	if err := cfg.FS.MkdirAll(cfg.Dir, 0o755); err != nil {
		c.log.Warn("cannot create the cache's folder: chunks stay in memory", "event", "cache_disk_failed", "error", err)
	} else {
		c.load()
		c.SetMaxBytes(cfg.MaxBytes)
	}
	c.wg.Go(c.janitor)
	return c, nil
}

// janitor saves the index now and then.
func (c *Cache) janitor() {
	t := time.NewTicker(c.cfg.SaveEvery)
	defer t.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-t.C:
			c.mu.Lock()
			c.lapseLocked()
			changed := c.changed
			c.mu.Unlock()
			if changed {
				c.save()
			}
		}
	}
}

// Close ends all fills, waits for them and saves the index. Handles that are out
// stay readable. It may be called twice.
func (c *Cache) Close() error {
	c.mu.Lock()
	was := c.closed
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.wg.Wait()
	if !was {
		c.save()
	}
	return nil
}

// SetMaxBytes changes the byte budget on disk and evicts what is over it at
// once; what readers hold or wait for goes when they let go. A disk that fills
// up takes the cache's room first.
func (c *Cache) SetMaxBytes(n int64) {
	c.mu.Lock()
	c.max = n
	gone, _ := c.makeRoomLocked(0, 0)
	c.mu.Unlock()
	c.remove(gone)
}

// Stats is a snapshot of the cache.
type Stats struct {
	Bytes       int64 // of chunk files on disk
	Objects     int   // chunks on disk
	UnreadBytes int64 // pinned for a first reader
	MemoryBytes int64 // fills in flight and chunks the disk refused
}

// Stats returns a snapshot.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{Bytes: c.usedLocked(), Objects: c.queue.len(), UnreadBytes: c.unread, MemoryBytes: c.mem.inUse()}
}

func (c *Cache) usedLocked() int64 { return c.queue.bytes() + c.reserved + c.dead }

// Handle is a reference to one chunk. Its bytes do not change and do not go
// before Release.
type Handle struct {
	c        *Cache
	e        *entry
	k        Key
	file     disk.File
	pos      int64
	size     int64
	mem      []byte
	released atomic.Bool
}

// Len is the chunk's length.
func (h *Handle) Len() int64 { return h.size }

// File is the region of a file that holds the chunk; ok is false when the chunk
// is in memory. The file stays open until Release.
func (h *Handle) File() (f disk.File, pos int64, ok bool) { return h.file, h.pos, h.file != nil }

// Bytes is the chunk when it is in memory, otherwise nil. Nobody may write to it.
func (h *Handle) Bytes() []byte { return h.mem }

// ReadAt reads from the chunk as io.ReaderAt does.
func (h *Handle) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > h.size {
		return 0, fmt.Errorf("read at %d of a chunk of %d bytes", off, h.size)
	}
	short := int64(len(p)) > h.size-off
	if short {
		p = p[:h.size-off]
	}
	var n int
	var err error
	if h.file == nil {
		n = copy(p, h.mem[off:])
	} else if n, err = h.file.ReadAt(p, h.pos+off); n == len(p) {
		err = nil
	}
	if err == nil && short {
		err = io.EOF
	}
	return n, err
}

// Retain returns a second reference to the same chunk.
func (h *Handle) Retain() *Handle {
	h.c.mu.Lock()
	defer h.c.mu.Unlock()
	if h.e.refs <= 0 {
		panic("BUG: Retain of a released cache handle")
	}
	h.e.refs++
	return &Handle{c: h.c, e: h.e, k: h.k, file: h.file, pos: h.pos, size: h.size, mem: h.mem}
}

// Drained says that the reader has consumed the chunk to its end: from now on it
// is evicted like any other. Without it a chunk that was read in part is spared
// for a while, because its reader is coming back for the rest.
func (h *Handle) Drained() {
	h.c.mu.Lock()
	h.e.halfUntil = time.Time{}
	h.c.mu.Unlock()
}

// Discard says that the chunk cannot be used, and why: its file stopped reading, or
// its bytes are not what they were. It is forgotten, and filled anew for the next who
// asks; a disk that gives such bytes is left alone for a while, so the new ones stay in
// memory. The handle is released as always.
func (h *Handle) Discard(why error) {
	h.c.log.Warn("dropped a cached chunk that cannot be used; it is fetched again", "event", "cache_chunk_dropped",
		"object", h.k.Object, "chunk", h.k.Chunk, "error", why)
	if h.file != nil {
		h.c.metrics.corrupt.Inc()
		h.c.diskFailed(why)
	}
	h.c.drop(h.e)
}

// Release gives the reference back. Only the first call counts.
func (h *Handle) Release() {
	if !h.released.Swap(true) {
		h.c.unref(h.e)
	}
}

// Lookup returns the chunk if it can be had without waiting: it is here, and its
// bytes have been verified since the start. size is the length the caller
// expects. again says that the same reader goes on within a chunk it has already
// touched, which makes the chunk no hotter.
func (c *Cache) Lookup(k Key, size int64, again bool) (*Handle, bool) {
	h := c.open(k, size, again, false)
	if h != nil {
		c.metrics.hits.Inc()
	}
	return h, h != nil
}

// open takes a reference to a chunk that is here, for a reader, or returns nil.
// Only with verify it may read a whole file to check it.
func (c *Cache) open(k Key, size int64, again, verify bool) *Handle {
	h := c.take(k, size, verify)
	if h != nil {
		c.mu.Lock()
		c.touchLocked(h.e, again)
		c.mu.Unlock()
	}
	return h
}

// keep pins a chunk that is here, verified, for its next reader.
func (c *Cache) keep(r Request) bool {
	h := c.take(r.Key, r.Size, true)
	if h == nil {
		return false
	}
	c.mu.Lock()
	if e := h.e; e.read && !e.gone {
		e.read = false
		c.pinLocked(e)
	}
	c.mu.Unlock()
	h.Release()
	return true
}

// take takes a reference to a chunk that is here, or returns nil.
func (c *Cache) take(k Key, size int64, verify bool) *Handle {
	c.mu.Lock()
	e := c.entries[k.id()]
	if e == nil || c.closed || (!e.verified && !verify) {
		c.mu.Unlock()
		return nil
	}
	e.refs++
	if e.mem != nil {
		h := &Handle{c: c, e: e, k: k, mem: e.mem, size: int64(len(e.mem))}
		c.mu.Unlock()
		if h.size != size {
			c.drop(e)
			h.Release()
			return nil
		}
		return h
	}
	c.mu.Unlock()
	h, err := c.openFileOf(e, k, size)
	if err != nil {
		if errors.Is(err, errCorrupt) {
			c.metrics.corrupt.Inc()
		}
		c.log.Warn("dropped a cached chunk that cannot be used; it is fetched again", "event", "cache_chunk_dropped",
			"object", k.Object, "chunk", k.Chunk, "error", err)
		c.drop(e)
		c.unref(e)
		return nil
	}
	return h
}

// openFileOf opens e's file, and checks it whole when this process has not yet, and
// at least its length when it has. The caller holds a reference.
func (c *Cache) openFileOf(e *entry, k Key, size int64) (*Handle, error) {
	e.io.Lock()
	defer e.io.Unlock()
	opened := e.file == nil
	if opened {
		f, err := c.openFile(e.name)
		if err != nil {
			return nil, err
		}
		e.file = f
	}
	c.mu.Lock()
	verified := e.verified
	c.mu.Unlock()
	switch {
	case verified && opened:
		size, err := e.file.Size()
		if err == nil && size != e.head.size+e.head.payload {
			err = fmt.Errorf("%w: %d bytes instead of %d", errCorrupt, size, e.head.size+e.head.payload)
		}
		if err != nil {
			return nil, err
		}
	case !verified:
		buf := buffers.get(256 << 10)
		h, err := verifyFile(e.file, k, buf)
		buffers.put(buf)
		if err != nil {
			return nil, err
		}
		e.head = h
		c.mu.Lock()
		e.verified = true
		c.mu.Unlock()
	}
	if e.head.key != k || e.head.payload != size {
		return nil, fmt.Errorf("%w: %d bytes of %v", errCorrupt, e.head.payload, e.head.key)
	}
	return &Handle{c: c, e: e, k: k, file: e.file, pos: e.head.size, size: e.head.payload}, nil
}

// touchLocked notes a read. The first one is what the chunk was brought for;
// each later one by a new reader makes it hotter.
func (c *Cache) touchLocked(e *entry, again bool) {
	if !e.read {
		c.unpinLocked(e)
	} else if !again && e.freq < maxFreq {
		e.freq++
	}
	e.halfUntil = c.cfg.Now().Add(c.cfg.PinFor)
}

func (c *Cache) unref(e *entry) {
	e.io.Lock()
	defer e.io.Unlock()
	c.mu.Lock()
	e.refs--
	if e.refs < 0 {
		panic("BUG: cache entry released more often than taken")
	}
	var f disk.File
	drop := false
	if e.refs == 0 {
		f, e.file = e.file, nil
		switch {
		case e.gone && e.mem != nil:
			c.freeMemoryLocked(e)
		case e.gone:
			c.dead -= e.size
		case e.mem != nil:
			drop = e.read && c.mem.wanted()
		}
	}
	c.mu.Unlock()
	if f != nil {
		f.Close()
	}
	if drop {
		c.drop(e)
	}
}

// drop forgets a chunk. Readers that have it keep it.
func (c *Cache) drop(e *entry) {
	c.mu.Lock()
	if e.gone || c.entries[e.name.id] != e {
		c.mu.Unlock()
		return
	}
	c.forgetLocked(e)
	file := e.mem == nil
	if e.refs > 0 && file {
		c.dead += e.size
	}
	if e.refs == 0 && !file {
		c.freeMemoryLocked(e)
	}
	c.mu.Unlock()
	if file {
		c.unlink(e.name)
	}
}

// forgetLocked takes e out of the map and of every list.
func (c *Cache) forgetLocked(e *entry) {
	delete(c.entries, e.name.id)
	c.queue.remove(e)
	c.unpinLocked(e)
	if e.memElem != nil {
		c.memory.Remove(e.memElem)
		e.memElem = nil
	}
	e.gone = true
	c.changed = true
}

func (c *Cache) freeMemoryLocked(e *entry) {
	c.mem.release(e.charge)
	e.charge, e.mem = 0, nil
}

// remove deletes the files of chunks that were evicted.
func (c *Cache) remove(gone []*entry) {
	for _, e := range gone {
		c.metrics.evictions.Inc()
		c.unlink(e.name)
	}
}
