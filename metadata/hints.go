package metadata

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Hints are caches of what others know better. Losing one is no loss, so they have
// no versions, the guard does not remember them, and what the store misses of them
// is forgotten. A hint about a topic has the topic's id, as Hex, in its name, and
// goes when the topic's data is gone.

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

// hintsOf are the hints about a topic.
func (im *Image) hintsOf(id TopicID) map[string]hint {
	var found map[string]hint
	part := id.Hex()
	im.hints.each(func(name string, h hint) bool {
		if strings.Contains(name, part) {
			if found == nil {
				found = map[string]hint{}
			}
			found[name] = h
		}
		return true
	})
	return found
}

// deleteHints removes the hints about a topic. A writer that was late may add one
// again: it goes with a later sweep, for which the tombstone stays.
func (c *Client) deleteHints(ctx context.Context, id TopicID) error {
	var errs []error
	for name, h := range c.Image().hintsOf(id) {
		errs = append(errs, c.deleteKey(ctx, prefixHints+name, h.revision))
	}
	return errors.Join(errs...)
}

// lostHints are the hints, and the marks of deleted ones, that an image knows and a
// list of the store has not, with their revisions.
func lostHints(im *Image, entries []Entry) map[string]uint64 {
	lost := map[string]uint64{}
	im.hints.each(func(name string, h hint) bool { lost[prefixHints+name] = h.revision; return true })
	im.deleted.each(func(key string, s seen) bool {
		if strings.HasPrefix(key, prefixHints) {
			lost[key] = s.revision
		}
		return true
	})
	for _, e := range entries {
		delete(lost, e.Key)
	}
	return lost
}

// forgetHints drops hints from the image unless they were written again.
func (c *Client) forgetHints(lost map[string]uint64) {
	c.fold.Lock()
	defer c.fold.Unlock()
	f := newFolder(c.Image())
	for key, revision := range lost {
		if f.im.known(key).revision == revision {
			f.hints.remove(key[len(prefixHints):])
			f.deleted.remove(key)
		}
	}
	c.image.Store(f.image())
}
