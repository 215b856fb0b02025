package record

import (
	"encoding/binary"
	"fmt"
	"math"
)

// BatchOptions are the header fields that a Builder cannot derive from its
// records. The zero value names producer 0; NewBatchOptions names none.
type BatchOptions struct {
	BaseOffset    int64
	LeaderEpoch   int32
	Codec         Codec
	ProducerID    int64 // -1: none
	ProducerEpoch int16 // -1: none
	BaseSequence  int32 // -1: none
	Transactional bool
	Control       bool
}

// NewBatchOptions returns the options of an uncompressed batch at offset 0,
// of no leader epoch yet and no producer.
func NewBatchOptions() BatchOptions {
	return BatchOptions{LeaderEpoch: -1, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
}

// Builder collects records into one batch. It is for the batches that brokers
// write themselves, and for tests; produced batches keep their producer's bytes.
// It is not safe for use by several goroutines.
type Builder struct {
	opts    BatchOptions
	records []byte
	count   int32
	base    int64 // timestamp of the first record
	max     int64
}

// NewBuilder returns an empty Builder.
func NewBuilder(opts BatchOptions) *Builder { return &Builder{opts: opts} }

// Append adds a record at the next offset. Its TimestampDelta is taken as the
// absolute timestamp in milliseconds, and its OffsetDelta is ignored: the
// builder computes both deltas. Key, value and headers are copied.
func (b *Builder) Append(r Record) {
	if b.count == math.MaxInt32 {
		panic("BUG: a batch holds at most 2^31-1 records")
	}
	timestamp := r.TimestampDelta
	if b.count == 0 {
		b.base, b.max = timestamp, timestamp
	}
	b.max = max(b.max, timestamp)
	r.TimestampDelta, r.OffsetDelta = timestamp-b.base, b.count
	b.records = appendRecord(b.records, r)
	b.count++
}

// Count returns the number of records appended.
func (b *Builder) Count() int { return int(b.count) }

// Size returns the bytes that the batch would have uncompressed.
func (b *Builder) Size() int { return HeaderSize + len(b.records) }

// Build returns the batch, CRC and all, or nil when nothing was appended. The
// Builder is empty afterwards and may be used again with the same options.
func (b *Builder) Build() Batch {
	if b.count == 0 {
		return nil
	}
	payload, err := Compress(b.opts.Codec, b.records)
	if err != nil {
		panic(fmt.Sprintf("BUG: building a batch: %v", err))
	}
	out := make(Batch, HeaderSize, HeaderSize+len(payload))
	out[posMagic] = Magic
	attributes := uint16(b.opts.Codec)
	if b.opts.Transactional {
		attributes |= attrTransactional
	}
	if b.opts.Control {
		attributes |= attrControl
	}
	out.SetBaseOffset(b.opts.BaseOffset)
	out.SetLeaderEpoch(b.opts.LeaderEpoch)
	binary.BigEndian.PutUint16(out[posAttributes:], attributes)
	binary.BigEndian.PutUint32(out[posLastOffsetDelta:], uint32(b.count-1))
	binary.BigEndian.PutUint64(out[posBaseTimestamp:], uint64(b.base))
	binary.BigEndian.PutUint64(out[posMaxTimestamp:], uint64(b.max))
	binary.BigEndian.PutUint64(out[posProducerID:], uint64(b.opts.ProducerID))
	binary.BigEndian.PutUint16(out[posProducerEpoch:], uint16(b.opts.ProducerEpoch))
	binary.BigEndian.PutUint32(out[posBaseSequence:], uint32(b.opts.BaseSequence))
	binary.BigEndian.PutUint32(out[posCount:], uint32(b.count))
	out = append(out, payload...)
	out.sealLength()
	out.sealCRC()
	*b = Builder{opts: b.opts, records: b.records[:0]}
	return out
}

// sealLength writes the length of the batch as it now is.
func (b Batch) sealLength() {
	binary.BigEndian.PutUint32(b[posLength:], uint32(len(b)-LogOverhead))
}

// withRecords returns a new batch with the header of b and other records, its
// codec, length and CRC set to suit. payload is compressed with codec.
func (b Batch) withRecords(codec Codec, payload []byte) Batch {
	out := make(Batch, 0, HeaderSize+len(payload))
	out = append(append(out, b[:HeaderSize]...), payload...)
	out[posAttributes+1] = out[posAttributes+1]&^attrCodecMask | byte(codec)
	out.sealLength()
	out.sealCRC()
	return out
}

// appendRecord appends r with its deltas as they are.
func appendRecord(dst []byte, r Record) []byte {
	size := 1 + varintLen(r.TimestampDelta) + varintLen(int64(r.OffsetDelta)) +
		bytesLen(r.Key) + bytesLen(r.Value) + varintLen(int64(len(r.Headers)))
	for _, h := range r.Headers {
		size += varintLen(int64(len(h.Key))) + len(h.Key) + bytesLen(h.Value)
	}
	dst = appendVarint(dst, int64(size))
	dst = append(dst, 0)
	dst = appendVarint(dst, r.TimestampDelta)
	dst = appendVarint(dst, int64(r.OffsetDelta))
	dst = appendBytes(dst, r.Key)
	dst = appendBytes(dst, r.Value)
	dst = appendVarint(dst, int64(len(r.Headers)))
	for _, h := range r.Headers {
		dst = appendVarint(dst, int64(len(h.Key)))
		dst = append(dst, h.Key...)
		dst = appendBytes(dst, h.Value)
	}
	return dst
}

func bytesLen(p []byte) int {
	if p == nil {
		return 1
	}
	return varintLen(int64(len(p))) + len(p)
}

func appendBytes(dst, p []byte) []byte {
	if p == nil {
		return appendVarint(dst, -1)
	}
	return append(appendVarint(dst, int64(len(p))), p...)
}
