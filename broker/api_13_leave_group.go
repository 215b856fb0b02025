package broker

// LeaveGroup (key 13), v0 to v5; KIP-345 (several members, also by instance id, from
// v3), KIP-800 (reasons from v5).

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/group"
)

func leaveGroup(_ context.Context, s *Server, r *Request) Reply {
	req := r.Body.(*kmsg.LeaveGroupRequest)
	resp := req.ResponseKind().(*kmsg.LeaveGroupResponse)
	if !r.Conn.mayReadGroup(req.Group) {
		resp.ErrorCode = codeGroupDenied
		return Reply{Response: resp}
	}
	var leavers []group.Leaver
	if r.Version < 3 {
		leavers = []group.Leaver{{MemberID: req.MemberID}}
	}
	for _, m := range req.Members {
		leavers = append(leavers, group.Leaver{MemberID: m.MemberID, InstanceID: m.InstanceID, Reason: text(m.Reason)})
	}
	errs, err := s.cfg.Groups.Leave(req.Group, leavers)
	if err == nil && r.Version < 3 {
		err = errs[0]
	}
	resp.ErrorCode = groupCode(err)
	if err != nil || r.Version < 3 {
		return Reply{Response: resp}
	}
	for i, m := range req.Members {
		rm := kmsg.NewLeaveGroupResponseMember()
		rm.MemberID, rm.InstanceID, rm.ErrorCode = m.MemberID, m.InstanceID, groupCode(errs[i])
		resp.Members = append(resp.Members, rm)
	}
	return Reply{Response: resp}
}
