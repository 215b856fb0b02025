package broker

import (
	"container/list"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"
)

const (
	// smallFrame and mediumFrame part requests by their length. Small ones
	// (heartbeats, metadata, offsets, fetches) may use the last byte of the
	// account, medium ones (a batch of the default max.message.bytes) all but the
	// part kept for small ones. What is larger shares a part of its own.
	smallFrame  = 64 << 10
	mediumFrame = 2 << 20
	// pressureLook is how often somebody who waits for memory looks for peers
	// that hold some and have stalled for pressureStall.
	pressureLook = 500 * time.Millisecond
	// tellStep is how many bytes in mappings matter to the heap's limit.
	tellStep      = 4 << 20
	pressureStall = 5 * time.Second
)

// Memory is the one account of what requests and answers hold in this process.
// A request is charged before its bytes are read and pays until it is answered;
// what finds no room waits, in turn, and its connection is not read meanwhile.
//
//	used <= total                     small requests, and answers
//	used <= total - total/16          medium requests
//	large <= total * 13/16            requests of more than 2 MiB
//
// Small and medium requests are charged in full when their length is known.
// Large ones are charged step by step as their bytes arrive, from a common part,
// until that is used up. Then they queue for a reservation of all they still
// lack, from a part that is kept for this: so whoever has begun can end, and
// nobody holds memory while waiting for others who do the same. While a large
// request queues, medium ones keep to total/8, so that it has its turn.
//
// Answers are charged once they are encoded, which is too late to wait: they may
// carry the account above its total, and then requests wait until it is below. The
// same holds for produced batches while they are opened, which share a quarter of
// the total among themselves (see opened.go).
//
// A nil Memory grants everything.
type Memory struct {
	total     int64
	mediumEnd int64 // used may rise to this for medium requests
	largeEnd  int64 // common + kept
	keptEnd   int64
	openedEnd int64 // what opened batches may hold
	opened    *semaphore.Weighted
	// mapped is told how many bytes of large requests lie outside Go's heap.
	mapped func(int64)
	// reclaim is asked to free bytes by ending who holds some and has stalled:
	// large requests for large ones, anybody for the others.
	reclaim atomic.Pointer[func(large, other int64)]
	now     func() time.Time

	waiting atomic.Int64 // how many wait
	waits   prometheus.Counter
	waited  prometheus.Counter

	// mu guards what follows. Nothing blocks while it is held.
	mu           sync.Mutex
	used         int64 // all of it, what is reserved included
	medium       int64 // by medium requests
	common, kept int64 // by large requests
	queues       [queueCount]list.List
	turn         int // the queue of large requests that is next
	looked       time.Time

	// telling is held while mapped is called, which may wait for the garbage
	// collector. It comes before mu.
	telling sync.Mutex
	told    int64
	outside atomic.Int64 // bytes in mappings
}

// The queues: small, medium, and large up to 8 MiB, up to 32 MiB and above, which
// take turns.
const (
	queueSmall = iota
	queueMedium
	queueLarge
	queueCount = queueLarge + 3
)

// charge is what one request has of a Memory.
type charge struct {
	m      *Memory
	size   int64 // of the whole request
	queue  int
	got    int64 // charged
	kept   int64 // of got, from the part kept for reservations
	mapped int64 // bytes that came into its mapping, as far as m knows
}

type memoryWaiter struct {
	c     charge // as it is when ready is closed
	step  int64
	ready chan struct{}
}

// MemoryConfig is what a Memory is made of.
type MemoryConfig struct {
	// Total is what requests and answers may hold; required.
	Total int64
	// MaxRequest is the largest request that should have room; 0 is 100 MiB.
	MaxRequest int64
	// Mapped, when not nil, is told how much of it lies outside Go's heap, so that
	// the heap's limit can make room.
	Mapped     func(bytes int64)
	Now        func() time.Time // required
	Registerer prometheus.Registerer
}

// NewMemory returns an account.
func NewMemory(cfg MemoryConfig) *Memory {
	if cfg.MaxRequest == 0 {
		cfg.MaxRequest = 100 << 20
	}
	m := &Memory{
		total: cfg.Total, mediumEnd: cfg.Total - cfg.Total/16, largeEnd: cfg.Total / 16 * 13,
		mapped: cfg.Mapped, now: cfg.Now,
		waits:  prometheus.NewCounter(prometheus.CounterOpts{Name: "firn_kafka_memory_waits_total", Help: "Requests that waited for memory."}),
		waited: prometheus.NewCounter(prometheus.CounterOpts{Name: "firn_kafka_memory_wait_seconds_total", Help: "Time that requests waited for memory."}),
	}
	m.openedEnd = max(cfg.Total/4, minOpened)
	m.opened = semaphore.NewWeighted(m.openedEnd)
	m.keptEnd = min(m.largeEnd, max(cfg.MaxRequest, m.largeEnd/2))
	if reg := cfg.Registerer; reg != nil {
		gauge := func(name, help string, f func() float64) {
			reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
		}
		gauge("firn_kafka_memory_bytes", "Memory that requests and answers hold or have reserved.", func() float64 { return float64(m.inUse()) })
		gauge("firn_kafka_memory_limit_bytes", "Memory that requests and answers may hold: a share of --memory-limit.", func() float64 { return float64(m.total) })
		gauge("firn_kafka_memory_waiting", "Requests that wait for memory now; their connections are not read.", func() float64 { return float64(m.waiting.Load()) })
		reg.MustRegister(m.waits, m.waited)
	}
	return m
}

func (m *Memory) inUse() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used
}

// largest is the largest request that has room at all.
func (m *Memory) largest() int64 {
	if m == nil {
		return 1 << 62
	}
	return max(m.keptEnd, mediumFrame)
}

// begin is the charge of a request of size bytes, of which nothing is charged yet.
// A request that is not large is then charged in one step.
func (m *Memory) begin(size int64) charge {
	c := charge{m: m, size: size}
	switch {
	case size <= smallFrame:
		c.queue = queueSmall
	case size <= mediumFrame:
		c.queue = queueMedium
	case size <= 8<<20:
		c.queue = queueLarge
	case size <= 32<<20:
		c.queue = queueLarge + 1
	default:
		c.queue = queueLarge + 2
	}
	return c
}

func (c *charge) large() bool { return c.queue >= queueLarge }

// try charges step bytes, or all that a large request lacks, if there is room and
// it is nobody's turn before. c.got says how far the request may go.
func (c *charge) try(step int64) bool {
	m := c.m
	if m == nil {
		c.got += step
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	behind := m.queues[c.queue].Len() > 0
	if c.large() {
		// The part that is kept goes in turn; what is common is there for all.
		behind = m.largeWaitsLocked() && !m.commonLocked(c, step)
	}
	return !behind && m.fitsLocked(c, step)
}

// take is try that waits for its turn until ctx ends.
func (c *charge) take(ctx context.Context, step int64) error {
	if c.try(step) {
		return nil
	}
	m := c.m
	// A copy waits, so that a charge which does not stays off the heap.
	w := &memoryWaiter{c: *c, step: step, ready: make(chan struct{})}
	m.mu.Lock()
	el := m.queues[c.queue].PushBack(w)
	m.grantLocked() // there may be room by now
	m.mu.Unlock()
	m.waiting.Add(1)
	m.waits.Inc()
	begun := m.now()
	look := time.NewTimer(pressureLook)
	defer func() {
		look.Stop()
		m.waiting.Add(-1)
		m.waited.Add(max(0, m.now().Sub(begun).Seconds()))
	}()
	for {
		select {
		case <-w.ready:
			*c = w.c
			return nil
		case <-look.C:
			m.look()
			look.Reset(pressureLook)
		case <-ctx.Done():
			m.mu.Lock()
			defer m.mu.Unlock()
			select {
			case <-w.ready: // granted at the last moment
				*c = w.c
				return nil
			default:
			}
			m.queues[c.queue].Remove(el)
			m.grantLocked() // it may have been in the way
			return ctx.Err()
		}
	}
}

// look asks for what is wanted to be taken from those who have stalled.
func (m *Memory) look() {
	m.mu.Lock()
	now := m.now()
	var large, other int64
	for i := range m.queues {
		for el := m.queues[i].Front(); el != nil; el = el.Next() {
			w := el.Value.(*memoryWaiter)
			if w.c.large() {
				large += w.c.size - w.c.got
			} else {
				other += w.step
			}
		}
	}
	due := large+other > 0 && now.Sub(m.looked) >= pressureLook/2
	if due {
		m.looked = now
	}
	m.mu.Unlock()
	if f := m.reclaim.Load(); due && f != nil {
		(*f)(large, other)
	}
}

// fitsLocked charges c with step bytes, or with all that it lacks, if there is
// room.
func (m *Memory) fitsLocked(c *charge, step int64) bool {
	switch {
	case c.queue == queueSmall:
		if m.used+step > m.total && m.used > 0 {
			return false
		}
	case c.queue == queueMedium:
		if m.used+step > m.mediumEnd && m.used > 0 || m.largeWaitsLocked() && m.medium > 0 && m.medium+step > m.total/8 {
			return false
		}
		m.medium += step
	case m.commonLocked(c, step):
		m.common += step
	default:
		lacking := c.size - c.got
		if m.kept+lacking > m.keptEnd || m.used+lacking > m.total && m.used > 0 {
			return false
		}
		m.kept += lacking
		c.kept += lacking
		step = lacking
	}
	c.got += step
	m.used += step
	return true
}

// commonLocked says whether a large request may take a step from the common part.
func (m *Memory) commonLocked(c *charge, step int64) bool {
	return c.large() && m.common+step <= m.largeEnd-m.keptEnd && m.used+step <= m.total
}

func (m *Memory) largeWaitsLocked() bool {
	for i := queueLarge; i < queueCount; i++ {
		if m.queues[i].Len() > 0 {
			return true
		}
	}
	return false
}

// grantLocked serves who waits: small ones first, then medium ones, then the large
// ones by turns. The first of a queue is never passed by the others in it, nor the
// queue whose turn it is by the next one, but for a step from the common part.
func (m *Memory) grantLocked() {
	for i := range queueLarge {
		for m.queues[i].Len() > 0 && m.grantFirstLocked(i) {
		}
	}
	const large = queueCount - queueLarge
	for empty := 0; empty < large; m.turn = (m.turn + 1) % large {
		switch {
		case m.queues[queueLarge+m.turn].Len() == 0:
			empty++
		case m.grantFirstLocked(queueLarge + m.turn):
			empty = 0
		default:
			for i := queueLarge; i < queueCount; i++ {
				for el := m.queues[i].Front(); el != nil; el = m.queues[i].Front() {
					if w := el.Value.(*memoryWaiter); !m.commonLocked(&w.c, w.step) {
						break
					}
					m.grantFirstLocked(i)
				}
			}
			return
		}
	}
}

func (m *Memory) grantFirstLocked(i int) bool {
	el := m.queues[i].Front()
	w := el.Value.(*memoryWaiter)
	if !m.fitsLocked(&w.c, w.step) {
		return false
	}
	m.queues[i].Remove(el)
	close(w.ready)
	return true
}

// release gives back all that c has. It may be called twice.
func (c *charge) release() {
	m := c.m
	if m == nil || c.got == 0 {
		return
	}
	if c.mapped > 0 {
		m.outside.Add(-c.mapped)
		c.mapped = 0
		defer m.tell()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used -= c.got
	switch {
	case c.queue == queueMedium:
		m.medium -= c.got
	case c.large():
		m.kept -= c.kept
		m.common -= c.got - c.kept
	}
	c.got, c.kept = 0, 0
	if m.used < 0 || m.kept < 0 || m.common < 0 || m.medium < 0 {
		panic("BUG: request memory released twice")
	}
	m.grantLocked()
}

// add charges n bytes of an answer, without waiting; negative gives them back.
func (m *Memory) add(n int64) {
	if m == nil || n == 0 {
		return
	}
	m.mu.Lock()
	m.used += n
	if n < 0 {
		m.grantLocked()
	}
	m.mu.Unlock()
}

// fair is how much one connection may have in flight besides a first request: at
// most maxInFlight, and a sixteenth of what is free, so that many who ask much
// leave room for those who ask little.
func (m *Memory) fair() int64 {
	if m == nil {
		return maxInFlight
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return min(maxInFlight, max((m.total-m.used)/16, smallFrame))
}

// maps notes that n bytes of a request have come into its mapping.
func (c *charge) maps(n int64) {
	if c.m == nil || n-c.mapped < tellStep {
		return
	}
	c.m.outside.Add(n - c.mapped)
	c.mapped = n
	c.m.tell()
}

// tell passes on how much lies outside the heap, when that has changed by enough
// to matter: more at once, less when nobody is about to take it again.
func (m *Memory) tell() {
	if m.mapped == nil {
		return
	}
	m.telling.Lock()
	defer m.telling.Unlock()
	m.mu.Lock()
	next := m.largeWaitsLocked()
	m.mu.Unlock()
	now := m.outside.Load()
	if d := now - m.told; d >= 2*tellStep || !next && (d <= -2*tellStep || now == 0 && d != 0) {
		m.told = now
		m.mapped(now)
	}
}
