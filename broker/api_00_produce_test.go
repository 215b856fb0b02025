package broker

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/group"
	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/record"
)

// packed is a batch of records of a codec, with or without keys.
func packed(codec record.Codec, keys bool, stamps ...int64) []byte {
	opts := record.NewBatchOptions()
	opts.Codec = codec
	b := record.NewBuilder(opts)
	for _, ts := range stamps {
		r := record.Record{TimestampDelta: ts, Value: bytes.Repeat([]byte("value "), 20)}
		if keys {
			r.Key = []byte("k")
		}
		b.Append(r)
	}
	return b.Build()
}

// TestATopicsRulesReachItsBatches makes a topic for each rule that a topic has about
// what is produced to it (SAFETY 21), and sends what it allows and what it refuses.
func TestATopicsRulesReachItsBatches(t *testing.T) {
	addr, meta := wireServer(t)
	a := dialAsker(t, addr)
	now := time.Now().UnixMilli()
	lie := packed(record.None, true, now, now)
	// One record less than the batch says, under a codec that nobody opens.
	payload, err := record.Compress(record.Gzip, record.Batch(lie).Payload()[:len(record.Batch(lie).Payload())/2])
	if err != nil {
		t.Fatal(err)
	}
	closed := append(bytes.Clone(packed(record.Gzip, true, now, now)[:record.HeaderSize]), payload...)
	resealed(closed)
	for _, c := range []struct {
		topic   string
		configs map[string]string
		good    []byte
		codec   record.Codec // stored
		bad     []byte
		want    string
	}{
		{"plain", nil, closed, record.Gzip, packed(record.None, true, now+2*3600_000), "INVALID_TIMESTAMP"},
		{"strict", map[string]string{"firn.record.validation": "strict"}, packed(record.Gzip, false, now), record.Gzip, closed, "INVALID_RECORD"},
		{"compacted", map[string]string{"cleanup.policy": "compact"}, packed(record.LZ4, true, now), record.LZ4, packed(record.LZ4, false, now), "INVALID_RECORD"},
		{"recompressed", map[string]string{"compression.type": "zstd"}, packed(record.Gzip, true, now), record.Zstd, closed, "INVALID_RECORD"},
		{"small", map[string]string{"max.message.bytes": "300"}, packed(record.None, true, now), record.None, packed(record.None, true, now, now, now), "MESSAGE_TOO_LARGE"},
		{"young", map[string]string{"message.timestamp.before.max.ms": "1000"}, packed(record.None, true, now), record.None, packed(record.None, true, now-60_000), "INVALID_TIMESTAMP"},
	} {
		if _, err := meta.EnsureTopic(t.Context(), metadata.NewTopic{Name: c.topic, Partitions: 1, ReplicationFactor: 1, Configs: c.configs}); err != nil {
			t.Fatalf("%s: %v", c.topic, err)
		}
		topic := led(t, a, meta, c.topic)
		if _, p := produceTo(a, 13, c.topic, topic.ID, 0, -1, c.good); p.ErrorCode != 0 {
			t.Errorf("%s: %s for what is allowed: %s", c.topic, codeName(p.ErrorCode), text(p.ErrorMessage))
		}
		if _, p := produceTo(a, 13, c.topic, topic.ID, 0, -1, c.bad); codeName(p.ErrorCode) != c.want || p.BaseOffset != -1 {
			t.Errorf("%s: %s for what is not, want %s", c.topic, codeName(p.ErrorCode), c.want)
		}
		_, p := fetchFrom(a, 13, c.topic, topic.ID, 0, 0, nil)
		b, rest, err := record.Parse(p.RecordBatches)
		if err != nil || len(rest) != 0 || b.Codec() != c.codec || b.CheckCRC() != nil {
			t.Errorf("%s: stored as %v (%v), with %d bytes behind it; want one batch of %v", c.topic, b.Codec(), err, len(rest), c.codec)
		}
	}
}

// resealed gives a batch the length and the checksum that its bytes have.
func resealed(b []byte) {
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
}

// TestNobodyWritesToInternalTopics, and transactions are refused by what they lack.
func TestNobodyWritesToInternalTopics(t *testing.T) {
	addr, meta := groupServer(t)
	a := dialAsker(t, addr)
	find(a, "g")
	topic := led(t, a, meta, group.Topic)
	now := time.Now().UnixMilli()
	if _, p := produceTo(a, 13, "", topic.ID, 0, -1, batchOf(now)); codeName(p.ErrorCode) != "INVALID_TOPIC_EXCEPTION" {
		t.Errorf("%s for a batch in the groups' journal", codeName(p.ErrorCode))
	}
	led(t, a, meta, "t")
	opts := record.NewBatchOptions()
	opts.Transactional, opts.ProducerID, opts.ProducerEpoch, opts.BaseSequence = true, 5, 0, 0
	b := record.NewBuilder(opts)
	b.Append(record.Record{TimestampDelta: now})
	r := kmsg.NewPtrProduceRequest()
	r.Acks, r.TimeoutMillis = -1, 5000
	rt, rp := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
	rt.Topic, rp.Records = "t", b.Build()
	rt.Partitions = append(rt.Partitions, rp)
	r.Topics = append(r.Topics, rt)
	id := "mine"
	for want, id := range map[string]*string{"TRANSACTIONAL_ID_AUTHORIZATION_FAILED": nil, "COORDINATOR_NOT_AVAILABLE": &id} {
		r.TransactionID = id
		if p := ask(a, 9, r, kmsg.NewPtrProduceResponse()).Topics[0].Partitions[0]; codeName(p.ErrorCode) != want {
			t.Errorf("a transactional batch: %s, want %s", codeName(p.ErrorCode), want)
		}
	}
}
