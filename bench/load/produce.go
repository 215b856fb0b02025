package load

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func produceRequest(o Options, partition int32, batch []byte) []byte {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = 9, o.Acks, 30_000
	t := kmsg.NewProduceRequestTopic()
	t.Topic = o.Topic
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = partition, batch
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	return formatter.AppendRequest(nil, req, 1)
}

func produceError(frame []byte) error {
	r := kmsg.NewPtrProduceResponse()
	r.Version = 9
	if err := r.ReadFrom(frame[5:]); err != nil {
		return err
	}
	if len(r.Topics) != 1 || len(r.Topics[0].Partitions) != 1 {
		return errors.New("load: a produce was answered for no partition")
	}
	return kerr.ErrorForCode(r.Topics[0].Partitions[0].ErrorCode)
}

// Produce sends batches to all partitions in turn until time or bytes are used up.
func Produce(o Options, leaders map[string][]int32) (Result, error) {
	o.defaults()
	batch, err := EncodeBatch(o.Batch, o.Record, o.Codec)
	if err != nil {
		return Result{}, err
	}
	var sent atomic.Int64
	deadline := time.Now().Add(o.For)
	return measure(o, leaders, func(addr string, parts []int32) (Result, error) {
		reqs := make([][]byte, len(parts))
		for i, p := range parts {
			reqs[i] = produceRequest(o, p, batch)
		}
		return pipeline(o, addr, len(batch), func(i int) ([]byte, time.Time) {
			if !time.Now().Before(deadline) || o.Bytes > 0 && sent.Add(int64(len(batch))) > o.Bytes {
				return nil, time.Time{}
			}
			return reqs[i%len(reqs)], time.Now()
		})
	})
}

// Latency sends one-batch requests at a fixed rate to the first leader.
func Latency(o Options, leaders map[string][]int32) (Result, error) {
	o.defaults()
	o.Conns = 1
	o.Depth = 1 << 16 // what is due is sent, answered or not
	batch, err := EncodeBatch(o.Batch, o.Record, o.Codec)
	if err != nil {
		return Result{}, err
	}
	n := int(o.For.Seconds() * float64(o.Rate))
	start := time.Now()
	for addr, parts := range leaders {
		return measure(o, map[string][]int32{addr: parts}, func(addr string, parts []int32) (Result, error) {
			reqs := make([][]byte, len(parts))
			for i, p := range parts {
				reqs[i] = produceRequest(o, p, batch)
			}
			return pipeline(o, addr, len(batch), func(i int) ([]byte, time.Time) {
				if i == n {
					return nil, time.Time{}
				}
				due := start.Add(time.Duration(i) * time.Second / time.Duration(o.Rate))
				time.Sleep(time.Until(due))
				return reqs[i%len(reqs)], due
			})
		})
	}
	return Result{}, errors.New("load: no leader")
}

// pipeline sends what next gives, with up to Depth requests without an answer.
func pipeline(o Options, addr string, size int, next func(i int) (req []byte, due time.Time)) (r Result, err error) {
	c, err := Dial(addr)
	if err != nil {
		return r, err
	}
	defer c.Close()
	times := make(chan time.Time, o.Depth)
	var failed error
	var wg sync.WaitGroup
	wg.Go(func() {
		for t := range times {
			if failed != nil {
				continue // let the sender see the end of the connection
			}
			if o.Acks != 0 {
				frame, err := readFrame(c.c)
				if err == nil {
					err = produceError(frame)
				}
				if err != nil {
					failed = fmt.Errorf("produce: %w", err)
					c.Close()
					continue
				}
			}
			r.Latencies = append(r.Latencies, time.Since(t))
			r.Requests++
			r.Records += int64(o.Batch)
			r.Bytes += int64(size)
		}
	})
	var broken error
	for i := 0; ; i++ {
		req, due := next(i)
		if req == nil {
			break
		}
		times <- due
		if _, broken = c.c.Write(req); broken != nil {
			break
		}
	}
	close(times)
	wg.Wait()
	if failed != nil {
		return r, failed
	}
	return r, broken
}
