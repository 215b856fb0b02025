package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

// HeaderSize is the length of a batch's fixed header; records follow it.
const HeaderSize = 61

// LogOverhead is the part of the header that the batch length does not count:
// the base offset and the length itself. SizeOf needs this much to see.
const LogOverhead = 12

// minBatchLength is the least value of the length field: a batch without records.
const minBatchLength = HeaderSize - LogOverhead

// Where each field of the header begins.
const (
	posBaseOffset      = 0
	posLength          = 8
	posLeaderEpoch     = 12
	posMagic           = 16
	posCRC             = 17
	posAttributes      = 21
	posLastOffsetDelta = 23
	posBaseTimestamp   = 27
	posMaxTimestamp    = 35
	posProducerID      = 43
	posProducerEpoch   = 51
	posBaseSequence    = 53
	posCount           = 57
)

// The bits of the attributes field.
const (
	attrCodecMask     = 0x07
	attrLogAppendTime = 1 << 3
	attrTransactional = 1 << 4
	attrControl       = 1 << 5
	attrDeleteHorizon = 1 << 6
)

// Magic is the only version of the batch format that we read and write.
const Magic = 2

var (
	// ErrShort means the bytes end before the batch does. More bytes may mend
	// it; at the end of a file it is a torn write.
	ErrShort = errors.New("record: bytes end inside a batch")

	// ErrCorrupt means the bytes cannot be a v2 batch, or a batch's contents
	// contradict its header. More bytes will not mend it.
	ErrCorrupt = errors.New("record: corrupt batch")

	// ErrCRC means a batch's checksum does not match its bytes.
	ErrCRC = errors.New("record: batch fails its CRC-32C")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// TimestampType says who stamped the records of a batch.
type TimestampType int8

const (
	// CreateTime means each record carries the producer's own timestamp.
	CreateTime TimestampType = 0
	// LogAppendTime means the broker stamped the whole batch when it was
	// appended; every record then has the batch's max timestamp.
	LogAppendTime TimestampType = 1
)

// String returns Kafka's name of the type.
func (t TimestampType) String() string {
	if t == LogAppendTime {
		return "LogAppendTime"
	}
	return "CreateTime"
}

// Batch is the bytes of exactly one whole v2 batch. It comes from Parse, or
// from this package's own builders, so its accessors cannot go out of range.
// The zero Batch is not a batch. A Batch shares memory with the bytes it was
// parsed from.
//
// Parse checks no more than magic and length: until CheckCRC and
// ValidateProduced have passed, every other field may hold anything.
type Batch []byte

// SizeOf returns the whole size in bytes of the batch whose first bytes are
// head, header included. It needs LogOverhead bytes and fails with ErrShort
// when it has fewer, and with ErrCorrupt when no batch can have that length.
func SizeOf(head []byte) (int, error) {
	if len(head) < LogOverhead {
		return 0, ErrShort
	}
	length := int32(binary.BigEndian.Uint32(head[posLength:]))
	if length < minBatchLength || length > math.MaxInt32-LogOverhead {
		return 0, fmt.Errorf("%w: length %d", ErrCorrupt, length)
	}
	return LogOverhead + int(length), nil
}

// Parse returns the first batch of p and the bytes behind it. It fails with
// ErrShort when p ends inside the batch (an empty p included), and with
// ErrCorrupt when the length or the magic cannot be right. It does not check
// the CRC. The batch's capacity ends at its length, so that an append to it
// cannot overwrite rest.
func Parse(p []byte) (b Batch, rest []byte, err error) {
	if len(p) < LogOverhead {
		return nil, p, ErrShort
	}
	// The magic lies behind the length. It is looked at first, as soon as it is
	// there, because a message of format v0 or v1 has a length that may be
	// shorter than our header, and "wrong magic" is the better answer.
	if len(p) > posMagic && p[posMagic] != Magic {
		return nil, p, fmt.Errorf("%w: magic %d, want %d", ErrCorrupt, int8(p[posMagic]), Magic)
	}
	size, err := SizeOf(p)
	if err != nil {
		return nil, p, err
	}
	if len(p) < size {
		return nil, p, ErrShort
	}
	return Batch(p[:size:size]), p[size:], nil
}

// BaseOffset returns the offset of the first record.
func (b Batch) BaseOffset() int64 { return int64(binary.BigEndian.Uint64(b[posBaseOffset:])) }

// SetBaseOffset sets the offset of the first record, which the CRC does not cover.
func (b Batch) SetBaseOffset(offset int64) {
	binary.BigEndian.PutUint64(b[posBaseOffset:], uint64(offset))
}

// LeaderEpoch returns the epoch of the leader that appended the batch, or -1.
func (b Batch) LeaderEpoch() int32 { return int32(binary.BigEndian.Uint32(b[posLeaderEpoch:])) }

// SetLeaderEpoch sets the leader epoch, which the CRC does not cover.
func (b Batch) SetLeaderEpoch(epoch int32) {
	binary.BigEndian.PutUint32(b[posLeaderEpoch:], uint32(epoch))
}

// CRC returns the checksum that the header claims.
func (b Batch) CRC() uint32 { return binary.BigEndian.Uint32(b[posCRC:]) }

// Attributes returns the bit field of which Codec, TimestampType,
// IsTransactional, IsControl and HasDeleteHorizon are parts.
func (b Batch) Attributes() int16 { return int16(binary.BigEndian.Uint16(b[posAttributes:])) }

// Codec returns how the records are compressed. A batch that was not validated
// may name a codec that does not exist; see Codec.Valid.
func (b Batch) Codec() Codec { return Codec(b[posAttributes+1] & attrCodecMask) }

// TimestampType returns who stamped the records.
func (b Batch) TimestampType() TimestampType {
	if b[posAttributes+1]&attrLogAppendTime != 0 {
		return LogAppendTime
	}
	return CreateTime
}

// IsTransactional reports whether the batch belongs to a transaction.
func (b Batch) IsTransactional() bool { return b[posAttributes+1]&attrTransactional != 0 }

// IsControl reports whether the batch holds control records (a transaction's
// marker), which only brokers write and consumers skip.
func (b Batch) IsControl() bool { return b[posAttributes+1]&attrControl != 0 }

// HasDeleteHorizon reports whether the base timestamp is a delete horizon,
// which only compaction sets (KIP-534).
func (b Batch) HasDeleteHorizon() bool { return b[posAttributes+1]&attrDeleteHorizon != 0 }

// LastOffsetDelta returns the last record's distance from the base offset. It
// stays when compaction removes records, so it may exceed Count()-1.
func (b Batch) LastOffsetDelta() int32 {
	return int32(binary.BigEndian.Uint32(b[posLastOffsetDelta:]))
}

// Count returns the number of records that the header claims.
func (b Batch) Count() int32 { return int32(binary.BigEndian.Uint32(b[posCount:])) }

// BaseTimestamp returns the milliseconds that record timestamps are relative to.
func (b Batch) BaseTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[posBaseTimestamp:])) }

// MaxTimestamp returns the greatest record timestamp in milliseconds, or the
// append time of a log-append-time batch. The producer computed it; nothing
// but a walk of the records proves it.
func (b Batch) MaxTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[posMaxTimestamp:])) }

// ProducerID returns the id of an idempotent or transactional producer, or -1.
func (b Batch) ProducerID() int64 { return int64(binary.BigEndian.Uint64(b[posProducerID:])) }

// ProducerEpoch returns the producer's epoch, or -1.
func (b Batch) ProducerEpoch() int16 { return int16(binary.BigEndian.Uint16(b[posProducerEpoch:])) }

// BaseSequence returns the first record's sequence number, or -1. The last
// record's is LastSequence.
func (b Batch) BaseSequence() int32 { return int32(binary.BigEndian.Uint32(b[posBaseSequence:])) }

// LastSequence returns the last record's sequence number, or -1 for a batch
// without sequences. Sequences wrap from 2^31-1 to 0.
func (b Batch) LastSequence() int32 {
	first := b.BaseSequence()
	if first < 0 {
		return -1
	}
	return int32((int64(first) + int64(b.LastOffsetDelta())) & math.MaxInt32)
}

// LastOffset returns the offset of the last record, inclusive.
func (b Batch) LastOffset() int64 { return b.BaseOffset() + int64(b.LastOffsetDelta()) }

// NextOffset returns the first offset behind the batch.
func (b Batch) NextOffset() int64 { return b.LastOffset() + 1 }

// Payload returns the records as they lie in the batch, compressed or not. It
// shares the batch's memory.
func (b Batch) Payload() []byte { return b[HeaderSize:] }

// CheckCRC returns nil when the batch's checksum matches its bytes, and an
// error that is ErrCRC when it does not.
func (b Batch) CheckCRC() error {
	if got, want := b.computeCRC(), b.CRC(); got != want {
		return fmt.Errorf("%w: computed %08x, header says %08x", ErrCRC, got, want)
	}
	return nil
}

func (b Batch) computeCRC() uint32 { return crc32.Checksum(b[posAttributes:], castagnoli) }

// sealCRC writes the checksum of the bytes as they now are.
func (b Batch) sealCRC() { binary.BigEndian.PutUint32(b[posCRC:], b.computeCRC()) }

// setMaxTimestamp corrects the max timestamp and the CRC with it.
func (b Batch) setMaxTimestamp(ms int64) {
	binary.BigEndian.PutUint64(b[posMaxTimestamp:], uint64(ms))
	b.sealCRC()
}

// SetMaxTimestampLogAppend stamps the whole batch with the broker's append
// time: it sets the log-append-time bit and the max timestamp, and recomputes
// the CRC. The records keep their bytes; from now on every one of them has the
// timestamp ms.
func (b Batch) SetMaxTimestampLogAppend(ms int64) {
	b[posAttributes+1] |= attrLogAppendTime
	b.setMaxTimestamp(ms)
}
