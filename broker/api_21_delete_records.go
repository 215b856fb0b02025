package broker

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// deletions is how many partitions of one request are at work at once. Each holds a
// goroutine while the bucket learns of its new log start.
const deletions = 64

// DeleteRecords (21), versions 0 to 2.
//
// KIP-107. -1 means the high watermark; an offset below the log start changes
// nothing and answers the log start, as in Kafka. The request's timeout is for all
// of its partitions together.
func (a *Admin) deleteRecords(ctx context.Context, c Caller, req *kmsg.DeleteRecordsRequest) *kmsg.DeleteRecordsResponse {
	res := req.ResponseKind().(*kmsg.DeleteRecordsResponse)
	ctx, cancel := withinTimeout(ctx, req.TimeoutMillis)
	defer cancel()
	turns := make(chan struct{}, deletions)
	var wg sync.WaitGroup
	var bug atomic.Pointer[any]
	for _, t := range req.Topics {
		out := kmsg.NewDeleteRecordsResponseTopic()
		out.Topic, out.Partitions = t.Topic, make([]kmsg.DeleteRecordsResponseTopicPartition, len(t.Partitions))
		for i, p := range t.Partitions {
			part := &out.Partitions[i]
			part.Default()
			part.Partition, part.LowWatermark = p.Partition, -1
			if !c.Allowed(kmsg.ACLOperationDelete, kmsg.ACLResourceTypeTopic, t.Topic) {
				part.ErrorCode = adminCode(errTopicDenied)
				continue
			}
			select {
			case turns <- struct{}{}:
			case <-ctx.Done():
				part.ErrorCode = adminCode(ctx.Err())
				continue
			}
			wg.Go(func() {
				defer func() {
					<-turns
					if p := recover(); p != nil {
						bug.Store(&p)
					}
				}()
				low, err := a.Replicas.DeleteRecords(ctx, t.Topic, p.Partition, p.Offset)
				if part.ErrorCode = adminCode(err); err == nil {
					part.LowWatermark = low
				}
			})
		}
		res.Topics = append(res.Topics, out)
	}
	wg.Wait()
	if p := bug.Load(); p != nil {
		panic(*p) // where it ends the connection, not the process
	}
	return res
}
