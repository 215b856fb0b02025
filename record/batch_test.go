package record

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"
)

// rawBatch returns a whole batch with the given payload, its fields set to
// distinct values and its CRC right.
func rawBatch(payload []byte) Batch {
	b := make(Batch, HeaderSize+len(payload))
	copy(b[HeaderSize:], payload)
	binary.BigEndian.PutUint32(b[posLength:], uint32(len(b)-LogOverhead))
	b[posMagic] = Magic
	b.SetBaseOffset(1<<53 + 1)
	b.SetLeaderEpoch(7)
	binary.BigEndian.PutUint32(b[posLastOffsetDelta:], 4)
	binary.BigEndian.PutUint64(b[posBaseTimestamp:], 1_000)
	binary.BigEndian.PutUint64(b[posMaxTimestamp:], 2_000)
	binary.BigEndian.PutUint64(b[posProducerID:], 99)
	binary.BigEndian.PutUint16(b[posProducerEpoch:], 3)
	binary.BigEndian.PutUint32(b[posBaseSequence:], math.MaxInt32-1)
	binary.BigEndian.PutUint32(b[posCount:], 5)
	b.sealCRC()
	return b
}

// TestParseSplitsBatches checks that Parse hands out exactly one batch and
// everything behind it, at every cut of the bytes.
func TestParseSplitsBatches(t *testing.T) {
	first, second := rawBatch([]byte("payload one")), rawBatch(nil)
	log := append(append([]byte{}, first...), second...)
	for cut := range len(log) + 1 {
		b, rest, err := Parse(log[:cut])
		if cut < len(first) {
			if !errors.Is(err, ErrShort) || b != nil {
				t.Fatalf("cut at %d: batch %d bytes, error %v, want ErrShort", cut, len(b), err)
			}
			continue
		}
		if err != nil || len(b) != len(first) || cap(b) != len(first) || len(rest) != cut-len(first) {
			t.Fatalf("cut at %d: batch %d bytes (cap %d), rest %d, error %v", cut, len(b), cap(b), len(rest), err)
		}
	}
}

// TestParseRefusesImpossibleHeaders covers lengths and magics that no v2 batch has.
func TestParseRefusesImpossibleHeaders(t *testing.T) {
	for _, length := range []int32{math.MinInt32, -1, 0, 1, minBatchLength - 1, math.MaxInt32, math.MaxInt32 - LogOverhead + 1} {
		b := rawBatch(nil)
		binary.BigEndian.PutUint32(b[posLength:], uint32(length))
		if _, err := SizeOf(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("SizeOf with length %d: %v, want ErrCorrupt", length, err)
		}
		if _, _, err := Parse(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("Parse with length %d: %v, want ErrCorrupt", length, err)
		}
	}
	for _, magic := range []byte{0, 1, 3, 0x80, 0xff} {
		b := rawBatch(nil)
		b[posMagic] = magic
		if _, _, err := Parse(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("Parse with magic %d: %v, want ErrCorrupt", magic, err)
		}
	}
	if _, err := SizeOf(make([]byte, LogOverhead-1)); !errors.Is(err, ErrShort) {
		t.Errorf("SizeOf of 11 bytes: %v, want ErrShort", err)
	}
}

// TestAccessorsReadWhatIsThere checks every field at its place.
func TestAccessorsReadWhatIsThere(t *testing.T) {
	b := rawBatch([]byte("xyz"))
	if b.BaseOffset() != 1<<53+1 || b.LeaderEpoch() != 7 || b.LastOffsetDelta() != 4 ||
		b.LastOffset() != 1<<53+5 || b.NextOffset() != 1<<53+6 || b.BaseTimestamp() != 1000 ||
		b.MaxTimestamp() != 2000 || b.ProducerID() != 99 || b.ProducerEpoch() != 3 ||
		b.BaseSequence() != math.MaxInt32-1 || b.LastSequence() != 2 || b.Count() != 5 || string(b.Payload()) != "xyz" {
		t.Fatalf("fields read wrong: %x", []byte(b))
	}
	for bit, is := range map[byte]func() bool{
		attrLogAppendTime: func() bool { return b.TimestampType() == LogAppendTime },
		attrTransactional: b.IsTransactional,
		attrControl:       b.IsControl,
		attrDeleteHorizon: b.HasDeleteHorizon,
	} {
		if is() {
			t.Fatalf("bit %#x reads as set", bit)
		}
		b[posAttributes+1] = bit
		if !is() || b.Attributes() != int16(bit) {
			t.Fatalf("bit %#x reads as clear", bit)
		}
		b[posAttributes+1] = 0
	}
}

// TestCRCCoversAllButOffsetAndEpoch flips every bit of a batch: the checksum
// must notice each one except in the base offset, length, leader epoch and magic.
func TestCRCCoversAllButOffsetAndEpoch(t *testing.T) {
	b := rawBatch([]byte("some records"))
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			err := b.CheckCRC()
			b[i] ^= 1 << bit
			if outside := i < posCRC; outside != (err == nil) {
				t.Fatalf("byte %d bit %d: %v", i, bit, err)
			}
			if err != nil && !errors.Is(err, ErrCRC) {
				t.Fatalf("byte %d bit %d: %v is not ErrCRC", i, bit, err)
			}
		}
	}
}

// TestLogAppendTimeKeepsTheCRCRight stamps a batch and checks that it still verifies.
func TestLogAppendTimeKeepsTheCRCRight(t *testing.T) {
	b := rawBatch([]byte("some records"))
	b.SetMaxTimestampLogAppend(123456)
	if err := b.CheckCRC(); err != nil || b.MaxTimestamp() != 123456 || b.TimestampType() != LogAppendTime || b.BaseTimestamp() != 1000 {
		t.Fatalf("after stamping: max %d, type %v, base %d, %v", b.MaxTimestamp(), b.TimestampType(), b.BaseTimestamp(), err)
	}
}
