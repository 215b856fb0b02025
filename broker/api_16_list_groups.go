package broker

// ListGroups (key 16), v0 to v5; KIP-518 (states from v4), KIP-848 (types from v5:
// all groups here are classic).

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/group"
)

// classicGroup is the type of every group that is served.
const classicGroup = "classic"

// listTimeout bounds how long a list waits for partitions that are being loaded.
const listTimeout = 5 * time.Second

func listGroups(_ context.Context, s *Server, r *Request) Reply {
	if all, err := s.cfg.Groups.List(); !errors.Is(err, group.ErrLoading) {
		return Reply{Response: s.listAnswer(r, all, err)}
	}
	return Reply{Wait: func(ctx context.Context) kmsg.Response {
		ctx, cancel := context.WithTimeout(ctx, listTimeout)
		defer cancel()
		// When that takes too long the list says so.
		_ = s.cfg.Groups.Loaded(ctx)
		all, err := s.cfg.Groups.List()
		return s.listAnswer(r, all, err)
	}}
}

func (s *Server) listAnswer(r *Request, all []group.Listed, err error) kmsg.Response {
	req := r.Body.(*kmsg.ListGroupsRequest)
	resp := req.ResponseKind().(*kmsg.ListGroupsResponse)
	resp.Groups = []kmsg.ListGroupsResponseGroup{}
	if err != nil {
		resp.ErrorCode = groupCode(err)
		return resp
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
	return resp
}

// wanted says whether a filter lets value through; an empty one lets all.
func wanted(filter []string, value string) bool {
	return len(filter) == 0 || slices.ContainsFunc(filter, func(f string) bool { return strings.EqualFold(strings.TrimSpace(f), value) })
}
