package metadata

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// RegisterBroker records this broker's process: where it listens and which
// incarnation it is. ErrStaleIncarnation when a later process of the same broker
// has registered: this one must stop.
func (c *Client) RegisterBroker(ctx context.Context, b Broker) error {
	err := change(ctx, c, keyBroker(b.Node), func(r *brokerRecord, exists bool) error {
		if exists && r.Incarnation > b.Incarnation && slices.Equal(r.DirIDs, b.DirIDs) {
			return ErrStaleIncarnation
		}
		r.Broker = b
		return nil
	})
	if err != nil {
		return fmt.Errorf("register broker %d: %w", b.Node, err)
	}
	return nil
}

// PutHint records something that others know better and that may be lost: the
// bucket's tiered end, a load. It is a blind write: the last one wins. name has
// letters, digits, '-', '_' and '.'.
func (c *Client) PutHint(ctx context.Context, name string, value []byte) error {
	key := prefixHints + name
	if strings.Trim(name, ".") != name || name == "" {
		return fmt.Errorf("hint %q: %w", name, ErrInvalidRequest)
	}
	h, _ := c.Image().hints.get(name)
	rev := h.revision
	for attempt := 0; ; attempt++ {
		got, err := c.cas(ctx, key, value, rev)
		var conflict *ConflictError
		switch {
		case err == nil:
			return c.absorb([]Entry{{Key: key, Value: value, Revision: got}})
		case !errors.As(err, &conflict):
			return fmt.Errorf("put hint %s: %w", name, err)
		}
		if rev = conflict.Current; rev == 0 {
			e, err := c.get(ctx, key)
			if err != nil {
				return err
			}
			rev = e.Revision
		}
		if err := pause(ctx, attempt); err != nil {
			return fmt.Errorf("put hint %s: %w", name, ErrConflict)
		}
	}
}
