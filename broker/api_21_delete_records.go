package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DeleteRecords (21), versions 0 to 2.
//
// KIP-107. -1 means the high watermark; an offset below the log start changes
// nothing and answers the log start, as in Kafka.
func (a *Admin) deleteRecords(ctx context.Context, c Caller, req *kmsg.DeleteRecordsRequest) *kmsg.DeleteRecordsResponse {
	res := req.ResponseKind().(*kmsg.DeleteRecordsResponse)
	for _, t := range req.Topics {
		out := kmsg.NewDeleteRecordsResponseTopic()
		out.Topic = t.Topic
		for _, p := range t.Partitions {
			part := kmsg.NewDeleteRecordsResponseTopicPartition()
			part.Partition, part.LowWatermark = p.Partition, -1
			low, err := a.deleteRecordsOf(c, t.Topic, p.Partition, p.Offset)
			if part.ErrorCode = adminCode(err); err == nil {
				part.LowWatermark = low
			}
			out.Partitions = append(out.Partitions, part)
		}
		res.Topics = append(res.Topics, out)
	}
	return res
}

func (a *Admin) deleteRecordsOf(c Caller, topic string, partition int32, offset int64) (int64, error) {
	if !c.Allowed(kmsg.ACLOperationDelete, kmsg.ACLResourceTypeTopic, topic) {
		return -1, errTopicDenied
	}
	return a.Replicas.DeleteRecords(topic, partition, offset)
}
