package format

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	footerMagic  = "FIRNFOOT"
	trailerMagic = "FIRNSEG1"
)

// Codec is how chunks are stored. None keeps Kafka's bytes verbatim.
type Codec uint8

// The codecs.
const (
	None Codec = 0
	Zstd Codec = 1
)

func (c *Codec) read(v value) error {
	if v.num > uint64(Zstd) {
		return fmt.Errorf("%w: codec %d of chunks", ErrVersion, v.num)
	}
	*c = Codec(v.num)
	return nil
}

// Chunk is one line of a segment object's chunk table: the unit of everything
// cold. It holds whole batches.
type Chunk struct {
	Base  int64  // first offset
	MaxTs int64  // ms, -1 when no record has one
	Pos   int64  // where its stored bytes begin in the object
	Len   int64  // stored bytes
	Size  int64  // bytes of its batches, decoded
	CRC   uint32 // CRC-32C of the stored bytes
}

// SeqRange is one batch that an idempotent producer sent.
type SeqRange struct {
	FirstSeq, LastSeq       int32
	FirstOffset, LastOffset int64
	Timestamp               int64
}

// Producer is what is known of one idempotent producer at the end of an object.
type Producer struct {
	ID               int64
	Epoch            int16
	CoordinatorEpoch int32
	Batches          []SeqRange
	TxnFirst         int64 // first offset of its open transaction, -1 for none
	LastTimestamp    int64
}

// Footer explains a segment object without any other object.
type Footer struct {
	ClusterID         string
	ClusterGeneration uint64
	TopicID           [16]byte
	Topic             string
	Partition         int32
	Base, End         int64
	Epoch             int32 // of the leader that wrote the object
	Writer            int32 // its broker id
	Build             string
	LogStart          int64 // of the partition when the object was written
	Codec             Codec
	Records, Batches  int64
	Bytes             int64 // of the batches, decoded
	MinTs, MaxTs      int64
	Chunks            []Chunk
	Lineage           []Epoch   // up to End
	Aborted           []Aborted // all that overlap [Base, End), marker inside or not (SAFETY 14)
	Producers         []Producer
}

// The trailer ends the object: length of the footer (8 bytes), CRC-32C of the
// length (4), reserved (4), magic (8).
const TrailerSize = 8 + 4 + 4 + magicSize

// maxFooter bounds what a reader allocates on the word of a trailer.
const maxFooter = 256 << 20

// EncodeFooter writes the footer and the trailer.
func EncodeFooter(f *Footer) []byte {
	var w writer
	w.string(1, f.ClusterID)
	w.uint(2, f.ClusterGeneration)
	w.bytes(3, f.TopicID[:])
	w.string(4, f.Topic)
	w.int(5, int64(f.Partition))
	w.int(6, f.Base)
	w.int(7, f.End)
	w.int(8, int64(f.Epoch))
	w.int(9, int64(f.Writer))
	w.string(10, f.Build)
	w.int(11, f.LogStart)
	w.uint(12, uint64(f.Codec))
	w.int(13, f.Records)
	w.int(14, f.Batches)
	w.int(15, f.Bytes)
	w.int(16, f.MinTs)
	w.int(17, f.MaxTs)
	for i := range f.Chunks {
		w.message(18, f.Chunks[i].write)
	}
	for _, e := range f.Lineage {
		w.message(19, e.write)
	}
	for _, a := range f.Aborted {
		w.message(20, a.write)
	}
	for i := range f.Producers {
		w.message(21, f.Producers[i].write)
	}
	out := appendFrame(footerMagic, w.b)
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(out)))
	out = append(out, length[:]...)
	out = binary.BigEndian.AppendUint32(out, crc32.Checksum(length[:], castagnoli))
	out = append(out, 0, 0, 0, 0)
	return append(out, trailerMagic...)
}

// FooterSize reads a trailer: how long the footer before it is. size is the
// object's.
func FooterSize(trailer []byte, size int64) (int64, error) {
	if len(trailer) != TrailerSize || size < TrailerSize {
		return 0, fmt.Errorf("%w: segment object of %d bytes", ErrCorrupt, size)
	}
	if m := trailer[TrailerSize-magicSize:]; string(m) != trailerMagic {
		if string(m[:7]) == trailerMagic[:7] {
			return 0, fmt.Errorf("%w: segment object ends with %q, this build reads %q: start a newer firn", ErrVersion, m, trailerMagic)
		}
		return 0, fmt.Errorf("%w: segment object ends with %q", ErrCorrupt, m)
	}
	n := binary.BigEndian.Uint64(trailer)
	if crc32.Checksum(trailer[:8], castagnoli) != binary.BigEndian.Uint32(trailer[8:]) || n < frameSize || n > maxFooter || int64(n) > size-TrailerSize {
		return 0, fmt.Errorf("%w: segment object of %d bytes announces a footer of %d", ErrCorrupt, size, n)
	}
	return int64(n), nil
}

// DecodeFooter reads a footer without its trailer and checks its chunk table
// against [Base, End) and against the bytes before it, which are payload long.
func DecodeFooter(b []byte, payload int64) (*Footer, error) {
	body, err := openFrame(footerMagic, "footer", b)
	if err != nil {
		return nil, err
	}
	f := &Footer{}
	err = fields(body, func(n protowire.Number, v value) error {
		switch n {
		case 1:
			f.ClusterID = v.string()
		case 2:
			f.ClusterGeneration = v.num
		case 3:
			return fixedBytes(f.TopicID[:], v.bytes)
		case 4:
			f.Topic = v.string()
		case 5:
			f.Partition = v.int32()
		case 6:
			f.Base = v.int()
		case 7:
			f.End = v.int()
		case 8:
			f.Epoch = v.int32()
		case 9:
			f.Writer = v.int32()
		case 10:
			f.Build = v.string()
		case 11:
			f.LogStart = v.int()
		case 12:
			return f.Codec.read(v)
		case 13:
			f.Records = v.int()
		case 14:
			f.Batches = v.int()
		case 15:
			f.Bytes = v.int()
		case 16:
			f.MinTs = v.int()
		case 17:
			f.MaxTs = v.int()
		case 18:
			return readInto(&f.Chunks, v.bytes, (*Chunk).read)
		case 19:
			return readInto(&f.Lineage, v.bytes, (*Epoch).read)
		case 20:
			return readInto(&f.Aborted, v.bytes, (*Aborted).read)
		case 21:
			return readInto(&f.Producers, v.bytes, (*Producer).read)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("footer: %w", err)
	}
	return f, f.check(payload)
}

func (f *Footer) check(payload int64) error {
	if f.Base < 0 || f.End <= f.Base || len(f.Chunks) == 0 || f.Chunks[0].Base != f.Base {
		return fmt.Errorf("%w: footer of [%d, %d) with %d chunks", ErrCorrupt, f.Base, f.End, len(f.Chunks))
	}
	var pos, size int64
	for i, c := range f.Chunks {
		// A chunk that decodes to a thousand times its size is an attack on
		// memory, not data.
		if c.Pos != pos || c.Len <= 0 || c.Size <= 0 || c.Len > payload-pos || c.Size>>10 > c.Len ||
			i > 0 && c.Base <= f.Chunks[i-1].Base || c.Base >= f.End {
			return fmt.Errorf("%w: chunk %d of [%d, %d): base %d, %d bytes at %d", ErrCorrupt, i, f.Base, f.End, c.Base, c.Len, c.Pos)
		}
		if f.Codec == None && c.Size != c.Len {
			return fmt.Errorf("%w: chunk %d is stored verbatim, in %d bytes, and has %d", ErrCorrupt, i, c.Len, c.Size)
		}
		pos += c.Len
		size += c.Size
	}
	if pos != payload || size != f.Bytes {
		return fmt.Errorf("%w: chunks of %d and %d bytes, of %d and %d", ErrCorrupt, pos, size, payload, f.Bytes)
	}
	return checkLineage(f.Lineage)
}

// CheckFooter says whether what EncodeFooter wrote behind payload bytes can be
// read back.
func CheckFooter(tail []byte, payload int64) error {
	n, err := FooterSize(tail[len(tail)-TrailerSize:], payload+int64(len(tail)))
	if err != nil {
		return err
	}
	_, err = DecodeFooter(tail[:n], payload)
	return err
}

// ReadFooter reads the footer of a segment object of size bytes through read,
// which fills p from byte off or fails. It takes one read when the guess of
// where the footer begins is right, else two.
func ReadFooter(size int64, read func(p []byte, off int64) error) (*Footer, error) {
	const guess = 64 << 10
	if size < TrailerSize+frameSize {
		return nil, fmt.Errorf("%w: segment object of %d bytes", ErrCorrupt, size)
	}
	tail := make([]byte, min(size, guess))
	if err := read(tail, size-int64(len(tail))); err != nil {
		return nil, err
	}
	n, err := FooterSize(tail[len(tail)-TrailerSize:], size)
	if err != nil {
		return nil, err
	}
	start := size - TrailerSize - n
	if have := int64(len(tail)) - TrailerSize; n <= have {
		return DecodeFooter(tail[have-n:have], start)
	}
	b := make([]byte, n)
	if err := read(b, start); err != nil {
		return nil, err
	}
	return DecodeFooter(b, start)
}

func (c *Chunk) write(w *writer) {
	w.int(1, c.Base)
	w.int(2, c.MaxTs)
	w.int(3, c.Pos)
	w.int(4, c.Len)
	w.int(5, c.Size)
	w.fixed32(6, c.CRC)
}

func (c *Chunk) read(b []byte) error {
	err := fields(b, func(f protowire.Number, v value) error {
		switch f {
		case 1:
			c.Base = v.int()
		case 2:
			c.MaxTs = v.int()
		case 3:
			c.Pos = v.int()
		case 4:
			c.Len = v.int()
		case 5:
			c.Size = v.int()
		case 6:
			c.CRC = v.uint32()
		}
		return nil
	})
	if err == nil && c.Len <= 0 {
		return fmt.Errorf("%w: chunk of %d bytes", ErrCorrupt, c.Len)
	}
	return err
}

func (s SeqRange) write(w *writer) {
	w.int(1, int64(s.FirstSeq))
	w.int(2, int64(s.LastSeq))
	w.int(3, s.FirstOffset)
	w.int(4, s.LastOffset)
	w.int(5, s.Timestamp)
}

func (s *SeqRange) read(b []byte) error {
	return fields(b, func(f protowire.Number, v value) error {
		switch f {
		case 1:
			s.FirstSeq = v.int32()
		case 2:
			s.LastSeq = v.int32()
		case 3:
			s.FirstOffset = v.int()
		case 4:
			s.LastOffset = v.int()
		case 5:
			s.Timestamp = v.int()
		}
		return nil
	})
}

func (p *Producer) write(w *writer) {
	w.int(1, p.ID)
	w.int(2, int64(p.Epoch))
	w.int(3, int64(p.CoordinatorEpoch))
	w.int(4, p.TxnFirst)
	w.int(5, p.LastTimestamp)
	for _, s := range p.Batches {
		w.message(6, s.write)
	}
}

func (p *Producer) read(b []byte) error {
	return fields(b, func(f protowire.Number, v value) error {
		switch f {
		case 1:
			p.ID = v.int()
		case 2:
			p.Epoch = int16(v.int())
		case 3:
			p.CoordinatorEpoch = v.int32()
		case 4:
			p.TxnFirst = v.int()
		case 5:
			p.LastTimestamp = v.int()
		case 6:
			return readInto(&p.Batches, v.bytes, (*SeqRange).read)
		}
		return nil
	})
}
