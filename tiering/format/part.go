package format

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

const partMagic = "FIRNPART"

// Part is a run of entries that left the head. It never changes.
type Part struct {
	TopicID   [16]byte
	Partition int32
	Entries   []Entry
}

// EncodePart writes a part.
func EncodePart(p *Part) []byte {
	var w writer
	w.bytes(1, p.TopicID[:])
	w.int(2, int64(p.Partition))
	for i := range p.Entries {
		w.message(3, p.Entries[i].write)
	}
	return appendFrame(partMagic, w.b)
}

// DecodePart reads a part and checks that its entries are contiguous.
func DecodePart(b []byte) (*Part, error) {
	body, err := openFrame(partMagic, "part of a manifest", b)
	if err != nil {
		return nil, err
	}
	p := &Part{Entries: make([]Entry, 0, min(count(body, 3), len(body)/32))}
	err = fields(body, func(f protowire.Number, v value) error {
		switch f {
		case 1:
			return fixedBytes(p.TopicID[:], v.bytes)
		case 2:
			p.Partition = v.int32()
		case 3:
			p.Entries = append(p.Entries, Entry{})
			return p.Entries[len(p.Entries)-1].read(v.bytes)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("part of a manifest: %w", err)
	}
	if len(p.Entries) == 0 {
		return nil, fmt.Errorf("%w: part of a manifest without entries", ErrCorrupt)
	}
	at := p.Entries[0].Base
	return p, checkEntries(p.Entries, &at)
}
