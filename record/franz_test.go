package record_test

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/record"
)

// franzBatch builds a batch with another implementation of the format.
func franzBatch(t *testing.T, r *rand.Rand, codec kgo.CompressionCodec, n int) (kmsg.RecordBatch, []kmsg.Record) {
	t.Helper()
	b := kmsg.NewRecordBatch()
	b.PartitionLeaderEpoch, b.Magic = 3, 2
	b.FirstTimestamp = 1_700_000_000_000
	b.ProducerID, b.ProducerEpoch, b.FirstSequence = 77, 2, 5
	var payload []byte
	var rs []kmsg.Record
	for i := range n {
		rec := kmsg.NewRecord()
		rec.TimestampDelta64 = r.Int64N(100_000)
		rec.OffsetDelta = int32(i)
		rec.Key, rec.Value = fuzzyBytes(r), fuzzyBytes(r)
		for range r.IntN(3) {
			rec.Headers = append(rec.Headers, kmsg.Header{Key: fmt.Sprint("h", r.IntN(5)), Value: fuzzyBytes(r)})
		}
		rec.Length = int32(len(rec.AppendTo(nil)) - 1) // without the length, which is one byte as long as it is 0
		payload = rec.AppendTo(payload)
		rs = append(rs, rec)
		b.MaxTimestamp = max(b.MaxTimestamp, b.FirstTimestamp+rec.TimestampDelta64)
	}
	c, err := kgo.DefaultCompressor(codec)
	if err != nil {
		t.Fatal(err)
	}
	var typ kgo.CompressionCodecType
	if c != nil {
		payload, typ = c.Compress(new(bytes.Buffer), payload)
	}
	b.Attributes = int16(typ)
	b.NumRecords, b.LastOffsetDelta = int32(n), int32(n-1)
	b.Records = bytes.Clone(payload)
	b.Length = int32(49 + len(payload))
	raw := b.AppendTo(nil)
	b.CRC = int32(crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b, rs
}

func fuzzyBytes(r *rand.Rand) []byte {
	switch r.IntN(4) {
	case 0:
		return nil
	case 1:
		return []byte{}
	}
	return bytes.Repeat([]byte{byte('a' + r.IntN(26))}, 1+r.IntN(500))
}

func limits() record.Limits {
	return record.Limits{MaxBatchBytes: 1 << 20, Strict: true, MaxDecoded: 16 << 20, NowMs: 1_700_000_000_000,
		BeforeMaxMs: math.MaxInt64, AfterMaxMs: math.MaxInt64, Codec: record.ProducerCodec}
}

var franzCodecs = map[record.Codec]kgo.CompressionCodec{
	record.None: kgo.NoCompression(), record.Gzip: kgo.GzipCompression(), record.Snappy: kgo.SnappyCompression(),
	record.LZ4: kgo.Lz4Compression(), record.Zstd: kgo.ZstdCompression(),
}

// TestFranzBatchesAreReadAsFranzWroteThem validates and walks batches that
// another implementation built and compressed.
func TestFranzBatchesAreReadAsFranzWroteThem(t *testing.T) {
	for seed := range uint64(30) {
		for codec, theirs := range franzCodecs {
			r := rand.New(rand.NewPCG(seed, uint64(codec)))
			fb, rs := franzBatch(t, r, theirs, 1+r.IntN(30))
			raw := fb.AppendTo(nil)
			b, err := record.ValidateProduced(bytes.Clone(raw), limits())
			if err != nil || !bytes.Equal(b, raw) {
				t.Fatalf("seed %d %v: refused or changed: %v", seed, codec, err)
			}
			if b.Codec() != codec || b.LeaderEpoch() != fb.PartitionLeaderEpoch || b.ProducerID() != fb.ProducerID ||
				b.ProducerEpoch() != fb.ProducerEpoch || b.BaseSequence() != fb.FirstSequence || b.Count() != fb.NumRecords ||
				b.BaseTimestamp() != fb.FirstTimestamp || b.MaxTimestamp() != fb.MaxTimestamp || b.LastOffsetDelta() != fb.LastOffsetDelta {
				t.Fatalf("seed %d %v: header read differently", seed, codec)
			}
			i := 0
			for got, err := range b.Records(16 << 20) {
				if err != nil {
					t.Fatalf("seed %d %v: record %d: %v", seed, codec, i, err)
				}
				if !sameAsFranz(got, rs[i]) {
					t.Fatalf("seed %d %v: record %d is %+v, want %+v", seed, codec, i, got, rs[i])
				}
				i++
			}
			if i != len(rs) {
				t.Fatalf("seed %d %v: %d of %d records", seed, codec, i, len(rs))
			}
		}
	}
}

// TestFranzReadsOurBatches has Builder's batches, and recompressed ones, read
// by kmsg and kgo's decompressor.
func TestFranzReadsOurBatches(t *testing.T) {
	for seed := range uint64(30) {
		for codec := range franzCodecs {
			r := rand.New(rand.NewPCG(seed, uint64(codec)))
			opts := record.NewBatchOptions()
			opts.Codec, opts.LeaderEpoch = codec, 9
			builder := record.NewBuilder(opts)
			var want []record.Record
			for i := range 1 + r.IntN(30) {
				rec := record.Record{OffsetDelta: int32(i), TimestampDelta: 1000 + r.Int64N(5000), Key: fuzzyBytes(r), Value: fuzzyBytes(r)}
				for range r.IntN(3) {
					rec.Headers = append(rec.Headers, record.Header{Key: fmt.Sprint("h", r.IntN(5)), Value: fuzzyBytes(r)})
				}
				builder.Append(rec)
				want = append(want, rec)
			}
			b := builder.Build()
			if seed%2 == 1 {
				l := limits()
				l.Codec = record.Codec(r.IntN(5))
				var err error
				if b, err = record.ValidateProduced(b, l); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			var fb kmsg.RecordBatch
			if err := fb.ReadFrom(b); err != nil {
				t.Fatalf("seed %d %v: kmsg: %v", seed, codec, err)
			}
			if int(fb.Length) != len(b)-12 || fb.NumRecords != int32(len(want)) || fb.Magic != 2 ||
				uint32(fb.CRC) != crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)) {
				t.Fatalf("seed %d %v: header %+v", seed, codec, fb)
			}
			payload, err := kgo.DefaultDecompressor().Decompress(fb.Records, kgo.CompressionCodecType(fb.Attributes&7))
			if err != nil {
				t.Fatalf("seed %d %v: kgo: %v", seed, codec, err)
			}
			for i := range want {
				var rec kmsg.Record
				if err := rec.ReadFrom(payload); err != nil {
					t.Fatalf("seed %d %v: record %d: %v", seed, codec, i, err)
				}
				payload = payload[len(rec.AppendTo(nil)):]
				want[i].TimestampDelta -= fb.FirstTimestamp
				if !sameAsFranz(want[i], rec) {
					t.Fatalf("seed %d %v: record %d is %+v, want %+v", seed, codec, i, rec, want[i])
				}
			}
			if len(payload) != 0 {
				t.Fatalf("seed %d %v: %d bytes left", seed, codec, len(payload))
			}
		}
	}
}

func sameAsFranz(r record.Record, f kmsg.Record) bool {
	if r.OffsetDelta != f.OffsetDelta || r.TimestampDelta != f.TimestampDelta64 ||
		!sameBytes(r.Key, f.Key) || !sameBytes(r.Value, f.Value) || len(r.Headers) != len(f.Headers) {
		return false
	}
	for i, h := range r.Headers {
		if h.Key != f.Headers[i].Key || !sameBytes(h.Value, f.Headers[i].Value) {
			return false
		}
	}
	return true
}

func sameBytes(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }
