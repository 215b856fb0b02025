package clients

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// codecs by their number in a batch.
var codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// franz is franz-go, in this process.
type franz struct{ bootstrap string }

func (franz) name() string { return "franz-go" }
func (franz) lacks() lacks { return lacks{} }
func (franz) close() error { return nil }

// version is what go.mod pins: the binary of a test does not know it.
func (franz) version(context.Context) (string, error) {
	text, err := os.ReadFile(filepath.Join("..", "..", "go.mod"))
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(text), "github.com/twmb/franz-go ")
	return "franz-go " + strings.Fields(rest + " -")[0], nil
}

func (f franz) with(opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(f.bootstrap), kgo.ClientID("firn-test-franz")}, opts...)...)
}

var franzCodecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

func (f franz) produce(ctx context.Context, topic, codec string, records []record) ([]int64, error) {
	cl, err := f.with(kgo.ProducerBatchCompression(franzCodecs[codec]), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	rs := make([]*kgo.Record, len(records))
	for i, r := range records {
		rs[i] = &kgo.Record{Topic: topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Timestamp: time.UnixMilli(r.Timestamp)}
		for _, h := range r.Headers {
			rs[i].Headers = append(rs[i].Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
	}
	if err := cl.ProduceSync(ctx, rs...).FirstErr(); err != nil {
		return nil, fmt.Errorf("franz-go: produce to %s: %w", topic, err)
	}
	offsets := make([]int64, len(rs))
	for i, r := range rs {
		offsets[i] = r.Offset
	}
	return offsets, nil
}

// read polls until it has n records.
func (f franz) read(ctx context.Context, cl *kgo.Client, n int) ([]*kgo.Record, error) {
	var got []*kgo.Record
	for len(got) < n {
		fetches := cl.PollRecords(ctx, n-len(got))
		for _, e := range fetches.Errors() {
			return nil, fmt.Errorf("franz-go: %s/%d after %d of %d records: %w", e.Topic, e.Partition, len(got), n, e.Err)
		}
		got = append(got, fetches.Records()...)
	}
	return got, nil
}

func fromFranz(rs []*kgo.Record) []record {
	out := make([]record, len(rs))
	for i, r := range rs {
		out[i] = record{Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			out[i].Headers = append(out[i].Headers, header{Key: h.Key, Value: h.Value})
		}
	}
	return out
}

func (f franz) consume(ctx context.Context, topic string, n int) ([]record, error) {
	cl, err := f.with(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	got, err := f.read(ctx, cl, n)
	return fromFranz(got), err
}

// codecs counts the records of a topic by the codec of the batch they came in.
func (f franz) codecs(ctx context.Context, topic string, n int) (map[string]int, error) {
	cl, err := f.with(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	got, err := f.read(ctx, cl, n)
	stored := map[string]int{}
	for _, r := range got {
		stored[codecs[r.Attrs.CompressionType()]]++
	}
	return stored, err
}

func (f franz) group(ctx context.Context, topic, group string, n int) ([]record, error) {
	cl, err := f.with(kgo.ConsumeTopics(topic), kgo.ConsumerGroup(group), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(10*time.Second))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	got, err := f.read(ctx, cl, n)
	if err != nil {
		return nil, err
	}
	if err := cl.CommitRecords(ctx, got...); err != nil {
		return nil, fmt.Errorf("franz-go: commit: %w", err)
	}
	return fromFranz(got), nil
}

func (f franz) seek(ctx context.Context, topic string, timestamp int64, n int) (int64, []record, error) {
	cl, err := f.with(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AfterMilli(timestamp)}}))
	if err != nil {
		return 0, nil, err
	}
	defer cl.Close()
	found, err := kadm.NewClient(cl).ListOffsetsAfterMilli(ctx, timestamp, topic)
	if err == nil {
		err = found.Error()
	}
	if err != nil {
		return 0, nil, fmt.Errorf("franz-go: offsets of %s: %w", topic, err)
	}
	at, _ := found.Lookup(topic, 0)
	got, err := f.read(ctx, cl, n)
	return at.Offset, fromFranz(got), err
}
