package broker

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/metadata"
)

// DescribeConfigs (32), versions 1 to 4.
//
// KIP-226 (sources and synonyms), KIP-569 (types and documentation). Topics,
// this broker, and with an empty broker name the dynamic cluster-wide defaults.
// Another broker's configuration is that broker's to tell, as in Kafka. Left out:
// loggers, client metrics and groups.
func (a *Admin) describeConfigs(_ context.Context, c Caller, req *kmsg.DescribeConfigsRequest) *kmsg.DescribeConfigsResponse {
	res := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
	for _, r := range req.Resources {
		out := kmsg.NewDescribeConfigsResponseResource()
		out.ResourceType, out.ResourceName = r.ResourceType, r.ResourceName
		entries, err := a.configsOf(c, r.ResourceType, r.ResourceName)
		out.ErrorCode, out.ErrorMessage = explain(err)
		for _, e := range entries {
			if len(r.ConfigNames) > 0 && !slices.Contains(r.ConfigNames, e.Name) {
				continue
			}
			out.Configs = append(out.Configs, describeConfig(e, req.IncludeSynonyms, req.IncludeDocumentation))
		}
		res.Resources = append(res.Resources, out)
	}
	return res
}

func (a *Admin) configsOf(c Caller, kind kmsg.ConfigResourceType, name string) ([]metadata.ConfigEntry, error) {
	im := a.Metadata.Image()
	switch kind {
	case kmsg.ConfigResourceTypeTopic:
		if !c.Allowed(kmsg.ACLOperationDescribeConfigs, kmsg.ACLResourceTypeTopic, name) {
			return nil, errTopicDenied
		}
		if err := metadata.CheckTopicName(name); err != nil {
			return nil, err
		}
		entries := im.DescribeTopic(name)
		if entries == nil {
			return nil, refusal(metadata.ErrUnknownTopic, "This server does not host this topic-partition.")
		}
		return entries, nil
	case kmsg.ConfigResourceTypeBroker:
		if !c.Allowed(kmsg.ACLOperationDescribeConfigs, kmsg.ACLResourceTypeCluster, clusterResource) {
			return nil, errClusterDenied
		}
		node, err := brokerResource(name)
		if err != nil {
			return nil, err
		}
		if node >= 0 && node != a.NodeID {
			return nil, refusal(metadata.ErrInvalidRequest, fmt.Sprintf("Unexpected broker id, expected %d or empty string, but received %s", a.NodeID, name))
		}
		return im.DescribeBroker(node), nil
	}
	return nil, refusal(metadata.ErrInvalidRequest, fmt.Sprintf("Unsupported resource type: %d", kind))
}

// brokerResource reads a broker resource's name; -1 is all brokers.
func brokerResource(name string) (int32, error) {
	if name == "" {
		return -1, nil
	}
	n, err := strconv.ParseInt(name, 10, 32)
	if err != nil || n < 0 {
		return 0, refusal(metadata.ErrInvalidRequest, "Broker id must be an integer, but it is: "+name)
	}
	return int32(n), nil
}

func describeConfig(e metadata.ConfigEntry, synonyms, doc bool) kmsg.DescribeConfigsResponseResourceConfig {
	out := kmsg.NewDescribeConfigsResponseResourceConfig()
	out.Name, out.ReadOnly = e.Name, e.ReadOnly
	out.Source, out.ConfigType = kmsg.ConfigSource(e.Source), kmsg.ConfigType(e.Type)
	if !e.Null {
		out.Value = &e.Value
	}
	if doc {
		out.Documentation = &e.Doc
	}
	if synonyms {
		for _, s := range e.Synonyms {
			syn := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
			syn.Name, syn.Value, syn.Source = s.Name, &s.Value, kmsg.ConfigSource(s.Source)
			out.ConfigSynonyms = append(out.ConfigSynonyms, syn)
		}
	}
	return out
}
