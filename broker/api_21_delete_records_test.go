package broker

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// bucketless are partitions whose log start cannot become durable.
type bucketless struct {
	fakeReplicas
	now, most atomic.Int64 // calls that wait
}

func (b *bucketless) DeleteRecords(ctx context.Context, _ string, _ int32, _ int64) (int64, error) {
	n := b.now.Add(1)
	defer b.now.Add(-1)
	for m := b.most.Load(); n > m && !b.most.CompareAndSwap(m, n); m = b.most.Load() {
	}
	<-ctx.Done()
	return -1, errors.Join(context.DeadlineExceeded, errors.New("no answer"))
}

// TestDeleteRecordsKeepsItsTimeout asks for many partitions while the bucket is
// down: all of them together take what the request allows, no more, and each says
// that it timed out. Few are at work at once.
func TestDeleteRecordsKeepsItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := &bucketless{}
		a := &Admin{Replicas: down}
		r := kmsg.NewPtrDeleteRecordsRequest()
		r.TimeoutMillis = 700
		for _, topic := range []string{"t", "u"} {
			rt := kmsg.DeleteRecordsRequestTopic{Topic: topic}
			for n := range int32(500) {
				rt.Partitions = append(rt.Partitions, kmsg.DeleteRecordsRequestTopicPartition{Partition: n, Offset: 5})
			}
			r.Topics = append(r.Topics, rt)
		}
		begun := time.Now()
		res := askAdmin[*kmsg.DeleteRecordsResponse](t, a, everyone{}, 2, r)
		if took := time.Since(begun); took != 700*time.Millisecond {
			t.Errorf("it took %v, the request allows 700ms", took)
		}
		for i, topic := range res.Topics {
			if topic.Topic != r.Topics[i].Topic || len(topic.Partitions) != 500 {
				t.Fatalf("topic %d: %s with %d partitions", i, topic.Topic, len(topic.Partitions))
			}
			for n, p := range topic.Partitions {
				if p.Partition != int32(n) || codeName(p.ErrorCode) != "REQUEST_TIMED_OUT" || p.LowWatermark != -1 {
					t.Fatalf("%s, partition %d: %+v", topic.Topic, n, p)
				}
			}
		}
		if m := down.most.Load(); m < 2 || m > deletions {
			t.Errorf("%d partitions were at work at once, want up to %d", m, deletions)
		}
	})
}

// broken panics for one partition.
type broken struct{ fakeReplicas }

func (broken) DeleteRecords(_ context.Context, _ string, n int32, _ int64) (int64, error) {
	if n == 3 {
		panic("a bug")
	}
	return 0, nil
}

// TestABugInOnePartitionEndsOnlyItsConnection: the panic comes out of Handle, where
// the connection catches it.
func TestABugInOnePartitionEndsOnlyItsConnection(t *testing.T) {
	r := kmsg.NewPtrDeleteRecordsRequest()
	rt := kmsg.DeleteRecordsRequestTopic{Topic: "t"}
	for n := range int32(5) {
		rt.Partitions = append(rt.Partitions, kmsg.DeleteRecordsRequestTopicPartition{Partition: n})
	}
	r.Topics = append(r.Topics, rt)
	defer func() {
		if p := recover(); p != "a bug" {
			t.Errorf("%v came out", p)
		}
	}()
	(&Admin{Replicas: broken{}}).Handle(t.Context(), everyone{}, r)
}
