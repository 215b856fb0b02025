package broker

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/metadata"
)

// AlterConfigs (33), versions 0 to 2.
//
// KIP-133. It replaces all of a resource's own configurations; KIP-339's
// IncrementalAlterConfigs is what new clients use. Topics, brokers and, with an
// empty broker name, cluster-wide defaults.
func (a *Admin) alterConfigs(ctx context.Context, c Caller, req *kmsg.AlterConfigsRequest) *kmsg.AlterConfigsResponse {
	res := req.ResponseKind().(*kmsg.AlterConfigsResponse)
	count := map[configResource]int{}
	for _, r := range req.Resources {
		count[configResource{r.ResourceType, r.ResourceName}]++
	}
	for _, r := range req.Resources {
		out := kmsg.NewAlterConfigsResponseResource()
		out.ResourceType, out.ResourceName = r.ResourceType, r.ResourceName
		resource := configResource{r.ResourceType, r.ResourceName}
		err := a.mayAlter(c, resource, count[resource])
		configs := map[string]string{}
		for _, kv := range r.Configs {
			if err == nil && kv.Value == nil {
				err = refusal(metadata.ErrInvalidRequest, "Null value not supported for: "+kv.Name)
			}
			if kv.Value != nil {
				configs[kv.Name] = *kv.Value
			}
		}
		if err == nil {
			err = a.replaceConfigs(ctx, resource, configs, req.ValidateOnly)
		}
		out.ErrorCode, out.ErrorMessage = explain(err)
		res.Resources = append(res.Resources, out)
	}
	return res
}

func (a *Admin) replaceConfigs(ctx context.Context, r configResource, configs map[string]string, validateOnly bool) error {
	if r.kind == kmsg.ConfigResourceTypeTopic {
		return a.Metadata.ReplaceTopicConfigs(ctx, r.name, configs, validateOnly)
	}
	node, err := brokerResource(r.name)
	if err != nil {
		return err
	}
	return a.Metadata.ReplaceBrokerConfigs(ctx, node, configs, validateOnly)
}

// configResource is what a configuration belongs to.
type configResource struct {
	kind kmsg.ConfigResourceType
	name string
}

// mayAlter checks the resource, the caller's right to it, and that the request
// names it once.
func (a *Admin) mayAlter(c Caller, r configResource, mentions int) error {
	switch r.kind {
	case kmsg.ConfigResourceTypeTopic:
		if r.name == "" {
			return refusal(metadata.ErrInvalidRequest, "Default topic resources are not allowed.")
		}
		if !c.Allowed(kmsg.ACLOperationAlterConfigs, kmsg.ACLResourceTypeTopic, r.name) {
			return errTopicDenied
		}
	case kmsg.ConfigResourceTypeBroker:
		if !c.Allowed(kmsg.ACLOperationAlterConfigs, kmsg.ACLResourceTypeCluster, clusterResource) {
			return errClusterDenied
		}
	default:
		return refusal(metadata.ErrInvalidRequest, fmt.Sprintf("Unsupported resource type: %d", r.kind))
	}
	if mentions > 1 {
		return refusal(metadata.ErrInvalidRequest, "Each resource must appear at most once.")
	}
	return nil
}
