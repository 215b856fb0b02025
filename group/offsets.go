package group

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// CommitRequest is an OffsetCommit. Group and the notes may point into a buffer of
// the caller's; the topics' names are kept.
type CommitRequest struct {
	Group      string
	MemberID   string
	InstanceID *string
	Generation int32 // -1: from outside of the group's membership
	// Retention is how long the client wants its offsets kept; negative: as long
	// as the broker does (OffsetCommit v2 to v4).
	Retention time.Duration
	Offsets   []Commit
}

// Commit is one offset to commit.
type Commit struct {
	Topic     string
	TopicID   [16]byte
	Partition int32
	Offset    int64
	Epoch     int32 // leader epoch, -1 unknown
	Metadata  string
}

// CommitResult is the answer to an OffsetCommit: Err for all of it, or one error
// for each offset.
type CommitResult struct {
	Err  error
	Errs []error
}

// mayCommit checks a commit against the group. A group without members takes
// commits from anybody; with members only theirs, and none before the new
// generation's assignment is known.
func (g *group) mayCommit(r *CommitRequest) error {
	if g.deleting {
		return ErrNotAvailable
	}
	if r.Generation < 0 && g.state == Empty {
		return nil
	}
	if r.Generation < 0 && r.MemberID == "" && r.InstanceID == nil {
		return ErrUnknownMember
	}
	m, err := g.find(r.MemberID, r.InstanceID)
	switch {
	case err != nil:
		return err
	case r.Generation != g.generation:
		return ErrIllegalGeneration
	case g.state == CompletingRebalance:
		return ErrRebalance
	}
	g.heard(m)
	return nil
}

// commitRecords turns the offsets that can be committed into records; the others
// get their error.
func (g *group) commitRecords(r *CommitRequest) (tps []topicPartition, cs []committed, errs []error) {
	now := g.h.now().UnixMilli()
	expires := int64(-1)
	if r.Retention >= 0 {
		expires = now + r.Retention.Milliseconds()
	}
	errs = make([]error, len(r.Offsets))
	for i, o := range r.Offsets {
		if len(o.Metadata) > min(g.h.limits().MaxMetadata, maxString) {
			errs[i] = ErrMetadataTooLarge
			continue
		}
		tps = append(tps, topicPartition{o.Topic, o.Partition})
		cs = append(cs, committed{offset: o.Offset, epoch: o.Epoch, metadata: strings.Clone(o.Metadata), at: now, expires: expires, topicID: o.TopicID})
	}
	return tps, cs, errs
}

// Offset is one committed offset, as OffsetFetch answers it. Offset is -1 where
// nothing is committed.
type Offset struct {
	Topic     string
	TopicID   [16]byte
	Partition int32
	Offset    int64
	Epoch     int32
	Metadata  string
}

// fetch returns the offsets of the partitions asked for, in their order, or with
// all those of every partition, sorted.
func (g *group) fetch(tps []topicPartition, all bool) []Offset {
	if all && g != nil {
		tps = slices.SortedFunc(maps.Keys(g.offsets), compareTopicPartitions)
	}
	out := make([]Offset, 0, len(tps))
	for _, tp := range tps {
		o := Offset{Topic: tp.topic, Partition: tp.partition, Offset: -1, Epoch: -1}
		if g != nil {
			if c, ok := g.offsets[tp]; ok {
				o.Offset, o.Epoch, o.Metadata, o.TopicID = c.offset, c.epoch, c.metadata, c.topicID
			}
		}
		out = append(out, o)
	}
	return out
}

func compareTopicPartitions(a, b topicPartition) int {
	if c := strings.Compare(a.topic, b.topic); c != 0 {
		return c
	}
	return int(a.partition) - int(b.partition)
}

// mayDelete checks that the group can be deleted now.
func (g *group) mayDelete() error {
	switch {
	case g.deleting:
		return ErrGroupNotFound
	case g.state != Empty:
		return ErrNonEmpty
	}
	return nil
}

// mayDeleteOffsets checks that offsets of the group can be deleted: with members
// only where it is known what they read.
func (g *group) mayDeleteOffsets() error {
	switch {
	case g.deleting:
		return ErrGroupNotFound
	case g.state != Empty && g.protocolType != consumerProtocol:
		return ErrNonEmpty
	}
	return nil
}
