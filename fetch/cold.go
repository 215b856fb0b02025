package fetch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/firnlog/firn/localcache"
)

// ErrColdRead means records that the bucket should hold cannot be had now: the
// store does not answer, the object is gone, or its bytes are damaged. The broker
// answers it with KAFKA_STORAGE_ERROR (56), which clients retry.
var ErrColdRead = errors.New("cold read failed")

var (
	// errBadChunk means bytes that are not what the chunk table says.
	errBadChunk = errors.New("damaged chunk")
	// errGone means that a named object is not there: the manifest we know is
	// older than the bucket's.
	errGone = errors.New("object is gone")
)

// bucket is what the cold side needs of a store. getRange fills p or fails, with
// errGone when there is no such object.
type bucket interface {
	getRange(ctx context.Context, key string, p []byte, off int64) error
}

// coldReader is the cold side. Its work runs in jobs that belong to it and not
// to requests: a request starts one or joins one, waits for it as long as it
// likes, and leaves.
type coldReader struct {
	cache   *localcache.Cache
	bucket  bucket
	slots   *slots
	layouts *layouts
	indexes *indexes
	streams *streams
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time

	timeout     time.Duration       // of a job
	coalesce    int64               // largest GET that several chunks share
	decoding    *semaphore.Weighted // bytes of compressed chunks in memory, of decodeBytes
	decodeBytes int64
	planners    chan struct{} // one token a planner of read-ahead

	ctx  context.Context // of all jobs; ends in close
	stop context.CancelFunc
	wg   sync.WaitGroup

	// mu guards what follows.
	mu     sync.Mutex
	jobs   map[jobKey]*job
	closed bool
}

// jobKey names what a job makes ready.
type jobKey struct {
	part   partID
	epoch  int32
	offset int64
}

// job brings one chunk into the cache. Its fields are guarded by coldReader.mu.
type job struct {
	key  jobKey
	over bool
	// served says that its consumer has the records: they were there before the
	// job's turn came. It would pin a chunk that nobody comes for.
	served bool
	err    error     // when over
	at     time.Time // when it ended
	subs   map[chan<- struct{}]struct{}
}

// failedFor is how long a failure waits for its requester to come again.
const failedFor = 10 * time.Second

// attempts is how often a job tries a store that answers with errors.
const attempts = 4

// ready says whether offset can be served without waiting.
func (c *coldReader) ready(p partID, epoch int32, offset int64) bool {
	l, ok := c.layouts.find(p, epoch, offset)
	return ok && c.cache.Has(l.request(l.at(offset)).Key)
}

// want makes sure that a job works on the chunk with offset, and arranges for ch
// to be poked when it ends. It returns the error of one that has failed since it
// was last asked, which consumes the error. more is how many bytes the request
// would like beyond the first chunk.
func (c *coldReader) want(client string, p partition, epoch int32, offset int64, more int64, ch chan<- struct{}) error {
	key := jobKey{p.id(), epoch, offset}
	now := c.now()
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	j := c.jobs[key]
	if j != nil && j.over {
		delete(c.jobs, key)
		if j.err != nil && now.Sub(j.at) < failedFor {
			c.mu.Unlock()
			return j.err
		}
		j = nil
	}
	fresh := j == nil
	if fresh {
		c.sweepLocked(now)
		j = &job{key: key, subs: make(map[chan<- struct{}]struct{})}
		c.jobs[key] = j
	}
	j.served = false
	if ch != nil {
		j.subs[ch] = struct{}{}
	}
	c.mu.Unlock()
	if !fresh {
		return nil
	}
	c.streams.late(client, p.id(), offset)
	a := p.archive()
	accepted := c.slots.submit(client, func() {
		c.mu.Lock()
		closed := c.closed
		if !closed {
			c.wg.Add(1)
		}
		c.mu.Unlock()
		if closed {
			c.slots.done(client)
			return
		}
		go func() {
			defer c.wg.Done()
			var err error
			if !c.needless(j) {
				err = c.run(a, key, more)
				if err == nil && c.needless(j) {
					c.unpin(key) // it was served meanwhile
				}
			}
			c.slots.done(client)
			c.finish(j, err)
		}()
	})
	if !accepted {
		c.metrics.refused.Inc()
		c.mu.Lock()
		if c.jobs[key] == j {
			delete(c.jobs, key)
		}
		c.mu.Unlock()
	}
	return nil
}

// needless says that nobody waits for a job any more.
func (c *coldReader) needless(j *job) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return j.served && len(j.subs) == 0
}

// unpin reads the chunk of a job for nobody.
func (c *coldReader) unpin(key jobKey) {
	l, ok := c.layouts.find(key.part, key.epoch, key.offset)
	if !ok {
		return
	}
	r := l.request(l.at(key.offset))
	if h, ok := c.cache.Lookup(r.Key, r.Size, true); ok {
		h.Release()
	}
}

// served tells the job that works on a chunk, if one does, that its consumer has
// the records.
func (c *coldReader) served(key jobKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if j := c.jobs[key]; j != nil {
		j.served = true
	}
}

// leave takes ch off every job: its request is over.
func (c *coldReader) leave(ch chan<- struct{}, keys []jobKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range keys {
		if j := c.jobs[k]; j != nil {
			delete(j.subs, ch)
		}
	}
}

// finish ends a job. A failure stays for the next request, because the one that
// started it may have left.
func (c *coldReader) finish(j *job, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	j.over, j.err, j.at = true, err, c.now()
	if err == nil {
		delete(c.jobs, j.key)
	}
	for ch := range j.subs {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
	j.subs = nil
}

// sweepLocked forgets failures that nobody came for, now and then.
func (c *coldReader) sweepLocked(now time.Time) {
	if len(c.jobs) < 1024 {
		return
	}
	for k, j := range c.jobs {
		if j.over && now.Sub(j.at) >= failedFor {
			delete(c.jobs, k)
		}
	}
}

// run is a job: it returns when the chunk with the offset is in the cache, or
// why it cannot be.
func (c *coldReader) run(a archive, key jobKey, more int64) error {
	start := c.now()
	ctx, cancel := context.WithTimeout(c.ctx, c.timeout)
	defer cancel()
	err := c.bring(ctx, a, key, more)
	c.metrics.duration.Observe(c.now().Sub(start).Seconds())
	if err == nil || errors.Is(err, errNotTiered) {
		return err
	}
	if c.ctx.Err() != nil {
		return nil // closing: nobody is left to hear of it
	}
	c.metrics.errors.Inc()
	c.log.Warn("cold read failed", "event", "cold_read_failed", "topic_id", fmt.Sprintf("%x", key.part.topic),
		"partition", key.part.partition, "epoch", key.epoch, "offset", key.offset, "error", err)
	return fmt.Errorf("%w: offset %d: %w", ErrColdRead, key.offset, err)
}

func (c *coldReader) bring(ctx context.Context, a archive, key jobKey, more int64) error {
	refreshed := false
	pause := 100 * time.Millisecond
	for attempt := 1; ; attempt++ {
		l, err := c.layoutAt(ctx, a, key.part, key.epoch, key.offset)
		if err == nil {
			err = c.cache.Ensure(ctx, c.runOf(l, l.at(key.offset), more), c.fill(l, l.at(key.offset)))
		}
		switch {
		case err == nil || errors.Is(err, errNotTiered) || errors.Is(err, errBadChunk) || errors.Is(err, localcache.ErrClosed):
			return err
		case ctx.Err() != nil:
			return err
		case errors.Is(err, errGone):
			// What we know of the manifest is older than the bucket: look once
			// more, then it is an error.
			c.layouts.forget(key.part)
			if refreshed {
				return err
			}
			refreshed = true
			if err := a.refresh(ctx); err != nil {
				return err
			}
			continue
		case attempt >= attempts:
			return err
		}
		t := time.NewTimer(time.Duration(rand.Int64N(int64(pause))) + pause/2)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
		pause *= 3
	}
}

// layoutAt finds the object that holds offset, and its chunk table.
func (c *coldReader) layoutAt(ctx context.Context, a archive, p partID, epoch int32, offset int64) (*layout, error) {
	if l, ok := c.layouts.find(p, epoch, offset); ok {
		return l, nil
	}
	if a == nil {
		return nil, errNotTiered
	}
	o, err := a.locate(ctx, offset)
	if err != nil {
		return nil, err
	}
	l, err := a.open(ctx, o)
	if err != nil {
		return nil, err
	}
	if len(l.chunks) == 0 || l.base > offset || l.end <= offset {
		return nil, fmt.Errorf("%w: object %s [%d,%d) with %d chunks, for offset %d", errBadChunk, o.key, l.base, l.end, len(l.chunks), offset)
	}
	c.layouts.put(p, epoch, l)
	return l, nil
}

// runOf is chunk i and its neighbours that one GET may bring with it, as far as
// more bytes are wanted.
func (c *coldReader) runOf(l *layout, i int, more int64) []localcache.Request {
	reqs := []localcache.Request{l.request(i)}
	stored := l.chunks[i].len
	for i++; i < len(l.chunks) && more > 0; i++ {
		if stored += l.chunks[i].len; stored > c.coalesce {
			break
		}
		reqs = append(reqs, l.request(i))
		more -= l.chunks[i].size
	}
	return reqs
}

// close ends all jobs and waits for them.
func (c *coldReader) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.wg.Wait()
}
