package localcache

import (
	"context"
	"errors"
	"hash/crc32"
	"math/bits"
	"sync"
	"syscall"
	"time"
)

// Request names a chunk and its length.
type Request struct {
	Key  Key
	Size int64
}

// Fill brings the bytes of the chunks reqs[from:to], one behind the other, into
// p. An error is an error for all of them: none enters the cache. The fill has
// checked its bytes against the checksums it knows.
type Fill func(ctx context.Context, from, to int, p []byte) error

var errUnreadable = errors.New("a chunk just written cannot be read")

// flight is a fill under way.
type flight struct {
	done chan struct{} // closed when err is set and the chunk, if any, is in the map
	err  error
}

// Get returns the chunk, filling it when it is missing. Only the wait ends with
// ctx, never the fill. Errors are those of the fill, or ctx's.
func (c *Cache) Get(ctx context.Context, k Key, size int64, fill func(ctx context.Context, p []byte) error) (*Handle, error) {
	return c.GetRun(ctx, []Request{{k, size}}, false, func(ctx context.Context, _, _ int, p []byte) error { return fill(ctx, p) })
}

// GetRun returns the first chunk of reqs and sees to it that the others are
// here or on their way: each run of missing neighbours is one call of fill.
func (c *Cache) GetRun(ctx context.Context, reqs []Request, again bool, fill Fill) (*Handle, error) {
	first := reqs[0]
	if h := c.open(first.Key, first.Size, again, true); h != nil {
		c.metrics.hits.Inc()
		c.start(reqs[1:], true, func(ctx context.Context, from, to int, p []byte) error { return fill(ctx, from+1, to+1, p) })
		return h, nil
	}
	c.metrics.misses.Inc()
	for {
		flights, _ := c.start(reqs, false, fill)
		if flights == nil {
			return nil, ErrClosed
		}
		if f := flights[0]; f != nil {
			select {
			case <-f.done:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			if f.err != nil {
				return nil, f.err
			}
		}
		if h := c.open(first.Key, first.Size, again, true); h != nil {
			return h, nil
		}
		// It went between the fill and now: its pin had lapsed, or its file
		// cannot be read. A disk like that is left alone for a while, so the
		// next round stays in memory.
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c.diskFailed(errUnreadable)
	}
}

// Ensure returns once the first chunk of reqs is here, verified and pinned for a
// reader, and the others are here or on their way. It reads for nobody: Lookup
// is the first read. Errors are as for Get.
func (c *Cache) Ensure(ctx context.Context, reqs []Request, fill Fill) error {
	first := reqs[0]
	if c.keep(first) {
		c.start(reqs[1:], true, func(ctx context.Context, from, to int, p []byte) error { return fill(ctx, from+1, to+1, p) })
		return nil
	}
	c.metrics.misses.Inc()
	for {
		flights, _ := c.start(reqs, false, fill)
		if flights == nil {
			return ErrClosed
		}
		if f := flights[0]; f != nil {
			select {
			case <-f.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			if f.err != nil {
				return f.err
			}
		}
		if c.keep(first) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		c.diskFailed(errUnreadable)
	}
}

// Has says whether the chunk can be had without waiting. It reads nothing.
func (c *Cache) Has(k Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[k.id()]
	return e != nil && e.verified && !c.closed
}

// Ahead starts to fill what is missing of reqs if memory for it is free and the
// chunks read ahead and still unread leave room for it. It returns how many of
// reqs, from the first, are here or on their way.
func (c *Cache) Ahead(reqs []Request, fill Fill) int {
	_, n := c.start(reqs, true, fill)
	return n
}

// start makes sure that reqs are here or in flight. It returns a flight for each
// that is not here yet; nil when the cache is closed. ahead takes only memory
// that is free, and stops where there is none.
func (c *Cache) start(reqs []Request, ahead bool, fill Fill) (flights []*flight, started int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, 0
	}
	c.lapseLocked()
	flights = make([]*flight, len(reqs))
	for i := 0; i < len(reqs); {
		if fl, here := c.stateLocked(reqs[i]); here || fl != nil {
			flights[i] = fl
			i++
			continue
		}
		from, size := i, int64(0)
		for ; i < len(reqs); i++ {
			if fl, here := c.stateLocked(reqs[i]); here || fl != nil {
				break
			}
			size += reqs[i].Size
		}
		var granted int64
		if ahead {
			if c.unread+size > c.max/4 && c.unread+size > c.cfg.MemoryBytes/2 {
				return flights, from
			}
			var ok bool
			if granted, ok = c.mem.try(size, c.cfg.MemoryBytes/4); !ok {
				return flights, from
			}
		}
		fl := &flight{done: make(chan struct{})}
		for j := from; j < i; j++ {
			flights[j] = fl
			c.flights[reqs[j].Key.id()] = fl
		}
		run, to := reqs[from:i:i], i
		c.wg.Go(func() {
			c.fly(fl, run, granted, size, func(ctx context.Context, p []byte) error { return fill(ctx, from, to, p) })
		})
	}
	return flights, len(reqs)
}

func (c *Cache) stateLocked(r Request) (fl *flight, here bool) {
	i := r.Key.id()
	if c.entries[i] != nil {
		return nil, true
	}
	return c.flights[i], false
}

// fly is one fill, from memory for it to its chunks on disk.
func (c *Cache) fly(fl *flight, reqs []Request, granted, size int64, fill func(ctx context.Context, p []byte) error) {
	ctx, cancel := context.WithTimeout(c.ctx, c.cfg.FillTimeout)
	defer cancel()
	kept := int64(0)
	err := func() (err error) {
		if granted == 0 {
			if granted, err = c.acquireMemory(ctx, size); err != nil {
				return err
			}
		}
		buf := buffers.get(size)
		defer buffers.put(buf)
		if err := fill(ctx, buf); err != nil {
			return err
		}
		c.metrics.filled.Add(float64(size))
		rest := buf
		for _, r := range reqs {
			kept += c.store(r, rest[:r.Size:r.Size], granted-kept)
			rest = rest[r.Size:]
		}
		return nil
	}()
	c.mu.Lock()
	for _, r := range reqs {
		delete(c.flights, r.Key.id())
	}
	c.mu.Unlock()
	c.mem.release(granted - kept)
	fl.err = err
	close(fl.done)
}

// acquireMemory waits for memory, taking it from chunks in memory that nobody
// needs.
func (c *Cache) acquireMemory(ctx context.Context, n int64) (int64, error) {
	if granted, ok := c.mem.try(n, 0); ok {
		return granted, nil
	}
	// In the queue first: a chunk that is let go from here on is freed by who lets
	// go of it, one that was let go before by reclaim. Only pins end by the clock,
	// those too that begin while we wait.
	w, el := c.mem.enqueue(n)
	for {
		t := time.NewTimer(c.reclaim(w.n))
		select {
		case <-w.ready:
			t.Stop()
			return w.n, nil
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			if c.mem.leave(w, el) {
				return 0, ctx.Err()
			}
			return w.n, nil
		}
	}
}

// store puts a chunk on disk, or in memory when the disk does not take it, and
// returns how much of the memory grant the chunk keeps.
func (c *Cache) store(r Request, p []byte, grant int64) (kept int64) {
	head := header{key: r.Key, payload: r.Size, crc: crc32.Checksum(p, castagnoli)}
	e := &entry{name: fileName{r.Key.id(), c.nonce.Add(1)}, verified: true}
	raw, err := encodeHeader(head)
	head.size = int64(len(raw))
	e.size = head.size + r.Size
	if err == nil && c.toDisk(e, head, raw, p) {
		return 0
	}
	e.size = r.Size
	e.mem = append([]byte(nil), p...)
	kept = min(r.Size, grant)
	e.charge = kept
	c.mu.Lock()
	c.entries[e.name.id] = e
	e.memElem = c.memory.PushBack(e)
	c.pinLocked(e)
	c.mu.Unlock()
	return kept
}

// toDisk writes the chunk's file if there is room and the disk is willing.
func (c *Cache) toDisk(e *entry, head header, raw, p []byte) bool {
	for try := range 2 {
		c.mu.Lock()
		if c.cfg.Now().Before(c.diskOffTil) {
			c.mu.Unlock()
			return false
		}
		gone, ok := c.makeRoomLocked(e.size, 1)
		if try > 0 { // after ENOSPC
			gone = append(gone, c.freeLocked(2*e.size)...)
		}
		if ok {
			c.reserved += e.size
			c.writing++
		}
		c.mu.Unlock()
		c.remove(gone)
		if !ok {
			return false
		}
		f, err := c.writeFile(e.name, raw, p)
		c.mu.Lock()
		c.reserved -= e.size
		c.writing--
		if err == nil {
			e.head = head
			c.entries[e.name.id] = e
			c.queue.insert(e)
			c.pinLocked(e)
			c.changed = true
		}
		c.mu.Unlock()
		if err == nil {
			f.Close()
			return true
		}
		if try == 0 && errors.Is(err, syscall.ENOSPC) {
			continue
		}
		c.diskFailed(err)
	}
	return false
}

// diskFailed leaves the disk alone for a while.
func (c *Cache) diskFailed(err error) {
	c.metrics.diskErrors.Inc()
	now := c.cfg.Now()
	c.mu.Lock()
	first := now.After(c.diskOffTil)
	c.diskOffTil = now.Add(c.cfg.DiskRetry)
	c.mu.Unlock()
	if first {
		c.log.Warn("the cache's disk refuses chunks: serving from memory", "event", "cache_disk_failed", "error", err)
	}
}

// bufferPools recycles large buffers by power-of-two class, so that a chunk does
// not cost the zeroing of fresh pages.
type bufferPools [31]sync.Pool

var buffers bufferPools

func (b *bufferPools) get(n int64) []byte {
	if n <= 0 {
		return nil
	}
	class := bits.Len64(uint64(n - 1))
	if class >= len(b) {
		return make([]byte, n)
	}
	if p, ok := b[class].Get().(*[]byte); ok {
		return (*p)[:n]
	}
	return make([]byte, n, 1<<class)
}

func (b *bufferPools) put(p []byte) {
	class := bits.Len64(uint64(cap(p)) - 1)
	if cap(p) == 0 || class >= len(b) || cap(p) != 1<<class {
		return
	}
	p = p[:0]
	b[class].Put(&p)
}
