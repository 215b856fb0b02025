package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/metadata"
)

// CreatePartitions (37), versions 0 to 3.
//
// KIP-195. Left out: mutation quotas (KIP-599).
func (a *Admin) createPartitions(ctx context.Context, c Caller, req *kmsg.CreatePartitionsRequest) *kmsg.CreatePartitionsResponse {
	res := req.ResponseKind().(*kmsg.CreatePartitionsResponse)
	ctx, cancel := withinTimeout(ctx, req.TimeoutMillis)
	defer cancel()
	count := map[string]int{}
	for _, t := range req.Topics {
		count[t.Topic]++
	}
	var grown []*metadata.Topic
	for _, t := range req.Topics {
		n := count[t.Topic]
		if n == 0 {
			continue // answered at its first mention
		}
		count[t.Topic] = 0
		out := kmsg.NewCreatePartitionsResponseTopic()
		out.Topic = t.Topic
		var assignment [][]int32
		if t.Assignment != nil {
			assignment = make([][]int32, 0, len(t.Assignment))
			for _, a := range t.Assignment {
				assignment = append(assignment, a.Replicas)
			}
		}
		var err error
		switch {
		case n > 1:
			err = refusal(metadata.ErrInvalidRequest, "Duplicate topic name.")
		case !c.Allowed(kmsg.ACLOperationAlter, kmsg.ACLResourceTypeTopic, t.Topic):
			err = errTopicDenied
		default:
			err = a.Metadata.CreatePartitions(ctx, t.Topic, t.Count, assignment, req.ValidateOnly)
		}
		out.ErrorCode, out.ErrorMessage = explain(err)
		if topic, ok := a.Metadata.Image().TopicByName(t.Topic); ok && err == nil && !req.ValidateOnly {
			grown = append(grown, topic)
		}
		res.Topics = append(res.Topics, out)
	}
	a.awaitLeaders(ctx, grown)
	return res
}
