package localcache

import "container/list"

// fifo is S3-FIFO over bytes: new chunks enter a small queue and leave through
// it unless they were read again; those read again move to the main queue, where
// every further read buys one more round. A ghost list remembers the names of
// what left the small queue: a chunk that comes back soon goes to main at once.
//
// All of it is guarded by Cache.mu.
type fifo struct {
	small, main           list.List // of *entry, oldest first
	smallBytes, mainBytes int64

	ghost      map[id]*list.Element
	ghostOrder list.List // of id, oldest first
}

const (
	inNone = iota
	inSmall
	inMain

	maxFreq       = 3
	smallFraction = 10 // the small queue's share of the budget is one tenth
)

func newFIFO() *fifo { return &fifo{ghost: make(map[id]*list.Element)} }

func (q *fifo) bytes() int64 { return q.smallBytes + q.mainBytes }
func (q *fifo) len() int     { return q.small.Len() + q.main.Len() }

// insert queues a new chunk.
func (q *fifo) insert(e *entry) {
	if el, ok := q.ghost[e.name.id]; ok {
		q.ghostOrder.Remove(el)
		delete(q.ghost, e.name.id)
		q.pushMain(e)
		return
	}
	q.pushSmall(e)
}

func (q *fifo) pushSmall(e *entry) {
	e.queue, e.elem = inSmall, q.small.PushBack(e)
	q.smallBytes += e.size
}

func (q *fifo) pushMain(e *entry) {
	e.queue, e.elem = inMain, q.main.PushBack(e)
	q.mainBytes += e.size
}

func (q *fifo) remove(e *entry) {
	switch e.queue {
	case inSmall:
		q.small.Remove(e.elem)
		q.smallBytes -= e.size
	case inMain:
		q.main.Remove(e.elem)
		q.mainBytes -= e.size
	}
	e.queue, e.elem = inNone, nil
}

// victim takes the next chunk to evict off its queue, or returns nil when may
// allows none. Within a queue those that rather spares come last: it never makes
// the other queue pay. limit is the byte budget that the small queue's share is
// of.
func (q *fifo) victim(limit int64, may, rather func(*entry) bool) *entry {
	first, second := q.fromMain, q.fromSmall
	if q.smallBytes*smallFraction >= limit || q.main.Len() == 0 {
		first, second = q.fromSmall, q.fromMain
	}
	for _, from := range []func(func(*entry) bool) *entry{first, second} {
		for _, ok := range []func(*entry) bool{rather, may} {
			if e := from(ok); e != nil {
				return e
			}
		}
	}
	return nil
}

func (q *fifo) fromSmall(may func(*entry) bool) *entry {
	for range q.small.Len() {
		el := q.small.Front()
		e := el.Value.(*entry)
		if !may(e) {
			q.small.MoveToBack(el)
			continue
		}
		q.remove(e)
		if e.freq > 1 {
			e.freq = 0
			q.pushMain(e)
			continue
		}
		q.remember(e.name.id)
		return e
	}
	return nil
}

func (q *fifo) fromMain(may func(*entry) bool) *entry {
	for range q.main.Len() * (maxFreq + 1) {
		el := q.main.Front()
		e := el.Value.(*entry)
		if !may(e) {
			q.main.MoveToBack(el)
			continue
		}
		if e.freq > 0 {
			e.freq--
			q.main.MoveToBack(el)
			continue
		}
		q.remove(e)
		return e
	}
	return nil
}

// remember puts a name on the ghost list, which is as long as the cache has
// chunks: that is how far back a second read is recognised.
func (q *fifo) remember(i id) {
	if _, ok := q.ghost[i]; ok {
		return
	}
	q.ghost[i] = q.ghostOrder.PushBack(i)
	for q.ghostOrder.Len() > max(q.len(), 16) {
		el := q.ghostOrder.Front()
		delete(q.ghost, el.Value.(id))
		q.ghostOrder.Remove(el)
	}
}
