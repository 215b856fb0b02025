package metadata

import (
	"sync"
	"sync/atomic"
)

// safeMode is entered when the store went back, lost its bucket, or lost a key
// that was known. Then the image stays what it was, this broker goes on serving
// from it, and nothing is elected, created or deleted: every change is refused
// with ErrSafeMode. It is left only when a whole comparison finds that the store
// has everything that is known, which is so when the bad news was itself stale
// (a deposed JetStream leader answering), or when the store was repaired.
type safeMode struct {
	mu     sync.Mutex
	reason string
	began  chan struct{}

	times atomic.Int64 // how often it was entered
	// whole: nothing that the store was known to have is missing in the image.
	whole atomic.Bool
}

// entered is closed while safe mode is on.
func (s *safeMode) entered() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.channelLocked()
}

func (s *safeMode) channelLocked() chan struct{} {
	if s.began == nil {
		s.began = make(chan struct{})
	}
	return s.began
}

// SafeMode says whether the metadata is not to be trusted, and why.
func (c *Client) SafeMode() (reason string, on bool) {
	c.safe.mu.Lock()
	defer c.safe.mu.Unlock()
	return c.safe.reason, c.safe.reason != ""
}

func (c *Client) enterSafeMode(reason string) {
	c.safe.mu.Lock()
	was := c.safe.reason
	if was == "" {
		c.safe.reason = reason
		c.safe.times.Add(1)
		close(c.safe.channelLocked())
	}
	c.safe.mu.Unlock()
	if was == "" {
		c.logger.Error("metadata safe mode: serving, electing and deleting nothing", "event", "metadata_safe_mode", "reason", reason)
		if err := c.rememberUnsafe(); err != nil {
			c.logger.Error("metadata guard not saved", "event", "metadata_guard_failed", "err", err)
		}
		c.reconcileSoon()
		c.poke()
	}
}

// rememberUnsafe makes the guard remember that there is safe mode, and what was known
// when it was entered: a restart must not forget what the store lost just now. The
// image of a store that was found wrong at the start is not to be remembered.
func (c *Client) rememberUnsafe() error {
	if err := c.guard.mark(); err != nil {
		return err
	}
	if c.safe.whole.Swap(false) {
		return c.saveGuard()
	}
	return nil
}

func (c *Client) leaveSafeMode() {
	c.safe.mu.Lock()
	was := c.safe.reason
	if was != "" {
		c.safe.reason, c.safe.began = "", nil
	}
	c.safe.mu.Unlock()
	if was != "" {
		c.safe.whole.Store(true)
		c.logger.Info("metadata safe mode ended: the store has everything that was known", "event", "metadata_safe_mode_ended", "reason", was)
		c.poke()
	}
}
