package group

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/firnlog/firn/metadata"
)

// Topic is the internal topic that holds groups and their offsets.
const Topic = "__consumer_offsets"

// Cluster is what the coordinator needs of the metadata; metadata.Client meets it.
type Cluster interface {
	// Image is the newest state of the cluster that this broker has folded.
	Image() *metadata.Image
	// Subscribe pokes ch, without blocking, after every change of the image.
	Subscribe(ch chan<- struct{}) (cancel func())
	// EnsureTopic creates the topic unless it exists.
	EnsureTopic(ctx context.Context, n metadata.NewTopic) (*metadata.Topic, error)
}

// Config is what a Coordinator is made of.
type Config struct {
	Cluster Cluster
	// Partition finds this broker's replica of a partition of Topic, for as long
	// as it leads it. An error means not now.
	Partition func(partition int32) (Log, error)
	// Position says where the log of any topic's partition lies, for as long as this
	// broker leads it. Scrapes of the lag call it. Nil: no lag is told.
	Position func(tp metadata.TopicPartition) (p Position, ok bool)
	NodeID   int32
	Now      func() time.Time
	Logger   *slog.Logger
	// Registerer takes the metrics; nil: none.
	Registerer prometheus.Registerer
	// NewID makes the part of a member id that nobody can guess; nil: a random
	// UUID.
	NewID func() string
	// garbageForTest is minGarbage, smaller.
	garbageForTest int64

	Limits
}

// Limits are the broker configurations of groups.
type Limits struct {
	// MinSession and MaxSession bound a member's session timeout
	// (group.min.session.timeout.ms, group.max.session.timeout.ms).
	MinSession, MaxSession time.Duration
	// InitialDelay is how long an empty group waits for more members after its
	// first (group.initial.rebalance.delay.ms).
	InitialDelay time.Duration
	// MaxSize is the most members of a group (group.max.size).
	MaxSize int
	// MaxMetadata bounds the note on a committed offset, in bytes
	// (offset.metadata.max.bytes).
	MaxMetadata int
	// Retention is how long offsets stay once their group is empty
	// (offsets.retention.minutes), and RetentionCheck how often that is looked at
	// (offsets.retention.check.interval.ms).
	Retention, RetentionCheck time.Duration
	// Partitions and ReplicationFactor are those of Topic when it is made
	// (offsets.topic.num.partitions, offsets.topic.replication.factor, the latter
	// capped by the number of brokers), SegmentBytes its segment.bytes
	// (offsets.topic.segment.bytes).
	Partitions        int32
	ReplicationFactor int16
	SegmentBytes      int64
}

// LimitsOf reads the limits from a broker's configuration.
func LimitsOf(c metadata.BrokerConfig) Limits {
	ms := func(name string) time.Duration { return c.Duration(name, time.Millisecond) }
	return Limits{
		MinSession: ms("group.min.session.timeout.ms"), MaxSession: ms("group.max.session.timeout.ms"),
		InitialDelay: ms("group.initial.rebalance.delay.ms"), MaxSize: int(c.Int("group.max.size")),
		MaxMetadata: int(c.Int("offset.metadata.max.bytes")),
		Retention:   c.Duration("offsets.retention.minutes", time.Minute), RetentionCheck: ms("offsets.retention.check.interval.ms"),
		Partitions: int32(c.Int("offsets.topic.num.partitions")), ReplicationFactor: int16(c.Int("offsets.topic.replication.factor")),
		SegmentBytes: c.Int("offsets.topic.segment.bytes"),
	}
}

// newMemberJoinTimeout is how long a new member's JoinGroup may be parked: it
// cannot heartbeat yet, and a client that went away must not hold the group back
// for ever. Kafka's value.
const newMemberJoinTimeout = 5 * time.Minute

// Validate reports every fault at once.
func (c *Config) Validate() error {
	var errs []error
	need := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New(what))
		}
	}
	need(c.Cluster != nil, "Cluster is missing")
	need(c.Partition != nil, "Partition is missing")
	need(c.Now != nil, "Now is missing")
	need(c.Logger != nil, "Logger is missing")
	need(c.MinSession > 0 && c.MinSession <= c.MaxSession, fmt.Sprintf("session timeouts from %v to %v: want 0 < group.min.session.timeout.ms <= group.max.session.timeout.ms", c.MinSession, c.MaxSession))
	need(c.MaxSize > 0, "group.max.size must be at least 1")
	need(c.Retention > 0 && c.RetentionCheck > 0, "offsets.retention.minutes and offsets.retention.check.interval.ms must be at least 1")
	need(c.Partitions > 0, "offsets.topic.num.partitions must be at least 1")
	need(c.ReplicationFactor > 0, "offsets.topic.replication.factor must be at least 1")
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("group: %w", err)
	}
	return nil
}
