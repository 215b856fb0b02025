package commitlog

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/record"
)

// stamped is a batch of a producer whose records carry the time at.
func stamped(id int64, seq int32, at time.Time) record.Batch {
	o := record.NewBatchOptions()
	o.ProducerID, o.ProducerEpoch, o.BaseSequence = id, 0, seq
	b := record.NewBuilder(o)
	b.Append(record.Record{TimestampDelta: at.UnixMilli(), Value: []byte("v")})
	return b.Build()
}

// TestProducersExpireWhenTheyAreIdle: what counts is how long a producer has not
// written here, not what time its records carry. One that copies records of 2013
// must not be forgotten between a lost answer and the retry, over a roll, a restart
// of each kind, a lost snapshot or a start from the bucket; one that stamps the
// future does not stay for ever.
func TestProducersExpireWhenTheyAreIdle(t *testing.T) {
	const old, steady, future = 7, 8, 9
	then := time.Date(2013, 5, 1, 0, 0, 0, 0, time.UTC)
	var now atomic.Int64
	now.Store(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli())
	tune := func(c *Config) {
		c.Now = func() time.Time { return time.UnixMilli(now.Load()) }
		c.ProducerExpiry = time.Hour
	}
	dir := t.TempDir()
	l, _ := open(t, disk.OS(), dir, tune)
	mustAppend(t, l, 1, stamped(old, 0, then))
	mustAppend(t, l, 1, stamped(future, 0, then.AddDate(100, 0, 0)))
	retried := func(when string) {
		t.Helper()
		if err := l.Roll(); err != nil {
			t.Fatal(err)
		}
		if a, err := l.Append(1, stamped(old, 0, then)); err != nil || !a.Duplicate || a.Base != 0 {
			t.Fatalf("%s: a retry of offset 0 gave %+v, %v", when, a, err)
		}
		mustAppend(t, l, 1, batch(0, 1)) // so that the next roll has something
	}
	retried("after a roll")
	l.Close(false)
	l, _ = open(t, disk.OS(), dir, tune)
	retried("after a kill")
	if err := l.Close(true); err != nil {
		t.Fatal(err)
	}
	l, _ = open(t, disk.OS(), dir, tune, clean)
	retried("after a clean close")
	states, err := l.ProducersAt(l.End() - 1)
	if err != nil || len(states) != 2 {
		t.Fatalf("%+v %v", states, err)
	}
	for i := range states {
		states[i].LastTimestamp = then.UnixMilli() // as an older build's footer has it
	}
	if err := l.Reset(0, l.End(), l.Epochs(), states); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, 1, batch(0, 1))
	retried("after a start from the bucket")

	for i := range int32(4) {
		now.Add(20 * time.Minute.Milliseconds())
		mustAppend(t, l, 1, stamped(steady, i, then))
		if err := l.Roll(); err != nil {
			t.Fatal(err)
		}
		want := []int64{old, steady, future}
		if i >= 2 { // 60 minutes
			want = []int64{steady}
		}
		var got []int64
		states, err := l.ProducersAt(l.End())
		for _, s := range states {
			got = append(got, s.ID)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%d minutes later the log knows %v, want %v: %v", 20*(i+1), got, want, err)
		}
	}
}

// TestOlderSnapshotsDoNotExpire: the snapshots of minor version 1 have the time of
// the last record where those of minor 2 have the time of the last append. Idle time
// counts from when they are read.
func TestOlderSnapshotsDoNotExpire(t *testing.T) {
	raw := encodeSnapshot(9, []ProducerState{{ID: 1, TxnFirst: -1, LastTimestamp: 55}}, nil)
	if _, list, _, err := decodeSnapshot(raw); err != nil || list[0].LastTimestamp != 55 {
		t.Fatalf("%+v %v", list, err)
	}
	raw[7] = 1
	binary.BigEndian.PutUint32(raw[len(raw)-4:], crc32.Checksum(raw[:len(raw)-4], castagnoli))
	_, list, _, err := decodeSnapshot(raw)
	if err != nil || list[0].LastTimestamp != -1 {
		t.Fatalf("%+v %v", list, err)
	}
	p := restoreProducers(list, 1_000_000)
	if p.expire(999_999); p.byID[1] == nil {
		t.Fatal("forgotten at once")
	}
	if p.expire(1_000_000); p.byID[1] != nil {
		t.Fatal("never forgotten")
	}
}
