package broker

import (
	"context"
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeCluster (60), versions 0 to 2.
//
// KIP-700, KIP-919 (endpoint type), KIP-1073 (fenced brokers; there are none).
// Asked for controllers it answers MISMATCHED_ENDPOINT_TYPE, as a Kafka broker
// does: the controller here is one of the brokers.
func (a *Admin) describeCluster(_ context.Context, c Caller, req *kmsg.DescribeClusterRequest) *kmsg.DescribeClusterResponse {
	res := req.ResponseKind().(*kmsg.DescribeClusterResponse)
	res.EndpointType, res.ControllerID, res.ClusterAuthorizedOperations = req.EndpointType, -1, math.MinInt32
	if req.Version == 0 {
		req.EndpointType = endpointBrokers
	}
	switch req.EndpointType {
	case endpointBrokers:
	case endpointControllers:
		res.ErrorCode, res.ErrorMessage = explain(errMismatchedEndpoint)
		return res
	default:
		res.ErrorCode, res.ErrorMessage = explain(errUnsupportedEndpoint)
		return res
	}
	im := a.Metadata.Image()
	res.ClusterID, res.ControllerID = im.ClusterID(), a.Controller(im)
	for _, b := range im.Brokers() {
		broker := kmsg.NewDescribeClusterResponseBroker()
		if broker.Host, broker.Port = c.Address(b); broker.Host == "" {
			continue // not on this listener
		}
		broker.NodeID = b.Node
		if b.Rack != "" {
			broker.Rack = &b.Rack
		}
		res.Brokers = append(res.Brokers, broker)
	}
	if req.IncludeClusterAuthorizedOperations {
		res.ClusterAuthorizedOperations = operations(c, kmsg.ACLResourceTypeCluster, clusterResource)
	}
	return res
}

// The endpoint types of KIP-919.
const (
	endpointBrokers     = 1
	endpointControllers = 2
)
