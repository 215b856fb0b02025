package metadata

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// batcher is group commit for compare-and-sets: what arrives while one batch is
// on its way rides the next. One write alone is sent alone.
type batcher struct {
	mu      sync.Mutex
	queue   []*write
	running bool
}

// write is one compare-and-set under way.
type write struct {
	entry Entry // Revision: the expected one
	done  chan struct{}
	rev   uint64
	err   error
}

// casBatched is cas, possibly together with others. When ctx ends before the
// outcome is known it is ErrInDoubt.
func (c *Client) casBatched(ctx context.Context, key string, value []byte, rev uint64) (uint64, error) {
	store, ok := c.cfg.Store.(Batcher)
	if !ok {
		return c.cas(ctx, key, value, rev)
	}
	w := &write{entry: Entry{Key: key, Value: value, Revision: rev}, done: make(chan struct{})}
	b := &c.batch
	b.mu.Lock()
	if c.ctx.Err() != nil {
		b.mu.Unlock()
		return 0, fmt.Errorf("change metadata key %s: %w", key, ErrUnavailable)
	}
	b.queue = append(b.queue, w)
	if !b.running {
		b.running = true
		c.wg.Add(1)
		go func() {
			defer c.wg.Done()
			c.drain(store)
		}()
	}
	b.mu.Unlock()
	select {
	case <-w.done:
		return w.rev, w.err
	case <-ctx.Done():
		return 0, fmt.Errorf("change metadata key %s: %w", key, ErrInDoubt)
	}
}

// drain sends batches until the queue is empty.
func (c *Client) drain(store Batcher) {
	b := &c.batch
	for {
		b.mu.Lock()
		if len(b.queue) == 0 {
			b.running = false
			b.mu.Unlock()
			return
		}
		batch := b.takeLocked()
		b.mu.Unlock()
		c.send(store, batch)
		for _, w := range batch {
			close(w.done)
		}
	}
}

// takeLocked takes the oldest writes, of distinct keys.
func (b *batcher) takeLocked() []*write {
	var batch, rest []*write
	keys := map[string]bool{}
	for _, w := range b.queue {
		if len(batch) == MaxBatch || keys[w.entry.Key] {
			rest = append(rest, w)
			continue
		}
		keys[w.entry.Key] = true
		batch = append(batch, w)
	}
	b.queue = rest
	return batch
}

// send makes the writes of one batch and fills in what became of each. When the
// batch as a whole was refused, or its outcome is unknown, each write is resolved
// by itself, with the same bytes.
func (c *Client) send(store Batcher, batch []*write) {
	doubt := false
	if len(batch) > 1 {
		if reason, on := c.SafeMode(); on {
			for _, w := range batch {
				w.err = fmt.Errorf("%w: %s", ErrSafeMode, reason)
			}
			return
		}
		entries := make([]Entry, len(batch))
		for i, w := range batch {
			entries[i] = w.entry
		}
		ctx, cancel := context.WithTimeout(c.ctx, c.cfg.AttemptTimeout)
		revs, err := store.UpdateAll(ctx, entries)
		cancel()
		if err == nil {
			for i, w := range batch {
				w.rev, entries[i].Revision = revs[i], revs[i]
			}
			if err := c.absorb(entries); err != nil {
				for _, w := range batch {
					w.err = err
				}
			}
			return
		}
		if doubt = errors.Is(err, ErrInDoubt); doubt {
			c.m.doubted()
		}
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, sendParallel)
	for _, w := range batch {
		wg.Add(1)
		slots <- struct{}{}
		go func() {
			defer func() { <-slots; wg.Done() }()
			w.rev, w.err = c.resolve(c.ctx, w.entry.Key, w.entry.Value, w.entry.Revision, doubt)
		}()
	}
	wg.Wait()
}

// sendParallel is how many writes of a broken batch are resolved at once.
const sendParallel = 32
