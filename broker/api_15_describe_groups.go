package broker

// DescribeGroups (key 15), v0 to v6; KIP-345 (instance ids from v4), KIP-430
// (authorized operations from v3), KIP-1043 (GROUP_ID_NOT_FOUND from v6, where older
// versions see a dead group).

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/group"
)

func describeGroups(_ context.Context, s *Server, r *Request) Reply {
	req := r.Body.(*kmsg.DescribeGroupsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeGroupsResponse)
	for _, id := range req.Groups {
		resp.Groups = append(resp.Groups, s.describeGroup(r, req, id))
	}
	return Reply{Response: resp}
}

func (s *Server) describeGroup(r *Request, req *kmsg.DescribeGroupsRequest, id string) kmsg.DescribeGroupsResponseGroup {
	out := kmsg.NewDescribeGroupsResponseGroup()
	out.Group = id
	if !r.Conn.mayDescribeGroup(id) {
		out.ErrorCode = codeGroupDenied
		return out
	}
	d, err := s.cfg.Groups.Describe(id)
	switch {
	case errors.Is(err, group.ErrGroupNotFound):
		out.State = group.Dead.String()
		if r.Version >= 6 {
			why := fmt.Sprintf("Group %s not found.", id)
			out.ErrorCode, out.ErrorMessage = codeGroupIDNotFound, &why
			return out
		}
	case err != nil:
		out.ErrorCode = groupCode(err)
		return out
	default:
		out.State, out.ProtocolType, out.Protocol = d.State.String(), d.ProtocolType, d.Protocol
	}
	if req.IncludeAuthorizedOperations {
		out.AuthorizedOperations = operations(r.Conn, kmsg.ACLResourceTypeGroup, id)
	}
	for _, m := range d.Members {
		rm := kmsg.NewDescribeGroupsResponseGroupMember()
		rm.MemberID, rm.InstanceID, rm.ClientID, rm.ClientHost = m.ID, m.InstanceID, m.ClientID, m.Host
		rm.ProtocolMetadata, rm.MemberAssignment = orEmpty(m.Metadata), orEmpty(m.Assignment)
		out.Members = append(out.Members, rm)
	}
	return out
}

func orEmpty(p []byte) []byte {
	if p == nil {
		return []byte{}
	}
	return p
}
