package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/metadata"
)

// CreateTopics (19), versions 2 to 7.
//
// KIP-195, KIP-464 (broker defaults with -1), KIP-525 (the answer carries the
// topic's configurations), KIP-516 (topic ids), KIP-361. Left out: mutation quotas
// (KIP-599).
func (a *Admin) createTopics(ctx context.Context, c Caller, req *kmsg.CreateTopicsRequest) *kmsg.CreateTopicsResponse {
	res := req.ResponseKind().(*kmsg.CreateTopicsResponse)
	ctx, cancel := withinTimeout(ctx, req.TimeoutMillis)
	defer cancel()
	count := map[string]int{}
	for _, t := range req.Topics {
		count[t.Topic]++
	}
	var made []*metadata.Topic
	for _, t := range req.Topics {
		n := count[t.Topic]
		if n == 0 {
			continue // answered at its first mention
		}
		count[t.Topic] = 0
		out := kmsg.NewCreateTopicsResponseTopic()
		out.Topic, out.NumPartitions, out.ReplicationFactor = t.Topic, -1, -1
		var topic *metadata.Topic
		var err error
		switch {
		case n > 1:
			err = refusal(metadata.ErrInvalidRequest, "Duplicate topic name.")
		case !c.Allowed(kmsg.ACLOperationCreate, kmsg.ACLResourceTypeTopic, t.Topic) && !c.Allowed(kmsg.ACLOperationCreate, kmsg.ACLResourceTypeCluster, clusterResource):
			err = errTopicDenied
		default:
			topic, err = a.createTopic(ctx, t, req.ValidateOnly)
		}
		if err != nil {
			out.ErrorCode, out.ErrorMessage = explain(err)
		} else {
			a.describeCreated(&out, topic)
			if !req.ValidateOnly {
				made = append(made, topic)
			}
		}
		res.Topics = append(res.Topics, out)
	}
	a.awaitLeaders(ctx, made)
	return res
}

func (a *Admin) createTopic(ctx context.Context, t kmsg.CreateTopicsRequestTopic, validateOnly bool) (*metadata.Topic, error) {
	n := metadata.NewTopic{Name: t.Topic, Partitions: t.NumPartitions, ReplicationFactor: t.ReplicationFactor, ValidateOnly: validateOnly}
	if len(t.ReplicaAssignment) > 0 {
		n.Assignment = map[int32][]int32{}
		for _, a := range t.ReplicaAssignment {
			if _, twice := n.Assignment[a.Partition]; twice {
				return nil, refusal(metadata.ErrInvalidAssignment, "Found multiple manual partition assignments for one partition")
			}
			n.Assignment[a.Partition] = a.Replicas
		}
	}
	n.Configs = map[string]string{}
	for _, kv := range t.Configs {
		if kv.Value == nil {
			return nil, refusal(metadata.ErrInvalidConfig, "Null value not supported for topic configs: "+kv.Name)
		}
		if _, twice := n.Configs[kv.Name]; twice {
			return nil, refusal(metadata.ErrInvalidRequest, "Configuration "+kv.Name+" is given twice")
		}
		n.Configs[kv.Name] = *kv.Value
	}
	return a.Metadata.CreateTopic(ctx, n)
}

// describeCreated fills what versions 5 and 7 added.
func (a *Admin) describeCreated(out *kmsg.CreateTopicsResponseTopic, t *metadata.Topic) {
	out.TopicID = t.ID
	out.NumPartitions, out.ReplicationFactor = t.Partitions, t.ReplicationFactor()
	for _, e := range a.Metadata.Image().Describe(t) {
		c := kmsg.NewCreateTopicsResponseTopicConfig()
		c.Name, c.ReadOnly, c.Source = e.Name, e.ReadOnly, int8(e.Source)
		if !e.Null {
			c.Value = &e.Value
		}
		out.Configs = append(out.Configs, c)
	}
}
