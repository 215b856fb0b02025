// Package faulty is a bucket that misbehaves as stores do, on purpose: it wraps
// any objectstore.Bucket and fails, delays, loses answers, lands writes late and
// damages bodies, by script or by seed. For tests only.
//
// Inject scripts one fault; Chaos gives each request a chance of one, decided by
// a seed, the operation, the key and how often that pair was asked before, so
// that the interleaving of goroutines does not change what happens. Down takes
// the whole store away.
//
// The counters are the store's side: what reached the wrapped bucket, as a meter
// in the store would show it.
package faulty

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/firnlog/firn/objectstore"
)

// Kind is what goes wrong.
type Kind int

// The kinds of faults.
const (
	// Before fails without an effect: a refused connection, a 503 from the front.
	// A Put answers with ErrInDoubt all the same, because nobody can tell it from
	// After; set Err to ErrUnreachable for one that is certain.
	Before Kind = iota
	// After has its effect and loses the answer: a timeout that landed.
	After
	// Late loses the answer at once and has its effect later, under the condition
	// the Put carried: when Land is called, or by itself after Delay. Only Put.
	Late
	// Short delivers a body cut in half. GetRange must not do that silently and
	// fails with io.ErrUnexpectedEOF after filling half of p; Get returns the
	// half as if it were all (a truncated object in the store).
	Short
	// Corrupt flips one bit of the body and reports success. Only Get, GetRange.
	Corrupt
	// Missing answers ErrNotFound for an object that may well exist.
	Missing
	// Slow only takes Delay longer.
	Slow
)

func (k Kind) String() string {
	return [...]string{"before", "after", "late", "short", "corrupt", "missing", "slow"}[k]
}

// Fault is one scripted misbehaviour.
type Fault struct {
	Kind Kind
	// Op is the operation it meets; Match, when not empty, a part of the key
	// (any of the keys for Delete, the prefix for List).
	Op    objectstore.Op
	Match string
	// Skip lets that many matching requests pass first; Times is how many are
	// met then: 0 means one, negative all from then on.
	Skip, Times int
	// Err is the cause in the answer; nil means a 503.
	Err error
	// Delay comes first (all kinds), or before landing (Late).
	Delay time.Duration
}

// ErrServer is the default cause.
var ErrServer = errors.New("status 503 SlowDown (injected)")

// Chaos are chances of faults, each in [0,1], tried in the order of the fields.
// They never fault what Match does not match.
type Chaos struct {
	Seed                                               uint64
	Match                                              string
	Before, After, Late, Short, Corrupt, Missing, Slow float64
	Delay                                              time.Duration // of Slow, and of Late when above 0
}

// Bucket misbehaves. It implements objectstore.Bucket.
type Bucket struct {
	next  *objectstore.Metered
	timed sync.WaitGroup // late writes that land by themselves

	mu struct {
		sync.Mutex
		faults []*Fault
		chaos  *Chaos
		down   error
		asked  map[string]int // by operation and key, for chaos
		late   []*late
		met    map[Kind]int
		closed bool
	}
}

// late is a Put on its way.
type late struct {
	key  string
	body []byte
	cond objectstore.Cond
}

// Wrap returns b without any fault yet.
func Wrap(b objectstore.Bucket) *Bucket {
	f := &Bucket{next: objectstore.Meter(b, func() time.Time { return time.Time{} }, nil)}
	f.mu.asked, f.mu.met = map[string]int{}, map[Kind]int{}
	return f
}

// Inject adds faults; of several that match a request the oldest is met.
func (f *Bucket) Inject(faults ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range faults {
		if x.Times == 0 {
			x.Times = 1
		}
		f.mu.faults = append(f.mu.faults, &x)
	}
}

// Chaos turns seeded faults on; a zero Chaos turns them off.
func (f *Bucket) Chaos(c Chaos) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.chaos = &c
}

// Down makes every request fail before it has an effect, with cause, until
// Down(nil).
func (f *Bucket) Down(cause error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.down = cause
}

// Heal ends all faults, scripted and seeded. Late writes stay on their way.
func (f *Bucket) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.faults, f.mu.chaos, f.mu.down = nil, nil, nil
}

// Met is how many faults of a kind were met, so that a test can insist on some.
func (f *Bucket) Met(k Kind) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.met[k]
}

// Count is what reached the store.
func (f *Bucket) Count(o objectstore.Op) objectstore.Count { return f.next.Count(o) }

// BytesRead is the number of bytes of objects that came out of the store.
func (f *Bucket) BytesRead() int64 { return f.next.BytesRead() }

// BytesWritten is the number of bytes that went into it.
func (f *Bucket) BytesWritten() int64 { return f.next.BytesWritten() }

// Waiting is how many late writes have not landed and wait for Land.
func (f *Bucket) Waiting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.mu.late)
}

// Land lets the late writes arrive, in their order, and returns what the store
// said to each: nil, or ErrPrecondition when somebody was faster.
func (f *Bucket) Land(ctx context.Context) []error {
	f.mu.Lock()
	waiting := f.mu.late
	f.mu.late = nil
	f.mu.Unlock()
	errs := make([]error, len(waiting))
	for i, w := range waiting {
		errs[i] = f.land(ctx, w)
	}
	return errs
}

func (f *Bucket) land(ctx context.Context, w *late) error {
	_, err := f.next.Put(ctx, w.key, bytes.NewReader(w.body), int64(len(w.body)), w.cond)
	return err
}

// next fault for a request, nil for none.
func (f *Bucket) meet(o objectstore.Op, keys ...string) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.down != nil {
		f.mu.met[Before]++
		return &Fault{Kind: Before, Op: o, Err: f.mu.down}
	}
	matches := func(part string) bool {
		if part == "" {
			return true
		}
		for _, k := range keys {
			if strings.Contains(k, part) {
				return true
			}
		}
		return false
	}
	for _, x := range f.mu.faults {
		if x.Op != o || !matches(x.Match) || x.Times == 0 {
			continue
		}
		if x.Skip > 0 {
			x.Skip--
			continue
		}
		if x.Times > 0 {
			x.Times--
		}
		f.mu.met[x.Kind]++
		met := *x
		return &met
	}
	if c := f.mu.chaos; c != nil && matches(c.Match) {
		if x := f.rollLocked(c, o, keys); x != nil {
			f.mu.met[x.Kind]++
			return x
		}
	}
	return nil
}

// rollLocked decides by hash, not by a shared generator.
func (f *Bucket) rollLocked(c *Chaos, o objectstore.Op, keys []string) *Fault {
	id := fmt.Sprintf("%d %s", o, strings.Join(keys, " "))
	f.mu.asked[id]++
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s %d", c.Seed, id, f.mu.asked[id])
	x := h.Sum64()
	x ^= x >> 33 // FNV alone hardly moves its high bits
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	roll := float64(x>>11) / (1 << 53)
	reads := o == objectstore.OpGet || o == objectstore.OpGetRange
	for _, chance := range []struct {
		p    float64
		kind Kind
		can  bool
	}{
		{c.Before, Before, true},
		{c.After, After, o == objectstore.OpPut || o == objectstore.OpDelete},
		{c.Late, Late, o == objectstore.OpPut},
		{c.Short, Short, reads},
		{c.Corrupt, Corrupt, reads},
		{c.Missing, Missing, reads || o == objectstore.OpHead},
		{c.Slow, Slow, true},
	} {
		if !chance.can {
			continue
		}
		if roll < chance.p {
			fault := &Fault{Kind: chance.kind, Op: o}
			if chance.kind == Slow || chance.kind == Late {
				fault.Delay = c.Delay
			}
			return fault
		}
		roll -= chance.p
	}
	return nil
}

// wait is the fault's delay.
func (x *Fault) wait(ctx context.Context) error {
	if x.Delay <= 0 || x.Kind == Late {
		return ctx.Err()
	}
	timer := time.NewTimer(x.Delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answer is the error a request gets.
func (x *Fault) answer(key string) error {
	cause := x.Err
	if cause == nil {
		cause = ErrServer
	}
	if x.Kind == Missing {
		return fmt.Errorf("%s (injected): %w", key, objectstore.ErrNotFound)
	}
	if x.Op == objectstore.OpPut && (x.Kind != Before || !certain(cause)) {
		return fmt.Errorf("put %s: %w: %w", key, objectstore.ErrInDoubt, cause)
	}
	return fmt.Errorf("%s %s: %w", x.Op, key, cause)
}

// certain causes prove that a Put had no effect.
func certain(err error) bool {
	for _, s := range []error{objectstore.ErrUnreachable, objectstore.ErrDenied, objectstore.ErrNoBucket, objectstore.ErrPrecondition, objectstore.ErrNotFound, objectstore.ErrCorrupt} {
		if errors.Is(err, s) {
			return true
		}
	}
	return false
}

// Put is objectstore.Bucket's.
func (f *Bucket) Put(ctx context.Context, key string, body io.ReadSeeker, size int64, c objectstore.Cond) (string, error) {
	x := f.meet(objectstore.OpPut, key)
	if x == nil {
		return f.next.Put(ctx, key, body, size, c)
	}
	if err := x.wait(ctx); err != nil {
		return "", fmt.Errorf("put %s: %w: %w", key, objectstore.ErrInDoubt, err)
	}
	switch x.Kind {
	case After:
		// A refusal is an answer like any other, and got lost too.
		f.next.Put(ctx, key, body, size, c)
	case Late:
		if err := objectstore.CheckBody(body, size); err != nil {
			return "", err
		}
		data, err := io.ReadAll(body)
		if err != nil {
			return "", err
		}
		f.delay(x.Delay, &late{key: key, body: data, cond: c})
	case Before:
	default:
		return f.next.Put(ctx, key, body, size, c)
	}
	return "", x.answer(key)
}

// delay keeps w for Land, or lands it after d.
func (f *Bucket) delay(d time.Duration, w *late) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d <= 0 {
		f.mu.late = append(f.mu.late, w)
		return
	}
	if f.mu.closed {
		return
	}
	f.timed.Go(func() {
		timer := time.NewTimer(d)
		<-timer.C
		f.land(context.Background(), w)
	})
}

// Get is objectstore.Bucket's.
func (f *Bucket) Get(ctx context.Context, key string) ([]byte, string, error) {
	x := f.meet(objectstore.OpGet, key)
	if x == nil {
		return f.next.Get(ctx, key)
	}
	if err := x.wait(ctx); err != nil {
		return nil, "", err
	}
	if x.Kind == Before || x.Kind == After || x.Kind == Missing {
		return nil, "", x.answer(key)
	}
	data, etag, err := f.next.Get(ctx, key)
	if err == nil && len(data) > 0 {
		switch x.Kind {
		case Short:
			data = data[:len(data)/2]
		case Corrupt:
			flip(key, data)
		}
	}
	return data, etag, err
}

// GetRange is objectstore.Bucket's.
func (f *Bucket) GetRange(ctx context.Context, key string, p []byte, off int64) error {
	x := f.meet(objectstore.OpGetRange, key)
	if x == nil {
		return f.next.GetRange(ctx, key, p, off)
	}
	if err := x.wait(ctx); err != nil {
		return err
	}
	switch x.Kind {
	case Before, After, Missing:
		return x.answer(key)
	case Short:
		if err := f.next.GetRange(ctx, key, p[:len(p)/2], off); err != nil {
			return err
		}
		return fmt.Errorf("get range of %s (injected): %w", key, io.ErrUnexpectedEOF)
	}
	err := f.next.GetRange(ctx, key, p, off)
	if err == nil && x.Kind == Corrupt && len(p) > 0 {
		flip(key, p)
	}
	return err
}

// flip damages one bit, always the same one of a key and length.
func flip(key string, p []byte) {
	h := fnv.New32a()
	io.WriteString(h, key)
	p[int(h.Sum32())%len(p)] ^= 1 << (h.Sum32() % 8)
}

// Head is objectstore.Bucket's.
func (f *Bucket) Head(ctx context.Context, key string) (objectstore.Info, error) {
	if x := f.meet(objectstore.OpHead, key); x != nil {
		if err := x.wait(ctx); err != nil {
			return objectstore.Info{}, err
		}
		if x.Kind != Slow {
			return objectstore.Info{}, x.answer(key)
		}
	}
	return f.next.Head(ctx, key)
}

// List is objectstore.Bucket's. A Short listing stops with an error after its
// first object.
func (f *Bucket) List(ctx context.Context, prefix string) iter.Seq2[objectstore.Info, error] {
	return func(yield func(objectstore.Info, error) bool) {
		x := f.meet(objectstore.OpList, prefix)
		if x != nil {
			if err := x.wait(ctx); err != nil {
				yield(objectstore.Info{}, err)
				return
			}
			if x.Kind != Slow && x.Kind != Short {
				yield(objectstore.Info{}, x.answer(prefix))
				return
			}
		}
		for info, err := range f.next.List(ctx, prefix) {
			if !yield(info, err) {
				return
			}
			if x != nil && x.Kind == Short {
				yield(objectstore.Info{}, x.answer(prefix))
				return
			}
		}
	}
}

// Delete is objectstore.Bucket's.
func (f *Bucket) Delete(ctx context.Context, keys []string) error {
	if x := f.meet(objectstore.OpDelete, keys...); x != nil {
		if err := x.wait(ctx); err != nil {
			return err
		}
		switch x.Kind {
		case After:
			f.next.Delete(ctx, keys)
			return x.answer(strings.Join(keys, " "))
		case Short: // only the first half went
			f.next.Delete(ctx, keys[:len(keys)/2])
			return x.answer(strings.Join(keys[len(keys)/2:], " "))
		case Slow:
		default:
			return x.answer(strings.Join(keys, " "))
		}
	}
	return f.next.Delete(ctx, keys)
}

// Date is objectstore.Bucket's.
func (f *Bucket) Date(ctx context.Context) (time.Time, error) {
	if x := f.meet(objectstore.OpDate); x != nil {
		if err := x.wait(ctx); err != nil {
			return time.Time{}, err
		}
		if x.Kind != Slow {
			return time.Time{}, x.answer("")
		}
	}
	return f.next.Date(ctx)
}

// Name is objectstore.Bucket's.
func (f *Bucket) Name() string { return f.next.Name() }

// Close waits for the late writes that land by themselves, then closes the
// wrapped bucket. Those that wait for Land are lost.
func (f *Bucket) Close() error {
	f.mu.Lock()
	f.mu.closed = true
	f.mu.Unlock()
	f.timed.Wait()
	return f.next.Close()
}
