package localcache

import (
	"container/list"
	"sync"
)

// budget hands out bytes of memory, first come first served. A request larger
// than the whole budget is granted when everything is free, so that no chunk is
// too large to be read.
type budget struct {
	total int64

	mu      sync.Mutex
	used    int64
	waiters list.List // of *budgetWaiter
}

type budgetWaiter struct {
	n     int64
	ready chan struct{}
}

func (b *budget) clamp(n int64) int64 { return min(n, b.total) }

// try takes n bytes if they are free, leaving at least spare bytes for others.
// What it took is returned by release.
func (b *budget) try(n, spare int64) (granted int64, ok bool) {
	n = b.clamp(n)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiters.Len() > 0 || b.used+n > b.total-min(spare, b.total-n) {
		return 0, false
	}
	b.used += n
	return n, true
}

// enqueue asks for n bytes; they are there when the waiter's ready is closed, which
// may be at once. From now on budget is wanted, so whoever lets go of a chunk frees
// it.
func (b *budget) enqueue(n int64) (*budgetWaiter, *list.Element) {
	w := &budgetWaiter{n: b.clamp(n), ready: make(chan struct{})}
	b.mu.Lock()
	defer b.mu.Unlock()
	el := b.waiters.PushBack(w)
	b.grantLocked()
	return w, el
}

// leave ends a wait; false when the bytes were granted at the last moment.
func (b *budget) leave(w *budgetWaiter, el *list.Element) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-w.ready:
		return false
	default:
	}
	b.waiters.Remove(el)
	b.grantLocked()
	return true
}

// release gives n granted bytes back.
func (b *budget) release(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	if b.used < 0 {
		panic("BUG: localcache memory budget released twice")
	}
	b.grantLocked()
}

func (b *budget) grantLocked() {
	for el := b.waiters.Front(); el != nil; el = b.waiters.Front() {
		w := el.Value.(*budgetWaiter)
		if b.used+w.n > b.total {
			return
		}
		b.used += w.n
		b.waiters.Remove(el)
		close(w.ready)
	}
}

func (b *budget) inUse() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

func (b *budget) free() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.total - b.used
}

// wanted says whether somebody waits for memory.
func (b *budget) wanted() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiters.Len() > 0
}
