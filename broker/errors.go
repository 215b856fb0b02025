package broker

import (
	"context"
	"errors"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/fetch"
	"github.com/firnlog/firn/record"
	"github.com/firnlog/firn/replication"
)

// Kafka codes that handlers choose by themselves.
const (
	codeNone                    int16 = 0
	codeUnknownServerError      int16 = -1
	codeLeaderNotAvailable      int16 = 5
	codeInvalidTopic            int16 = 17
	codeUnknownTopic            int16 = 3
	codeInvalidRequiredAcks     int16 = 21
	codeCoordinatorNotAvailable int16 = 15
	codeUnsupportedVersion      int16 = 35
	codeInvalidRequest          int16 = 42
	codeTransactionalIDDenied   int16 = 53
	codeStorage                 int16 = 56
	codeInvalidRecord           int16 = 87
	codeUnknownTopicID          int16 = 100
)

// errUnknownTopicID is a partition named by an id that no topic has.
var errUnknownTopicID = errors.New("unknown topic id")

// errInvalidRequest is a request that contradicts itself.
var errInvalidRequest = errors.New("invalid request")

// dataCodes maps the errors of the data path. The order matters where one error
// wraps another.
var dataCodes = []struct {
	err  error
	code int16
}{
	{errUnknownTopicID, codeUnknownTopicID},
	{errInvalidRequest, codeInvalidRequest},
	{errAcks, codeInvalidRequiredAcks},
	{errInternalTopic, codeInvalidTopic},
	{errTransactional, codeTransactionalIDDenied},
	{errNoTxns, codeCoordinatorNotAvailable},
	{replication.ErrUnknownTopicOrPartition, codeUnknownTopic},
	{replication.ErrNotLeader, 6},           // NOT_LEADER_OR_FOLLOWER
	{replication.ErrFencedEpoch, 74},        // FENCED_LEADER_EPOCH
	{replication.ErrUnknownEpoch, 75},       // UNKNOWN_LEADER_EPOCH
	{replication.ErrNotEnoughReplicas, 19},  // NOT_ENOUGH_REPLICAS
	{replication.ErrOffsetOutOfRange, 1},    // OFFSET_OUT_OF_RANGE
	{commitlog.ErrOffsetOutOfRange, 1},      // OFFSET_OUT_OF_RANGE
	{replication.ErrPolicyViolation, 44},    // POLICY_VIOLATION
	{commitlog.ErrOutOfOrderSequence, 45},   // OUT_OF_ORDER_SEQUENCE_NUMBER
	{commitlog.ErrInvalidProducerEpoch, 47}, // INVALID_PRODUCER_EPOCH
	{commitlog.ErrOffsetOverflow, 87},       // INVALID_RECORD
	{commitlog.ErrEpochRegression, 6},       // NOT_LEADER_OR_FOLLOWER
	{commitlog.ErrNoSpace, 56},              // KAFKA_STORAGE_ERROR
	{commitlog.ErrOffline, 56},              // KAFKA_STORAGE_ERROR
	{commitlog.ErrDamaged, 56},              // KAFKA_STORAGE_ERROR
	{commitlog.ErrClosed, 6},                // NOT_LEADER_OR_FOLLOWER: the broker is stopping
	{commitlog.ErrBelowLocal, 56},           // KAFKA_STORAGE_ERROR
	{replication.ErrOffline, 56},            // KAFKA_STORAGE_ERROR
	{fetch.ErrColdRead, 56},                 // KAFKA_STORAGE_ERROR
	{fetch.ErrSessionNotFound, 70},          // FETCH_SESSION_ID_NOT_FOUND
	{fetch.ErrSessionEpoch, 71},             // INVALID_FETCH_SESSION_EPOCH
	{fetch.ErrSessionTopicID, 106},          // FETCH_SESSION_TOPIC_ID_ERROR
	{context.DeadlineExceeded, 7},           // REQUEST_TIMED_OUT
	{context.Canceled, 7},                   // REQUEST_TIMED_OUT
}

// recordCodes maps what record.ValidateProduced finds.
var recordCodes = map[record.Kind]int16{
	record.KindCorrupt:          2,
	record.KindInvalidRecord:    codeInvalidRecord,
	record.KindTooLarge:         10,
	record.KindInvalidTimestamp: 32,
	record.KindUnsupportedCodec: 76,
}

// codeOf is the Kafka code of any error.
func codeOf(err error) int16 {
	if err == nil {
		return codeNone
	}
	var invalid *record.ValidationError
	if errors.As(err, &invalid) {
		return recordCodes[invalid.Kind]
	}
	for _, m := range dataCodes {
		if errors.Is(err, m.err) {
			return m.code
		}
	}
	if code, ok := metadataCode(err); ok {
		return code
	}
	return codeUnknownServerError
}
