package format

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

const headMagic = "FIRNHEAD"

// MaxHead is the largest head that is ever written; older entries move into
// parts before it is reached.
const MaxHead = 256 << 10

// Epoch is where a leader epoch began.
type Epoch struct {
	Epoch int32
	Start int64
}

// Aborted is a transaction that was aborted: its first offset, the offset of its
// marker, and the last stable offset when the marker was written.
type Aborted struct {
	ProducerID              int64
	First, Last, LastStable int64
}

// MaxAborted is how many aborted transactions an entry holds itself.
const MaxAborted = 16

// Entry is one segment object as the manifest names it. [Base, End) is dense;
// entries follow each other without a gap.
type Entry struct {
	Base, End int64
	Epoch     int32 // of the leader that wrote it
	Nonce     Nonce
	Key       string // relative to the store; empty for the partition's own folder
	Size      int64  // of the object
	Bytes     int64  // of its batches, decoded
	Records   int64
	Batches   int64
	MinTs     int64  // ms, -1 when no record has one
	MaxTs     int64  // ms, -1 when no record has one
	ETag      string // as the store answered at commit
	CRC       uint32 // CRC-32C of the whole object
	Codec     Codec
	Aborted   []Aborted // those that overlap, when at most MaxAborted
	// AbortedInFooter says that there are more: read the footer.
	AbortedInFooter bool
	CreatedMs       int64 // when it was uploaded, by the writer's clock: the age of records without timestamps
}

// Name is the entry's name in its partition's folder.
func (e *Entry) Name() string { return SegmentName(e.Base, e.End, e.Epoch, e.Nonce) }

// PartRef names a part: an immutable object with entries that left the head.
type PartRef struct {
	From, To     int64 // the offsets its entries cover
	Count        int64
	Nonce        Nonce
	Size         int64 // of the part object
	Bytes        int64 // of the batches that its entries name
	Stored       int64 // of the objects that its entries name
	MinTs, MaxTs int64
	ETag         string
	CRC          uint32
}

// Name is the part's name in its partition's folder.
func (p *PartRef) Name() string { return PartName(p.From, p.To, p.Nonce) }

// GraveState is how dead something is.
type GraveState uint8

// The states. Unlinked may be revived; Deleting is irrevocable, and only it may
// be deleted (SAFETY 11).
const (
	Unlinked GraveState = 1
	Deleting GraveState = 2
)

// Grave is an object or a part that the manifest no longer names as data.
type Grave struct {
	State GraveState
	Since int64 // ms of the store's clock at the burial
	// Orphan says that no manifest ever named it: it waits longer, because a
	// writer may still be about to.
	Orphan bool
	// Part says that the grave holds a part. WithEntries: and with it all the
	// objects that the part names, which then have no graves of their own.
	Part, WithEntries bool
	Base, End         int64
	Epoch             int32 // of an object
	Nonce             Nonce
	// Size is of all that the grave holds, in bytes, and Objects how many segment
	// objects that are; both are 0 in heads from before they were kept.
	Size, Objects int64
}

// Name is the name of what is buried.
func (g *Grave) Name() string {
	if g.Part {
		return PartName(g.Base, g.End, g.Nonce)
	}
	return SegmentName(g.Base, g.End, g.Epoch, g.Nonce)
}

// Head is what a partition is in the bucket, now. It is replaced as a whole by
// compare-and-set; every rewrite has the next generation and a new nonce, so
// equal ETags never mean equal histories.
type Head struct {
	ClusterID         string
	ClusterGeneration uint64
	TopicID           [16]byte
	Topic             string
	Partition         int32

	Generation uint64
	Nonce      Nonce
	Epoch      int32 // leader epoch of the writer; a lower one may not write
	Writer     int32 // its broker id

	LogStart int64 // first readable offset, as the writer knew it
	End      int64 // exclusive end of the contiguous range in the bucket
	Lineage  []Epoch
	Parts    []PartRef // oldest first, before the entries
	Entries  []Entry   // oldest first
	Graves   []Grave
	Deleted  bool // the topic was deleted: everything goes, the head last
}

// Start is the first offset that an object holds, End when none does.
func (h *Head) Start() int64 {
	if len(h.Parts) > 0 {
		return h.Parts[0].From
	}
	if len(h.Entries) > 0 {
		return h.Entries[0].Base
	}
	return h.End
}

// EncodeHead writes a head.
func EncodeHead(h *Head) []byte {
	var w writer
	w.string(1, h.ClusterID)
	w.uint(2, h.ClusterGeneration)
	w.bytes(3, h.TopicID[:])
	w.string(4, h.Topic)
	w.int(5, int64(h.Partition))
	w.uint(6, h.Generation)
	w.bytes(7, h.Nonce[:])
	w.int(8, int64(h.Epoch))
	w.int(9, int64(h.Writer))
	w.int(10, h.LogStart)
	w.int(11, h.End)
	for _, e := range h.Lineage {
		w.message(12, e.write)
	}
	for i := range h.Parts {
		w.message(13, h.Parts[i].write)
	}
	for i := range h.Entries {
		w.message(14, h.Entries[i].write)
	}
	for i := range h.Graves {
		w.message(15, h.Graves[i].write)
	}
	w.bool(16, h.Deleted)
	return appendFrame(headMagic, w.b)
}

// DecodeHead reads a head and checks that its parts and entries are one
// contiguous range that ends at End.
func DecodeHead(p []byte) (*Head, error) {
	body, err := openFrame(headMagic, "manifest", p)
	if err != nil {
		return nil, err
	}
	h := &Head{}
	err = fields(body, func(f protowire.Number, v value) error {
		switch f {
		case 1:
			h.ClusterID = v.string()
		case 2:
			h.ClusterGeneration = v.num
		case 3:
			return fixedBytes(h.TopicID[:], v.bytes)
		case 4:
			h.Topic = v.string()
		case 5:
			h.Partition = v.int32()
		case 6:
			h.Generation = v.num
		case 7:
			return fixedBytes(h.Nonce[:], v.bytes)
		case 8:
			h.Epoch = v.int32()
		case 9:
			h.Writer = v.int32()
		case 10:
			h.LogStart = v.int()
		case 11:
			h.End = v.int()
		case 12:
			return readInto(&h.Lineage, v.bytes, (*Epoch).read)
		case 13:
			return readInto(&h.Parts, v.bytes, (*PartRef).read)
		case 14:
			return readInto(&h.Entries, v.bytes, (*Entry).read)
		case 15:
			return readInto(&h.Graves, v.bytes, (*Grave).read)
		case 16:
			h.Deleted = v.bool()
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return h, h.check()
}

func (h *Head) check() error {
	if h.LogStart < 0 || h.End < 0 {
		return fmt.Errorf("%w: manifest with log start %d and end %d", ErrCorrupt, h.LogStart, h.End)
	}
	at := h.Start()
	for i := range h.Parts {
		p := &h.Parts[i]
		if p.From != at || p.To <= p.From || p.Count <= 0 {
			return fmt.Errorf("%w: manifest names part [%d, %d) at %d", ErrCorrupt, p.From, p.To, at)
		}
		at = p.To
	}
	if err := checkEntries(h.Entries, &at); err != nil {
		return err
	}
	if at != h.End {
		return fmt.Errorf("%w: manifest names objects up to %d and says it ends at %d", ErrCorrupt, at, h.End)
	}
	return checkLineage(h.Lineage)
}

func checkEntries(entries []Entry, at *int64) error {
	for i := range entries {
		e := &entries[i]
		if e.Base != *at || e.End <= e.Base || e.Base < 0 || e.Size <= 0 || e.Bytes < 0 {
			return fmt.Errorf("%w: manifest names object [%d, %d) at %d", ErrCorrupt, e.Base, e.End, *at)
		}
		*at = e.End
	}
	return nil
}

func checkLineage(l []Epoch) error {
	for i := 1; i < len(l); i++ {
		if l[i].Epoch <= l[i-1].Epoch || l[i].Start < l[i-1].Start {
			return fmt.Errorf("%w: leader epoch %d at %d after %d at %d", ErrCorrupt, l[i].Epoch, l[i].Start, l[i-1].Epoch, l[i-1].Start)
		}
	}
	return nil
}

func (e Epoch) write(w *writer) {
	w.int(1, int64(e.Epoch))
	w.int(2, e.Start)
}

func (e *Epoch) read(b []byte) error {
	return fields(b, func(f protowire.Number, v value) error {
		switch f {
		case 1:
			e.Epoch = v.int32()
		case 2:
			e.Start = v.int()
		}
		return nil
	})
}

func (a Aborted) write(w *writer) {
	w.int(1, a.ProducerID)
	w.int(2, a.First)
	w.int(3, a.Last)
	w.int(4, a.LastStable)
}

func (a *Aborted) read(b []byte) error {
	return fields(b, func(f protowire.Number, v value) error {
		switch f {
		case 1:
			a.ProducerID = v.int()
		case 2:
			a.First = v.int()
		case 3:
			a.Last = v.int()
		case 4:
			a.LastStable = v.int()
		}
		return nil
	})
}

func (e *Entry) write(w *writer) {
	w.int(1, e.Base)
	w.int(2, e.End)
	w.int(3, int64(e.Epoch))
	w.bytes(4, e.Nonce[:])
	w.string(5, e.Key)
	w.int(6, e.Size)
	w.int(7, e.Bytes)
	w.int(8, e.Records)
	w.int(9, e.Batches)
	w.int(10, e.MinTs)
	w.int(11, e.MaxTs)
	w.string(12, e.ETag)
	w.fixed32(13, e.CRC)
	w.uint(14, uint64(e.Codec))
	for _, a := range e.Aborted {
		w.message(15, a.write)
	}
	w.bool(16, e.AbortedInFooter)
	w.int(17, e.CreatedMs)
}

func (e *Entry) read(b []byte) error {
	err := fields(b, func(f protowire.Number, v value) error {
		switch f {
		case 1:
			e.Base = v.int()
		case 2:
			e.End = v.int()
		case 3:
			e.Epoch = v.int32()
		case 4:
			return fixedBytes(e.Nonce[:], v.bytes)
		case 5:
			e.Key = v.string()
		case 6:
			e.Size = v.int()
		case 7:
			e.Bytes = v.int()
		case 8:
			e.Records = v.int()
		case 9:
			e.Batches = v.int()
		case 10:
			e.MinTs = v.int()
		case 11:
			e.MaxTs = v.int()
		case 12:
			e.ETag = v.string()
		case 13:
			e.CRC = v.uint32()
		case 14:
			return e.Codec.read(v)
		case 15:
			return readInto(&e.Aborted, v.bytes, (*Aborted).read)
		case 16:
			e.AbortedInFooter = v.bool()
		case 17:
			e.CreatedMs = v.int()
		}
		return nil
	})
	// At once: a million empty messages must not become a million entries first.
	if err == nil && (e.Base < 0 || e.End <= e.Base) {
		return fmt.Errorf("%w: object [%d, %d)", ErrCorrupt, e.Base, e.End)
	}
	return err
}

func (p *PartRef) write(w *writer) {
	w.int(1, p.From)
	w.int(2, p.To)
	w.int(3, p.Count)
	w.bytes(4, p.Nonce[:])
	w.int(5, p.Size)
	w.int(6, p.Bytes)
	w.int(7, p.Stored)
	w.int(8, p.MinTs)
	w.int(9, p.MaxTs)
	w.string(10, p.ETag)
	w.fixed32(11, p.CRC)
}

func (p *PartRef) read(b []byte) error {
	err := fields(b, func(f protowire.Number, v value) error {
		switch f {
		case 1:
			p.From = v.int()
		case 2:
			p.To = v.int()
		case 3:
			p.Count = v.int()
		case 4:
			return fixedBytes(p.Nonce[:], v.bytes)
		case 5:
			p.Size = v.int()
		case 6:
			p.Bytes = v.int()
		case 7:
			p.Stored = v.int()
		case 8:
			p.MinTs = v.int()
		case 9:
			p.MaxTs = v.int()
		case 10:
			p.ETag = v.string()
		case 11:
			p.CRC = v.uint32()
		}
		return nil
	})
	if err == nil && (p.From < 0 || p.To <= p.From || p.Bytes < 0 || p.Stored < 0) {
		return fmt.Errorf("%w: part [%d, %d) of %d bytes", ErrCorrupt, p.From, p.To, p.Bytes)
	}
	return err
}

func (g *Grave) write(w *writer) {
	w.uint(1, uint64(g.State))
	w.int(2, g.Since)
	w.bool(3, g.Orphan)
	w.bool(4, g.Part)
	w.bool(5, g.WithEntries)
	w.int(6, g.Base)
	w.int(7, g.End)
	w.int(8, int64(g.Epoch))
	w.bytes(9, g.Nonce[:])
	w.int(10, g.Size)
	w.int(11, g.Objects)
}

func (g *Grave) read(b []byte) error {
	err := fields(b, func(f protowire.Number, v value) error {
		switch f {
		case 1:
			g.State = GraveState(v.num)
		case 2:
			g.Since = v.int()
		case 3:
			g.Orphan = v.bool()
		case 4:
			g.Part = v.bool()
		case 5:
			g.WithEntries = v.bool()
		case 6:
			g.Base = v.int()
		case 7:
			g.End = v.int()
		case 8:
			g.Epoch = v.int32()
		case 9:
			return fixedBytes(g.Nonce[:], v.bytes)
		case 10:
			g.Size = v.int()
		case 11:
			g.Objects = v.int()
		}
		return nil
	})
	if err == nil && g.State != Unlinked && g.State != Deleting {
		return fmt.Errorf("%w: grave in state %d", ErrCorrupt, g.State)
	}
	return err
}

// readInto appends one decoded message to list.
func readInto[T any](list *[]T, b []byte, read func(*T, []byte) error) error {
	var v T
	if err := read(&v, b); err != nil {
		return err
	}
	*list = append(*list, v)
	return nil
}

func fixedBytes(dst, src []byte) error {
	if len(src) != len(dst) {
		return fmt.Errorf("%w: %d bytes where %d belong", ErrCorrupt, len(src), len(dst))
	}
	copy(dst, src)
	return nil
}

// MinTs and MaxTs of nothing.
const noTs = -1

// WidenTs is the range of timestamps (minTs, maxTs) widened by (min, max); -1 is
// none.
func WidenTs(minTs, maxTs, minNew, maxNew int64) (int64, int64) {
	if minNew >= 0 && (minTs < 0 || minNew < minTs) {
		minTs = minNew
	}
	return minTs, max(maxTs, maxNew, noTs)
}

// EndOfTime is a log start that everything is below.
const EndOfTime = math.MaxInt64
