package broker

import (
	"context"
	"math"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/metadata"
)

// DescribeTopicPartitions (75), version 0.
//
// KIP-966. Topics come sorted by name, at most as many partitions as the request
// and max.request.partition.size.limit allow; a cursor says where the next request
// goes on. No topics asked for means all.
func (a *Admin) describeTopicPartitions(_ context.Context, c Caller, req *kmsg.DescribeTopicPartitionsRequest) *kmsg.DescribeTopicPartitionsResponse {
	res := req.ResponseKind().(*kmsg.DescribeTopicPartitionsResponse)
	im := a.Metadata.Image()
	all := len(req.Topics) == 0
	var names []string
	if all {
		for _, t := range im.Topics() {
			names = append(names, t.Name)
		}
	}
	for _, t := range req.Topics {
		names = append(names, t.Topic)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	from := int32(0)
	if cur := req.Cursor; cur != nil {
		names = slices.DeleteFunc(names, func(n string) bool { return n < cur.Topic })
		// The topic of the cursor may be gone; then its successor is read whole.
		if len(names) > 0 && names[0] == cur.Topic {
			from = max(cur.Partition, 0)
		}
	}
	left := int32(im.BrokerConfig().Int("max.request.partition.size.limit"))
	if req.ResponsePartitionLimit > 0 {
		left = min(left, req.ResponsePartitionLimit)
	}
	for _, name := range names {
		if left == 0 {
			res.NextCursor = nextCursor(name, 0)
			break
		}
		out := kmsg.NewDescribeTopicPartitionsResponseTopic()
		out.Topic, out.AuthorizedOperations = &name, math.MinInt32
		t, known := im.TopicByName(name)
		switch {
		case !c.Allowed(kmsg.ACLOperationDescribe, kmsg.ACLResourceTypeTopic, name):
			if all {
				continue
			}
			out.ErrorCode = adminCode(errTopicDenied)
		case metadata.CheckTopicName(name) != nil:
			out.ErrorCode = adminCode(metadata.ErrInvalidTopicName)
		case !known:
			out.ErrorCode = adminCode(metadata.ErrUnknownTopic)
		default:
			out.TopicID, out.IsInternal = t.ID, t.Internal
			out.AuthorizedOperations = operations(c, kmsg.ACLResourceTypeTopic, name)
			for n := from; n < t.Partitions && left > 0; n++ {
				out.Partitions = append(out.Partitions, describePartition(im, t, n))
				left--
			}
			if end := from + int32(len(out.Partitions)); end < t.Partitions {
				res.NextCursor = nextCursor(name, end)
			}
		}
		from = 0
		res.Topics = append(res.Topics, out)
		if res.NextCursor != nil {
			break
		}
	}
	return res
}

func nextCursor(topic string, partition int32) *kmsg.DescribeTopicPartitionsResponseNextCursor {
	return &kmsg.DescribeTopicPartitionsResponseNextCursor{Topic: strings.Clone(topic), Partition: partition}
}

func describePartition(im *metadata.Image, t *metadata.Topic, n int32) kmsg.DescribeTopicPartitionsResponseTopicPartition {
	st, _ := im.Partition(t.ID, n)
	p := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
	p.Partition, p.LeaderID, p.LeaderEpoch, p.Replicas = n, st.Leader, st.LeaderEpoch, st.Replicas
	p.ISR, p.EligibleLeaderReplicas, p.LastKnownELR = []int32{}, []int32{}, []int32{}
	for _, m := range st.ISR {
		p.ISR = append(p.ISR, m.Node)
	}
	for _, m := range st.ELR {
		p.EligibleLeaderReplicas = append(p.EligibleLeaderReplicas, m.Node)
	}
	if st.Leader < 0 {
		p.ErrorCode = adminCode(errNoLeader)
	}
	for _, r := range st.Replicas {
		if _, up := im.Broker(r); !up {
			p.OfflineReplicas = append(p.OfflineReplicas, r)
		}
	}
	return p
}
