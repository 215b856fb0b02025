package broker

// SyncGroup (key 14), v0 to v5; KIP-345 (static members from v3), KIP-559 (protocol
// type and name, mandatory from v5).

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/group"
)

func syncGroup(_ context.Context, s *Server, r *Request) Reply {
	req := r.Body.(*kmsg.SyncGroupRequest)
	resp := req.ResponseKind().(*kmsg.SyncGroupResponse)
	resp.MemberAssignment = []byte{}
	switch {
	case r.Version >= 5 && (req.ProtocolType == nil || req.Protocol == nil):
		resp.ErrorCode = codeInconsistentProtocol
		return Reply{Response: resp}
	case !r.Conn.mayReadGroup(req.Group):
		resp.ErrorCode = codeGroupDenied
		return Reply{Response: resp}
	}
	q := group.SyncRequest{
		Group: req.Group, MemberID: req.MemberID, InstanceID: req.InstanceID, Generation: req.Generation,
		ProtocolType: req.ProtocolType, Protocol: req.Protocol, Assignments: make(map[string][]byte, len(req.GroupAssignment)),
	}
	for _, a := range req.GroupAssignment {
		q.Assignments[a.MemberID] = a.MemberAssignment
	}
	return later(s.cfg.Groups.Sync(q), 0, func(res group.SyncResult, err error) kmsg.Response {
		if err == nil {
			err = res.Err
		}
		resp.ErrorCode = groupCode(err)
		resp.ProtocolType, resp.Protocol = res.ProtocolType, res.Protocol
		if res.Assignment != nil {
			resp.MemberAssignment = res.Assignment
		}
		return resp
	})
}
