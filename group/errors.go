package group

import "errors"

// What a request can be refused with. The broker turns each into one Kafka code.
var (
	// ErrInvalidGroupID means the group id is empty where that is not allowed, or
	// longer than the journal can hold.
	ErrInvalidGroupID = errors.New("the group id is invalid")
	// ErrInvalidRequest means a string of the request is longer than the journal
	// can hold.
	ErrInvalidRequest = errors.New("a string of the request is too long")
	// ErrNotCoordinator means this broker does not lead the group's partition.
	ErrNotCoordinator = errors.New("this is not the group's coordinator")
	// ErrLoading means the group's partition is still being read.
	ErrLoading = errors.New("the coordinator is loading the group")
	// ErrNotAvailable means the coordinator cannot answer now and the client
	// should find it again: it is closing, overloaded, or the group is just
	// being deleted.
	ErrNotAvailable = errors.New("the group's coordinator is not available")
	// ErrUnknownMember means the group does not know the member.
	ErrUnknownMember = errors.New("the group does not know this member")
	// ErrIllegalGeneration means the request is of another generation.
	ErrIllegalGeneration = errors.New("the group's generation is another")
	// ErrRebalance means the member has to join again, or the assignment of the
	// new generation is not known yet.
	ErrRebalance = errors.New("the group is rebalancing")
	// ErrInconsistentProtocol means the member shares no protocol with the others,
	// or names another protocol or type than the group's (KIP-559).
	ErrInconsistentProtocol = errors.New("the group's protocol is incompatible with the member's")
	// ErrInvalidSessionTimeout means the session timeout is outside of
	// group.min.session.timeout.ms and group.max.session.timeout.ms.
	ErrInvalidSessionTimeout = errors.New("the session timeout is not within the broker's bounds")
	// ErrFencedInstance means another member has taken over the static instance
	// id (KIP-345).
	ErrFencedInstance = errors.New("another member has this group instance id")
	// ErrMemberIDRequired hands out a member id to join with (KIP-394).
	ErrMemberIDRequired = errors.New("join again with the member id given")
	// ErrMaxSize means the group has group.max.size members.
	ErrMaxSize = errors.New("the group is full (group.max.size)")
	// ErrMetadataTooLarge means a commit's note is above offset.metadata.max.bytes.
	ErrMetadataTooLarge = errors.New("the offset's metadata is too large (offset.metadata.max.bytes)")
	// ErrCommitTooLarge means a commit does not fit into one record batch.
	ErrCommitTooLarge = errors.New("the commit does not fit into one record batch")
	// ErrStateTooLarge means a group's members do not fit into one record batch.
	ErrStateTooLarge = errors.New("the group's members do not fit into one record batch")
	// ErrGroupNotFound means there is no such group.
	ErrGroupNotFound = errors.New("the group does not exist")
	// ErrNonEmpty means the group has members, and what was asked needs none.
	ErrNonEmpty = errors.New("the group is not empty")
	// ErrSubscribed means the group's members are subscribed to the topic.
	ErrSubscribed = errors.New("the group is subscribed to the topic")
)
