package record

import "fmt"

// walk checks the records of a produced batch without building any of them. It
// is the inner loop of every produce: a record costs the decoding of a handful
// of varints, and nothing is allocated until something is wrong.
type walk struct {
	lo, hi      int64 // timestamps allowed; -1 always is
	base        int64 // the batch's base timestamp
	requireKeys bool

	max   int64 // greatest timestamp seen
	dense bool  // offset deltas are 0, 1, 2...
	bad   *ValidationError
}

// records walks count records, which must fill p exactly. Malformed ones end
// the walk; ones that only break a rule of the topic are collected, because
// the answer names them all.
func (w *walk) records(p []byte, count int) error {
	w.max, w.dense = w.base, true
	for index := range count {
		size, i := varint32(p, 0)
		if i < 0 || size < 1 || int(size) > len(p)-i {
			return malformed(index, count, "its length does not fit")
		}
		end := i + int(size)
		r := p[:end] // nothing below can reach into the next record
		p = p[end:]

		timestampDelta, i := varint64(r, i+1) // behind the attributes, which are unused
		if i < 0 {
			return malformed(index, count, "bad timestamp delta")
		}
		offsetDelta, i := varint32(r, i)
		if i < 0 {
			return malformed(index, count, "bad offset delta")
		}
		keyLen, i := varint32(r, i)
		if i < 0 || keyLen < -1 || int(keyLen) > end-i {
			return malformed(index, count, "bad key length")
		}
		i += int(max(keyLen, 0))
		valueLen, i := varint32(r, i)
		if i < 0 || valueLen < -1 || int(valueLen) > end-i {
			return malformed(index, count, "bad value length")
		}
		i += int(max(valueLen, 0))
		headers, i := varint32(r, i)
		if i < 0 || headers < 0 {
			return malformed(index, count, "bad header count")
		}
		if headers > 0 {
			if i = skipHeaders(r, i, int(headers)); i < 0 {
				return malformed(index, count, "bad header")
			}
		}
		if i != end {
			return malformed(index, count, "its fields do not fill it")
		}

		timestamp := w.base + timestampDelta // wraps as the producer's difference did
		if index == 0 || timestamp > w.max {
			w.max = timestamp
		}
		if timestamp != -1 && (timestamp < w.lo || timestamp > w.hi) {
			w.report(KindInvalidTimestamp, index, timestampMsg(timestamp, w.lo, w.hi))
		}
		if keyLen < 0 && w.requireKeys {
			w.report(KindInvalidRecord, index, "a compacted topic takes no record without a key")
		}
		if int(offsetDelta) != index {
			w.dense = false
		}
	}
	if len(p) != 0 {
		return refuse(KindInvalidRecord, "%d bytes behind record %d, the last", len(p), count)
	}
	if w.bad != nil {
		return w.bad
	}
	return nil
}

// skipHeaders returns the position behind n headers, or -1. The count needs no
// bound: each header takes two bytes, and the record ends somewhere.
func skipHeaders(r []byte, i, n int) int {
	for range n {
		var size int32
		if size, i = varint32(r, i); i < 0 || size < 0 || int(size) > len(r)-i {
			return -1
		}
		i += int(size)
		if size, i = varint32(r, i); i < 0 || size < -1 || int(size) > len(r)-i {
			return -1
		}
		i += int(max(size, 0))
	}
	return i
}

func malformed(index, count int, what string) error {
	return refuse(KindInvalidRecord, "record %d of %d: %s", index, count, what)
}

// report collects a record that breaks a rule. A bad timestamp decides the
// answer of the whole batch, as in Kafka.
func (w *walk) report(kind Kind, index int, msg string) {
	if w.bad == nil {
		w.bad = &ValidationError{Kind: kind, Msg: fmt.Sprintf("record %d: %s", index, msg)}
	}
	if kind == KindInvalidTimestamp && w.bad.Kind != kind {
		w.bad.Kind, w.bad.Msg = kind, fmt.Sprintf("record %d: %s", index, msg)
	}
	if len(w.bad.Records) < maxRecordErrors {
		w.bad.Records = append(w.bad.Records, RecordError{Index: int32(index), Msg: msg})
	}
}

// denseOffsets returns the records of a payload that was walked, with offset
// deltas 0, 1, 2... and everything else as it was.
func denseOffsets(payload []byte) []byte {
	out := make([]byte, 0, len(payload)+len(payload)/8)
	for index := 0; len(payload) > 0; index++ {
		size, start := varint32(payload, 0)
		end := start + int(size)
		_, afterTimestamp := varint64(payload, start+1)
		_, afterOffset := varint32(payload, afterTimestamp)
		head, tail := payload[start:afterTimestamp], payload[afterOffset:end]
		out = appendVarint(out, int64(len(head)+varintLen(int64(index))+len(tail)))
		out = append(out, head...)
		out = appendVarint(out, int64(index))
		out = append(out, tail...)
		payload = payload[end:]
	}
	return out
}
