package fetch

import (
	"container/list"
	"sync"

	"github.com/firnlog/firn/localcache"
)

// Read-ahead follows offsets, not objects: a reader that goes on where it left
// off gets one chunk in front of it, across the ends of objects. Each time it comes
// before its chunk has, the window doubles, up to maxAhead: so a fast reader of a
// distant store gets deep read-ahead, and a slow one does not fill the network with
// bursts that others feel. What it may take is bounded by free cache memory, never
// at the cost of a reader that waits.
const (
	maxAhead = 16
	// maxPlanners bounds the goroutines that look for the chunks ahead.
	maxPlanners = 32
	maxStreams  = 8192
)

// stream is one sequential reader: a client that is expected at an offset.
type stream struct {
	key    streamKey
	last   localcache.Key // the chunk it read last
	window int            // chunks to keep in front of it; 0 until it proves sequential
	known  bool           // it has come back once
	waited bool           // for the chunk it is about to enter
	to     int64          // read-ahead has been asked for below this offset
	busy   bool           // a planner works for it
	elem   *list.Element
}

type streamKey struct {
	client string
	part   partID
	next   int64
}

// enter notes that the reader is in chunk k now.
func (st *stream) enter(k localcache.Key) {
	switch {
	case !st.known:
	case st.window == 0:
		st.window = 1
	case st.last != k && st.waited:
		st.window = min(2*st.window, maxAhead)
	}
	if st.last != k {
		st.waited = false
	}
	st.last = k
}

// streams are the sequential readers seen lately. A stream belongs to the serve
// that took it until it is put back.
type streams struct {
	mu  sync.Mutex
	m   map[streamKey]*stream
	lru list.List // oldest first
}

func newStreams() *streams { return &streams{m: make(map[streamKey]*stream)} }

// take returns the stream expected at offset, or a new one.
func (s *streams) take(client string, p partID, offset int64) *stream {
	k := streamKey{client, p, offset}
	s.mu.Lock()
	defer s.mu.Unlock()
	st, ok := s.m[k]
	if !ok {
		return &stream{key: k}
	}
	delete(s.m, k)
	s.lru.Remove(st.elem)
	st.known = true
	return st
}

// late notes that the stream expected at offset came before its records.
func (s *streams) late(client string, p partID, offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st, ok := s.m[streamKey{client, p, offset}]; ok {
		st.waited = true
	}
}

// order is a piece of read-ahead to plan.
type order struct {
	st     *stream
	next   int64 // where the reader is
	to     int64 // what has been asked for already
	window int
}

// put expects the stream at next, and says what to read ahead for it: nothing
// while a planner is still at it. After put the stream is not the caller's.
func (s *streams) put(st *stream, next int64) (o order, plan bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.key.next = next
	if old, ok := s.m[st.key]; ok {
		s.lru.Remove(old.elem)
	}
	s.m[st.key] = st
	st.elem = s.lru.PushBack(st)
	for s.lru.Len() > maxStreams {
		old := s.lru.Front().Value.(*stream)
		delete(s.m, old.key)
		s.lru.Remove(old.elem)
	}
	if st.busy || st.window == 0 {
		return order{}, false
	}
	st.busy = true
	return order{st, next, st.to, st.window}, true
}

// planned ends a planner's work: chunks below to are under way.
func (s *streams) planned(st *stream, to int64) {
	s.mu.Lock()
	st.busy = false
	st.to = max(st.to, to)
	s.mu.Unlock()
}

// readAhead sees to it that the chunks of o are on their way.
func (c *coldReader) readAhead(o order, p partition, epoch int32) {
	stop := p.localStart()
	select {
	case c.planners <- struct{}{}:
	default:
		c.streams.planned(o.st, 0)
		return
	}
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.wg.Add(1)
	}
	c.mu.Unlock()
	if closed {
		<-c.planners
		return
	}
	a := p.archive()
	go func() {
		defer c.wg.Done()
		defer func() { <-c.planners }()
		to, next := c.plan(a, p.id(), epoch, o, stop)
		c.streams.planned(o.st, to)
		if next < stop {
			// The window will cross into that object: have its chunk table by then.
			_, _ = c.layoutAt(c.ctx, a, p.id(), epoch, next)
		}
	}()
}

// plan starts the fills of the window's chunks that are not yet under way and
// below stop. It returns the offset up to which they are, and the end of the
// last object it looked at. Chunks go in pairs,
// because one GET for two costs less than two; a lone one waits for its
// neighbour unless the window is narrow.
func (c *coldReader) plan(a archive, p partID, epoch int32, o order, stop int64) (to, last int64) {
	next := o.next
	to = o.to
	if next >= stop {
		return to, stop
	}
	l, err := c.layoutAt(c.ctx, a, p, epoch, next)
	if err != nil {
		return to, stop
	}
	i := l.at(next)
	if l.chunks[i].base < next { // the reader is inside this one
		i++
	}
	type run struct {
		l     *layout
		first int
		reqs  []localcache.Request
		end   int64 // offset after it
	}
	var runs []run
	stored, wanted, ended := int64(0), 0, false
	for range o.window {
		if i == len(l.chunks) {
			if l.end >= stop {
				ended = true
				break
			}
			following, err := c.layoutAt(c.ctx, a, p, epoch, l.end)
			if err != nil {
				ended = true
				break
			}
			l, i = following, 0
		}
		ch := l.chunks[i]
		if ch.base >= stop {
			ended = true
			break
		}
		end := l.end
		if i+1 < len(l.chunks) {
			end = l.chunks[i+1].base
		}
		if ch.base >= to {
			wanted++
			if n := len(runs); n > 0 && runs[n-1].l == l && runs[n-1].first+len(runs[n-1].reqs) == i && stored+ch.len <= c.coalesce {
				runs[n-1].reqs = append(runs[n-1].reqs, l.request(i))
				runs[n-1].end = end
				stored += ch.len
			} else {
				runs = append(runs, run{l, i, []localcache.Request{l.request(i)}, end})
				stored = ch.len
			}
		}
		i++
	}
	if wanted == 1 && !ended && o.window >= 4 && to > next {
		return to, l.end
	}
	for _, r := range runs {
		if c.cache.Ahead(r.reqs, c.fill(r.l, r.first)) < len(r.reqs) {
			return to, l.end
		}
		to = r.end
	}
	return to, l.end
}
