package clients

import (
	"bytes"
	"context"
	"fmt"
)

// record is one record as a client was given it, or read it.
type record struct {
	Partition int32    `json:"partition"`
	Offset    int64    `json:"offset"`
	Timestamp int64    `json:"timestamp"` // milliseconds
	Key       []byte   `json:"key"`       // nil is null
	Value     []byte   `json:"value"`     // nil is null
	Headers   []header `json:"headers"`
}

type header struct {
	Key   string `json:"key"`
	Value []byte `json:"value"`
}

// client is one implementation of the Kafka protocol under test. Each call
// makes a new producer or consumer and closes it, so that two calls are two
// runs of an application.
type client interface {
	// name is short, for the names of tests, topics and groups.
	name() string
	// version says what exactly is being tested.
	version(ctx context.Context) (string, error)
	// lacks says what the client cannot write.
	lacks() lacks
	// produce writes records to their partitions in the given order, with
	// acks=all, and returns the offsets that the server gave them.
	produce(ctx context.Context, topic, codec string, records []record) ([]int64, error)
	// consume reads the first n records of all partitions, from the beginning.
	consume(ctx context.Context, topic string, n int) ([]record, error)
	// group joins a classic consumer group, reads n records, commits behind
	// exactly those, and leaves. A new group begins at the earliest offset.
	group(ctx context.Context, topic, group string, n int) ([]record, error)
	// seek looks a timestamp up in partition 0, the topic's only one, and reads n
	// records from there. It returns the offset that the lookup gave.
	seek(ctx context.Context, topic string, timestamp int64, n int) (int64, []record, error)
	close() error
}

// lacks are what a client cannot write, though the protocol can carry it. All
// clients read it.
type lacks struct {
	binary      bool // bytes that are not text, empty keys and values, several sets of headers a partition
	timestamps  bool // timestamps of its caller's choice
	nullHeaders bool // header values that are null
}

// difference says how two records differ, or nothing.
func difference(got, want record) string {
	switch {
	case got.Partition != want.Partition || got.Offset != want.Offset:
		return fmt.Sprintf("is at %d/%d, want %d/%d", got.Partition, got.Offset, want.Partition, want.Offset)
	case !same(got.Key, want.Key):
		return "key is " + brief(got.Key) + ", want " + brief(want.Key)
	case !same(got.Value, want.Value):
		return "value is " + brief(got.Value) + ", want " + brief(want.Value)
	case got.Timestamp != want.Timestamp:
		return fmt.Sprintf("timestamp is %d, want %d", got.Timestamp, want.Timestamp)
	case len(got.Headers) != len(want.Headers):
		return fmt.Sprintf("has %d headers, want %d", len(got.Headers), len(want.Headers))
	}
	for i, h := range got.Headers {
		if w := want.Headers[i]; h.Key != w.Key || !same(h.Value, w.Value) {
			return fmt.Sprintf("header %d is %q: %s, want %q: %s", i, h.Key, brief(h.Value), w.Key, brief(w.Value))
		}
	}
	return ""
}

// same tells null from empty.
func same(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

func brief(b []byte) string {
	switch {
	case b == nil:
		return "null"
	case len(b) > 40:
		return fmt.Sprintf("%q... (%d bytes)", b[:40], len(b))
	}
	return fmt.Sprintf("%q", b)
}
