package metadata

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
)

// leadParallel is how many leaderships are taken at once: enough to fill a batch
// while another is on its way.
const leadParallel = 2 * MaxBatch

// LeadRequest asks that a broker lead a partition in a new epoch.
type LeadRequest struct {
	TopicPartition
	Node int32
	// MinEpoch is the highest epoch anybody is known to have used: that of the
	// replica's own log, of reachable replicas, of the bucket's head. The new
	// one is above it and above the metadata's (SAFETY 17).
	MinEpoch int32
	// Incarnation and DirID are those of the replica that will lead.
	Incarnation uint64
	DirID       string
}

// LeadResult is the state that the leadership begins with, or why there is none.
type LeadResult struct {
	State PartitionState
	Err   error
}

// Lead takes leaderships for this broker, each by one compare-and-set that also
// raises the leader epoch: every start of leading, also by the same broker, is a
// new epoch (SAFETY 4). The results are in the order of the requests. Requests
// that are under way together, in one call or in many, share their way to the
// disk.
func (c *Client) Lead(ctx context.Context, reqs []LeadRequest) []LeadResult {
	out := make([]LeadResult, len(reqs))
	var wg sync.WaitGroup
	slots := make(chan struct{}, leadParallel)
	for i, r := range reqs {
		wg.Add(1)
		slots <- struct{}{}
		go func() {
			defer func() { <-slots; wg.Done() }()
			out[i].State, out[i].Err = c.lead(ctx, r)
		}()
	}
	wg.Wait()
	return out
}

// lead decides on the image first, which is nearly always new enough, and on a
// conflict reads.
func (c *Client) lead(ctx context.Context, r LeadRequest) (PartitionState, error) {
	key := keyPartition(r.TopicID, r.Partition)
	for attempt := 0; ; attempt++ {
		im := c.Image()
		t, ok := im.TopicByID(r.TopicID)
		if !ok || r.Partition < 0 || r.Partition >= t.Partitions {
			return PartitionState{}, fmt.Errorf("lead %v: %w", r.TopicPartition, ErrUnknownTopic)
		}
		cur := im.partition(t, r.Partition)
		next, err := elect(im, cur, r)
		if err != nil {
			return cur, fmt.Errorf("lead %v: %w", r.TopicPartition, err)
		}
		rec := &partitionRecord{PartitionState: next}
		rec.header.Version = cur.Version
		rev, err := c.casBatched(ctx, key, encode(rec, c.request()), cur.Revision)
		switch {
		case err == nil:
			next.Revision, next.Version, next.Request = rev, rec.header.Version, rec.header.Request
			return next, nil
		case !errors.Is(err, ErrConflict):
			return cur, fmt.Errorf("lead %v: %w", r.TopicPartition, err)
		}
		if err := pause(ctx, attempt); err != nil {
			return cur, fmt.Errorf("lead %v: %w", r.TopicPartition, ErrConflict)
		}
		e, err := c.get(ctx, key)
		if err != nil {
			return cur, err
		}
		if err := c.absorb([]Entry{e}); err != nil {
			return cur, err
		}
	}
}

// elect is the state in which r.Node leads, or why it may not.
func elect(im *Image, cur PartitionState, r LeadRequest) (PartitionState, error) {
	if !slices.Contains(cur.Replicas, r.Node) {
		return cur, fmt.Errorf("broker %d has no replica: %w", r.Node, ErrNotEligible)
	}
	if cur.Leader >= 0 && cur.Leader != r.Node {
		return cur, fmt.Errorf("broker %d leads: %w", cur.Leader, ErrNotEligible)
	}
	epoch := max(cur.LeaderEpoch, r.MinEpoch)
	if epoch == math.MaxInt32 {
		return cur, fmt.Errorf("leader epochs are used up: %w", ErrNotEligible)
	}
	me := Member{Node: r.Node, Incarnation: r.Incarnation, DirID: r.DirID}
	next := cur
	next.Leader, next.LeaderEpoch = r.Node, epoch+1
	switch {
	case len(cur.Replicas) == 1:
		next.ISR, next.ELR = []Member{me}, nil
	case cur.LeaderEpoch < 0:
		// Nobody has a record yet, so every registered replica is in sync.
		next.ISR = []Member{me}
		for _, n := range cur.Replicas {
			if b, ok := im.Broker(n); ok && n != r.Node {
				m := Member{Node: n, Incarnation: b.Incarnation}
				if len(b.DirIDs) == 1 {
					m.DirID = b.DirIDs[0]
				}
				next.ISR = append(next.ISR, m)
			}
		}
	default:
		// Those in sync lead, and if there are none those that were when the last one
		// left (KIP-966).
		places := cur.ISR
		if len(cur.ISR) == 0 {
			places = cur.ELR
		}
		i := slices.IndexFunc(places, func(m Member) bool { return m.Node == r.Node })
		switch {
		case i < 0:
			return cur, fmt.Errorf("broker %d is not in sync: %w", r.Node, ErrNotEligible)
		case places[i].Incarnation != r.Incarnation:
			// Another process, perhaps with less data than the one that earned
			// the place (SAFETY 2).
			return cur, fmt.Errorf("broker %d was in sync with incarnation %d, this is %d: %w", r.Node, places[i].Incarnation, r.Incarnation, ErrNotEligible)
		case places[i].DirID != "" && places[i].DirID != r.DirID:
			return cur, fmt.Errorf("broker %d was in sync with log dir %s, this is %s: %w", r.Node, places[i].DirID, r.DirID, ErrNotEligible)
		}
		if len(cur.ISR) == 0 {
			next.ISR, next.ELR = []Member{me}, nil
			break
		}
		next.ISR = slices.Clone(cur.ISR)
		next.ISR[i] = me
	}
	return next, nil
}
