package broker

// DeleteGroups (key 42), v0 to v3; KIP-229. v3 adds messages.

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/group"
)

func deleteGroups(_ context.Context, s *Server, r *Request) Reply {
	req := r.Body.(*kmsg.DeleteGroupsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteGroupsResponse)
	answers := map[int]group.Answer[error]{}
	fail := func(i int, code int16, err error) {
		if resp.Groups[i].ErrorCode = code; err != nil {
			why := err.Error()
			resp.Groups[i].ErrorMessage = &why
		}
	}
	for i, id := range req.Groups {
		if slices.Contains(req.Groups[:i], id) {
			continue
		}
		at := len(resp.Groups)
		rg := kmsg.NewDeleteGroupsResponseGroup()
		rg.Group = id
		resp.Groups = append(resp.Groups, rg)
		if !r.Conn.Allowed(kmsg.ACLOperationDelete, kmsg.ACLResourceTypeGroup, id) {
			fail(at, codeGroupDenied, nil)
			continue
		}
		a := s.cfg.Groups.Delete(id)
		if err, ok := a.Now(); ok {
			fail(at, groupCode(err), err)
			continue
		}
		answers[at] = a
	}
	if len(answers) == 0 {
		return Reply{Response: resp}
	}
	return Reply{Park: func(ctx context.Context) kmsg.Response {
		ctx, cancel := context.WithTimeout(ctx, journalTimeout)
		defer cancel()
		for i, a := range answers {
			err, late := a.Wait(ctx)
			if late != nil {
				err = late
			}
			fail(i, groupCode(err), err)
		}
		return resp
	}}
}
