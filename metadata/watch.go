package metadata

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// run starts what keeps the image current: the watch, and the reconciler that
// does not trust it.
func (c *Client) run() {
	c.wg.Add(2)
	go func() {
		defer c.wg.Done()
		c.watch()
	}()
	go func() {
		defer c.wg.Done()
		c.reconciler()
	}()
}

// watch follows the store, resuming where it broke off.
func (c *Client) watch() {
	wait := 20 * time.Millisecond
	for c.ctx.Err() == nil {
		err := c.cfg.Store.Watch(c.ctx, c.resumeAt(), func(e Event) {
			wait = 20 * time.Millisecond
			c.onEvent(e)
		})
		if c.ctx.Err() != nil {
			return
		}
		if !errors.Is(err, ErrNoBucket) {
			c.logger.Warn("metadata watch broke; resuming", "event", "metadata_watch_broke", "err", err)
		}
		c.reconcileSoon()
		select {
		case <-time.After(wait):
			wait = min(2*wait, time.Second)
		case <-c.ctx.Done():
		}
	}
}

func (c *Client) resumeAt() uint64 {
	c.fold.Lock()
	defer c.fold.Unlock()
	if !c.fold.caught {
		c.fold.pending = nil // the next watch starts over
		return 0
	}
	return c.watched.Load()
}

func (c *Client) onEvent(e Event) {
	c.fold.Lock()
	if !c.fold.caught {
		if !e.CaughtUp {
			c.fold.pending = append(c.fold.pending, e.Entry)
			c.fold.Unlock()
			return
		}
		first := c.fold.pending
		c.fold.pending, c.fold.caught = nil, true
		c.fold.Unlock()
		c.follow(first)
		close(c.caught)
		return
	}
	c.fold.Unlock()
	if !e.CaughtUp {
		c.follow([]Entry{e.Entry})
	}
}

// follow folds what the watch reported. In safe mode nothing is folded: the last
// image that made sense is the one to serve from. What is skipped comes back
// with the reconciliation that ends safe mode.
func (c *Client) follow(entries []Entry) {
	for _, e := range entries {
		c.watched.Store(max(c.watched.Load(), e.Revision))
	}
	if _, on := c.SafeMode(); on && c.Image().Revision() > 0 {
		return
	}
	if err := c.absorb(entries); err != nil {
		c.logger.Error("metadata entry not folded", "event", "metadata_entry_refused", "err", err)
	}
}

// reconcileSoon asks for a comparison with the store, key by key.
func (c *Client) reconcileSoon() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// reconciler compares the image with the store: cheaply on every tick (its
// creation time, last revision and number of keys say enough), key by key on
// every tenth, after a broken watch, and whenever the cheap answer is odd.
func (c *Client) reconciler() {
	select {
	case <-c.caught:
	case <-c.ctx.Done():
		return
	case <-c.safe.entered(): // no bucket: keep asking
	}
	t := time.NewTicker(c.cfg.ReconcileEvery)
	defer t.Stop()
	for n := 1; ; n++ {
		full := n%10 == 0
		select {
		case <-c.ctx.Done():
			return
		case <-c.kick:
			full = true
		case <-t.C:
		}
		ctx, cancel := context.WithTimeout(c.ctx, 5*c.cfg.AttemptTimeout)
		err := c.reconcile(ctx, full)
		cancel()
		if err != nil && c.ctx.Err() == nil {
			c.logger.Warn("metadata store does not answer", "event", "metadata_unavailable", "err", err)
		}
		c.m.reachable(err == nil)
		if err == nil {
			if _, on := c.SafeMode(); !on {
				if err := c.saveGuard(); err != nil {
					c.logger.Error("metadata guard not saved", "event", "metadata_guard_failed", "err", err)
				}
			}
		}
	}
}

// reconcile compares the image with the store. Its error says that the store did
// not answer; what it found it acts upon.
func (c *Client) reconcile(ctx context.Context, full bool) error {
	before := c.Image()
	watched := c.watched.Load()
	st, err := c.cfg.Store.Status(ctx)
	if errors.Is(err, ErrNoBucket) {
		c.enterSafeMode("the store's bucket is gone")
		return nil
	}
	if err != nil {
		return err
	}
	if reason := c.guard.compare(st); reason != "" {
		c.enterSafeMode(reason)
		return nil
	}
	if st.LastRevision < before.Revision() {
		c.enterSafeMode("the store's revision went back")
		return nil
	}
	short := before.countKeys() - int(st.Keys)
	_, safe := c.SafeMode()
	// A watch that saw nothing since the last round although the store moved on
	// is dead, whatever its connection says.
	silent := c.behind.Swap(st.LastRevision) > watched
	if !full && !safe && !silent && short <= 0 && c.staleLists == 0 {
		return nil
	}
	entries, err := List(ctx, c.cfg.Store)
	if err != nil {
		return err
	}
	if short > 0 {
		hints := lostHints(before, entries)
		if short > len(hints) {
			c.enterSafeMode(fmt.Sprintf("the store has %d keys, %d are known", st.Keys, before.countKeys()))
			return nil
		}
		if short == len(hints) { // more would be a replica that lags
			c.forgetHints(hints)
		}
	}
	listed := uint64(0)
	for _, e := range entries {
		listed = max(listed, e.Revision)
	}
	if listed < before.kept() {
		// A replica that lags made the list, or the newest keys are gone.
		if c.staleLists++; c.staleLists >= maxStaleLists {
			c.enterSafeMode(fmt.Sprintf("the store says revision %d and lists nothing above %d", st.LastRevision, listed))
		}
		return nil
	}
	c.staleLists = 0
	if reason := verify(before, entries, listed); reason != "" {
		c.enterSafeMode(reason)
		return nil
	}
	if reason := c.guard.compareEntries(entries); reason != "" {
		c.enterSafeMode(reason)
		return nil
	}
	if before.ClusterID() == "" {
		return nil // nothing to leave safe mode for
	}
	if err := c.contradicts(entries); err != nil {
		c.enterSafeMode(err.Error())
		return nil
	}
	c.leaveSafeMode()
	for _, e := range entries {
		c.watched.Store(max(c.watched.Load(), e.Revision))
	}
	if err := c.absorb(entries); err != nil {
		c.logger.Error("metadata entry not folded", "event", "metadata_entry_refused", "err", err)
	}
	return nil
}

// contradicts is what folding the entries would enter safe mode for. Without asking
// first, safe mode would end, fold them and begin again, as fast as the store answers.
func (c *Client) contradicts(entries []Entry) error {
	f := newFolder(c.Image())
	var bad error
	for _, e := range entries {
		if err := f.add(e); untrusted(err) {
			bad = errors.Join(bad, err)
		}
	}
	return bad
}

// maxStaleLists is how many lists in a row may be older than what is known.
const maxStaleLists = 5

// verify looks for everything an image knows in a list of the store that is
// current up to revision listed. It returns what is wrong, or nothing.
func verify(im *Image, entries []Entry, listed uint64) (reason string) {
	got := make(map[string]Entry, len(entries))
	for _, e := range entries {
		got[e.Key] = e
	}
	im.eachKey(func(key string, s seen) {
		if reason != "" || s.revision > listed {
			return
		}
		e, ok := got[key]
		switch {
		case !ok:
			reason = "the store lost key " + key
		case e.Revision < s.revision:
			reason = "key " + key + " went back in the store"
		case e.Revision == s.revision && !e.Deleted && requestOf(e) != s.request:
			reason = "key " + key + " has another value under the same revision"
		}
	})
	return reason
}
