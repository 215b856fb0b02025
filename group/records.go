package group

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// The journal's records are Kafka's: a key whose first two bytes say what it is,
// and a value, null where the thing is gone.
//
//	key 0, 1  group, topic, partition   OffsetCommitValue v1 (with an expiry) or v4 (with the topic id)
//	key 2     group                     GroupMetadataValue v3
//
// Other keys are newer than us. They are kept as they are, snapshots included.
const (
	keyOffset  = 1
	keyGroup   = 2
	valueGroup = 3
)

// maxString bounds what a client names: the journal's strings have lengths of 16
// bits, while requests of later versions carry longer ones. It leaves room for what
// is added to make a member id.
const maxString = 1<<15 - 1 - 64

// topicPartition names a partition as commits do.
type topicPartition struct {
	topic     string
	partition int32
}

// committed is one committed offset.
type committed struct {
	offset   int64
	epoch    int32 // -1 unknown
	metadata string
	at       int64    // unix ms of the commit
	expires  int64    // unix ms, -1 unless the client chose (OffsetCommit v2 to v4)
	topicID  [16]byte // zero when the record is of before topic ids
}

// kv is one record: a key and its value, nil where the thing is gone.
type kv struct{ key, value []byte }

func (r kv) size() int { return len(r.key) + len(r.value) }

// perRecord bounds what a record costs in a batch above its key and value.
const perRecord = 32

func offsetKey(group string, tp topicPartition) []byte {
	k := kmsg.OffsetCommitKey{Version: keyOffset, Group: group, Topic: tp.topic, Partition: tp.partition}
	return k.AppendTo(make([]byte, 0, 10+len(group)+len(tp.topic)))
}

func offsetRecord(group string, tp topicPartition, c committed) kv {
	v := kmsg.OffsetCommitValue{Version: 4, Offset: c.offset, LeaderEpoch: c.epoch, Metadata: c.metadata, CommitTimestamp: c.at, TopicID: c.topicID}
	if c.expires >= 0 {
		v.Version, v.ExpireTimestamp = 1, c.expires
	}
	return kv{offsetKey(group, tp), v.AppendTo(make([]byte, 0, 48+len(c.metadata)))}
}

func groupKey(group string) []byte {
	k := kmsg.GroupMetadataKey{Version: keyGroup, Group: group}
	return k.AppendTo(make([]byte, 0, 4+len(group)))
}

// encode is the group's record: its members with the assignments given, or with
// those they have. Of each member's protocols only the chosen one is kept.
func (g *group) encode(assignment map[string][]byte) []byte {
	v := kmsg.GroupMetadataValue{Version: valueGroup, ProtocolType: g.protocolType, Generation: g.generation, CurrentStateTimestamp: -1}
	if !g.since.IsZero() {
		v.CurrentStateTimestamp = g.since.UnixMilli()
	}
	if g.protocol != "" {
		v.Protocol = &g.protocol
	}
	if g.leader != "" {
		v.Leader = &g.leader
	}
	for _, m := range g.members {
		a := m.assignment
		if assignment != nil {
			a = assignment[m.id]
		}
		if a == nil {
			a = []byte{}
		}
		sub := m.metadata(g.protocol)
		if sub == nil {
			sub = []byte{}
		}
		v.Members = append(v.Members, kmsg.GroupMetadataValueMember{
			MemberID: m.id, InstanceID: m.instanceID, ClientID: m.clientID, ClientHost: m.host,
			RebalanceTimeoutMillis: int32(m.rebalanceTimeout.Milliseconds()), SessionTimeoutMillis: int32(m.sessionTimeout.Milliseconds()),
			Subscription: sub, Assignment: a,
		})
	}
	return v.AppendTo(nil)
}

// errUnknownKey is a record of a kind that this build does not know.
var errUnknownKey = errors.New("a key of a later version")

// decoded is what one record says. Exactly one of offset and group is meant, by
// kind; gone says that the value was null.
type decoded struct {
	kind   int16 // keyOffset or keyGroup
	group  string
	tp     topicPartition
	offset committed
	meta   kmsg.GroupMetadataValue
	gone   bool
}

// decode reads a record of the journal. It copies what it keeps. Errors:
// errUnknownKey, or what is wrong with the bytes.
func decode(key, value []byte) (d decoded, err error) {
	if len(key) < 2 {
		return d, errors.New("key is too short")
	}
	d.gone = value == nil
	switch version := int16(binary.BigEndian.Uint16(key)); version {
	case 0, keyOffset:
		d.kind = keyOffset
		var k kmsg.OffsetCommitKey
		if err := k.ReadFrom(key); err != nil {
			return d, fmt.Errorf("offset key: %w", err)
		}
		d.group, d.tp = k.Group, topicPartition{k.Topic, k.Partition}
		if d.gone {
			return d, nil
		}
		if v, err := valueVersion(value, 4); err != nil {
			return d, fmt.Errorf("offset value: v%d: %w", v, err)
		}
		var v kmsg.OffsetCommitValue
		if err := v.ReadFrom(value); err != nil {
			return d, fmt.Errorf("offset value: %w", err)
		}
		d.offset = committed{offset: v.Offset, epoch: -1, metadata: v.Metadata, at: v.CommitTimestamp, expires: -1, topicID: v.TopicID}
		if v.Version >= 3 {
			d.offset.epoch = v.LeaderEpoch
		}
		if v.Version == 1 && v.ExpireTimestamp != -1 {
			d.offset.expires = v.ExpireTimestamp
		}
		return d, nil
	case keyGroup:
		d.kind = keyGroup
		var k kmsg.GroupMetadataKey
		if err := k.ReadFrom(key); err != nil {
			return d, fmt.Errorf("group key: %w", err)
		}
		d.group = k.Group
		if d.gone {
			return d, nil
		}
		if v, err := valueVersion(value, 4); err != nil {
			return d, fmt.Errorf("group value: v%d: %w", v, err)
		}
		if err := d.meta.ReadFrom(value); err != nil {
			return d, fmt.Errorf("group value: %w", err)
		}
		return d, nil
	}
	return d, errUnknownKey
}

func valueVersion(value []byte, highest int16) (int16, error) {
	if len(value) < 2 {
		return -1, errors.New("value is too short")
	}
	v := int16(binary.BigEndian.Uint16(value))
	if v < 0 || v > highest {
		return v, errors.New("not a version that this build reads")
	}
	return v, nil
}

// restore makes the group what its record says: stable with members, else empty.
func (g *group) restore(v *kmsg.GroupMetadataValue) {
	*g = group{id: g.id, h: g.h, offsets: g.offsets, heap: g.heap, wake: g.wake, previous: Dead, state: Empty}
	g.generation = v.Generation
	g.protocolType = v.ProtocolType
	if v.Protocol != nil {
		g.protocol = *v.Protocol
	}
	if v.CurrentStateTimestamp >= 0 {
		g.since = time.UnixMilli(v.CurrentStateTimestamp)
	}
	for _, vm := range v.Members {
		if vm.MemberID == "" || g.byID[vm.MemberID] != nil {
			continue
		}
		session := time.Duration(vm.SessionTimeoutMillis) * time.Millisecond
		rebalance := session // records of before v1 had no timeout of their own
		if v.Version >= 1 {
			rebalance = time.Duration(vm.RebalanceTimeoutMillis) * time.Millisecond
		}
		g.add(&member{
			id: vm.MemberID, instanceID: vm.InstanceID, clientID: vm.ClientID, host: vm.ClientHost,
			sessionTimeout: session, rebalanceTimeout: rebalance,
			protocols: []Protocol{{g.protocol, vm.Subscription}}, assignment: vm.Assignment,
		}, v.ProtocolType)
		g.state = Stable
	}
	g.leader = ""
	if v.Leader != nil && g.byID[*v.Leader] != nil {
		g.leader = *v.Leader
	} else if len(g.members) > 0 {
		g.leader = g.members[0].id
	}
	g.readTopics()
}
