package fetch

import (
	"container/list"
	"sync"
)

// slots bounds the cold reads that run at once, fairly: a freed slot goes to the
// next client in turn, not to the next request, and no client has more than half
// of them while others exist to take the rest. Queues are bounded: what does not
// fit is refused, and its consumer asks again.
type slots struct {
	total, perClient     int // running at once: in all, and for one client
	maxQueued, maxPerCli int // waiting: in all, and for one client

	mu      sync.Mutex
	running int
	queued  int
	clients map[string]*slotClient
	turn    list.List // of *slotClient that have something waiting
}

type slotClient struct {
	name    string
	running int
	waiting []func()
	elem    *list.Element
}

func newSlots(total int) *slots {
	return &slots{
		total: total, perClient: max(1, total/2), maxQueued: 64 * total, maxPerCli: 16 * total,
		clients: make(map[string]*slotClient),
	}
}

// submit calls start, now or when a slot is free, or refuses with false. start
// must not block; it ends with a call of done(client).
func (s *slots) submit(client string, start func()) bool {
	s.mu.Lock()
	c := s.clients[client]
	if c == nil {
		c = &slotClient{name: client}
		s.clients[client] = c
	}
	if s.queued >= s.maxQueued || len(c.waiting) >= s.maxPerCli {
		s.forgetLocked(c)
		s.mu.Unlock()
		return false
	}
	c.waiting = append(c.waiting, start)
	s.queued++
	if c.elem == nil {
		c.elem = s.turn.PushBack(c)
	}
	run := s.grantLocked()
	s.mu.Unlock()
	for _, f := range run {
		f()
	}
	return true
}

// done gives a slot of client back.
func (s *slots) done(client string) {
	s.mu.Lock()
	s.running--
	c := s.clients[client]
	c.running--
	s.forgetLocked(c)
	run := s.grantLocked()
	s.mu.Unlock()
	for _, f := range run {
		f()
	}
}

func (s *slots) forgetLocked(c *slotClient) {
	if c.running == 0 && len(c.waiting) == 0 {
		delete(s.clients, c.name)
	}
}

// grantLocked takes from the queues what may run now.
func (s *slots) grantLocked() (run []func()) {
	for skipped := 0; s.running < s.total && skipped < s.turn.Len(); {
		el := s.turn.Front()
		c := el.Value.(*slotClient)
		if c.running >= s.perClient {
			s.turn.MoveToBack(el)
			skipped++
			continue
		}
		skipped = 0
		run = append(run, c.waiting[0])
		c.waiting[0] = nil
		c.waiting = c.waiting[1:]
		c.running++
		s.running++
		s.queued--
		if len(c.waiting) == 0 {
			s.turn.Remove(el)
			c.elem = nil
		} else {
			s.turn.MoveToBack(el)
		}
	}
	return run
}

// depth is how many cold reads wait for a slot, busy how many run.
func (s *slots) depth() (queued, busy int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queued, s.running
}
