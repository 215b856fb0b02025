package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/record"
)

const (
	fetchWait = 500 * time.Millisecond
	// patience is how long partitions may fail for reasons that pass before that is
	// the answer.
	patience = 20 * time.Second
	// maxDecoded bounds what a batch may decompress to.
	maxDecoded = 1 << 30
)

// reader reads partitions with Fetch requests of its own. The client library's
// consumer would do, but for two things: it keeps timestamps as nanoseconds, so
// that those after the year 2262 lose their highest bits, and it goes elsewhere by
// itself when an offset is outside of the log.
type reader struct {
	cl        *kgo.Client
	adm       *kadm.Client
	committed bool             // leave aborted transactions out
	note      func(msg string) // what is said beside the records

	topics  map[string]kadm.TopicDetail
	ids     map[string]kadm.TopicID // of the topics that were begun with
	cursors []*cursor
	failing time.Time // since when some partition has failed; zero when none has
}

// cursor is a place in one partition.
type cursor struct {
	span
	next int64 // offset of the next record to fetch
}

func (c *cursor) done() bool { return c.end >= 0 && c.next >= c.end }

func newReader(cl *kgo.Client, adm *kadm.Client, committed bool, note func(string)) *reader {
	return &reader{cl: cl, adm: adm, committed: committed, note: note, topics: map[string]kadm.TopicDetail{}, ids: map[string]kadm.TopicID{}}
}

// begin makes the reader read spans. Where an exact offset lies behind the log's
// end, it waits at the end for the records up to there, and leaves them out.
func (r *reader) begin(spans []span) {
	for _, s := range spans {
		c := &cursor{s, s.from}
		if s.from > s.hi {
			c.next = s.hi
			r.note(fmt.Sprintf("partition %d of %s ends at %d: waiting for offset %d", s.partition, s.topic, s.hi, s.from))
		}
		r.cursors = append(r.cursors, c)
	}
}

// done says that no span has anything left.
func (r *reader) done() bool {
	r.cursors = slices.DeleteFunc(r.cursors, (*cursor).done)
	return len(r.cursors) == 0
}

// poll returns the records that are there, or that come within wait. It fails when
// a partition cannot be read on.
func (r *reader) poll(ctx context.Context, wait time.Duration) ([]*kgo.Record, error) {
	byLeader := map[int32][]*cursor{}
	for _, c := range r.cursors {
		leader, err := r.leader(ctx, c.topic, c.partition)
		if err != nil {
			return nil, r.failed(ctx, err, true)
		}
		byLeader[leader] = append(byLeader[leader], c)
	}
	// The first in a request may take all of its bytes: each gets to be that.
	if len(r.cursors) > 1 {
		r.cursors = append(r.cursors[1:], r.cursors[0])
	}
	type answer struct {
		got []fetched
		err error
	}
	answers := make(chan answer, len(byLeader))
	for leader, cs := range byLeader {
		go func() {
			got, err := r.fetch(ctx, leader, cs, wait)
			answers <- answer{got, err}
		}()
	}
	var all []fetched
	var failed error
	for range byLeader {
		a := <-answers
		all, failed = append(all, a.got...), errors.Join(failed, a.err)
	}
	var records []*kgo.Record
	for _, f := range all {
		rs, err := r.take(ctx, f)
		if err != nil {
			if !kerr.IsRetriable(err) {
				return records, err
			}
			failed = errors.Join(failed, explain(err, f.c.topic))
		}
		records = append(records, rs...)
	}
	if failed != nil {
		return records, r.failed(ctx, failed, len(records) == 0)
	}
	r.failing = time.Time{}
	return records, nil
}

// failed forgets the leaders, so that the next poll asks for them, after a moment
// if it is to pause. It returns err when that has been going on for too long.
func (r *reader) failed(ctx context.Context, err error, pause bool) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if r.failing.IsZero() {
		r.failing = time.Now()
	}
	if _, gone := errors.AsType[*goneError](err); gone || time.Since(r.failing) > patience {
		return err
	}
	clear(r.topics)
	if pause {
		select {
		case <-ctx.Done():
		case <-time.After(soon):
		}
	}
	return nil
}

// goneError is a topic that is not there any more, which does not pass.
type goneError struct{ error }

// leader is the broker that leads a partition.
func (r *reader) leader(ctx context.Context, topic string, partition int32) (int32, error) {
	d, ok := r.topics[topic]
	if !ok {
		all, err := r.adm.ListTopics(ctx, topic)
		if err != nil {
			return -1, fmt.Errorf("who leads %s: %w", topic, rootCause(err))
		}
		if d, ok = all[topic]; !ok {
			d.Err = kerr.UnknownTopicOrPartition
		}
		if errors.Is(d.Err, kerr.UnknownTopicOrPartition) {
			return -1, &goneError{explain(d.Err, topic)}
		}
		if d.Err != nil {
			return -1, explain(d.Err, topic)
		}
		if id, known := r.ids[topic]; known && id != d.ID {
			return -1, &goneError{fmt.Errorf("topic %s was deleted and created anew; start again to read the new one", topic)}
		}
		r.topics[topic], r.ids[topic] = d, d.ID
	}
	p, ok := d.Partitions[partition]
	if !ok || p.Leader < 0 {
		return -1, fmt.Errorf("partition %d of %s has no leader; `firn health` shows more", partition, topic)
	}
	return p.Leader, nil
}

// fetched is what a broker says of one partition.
type fetched struct {
	c  *cursor
	rp *kmsg.FetchResponseTopicPartition
}

func (r *reader) fetch(ctx context.Context, leader int32, cs []*cursor, wait time.Duration) ([]fetched, error) {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = int32(wait.Milliseconds()), 1, 64<<20
	req.SessionEpoch = -1 // no session: each request says all
	if r.committed {
		req.IsolationLevel = 1
	}
	type place struct {
		topic     string
		id        [16]byte
		partition int32
	}
	where := map[place]*cursor{}
	for _, c := range cs {
		id := [16]byte(r.topics[c.topic].ID)
		// Requests name topics by name before version 13, by id since.
		where[place{topic: c.topic, partition: c.partition}] = c
		where[place{id: id, partition: c.partition}] = c
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes = c.partition, c.next, 8<<20
		t := kmsg.NewFetchRequestTopic()
		t.Topic, t.TopicID, t.Partitions = c.topic, id, append(t.Partitions, p)
		if n := len(req.Topics); n > 0 && req.Topics[n-1].Topic == c.topic {
			req.Topics[n-1].Partitions = append(req.Topics[n-1].Partitions, p)
			continue
		}
		req.Topics = append(req.Topics, t)
	}
	raw, err := r.cl.Broker(int(leader)).Request(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("fetch from broker %d: %w", leader, rootCause(err))
	}
	resp := raw.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, fmt.Errorf("fetch from broker %d: %w", leader, err)
	}
	var out []fetched
	for i := range resp.Topics {
		t := &resp.Topics[i]
		for j := range t.Partitions {
			rp := &t.Partitions[j]
			if c, ok := where[place{t.Topic, t.TopicID, rp.Partition}]; ok {
				out = append(out, fetched{c, rp})
			}
		}
	}
	return out, nil
}

// take decodes the records of one partition that are in its span, and moves its
// cursor behind them.
func (r *reader) take(ctx context.Context, f fetched) ([]*kgo.Record, error) {
	c := f.c
	if err := kerr.ErrorForCode(f.rp.ErrorCode); errors.Is(err, kerr.OffsetOutOfRange) {
		return nil, r.outOfRange(ctx, c)
	} else if err != nil {
		if kerr.IsRetriable(err) {
			return nil, err
		}
		return nil, explain(err, c.topic)
	}
	first := c.next
	records, next, err := decode(c.topic, f.rp, first)
	if err != nil {
		return nil, fmt.Errorf("partition %d of %s at offset %d: %w", c.partition, c.topic, first, err)
	}
	c.next = next
	return slices.DeleteFunc(records, func(r *kgo.Record) bool { return r.Offset < c.from || c.end >= 0 && r.Offset >= c.end }), nil
}

// outOfRange moves a cursor on whose records were deleted under it. An offset
// behind the log's end is an error: what was there is lost.
func (r *reader) outOfRange(ctx context.Context, c *cursor) error {
	starts, err := r.adm.ListStartOffsets(ctx, c.topic)
	if err != nil {
		return err
	}
	if lo, ok := starts.Lookup(c.topic, c.partition); ok && lo.Err == nil && lo.Offset > c.next {
		r.note(fmt.Sprintf("partition %d of %s begins at %d now: offsets from %d are gone", c.partition, c.topic, lo.Offset, c.next))
		c.next = lo.Offset
		return nil
	}
	return fmt.Errorf("partition %d: %w", c.partition, explain(kerr.OffsetOutOfRange, c.topic))
}

// decode returns the records from an offset on, without markers of transactions
// and, when the broker has named them, without aborted ones; next is the offset
// behind the last whole batch.
func decode(topic string, rp *kmsg.FetchResponseTopicPartition, from int64) (records []*kgo.Record, next int64, err error) {
	next = from
	var aborting []int64 // producers with an aborted transaction that is open here
	aborted := slices.Clone(rp.AbortedTransactions)
	slices.SortFunc(aborted, func(a, b kmsg.FetchResponseTopicPartitionAbortedTransaction) int {
		return cmp.Compare(a.FirstOffset, b.FirstOffset)
	})
	for rest := rp.RecordBatches; len(rest) > 0; {
		b, more, err := record.Parse(rest)
		if errors.Is(err, record.ErrShort) && next > from {
			break // brokers may cut the last batch
		}
		if err == nil {
			err = b.CheckCRC()
		}
		if err != nil {
			return nil, from, err
		}
		rest = more
		if b.NextOffset() <= from {
			continue // the batch that holds from may begin before it
		}
		for len(aborted) > 0 && aborted[0].FirstOffset <= b.LastOffset() {
			aborting, aborted = append(aborting, aborted[0].ProducerID), aborted[1:]
		}
		next = b.NextOffset()
		if b.IsControl() {
			if b.Count() == 0 {
				continue // compaction has left no more than the header
			}
			m, marks, err := record.ParseMarker(b)
			if err != nil {
				return nil, from, err
			}
			if i := slices.Index(aborting, b.ProducerID()); marks && m.Type == record.Abort && i >= 0 {
				aborting = slices.Delete(aborting, i, i+1)
			}
			continue
		}
		if b.IsTransactional() && slices.Contains(aborting, b.ProducerID()) {
			continue
		}
		attrs := kgo.NewRecordAttrs(kgo.RecordAttrsOpts{
			Codec: kgo.CompressionCodecType(b.Codec()), TimestampType: int8(b.TimestampType()), Transactional: b.IsTransactional(),
		})
		for rec, err := range b.Records(maxDecoded) {
			if err != nil {
				return nil, from, err
			}
			if b.Offset(rec) < from {
				continue
			}
			out := &kgo.Record{
				Topic: topic, Partition: rp.Partition, Offset: b.Offset(rec), Timestamp: time.UnixMilli(b.Timestamp(rec)), Key: rec.Key, Value: rec.Value,
				Attrs: attrs, LeaderEpoch: b.LeaderEpoch(), ProducerID: b.ProducerID(), ProducerEpoch: b.ProducerEpoch(),
			}
			for _, h := range rec.Headers {
				out.Headers = append(out.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
			}
			records = append(records, out)
		}
	}
	return records, next, nil
}

// retime gives the records of one partition that the client library has fetched
// the timestamps that they have in the log, by reading them again. Records that
// have gone since keep what the library says, which is right from 1678 to 2262.
func (r *reader) retime(ctx context.Context, records []*kgo.Record) error {
	if len(records) == 0 {
		return nil
	}
	first, end := records[0], records[len(records)-1].Offset+1
	again := newReader(r.cl, r.adm, r.committed, func(string) {})
	again.begin([]span{{topic: first.Topic, partition: first.Partition, from: first.Offset, end: end, hi: end}})
	i := 0
	for !again.done() {
		got, err := again.poll(ctx, fetchWait)
		if err != nil {
			return err
		}
		for _, g := range got {
			for i < len(records) && records[i].Offset < g.Offset {
				i++
			}
			if i < len(records) && records[i].Offset == g.Offset {
				records[i].Timestamp = g.Timestamp
			}
		}
	}
	return nil
}
