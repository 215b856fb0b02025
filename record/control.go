package record

import (
	"encoding/binary"
	"fmt"
)

// ControlType says what a control record is, by its number in the key.
type ControlType int16

const (
	// Abort ends a transaction whose records are to be skipped.
	Abort ControlType = 0
	// Commit ends a transaction whose records count.
	Commit ControlType = 1
)

// String returns Kafka's name of the type.
func (t ControlType) String() string {
	switch t {
	case Abort:
		return "ABORT"
	case Commit:
		return "COMMIT"
	}
	return fmt.Sprintf("control(%d)", int16(t))
}

// Marker is the end of a producer's transaction in one partition (KIP-98).
type Marker struct {
	Type             ControlType
	ProducerID       int64
	ProducerEpoch    int16
	CoordinatorEpoch int32 // fences markers of a deposed transaction coordinator
	Timestamp        int64 // milliseconds
}

// ControlMarker returns the control batch that ends a transaction: one record
// whose key is version 0 and the type, and whose value is version 0 and the
// coordinator's epoch. Its base offset is 0 until it is appended.
func ControlMarker(m Marker) Batch {
	if m.Type != Abort && m.Type != Commit {
		panic(fmt.Sprintf("BUG: marker of type %d", m.Type))
	}
	opts := NewBatchOptions()
	opts.ProducerID, opts.ProducerEpoch = m.ProducerID, m.ProducerEpoch
	opts.Transactional, opts.Control = true, true
	b := NewBuilder(opts)
	b.Append(Record{
		TimestampDelta: m.Timestamp,
		Key:            binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(m.Type)),
		Value:          binary.BigEndian.AppendUint32([]byte{0, 0}, uint32(m.CoordinatorEpoch)),
	})
	return b.Build()
}

// ParseControl returns what a record of a control batch is. Types other than
// Abort and Commit exist in Kafka and are returned as they are: skip them. Later
// versions of the key only add fields. It fails with ErrCorrupt when the key
// is no control key.
func ParseControl(r Record) (version int16, typ ControlType, err error) {
	if len(r.Key) < 4 {
		return 0, 0, fmt.Errorf("%w: control key of %d bytes", ErrCorrupt, len(r.Key))
	}
	version = int16(binary.BigEndian.Uint16(r.Key))
	if version < 0 {
		return 0, 0, fmt.Errorf("%w: control key version %d", ErrCorrupt, version)
	}
	return version, ControlType(binary.BigEndian.Uint16(r.Key[2:])), nil
}

// ParseMarker returns the end of a transaction that a control batch holds, and
// ok = false for a control batch of another kind. It fails with ErrCorrupt when
// the batch is no control batch, or its record is malformed.
func ParseMarker(b Batch) (m Marker, ok bool, err error) {
	if !b.IsControl() {
		return Marker{}, false, fmt.Errorf("%w: not a control batch", ErrCorrupt)
	}
	const maxMarker = 1 << 10 // a marker has 10 bytes; no broker compresses it
	for r, err := range b.Records(maxMarker) {
		if err != nil {
			return Marker{}, false, err
		}
		_, typ, err := ParseControl(r)
		if err != nil || (typ != Abort && typ != Commit) {
			return Marker{}, false, err
		}
		if len(r.Value) < 6 {
			return Marker{}, false, fmt.Errorf("%w: marker value of %d bytes", ErrCorrupt, len(r.Value))
		}
		return Marker{
			Type: typ, ProducerID: b.ProducerID(), ProducerEpoch: b.ProducerEpoch(),
			CoordinatorEpoch: int32(binary.BigEndian.Uint32(r.Value[2:])), Timestamp: b.Timestamp(r),
		}, true, nil
	}
	return Marker{}, false, fmt.Errorf("%w: control batch without a record", ErrCorrupt)
}
