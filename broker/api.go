package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Request is one decoded request.
type Request struct {
	Key, Version  int16
	CorrelationID int32
	ClientID      string
	Conn          *Conn
	Body          kmsg.Request
}

// Reply says how a request is answered.
type Reply struct {
	// Response is the answer when it is ready. With no Response, Wait or Park the
	// request has no answer (Produce with acks=0).
	Response kmsg.Response
	// Wait makes an answer that is not ready yet. It runs in a goroutine of the
	// connection; answers still leave in the order of the requests.
	Wait func(ctx context.Context) kmsg.Response
	// Park is Wait for an answer that comes by itself: what makes it is at work
	// already, and there is only to wait. The connection's writer runs it when its
	// turn comes, so a parked request takes no goroutine.
	Park func(ctx context.Context) kmsg.Response
	// Close closes the connection once everything before is answered.
	Close bool
}

// handler answers one request. It runs on the connection's reader, in order of
// arrival, so it must not block: whatever may wait goes into Reply.Wait.
type handler func(ctx context.Context, s *Server, r *Request) Reply

// api is a row of the table.
type api struct {
	name     string
	min, max int16 // served
	handle   handler
	// advertised is the lowest advertised version; it differs from min for
	// Produce only.
	advertised int16
	note       string
	// bulky says which requests may have an answer that is much larger than they
	// are; nil for none.
	bulky func(kmsg.Request) bool
}

// maxKey bounds the keys of the table.
const maxKey = 100

// apis is the table of everything that clients may ask, by key. To add an API,
// write its file and give it a row here.
var apis [maxKey]*api

func init() {
	t := &apis
	t[0] = &api{name: "Produce", min: 3, max: 13, handle: produce,
		note: "advertised from v0, or librdkafka stops compressing; v0 to v2 close the connection"}
	t[1] = &api{name: "Fetch", min: 4, max: 18, handle: fetchRecords}
	t[2] = &api{name: "ListOffsets", min: 1, max: 11, handle: listOffsets}
	t[3] = &api{name: "Metadata", min: 0, max: 13, handle: describeMetadata}
	t[8] = &api{name: "OffsetCommit", min: 2, max: 10, handle: offsetCommit}
	t[9] = &api{name: "OffsetFetch", min: 1, max: 10, handle: offsetFetch}
	t[10] = &api{name: "FindCoordinator", min: 0, max: 6, handle: findCoordinator,
		note: "groups and transactions; the coordinator of share groups is refused with INVALID_REQUEST"}
	t[11] = &api{name: "JoinGroup", min: 0, max: 9, handle: joinGroup}
	t[12] = &api{name: "Heartbeat", min: 0, max: 4, handle: heartbeat}
	t[13] = &api{name: "LeaveGroup", min: 0, max: 5, handle: leaveGroup}
	t[14] = &api{name: "SyncGroup", min: 0, max: 5, handle: syncGroup}
	t[15] = &api{name: "DescribeGroups", min: 0, max: 6, handle: describeGroups}
	t[16] = &api{name: "ListGroups", min: 0, max: 5, handle: listGroups, note: "all groups are classic"}
	t[18] = &api{name: "ApiVersions", min: 0, max: 4, handle: apiVersions,
		note: "any other version is answered in the body of v0 with UNSUPPORTED_VERSION"}
	t[22] = &api{name: "InitProducerId", min: 0, max: 5, handle: initProducerID,
		note: "idempotent producers; a transactional id answers COORDINATOR_NOT_AVAILABLE"}
	t[23] = &api{name: "OffsetForLeaderEpoch", min: 2, max: 4, handle: offsetForLeaderEpoch}
	t[42] = &api{name: "DeleteGroups", min: 0, max: 3, handle: deleteGroups}
	t[47] = &api{name: "OffsetDelete", min: 0, max: 0, handle: offsetDelete}
	for key, v := range AdminVersions {
		t[key] = &api{name: kmsg.NameForKey(key), min: v[0], max: v[1], handle: administer}
	}
	for _, key := range []int{9, 15, 16, 32, 35, 75} {
		t[key].bulky = func(kmsg.Request) bool { return true }
	}
	t[3].bulky = bulkyMetadata
	for key, a := range t {
		if a != nil && key != 0 {
			a.advertised = a.min
		}
	}
}

// administer passes a request to Admin. Those may wait for the metadata.
func administer(_ context.Context, s *Server, r *Request) Reply {
	return Reply{Wait: func(ctx context.Context) kmsg.Response { return s.cfg.Admin.Handle(ctx, r.Conn, r.Body) }}
}

// apiVersions answers ApiVersions (key 18), v0 to v4; KIP-35, KIP-511. Features
// (KIP-584) are empty: there are none to negotiate yet.
func apiVersions(_ context.Context, _ *Server, r *Request) Reply {
	req := r.Body.(*kmsg.ApiVersionsRequest)
	resp := req.ResponseKind().(*kmsg.ApiVersionsResponse)
	if r.Version >= 3 {
		if !validSoftware(req.ClientSoftwareName) || !validSoftware(req.ClientSoftwareVersion) {
			resp.ErrorCode = codeInvalidRequest // (KIP-511)
			return Reply{Response: resp}
		}
		r.Conn.software = req.ClientSoftwareName + " " + req.ClientSoftwareVersion
	}
	resp.ApiKeys = advertised()
	return Reply{Response: resp}
}

// unsupportedApiVersions is the answer to a version of ApiVersions that we do not
// know: v0, naming only what we do, so that the client asks again.
func unsupportedApiVersions() kmsg.Response {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.ErrorCode = codeUnsupportedVersion
	k := kmsg.NewApiVersionsResponseApiKey()
	k.ApiKey, k.MinVersion, k.MaxVersion = 18, apis[18].advertised, apis[18].max
	resp.ApiKeys = append(resp.ApiKeys, k)
	return resp
}

func advertised() []kmsg.ApiVersionsResponseApiKey {
	var keys []kmsg.ApiVersionsResponseApiKey
	for key, a := range apis {
		if a == nil {
			continue
		}
		k := kmsg.NewApiVersionsResponseApiKey()
		k.ApiKey, k.MinVersion, k.MaxVersion = int16(key), a.advertised, a.max
		keys = append(keys, k)
	}
	return keys
}

// validSoftware is KIP-511's pattern for a client's name and version.
func validSoftware(s string) bool {
	ok := func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
	}
	if s == "" || !ok(s[0]) || !ok(s[len(s)-1]) {
		return false
	}
	for i := range len(s) {
		if !ok(s[i]) && s[i] != '-' && s[i] != '.' {
			return false
		}
	}
	return true
}
