package record

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Codec is a compression codec of the batch format, by its number on the wire.
type Codec int8

// The codecs that exist. A batch compresses all its records as one block.
const (
	None   Codec = 0
	Gzip   Codec = 1
	Snappy Codec = 2
	LZ4    Codec = 3
	Zstd   Codec = 4
)

// ErrDecodedSize means that compressed records are longer than the cap that
// the caller gave. The batch may be sound; it is only too large to open.
var ErrDecodedSize = errors.New("record: decompressed records exceed the cap")

// Valid reports whether the codec exists.
func (c Codec) Valid() bool { return c >= None && c <= Zstd }

// String returns the codec's name as Kafka's compression.type spells it.
func (c Codec) String() string {
	switch c {
	case None:
		return "none"
	case Gzip:
		return "gzip"
	case Snappy:
		return "snappy"
	case LZ4:
		return "lz4"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("codec(%d)", int8(c))
}

// begins reports whether src starts as the codec's streams do. It costs a few
// comparisons and no decompression, which is how a plain payload under a
// compression flag is refused without opening anything.
func (c Codec) begins(src []byte) bool {
	switch c {
	case None:
		return true
	case Gzip:
		return bytes.HasPrefix(src, []byte{0x1f, 0x8b, 8})
	case Snappy:
		if bytes.HasPrefix(src, xerialMagic) {
			return len(src) >= xerialHeaderSize
		}
		n, _, ok := snappyLen(src)
		return ok && n > 0
	case LZ4:
		return bytes.HasPrefix(src, []byte{0x04, 0x22, 0x4d, 0x18})
	case Zstd:
		skippable := len(src) >= 4 && src[0]&0xf0 == 0x50 && src[1] == 0x2a && src[2] == 0x4d && src[3] == 0x18
		return skippable || bytes.HasPrefix(src, []byte{0x28, 0xb5, 0x2f, 0xfd})
	}
	return false
}

// Compress returns src compressed with c, in the framing that Kafka's own
// broker writes: gzip, xerial snappy, LZ4 frames of independent 64 KiB blocks,
// and one zstd frame. With None it returns src itself. The result is the
// caller's. It fails only for a codec that does not exist.
func Compress(c Codec, src []byte) ([]byte, error) {
	switch c {
	case None:
		return src, nil
	case Gzip:
		var out bytes.Buffer
		w := gzipWriters.Get().(*gzip.Writer)
		defer gzipWriters.Put(w)
		w.Reset(&out)
		return finish(&out, w, src)
	case Snappy:
		return appendXerial(nil, src), nil
	case LZ4:
		var out bytes.Buffer
		w := lz4Writers.Get().(*lz4.Writer)
		defer lz4Writers.Put(w)
		w.Reset(&out)
		return finish(&out, w, src)
	case Zstd:
		return zstdEncoder().EncodeAll(src, nil), nil
	}
	return nil, fmt.Errorf("record: no codec has number %d", int8(c))
}

func finish(out *bytes.Buffer, w io.WriteCloser, src []byte) ([]byte, error) {
	if _, err := w.Write(src); err != nil {
		return nil, fmt.Errorf("record: compress: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("record: compress: %w", err)
	}
	return out.Bytes(), nil
}

// Decompress returns what src held before it was compressed with c. It never
// allocates more than about twice max, whatever src claims about itself. It
// fails with ErrDecodedSize when the result would be longer than max bytes and
// with ErrCorrupt when src is not a whole stream of that codec. With None it
// returns src itself, unless that is longer than max. Snappy is accepted raw
// and in xerial's framing.
func Decompress(c Codec, src []byte, max int) ([]byte, error) {
	return decompress(nil, c, src, max)
}

// decompress is Decompress into the memory of dst, whose content is dropped.
func decompress(dst []byte, c Codec, src []byte, max int) ([]byte, error) {
	dst = dst[:0]
	switch c {
	case None:
		if len(src) > max {
			return nil, ErrDecodedSize
		}
		return src, nil
	case Gzip:
		return gunzip(dst, src, max)
	case Snappy:
		return unsnappy(dst, src, max)
	case LZ4:
		if !c.begins(src) { // the library would also take legacy and skippable frames
			return nil, fmt.Errorf("%w: not an LZ4 frame", ErrCorrupt)
		}
		r := lz4Readers.Get().(*lz4.Reader)
		defer lz4Readers.Put(r)
		r.Reset(bytes.NewReader(src))
		return readCapped(dst, r, len(src), max, c)
	case Zstd:
		return unzstd(dst, src, max)
	}
	return nil, fmt.Errorf("%w: no codec has number %d", ErrCorrupt, int8(c))
}

func gunzip(dst, src []byte, max int) ([]byte, error) {
	r := gzipReaders.Get().(*gzip.Reader)
	defer gzipReaders.Put(r)
	if err := r.Reset(bytes.NewReader(src)); err != nil {
		return nil, fmt.Errorf("%w: gzip: %v", ErrCorrupt, err)
	}
	return readCapped(dst, r, len(src), max, Gzip)
}

// readCapped reads r to its end into dst, which grows only as bytes arrive.
func readCapped(dst []byte, r io.Reader, srcLen, max int, c Codec) ([]byte, error) {
	for {
		if len(dst) == cap(dst) {
			if len(dst) > max {
				return nil, ErrDecodedSize
			}
			// The byte beyond max is what tells "exactly max" from "more".
			grown := min(max+1, 2*len(dst)+4*srcLen+512)
			dst = slices.Grow(dst, max1(grown-len(dst)))
		}
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if len(dst) > max {
			return nil, ErrDecodedSize
		}
		if err == io.EOF {
			return dst, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %v", ErrCorrupt, c, err)
		}
	}
}

func max1(n int) int { return max(n, 1) }

// unzstd decodes straight into dst, because the streaming decoder would
// allocate the window that the frame asks for. The capacity of dst is the
// library's limit: it starts from a guess that a lying frame header cannot
// raise by much and doubles when the stream turns out to be longer.
func unzstd(dst, src []byte, max int) ([]byte, error) {
	if len(src) == 0 {
		return nil, fmt.Errorf("%w: zstd: no frame", ErrCorrupt)
	}
	guess := 16*len(src) + 64<<10
	var head zstd.Header
	if err := head.Decode(src); err == nil && head.HasFCS && head.FrameContentSize < uint64(64*len(src)+64<<10) {
		guess = int(head.FrameContentSize)
	}
	for size := guess; ; size *= 2 {
		size = min(size, max)
		if cap(dst) < size || cap(dst) == 0 {
			dst = make([]byte, 0, max1(size))
		}
		limit := dst[:0:max1(min(cap(dst), max))]
		out, err := zstdDecoder().DecodeAll(src, limit)
		switch {
		case err == nil && len(out) <= max:
			return out, nil
		case err == nil, errors.Is(err, zstd.ErrDecoderSizeExceeded) && cap(limit) >= max:
			return nil, ErrDecodedSize
		case errors.Is(err, zstd.ErrDecoderSizeExceeded):
			size = cap(limit)
		default:
			return nil, fmt.Errorf("%w: zstd: %v", ErrCorrupt, err)
		}
	}
}

// Compressors and decompressors hold tables of up to a few MiB each, so they
// are kept for the next caller, and none is made before it is first needed.
var (
	gzipWriters = sync.Pool{New: func() any { return gzip.NewWriter(io.Discard) }}
	gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}
	lz4Readers  = sync.Pool{New: func() any { return lz4.NewReader(nil) }}
	lz4Writers  = sync.Pool{New: func() any {
		w := lz4.NewWriter(io.Discard)
		// Kafka's choice. Readers of the Java client size their buffers by it.
		if err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false)); err != nil {
			panic(fmt.Sprintf("BUG: lz4 options: %v", err))
		}
		return w
	}}
	zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
		// A window of 1 MiB costs little ratio on batches, which are about that
		// long, and keeps each of the encoder's workers small.
		e, err := zstd.NewWriter(nil, zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic(fmt.Sprintf("BUG: zstd encoder options: %v", err))
		}
		return e
	})
	zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
		// The window may be large (a producer at level 22 asks for 128 MiB)
		// because decoding in one piece allocates no window.
		d, err := zstd.NewReader(nil, zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderConcurrency(0))
		if err != nil {
			panic(fmt.Sprintf("BUG: zstd decoder options: %v", err))
		}
		return d
	})
)
