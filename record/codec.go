package record

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
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
// allocates more than about twice maxBytes, whatever src claims about itself. It
// fails with ErrDecodedSize when the result would be longer than maxBytes and
// with ErrCorrupt when src is not a whole stream of that codec. With None it
// returns src itself, unless that is longer than maxBytes. Snappy is accepted raw
// and in xerial's framing.
func Decompress(c Codec, src []byte, maxBytes int) ([]byte, error) {
	if c == None {
		return decompress(nil, c, src, maxBytes)
	}
	// Decoders overshoot while they do not know the length. They do so in
	// memory that is used again; the caller gets as much as there is.
	buf := decoded.Get().(*[]byte)
	defer decoded.Put(buf)
	out, err := decompress(*buf, c, src, maxBytes)
	if err != nil {
		return nil, err
	}
	if cap(out) > maxPooledDecoded {
		return out, nil
	}
	*buf = out
	return append(make([]byte, 0, len(out)), out...), nil
}

// decoded holds memory for opened batches. What grew beyond the usual batch is
// left to the garbage collector.
var decoded = sync.Pool{New: func() any { return new([]byte) }}

const maxPooledDecoded = 4 << 20

// decompress is Decompress into the memory of dst, whose content is dropped.
func decompress(dst []byte, c Codec, src []byte, maxBytes int) ([]byte, error) {
	dst, maxBytes = dst[:0], min(max(maxBytes, 0), math.MaxInt32)
	switch c {
	case None:
		if len(src) > maxBytes {
			return nil, ErrDecodedSize
		}
		return src, nil
	case Gzip:
		return gunzip(dst, src, maxBytes)
	case Snappy:
		return unsnappy(dst, src, maxBytes)
	case LZ4:
		if !c.begins(src) { // the library would also take legacy and skippable frames
			return nil, fmt.Errorf("%w: not an LZ4 frame", ErrCorrupt)
		}
		r := lz4Readers.Get().(*lz4.Reader)
		defer lz4Readers.Put(r)
		r.Reset(bytes.NewReader(src))
		return readCapped(dst, r, len(src), maxBytes, c)
	case Zstd:
		return unzstd(dst, src, maxBytes)
	}
	return nil, fmt.Errorf("%w: no codec has number %d", ErrCorrupt, int8(c))
}

func gunzip(dst, src []byte, maxBytes int) ([]byte, error) {
	r := gzipReaders.Get().(*gzip.Reader)
	defer gzipReaders.Put(r)
	if err := r.Reset(bytes.NewReader(src)); err != nil {
		return nil, fmt.Errorf("%w: gzip: %v", ErrCorrupt, err)
	}
	return readCapped(dst, r, len(src), maxBytes, Gzip)
}

// readCapped reads r to its end into dst, which grows only as bytes arrive.
func readCapped(dst []byte, r io.Reader, srcLen, maxBytes int, c Codec) ([]byte, error) {
	for {
		if len(dst) == cap(dst) {
			if len(dst) > maxBytes {
				return nil, ErrDecodedSize
			}
			// The byte beyond maxBytes is what tells "exactly maxBytes" from "more".
			grown := min(maxBytes+1, 2*len(dst)+4*srcLen+512)
			dst = slices.Grow(dst, max(1, grown-len(dst)))
		}
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if len(dst) > maxBytes {
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

// zstdBlock is the most that one block of a zstd frame decodes to.
const zstdBlock = 128 << 10

// unzstd decodes straight into dst, because the streaming decoder would
// allocate the window that the frame asks for. The capacity of dst is the
// library's limit: it starts from a guess that a lying frame header cannot
// raise by much and doubles when the stream turns out to be longer.
func unzstd(dst, src []byte, maxBytes int) ([]byte, error) {
	if len(src) == 0 {
		return nil, fmt.Errorf("%w: zstd: no frame", ErrCorrupt)
	}
	guess := 16*len(src) + 64<<10 + zstdBlock
	var head zstd.Header
	if err := head.Decode(src); err == nil && head.HasFCS && head.FrameContentSize < uint64(guess) {
		guess = max(1, int(head.FrameContentSize))
	}
	// With a block to spare behind the cap, a stream that stays within the cap
	// never lacks room, so lacking it tells a long stream from a damaged one.
	for most := maxBytes + zstdBlock; ; guess *= 2 {
		if guess = min(guess, most); cap(dst) < guess {
			dst = make([]byte, 0, guess)
		}
		room := min(cap(dst), most)
		out, err := zstdDecoder().DecodeAll(src, dst[:0:room])
		switch {
		case len(out) > maxBytes:
			return nil, ErrDecodedSize
		case err == nil:
			return out, nil
		case errors.Is(err, zstd.ErrDecoderSizeExceeded) && room == most:
			return nil, ErrDecodedSize // by the frame's own word
		case room == most || len(out)+zstdBlock <= room && !errors.Is(err, zstd.ErrDecoderSizeExceeded):
			return nil, fmt.Errorf("%w: zstd: %v", ErrCorrupt, err)
		}
		guess = room + zstdBlock
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
