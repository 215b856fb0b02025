package record

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/klauspost/compress/s2"
)

// Snappy has no stream format of its own that Kafka uses. The Java client
// writes the framing of the xerial library: a header of 16 bytes (magic,
// version, lowest compatible version), then blocks, each a length and a raw
// snappy block. librdkafka and franz-go write one raw block. All clients read both.
var xerialMagic = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

const (
	xerialHeaderSize = 16
	xerialBlockSize  = 32 << 10 // what xerial cuts the input into, and so does Kafka's broker
)

// appendXerial appends src in xerial's framing.
func appendXerial(dst, src []byte) []byte {
	dst = append(dst, xerialMagic...)
	dst = binary.BigEndian.AppendUint32(dst, 1)
	dst = binary.BigEndian.AppendUint32(dst, 1)
	for block := range slices.Chunk(src, xerialBlockSize) {
		at := len(dst)
		dst = slices.Grow(dst, 4+s2.MaxEncodedLen(len(block)))
		packed := s2.EncodeSnappy(dst[at+4:cap(dst)], block)
		binary.BigEndian.PutUint32(dst[at:at+4], uint32(len(packed)))
		dst = dst[:at+4+len(packed)]
	}
	return dst
}

// unsnappy decodes src, framed or raw, into the memory of dst.
func unsnappy(dst, src []byte, maxBytes int) ([]byte, error) {
	if !bytes.HasPrefix(src, xerialMagic) {
		return appendSnappyBlock(dst, src, maxBytes)
	}
	if len(src) < xerialHeaderSize {
		return nil, fmt.Errorf("%w: xerial header of %d bytes", ErrCorrupt, len(src))
	}
	for src = src[xerialHeaderSize:]; len(src) > 0; {
		if len(src) < 4 {
			return nil, fmt.Errorf("%w: xerial stream ends inside a length", ErrCorrupt)
		}
		n := binary.BigEndian.Uint32(src)
		if uint64(n) > uint64(len(src)-4) {
			return nil, fmt.Errorf("%w: xerial block of %d bytes, %d are left", ErrCorrupt, n, len(src)-4)
		}
		var err error
		if dst, err = appendSnappyBlock(dst, src[4:4+n], maxBytes); err != nil {
			return nil, err
		}
		src = src[4+n:]
	}
	return dst, nil
}

// appendSnappyBlock appends one raw block, decoded, while the whole stays
// within maxBytes. It walks the block before it allocates, so that a lying length
// buys no memory and S2's extensions, which no Kafka client reads, are refused.
func appendSnappyBlock(dst, src []byte, maxBytes int) ([]byte, error) {
	n, body, ok := snappyLen(src)
	if !ok {
		return nil, fmt.Errorf("%w: snappy length", ErrCorrupt)
	}
	if int64(len(dst))+int64(n) > int64(maxBytes) {
		return nil, ErrDecodedSize
	}
	if err := checkSnappy(body, n); err != nil {
		return nil, err
	}
	dst = slices.Grow(dst, n)
	out, err := s2.Decode(dst[len(dst):len(dst)+n:len(dst)+n], src)
	if err != nil || len(out) != n {
		return nil, fmt.Errorf("%w: snappy: %d of %d bytes, %v", ErrCorrupt, len(out), n, err)
	}
	return dst[:len(dst)+n], nil
}

// snappyLen reads the decoded length at the head of a raw block.
func snappyLen(src []byte) (n int, body []byte, ok bool) {
	v, used := binary.Uvarint(src)
	if used <= 0 || used > 5 || v > 1<<31-1 {
		return 0, nil, false
	}
	return int(v), src[used:], true
}

// checkSnappy walks the elements of a raw block without decoding them. Their
// lengths must add up to want, none may reach beyond the body, and no copy may
// have offset 0, which is S2's mark of a repeat and invalid in snappy.
func checkSnappy(p []byte, want int) error {
	bad := func(what string) error { return fmt.Errorf("%w: snappy: %s", ErrCorrupt, what) }
	have := 0
	for i := 0; i < len(p); {
		tag := p[i]
		size, extra := 0, 0
		switch tag & 3 {
		case 0: // literal: up to 60 bytes, or a length of 1 to 4 bytes follows
			size, extra = int(tag>>2)+1, 1
			if k := int(tag>>2) - 59; k > 0 {
				if len(p)-i <= k {
					return bad("ends inside a literal's length")
				}
				var raw [4]byte
				copy(raw[:], p[i+1:i+1+k])
				size, extra = int(binary.LittleEndian.Uint32(raw[:]))+1, 1+k
			}
			if size > len(p)-i-extra {
				return bad("ends inside a literal")
			}
			i += extra + size
		case 1:
			size, extra = int(tag>>2&7)+4, 2
			if len(p)-i < extra {
				return bad("ends inside a copy")
			}
			if tag>>5 == 0 && p[i+1] == 0 {
				return bad("copy with offset 0")
			}
			i += extra
		case 2, 3:
			size, extra = int(tag>>2)+1, 3
			if tag&3 == 3 {
				extra = 5
			}
			if len(p)-i < extra {
				return bad("ends inside a copy")
			}
			if zeros(p[i+1 : i+extra]) {
				return bad("copy with offset 0")
			}
			i += extra
		}
		if have += size; have > want {
			return bad("longer than it says")
		}
	}
	if have != want {
		return bad("shorter than it says")
	}
	return nil
}

func zeros(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
