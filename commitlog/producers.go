package commitlog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"sort"
	"sync"

	"github.com/firnlog/firn/record"
)

// rememberedBatches is how many batches of a producer are told apart from new
// ones; Kafka's clients keep at most this many in flight (KIP-98).
const rememberedBatches = 5

// SeqRange is one remembered batch of a producer.
type SeqRange struct {
	FirstSeq, LastSeq       int32
	FirstOffset, LastOffset int64
	Timestamp               int64
}

// ProducerState is what a log knows of one producer id.
type ProducerState struct {
	ID               int64
	Epoch            int16
	CoordinatorEpoch int32      // of the last transaction marker, -1 for none
	Batches          []SeqRange // at most rememberedBatches, oldest first
	TxnFirst         int64      // first offset of its open transaction, -1 for none
	// LastTimestamp is when its last batch was appended, by the clock of the broker
	// that did it (ms), or, where only the bytes were left to tell, when they were
	// read; -1 when it is not known. The records' own times are their producer's
	// business: one that copies old records is not idle.
	LastTimestamp int64
}

// AbortedTxn is an aborted transaction: its data lies in [First, Last], Last being
// the offset of the marker. LastStable is the last stable offset right after it.
type AbortedTxn struct {
	ProducerID  int64
	First, Last int64
	LastStable  int64
}

const abortedSize = 32

func appendAborted(b []byte, a AbortedTxn) []byte {
	for _, v := range []int64{a.ProducerID, a.First, a.Last, a.LastStable} {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	return b
}

func decodeAborted(b []byte) (a AbortedTxn) {
	for i, p := range []*int64{&a.ProducerID, &a.First, &a.Last, &a.LastStable} {
		*p = int64(binary.BigEndian.Uint64(b[8*i:]))
	}
	return a
}

// abortedList is the log's aborted transactions, by the offset of their marker.
type abortedList struct {
	mu   sync.RWMutex
	list []AbortedTxn
}

func (l *abortedList) add(a AbortedTxn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := sort.Search(len(l.list), func(i int) bool { return l.list[i].Last >= a.Last })
	if i < len(l.list) && l.list[i].Last == a.Last && l.list[i].ProducerID == a.ProducerID {
		return
	}
	l.list = slices.Insert(l.list, i, a)
}

// overlapping lists those with data in [start, end), whether their marker lies
// there or behind it.
func (l *abortedList) overlapping(start, end int64) (out []AbortedTxn) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	i := sort.Search(len(l.list), func(i int) bool { return l.list[i].Last >= start })
	for _, a := range l.list[i:] {
		if a.First < end {
			out = append(out, a)
		}
	}
	return out
}

// decidedIn lists those whose marker lies in [start, end).
func (l *abortedList) decidedIn(start, end int64) (out []AbortedTxn) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, a := range l.list {
		if a.Last >= start && a.Last < end {
			out = append(out, a)
		}
	}
	return out
}

func (l *abortedList) dropBelow(offset int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = slices.DeleteFunc(l.list, func(a AbortedTxn) bool { return a.Last < offset })
}

// Aborted lists the aborted transactions that have data in [start, end), as far
// as this log knows them.
func (l *Log) Aborted(start, end int64) []AbortedTxn { return l.aborted.overlapping(start, end) }

// producers is the fold of the log over its producers. Not safe for concurrent
// use, but for firstUnstable.
type producers struct {
	byID map[int64]*ProducerState

	mu sync.Mutex // guards what firstUnstable reads
	// open and decided: a transaction stays unstable until its marker is below
	// the high watermark, or readers would pass data whose fate a crash can
	// still change.
	open    map[int64]int64 // producer id to first offset
	decided []decidedTxn
	any     bool // false while there never was a transaction: the cheap answer
}

type decidedTxn struct{ first, marker int64 }

func newProducers() *producers {
	return &producers{byID: map[int64]*ProducerState{}, open: map[int64]int64{}}
}

// verdict is what check found out about a batch that a client sends.
type verdict struct {
	duplicate bool
	base      int64
	last      int64
	ts        int64
}

// check decides whether a client's batch may be appended (KIP-98, KIP-360): a
// repeated batch is a duplicate, an unknown producer may begin anywhere, a new
// epoch begins at sequence 0, and otherwise sequences have no holes.
func (p *producers) check(b record.Batch) (verdict, error) {
	id := b.ProducerID()
	if id < 0 || b.IsControl() {
		return verdict{}, nil
	}
	st := p.byID[id]
	if st == nil {
		return verdict{}, nil
	}
	epoch, first := b.ProducerEpoch(), b.BaseSequence()
	switch {
	case epoch < st.Epoch:
		return verdict{}, fmt.Errorf("%w: %d, the log has %d", ErrInvalidProducerEpoch, epoch, st.Epoch)
	case epoch > st.Epoch:
		if first != 0 {
			return verdict{}, fmt.Errorf("%w: epoch %d begins at %d", ErrOutOfOrderSequence, epoch, first)
		}
		return verdict{}, nil
	case len(st.Batches) == 0:
		// Only markers were seen in this epoch: anything may come (KIP-360).
		return verdict{}, nil
	}
	last := b.LastSequence()
	for _, r := range st.Batches {
		if r.FirstSeq == first && r.LastSeq == last {
			return verdict{duplicate: true, base: r.FirstOffset, last: r.LastOffset, ts: r.Timestamp}, nil
		}
	}
	want := int32(0)
	if prev := st.Batches[len(st.Batches)-1].LastSeq; prev != math.MaxInt32 {
		want = prev + 1
	}
	if first != want {
		return verdict{}, fmt.Errorf("%w: got %d, want %d", ErrOutOfOrderSequence, first, want)
	}
	return verdict{}, nil
}

// apply folds a batch that is in the log; now is when it was appended, or is read
// again (ms). It returns the transaction that the batch aborted, if it is an abort
// marker.
func (p *producers) apply(b record.Batch, now int64) (aborted AbortedTxn, isAbort bool) {
	id := b.ProducerID()
	if id < 0 {
		return AbortedTxn{}, false
	}
	st := p.byID[id]
	if st == nil {
		st = &ProducerState{ID: id, Epoch: b.ProducerEpoch(), CoordinatorEpoch: -1, TxnFirst: -1}
		p.byID[id] = st
	}
	if b.ProducerEpoch() != st.Epoch {
		st.Epoch, st.Batches = b.ProducerEpoch(), nil
	}
	st.LastTimestamp = now
	if b.IsControl() {
		m, ok, err := record.ParseMarker(b)
		if err != nil || !ok {
			return AbortedTxn{}, false // a control batch of another kind ends nothing
		}
		st.CoordinatorEpoch = m.CoordinatorEpoch
		first := st.TxnFirst
		st.TxnFirst = -1
		if first < 0 {
			return AbortedTxn{}, false
		}
		p.mu.Lock()
		delete(p.open, id)
		p.decided = append(p.decided, decidedTxn{first, b.LastOffset()})
		p.mu.Unlock()
		if m.Type != record.Abort {
			return AbortedTxn{}, false
		}
		return AbortedTxn{ProducerID: id, First: first, Last: b.LastOffset(), LastStable: p.firstOpen(b.NextOffset())}, true
	}
	r := SeqRange{FirstSeq: b.BaseSequence(), LastSeq: b.LastSequence(), FirstOffset: b.BaseOffset(), LastOffset: b.LastOffset(), Timestamp: b.MaxTimestamp()}
	if len(st.Batches) < rememberedBatches {
		st.Batches = append(st.Batches, r)
	} else {
		copy(st.Batches, st.Batches[1:])
		st.Batches[rememberedBatches-1] = r
	}
	if b.IsTransactional() && st.TxnFirst < 0 {
		st.TxnFirst = b.BaseOffset()
		p.mu.Lock()
		p.open[id], p.any = st.TxnFirst, true
		p.mu.Unlock()
	}
	return AbortedTxn{}, false
}

// firstOpen is the first offset of an open transaction, or end.
func (p *producers) firstOpen(end int64) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.open {
		end = min(end, o)
	}
	return end
}

// firstUnstable is the first offset of a transaction that is open, or whose
// marker is not below hw; -1 when there is none.
func (p *producers) firstUnstable(hw int64) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.any {
		return -1
	}
	first := int64(-1)
	for _, o := range p.open {
		if first < 0 || o < first {
			first = o
		}
	}
	p.decided = slices.DeleteFunc(p.decided, func(d decidedTxn) bool { return d.marker < hw })
	for _, d := range p.decided {
		if first < 0 || d.first < first {
			first = d.first
		}
	}
	return first
}

// expire forgets producers without an open transaction that appended nothing after
// since (ms): those that have been idle for producer.id.expiration.ms.
func (p *producers) expire(since int64) {
	for id, st := range p.byID {
		if st.TxnFirst < 0 && st.LastTimestamp <= since {
			delete(p.byID, id)
		}
	}
}

// states is a deep copy of the fold, by producer id.
func (p *producers) states() []ProducerState {
	out := make([]ProducerState, 0, len(p.byID))
	for _, st := range p.byID {
		c := *st
		c.Batches = slices.Clone(st.Batches)
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b ProducerState) int { return int(min(1, max(-1, a.ID-b.ID))) })
	return out
}

// restoreProducers is the inverse of states. Where it is not known when a producer
// was last seen, that is now (ms).
func restoreProducers(list []ProducerState, now int64) *producers {
	p := newProducers()
	for _, st := range list {
		c := st
		if c.LastTimestamp < 0 {
			c.LastTimestamp = now
		}
		c.Batches = slices.Clone(st.Batches)
		p.byID[st.ID] = &c
		if st.TxnFirst >= 0 {
			p.open[st.ID], p.any = st.TxnFirst, true
		}
	}
	return p
}

// Snapshot file: magic, version, offset, count, producers, count, aborted
// transactions, CRC-32C over all of it. All numbers are big endian. The aborted
// transactions are those decided in the segment that holds the offset, below it:
// older segments have theirs in their index files.
const (
	snapshotMagic = "FPRD"
	snapshotMajor = 1
	snapshotMinor = 2 // 1 had the last record's time for the last append's; 0 no aborted transactions
	maxSnapshot   = 256 << 20
)

func encodeSnapshot(offset int64, list []ProducerState, aborted []AbortedTxn) []byte {
	b := append([]byte(nil), snapshotMagic...)
	b = binary.BigEndian.AppendUint16(b, snapshotMajor)
	b = binary.BigEndian.AppendUint16(b, snapshotMinor)
	b = binary.BigEndian.AppendUint64(b, uint64(offset))
	b = binary.BigEndian.AppendUint32(b, uint32(len(list)))
	for _, st := range list {
		b = binary.BigEndian.AppendUint64(b, uint64(st.ID))
		b = binary.BigEndian.AppendUint16(b, uint16(st.Epoch))
		b = binary.BigEndian.AppendUint32(b, uint32(st.CoordinatorEpoch))
		b = binary.BigEndian.AppendUint64(b, uint64(st.TxnFirst))
		b = binary.BigEndian.AppendUint64(b, uint64(st.LastTimestamp))
		b = append(b, byte(len(st.Batches)))
		for _, r := range st.Batches {
			b = binary.BigEndian.AppendUint32(b, uint32(r.FirstSeq))
			b = binary.BigEndian.AppendUint32(b, uint32(r.LastSeq))
			b = binary.BigEndian.AppendUint64(b, uint64(r.FirstOffset))
			b = binary.BigEndian.AppendUint64(b, uint64(r.LastOffset))
			b = binary.BigEndian.AppendUint64(b, uint64(r.Timestamp))
		}
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(aborted)))
	for _, a := range aborted {
		b = appendAborted(b, a)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeSnapshot(b []byte) (offset int64, list []ProducerState, aborted []AbortedTxn, err error) {
	bad := fmt.Errorf("producer snapshot is torn")
	if len(b) < 24 || string(b[:4]) != snapshotMagic {
		return 0, nil, nil, bad
	}
	body := b[:len(b)-4]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[len(body):]) {
		return 0, nil, nil, bad
	}
	if major := binary.BigEndian.Uint16(b[4:]); major != snapshotMajor {
		return 0, nil, nil, fmt.Errorf("producer snapshot format %d is not one this build reads (%d): start a newer firn", major, snapshotMajor)
	}
	minor := binary.BigEndian.Uint16(b[6:])
	offset = int64(binary.BigEndian.Uint64(b[8:]))
	count := int(binary.BigEndian.Uint32(b[16:]))
	p := body[20:]
	const fixed, each = 31, 32
	if count > len(p)/fixed {
		return 0, nil, nil, bad
	}
	list = make([]ProducerState, 0, count)
	for range count {
		if len(p) < fixed {
			return 0, nil, nil, bad
		}
		st := ProducerState{
			ID: int64(binary.BigEndian.Uint64(p)), Epoch: int16(binary.BigEndian.Uint16(p[8:])),
			CoordinatorEpoch: int32(binary.BigEndian.Uint32(p[10:])), TxnFirst: int64(binary.BigEndian.Uint64(p[14:])),
			LastTimestamp: int64(binary.BigEndian.Uint64(p[22:])),
		}
		if minor < 2 {
			st.LastTimestamp = -1
		}
		n := int(p[30])
		p = p[fixed:]
		if n > rememberedBatches || len(p) < n*each {
			return 0, nil, nil, bad
		}
		for range n {
			st.Batches = append(st.Batches, SeqRange{
				int32(binary.BigEndian.Uint32(p)), int32(binary.BigEndian.Uint32(p[4:])),
				int64(binary.BigEndian.Uint64(p[8:])), int64(binary.BigEndian.Uint64(p[16:])), int64(binary.BigEndian.Uint64(p[24:])),
			})
			p = p[each:]
		}
		list = append(list, st)
	}
	if minor >= 1 {
		if len(p) < 4 || int64(binary.BigEndian.Uint32(p))*abortedSize != int64(len(p)-4) {
			return 0, nil, nil, bad
		}
		for p = p[4:]; len(p) > 0; p = p[abortedSize:] {
			aborted = append(aborted, decodeAborted(p))
		}
	}
	if len(p) != 0 {
		return 0, nil, nil, bad
	}
	return offset, list, aborted, nil
}
