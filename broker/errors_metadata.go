package broker

import (
	"context"
	"errors"

	"github.com/firnlog/firn/metadata"
)

// metadataCodes maps the errors of metadata, and of the requests about it, to
// Kafka's codes. The order matters where one error is another, too.
var metadataCodes = []struct {
	err  error
	code int16
}{
	{metadata.ErrInvalidTopicName, 17},         // INVALID_TOPIC_EXCEPTION
	{metadata.ErrTopicExists, 36},              // TOPIC_ALREADY_EXISTS
	{metadata.ErrUnknownTopic, 3},              // UNKNOWN_TOPIC_OR_PARTITION
	{metadata.ErrUnknownTopicID, 100},          // UNKNOWN_TOPIC_ID
	{metadata.ErrInvalidPartitions, 37},        // INVALID_PARTITIONS
	{metadata.ErrInvalidReplicationFactor, 38}, // INVALID_REPLICATION_FACTOR
	{metadata.ErrInvalidAssignment, 39},        // INVALID_REPLICA_ASSIGNMENT
	{metadata.ErrInvalidConfig, 40},            // INVALID_CONFIG
	{metadata.ErrUnknownBroker, 42},            // INVALID_REQUEST, as Kafka answers for configurations
	{metadata.ErrInvalidRequest, 42},           // INVALID_REQUEST
	{metadata.ErrNotEligible, 6},               // NOT_LEADER_OR_FOLLOWER
	{metadata.ErrSafeMode, 41},                 // NOT_CONTROLLER: clients ask again, elsewhere or later
	{metadata.ErrInDoubt, 7},                   // REQUEST_TIMED_OUT
	{metadata.ErrConflict, 7},                  // REQUEST_TIMED_OUT: we ran out of time before we won
	{metadata.ErrUnavailable, 7},               // REQUEST_TIMED_OUT
	{context.DeadlineExceeded, 7},              // REQUEST_TIMED_OUT
	{context.Canceled, 7},                      // REQUEST_TIMED_OUT
	{errTopicDenied, 29},                       // TOPIC_AUTHORIZATION_FAILED
	{errClusterDenied, 31},                     // CLUSTER_AUTHORIZATION_FAILED
	{errDeletionDisabled, 73},                  // TOPIC_DELETION_DISABLED
	{errSecurityDisabled, 54},                  // SECURITY_DISABLED
	{errMismatchedEndpoint, 114},               // MISMATCHED_ENDPOINT_TYPE
	{errUnsupportedEndpoint, 115},              // UNSUPPORTED_ENDPOINT_TYPE
	{errDirOffline, 56},                        // KAFKA_STORAGE_ERROR
	{errNoLeader, 5},                           // LEADER_NOT_AVAILABLE
}

// metadataCode is the Kafka code of an error of metadata; ok is false for any
// other error.
func metadataCode(err error) (code int16, ok bool) {
	if err == nil {
		return 0, true
	}
	for _, m := range metadataCodes {
		if errors.Is(err, m.err) {
			return m.code, true
		}
	}
	return 0, false
}

// adminCode is the code of an error of an administrative request, which may come
// from the metadata or from the data path.
func adminCode(err error) int16 { return codeOf(err) }
