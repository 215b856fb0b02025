package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"
)

// produced returns an uncompressed batch of records with the given offset
// deltas, keys k0, k1..., and change applied before length and CRC are set.
func produced(deltas []int32, change func(Batch)) Batch {
	opts := NewBatchOptions()
	b := NewBuilder(opts)
	for range max(1, len(deltas)) {
		b.Append(Record{TimestampDelta: 1000, Key: []byte("k"), Value: []byte("v")})
	}
	batch := b.Build()
	payload := []byte{}
	for i, d := range deltas {
		payload = appendRecord(payload, Record{OffsetDelta: d, TimestampDelta: int64(i), Key: []byte("k"), Value: []byte("v")})
	}
	batch = batch.withRecords(None, payload)
	batch.setMaxTimestamp(1000 + int64(len(deltas)) - 1)
	if change != nil {
		change(batch)
		batch.sealCRC()
	}
	return batch
}

func put16(at int, v int16) func(Batch) {
	return func(b Batch) { binary.BigEndian.PutUint16(b[at:], uint16(v)) }
}
func put32(at int, v int32) func(Batch) {
	return func(b Batch) { binary.BigEndian.PutUint32(b[at:], uint32(v)) }
}
func put64(at int, v int64) func(Batch) {
	return func(b Batch) { binary.BigEndian.PutUint64(b[at:], uint64(v)) }
}
func bits(set byte) func(Batch) { return func(b Batch) { b[posAttributes+1] |= set } }

func all(changes ...func(Batch)) func(Batch) {
	return func(b Batch) {
		for _, c := range changes {
			c(b)
		}
	}
}

var two = []int32{0, 1}

// TestProduceAnswersAreKafkas holds every refusal to the answer that Apache
// Kafka 4.3.1 gave to the same bytes, where Kafka refuses it too.
func TestProduceAnswersAreKafkas(t *testing.T) {
	any := producerLimits()
	good := produced(two, nil)
	length := func(by int32) []byte {
		b := bytes.Clone(good)
		binary.BigEndian.PutUint32(b[posLength:], uint32(int32(len(b)-LogOverhead)+by))
		return b
	}
	oldMessage := func(magic byte) []byte { // offset, size, crc, magic, ...
		b := make([]byte, 12+22)
		binary.BigEndian.PutUint32(b[8:], 22)
		b[16] = magic
		return b
	}
	badCRC := bytes.Clone(good)
	badCRC[posCRC] ^= 1
	for _, c := range []struct {
		name  string
		bytes []byte
		kind  Kind
	}{
		{"good", good, 0},
		{"nothing", nil, KindInvalidRecord},
		{"empty", []byte{}, KindInvalidRecord},
		{"a header's beginning", good[:posMagic], KindInvalidRecord},
		{"cut header", good[:HeaderSize-1], KindInvalidRecord},
		{"garbage", bytes.Repeat([]byte{1}, 100), KindInvalidRecord},
		{"length one short", length(-1), KindCorrupt},
		{"length one long", length(1), KindInvalidRecord},
		{"length 40 short", length(-40), KindCorrupt},
		{"length a MiB long", length(1 << 20), KindInvalidRecord},
		{"length negative", length(-100000), KindCorrupt},
		{"length greatest", length(math.MaxInt32 - int32(len(good)-LogOverhead)), KindInvalidRecord},
		{"magic 0", oldMessage(0), KindInvalidRecord},
		{"magic 1", oldMessage(1), KindInvalidRecord},
		{"magic 3", produced(two, func(b Batch) { b[posMagic] = 3 }), KindCorrupt},
		{"magic -1", produced(two, func(b Batch) { b[posMagic] = 0xff }), KindCorrupt},
		{"two batches", append(bytes.Clone(good), good...), KindInvalidRecord},
		{"a byte behind", append(bytes.Clone(good), 0), KindCorrupt},
		{"bad CRC", badCRC, KindCorrupt},
		{"base offset", produced(two, put64(posBaseOffset, 12345)), KindInvalidRecord},
		{"base offset -1", produced(two, put64(posBaseOffset, -1)), KindInvalidRecord},
		{"base offset near overflow", produced(two, put64(posBaseOffset, math.MaxInt64)), KindInvalidRecord},
		{"no records", produced(nil, nil0), KindInvalidRecord},
		{"count too high", produced(two, put32(posCount, 3)), KindInvalidRecord},
		{"count too low", produced(two, put32(posCount, 1)), KindInvalidRecord},
		{"count and delta too high", produced(two, all(put32(posCount, 3), put32(posLastOffsetDelta, 2))), KindInvalidRecord},
		{"count and delta too low", produced(two, all(put32(posCount, 1), put32(posLastOffsetDelta, 0))), KindInvalidRecord},
		{"count negative", produced(two, put32(posCount, -1)), KindInvalidRecord},
		{"count and delta negative", produced(two, all(put32(posCount, -1), put32(posLastOffsetDelta, -2))), KindInvalidRecord},
		{"count greatest", produced(two, all(put32(posCount, math.MaxInt32), put32(posLastOffsetDelta, math.MaxInt32-1))), KindInvalidRecord},
		{"last delta too high", produced(two, put32(posLastOffsetDelta, 3)), KindInvalidRecord},
		{"last delta greatest", produced(two, put32(posLastOffsetDelta, math.MaxInt32)), KindInvalidRecord},
		{"gap in offset deltas", produced([]int32{0, 5}, nil), 0},
		{"equal offset deltas", produced([]int32{0, 0}, nil), 0},
		{"control", produced(two, bits(attrControl)), KindInvalidRecord},
		{"delete horizon", produced(two, bits(attrDeleteHorizon)), KindInvalidRecord},
		{"log-append time", produced(two, bits(attrLogAppendTime)), KindInvalidTimestamp},
		{"codec 5", produced(two, bits(5)), KindUnsupportedCodec},
		{"codec 6", produced(two, bits(6)), KindUnsupportedCodec},
		{"codec 7", produced(two, bits(7)), KindUnsupportedCodec},
		{"gzip flag over plain bytes", produced(two, bits(byte(Gzip))), KindCorrupt},
		{"snappy flag over plain bytes", produced(nil, func(b Batch) { all(bits(byte(Snappy)), put32(posCount, 1), put32(posLastOffsetDelta, 0))(b) }), KindCorrupt},
		{"lz4 flag over plain bytes", produced(two, bits(byte(LZ4))), KindCorrupt},
		{"zstd flag over plain bytes", produced(two, bits(byte(Zstd))), KindCorrupt},
		{"transactional without a producer", produced(two, bits(attrTransactional)), KindInvalidRecord},
		{"producer without a sequence", produced(two, all(put64(posProducerID, 5), put16(posProducerEpoch, 0))), KindInvalidRecord},
		{"producer without an epoch", produced(two, all(put64(posProducerID, 5), put32(posBaseSequence, 0))), KindInvalidRecord},
		{"producer id -2", produced(two, put64(posProducerID, -2)), KindInvalidRecord},
		{"idempotent", produced(two, all(put64(posProducerID, 5), put16(posProducerEpoch, 0), put32(posBaseSequence, math.MaxInt32))), 0},
		{"sequence without a producer", produced(two, put32(posBaseSequence, 0)), 0}, // Sarama sends that
		{"transactional", produced(two, all(bits(attrTransactional), put64(posProducerID, 5), put16(posProducerEpoch, 0), put32(posBaseSequence, 0))), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := ValidateProduced(c.bytes, any)
			if c.kind == 0 {
				if err != nil || b.CheckCRC() != nil {
					t.Fatalf("refused: %v, CRC %v", err, b.CheckCRC())
				}
				return
			}
			var v *ValidationError
			if !errors.As(err, &v) || v.Kind != c.kind || v.Msg == "" || b != nil {
				t.Fatalf("got %v, want %v", err, c.kind)
			}
		})
	}
}

func nil0(b Batch) { all(put32(posCount, 0), put32(posLastOffsetDelta, -1))(b) }

// TestSizeLimitCountsTheWholeBatch checks both sides of max.message.bytes.
func TestSizeLimitCountsTheWholeBatch(t *testing.T) {
	b := produced(two, nil)
	l := producerLimits()
	l.MaxBatchBytes = len(b)
	if _, err := ValidateProduced(b, l); err != nil {
		t.Errorf("exactly the limit: %v", err)
	}
	l.MaxBatchBytes--
	wantKind(t, "one byte over", b, l, KindTooLarge)
}

func wantKind(t *testing.T, what string, p []byte, l Limits, want Kind) *ValidationError {
	t.Helper()
	_, err := ValidateProduced(bytes.Clone(p), l)
	var v *ValidationError
	if !errors.As(err, &v) || v.Kind != want {
		t.Errorf("%s: got %v, want %v", what, err, want)
		return &ValidationError{}
	}
	return v
}

// malformedPayloads are records that contradict themselves, one fault each, in
// a batch that claims one record.
func malformedPayloads() map[string][]byte {
	rec := func(body ...byte) []byte { return append(appendVarint(nil, int64(len(body))), body...) }
	nul := byte(1) // the varint of -1
	return map[string][]byte{
		"nothing":                {},
		"length only":            {20},
		"length zero":            {0},
		"length negative":        {1},
		"length beyond the end":  append(appendVarint(nil, 100), 0, 0, 0, nul, nul, 0),
		"length of 2^31":         {0xff, 0xff, 0xff, 0xff, 0x1f, 0},
		"length of six bytes":    {0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0},
		"attributes only":        rec(0),
		"no offset delta":        rec(0, 0),
		"no key":                 rec(0, 0, 0),
		"no value":               rec(0, 0, 0, nul),
		"no header count":        rec(0, 0, 0, nul, nul),
		"timestamp of 11 bytes":  rec(0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0, 0, nul, nul, 0),
		"timestamp of 65 bits":   rec(0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02, 0, nul, nul, 0),
		"offset of 33 bits":      rec(0, 0, 0x80, 0x80, 0x80, 0x80, 0x10, nul, nul, 0),
		"key length -2":          rec(0, 0, 0, 3, nul, 0),
		"key beyond the record":  rec(0, 0, 0, 20, nul, 0),
		"key length greatest":    rec(0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0x0f, nul, 0),
		"value length -2":        rec(0, 0, 0, nul, 3, 0),
		"value beyond the end":   rec(0, 0, 0, nul, 20, 0),
		"header count -1":        rec(0, 0, 0, nul, nul, 1),
		"header count greatest":  rec(0, 0, 0, nul, nul, 0xfe, 0xff, 0xff, 0xff, 0x0f),
		"header key null":        rec(0, 0, 0, nul, nul, 2, nul, nul),
		"header key beyond":      rec(0, 0, 0, nul, nul, 2, 20, nul),
		"header value -2":        rec(0, 0, 0, nul, nul, 2, 0, 3),
		"header value beyond":    rec(0, 0, 0, nul, nul, 2, 0, 20),
		"one header too few":     rec(0, 0, 0, nul, nul, 4, 0, nul),
		"byte behind the fields": rec(0, 0, 0, nul, nul, 0, 0),
		"second record":          append(rec(0, 0, 0, nul, nul, 0), rec(0, 0, 2, nul, nul, 0)...),
	}
}

// TestUncompressedRecordsAreWalked checks that no malformed record passes in
// any mode, and that iteration agrees with validation about every one.
func TestUncompressedRecordsAreWalked(t *testing.T) {
	for name, payload := range malformedPayloads() {
		b := produced([]int32{0}, nil).withRecords(None, payload)
		wantKind(t, name, b, producerLimits(), KindInvalidRecord)
		if _, err := collect(b, 1<<20); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: iteration gives %v, want ErrCorrupt", name, err)
		}
		for _, codec := range []Codec{Gzip, Snappy, LZ4, Zstd} {
			packed, err := Compress(codec, payload)
			if err != nil {
				t.Fatal(err)
			}
			strict := producerLimits()
			strict.Strict = true
			wantKind(t, name+" in "+codec.String(), b.withRecords(codec, packed), strict, KindInvalidRecord)
		}
	}
}

// TestHeaderModeLeavesCompressedRecordsClosed checks the price and the bound of
// the fast mode: a lie inside passes there, and is refused by strict.
func TestHeaderModeLeavesCompressedRecordsClosed(t *testing.T) {
	for _, codec := range []Codec{Gzip, Snappy, LZ4, Zstd} {
		packed, err := Compress(codec, []byte("these are no records"))
		if err != nil {
			t.Fatal(err)
		}
		b := produced([]int32{0}, nil).withRecords(codec, packed)
		l := producerLimits()
		if _, err := ValidateProduced(bytes.Clone(b), l); err != nil {
			t.Errorf("%v, header mode: %v", codec, err)
		}
		l.Strict = true
		wantKind(t, codec.String()+" strict", b, l, KindInvalidRecord)
		l = producerLimits()
		l.RequireKeys = true
		wantKind(t, codec.String()+" compacted", b, l, KindInvalidRecord)
	}
}

// TestStrictNeverTrustsCompressedLengths sends bombs: what opens to more than
// MaxDecoded is refused, as is a stream that is cut.
func TestStrictNeverTrustsCompressedLengths(t *testing.T) {
	l := producerLimits()
	l.Strict, l.MaxDecoded = true, 1<<20
	for _, codec := range []Codec{Gzip, Snappy, LZ4, Zstd} {
		packed, err := Compress(codec, make([]byte, 32<<20))
		if err != nil {
			t.Fatal(err)
		}
		b := produced([]int32{0}, nil).withRecords(codec, packed)
		wantKind(t, codec.String()+" bomb", b, l, KindTooLarge)
		whole := manyRecords(10, 1000, codec)
		wantKind(t, codec.String()+" cut", whole.withRecords(codec, whole.Payload()[:len(whole.Payload())-5]), l, KindCorrupt)
	}
}

// TestCompactedTopicsRequireKeys checks that bad records are named, compressed or not.
func TestCompactedTopicsRequireKeys(t *testing.T) {
	for codec := None; codec <= Zstd; codec++ {
		opts := NewBatchOptions()
		opts.Codec = codec
		b := NewBuilder(opts)
		for i := range 3 {
			key := []byte("k")
			if i == 1 {
				key = nil
			}
			b.Append(Record{TimestampDelta: 5, Key: key, Value: nil})
		}
		batch := b.Build()
		l := producerLimits()
		if _, err := ValidateProduced(bytes.Clone(batch), l); err != nil {
			t.Errorf("%v: %v", codec, err)
		}
		l.RequireKeys = true
		if v := wantKind(t, codec.String(), batch, l, KindInvalidRecord); len(v.Records) != 1 || v.Records[0].Index != 1 {
			t.Errorf("%v: bad records %v, want record 1", codec, v.Records)
		}
	}
}

// TestTimestampBounds covers the edges of the clock, for opened and unopened batches.
func TestTimestampBounds(t *testing.T) {
	const now, hour = 1_800_000_000_000, 3_600_000
	for _, c := range []struct {
		name          string
		before, after int64
		stamps        []int64
		bad           []int32
	}{
		{"now", 0, 0, []int64{now}, nil},
		{"none", 0, 0, []int64{-1}, nil},
		{"none among others", hour, hour, []int64{now, -1}, nil},
		{"zero, any age", math.MaxInt64, hour, []int64{0}, nil},
		{"negative, any age", math.MaxInt64, hour, []int64{-5000}, nil},
		{"least, any age", math.MaxInt64, hour, []int64{math.MinInt64}, nil},
		{"greatest, any distance", math.MaxInt64, math.MaxInt64, []int64{math.MaxInt64}, nil},
		{"none and greatest", math.MaxInt64, math.MaxInt64, []int64{-1, math.MaxInt64}, nil},
		{"least and greatest", math.MaxInt64, math.MaxInt64, []int64{math.MinInt64, math.MaxInt64}, nil},
		{"greatest", math.MaxInt64, hour, []int64{math.MaxInt64}, []int32{0}},
		{"zero, too old", hour, hour, []int64{0}, []int32{0}},
		{"least, too old", hour, hour, []int64{math.MinInt64}, []int32{0}},
		{"oldest allowed", hour, hour, []int64{now - hour}, nil},
		{"one too old", hour, hour, []int64{now - hour - 1, now}, []int32{0}},
		{"latest allowed", hour, hour, []int64{now + hour}, nil},
		{"one too late", hour, hour, []int64{now, now + hour + 1}, []int32{1}},
		{"all too old", 1000, hour, []int64{now - 5000, now - 4000}, []int32{0, 1}},
		{"middle too old", 1000, hour, []int64{now, now - 4000, now}, []int32{1}},
	} {
		for _, codec := range []Codec{None, LZ4} {
			opts := NewBatchOptions()
			opts.Codec = codec
			b := NewBuilder(opts)
			greatest := c.stamps[0]
			for _, ts := range c.stamps {
				b.Append(Record{TimestampDelta: ts})
				greatest = max(greatest, ts)
			}
			batch := b.Build()
			l := producerLimits()
			l.NowMs, l.BeforeMaxMs, l.AfterMaxMs = now, c.before, c.after
			for _, strict := range []bool{true, false} {
				l.Strict = strict
				got, err := ValidateProduced(bytes.Clone(batch), l)
				if c.bad == nil || codec != None && !strict && c.name == "middle too old" {
					if err != nil || got.MaxTimestamp() != greatest {
						t.Errorf("%s, %v, strict %v: %v, max %d", c.name, codec, strict, err, got.MaxTimestamp())
					}
					continue
				}
				var v *ValidationError
				if !errors.As(err, &v) || v.Kind != KindInvalidTimestamp {
					t.Errorf("%s, %v, strict %v: %v, want INVALID_TIMESTAMP", c.name, codec, strict, err)
					continue
				}
				if (codec == None || strict) && !sameIndexes(v.Records, c.bad) {
					t.Errorf("%s, %v: bad records %v, want %v", c.name, codec, v.Records, c.bad)
				}
			}
			l.Strict, l.LogAppendTime = true, true
			if got, err := ValidateProduced(bytes.Clone(batch), l); err != nil || got.MaxTimestamp() != now || got.CheckCRC() != nil {
				t.Errorf("%s, %v: log-append time must not check timestamps: %v", c.name, codec, err)
			}
		}
	}
}

func sameIndexes(got []RecordError, want []int32) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		if got[i].Index != want[i] {
			return false
		}
	}
	return true
}

// TestBadTimestampDecidesTheAnswer has records of both faults: the answer is
// INVALID_TIMESTAMP whatever comes first, and both are named.
func TestBadTimestampDecidesTheAnswer(t *testing.T) {
	for _, order := range [][2]int64{{0, math.MaxInt64}, {math.MaxInt64, 0}} {
		b := NewBuilder(NewBatchOptions())
		for _, ts := range order {
			var key []byte
			if ts != 0 {
				key = []byte("k")
			}
			b.Append(Record{TimestampDelta: ts, Key: key})
		}
		l := producerLimits()
		l.RequireKeys = true
		if v := wantKind(t, "both", b.Build(), l, KindInvalidTimestamp); !sameIndexes(v.Records, []int32{0, 1}) {
			t.Errorf("bad records %v, want both", v.Records)
		}
	}
}

// TestRecordErrorsAreBounded sends a batch of many bad records.
func TestRecordErrorsAreBounded(t *testing.T) {
	b := NewBuilder(NewBatchOptions())
	for range 10 * maxRecordErrors {
		b.Append(Record{})
	}
	l := producerLimits()
	l.RequireKeys = true
	if v := wantKind(t, "many", b.Build(), l, KindInvalidRecord); len(v.Records) != maxRecordErrors {
		t.Fatalf("%d record errors", len(v.Records))
	}
}

// TestLyingMaxTimestampIsCorrected matters to retention and lookup by time,
// which believe the header. Kafka corrects it too.
func TestLyingMaxTimestampIsCorrected(t *testing.T) {
	for _, lie := range []int64{math.MaxInt64, 1002, 1000, 0, -1, math.MinInt64} {
		b, err := ValidateProduced(produced(two, put64(posMaxTimestamp, lie)), producerLimits())
		if err != nil || b.MaxTimestamp() != 1001 || b.CheckCRC() != nil {
			t.Errorf("max timestamp %d: %v, stored %d, CRC %v", lie, err, b.MaxTimestamp(), b.CheckCRC())
		}
	}
	// The base timestamp need not be any record's.
	payload := appendRecord(nil, Record{TimestampDelta: -10, Key: []byte("k")})
	b, err := ValidateProduced(produced([]int32{0}, nil).withRecords(None, payload), producerLimits())
	if err != nil || b.BaseTimestamp() != 1000 || b.MaxTimestamp() != 990 {
		t.Errorf("one record 10 ms before the base: %v, stored %d", err, b.MaxTimestamp())
	}
}

// TestOffsetDeltasAreMadeDense checks the one repair of records: two records
// must never share an offset, nor one lie beyond its batch.
func TestOffsetDeltasAreMadeDense(t *testing.T) {
	for _, deltas := range [][]int32{{0, 5}, {5, 0}, {0, 0}, {-1, math.MaxInt32}, {3}} {
		for _, codec := range []Codec{None, Zstd} {
			in := produced(deltas, nil)
			packed, _ := Compress(codec, in.Payload())
			in = in.withRecords(codec, packed)
			want, err := collect(in, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			for i := range want {
				want[i].OffsetDelta = int32(i)
			}
			l := producerLimits()
			l.Strict = true
			out, err := ValidateProduced(in, l)
			if err != nil {
				t.Fatalf("%v: %v", deltas, err)
			}
			got, err := collect(out, 1<<20)
			if err != nil || !equalRecords(got, want) || out.CheckCRC() != nil || out.Codec() != codec {
				t.Errorf("%v in %v: got %v (%v), want %v", deltas, codec, got, err, want)
			}
		}
	}
}

// TestTopicCodecRecompresses goes from every codec to every other: the records
// must come out as they went in, and a batch that has the codec is not touched.
func TestTopicCodecRecompresses(t *testing.T) {
	for from := None; from <= Zstd; from++ {
		in := manyRecords(50, 200, from)
		want, err := collect(in, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for to := None; to <= Zstd; to++ {
			l := producerLimits()
			l.Codec = to
			out, err := ValidateProduced(bytes.Clone(in), l)
			if err != nil || out.Codec() != to || out.CheckCRC() != nil {
				t.Errorf("%v to %v: %v, codec %v", from, to, err, out.Codec())
				continue
			}
			got, err := collect(out, 1<<20)
			if err != nil || !equalRecords(got, want) || out.MaxTimestamp() != in.MaxTimestamp() || out.Count() != in.Count() {
				t.Errorf("%v to %v: records differ (%v)", from, to, err)
			}
			if from == to && !bytes.Equal(in, out) {
				t.Errorf("%v to itself: the bytes changed", from)
			}
			l.LogAppendTime = true
			if out, err = ValidateProduced(bytes.Clone(in), l); err != nil || out.CheckCRC() != nil ||
				out.TimestampType() != LogAppendTime || out.MaxTimestamp() != l.NowMs || out.Codec() != to {
				t.Errorf("%v to %v with log-append time: %v", from, to, err)
			}
		}
	}
	l := producerLimits() // growth by recompression counts
	l.Codec, l.MaxBatchBytes = None, 5000
	wantKind(t, "grown", manyRecords(50, 200, Zstd), l, KindTooLarge)
}

// TestValidBatchesKeepTheirBytes is idea one: the producer's bytes are the log.
func TestValidBatchesKeepTheirBytes(t *testing.T) {
	for codec := None; codec <= Zstd; codec++ {
		in := manyRecords(50, 200, codec)
		for _, strict := range []bool{false, true} {
			l := producerLimits()
			l.Strict, l.RequireKeys = strict, strict
			sent := bytes.Clone(in)
			out, err := ValidateProduced(sent, l)
			if err != nil || !bytes.Equal(out, in) || &out[0] != &sent[0] {
				t.Errorf("%v, strict %v: %v, or other bytes", codec, strict, err)
			}
		}
	}
}

// TestZstdNeedsProduceV7 is KIP-110.
func TestZstdNeedsProduceV7(t *testing.T) {
	l := producerLimits()
	l.NoZstd = true
	wantKind(t, "zstd", manyRecords(1, 10, Zstd), l, KindUnsupportedCodec)
	if _, err := ValidateProduced(manyRecords(1, 10, Gzip), l); err != nil {
		t.Error(err)
	}
	if v := wantKind(t, "zstd", manyRecords(1, 10, Zstd), l, KindUnsupportedCodec); !strings.HasPrefix(v.Error(), "UNSUPPORTED_COMPRESSION_TYPE: ") {
		t.Error(v)
	}
}
