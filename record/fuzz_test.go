package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"
)

func seedBatches(f *testing.F) {
	f.Helper()
	for codec := None; codec <= Zstd; codec++ {
		f.Add([]byte(manyRecords(3, 20, codec)))
	}
	f.Add([]byte(ControlMarker(Marker{Type: Commit, ProducerID: 5})))
	f.Add([]byte(produced([]int32{0, 5}, nil)))
	for _, payload := range malformedPayloads() {
		f.Add([]byte(produced([]int32{0}, nil).withRecords(None, payload)))
	}
}

// FuzzParse: what Parse accepts is a batch whose accessors are safe and whose
// parts are p again.
func FuzzParse(f *testing.F) {
	seedBatches(f)
	f.Fuzz(func(t *testing.T, p []byte) {
		b, rest, err := Parse(p)
		if err != nil {
			if !errors.Is(err, ErrShort) && !errors.Is(err, ErrCorrupt) || b != nil || len(rest) != len(p) {
				t.Fatalf("%v, %d bytes, rest %d", err, len(b), len(rest))
			}
			return
		}
		size, err := SizeOf(p)
		if err != nil || size != len(b) || len(b) < HeaderSize || !bytes.Equal(append(bytes.Clone(b), rest...), p) {
			t.Fatalf("size %d, batch %d, rest %d, %v", size, len(b), len(rest), err)
		}
		_, _, _, _, _, _ = b.LeaderEpoch(), b.Codec().String(), b.TimestampType(), b.NextOffset(), b.LastSequence(), b.Payload()
		_, _, _, _, _ = b.IsControl(), b.IsTransactional(), b.HasDeleteHorizon(), b.ProducerEpoch(), b.CheckCRC()
	})
}

// FuzzRecords: iteration never crashes, never yields more than the header
// counts, and what it yields in full encodes to the very bytes it came from.
func FuzzRecords(f *testing.F) {
	seedBatches(f)
	f.Fuzz(func(t *testing.T, p []byte) {
		b, _, err := Parse(p)
		if err != nil {
			return
		}
		rs, err := collect(b, 1<<20)
		if len(rs) > max(int(b.Count()), 0) {
			t.Fatalf("%d records of %d", len(rs), b.Count())
		}
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrDecodedSize) {
				t.Fatal(err)
			}
			return
		}
		var again []byte
		for _, r := range rs {
			again = appendRecord(again, r)
		}
		reread := b.withRecords(None, again)
		second, err := collect(reread, 0)
		if err != nil || !equalRecords(rs, second) {
			t.Fatalf("records do not survive a rewrite: %v", err)
		}
		_, _, _ = ParseMarker(b)
		if _, _, _, err := b.FindTimestamp(0, math.MinInt64, 1<<20); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzValidateProduced: with its CRC made right, any batch is refused with a
// ValidationError or comes back as one that a consumer can walk and that
// passes again without change.
func FuzzValidateProduced(f *testing.F) {
	for codec := None; codec <= Zstd; codec++ {
		f.Add([]byte(manyRecords(3, 20, codec)), true, true, false, int8(-1))
		f.Add([]byte(manyRecords(3, 20, codec)), false, false, true, int8(codec))
	}
	for _, payload := range malformedPayloads() {
		f.Add([]byte(produced([]int32{0}, nil).withRecords(None, payload)), true, false, false, int8(-1))
	}
	f.Fuzz(func(t *testing.T, p []byte, strict, keys, logAppend bool, codec int8) {
		if b, _, err := Parse(p); err == nil {
			b.sealCRC()
		}
		l := producerLimits()
		l.MaxBatchBytes, l.MaxDecoded = 1<<20, 1<<20
		l.Strict, l.RequireKeys, l.LogAppendTime, l.Codec = strict, keys, logAppend, Codec(codec%5)
		b, err := ValidateProduced(p, l)
		if err != nil {
			var v *ValidationError
			if !errors.As(err, &v) || v.Msg == "" || b != nil {
				t.Fatalf("%#v", err)
			}
			return
		}
		if b.CheckCRC() != nil || b.Count() != b.LastOffsetDelta()+1 || b.Count() < 1 || b.IsControl() || b.BaseOffset() != 0 || len(b) > 1<<20 {
			t.Fatalf("accepted %x", []byte(b))
		}
		if b.Codec() != None && !strict && !keys {
			return
		}
		n := int32(0)
		for r, err := range b.Records(1 << 20) {
			if err != nil || r.OffsetDelta != n || keys && r.Key == nil || b.Timestamp(r) > b.MaxTimestamp() {
				t.Fatalf("record %d: %+v, %v", n, r, err)
			}
			n++
		}
		if n != b.Count() {
			t.Fatalf("%d records of %d", n, b.Count())
		}
		if !logAppend {
			again, err := ValidateProduced(bytes.Clone(b), l)
			if err != nil || !bytes.Equal(again, b) {
				t.Fatalf("not stable: %v", err)
			}
		}
	})
}

// FuzzDecompress: no stream crashes us or opens beyond the cap.
func FuzzDecompress(f *testing.F) {
	for _, codec := range compressed {
		for _, src := range []string{"", "x", "the quick brown fox, the quick brown fox, the quick brown fox"} {
			packed, err := Compress(codec, []byte(src))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(int8(codec), packed)
		}
	}
	f.Fuzz(func(t *testing.T, codec int8, src []byte) {
		const limit = 1 << 18
		out, err := Decompress(Codec(codec), src, limit)
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrDecodedSize) || len(out) > limit {
			t.Fatalf("%d bytes, %v", len(out), err)
		}
	})
}

// FuzzParseControl: any key is a version and a type, or corrupt.
func FuzzParseControl(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1}, []byte{0, 0, 0, 0, 0, 1})
	f.Add([]byte{0, 5}, []byte(nil))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		version, typ, err := ParseControl(Record{Key: key, Value: value})
		if err == nil != (len(key) >= 4 && key[0] < 0x80) {
			t.Fatalf("%x: %v", key, err)
		}
		if err == nil && (binary.BigEndian.Uint16(key) != uint16(version) || binary.BigEndian.Uint16(key[2:]) != uint16(typ)) {
			t.Fatalf("%x reads as %d %d", key, version, typ)
		}
	})
}
