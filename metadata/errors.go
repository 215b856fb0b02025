package metadata

import (
	"errors"
	"fmt"
)

// Refusal is an operation that was refused and changed nothing. Kind is one of
// the errors below; Reason is for the user who asked, in Kafka's words where
// Kafka has them.
type Refusal struct {
	Kind   error
	Reason string
}

func (r *Refusal) Error() string { return r.Reason }

// Unwrap makes it its Kind.
func (r *Refusal) Unwrap() error { return r.Kind }

func refuse(kind error, format string, args ...any) error {
	return &Refusal{Kind: kind, Reason: fmt.Sprintf(format, args...)}
}

// during says what was being done, except of a refusal, which says it all.
func during(err error, format string, args ...any) error {
	var r *Refusal
	if err == nil || errors.As(err, &r) {
		return err
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}

// Errors of the operations. The broker turns each into one Kafka code, named
// here.
var (
	// ErrInvalidTopicName: INVALID_TOPIC_EXCEPTION. Also for a name that differs
	// from an existing one only by '.' and '_'.
	ErrInvalidTopicName = errors.New("invalid topic name")
	// ErrTopicExists: TOPIC_ALREADY_EXISTS.
	ErrTopicExists = errors.New("topic already exists")
	// ErrUnknownTopic: UNKNOWN_TOPIC_OR_PARTITION.
	ErrUnknownTopic = errors.New("unknown topic or partition")
	// ErrUnknownTopicID: UNKNOWN_TOPIC_ID.
	ErrUnknownTopicID = errors.New("unknown topic id")
	// ErrInvalidPartitions: INVALID_PARTITIONS.
	ErrInvalidPartitions = errors.New("invalid number of partitions")
	// ErrInvalidReplicationFactor: INVALID_REPLICATION_FACTOR.
	ErrInvalidReplicationFactor = errors.New("invalid replication factor")
	// ErrInvalidAssignment: INVALID_REPLICA_ASSIGNMENT.
	ErrInvalidAssignment = errors.New("invalid replica assignment")
	// ErrInvalidConfig: INVALID_CONFIG.
	ErrInvalidConfig = errors.New("invalid configuration")
	// ErrInvalidRequest: INVALID_REQUEST.
	ErrInvalidRequest = errors.New("invalid request")
	// ErrUnknownBroker: BROKER_ID_NOT_REGISTERED, or INVALID_REQUEST where Kafka
	// answers so.
	ErrUnknownBroker = errors.New("unknown broker")
	// ErrNotEligible: this broker may not lead the partition now.
	ErrNotEligible = errors.New("not eligible to lead")
	// ErrSafeMode: the metadata went back or lost something; nothing is
	// elected, created or deleted until it is repaired.
	ErrSafeMode = errors.New("metadata is in safe mode")
	// ErrForeignCluster: the store belongs to another cluster.
	ErrForeignCluster = errors.New("metadata belongs to another cluster")
	// ErrNewerFormat: the store was written by a later major version.
	ErrNewerFormat = errors.New("metadata was written by a newer version")
	// ErrStaleIncarnation: another process of this broker has registered since.
	ErrStaleIncarnation = errors.New("a later incarnation of this broker is registered")
)
