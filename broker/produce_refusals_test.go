package broker

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"
	"time"

	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/record"
)

// Where a batch has its fields.
const (
	atLength     = 8
	atMagic      = 16
	atCRC        = 17
	atAttributes = 22 // the low byte
	atLastDelta  = 23
	atProducerID = 43
	atEpoch      = 51
	atSequence   = 53
	atCount      = 57
)

// TestBadBatchesGetKafkasCodes sends each fault that a batch may have through a real
// Produce, and expects the code that Apache Kafka 4.3.1 answers to the same bytes.
// Nothing of any of them is appended, and the connection serves the next.
func TestBadBatchesGetKafkasCodes(t *testing.T) {
	addr, meta := wireServer(t)
	a := dialAsker(t, addr)
	if _, err := meta.EnsureTopic(t.Context(), metadata.NewTopic{Name: "bad", Partitions: 1, ReplicationFactor: 1, Configs: map[string]string{"max.message.bytes": "1000"}}); err != nil {
		t.Fatal(err)
	}
	topic := led(t, a, meta, "bad")
	now := time.Now().UnixMilli()
	good := batchOf(now, now)
	be := binary.BigEndian
	// broken changes a good batch and leaves its checksum.
	broken := func(change func(b []byte)) []byte {
		b := bytes.Clone(good)
		change(b)
		return b
	}
	// lying changes a good batch and makes its checksum fit.
	lying := func(change func(b []byte)) []byte {
		b := broken(change)
		said := be.Uint32(b[atLength:])
		resealed(b)
		if be.Uint32(b[atLength:]) != said {
			t.Fatal("BUG: the length is for broken to change")
		}
		return b
	}
	length := func(by int32) []byte {
		return broken(func(b []byte) { be.PutUint32(b[atLength:], uint32(int32(len(b)-record.LogOverhead)+by)) })
	}
	attributes := func(bits byte) []byte { return lying(func(b []byte) { b[atAttributes] |= bits }) }
	counts := func(count, last int32) []byte {
		return lying(func(b []byte) { be.PutUint32(b[atCount:], uint32(count)); be.PutUint32(b[atLastDelta:], uint32(last)) })
	}
	producer := func(id int64, epoch int16, sequence int32) []byte {
		return lying(func(b []byte) {
			be.PutUint64(b[atProducerID:], uint64(id))
			be.PutUint16(b[atEpoch:], uint16(epoch))
			be.PutUint32(b[atSequence:], uint32(sequence))
		})
	}
	oldMessage := func(magic byte) []byte { // offset, size, crc, magic, ...
		b := make([]byte, 12+22)
		b[11], b[16] = 22, magic
		return b
	}
	const corrupt, invalid, stamp, codec = "CORRUPT_MESSAGE", "INVALID_RECORD", "INVALID_TIMESTAMP", "UNSUPPORTED_COMPRESSION_TYPE"
	for _, c := range []struct {
		name    string
		version int16 // 0: the newest
		bytes   []byte
		want    string
	}{
		{"nothing", 0, nil, invalid},
		{"empty", 0, []byte{}, invalid},
		{"a header's beginning", 0, good[:atMagic], invalid},
		{"garbage", 0, bytes.Repeat([]byte{1}, 100), invalid},
		{"length one short", 0, length(-1), corrupt},
		{"length one long", 0, length(1), invalid},
		{"length 40 short", 0, length(-40), corrupt},
		{"length a MiB long", 0, length(1 << 20), invalid},
		{"length negative", 0, length(-100000), corrupt},
		{"length greatest", 0, length(math.MaxInt32 - int32(len(good)-record.LogOverhead)), invalid},
		{"magic 0", 0, oldMessage(0), invalid},
		{"magic 1", 0, oldMessage(1), invalid},
		{"magic 3", 0, lying(func(b []byte) { b[atMagic] = 3 }), corrupt},
		{"magic -1", 0, lying(func(b []byte) { b[atMagic] = 0xff }), corrupt},
		{"two batches", 0, append(bytes.Clone(good), good...), invalid},
		{"a byte behind", 0, append(bytes.Clone(good), 0), corrupt},
		{"bad CRC", 0, broken(func(b []byte) { b[atCRC] ^= 1 }), corrupt},
		{"a changed byte", 0, broken(func(b []byte) { b[len(b)-3] ^= 1 }), corrupt},
		{"base offset 12345", 0, lying(func(b []byte) { be.PutUint64(b, 12345) }), invalid},
		{"base offset -1", 0, lying(func(b []byte) { be.PutUint64(b, math.MaxUint64) }), invalid},
		{"no records", 0, counts(0, -1), invalid},
		{"count too high", 0, counts(3, 2), invalid},
		{"count too low", 0, counts(1, 0), invalid},
		{"count negative", 0, counts(-1, -2), invalid},
		{"count greatest", 0, counts(math.MaxInt32, math.MaxInt32-1), invalid},
		{"last delta too high", 0, counts(2, 3), invalid},
		{"control", 0, attributes(0x20), invalid},
		{"delete horizon", 0, attributes(0x40), invalid},
		{"log-append time", 0, attributes(0x08), stamp},
		{"two days ahead", 0, batchOf(now, now+48*3600_000), stamp},
		{"the greatest timestamp", 0, batchOf(math.MaxInt64), stamp},
		{"codec 5", 0, attributes(5), codec},
		{"codec 7", 0, attributes(7), codec},
		{"gzip over plain bytes", 0, attributes(1), corrupt},
		{"snappy over plain bytes", 0, lying(func(b []byte) { b[atAttributes] |= 2; b[record.HeaderSize] = 0 }), corrupt},
		{"lz4 over plain bytes", 0, attributes(3), corrupt},
		{"zstd over plain bytes", 0, attributes(4), corrupt},
		{"zstd before v7", 6, packed(record.Zstd, true, now), codec},
		{"producer without a sequence", 0, producer(5, 0, -1), invalid},
		{"producer without an epoch", 0, producer(5, -1, 0), invalid},
		{"producer id -2", 0, producer(-2, -1, -1), invalid},
		{"larger than max.message.bytes", 0, packed(record.None, true, now, now, now, now, now, now, now, now), "MESSAGE_TOO_LARGE"},
		{"larger and corrupt", 0, append(broken(func(b []byte) { b[atCRC] ^= 1 }), make([]byte, 1000)...), corrupt},
	} {
		v := c.version
		if v == 0 {
			v = apis[0].max
		}
		_, p := produceTo(a, v, "bad", topic.ID, 0, -1, c.bytes)
		if codeName(p.ErrorCode) != c.want || p.BaseOffset != -1 {
			t.Errorf("%s: %s at offset %d, want %s", c.name, codeName(p.ErrorCode), p.BaseOffset, c.want)
		}
		if v >= 8 && text(p.ErrorMessage) == "" {
			t.Errorf("%s: no message", c.name)
		}
	}
	if end := offsetsFor(a, 1, "bad", 0, latest, -1).Offset; end != 0 {
		t.Errorf("the log ends at %d: something refused is in it", end)
	}
	if _, p := produceTo(a, apis[0].max, "bad", topic.ID, 0, -1, good); p.ErrorCode != 0 || p.BaseOffset != 0 {
		t.Errorf("a good batch: %s at %d", codeName(p.ErrorCode), p.BaseOffset)
	}
}
