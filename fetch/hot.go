package fetch

import (
	"errors"
	"sort"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/replication"
)

// hotRead is what a partition's own log has at an offset.
type hotRead struct {
	records                             Records // nil for none
	highWatermark, lastStable, logStart int64
	aborted                             []commitlog.AbortedTxn
}

// hotPartition is replication.Partition as the reader sees it. It is one pointer
// wide, so making one costs nothing.
type hotPartition struct{ p *replication.Partition }

func (h hotPartition) id() partID {
	return partID{h.p.TopicID(), h.p.TopicPartition().Partition}
}

func (h hotPartition) epoch() int32 {
	e, _ := h.p.Leadership()
	return e
}

func (h hotPartition) checkEpoch(current int32) error              { return h.p.CheckEpoch(current) }
func (h hotPartition) logStart() int64                             { return h.p.Log().Start() }
func (h hotPartition) localStart() int64                           { return h.p.Log().LocalStart() }
func (h hotPartition) epochEnd(epoch int32) (int32, int64)         { return h.p.EpochEnd(epoch) }
func (h hotPartition) subscribe(ch chan<- struct{}) func()         { return h.p.Subscribe(ch) }
func (h hotPartition) maxTimestamp() (offset, ts int64, err error) { return h.p.Log().MaxTimestamp() }
func (h hotPartition) aborted(start, end int64) []commitlog.AbortedTxn {
	return h.p.Aborted(start, end)
}

func (h hotPartition) offsetForTime(ts int64) (offset, at int64, ok bool, err error) {
	return h.p.OffsetForTime(ts)
}

func (h hotPartition) epochOf(offset int64) int32 {
	lineage := h.p.Lineage()
	i := sort.Search(len(lineage), func(i int) bool { return lineage[i].Start > offset })
	if i == 0 {
		return h.epoch() // nothing is recorded below: an empty log
	}
	return lineage[i-1].Epoch
}

func (h hotPartition) read(offset int64, maxBytes int, minOne, committed bool) (hotRead, error) {
	r, err := h.p.Read(offset, maxBytes, minOne, committed)
	out := hotRead{highWatermark: r.HighWatermark, lastStable: r.LastStable, logStart: r.LogStart, aborted: r.Aborted}
	if errors.Is(err, commitlog.ErrOffsetOutOfRange) && !errors.Is(err, replication.ErrOffsetOutOfRange) {
		err = errors.Join(replication.ErrOffsetOutOfRange, err) // trimmed under the read
	}
	if err == nil && r.Slice.Len() > 0 {
		out.records = newHotRecords(r.Slice)
	} else {
		r.Slice.Release()
	}
	return out, err
}

// hotRecords are Records of one segment's file.
type hotRecords struct {
	pieces
	slice commitlog.Slice
	one   [1]Region
	done  bool
}

func newHotRecords(s commitlog.Slice) *hotRecords {
	r := &hotRecords{slice: s}
	f, pos := s.File()
	r.one[0] = Region{File: f, Pos: pos, Len: int64(s.Len())}
	r.len, r.regions = s.Len(), r.one[:]
	return r
}

func (r *hotRecords) Release() {
	if !r.done {
		r.done = true
		r.slice.Release()
	}
}
