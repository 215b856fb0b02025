package localcache

import "time"

// makeRoomLocked evicts until size more bytes and objects more chunks fit, and
// returns what it evicted: the caller removes those files once it has let go of
// mu, before it writes. ok is false when what is left is being read or awaited.
func (c *Cache) makeRoomLocked(size int64, objects int) (gone []*entry, ok bool) {
	if size > c.max {
		return nil, false
	}
	c.lapseLocked()
	for c.usedLocked()+size > c.max || c.queue.len()+c.writing+objects > c.cfg.MaxObjects {
		e := c.victimLocked()
		if e == nil {
			return gone, false
		}
		gone = append(gone, e)
	}
	return gone, true
}

// freeLocked evicts at least size bytes though the budget would not ask for it:
// the disk is fuller than we thought.
func (c *Cache) freeLocked(size int64) (gone []*entry) {
	c.lapseLocked()
	for size > 0 {
		e := c.victimLocked()
		if e == nil {
			break
		}
		size -= e.size
		gone = append(gone, e)
	}
	return gone
}

// victimLocked evicts one chunk that nobody holds or waits for, and if possible
// none that a reader is in the middle of.
func (c *Cache) victimLocked() *entry {
	now := c.cfg.Now()
	free := func(e *entry) bool { return e.refs == 0 && e.read }
	e := c.queue.victim(c.max, free, func(e *entry) bool { return free(e) && !now.Before(e.halfUntil) })
	if e != nil {
		c.forgetLocked(e)
	}
	return e
}

// pinLocked keeps e for its first reader.
func (c *Cache) pinLocked(e *entry) {
	e.pinnedUntil = c.cfg.Now().Add(c.cfg.PinFor)
	e.pin = c.pinned.PushBack(e)
	c.unread += e.size
}

// unpinLocked ends the wait for a first reader.
func (c *Cache) unpinLocked(e *entry) {
	e.read = true
	if e.pin != nil {
		c.pinned.Remove(e.pin)
		e.pin = nil
		c.unread -= e.size
	}
}

// lapseLocked ends the pins whose time is up.
func (c *Cache) lapseLocked() {
	now := c.cfg.Now()
	for el := c.pinned.Front(); el != nil; el = c.pinned.Front() {
		e := el.Value.(*entry)
		if now.Before(e.pinnedUntil) {
			return
		}
		c.unpinLocked(e)
	}
}

// reclaim drops chunks in memory that nobody reads or waits for until n bytes are
// free, those that a reader is in the middle of last. It returns how long until it is
// worth another look: when the next pin lapses, and no later than PinFor from now,
// because a fill may end meanwhile as a pinned chunk that nobody comes for.
func (c *Cache) reclaim(n int64) (next time.Duration) {
	next = c.cfg.PinFor
	c.mu.Lock()
	c.lapseLocked()
	now := c.cfg.Now()
	var drop, half []*entry
	for el := c.memory.Front(); el != nil; el = el.Next() {
		e := el.Value.(*entry)
		switch {
		case e.refs > 0:
		case !e.read:
			next = min(next, max(e.pinnedUntil.Sub(now), time.Millisecond))
		case now.Before(e.halfUntil):
			half = append(half, e)
		default:
			drop = append(drop, e)
		}
	}
	c.mu.Unlock()
	for _, e := range append(drop, half...) {
		if c.mem.free() >= n {
			break
		}
		c.dropIdle(e)
	}
	return next
}

// dropIdle drops a chunk unless somebody has taken it meanwhile.
func (c *Cache) dropIdle(e *entry) {
	c.mu.Lock()
	idle := e.refs == 0 && !e.gone
	if idle {
		c.forgetLocked(e)
		if e.mem != nil {
			c.freeMemoryLocked(e)
		}
	}
	c.mu.Unlock()
}
