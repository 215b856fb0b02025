package load

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// EncodeBatch makes a v2 record batch of n records with values of size bytes. The
// same arguments always make a batch of the same length.
func EncodeBatch(n, size int, codec string) ([]byte, error) {
	rng := rand.NewChaCha8([32]byte{7})
	var records []byte
	for i := range n {
		value := make([]byte, size)
		rng.Read(value[:size/2])
		r := []byte{0}                                  // attributes
		r = binary.AppendVarint(r, 0)                   // timestamp delta
		r = binary.AppendVarint(r, int64(i))            // offset delta
		r = binary.AppendVarint(r, -1)                  // no key
		r = binary.AppendVarint(r, int64(size))         // value
		r = binary.AppendVarint(append(r, value...), 0) // no headers
		records = append(binary.AppendVarint(records, int64(len(r))), r...)
	}
	attributes := uint16(0)
	switch codec {
	case "none":
	case "gzip":
		attributes = 1
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		w.Write(records)
		w.Close()
		records = b.Bytes()
	case "snappy":
		attributes = 2
		records = s2.EncodeSnappy(nil, records)
	case "zstd":
		attributes = 4
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault))
		if err != nil {
			return nil, err
		}
		records = e.EncodeAll(records, nil)
	default:
		return nil, fmt.Errorf("load: no codec %q: none, gzip, snappy or zstd", codec)
	}
	be := binary.BigEndian
	now := uint64(time.Now().UnixMilli())
	tail := be.AppendUint16(nil, attributes)
	tail = be.AppendUint32(tail, uint32(n-1))
	tail = be.AppendUint64(tail, now)
	tail = be.AppendUint64(tail, now)
	tail = append(tail, bytes.Repeat([]byte{0xff}, 14)...) // no producer
	tail = be.AppendUint32(tail, uint32(n))
	tail = append(tail, records...)
	b := make([]byte, 8, 21+len(tail))
	b = be.AppendUint32(b, uint32(4+1+4+len(tail)))
	b = append(b, 0xff, 0xff, 0xff, 0xff, 2)
	b = be.AppendUint32(b, crc32.Checksum(tail, crc32.MakeTable(crc32.Castagnoli)))
	return append(b, tail...), nil
}
