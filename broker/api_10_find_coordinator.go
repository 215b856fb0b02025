package broker

// FindCoordinator (key 10), v0 to v6; KIP-98 (transactions, from v1), KIP-699
// (several keys from v4). The first question for a group makes the topic
// __consumer_offsets. Left out: share groups (v6), which have no coordinator here:
// INVALID_REQUEST, as from a Kafka without one.

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	coordinatorOfGroup       = 0
	coordinatorOfTransaction = 1
)

// findTimeout bounds how long a client waits for its coordinator to have loaded.
const findTimeout = 5 * time.Second

func findCoordinator(_ context.Context, s *Server, r *Request) Reply {
	req := r.Body.(*kmsg.FindCoordinatorRequest)
	return Reply{Wait: func(ctx context.Context) kmsg.Response {
		ctx, cancel := context.WithTimeout(ctx, findTimeout)
		defer cancel()
		resp := req.ResponseKind().(*kmsg.FindCoordinatorResponse)
		if r.Version >= 4 {
			for _, key := range req.CoordinatorKeys {
				resp.Coordinators = append(resp.Coordinators, s.coordinatorOf(ctx, r, req.CoordinatorType, key))
			}
			return resp
		}
		c := s.coordinatorOf(ctx, r, req.CoordinatorType, req.CoordinatorKey)
		resp.ErrorCode, resp.ErrorMessage, resp.NodeID, resp.Host, resp.Port = c.ErrorCode, c.ErrorMessage, c.NodeID, c.Host, c.Port
		return resp
	}}
}

func (s *Server) coordinatorOf(ctx context.Context, r *Request, kind int8, key string) kmsg.FindCoordinatorResponseCoordinator {
	c := kmsg.NewFindCoordinatorResponseCoordinator()
	c.Key, c.NodeID, c.Port = key, -1, -1
	refuse := func(code int16, why string) kmsg.FindCoordinatorResponseCoordinator {
		c.ErrorCode, c.ErrorMessage = code, &why
		return c
	}
	node := s.cfg.NodeID
	switch kind {
	case coordinatorOfGroup:
		if !r.Conn.mayDescribeGroup(key) {
			return refuse(codeGroupDenied, "not authorized to access the group")
		}
		var err error
		if node, err = s.cfg.Groups.Find(ctx, key); err != nil {
			// Whatever it is, there is none to be had now; clients ask again.
			return refuse(codeCoordinatorNotAvailable, err.Error())
		}
	case coordinatorOfTransaction:
		if !r.Conn.Allowed(kmsg.ACLOperationDescribe, kmsg.ACLResourceTypeTransactionalId, key) {
			return refuse(codeTransactionalIDDenied, "not authorized to access the transactional id")
		}
	default:
		return refuse(codeInvalidRequest, fmt.Sprintf("there is no coordinator of type %d", kind))
	}
	b, ok := s.cfg.Metadata.Image().Broker(node)
	if !ok {
		return refuse(codeCoordinatorNotAvailable, fmt.Sprintf("broker %d is not registered", node))
	}
	if c.Host, c.Port = r.Conn.Address(b); c.Host == "" {
		c.Port = -1
		return refuse(codeCoordinatorNotAvailable, fmt.Sprintf("broker %d cannot be reached from this listener", node))
	}
	c.NodeID = node
	return c
}
