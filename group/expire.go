package group

import (
	"time"

	"github.com/firnlog/firn/metadata"
)

// expired says whether an offset has outlived its retention. While a group has
// members, only offsets of topics that they do not read can expire; a group
// without members counts from when it became empty, one that never had any from
// the commit (KIP-211).
func (g *group) expired(tp topicPartition, c committed, now time.Time, retention time.Duration) bool {
	if g.state != Empty && (g.state != Stable || g.topics == nil || g.subscribed(tp.topic)) {
		return false
	}
	if c.expires >= 0 {
		return now.UnixMilli() >= c.expires
	}
	from := c.at
	if g.state == Empty && g.protocolType != "" && !g.since.IsZero() {
		from = g.since.UnixMilli()
	}
	return now.UnixMilli()-from >= retention.Milliseconds()
}

// idle says that nothing but its offsets keeps the group.
func (g *group) idle() bool {
	return g.state == Empty && len(g.pending) == 0 && g.commits == 0 && g.writing == 0 && !g.deleting
}

// sweepLocked journals the removal of what has expired: offsets by retention, and
// groups that are empty and have no offsets left.
func (s *shard) sweepLocked() {
	if s.status != nil {
		return
	}
	s.dropDeletedLocked(s.c.cfg.Cluster.Image().Tombstones())
	now, retention := s.c.cfg.Now(), s.c.cfg.Retention
	s.removeLocked(true, func(g *group, tp topicPartition, c committed) bool { return g.expired(tp, c, now, retention) })
}

// dropDeletedLocked journals the removal of offsets of topics that were deleted.
// Only a tombstone counts: a topic that is merely not there may be known later. An
// offset names its topic's id, so one of a topic that was made again under the
// same name stays.
func (s *shard) dropDeletedLocked(tombstones []metadata.Tombstone) {
	if len(tombstones) == 0 || s.status != nil {
		return
	}
	byID := make(map[[16]byte]struct{}, len(tombstones))
	byName := make(map[string]time.Time, len(tombstones))
	for _, t := range tombstones {
		byID[t.ID] = struct{}{}
		if t.At.After(byName[t.Name]) {
			byName[t.Name] = t.At
		}
	}
	s.removeLocked(false, func(_ *group, tp topicPartition, c committed) bool {
		if c.topicID != ([16]byte{}) {
			_, gone := byID[c.topicID]
			return gone
		}
		at, gone := byName[tp.topic]
		return gone && c.at <= at.UnixMilli()
	})
}

// removeLocked journals the removal of the offsets that gone names and, with
// groups, of every group that is idle and has no other offsets.
func (s *shard) removeLocked(groups bool, gone func(*group, topicPartition, committed) bool) {
	any := groups
	for _, g := range s.groups {
		for tp, c := range g.offsets {
			if any = any || gone(g, tp, c); any {
				break
			}
		}
	}
	if !any {
		return
	}
	type victim struct {
		g      *group
		tps    []topicPartition
		entire bool
	}
	var victims []victim
	s.enqueueLocked(&entry{
		prepare: func() (records []kv) {
			for _, g := range s.groups {
				if g.deleting {
					continue
				}
				v := victim{g: g}
				for tp, c := range g.offsets {
					if gone(g, tp, c) {
						v.tps = append(v.tps, tp)
						records = append(records, kv{key: offsetKey(g.id, tp)})
					}
				}
				v.entire = groups && g.idle() && len(v.tps) == len(g.offsets)
				if v.entire {
					g.deleting = true
					if g.journaled != nil {
						records = append(records, kv{key: groupKey(g.id)})
					}
				}
				if v.entire || len(v.tps) > 0 {
					victims = append(victims, v)
				}
			}
			return records
		},
		done: func(err error) {
			for _, v := range victims {
				if v.entire {
					v.g.deleting = false
				}
				if err != nil {
					continue
				}
				for _, tp := range v.tps {
					delete(v.g.offsets, tp)
				}
				s.c.metrics.expired.Add(float64(len(v.tps)))
				if v.entire && s.groups[v.g.id] == v.g {
					s.forgetLocked(v.g)
				}
			}
		},
	}, nil)
}
