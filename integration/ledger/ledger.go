// Package ledger checks a log from outside: it writes down what a producer was
// told about every record, and later compares that, offset by offset, with what
// a consumer of a fresh client reads back.
//
// The expectation is built from acknowledgements only. A record whose outcome
// the producer never learnt (its connection died) may be there or not, at most
// once for an idempotent producer; an acknowledged one must be there, at its
// offset, with its bytes.
package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sort"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Sum is a CRC-32C over everything a record carries: key, value, headers and
// timestamp in milliseconds. A null key or value differs from an empty one.
func Sum(r *kgo.Record) uint32 {
	var b [8]byte
	h := uint32(0)
	part := func(p []byte) {
		n := int64(len(p))
		if p == nil {
			n = -1
		}
		binary.BigEndian.PutUint64(b[:], uint64(n))
		h = crc32.Update(h, castagnoli, b[:])
		h = crc32.Update(h, castagnoli, p)
	}
	part(r.Key)
	part(r.Value)
	for _, hd := range r.Headers {
		part([]byte(hd.Key))
		part(hd.Value)
	}
	binary.BigEndian.PutUint64(b[:], uint64(r.Timestamp.UnixMilli()))
	return crc32.Update(h, castagnoli, b[:])
}

type partition struct {
	topic string
	n     int32
}

// Ledger holds what was acknowledged. Safe for concurrent use.
type Ledger struct {
	mu    sync.Mutex
	acked map[partition]map[int64]uint32
	// unknown counts, per sum, the records whose outcome was never learnt.
	unknown map[partition]map[uint32]int
	count   int64
	bytes   int64
	wrong   []string
}

// New returns an empty ledger.
func New() *Ledger {
	return &Ledger{acked: map[partition]map[int64]uint32{}, unknown: map[partition]map[uint32]int{}}
}

// Ack writes down what the producer said of r.
func (l *Ledger) Ack(r *kgo.Record, err error) {
	sum := Sum(r)
	l.mu.Lock()
	defer l.mu.Unlock()
	p := partition{r.Topic, r.Partition}
	if err != nil {
		if l.unknown[p] == nil {
			l.unknown[p] = map[uint32]int{}
		}
		l.unknown[p][sum]++
		return
	}
	if l.acked[p] == nil {
		l.acked[p] = map[int64]uint32{}
	}
	if old, dup := l.acked[p][r.Offset]; dup {
		l.wrong = append(l.wrong, fmt.Sprintf("%s-%d offset %d was acknowledged for two records (%08x, %08x)", r.Topic, r.Partition, r.Offset, old, sum))
	}
	l.acked[p][r.Offset] = sum
	l.count++
	l.bytes += int64(len(r.Key) + len(r.Value))
}

// Count is how many records were acknowledged, Bytes their keys and values.
func (l *Ledger) Count() int64 { l.mu.Lock(); defer l.mu.Unlock(); return l.count }

// Bytes is the sum of the lengths of acknowledged keys and values.
func (l *Ledger) Bytes() int64 { l.mu.Lock(); defer l.mu.Unlock(); return l.bytes }

// Ends is the offset after the last acknowledged one, per partition of topic.
func (l *Ledger) Ends(topic string) map[int32]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	ends := map[int32]int64{}
	for p, m := range l.acked {
		if p.topic != topic {
			continue
		}
		for o := range m {
			ends[p.n] = max(ends[p.n], o+1)
		}
	}
	return ends
}

// Verify reads topic from its first offset with a client of its own and returns
// every difference (at most 20): an acknowledged record that is missing or has
// other bytes, a gap, an offset out of order, a record that nobody sent.
func (l *Ledger) Verify(ctx context.Context, topic string, opts ...kgo.Opt) error {
	ends := l.Ends(topic)
	if len(ends) == 0 {
		return errors.New("nothing was acknowledged: the check would check nothing")
	}
	assign := map[int32]kgo.Offset{}
	for n := range ends {
		assign[n] = kgo.NewOffset().At(0)
	}
	opts = append([]kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: assign}),
		kgo.FetchMaxBytes(32 << 20), kgo.FetchMaxPartitionBytes(8 << 20), kgo.FetchMaxWait(250 * time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
	}, opts...)
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	defer cl.Close()
	next := map[int32]int64{}
	unsent := map[partition]map[uint32]int{}
	l.mu.Lock()
	for p, m := range l.unknown {
		c := map[uint32]int{}
		for k, v := range m {
			c[k] = v
		}
		unsent[p] = c
	}
	l.mu.Unlock()
	var faults []string
	fault := func(format string, a ...any) {
		if len(faults) < 20 {
			faults = append(faults, fmt.Sprintf(format, a...))
		}
	}
	open := len(ends)
	for open > 0 {
		fs := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			fault("reading stopped at %v of %v: %v", next, ends, err)
			break
		}
		fatal := false
		for _, e := range fs.Errors() {
			fault("%s-%d: %v", e.Topic, e.Partition, e.Err)
			fatal = true
		}
		if fatal {
			break
		}
		for it := fs.RecordIter(); !it.Done(); {
			r := it.Next()
			if r.Offset >= ends[r.Partition] {
				continue
			}
			if r.Offset != next[r.Partition] {
				fault("%s-%d: read offset %d where %d was due", topic, r.Partition, r.Offset, next[r.Partition])
			}
			next[r.Partition] = r.Offset + 1
			p, sum := partition{topic, r.Partition}, Sum(r)
			l.mu.Lock()
			want, ok := l.acked[p][r.Offset]
			l.mu.Unlock()
			switch {
			case ok && want != sum:
				fault("%s-%d offset %d: content %08x, acknowledged %08x", topic, r.Partition, r.Offset, sum, want)
			case !ok && unsent[p][sum] == 0:
				fault("%s-%d offset %d: a record that was never sent, or sent once and stored twice (%08x)", topic, r.Partition, r.Offset, sum)
			case !ok:
				unsent[p][sum]--
			}
			if next[r.Partition] == ends[r.Partition] {
				open--
			}
		}
	}
	l.mu.Lock()
	faults = append(faults, l.wrong...)
	l.mu.Unlock()
	if len(faults) > 0 {
		sort.Strings(faults)
		return fmt.Errorf("%d differences:\n  %s", len(faults), join(faults))
	}
	return nil
}

func join(lines []string) string {
	s := ""
	for i, l := range lines {
		if i > 0 {
			s += "\n  "
		}
		s += l
	}
	return s
}
