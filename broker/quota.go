package broker

import (
	"math"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Quota is what one client may do; 0 is no bound.
type Quota struct {
	ProduceRate float64 // bytes of Produce requests a second
	FetchRate   float64 // bytes of fetched records a second
	// RequestShare is the part of the time that its requests may be at work, 1 for
	// one processor (request_percentage / 100).
	RequestShare float64
}

// usage is what one request takes of its account.
type usage struct {
	produced, fetched int // bytes
	// worked is how long the request kept its connection's reader. Time in which an
	// answer is awaited is nobody's, and the bytes of a fetch are counted already.
	worked time.Duration
}

// leastWork is the least that a request counts: framing and decoding are not timed.
const leastWork = time.Microsecond

// maxThrottle bounds how long one answer silences a client.
const maxThrottle = 30 * time.Second

// quotas keeps the one account of each principal and client id. Whoever has used
// more than a second's worth is told how long to wait (throttle_time_ms) and is not
// read until then (KIP-219).
type quotas struct {
	of  func(principal, clientID string) Quota // nil: nobody is bounded
	now func() time.Time

	mu    sync.Mutex
	m     map[quotaKey]*account
	swept time.Time
}

type quotaKey struct{ principal, clientID string }

// account is a bucket for each part of a Quota, filled by its rate up to one
// second's worth. A request that takes nothing from a bucket does not wait for it:
// who owes bytes may still keep its place in a group.
type account struct {
	produce, fetch float64 // bytes that may be used at once; negative is debt
	work           float64 // nanoseconds
	at             time.Time
}

// accountIdle forgets an account nobody has used; by then its buckets are full.
const accountIdle = 2 * maxThrottle

// started is the time at which work begins; zero where nobody is bounded.
func (q *quotas) started() (t time.Time) {
	if q.of != nil {
		t = q.now()
	}
	return t
}

// worked is how much work there was since it started.
func (q *quotas) worked(since time.Time) time.Duration {
	if q.of == nil {
		return 0
	}
	return max(q.now().Sub(since), leastWork)
}

// charge takes what was used and returns how long the client is to be quiet.
func (q *quotas) charge(principal, clientID string, u usage) time.Duration {
	if q.of == nil {
		return 0
	}
	limit := q.of(principal, clientID)
	if limit == (Quota{}) {
		return 0
	}
	now := q.now()
	q.mu.Lock()
	defer q.mu.Unlock()
	key := quotaKey{principal, clientID}
	a := q.m[key]
	if a == nil {
		if q.m == nil {
			q.m = map[quotaKey]*account{}
		}
		q.sweepLocked(now)
		a = &account{produce: limit.ProduceRate, fetch: limit.FetchRate, work: limit.RequestShare * 1e9, at: now}
		q.m[key] = a
	}
	passed := max(now.Sub(a.at).Seconds(), 0)
	a.at = now
	return max(
		use(&a.produce, limit.ProduceRate, passed, u.produced), use(&a.fetch, limit.FetchRate, passed, u.fetched),
		use(&a.work, limit.RequestShare*1e9, passed, int(u.worked)),
	)
}

// use fills a bucket for the time that passed and takes n bytes out.
func use(bucket *float64, rate, passed float64, n int) time.Duration {
	if rate <= 0 {
		*bucket = 0
		return 0
	}
	*bucket = min(*bucket+passed*rate, rate) - float64(n)
	if n == 0 || *bucket >= 0 {
		return 0
	}
	// No deeper in debt than the longest silence pays for.
	*bucket = max(*bucket, -rate*maxThrottle.Seconds())
	return min(time.Duration(math.Ceil(-*bucket/rate*1e3))*time.Millisecond, maxThrottle)
}

func (q *quotas) sweepLocked(now time.Time) {
	if now.Sub(q.swept) < accountIdle {
		return
	}
	q.swept = now
	for k, a := range q.m {
		if now.Sub(a.at) > accountIdle {
			delete(q.m, k)
		}
	}
}

// chargeRead charges what a request brought when it was read: its answer may be long
// in coming, and until then nothing more is to be read (SAFETY 7).
func (c *Conn) chargeRead(a *answer) {
	if a.r.Key != 0 {
		return
	}
	if d := c.s.quotas.charge(c.principal, a.r.ClientID, usage{produced: int(a.size)}); d > 0 {
		a.quietUntil = c.silence(d)
	}
}

// throttle charges what else a request and its answer took, and tells the client how
// long to be quiet, from now, for all of it. Every request passes here once, when its
// answer is about to be encoded or it has none.
func (c *Conn) throttle(a *answer, fetched int) {
	d := c.s.quotas.charge(c.principal, a.r.ClientID, usage{fetched: fetched, worked: a.worked})
	if d > 0 {
		c.silence(d)
	}
	if !a.quietUntil.IsZero() {
		d = max(d, a.quietUntil.Sub(c.s.cfg.Now()))
	}
	if d <= 0 {
		return
	}
	if r, ok := a.resp.(kmsg.SetThrottleResponse); ok {
		r.SetThrottle(int32((d + time.Millisecond - 1).Milliseconds()))
	}
}

// silence stops reading the client for a time, and is when that ends.
func (c *Conn) silence(d time.Duration) time.Time {
	end := c.s.cfg.Now().Add(d)
	for {
		old := c.quietUntil.Load()
		if old >= end.UnixNano() || c.quietUntil.CompareAndSwap(old, end.UnixNano()) {
			return end
		}
	}
}

// quiet waits until the client may speak again.
func (c *Conn) quiet() {
	until := c.quietUntil.Load()
	if until == 0 {
		return
	}
	if d := time.Unix(0, until).Sub(c.s.cfg.Now()); d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-c.ctx.Done():
		}
	}
}
