package metadata

import (
	"context"
	"errors"
	"fmt"
	"math"
)

// ErrProducerIDsExhausted means that no producer id is left above what is asked.
var ErrProducerIDsExhausted = errors.New("producer ids are used up")

// NextProducerIDs reserves n producer ids, [first, first+n), all above the one
// given as known to be used (-1: none; SAFETY 18). A reserved id is never handed
// out again; one that is lost in a crash stays unused.
func (c *Client) NextProducerIDs(ctx context.Context, n, above int64) (first int64, err error) {
	if n < 1 {
		return 0, fmt.Errorf("reserve %d producer ids: %w", n, ErrInvalidRequest)
	}
	err = change(ctx, c, keyProducerIDs, func(r *producerIDsRecord, exists bool) error {
		first = max(r.Next, above+1, 0)
		if first > math.MaxInt64-n {
			return ErrProducerIDsExhausted
		}
		r.Next = first + n
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("reserve producer ids: %w", err)
	}
	return first, nil
}
