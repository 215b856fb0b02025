package broker

import (
	"context"
	"errors"

	"github.com/firnlog/firn/group"
)

// Codes that the group handlers choose by themselves.
const (
	codeIllegalGeneration    int16 = 22
	codeInconsistentProtocol int16 = 23
	codeInvalidGroupID       int16 = 24
	codeGroupIDNotFound      int16 = 69
	codeGroupDenied          int16 = 30
	codeTopicDenied          int16 = 29
)

// groupCodes maps what the group coordinator refuses with.
var groupCodes = []struct {
	err  error
	code int16
}{
	{group.ErrInvalidRequest, codeInvalidRequest},
	{group.ErrMetadataTooLarge, 12},      // OFFSET_METADATA_TOO_LARGE
	{group.ErrLoading, 14},               // COORDINATOR_LOAD_IN_PROGRESS
	{group.ErrNotAvailable, 15},          // COORDINATOR_NOT_AVAILABLE
	{group.ErrNotCoordinator, 16},        // NOT_COORDINATOR
	{group.ErrIllegalGeneration, 22},     // ILLEGAL_GENERATION
	{group.ErrInconsistentProtocol, 23},  // INCONSISTENT_GROUP_PROTOCOL
	{group.ErrInvalidGroupID, 24},        // INVALID_GROUP_ID
	{group.ErrUnknownMember, 25},         // UNKNOWN_MEMBER_ID
	{group.ErrInvalidSessionTimeout, 26}, // INVALID_SESSION_TIMEOUT
	{group.ErrRebalance, 27},             // REBALANCE_IN_PROGRESS
	{group.ErrCommitTooLarge, 28},        // INVALID_COMMIT_OFFSET_SIZE
	{group.ErrNonEmpty, 68},              // NON_EMPTY_GROUP
	{group.ErrGroupNotFound, 69},         // GROUP_ID_NOT_FOUND
	{group.ErrMemberIDRequired, 79},      // MEMBER_ID_REQUIRED
	{group.ErrMaxSize, 81},               // GROUP_MAX_SIZE_REACHED
	{group.ErrFencedInstance, 82},        // FENCED_INSTANCE_ID
	{group.ErrSubscribed, 86},            // GROUP_SUBSCRIBED_TO_TOPIC
	{group.ErrStateTooLarge, -1},         // UNKNOWN_SERVER_ERROR
	{context.DeadlineExceeded, 15},       // COORDINATOR_NOT_AVAILABLE: the journal takes too long
	{context.Canceled, 15},               // COORDINATOR_NOT_AVAILABLE: the broker is stopping
}

// groupCode is the Kafka code of an error of a group request.
func groupCode(err error) int16 {
	if err == nil {
		return codeNone
	}
	for _, m := range groupCodes {
		if errors.Is(err, m.err) {
			return m.code
		}
	}
	return codeOf(err)
}
