package broker

// ListGroups (key 16), v0 to v5; KIP-518 (states from v4), KIP-848 (types from v5:
// all groups here are classic).

import (
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// classicGroup is the type of every group that is served.
const classicGroup = "classic"

func listGroups(_ context.Context, s *Server, r *Request) Reply {
	req := r.Body.(*kmsg.ListGroupsRequest)
	resp := req.ResponseKind().(*kmsg.ListGroupsResponse)
	resp.Groups = []kmsg.ListGroupsResponseGroup{}
	all, err := s.cfg.Groups.List()
	if err != nil {
		resp.ErrorCode = groupCode(err)
		return Reply{Response: resp}
	}
	everything := r.Conn.Allowed(kmsg.ACLOperationDescribe, kmsg.ACLResourceTypeCluster, clusterResource)
	for _, g := range all {
		if !wanted(req.StatesFilter, g.State.String()) || !wanted(req.TypesFilter, classicGroup) || !everything && !r.Conn.mayDescribeGroup(g.ID) {
			continue
		}
		rg := kmsg.NewListGroupsResponseGroup()
		rg.Group, rg.ProtocolType, rg.GroupState, rg.GroupType = g.ID, g.ProtocolType, g.State.String(), classicGroup
		resp.Groups = append(resp.Groups, rg)
	}
	return Reply{Response: resp}
}

// wanted says whether a filter lets value through; an empty one lets all.
func wanted(filter []string, value string) bool {
	return len(filter) == 0 || slices.ContainsFunc(filter, func(f string) bool { return strings.EqualFold(strings.TrimSpace(f), value) })
}
