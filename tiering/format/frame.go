package format

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/encoding/protowire"
)

// Errors of all decoders.
var (
	// ErrCorrupt means that bytes are not what a writer of this format wrote.
	ErrCorrupt = errors.New("corrupt")
	// ErrVersion means a major version that this build does not know.
	ErrVersion = errors.New("unknown format version")
)

// The version that this build writes. A reader refuses another major and reads
// any minor.
const (
	Major = 1
	Minor = 0
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A frame is magic (8 bytes), major and minor (2 each), length of the body (4),
// the body, and the CRC-32C of everything before it (4). Numbers are big endian.
const (
	magicSize   = 8
	frameHeader = magicSize + 2 + 2 + 4
	frameSize   = frameHeader + 4
)

func appendFrame(magic string, body []byte) []byte {
	out := make([]byte, 0, frameSize+len(body))
	out = append(out, magic...)
	out = binary.BigEndian.AppendUint16(out, Major)
	out = binary.BigEndian.AppendUint16(out, Minor)
	out = binary.BigEndian.AppendUint32(out, uint32(len(body)))
	out = append(out, body...)
	return binary.BigEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
}

// openFrame returns the body of a frame that is the whole of p.
func openFrame(magic, what string, p []byte) ([]byte, error) {
	if len(p) < frameSize {
		return nil, fmt.Errorf("%w: %s of %d bytes", ErrCorrupt, what, len(p))
	}
	if string(p[:magicSize]) != magic {
		return nil, fmt.Errorf("%w: %s begins with %q, not %q", ErrCorrupt, what, p[:magicSize], magic)
	}
	// The version is looked at before the checksum: a later format may place it
	// elsewhere.
	if major := binary.BigEndian.Uint16(p[magicSize:]); major != Major {
		return nil, fmt.Errorf("%w: %s has major version %d, this build reads %d: start a newer firn", ErrVersion, what, major, Major)
	}
	n := binary.BigEndian.Uint32(p[magicSize+4:])
	if uint64(n)+frameSize != uint64(len(p)) {
		return nil, fmt.Errorf("%w: %s announces %d bytes and has %d", ErrCorrupt, what, n, len(p)-frameSize)
	}
	end := len(p) - 4
	if got, want := crc32.Checksum(p[:end], castagnoli), binary.BigEndian.Uint32(p[end:]); got != want {
		return nil, fmt.Errorf("%w: %s has checksum %08x, its bytes say %08x", ErrCorrupt, what, want, got)
	}
	return p[frameHeader:end], nil
}

// writer builds a body. Zero values are left out, as protobuf does.
type writer struct{ b []byte }

func (w *writer) uint(field protowire.Number, v uint64) {
	if v != 0 {
		w.b = protowire.AppendTag(w.b, field, protowire.VarintType)
		w.b = protowire.AppendVarint(w.b, v)
	}
}

// int is zigzag (sint64): offsets and times may be -1.
func (w *writer) int(field protowire.Number, v int64) { w.uint(field, protowire.EncodeZigZag(v)) }

func (w *writer) bool(field protowire.Number, v bool) { w.uint(field, protowire.EncodeBool(v)) }

func (w *writer) fixed32(field protowire.Number, v uint32) {
	if v != 0 {
		w.b = protowire.AppendTag(w.b, field, protowire.Fixed32Type)
		w.b = protowire.AppendFixed32(w.b, v)
	}
}

func (w *writer) bytes(field protowire.Number, v []byte) {
	if len(v) > 0 {
		w.b = protowire.AppendTag(w.b, field, protowire.BytesType)
		w.b = protowire.AppendBytes(w.b, v)
	}
}

func (w *writer) string(field protowire.Number, v string) { w.bytes(field, []byte(v)) }

// message appends a nested message, also when it is empty: its being there
// counts.
func (w *writer) message(field protowire.Number, fill func(*writer)) {
	var m writer
	fill(&m)
	w.b = protowire.AppendTag(w.b, field, protowire.BytesType)
	w.b = protowire.AppendBytes(w.b, m.b)
}

// value is one field as it was read.
type value struct {
	num   uint64
	bytes []byte
}

func (v value) int() int64     { return protowire.DecodeZigZag(v.num) }
func (v value) int32() int32   { return int32(protowire.DecodeZigZag(v.num)) }
func (v value) uint32() uint32 { return uint32(v.num) }
func (v value) bool() bool     { return v.num != 0 }
func (v value) string() string { return string(v.bytes) }

// fields calls fn for each field of a body, in order; fn ignores what it does
// not know.
func fields(b []byte, fn func(field protowire.Number, v value) error) error {
	for len(b) > 0 {
		// The tag of a field below 16 is one byte: the only ones in a part.
		field, typ, n := protowire.Number(b[0]>>3), protowire.Type(b[0]&7), 1
		if b[0] >= 0x80 || field == 0 {
			if field, typ, n = protowire.ConsumeTag(b); n < 0 {
				return fmt.Errorf("%w: %w", ErrCorrupt, protowire.ParseError(n))
			}
		}
		b = b[n:]
		var v value
		switch typ {
		case protowire.VarintType:
			v.num, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var u uint32
			u, n = protowire.ConsumeFixed32(b)
			v.num = uint64(u)
		case protowire.BytesType:
			v.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(field, typ, b)
		}
		if n < 0 {
			return fmt.Errorf("%w: field %d: %w", ErrCorrupt, field, protowire.ParseError(n))
		}
		b = b[n:]
		if err := fn(field, v); err != nil {
			return err
		}
	}
	return nil
}

// count is how often a field occurs in a body, as far as the body can be read.
func count(b []byte, field protowire.Number) (n int) {
	for len(b) > 0 {
		f, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			return n
		}
		skip := protowire.ConsumeFieldValue(f, typ, b[size:])
		if skip < 0 {
			return n
		}
		if f == field {
			n++
		}
		b = b[size+skip:]
	}
	return n
}
