package broker

// Heartbeat (key 12), v0 to v4; KIP-345 (static members from v3).

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func heartbeat(_ context.Context, s *Server, r *Request) Reply {
	req := r.Body.(*kmsg.HeartbeatRequest)
	resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
	if !r.Conn.mayReadGroup(req.Group) {
		resp.ErrorCode = codeGroupDenied
		return Reply{Response: resp}
	}
	resp.ErrorCode = groupCode(s.cfg.Groups.Heartbeat(req.Group, req.MemberID, req.InstanceID, req.Generation))
	return Reply{Response: resp}
}
