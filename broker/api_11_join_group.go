package broker

// JoinGroup (key 11), v0 to v9; KIP-62 (rebalance timeout from v1), KIP-345 (static
// members from v5), KIP-394 (a member id is required from v4), KIP-559 (protocol
// type from v7), KIP-800 (reasons from v8), KIP-814 (skipped assignment from v9).

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/group"
)

func joinGroup(_ context.Context, s *Server, r *Request) Reply {
	req := r.Body.(*kmsg.JoinGroupRequest)
	resp := req.ResponseKind().(*kmsg.JoinGroupResponse)
	resp.Generation, resp.MemberID = -1, req.MemberID
	if !r.Conn.mayReadGroup(req.Group) {
		resp.ErrorCode = codeGroupDenied
		return Reply{Response: resp}
	}
	q := group.JoinRequest{
		Group: req.Group, MemberID: req.MemberID, InstanceID: req.InstanceID, ClientID: r.ClientID, Host: r.Conn.host(),
		ProtocolType: req.ProtocolType, SessionTimeout: millis(req.SessionTimeoutMillis), RebalanceTimeout: millis(req.RebalanceTimeoutMillis),
		Reason: text(req.Reason), RequireMemberID: r.Version >= 4, SkipAssignment: r.Version >= 9,
	}
	if r.Version == 0 {
		q.RebalanceTimeout = q.SessionTimeout
	}
	for _, p := range req.Protocols {
		q.Protocols = append(q.Protocols, group.Protocol{Name: p.Name, Metadata: p.Metadata})
	}
	return later(s.cfg.Groups.Join(q), 0, func(res group.JoinResult, err error) kmsg.Response {
		if err != nil { // the connection is gone
			resp.ErrorCode = groupCode(err)
			return resp
		}
		resp.ErrorCode = groupCode(res.Err)
		resp.MemberID, resp.Generation, resp.LeaderID = res.MemberID, res.Generation, res.Leader
		resp.Protocol, resp.ProtocolType, resp.SkipAssignment = res.Protocol, res.ProtocolType, res.SkipAssignment
		for _, m := range res.Members {
			rm := kmsg.NewJoinGroupResponseMember()
			rm.MemberID, rm.InstanceID, rm.ProtocolMetadata = m.ID, m.InstanceID, m.Metadata
			resp.Members = append(resp.Members, rm)
		}
		return resp
	})
}
