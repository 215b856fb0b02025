package metadata

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// tombstoneAge is how long a deletion is remembered at least: a broker that was
// away for a week still learns of it.
const tombstoneAge = 7 * 24 * time.Hour

// DeleteTopic removes the topic of that id and leaves a tombstone, in one
// compare-and-set. name is the topic's name; ErrUnknownTopicID when the name now
// belongs to no topic or another one.
func (c *Client) DeleteTopic(ctx context.Context, name string, id TopicID) error {
	if err := CheckTopicName(name); err != nil {
		return refuse(ErrUnknownTopic, "%v", err)
	}
	tried := false
	err := change(ctx, c, keyTopic(name), func(r *topicRecord, exists bool) error {
		t := r.Topic
		if t == nil || t.ID != id {
			if tried && slices.ContainsFunc(r.Tombstones, func(t Tombstone) bool { return t.ID == id }) {
				return errUnchanged // deleted by our own attempt in doubt, or while we tried
			}
			return refuse(ErrUnknownTopicID, "no topic %s has id %s", name, id)
		}
		tried = true
		dead := Tombstone{ID: id, Name: t.Name, At: c.cfg.Now().UTC(), Partitions: int32(len(t.Assignment)), Bucket: t.EverTiered}
		for _, replicas := range t.Assignment {
			for _, b := range replicas {
				if !slices.Contains(dead.Brokers, b) {
					dead.Brokers = append(dead.Brokers, b)
				}
			}
		}
		slices.Sort(dead.Brokers)
		r.Topic = nil
		c.sweep(r)
		r.Tombstones = append(r.Tombstones, dead)
		return nil
	})
	if err != nil {
		return during(err, "delete topic %s", name)
	}
	return nil
}

// MarkReplicasGone notes that a broker has removed everything it had of a
// deleted topic. An id without a tombstone is no error.
func (c *Client) MarkReplicasGone(ctx context.Context, id TopicID, node int32) error {
	return c.markGone(ctx, id, func(t *Tombstone) bool {
		i := slices.Index(t.Brokers, node)
		if i < 0 {
			return false
		}
		t.Brokers = slices.Delete(slices.Clone(t.Brokers), i, i+1)
		return true
	})
}

// MarkBucketGone notes that the bucket has nothing left of a deleted topic.
func (c *Client) MarkBucketGone(ctx context.Context, id TopicID) error {
	return c.markGone(ctx, id, func(t *Tombstone) bool {
		was := t.Bucket
		t.Bucket = false
		return was
	})
}

func (c *Client) markGone(ctx context.Context, id TopicID, mark func(*Tombstone) bool) error {
	dead, ok := c.Image().tombstones.get(id)
	if !ok {
		return nil
	}
	return change(ctx, c, keyTopic(dead.Name), func(r *topicRecord, exists bool) error {
		for i := range r.Tombstones {
			if r.Tombstones[i].ID == id && mark(&r.Tombstones[i]) {
				return nil
			}
		}
		return errUnchanged
	})
}

// expired says whether a tombstone may be forgotten: it is old, and nobody holds
// data it would have to explain.
func (c *Client) expired(t *Tombstone) bool {
	return t.dataGone() && c.cfg.Now().Sub(t.At) > tombstoneAge
}

// sweep drops the tombstones of r whose time is over and of whose topics no key is
// left.
func (c *Client) sweep(r *topicRecord) {
	im := c.Image()
	r.Tombstones = slices.DeleteFunc(r.Tombstones, func(t Tombstone) bool {
		_, held := im.partitions.get(t.ID)
		return c.expired(&t) && !held && len(im.hintsOf(t.ID)) == 0
	})
}

// SweepTombstones forgets what was deleted: the hints about a topic once its data
// is gone, and after a long time the keys of its partitions, then the tombstone.
// Whoever is controller calls it now and then.
func (c *Client) SweepTombstones(ctx context.Context) error {
	var errs []error
	for _, t := range c.Image().Tombstones() {
		if t.dataGone() {
			errs = append(errs, c.deleteHints(ctx, t.ID))
		}
		if !c.expired(&t) {
			continue
		}
		if err := c.deletePartitionKeys(ctx, t.ID); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, change(ctx, c, keyTopic(t.Name), func(r *topicRecord, exists bool) error {
			n := len(r.Tombstones)
			if c.sweep(r); len(r.Tombstones) == n {
				return errUnchanged
			}
			return nil
		}))
	}
	return errors.Join(errs...)
}

func (c *Client) deletePartitionKeys(ctx context.Context, id TopicID) error {
	set, ok := c.Image().partitions.get(id)
	if !ok {
		return nil
	}
	var errs []error
	set.each(func(n int32, st *PartitionState) {
		errs = append(errs, c.deleteKey(ctx, keyPartition(id, n), st.Revision))
	})
	return errors.Join(errs...)
}

// deleteKey removes a key that is at revision rev. One that somebody has changed
// since stays: the next sweep looks at it anew.
func (c *Client) deleteKey(ctx context.Context, key string, rev uint64) error {
	if reason, on := c.SafeMode(); on {
		return fmt.Errorf("%w: %s", ErrSafeMode, reason)
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.AttemptTimeout)
	defer cancel()
	got, err := c.cfg.Store.Delete(ctx, key, rev)
	if errors.Is(err, ErrConflict) {
		// Somebody swept it before us, or our own doubtful attempt did.
		var e Entry
		if e, err = c.get(ctx, key); err == nil {
			return c.absorb([]Entry{e})
		}
	}
	if err == nil {
		err = c.absorb([]Entry{{Key: key, Revision: got, Deleted: true}})
	}
	if err != nil {
		return fmt.Errorf("delete metadata key %s: %w", key, err)
	}
	return nil
}
