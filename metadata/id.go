package metadata

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
)

// TopicID names a topic across deletion and recreation under the same name.
type TopicID [16]byte

// String is Kafka's form: URL-safe base64 without padding, 22 characters.
func (id TopicID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// Hex is the form used in folders and keys: 32 lower-case digits.
func (id TopicID) Hex() string { return hex.EncodeToString(id[:]) }

// IsZero says that the id names nothing.
func (id TopicID) IsZero() bool { return id == TopicID{} }

// MarshalText is Hex.
func (id TopicID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText reads Hex.
func (id *TopicID) UnmarshalText(p []byte) error {
	if len(p) != 2*len(id) {
		return fmt.Errorf("topic id %q: want %d hex digits", p, 2*len(id))
	}
	_, err := hex.Decode(id[:], p)
	return err
}

// ParseTopicID reads Kafka's form, and Hex.
func ParseTopicID(s string) (id TopicID, err error) {
	switch len(s) {
	case 22:
		p, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			return id, fmt.Errorf("topic id %q: %w", s, err)
		}
		return TopicID(p), nil
	case 32:
		return id, id.UnmarshalText([]byte(s))
	}
	return id, errors.New("topic id: want 22 characters of base64 or 32 of hex")
}

// TopicPartition names one partition. Topic is for people and for requests that
// name topics; identity is TopicID and Partition.
type TopicPartition struct {
	TopicID   TopicID
	Topic     string
	Partition int32
}

// String is topic-partition, as Kafka prints it.
func (tp TopicPartition) String() string { return fmt.Sprintf("%s-%d", tp.Topic, tp.Partition) }
