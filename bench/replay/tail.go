package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/firnlog/firn/bench/load"
)

// tailRate is the records a second that the tail carries.
const tailRate = 500

// tail measures a producer and a consumer at the end of a hot topic, each record
// from when it was due, with or without a replay beside them.
func (b *bench) tail(ctx context.Context, beside bool) (s sample, err error) {
	if err := b.fresh(ctx); err != nil {
		return s, err
	}
	if err := b.far.latency(b.latency); err != nil {
		return s, err
	}
	hot := b.options()
	hot.Topic, hot.Create = "tail", true
	hot.Config = map[string]string{"remote.storage.enable": "false", "firn.durability": "replicated"}
	if _, err := load.Prepare(hot); err != nil {
		return s, err
	}
	s.Work, s.LatencyMs = "tail alone", b.latency.Seconds()*1e3
	ctx, cancel := context.WithTimeout(ctx, b.tailFor+30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	var failed error
	if beside {
		s.Work = "tail beside a replay"
		o := b.options()
		o.Pace, o.For = b.pace, b.tailFor+time.Second
		o.Bytes = b.cold
		wg.Go(func() {
			r, _, err := b.far.fetch(ctx, o)
			if err != nil {
				failed = fmt.Errorf("replay: %w", err)
				cancel()
			}
			s.Rate = r.MiBPerSecond()
		})
	}
	s.Produce, s.Consume, err = watchTail(ctx, b.addr, b.tailFor)
	wg.Wait()
	return s, errors.Join(failed, err)
}

func watchTail(ctx context.Context, addr string, d time.Duration) (produceP99, consumeP99 float64, err error) {
	producer, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DefaultProduceTopic("tail"), kgo.ProducerLinger(0))
	if err != nil {
		return 0, 0, err
	}
	defer producer.Close()
	consumer, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics("tail"), kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()), kgo.FetchMaxWait(500*time.Millisecond))
	if err != nil {
		return 0, 0, err
	}
	defer consumer.Close()

	n := int(d.Seconds() * tailRate)
	var mu sync.Mutex
	var acked, seen []time.Duration
	var failed error
	done := make(chan struct{})
	ready := make(chan struct{})
	go func() {
		defer close(done)
		got := 0
		var once sync.Once
		for got < n {
			fetches := consumer.PollFetches(ctx)
			if err := fetches.Err0(); err != nil {
				mu.Lock()
				failed = errors.Join(failed, err)
				mu.Unlock()
				return
			}
			now := time.Now()
			fetches.EachRecord(func(r *kgo.Record) {
				if len(r.Value) < 1000 {
					once.Do(func() { close(ready) })
					return
				}
				got++
				mu.Lock()
				seen = append(seen, now.Sub(time.Unix(0, int64(binary.BigEndian.Uint64(r.Value)))))
				mu.Unlock()
			})
		}
	}()
	// The consumer begins at the end: markers go out until it sees one.
	for waiting := true; waiting; {
		if err := producer.ProduceSync(ctx, &kgo.Record{Value: []byte("marker")}).FirstErr(); err != nil {
			return 0, 0, err
		}
		select {
		case <-ready:
			waiting = false
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		}
	}
	start := time.Now()
	var wg sync.WaitGroup
	for i := range n {
		due := start.Add(time.Duration(i) * time.Second / tailRate)
		time.Sleep(time.Until(due))
		value := binary.BigEndian.AppendUint64(make([]byte, 0, 1024), uint64(due.UnixNano()))
		wg.Add(1)
		producer.Produce(ctx, &kgo.Record{Value: value[:1024]}, func(_ *kgo.Record, err error) {
			defer wg.Done()
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = errors.Join(failed, err)
				return
			}
			acked = append(acked, time.Since(due))
		})
	}
	wg.Wait()
	select {
	case <-done:
	case <-ctx.Done():
	}
	mu.Lock()
	defer mu.Unlock()
	if failed != nil || len(seen) < n {
		return 0, 0, errors.Join(failed, fmt.Errorf("%d of %d records were consumed", len(seen), n))
	}
	p99 := func(v []time.Duration) float64 {
		slices.Sort(v)
		return v[len(v)*99/100].Seconds() * 1e3
	}
	return p99(acked), p99(seen), nil
}
