package record

import "fmt"

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
