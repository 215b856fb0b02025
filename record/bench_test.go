package record

import (
	"bytes"
	"fmt"
	"math"
	"testing"
)

// producerLimits are a topic's defaults, with any timestamp allowed.
func producerLimits() Limits {
	return Limits{MaxBatchBytes: 8 << 20, MaxDecoded: 64 << 20, NowMs: 1_800_000_000_000,
		BeforeMaxMs: math.MaxInt64, AfterMaxMs: 3_600_000, Codec: ProducerCodec}
}

// manyRecords returns a batch of n records with values of size bytes.
func manyRecords(n, size int, codec Codec) Batch {
	opts := NewBatchOptions()
	opts.Codec = codec
	b := NewBuilder(opts)
	for i := range n {
		b.Append(Record{
			TimestampDelta: 1_700_000_000_000 + int64(i),
			Key:            fmt.Appendf(nil, "key-%06d", i),
			Value:          bytes.Repeat([]byte{byte('a' + i%26)}, size),
		})
	}
	return b.Build()
}

// BenchmarkValidateProduced is the CPU that each produced batch costs before
// it reaches the log; crc is the part of it that nobody can avoid.
func BenchmarkValidateProduced(b *testing.B) {
	for _, shape := range []struct{ n, size int }{{1, 1024}, {16, 1024}, {128, 1024}, {1000, 16}} {
		batch := manyRecords(shape.n, shape.size, None)
		b.Run(fmt.Sprintf("crc/%dx%d", shape.n, shape.size), func(b *testing.B) {
			b.SetBytes(int64(len(batch)))
			for b.Loop() {
				if err := batch.CheckCRC(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("validate/%dx%d", shape.n, shape.size), func(b *testing.B) {
			b.SetBytes(int64(len(batch)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ValidateProduced(batch, producerLimits()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestProducePathDoesNotAllocate holds ValidateProduced to its promise.
func TestProducePathDoesNotAllocate(t *testing.T) {
	for _, codec := range []Codec{None, Zstd} {
		batch := manyRecords(16, 1024, codec)
		if n := testing.AllocsPerRun(100, func() {
			if _, err := ValidateProduced(batch, producerLimits()); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%v: a valid batch costs %v allocations", codec, n)
		}
	}
}
