package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/metadata"
)

// IncrementalAlterConfigs (44), versions 0 and 1.
//
// KIP-339: set, delete, append to and subtract from lists, all or none of a
// resource. Topics, brokers and, with an empty broker name, cluster-wide defaults.
// An unknown operation is INVALID_REQUEST (Kafka's controller fails on it). Left
// out: loggers, client metrics and groups.
func (a *Admin) incrementalAlterConfigs(ctx context.Context, c Caller, req *kmsg.IncrementalAlterConfigsRequest) *kmsg.IncrementalAlterConfigsResponse {
	res := req.ResponseKind().(*kmsg.IncrementalAlterConfigsResponse)
	count := map[configResource]int{}
	for _, r := range req.Resources {
		count[configResource{r.ResourceType, r.ResourceName}]++
	}
	for _, r := range req.Resources {
		out := kmsg.NewIncrementalAlterConfigsResponseResource()
		out.ResourceType, out.ResourceName = r.ResourceType, r.ResourceName
		resource := configResource{r.ResourceType, r.ResourceName}
		err := a.mayAlter(c, resource, count[resource])
		if err == nil {
			err = a.changeConfigs(ctx, resource, r.Configs, req.ValidateOnly)
		}
		out.ErrorCode, out.ErrorMessage = explain(err)
		res.Resources = append(res.Resources, out)
	}
	return res
}

func (a *Admin) changeConfigs(ctx context.Context, r configResource, configs []kmsg.IncrementalAlterConfigsRequestResourceConfig, validateOnly bool) error {
	var changes []metadata.AlterConfig
	for _, kv := range configs {
		ch := metadata.AlterConfig{Name: kv.Name, Op: metadata.AlterOp(kv.Op)}
		switch {
		case kv.Value != nil:
			ch.Value = *kv.Value
		case ch.Op != metadata.OpDelete:
			return refusal(metadata.ErrInvalidRequest, "Null value not supported for: "+kv.Name)
		}
		changes = append(changes, ch)
	}
	if r.kind == kmsg.ConfigResourceTypeTopic {
		return a.Metadata.AlterTopicConfigs(ctx, r.name, changes, validateOnly)
	}
	node, err := brokerResource(r.name)
	if err != nil {
		return err
	}
	return a.Metadata.AlterBrokerConfigs(ctx, node, changes, validateOnly)
}
