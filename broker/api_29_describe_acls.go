package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeAcls (29), versions 1 to 3.
//
// There is no authoriser yet, and the answer says so as Kafka does without one:
// SECURITY_DISABLED. MirrorMaker asks, and goes on.
func (a *Admin) describeACLs(_ context.Context, _ Caller, req *kmsg.DescribeACLsRequest) *kmsg.DescribeACLsResponse {
	res := req.ResponseKind().(*kmsg.DescribeACLsResponse)
	res.ErrorCode, res.ErrorMessage = explain(errSecurityDisabled)
	return res
}
