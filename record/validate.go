package record

import (
	"encoding/binary"
	"fmt"
	"math"
)

// ProducerCodec as Limits.Codec keeps whatever codec the producer chose, as
// compression.type=producer does.
const ProducerCodec Codec = -1

// Limits are what a topic and its broker ask of a produced batch.
type Limits struct {
	// MaxBatchBytes is the largest whole batch, header included
	// (max.message.bytes). 0 means no limit.
	MaxBatchBytes int

	// Strict opens compressed batches too, and walks their records.
	Strict bool

	// RequireKeys refuses records without a key, as compacted topics must. It
	// opens compressed batches.
	RequireKeys bool

	// MaxDecoded is how long the records of a compressed batch may be when it
	// has to be opened. Longer ones are refused as too large.
	MaxDecoded int

	// NowMs is the broker's clock. BeforeMaxMs and AfterMaxMs are how far a
	// record's timestamp may lie before and behind it
	// (message.timestamp.before.max.ms, .after.max.ms); MaxInt64 means any
	// distance. Timestamp -1, "none", always passes. In a compressed batch that
	// stays unopened, the header's timestamps stand for the records'.
	NowMs, BeforeMaxMs, AfterMaxMs int64

	// LogAppendTime stamps the batch with NowMs instead of checking its
	// timestamps (message.timestamp.type).
	LogAppendTime bool

	// Codec is what the topic stores (compression.type), or ProducerCodec. A
	// batch of another codec is opened, checked and compressed anew.
	Codec Codec

	// NoZstd refuses zstd, for requests older than Produce v7 (KIP-110).
	NoZstd bool
}

// Kind says which of Kafka's answers a refused batch gets.
type Kind uint8

const (
	// KindCorrupt is CORRUPT_MESSAGE: damaged on the way, worth sending again.
	KindCorrupt Kind = iota + 1
	// KindInvalidRecord is INVALID_RECORD: whole, but not allowed.
	KindInvalidRecord
	// KindTooLarge is MESSAGE_TOO_LARGE.
	KindTooLarge
	// KindInvalidTimestamp is INVALID_TIMESTAMP.
	KindInvalidTimestamp
	// KindUnsupportedCodec is UNSUPPORTED_COMPRESSION_TYPE.
	KindUnsupportedCodec
)

// String returns Kafka's name of the answer.
func (k Kind) String() string {
	switch k {
	case KindCorrupt:
		return "CORRUPT_MESSAGE"
	case KindInvalidRecord:
		return "INVALID_RECORD"
	case KindTooLarge:
		return "MESSAGE_TOO_LARGE"
	case KindInvalidTimestamp:
		return "INVALID_TIMESTAMP"
	case KindUnsupportedCodec:
		return "UNSUPPORTED_COMPRESSION_TYPE"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// RecordError names one bad record of a refused batch (Produce v8+).
type RecordError struct {
	Index int32 // position in the batch, from 0
	Msg   string
}

// ValidationError is why a produced batch was refused. Nothing of the batch
// may be appended.
type ValidationError struct {
	Kind    Kind
	Msg     string
	Records []RecordError // the first bad records, at most maxRecordErrors of them
}

// maxRecordErrors bounds what one hostile batch of a million bad records makes
// us allocate and send back.
const maxRecordErrors = 1000

// Error returns the message behind Kafka's name of the answer.
func (e *ValidationError) Error() string { return e.Kind.String() + ": " + e.Msg }

func refuse(kind Kind, format string, args ...any) error {
	return &ValidationError{Kind: kind, Msg: fmt.Sprintf(format, args...)}
}

// ValidateProduced checks the records that a producer sent for one partition
// and returns the one batch that they must be, ready to be given its offset
// and leader epoch. The error is always a *ValidationError.
//
// A valid uncompressed batch costs one pass for the CRC, one over the records,
// and no allocation. The batch returned is p itself, except that
//   - a max timestamp that the records disprove is corrected in p, as Kafka does;
//   - log-append time is stamped into p;
//   - a batch is built anew, its records' contents untouched, when Limits.Codec
//     demands another codec, and when the offset deltas of walked records are
//     not 0, 1, 2...: stored like that, two records would share an offset.
func ValidateProduced(p []byte, l Limits) (Batch, error) {
	b, err := onlyBatch(p)
	if err != nil {
		return nil, err
	}
	if b.BaseOffset() != 0 {
		return nil, refuse(KindInvalidRecord, "base offset is %d, a produced batch must have 0", b.BaseOffset())
	}
	if err := l.checkSize(b); err != nil {
		return nil, err
	}
	if err := b.CheckCRC(); err != nil {
		return nil, refuse(KindCorrupt, "%v", err)
	}
	if err := checkHeader(b, l.NoZstd); err != nil {
		return nil, err
	}
	if l.Codec > Zstd {
		panic(fmt.Sprintf("BUG: Limits.Codec is %v", l.Codec))
	}
	recode := l.Codec >= None && l.Codec != b.Codec()
	if b.Codec() != None && !l.Strict && !l.RequireKeys && !recode {
		if err := l.checkUnopened(b); err != nil {
			return nil, err
		}
	} else if b, err = l.checkRecords(b, recode); err != nil {
		return nil, err
	}
	if l.LogAppendTime {
		b.SetMaxTimestampLogAppend(l.NowMs)
	}
	return b, nil
}

// onlyBatch returns the batch that p must consist of. Which of its two errors
// a wrong length gets is Kafka's: it reads no batch at all when the length
// reaches beyond p, and a damaged one when the length ends too early.
func onlyBatch(p []byte) (Batch, error) {
	const v0Overhead = 14 // no message of any format has a shorter length
	if len(p) <= posMagic {
		return nil, refuse(KindInvalidRecord, "%d bytes hold no batch, each partition must have exactly one", len(p))
	}
	length := int64(int32(binary.BigEndian.Uint32(p[posLength:])))
	magic := int8(p[posMagic])
	switch {
	case length < v0Overhead:
		return nil, refuse(KindCorrupt, "batch length %d is less than any batch has", length)
	case length+LogOverhead > int64(len(p)):
		return nil, refuse(KindInvalidRecord, "batch length %d reaches beyond the %d bytes sent", length, len(p))
	case magic < 0 || magic > Magic:
		return nil, refuse(KindCorrupt, "unknown magic %d", magic)
	case magic < Magic:
		return nil, refuse(KindInvalidRecord, "magic %d, only batches with magic %d are accepted", magic, Magic)
	}
	b, rest, err := Parse(p)
	if err != nil {
		return nil, refuse(KindCorrupt, "%v", err)
	}
	if len(rest) > 0 {
		if _, _, err := Parse(rest); err == nil {
			return nil, refuse(KindInvalidRecord, "more than one batch, each partition must have exactly one")
		}
		return nil, refuse(KindCorrupt, "%d bytes behind the batch", len(rest))
	}
	return b, nil
}

func (l Limits) checkSize(b Batch) error {
	if l.MaxBatchBytes > 0 && len(b) > l.MaxBatchBytes {
		return refuse(KindTooLarge, "the batch has %d bytes, the topic takes %d", len(b), l.MaxBatchBytes)
	}
	return nil
}

// checkHeader checks what the header says by itself.
func checkHeader(b Batch, noZstd bool) error {
	codec, count, last := b.Codec(), b.Count(), b.LastOffsetDelta()
	id, epoch, sequence := b.ProducerID(), b.ProducerEpoch(), b.BaseSequence()
	switch {
	case !codec.Valid():
		return refuse(KindUnsupportedCodec, "no codec has number %d", int8(codec))
	case codec == Zstd && noZstd:
		return refuse(KindUnsupportedCodec, "zstd needs Produce version 7")
	case b.IsControl():
		return refuse(KindInvalidRecord, "clients may not write control records")
	case b.HasDeleteHorizon():
		return refuse(KindInvalidRecord, "clients may not set a delete horizon")
	case b.TimestampType() == LogAppendTime:
		return refuse(KindInvalidTimestamp, "producers may not set the timestamp type to LogAppendTime")
	case count <= 0:
		return refuse(KindInvalidRecord, "record count is %d", count)
	case last != count-1:
		return refuse(KindInvalidRecord, "last offset delta is %d with %d records", last, count)
	case id < -1:
		return refuse(KindInvalidRecord, "producer id is %d", id)
	case id >= 0 && epoch < 0:
		return refuse(KindInvalidRecord, "producer id %d without an epoch", id)
	case id >= 0 && sequence < 0:
		return refuse(KindInvalidRecord, "producer id %d without a sequence", id)
	case id < 0 && b.IsTransactional():
		return refuse(KindInvalidRecord, "transactional batch without a producer id")
	}
	return nil
}

// checkUnopened checks a compressed batch from outside.
func (l Limits) checkUnopened(b Batch) error {
	if !b.Codec().begins(b.Payload()) {
		return refuse(KindCorrupt, "the records are not compressed with %v", b.Codec())
	}
	if l.LogAppendTime {
		return nil
	}
	lo, hi := l.timestampBounds()
	// The base timestamp is the first record's in all clients that we know.
	base, last := b.BaseTimestamp(), b.MaxTimestamp()
	for _, t := range [...]int64{base, last} {
		if t != -1 && (t < lo || t == last && t > hi) {
			return refuse(KindInvalidTimestamp, "%s", timestampMsg(t, lo, hi))
		}
	}
	return nil
}

// timestampBounds returns the least and the greatest timestamp allowed.
func (l Limits) timestampBounds() (lo, hi int64) {
	if lo = l.NowMs - l.BeforeMaxMs; lo > l.NowMs {
		lo = math.MinInt64
	}
	if hi = l.NowMs + l.AfterMaxMs; hi < l.NowMs {
		hi = math.MaxInt64
	}
	// A distance of MaxInt64 is Kafka's "any", whatever the clock says.
	if l.BeforeMaxMs == math.MaxInt64 {
		lo = math.MinInt64
	}
	return lo, hi
}

func timestampMsg(t, lo, hi int64) string {
	return fmt.Sprintf("timestamp %d is out of range, it should be within [%d, %d]", t, lo, hi)
}

// checkRecords walks the records, opened if need be, and mends the batch where
// ValidateProduced says so.
func (l Limits) checkRecords(b Batch, recode bool) (Batch, error) {
	payload := b.Payload()
	if b.Codec() != None {
		buf := decoded.Get().(*[]byte)
		defer decoded.Put(buf)
		var err error
		if payload, err = decompress(*buf, b.Codec(), payload, l.MaxDecoded); err != nil {
			return nil, openError(err)
		}
		if cap(payload) <= maxPooledDecoded {
			*buf = payload
		}
	}
	w := walk{lo: math.MinInt64, hi: math.MaxInt64, requireKeys: l.RequireKeys, base: b.BaseTimestamp()}
	if !l.LogAppendTime {
		w.lo, w.hi = l.timestampBounds()
	}
	if err := w.records(payload, int(b.Count())); err != nil {
		return nil, err
	}
	if !w.dense {
		payload = denseOffsets(payload)
	}
	if recode || !w.dense {
		codec := b.Codec()
		if recode {
			codec = l.Codec
		}
		packed, err := Compress(codec, payload)
		if err != nil {
			panic(fmt.Sprintf("BUG: %v", err))
		}
		b = b.withRecords(codec, packed)
		if err := l.checkSize(b); err != nil {
			return nil, err
		}
	}
	if w.max != b.MaxTimestamp() && !l.LogAppendTime {
		b.setMaxTimestamp(w.max)
	}
	return b, nil
}

func openError(err error) error {
	if err == ErrDecodedSize {
		return refuse(KindTooLarge, "%v", err)
	}
	return refuse(KindCorrupt, "%v", err)
}
