package broker

// The answer to a fetch, encoded by hand: the bytes between the records are made
// here, the records stay where they lie until the socket takes them.

import (
	"encoding/binary"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/fetch"
)

// inlineRecords is the largest run of records that is copied among the bytes of
// the answer; below it a copy costs less than a sendfile of its own.
const inlineRecords = 16 << 10

// fetchAnswer is a FetchResponse whose RecordBatches are fetch.Records. It owns
// them until release.
type fetchAnswer struct {
	*kmsg.FetchResponse
	// records are those of each partition, in parallel to Topics and Partitions.
	records [][]fetch.Records
}

// cut is a place in an answer's bytes where records belong.
type cut struct {
	at      int
	records fetch.Records
}

// bytes is how many bytes of records there are.
func (a *fetchAnswer) bytes() (n int) {
	for _, t := range a.records {
		for _, r := range t {
			n += r.Len()
		}
	}
	return n
}

func (a *fetchAnswer) release() {
	for _, t := range a.records {
		for _, r := range t {
			r.Release()
		}
	}
	a.records = nil
}

// encode appends the response to buf, all but the records that are left to
// sendfile, and says where those go and how many bytes they are. failed is called
// for each partition whose records cannot be read; its answer is then
// KAFKA_STORAGE_ERROR.
func (a *fetchAnswer) encode(buf []byte, failed func(error)) (_ []byte, cuts []cut, left int) {
	v := a.Version
	flexible := v >= 12
	be := binary.BigEndian
	length := func(n int) {
		if flexible {
			buf = binary.AppendUvarint(buf, uint64(n+1)) // -1, for null, is 0
		} else {
			buf = be.AppendUint32(buf, uint32(n))
		}
	}
	noTags := func() {
		if flexible {
			buf = append(buf, 0)
		}
	}
	buf = be.AppendUint32(buf, uint32(a.ThrottleMillis))
	if v >= 7 {
		buf = be.AppendUint16(buf, uint16(a.ErrorCode))
		buf = be.AppendUint32(buf, uint32(a.SessionID))
	}
	length(len(a.Topics))
	for i := range a.Topics {
		t := &a.Topics[i]
		switch {
		case v >= 13:
			buf = append(buf, t.TopicID[:]...)
		case flexible:
			length(len(t.Topic))
			buf = append(buf, t.Topic...)
		default:
			buf = be.AppendUint16(buf, uint16(len(t.Topic)))
			buf = append(buf, t.Topic...)
		}
		length(len(t.Partitions))
		for j := range t.Partitions {
			p := &t.Partitions[j]
			records := a.records[i][j]
			begun, n := len(buf), records.Len()
		again:
			buf = be.AppendUint32(buf, uint32(p.Partition))
			buf = be.AppendUint16(buf, uint16(p.ErrorCode))
			buf = be.AppendUint64(buf, uint64(p.HighWatermark))
			buf = be.AppendUint64(buf, uint64(p.LastStableOffset))
			if v >= 5 {
				buf = be.AppendUint64(buf, uint64(p.LogStartOffset))
			}
			if p.AbortedTransactions == nil {
				length(-1)
			} else {
				length(len(p.AbortedTransactions))
			}
			for _, t := range p.AbortedTransactions {
				buf = be.AppendUint64(buf, uint64(t.ProducerID))
				buf = be.AppendUint64(buf, uint64(t.FirstOffset))
				noTags()
			}
			if v >= 11 {
				buf = be.AppendUint32(buf, uint32(p.PreferredReadReplica))
			}
			length(n)
			switch {
			case n == 0:
			case n <= inlineRecords:
				w := sink{buf}
				if _, err := records.WriteTo(&w); err != nil {
					failed(err)
					p.ErrorCode, p.HighWatermark, p.LastStableOffset, p.LogStartOffset = codeStorage, -1, -1, -1
					p.AbortedTransactions = nil
					buf, n = buf[:begun], 0
					goto again
				}
				buf = w.p
			default:
				cuts = append(cuts, cut{len(buf), records})
				left += n
			}
			if flexible {
				buf = appendDiverging(buf, p.DivergingEpoch)
			}
		}
		noTags()
	}
	noTags()
	return buf, cuts, left
}

// appendDiverging appends a partition's tags: DivergingEpoch (KIP-595) or none.
func appendDiverging(buf []byte, d kmsg.FetchResponseTopicPartitionDivergingEpoch) []byte {
	if d.Epoch == -1 && d.EndOffset == -1 {
		return append(buf, 0)
	}
	buf = append(buf, 1, 0, 13) // one tag: number 0, of 13 bytes
	buf = binary.BigEndian.AppendUint32(buf, uint32(d.Epoch))
	buf = binary.BigEndian.AppendUint64(buf, uint64(d.EndOffset))
	return append(buf, 0)
}

// sink collects records behind what it has.
type sink struct{ p []byte }

func (w *sink) Write(p []byte) (int, error) {
	w.p = append(w.p, p...)
	return len(p), nil
}
