package metadata

import (
	"context"
	"errors"
	"fmt"
	"math"
)

// ErrProducerIDsExhausted means that no producer id is left above what is asked.
var ErrProducerIDsExhausted = errors.New("producer ids are used up")

const (
	// producerIDWindow is how far above the next id the logs' are believed. Metadata
	// that went back by more has given out more ids than any cluster does; and a
	// client can write any id it likes, which must not use up all that there are.
	producerIDWindow = 1 << 40
	// producerIDJump is left free after safe mode, in this life or an earlier one, and
	// when the guard was lost, without which nobody knows whether there should have
	// been: not everything that was handed out has reached a log (SAFETY 18).
	producerIDJump = 1_000_000
)

// NextProducerIDs reserves n producer ids, [first, first+n), above all that were
// reserved before and all that are known to be used (SAFETY 18). used returns the
// greatest producer id below the one given that somebody's logs hold, or -1; nil
// knows of none. It may be called more than once. A reserved id is never handed out
// again; one that is lost in a crash stays unused.
func (c *Client) NextProducerIDs(ctx context.Context, n int64, used func(below int64) int64) (first int64, err error) {
	if n < 1 {
		return 0, fmt.Errorf("reserve %d producer ids: %w", n, ErrInvalidRequest)
	}
	// Of two callers at once both may jump.
	jump, times := int64(0), c.safe.times.Load()
	if times != c.jumped.Load() {
		jump = producerIDJump
	}
	err = change(ctx, c, keyProducerIDs, func(r *producerIDsRecord, exists bool) error {
		first = max(r.Next, 0)
		if used != nil {
			below := int64(math.MaxInt64)
			if first < below-producerIDWindow {
				below = first + producerIDWindow
			}
			if id := used(below); id < below {
				first = max(first, id+1)
			}
		}
		if first > math.MaxInt64-n-jump {
			return ErrProducerIDsExhausted
		}
		first += jump
		r.Next = first + n
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("reserve producer ids: %w", err)
	}
	c.jumped.Store(times)
	c.guard.jumped(func() bool { return c.safe.times.Load() != times })
	return first, nil
}
