package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

var compressed = []Codec{Gzip, Snappy, LZ4, Zstd}

// TestCodecsRoundTrip covers sizes around every framing's block length, with a
// cap of exactly the size, and one byte less.
func TestCodecsRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 2, 100, 32<<10 - 1, 32 << 10, 32<<10 + 1, 64 << 10, 64<<10 + 1, 1 << 20, 5<<20 + 3} {
		src := make([]byte, n)
		for i := range src {
			src[i] = byte(r.IntN(1 + i%200))
		}
		for codec := None; codec <= Zstd; codec++ {
			packed, err := Compress(codec, src)
			if err != nil {
				t.Fatalf("%v %d: %v", codec, n, err)
			}
			out, err := Decompress(codec, packed, n)
			if err != nil || !bytes.Equal(out, src) {
				t.Errorf("%v %d: %d bytes back, %v", codec, n, len(out), err)
			}
			if n > 0 && !codec.begins(packed) {
				t.Errorf("%v %d: begins says no", codec, n)
			}
			if n == 0 {
				continue
			}
			if _, err := Decompress(codec, packed, n-1); !errors.Is(err, ErrDecodedSize) {
				t.Errorf("%v %d over a cap of %d: %v, want ErrDecodedSize", codec, n, n-1, err)
			}
			if _, err := Decompress(codec, packed, 0); !errors.Is(err, ErrDecodedSize) {
				t.Errorf("%v %d over a cap of 0: %v, want ErrDecodedSize", codec, n, err)
			}
		}
	}
}

// TestForeignFramingsOpen decodes what other clients write: raw snappy, xerial
// with other block lengths, large LZ4 blocks that depend on each other, zstd
// with a large window, without a content size and in several frames.
func TestForeignFramingsOpen(t *testing.T) {
	src := bytes.Repeat([]byte("firn settles, layer by layer. "), 100_000)
	check := func(name string, codec Codec, packed []byte) {
		t.Helper()
		out, err := Decompress(codec, packed, len(src))
		if err != nil || !bytes.Equal(out, src) || !codec.begins(packed) {
			t.Errorf("%s: %d bytes, %v, begins %v", name, len(out), err, codec.begins(packed))
		}
	}
	check("raw snappy", Snappy, s2.EncodeSnappy(nil, src))
	xerial := append(bytes.Clone(xerialMagic), 0, 0, 0, 1, 0, 0, 0, 1)
	for p := src; len(p) > 0; {
		n := min(len(p), 100_000)
		block := s2.EncodeSnappyBest(nil, p[:n])
		xerial = append(binary.BigEndian.AppendUint32(xerial, uint32(len(block))), block...)
		p = p[n:]
	}
	check("xerial", Snappy, xerial)

	for _, opts := range [][]lz4.Option{
		{lz4.BlockSizeOption(lz4.Block4Mb), lz4.ChecksumOption(true), lz4.BlockChecksumOption(true)},
		{lz4.SizeOption(uint64(len(src))), lz4.CompressionLevelOption(lz4.Level9)},
	} {
		var out bytes.Buffer
		w := lz4.NewWriter(&out)
		if err := w.Apply(opts...); err != nil {
			t.Fatal(err)
		}
		w.Write(src)
		w.Close()
		check("lz4", LZ4, out.Bytes())
	}

	var out bytes.Buffer
	e, err := zstd.NewWriter(&out, zstd.WithWindowSize(128<<20), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	e.Write(src[:len(src)/2])
	e.Flush() // no content size in the header
	e.Write(src[len(src)/2:])
	e.Close()
	check("zstd streamed", Zstd, out.Bytes())
	var skippable []byte
	skippable = append(skippable, 0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4)
	half := len(src) / 2
	check("zstd frames", Zstd, append(e.EncodeAll(src[:half], skippable), e.EncodeAll(src[half:], nil)...))

	out.Reset()
	g := gzip.NewWriter(&out)
	g.Write(src[:half])
	g.Close()
	g.Reset(&out)
	g.Write(src[half:])
	g.Close()
	check("gzip members", Gzip, out.Bytes())
}

// TestLyingStreamsAllocateLittle gives each codec a few bytes that promise
// gigabytes, under a large cap: memory must follow what arrives, not the claim.
func TestLyingStreamsAllocateLittle(t *testing.T) {
	const manyBytes = 1 << 30
	raw := binary.AppendUvarint(nil, manyBytes)
	zstdHead := []byte{0x28, 0xb5, 0x2f, 0xfd, 0b1010_0000} // single segment, 4-byte content size
	zstdHead = binary.LittleEndian.AppendUint32(zstdHead, manyBytes)
	zstdWindow := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0x98, 1, 0, 0, 0} // a window of 512 MiB, one raw block of no bytes
	xerial := append(bytes.Clone(xerialMagic), 0, 0, 0, 1, 0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff, 1)
	for name, c := range map[string]struct {
		codec Codec
		src   []byte
	}{
		"raw snappy":   {Snappy, append(bytes.Clone(raw), 0, 'x')},
		"snappy 2^32":  {Snappy, []byte{0xff, 0xff, 0xff, 0xff, 0x0f}},
		"xerial":       {Snappy, xerial},
		"xerial block": {Snappy, append(append(bytes.Clone(xerial[:16]), 0, 0, 0, byte(len(raw))), raw...)},
		"zstd":         {Zstd, zstdHead},
		"zstd window":  {Zstd, zstdWindow},
		"lz4":          {LZ4, []byte{0x04, 0x22, 0x4d, 0x18, 0x68, 0x40, 0, 0, 0, 0x40, 0, 0, 0, 0, 0}},
		"gzip":         {Gzip, []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}},
	} {
		Decompress(c.codec, c.src, manyBytes) // fills the pools
		used := allocated(func() {
			out, err := Decompress(c.codec, c.src, manyBytes)
			if err == nil && len(out) > 0 {
				t.Errorf("%s: opened to %d bytes", name, len(out))
			}
		})
		if used > 2<<20 {
			t.Errorf("%s: %d bytes of lies allocated %d", name, len(c.src), used)
		}
	}
}

// TestS2IsNotSnappy refuses the extension that only S2 readers understand: a
// batch with it would stop every Kafka consumer.
func TestS2IsNotSnappy(t *testing.T) {
	long := s2.Encode(nil, bytes.Repeat([]byte("repeat me, "), 10_000))
	short := []byte{12, 3 << 2, 'a', 'b', 'c', 'd', 1, 4, 1, 0} // "abcd", copy it, repeat that
	for _, packed := range [][]byte{long, short} {
		if _, err := s2.Decode(nil, packed); err != nil {
			t.Fatalf("the test's own stream is wrong: %v", err)
		}
		if _, err := Decompress(Snappy, packed, 1<<20); !errors.Is(err, ErrCorrupt) {
			t.Errorf("S2 stream of %d bytes: %v, want ErrCorrupt", len(packed), err)
		}
	}
}

// TestDamagedStreamsAreErrors flips every bit of short streams: damage may
// change what comes out, but never crashes or passes the cap.
func TestDamagedStreamsAreErrors(t *testing.T) {
	src := []byte("the quick brown fox jumps over the quick brown dog, and over it again")
	for _, codec := range compressed {
		packed, err := Compress(codec, src)
		if err != nil {
			t.Fatal(err)
		}
		for i := range packed {
			for bit := range 8 {
				packed[i] ^= 1 << bit
				out, err := Decompress(codec, packed, 1000)
				if err == nil && len(out) > 1000 || err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrDecodedSize) {
					t.Fatalf("%v byte %d bit %d: %d bytes, %v", codec, i, bit, len(out), err)
				}
				packed[i] ^= 1 << bit
			}
			if out, err := Decompress(codec, packed[:i], 1000); err == nil && len(out) == len(src) {
				t.Fatalf("%v cut at %d opens whole", codec, i)
			}
		}
	}
	if _, err := Decompress(Codec(5), src, 1000); !errors.Is(err, ErrCorrupt) {
		t.Errorf("codec 5: %v", err)
	}
	if _, err := Compress(Codec(5), src); err == nil {
		t.Error("codec 5 compresses")
	}
}
