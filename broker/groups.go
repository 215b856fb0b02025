package broker

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/group"
)

// journalTimeout bounds how long a group request waits for the journal, as
// Kafka's offsets.commit.timeout.ms. What was asked may still be done.
const journalTimeout = 5 * time.Second

// later answers when a is there: at once, or parked. A timeout of 0 waits for as
// long as the connection lives.
func later[T any](a group.Answer[T], timeout time.Duration, fill func(T, error) kmsg.Response) Reply {
	if v, ok := a.Now(); ok {
		return Reply{Response: fill(v, nil)}
	}
	return Reply{Park: func(ctx context.Context) kmsg.Response {
		if timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, timeout)
			defer cancel()
		}
		return fill(a.Wait(ctx))
	}}
}

func millis(n int32) time.Duration { return time.Duration(n) * time.Millisecond }

// host is where the client of a connection is, in the form in which Kafka shows
// members.
func (c *Conn) host() string {
	h, _, err := splitHostPort(c.nc.RemoteAddr().String())
	if err != nil {
		return ""
	}
	return "/" + h
}

func (c *Conn) mayReadGroup(id string) bool {
	return c.Allowed(kmsg.ACLOperationRead, kmsg.ACLResourceTypeGroup, id)
}

func (c *Conn) mayDescribeGroup(id string) bool {
	return c.Allowed(kmsg.ACLOperationDescribe, kmsg.ACLResourceTypeGroup, id)
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
