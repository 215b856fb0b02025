package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/metadata"
)

// Admin answers the requests that look at topics, configurations and the
// cluster, and change them. Each API has a file of its own.
type Admin struct {
	Metadata *metadata.Client
	NodeID   int32
	Replicas Replicas
	// Dirs are this broker's data dirs.
	Dirs []LogDir
	// BucketName and RemoteBytes describe the bucket: how many bytes it holds of
	// a partition. RemoteBytes is nil without a bucket.
	BucketName  string
	RemoteBytes func(tp metadata.TopicPartition) int64
	// Controller is the broker that coordinates the cluster now.
	Controller func(im *metadata.Image) int32
	// LeadersWait bounds how long an answer waits for new partitions to be led;
	// 0 does not wait. A second is plenty.
	LeadersWait time.Duration
}

// AdminVersions are the APIs that Admin answers, by key, with the lowest and the
// highest version of each.
var AdminVersions = map[int16][2]int16{
	19: {2, 7}, // CreateTopics
	20: {1, 6}, // DeleteTopics
	21: {0, 2}, // DeleteRecords
	29: {1, 3}, // DescribeAcls
	32: {1, 4}, // DescribeConfigs
	33: {0, 2}, // AlterConfigs
	35: {1, 5}, // DescribeLogDirs
	37: {0, 3}, // CreatePartitions
	44: {0, 1}, // IncrementalAlterConfigs
	60: {0, 2}, // DescribeCluster
	75: {0, 0}, // DescribeTopicPartitions
}

// Handle answers a request of one of AdminVersions, in the request's version.
func (a *Admin) Handle(ctx context.Context, c Caller, req kmsg.Request) kmsg.Response {
	switch req := req.(type) {
	case *kmsg.CreateTopicsRequest:
		return a.createTopics(ctx, c, req)
	case *kmsg.DeleteTopicsRequest:
		return a.deleteTopics(ctx, c, req)
	case *kmsg.DeleteRecordsRequest:
		return a.deleteRecords(ctx, c, req)
	case *kmsg.DescribeACLsRequest:
		return a.describeACLs(ctx, c, req)
	case *kmsg.DescribeConfigsRequest:
		return a.describeConfigs(ctx, c, req)
	case *kmsg.AlterConfigsRequest:
		return a.alterConfigs(ctx, c, req)
	case *kmsg.DescribeLogDirsRequest:
		return a.describeLogDirs(ctx, c, req)
	case *kmsg.CreatePartitionsRequest:
		return a.createPartitions(ctx, c, req)
	case *kmsg.IncrementalAlterConfigsRequest:
		return a.incrementalAlterConfigs(ctx, c, req)
	case *kmsg.DescribeClusterRequest:
		return a.describeCluster(ctx, c, req)
	case *kmsg.DescribeTopicPartitionsRequest:
		return a.describeTopicPartitions(ctx, c, req)
	}
	panic(fmt.Sprintf("BUG: %T is none of AdminVersions", req))
}

// Replicas is what Admin needs of the partitions on this broker.
type Replicas interface {
	// DeleteRecords raises a partition's log start; see
	// replication.Partition.DeleteRecords. It waits until that is durable, for as
	// long as ctx lives. Safe to call from many goroutines.
	DeleteRecords(ctx context.Context, topic string, partition int32, offset int64) (low int64, err error)
	// Each visits every open partition with its data dir and its bytes there.
	Each(visit func(tp metadata.TopicPartition, dir string, bytes int64))
}

// LogDir is one data dir.
type LogDir struct {
	Path string
	// Space says how many bytes are free and how many there are.
	Space func() (free, total int64, err error)
}

// Caller is who asks: what it may do, and where it reaches brokers.
type Caller interface {
	// Allowed says whether the caller may do op to a resource.
	Allowed(op kmsg.ACLOperation, kind kmsg.ACLResourceType, name string) bool
	// Address is where the caller reaches a broker: its listener of the name
	// that the caller came in by. An empty host when it has none.
	Address(b *metadata.Broker) (host string, port int32)
}

// clusterResource is the name of the one resource of type cluster.
const clusterResource = "kafka-cluster"

// operations is the bit set of what a caller may do (KIP-430).
func operations(c Caller, kind kmsg.ACLResourceType, name string) int32 {
	ops := []kmsg.ACLOperation{
		kmsg.ACLOperationRead, kmsg.ACLOperationWrite, kmsg.ACLOperationCreate, kmsg.ACLOperationDelete,
		kmsg.ACLOperationAlter, kmsg.ACLOperationDescribe, kmsg.ACLOperationDescribeConfigs, kmsg.ACLOperationAlterConfigs,
	}
	if kind == kmsg.ACLResourceTypeCluster {
		ops = []kmsg.ACLOperation{
			kmsg.ACLOperationCreate, kmsg.ACLOperationClusterAction, kmsg.ACLOperationDescribeConfigs, kmsg.ACLOperationAlterConfigs,
			kmsg.ACLOperationIdempotentWrite, kmsg.ACLOperationAlter, kmsg.ACLOperationDescribe,
		}
	}
	if kind == kmsg.ACLResourceTypeGroup {
		ops = []kmsg.ACLOperation{
			kmsg.ACLOperationRead, kmsg.ACLOperationDelete, kmsg.ACLOperationDescribe, kmsg.ACLOperationDescribeConfigs, kmsg.ACLOperationAlterConfigs,
		}
	}
	var set int32
	for _, op := range ops {
		if c.Allowed(op, kind, name) {
			set |= 1 << op
		}
	}
	return set
}

// Errors that only these requests have.
var (
	errTopicDenied         = errors.New("not authorized to access topics: [Topic authorization failed.]")
	errClusterDenied       = errors.New("cluster authorization failed")
	errDeletionDisabled    = errors.New("topic deletion is disabled (delete.topic.enable=false)")
	errSecurityDisabled    = errors.New("no authorizer is configured")
	errMismatchedEndpoint  = errors.New("the request was sent to an endpoint of the wrong type: this is a broker")
	errUnsupportedEndpoint = errors.New("unsupported endpoint type")
	errDirOffline          = errors.New("the data dir is offline")
	errNoLeader            = errors.New("there is no leader for this topic-partition as we are in the middle of a leadership election")
)

// withinTimeout bounds ctx by a request's own timeout.
func withinTimeout(ctx context.Context, timeoutMillis int32) (context.Context, context.CancelFunc) {
	if timeoutMillis <= 0 {
		timeoutMillis = 30_000
	}
	return context.WithTimeout(ctx, time.Duration(timeoutMillis)*time.Millisecond)
}

// refusal is a metadata.Refusal made here.
func refusal(kind error, reason string) error { return &metadata.Refusal{Kind: kind, Reason: reason} }

// explain is an error as an answer carries it.
func explain(err error) (code int16, message *string) {
	if err == nil {
		return 0, nil
	}
	msg := strings.TrimSpace(err.Error())
	return adminCode(err), &msg
}

// awaitLeaders waits a moment for new partitions to be led, so that the producer
// that follows its CreateTopics at once meets a leader.
func (a *Admin) awaitLeaders(ctx context.Context, topics []*metadata.Topic) {
	if len(topics) == 0 || a.LeadersWait == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, a.LeadersWait)
	defer cancel()
	// Not being led yet is no failure of the request: clients retry.
	_ = a.Metadata.Wait(ctx, func(im *metadata.Image) bool {
		for _, t := range topics {
			for n := range t.Partitions {
				if st, ok := im.Partition(t.ID, n); ok && st.Leader < 0 {
					return false
				}
			}
		}
		return true
	})
}
