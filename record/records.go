package record

import (
	"fmt"
	"iter"
)

// Header is one header of a record. A nil Value is a null value; keys are
// never null. Keys may repeat, and their order counts.
type Header struct {
	Key   string
	Value []byte
}

// Record is one record of a batch. A nil Key or Value is null, which differs
// from an empty one. Batch.Offset and Batch.Timestamp resolve the two deltas.
type Record struct {
	OffsetDelta    int32
	TimestampDelta int64
	Key, Value     []byte
	Headers        []Header
}

// Offset returns the offset of r, which must come from b.
func (b Batch) Offset(r Record) int64 { return b.BaseOffset() + int64(r.OffsetDelta) }

// Timestamp returns the timestamp of r in milliseconds, which must come from
// b: its own, or the batch's when that has log-append time. The sum wraps, as
// the producer's difference did.
func (b Batch) Timestamp(r Record) int64 {
	if b.TimestampType() == LogAppendTime {
		return b.MaxTimestamp()
	}
	return b.BaseTimestamp() + r.TimestampDelta
}

// Records walks the records in order, decompressing them first when need be,
// to at most maxDecoded bytes (without effect on an uncompressed batch, which
// needs no memory). It stops at the first error, which it yields with a zero
// Record: ErrDecodedSize, or ErrCorrupt for records that contradict themselves
// or the header's count. Records before the error are sound.
//
// Keys and values share memory with the batch, or with the decompressed copy,
// and stay valid after the walk. The CRC is not checked.
func (b Batch) Records(maxDecoded int) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		payload, err := b.open(maxDecoded)
		if err != nil {
			yield(Record{}, err)
			return
		}
		count := int(b.Count())
		if count < 0 {
			yield(Record{}, fmt.Errorf("%w: record count %d", ErrCorrupt, count))
			return
		}
		for i := range count {
			r, n, err := parseRecord(payload, true)
			if err != nil {
				yield(Record{}, fmt.Errorf("record %d of %d: %w", i, count, err))
				return
			}
			if !yield(r, nil) {
				return
			}
			payload = payload[n:]
		}
		if len(payload) != 0 {
			yield(Record{}, fmt.Errorf("%w: %d bytes behind record %d, the last", ErrCorrupt, len(payload), count))
		}
	}
}

// FindTimestamp returns offset and timestamp of the first record, by offset,
// that is at or above the offset from and has a timestamp of at least ts, as
// ListOffsets wants it. ok is false when the batch has none. It fails as
// Records does.
func (b Batch) FindTimestamp(ts, from int64, maxDecoded int) (offset, at int64, ok bool, err error) {
	for r, err := range b.bareRecords(maxDecoded) {
		if err != nil {
			return 0, 0, false, err
		}
		if o, t := b.Offset(r), b.Timestamp(r); t >= ts && o >= from {
			return o, t, true, nil
		}
	}
	return 0, 0, false, nil
}

// OffsetOfMaxTimestamp returns the first record that has the batch's greatest
// timestamp. A batch without records has none, and ok is false. It fails as
// Records does.
func (b Batch) OffsetOfMaxTimestamp(maxDecoded int) (offset, at int64, ok bool, err error) {
	for r, err := range b.bareRecords(maxDecoded) {
		if err != nil {
			return 0, 0, false, err
		}
		if t := b.Timestamp(r); !ok || t > at {
			offset, at, ok = b.Offset(r), t, true
		}
	}
	return offset, at, ok, nil
}

// bareRecords is Records without headers, which spares their allocation.
func (b Batch) bareRecords(maxDecoded int) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		payload, err := b.open(maxDecoded)
		if err != nil {
			yield(Record{}, err)
			return
		}
		for i := range int(b.Count()) {
			r, n, err := parseRecord(payload, false)
			if err != nil {
				yield(Record{}, fmt.Errorf("record %d of %d: %w", i, b.Count(), err))
				return
			}
			if !yield(r, nil) {
				return
			}
			payload = payload[n:]
		}
	}
}

// open returns the records uncompressed.
func (b Batch) open(maxDecoded int) ([]byte, error) {
	if b.Codec() == None {
		return b.Payload(), nil
	}
	return Decompress(b.Codec(), b.Payload(), maxDecoded)
}

var errRecord = fmt.Errorf("%w: malformed record", ErrCorrupt)

// parseRecord reads the record that p begins with and returns its length.
// Headers are checked, but built only when asked for.
//
//	length varint | attributes 1 byte, unused | timestamp delta varint | offset delta varint |
//	key length varint, -1 null | key | value length | value | header count varint |
//	(key length | key | value length, -1 null | value)*
func parseRecord(p []byte, headers bool) (r Record, n int, err error) {
	size, i := varint32(p, 0)
	if i < 0 || size < 1 || int(size) > len(p)-i {
		return Record{}, 0, errRecord
	}
	n = i + int(size)
	p = p[:n] // nothing below can reach into the next record
	i++       // attributes
	if r.TimestampDelta, i = varint64(p, i); i < 0 {
		return Record{}, 0, errRecord
	}
	if r.OffsetDelta, i = varint32(p, i); i < 0 {
		return Record{}, 0, errRecord
	}
	if r.Key, i = bytesAt(p, i); i < 0 {
		return Record{}, 0, errRecord
	}
	if r.Value, i = bytesAt(p, i); i < 0 {
		return Record{}, 0, errRecord
	}
	count, i := varint32(p, i)
	// A header takes two bytes at least, which bounds what a lying count allocates.
	if i < 0 || count < 0 || int(count) > (n-i)/2 {
		return Record{}, 0, errRecord
	}
	if headers && count > 0 {
		r.Headers = make([]Header, 0, count)
	}
	for range count {
		var key, value []byte
		if key, i = bytesAt(p, i); i < 0 || key == nil {
			return Record{}, 0, errRecord
		}
		if value, i = bytesAt(p, i); i < 0 {
			return Record{}, 0, errRecord
		}
		if headers {
			r.Headers = append(r.Headers, Header{Key: string(key), Value: value})
		}
	}
	if i != n {
		return Record{}, 0, errRecord
	}
	return r, n, nil
}

// bytesAt reads a length and that many bytes; -1 is null. The slice's capacity
// ends with it. Lengths below -1 are refused, though Kafka reads them as null.
func bytesAt(p []byte, i int) ([]byte, int) {
	size, i := varint32(p, i)
	if i < 0 || size < -1 || int(size) > len(p)-i {
		return nil, -1
	}
	if size < 0 {
		return nil, i
	}
	end := i + int(size)
	return p[i:end:end], end
}
