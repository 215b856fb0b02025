package metadata

import (
	"context"
	"fmt"
	"slices"
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
