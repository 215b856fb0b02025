package group

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/record"
)

// ledger remembers what was asked and what was acknowledged of one offset.
type ledger struct {
	acked     int64   // -1: none
	attempted []int64 // since the last acknowledgement
}

// TestCrashKeepsAcknowledged kills the process, or cuts its power, at every step of
// the journal in turn, snapshots and trims included, and starts it again: what was
// acknowledged is there, or something that was asked for later. Nothing else is.
func TestCrashKeepsAcknowledged(t *testing.T) {
	for _, power := range []bool{false, true} {
		t.Run(fmt.Sprintf("power cut %v", power), func(t *testing.T) {
			for crashAt, done := 1, false; !done; crashAt++ {
				synctest.Test(t, func(t *testing.T) { done = crashOnce(t, power, crashAt) })
			}
		})
	}
}

// crashOnce commits and deletes until the log dies at step crashAt; it returns
// true when the log outlived the work.
func crashOnce(t *testing.T, power bool, crashAt int) (survived bool) {
	rng := newRand(uint64(crashAt))
	w := newWorld(t, 1)
	w.garbage = 12 << 10 // a snapshot every few commits
	l := w.log(0)
	c := w.coordinator()
	l.mu.Lock()
	l.crashAt = l.steps + crashAt
	l.mu.Unlock()
	offsets := map[topicPartition]*ledger{}
	var open []func()
	settle := func() {
		synctest.Wait()
		for _, f := range open {
			f()
		}
		open = nil
	}
	note := make([]byte, 4000)
	for step := range 60 {
		l.mu.Lock()
		dead := l.dead
		l.mu.Unlock()
		if dead {
			break // what is asked for now cannot be in the log
		}
		tp := topicPartition{"t", int32(rng.IntN(5))}
		e := offsets[tp]
		if e == nil {
			e = &ledger{acked: -1}
			offsets[tp] = e
		}
		switch v := int64(step); {
		case step%20 == 19:
			// A group that goes away entirely, with a record of its own.
			settle()
			a := c.Delete("g")
			for _, e := range offsets {
				e.attempted = append(e.attempted, -1)
			}
			open = append(open, func() {
				if err, ok := a.Now(); ok && err == nil {
					for _, e := range offsets {
						e.acked, e.attempted = -1, nil
					}
				}
			})
			settle()
		default:
			r := commitOf("g", tp.topic, tp.partition, v)
			r.Offsets[0].Metadata = string(note)
			a := c.Commit(r)
			e.attempted = append(e.attempted, v)
			open = append(open, func() {
				if got, ok := a.Now(); ok && got.Err == nil {
					e.acked = v
					e.attempted = slices.DeleteFunc(e.attempted, func(o int64) bool { return o <= v })
				}
			})
			if rng.IntN(3) == 0 {
				settle()
			}
		}
	}
	settle()
	c.Close()
	survived = !l.dead
	trims := l.trims
	w.setLog(0, l.survivor(power, rng))
	c = w.coordinator()
	defer c.Close()
	for tp, e := range offsets {
		got := await(t, c.Fetch("g", []string{tp.topic}, []int32{tp.partition}, false)).Offsets[0].Offset
		if got != e.acked && !slices.Contains(e.attempted, got) {
			t.Fatalf("crash at step %d: partition %d is at %d, acknowledged was %d and asked %v", crashAt, tp.partition, got, e.acked, e.attempted)
		}
	}
	if survived && trims < 5 {
		t.Fatalf("the work took only %d snapshots", trims)
	}
	return survived
}

// TestReloadEqualsState drives groups of all kinds at random, with snapshots all
// the time, and compares at every rest what memory holds with what a new process
// would read.
func TestReloadEqualsState(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			rng := newRand(seed)
			w := newWorld(t, 1)
			w.garbage = 4 << 10
			c := w.coordinator()
			defer c.Close()
			id := map[string]string{}
			for step := range 150 {
				g := fmt.Sprint("g", rng.IntN(4))
				switch rng.IntN(8) {
				case 0, 1, 2:
					c.Commit(commitOf(g, "t", int32(rng.IntN(9)), int64(step)))
				case 3:
					r := joinOf("")
					r.Group = g
					a := c.Join(r)
					if got, err := a.Wait(within(t, 10*time.Second)); err == nil && got.Err == nil {
						id[g] = got.MemberID
						c.Sync(SyncRequest{Group: g, MemberID: got.MemberID, Generation: got.Generation, Assignments: map[string][]byte{got.MemberID: {byte(step)}}})
					}
				case 4:
					c.Leave(g, []Leaver{{MemberID: id[g]}})
				case 5:
					c.Delete(g)
				case 6:
					c.DeleteOffsets(g, []string{"t", "u"}, []int32{int32(rng.IntN(9)), 1})
				case 7:
					time.Sleep(time.Duration(rng.IntN(20)) * time.Second)
				}
				synctest.Wait()
				f, err := load(t.Context(), w.log(0), c.shards()[0])
				if err != nil {
					t.Fatal(err)
				}
				read := &shard{groups: f.groups, unknown: f.unknown}
				if got, want := recordsOf(read.eachRecord), c.state(); !maps.Equal(got, want) {
					t.Fatalf("seed %d, step %d: the log makes\n%q\nmemory is\n%q", seed, step, got, want)
				}
			}
			if w.log(0).trims == 0 {
				t.Fatalf("seed %d: there was no snapshot", seed)
			}
		})
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// TestLogStaysBounded commits far more than it keeps: the log stays below twice
// the live state and the garbage that is allowed.
func TestLogStaysBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.garbage = 16 << 10
		c := w.coordinator()
		defer c.Close()
		most := 0
		for i := range 5000 {
			await(t, c.Commit(commitOf(fmt.Sprint("g", i%10), "t", int32(i%20), int64(i))))
			most = max(most, w.log(0).size())
		}
		live := 0
		for k, v := range c.state() {
			live += len(k) + len(v) + perRecord
		}
		if most > 2*live+2*16<<10 {
			t.Fatalf("the log grew to %d bytes for %d live ones", most, live)
		}
	})
}

// TestFailedSnapshotIsHarmless refuses appends and trims in turn: commits go on
// when they can, and nothing is lost.
func TestFailedSnapshotIsHarmless(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.garbage = 2 << 10
		l := w.log(0)
		c := w.coordinator()
		defer c.Close()
		for i := range 300 {
			l.mu.Lock()
			l.failAppend = nil
			if i%7 == 3 {
				l.failAppend = errors.New("disk full")
			}
			l.mu.Unlock()
			r := await(t, c.Commit(commitOf("g", "t", 0, int64(i))))
			if (r.Err != nil) != (i%7 == 3) {
				t.Fatalf("commit %d: %v", i, r.Err)
			}
		}
		w.setLog(0, l.survivor(false, nil))
		c.Close()
		c = w.coordinator()
		if got := await(t, c.Fetch("g", []string{"t"}, []int32{0}, false)).Offsets[0].Offset; got != 299 {
			t.Fatalf("offset %d", got)
		}
		c.Close()
	})
}

// TestAFailedSnapshotTrimsNothing lets commits into the journal and no snapshot: what
// was to be repeated is only where it was.
func TestAFailedSnapshotTrimsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.garbage = 2 << 10
		l := w.log(0)
		l.failRolled = errors.New("disk full")
		c := w.coordinator()
		tried := 0
		for i := range int64(100) {
			if r := await(t, c.Commit(commitOf("g", "t", int32(i%5), i))); r.Err != nil {
				t.Fatalf("commit %d: %v", i, r.Err)
			}
			synctest.Wait() // a snapshot comes after the answer
			l.mu.Lock()
			if l.failAppend != nil {
				tried++
			}
			l.failAppend = nil
			l.mu.Unlock()
		}
		c.Close()
		if tried == 0 || l.trims != 0 {
			t.Fatalf("%d snapshots were tried and the log was trimmed %d times", tried, l.trims)
		}
		w.setLog(0, l.survivor(false, nil))
		c = w.coordinator()
		defer c.Close()
		for p := range int64(5) {
			if got := await(t, c.Fetch("g", []string{"t"}, []int32{int32(p)}, false)).Offsets[0].Offset; got != 95+p {
				t.Errorf("partition %d is at %d", p, got)
			}
		}
	})
}

// TestForeignRecordsStay puts records into the journal that this build does not
// write: those of a later version survive a snapshot, what is broken is left out,
// and older versions of Kafka's formats are read.
func TestForeignRecordsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.garbage = 1 << 10
		l := w.log(0)
		b := record.NewBuilder(record.NewBatchOptions())
		add := func(k, v []byte) { b.Append(record.Record{Key: k, Value: v}) }
		later := append([]byte{0, 7}, "later"...)
		add(later, []byte("kept as it is"))
		add([]byte{0}, []byte("too short"))
		add(nil, nil)
		add(offsetKey("bad", topicPartition{"t", 0}), []byte{0, 9, 1})
		for v := range int16(5) {
			key := kmsg.OffsetCommitKey{Version: min(v, 1), Group: "old", Topic: "t", Partition: int32(v)}
			value := kmsg.OffsetCommitValue{Version: v, Offset: int64(v) + 10, LeaderEpoch: 3, Metadata: "m", CommitTimestamp: 5, ExpireTimestamp: -1}
			add(key.AppendTo(nil), value.AppendTo(nil))
		}
		for v := range int16(5) {
			value := kmsg.GroupMetadataValue{Version: v, ProtocolType: "consumer", Generation: 4, Protocol: ptr("range"), Leader: ptr("m"), CurrentStateTimestamp: 1,
				Members: []kmsg.GroupMetadataValueMember{{MemberID: "m", ClientID: "c", ClientHost: "/h", SessionTimeoutMillis: 10_000, RebalanceTimeoutMillis: 20_000, Subscription: subscription("t"), Assignment: []byte("a")}}}
			add(groupKey(fmt.Sprint("v", v)), value.AppendTo(nil))
		}
		if _, err := l.Append(1, b.Build()); err != nil {
			t.Fatal(err)
		}
		l.hw, l.synced = l.end, l.end
		c := w.coordinator()
		for i := range 100 {
			await(t, c.Commit(commitOf("g", "t", 0, int64(i))))
		}
		c.Close()
		if l.trims == 0 {
			t.Fatal("there was no snapshot")
		}
		w.setLog(0, l.survivor(false, nil))
		c = w.coordinator()
		defer c.Close()
		if got := c.state()[string(later)]; got != "kept as it is" {
			t.Fatalf("the record of a later version is %q", got)
		}
		for v, o := range await(t, c.Fetch("old", nil, nil, true)).Offsets {
			want := int32(-1)
			if v >= 3 {
				want = 3
			}
			if o.Offset != int64(v)+10 || o.Metadata != "m" || o.Epoch != want {
				t.Errorf("offset v%d: %+v", v, o)
			}
		}
		for v := range 5 {
			d, err := c.Describe(fmt.Sprint("v", v))
			if err != nil || d.State != Stable || len(d.Members) != 1 || string(d.Members[0].Assignment) != "a" || d.Protocol != "range" {
				t.Errorf("group v%d: %+v %v", v, d, err)
			}
		}
	})
}

// FuzzDecode feeds the decoders of journal records. What decodes must encode to
// something that decodes to the same.
func FuzzDecode(f *testing.F) {
	f.Add(offsetKey("g", topicPartition{"t", 1}), []byte{0, 3})
	r := offsetRecord("g", topicPartition{"t", 1}, committed{offset: 5, epoch: 1, metadata: "m", at: 7, expires: -1, topicID: [16]byte{1}})
	f.Add(r.key, r.value)
	r = offsetRecord("g", topicPartition{"t", 1}, committed{offset: 5, epoch: -1, at: 7, expires: 9})
	f.Add(r.key, r.value)
	g := newGroup("g", stillHost{})
	g.protocol, g.generation = "range", 3
	g.add(&member{id: "m", instanceID: ptr("i"), protocols: []Protocol{{"range", subscription("t")}}, assignment: []byte("a")}, "consumer")
	f.Add(groupKey("g"), g.encode(nil))
	f.Add([]byte{0, 9}, []byte{})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		fd := &fold{h: stillHost{}, groups: map[string]*group{}, unknown: map[string][]byte{}}
		fd.record(key, value)
		fd.record(key, nil)
		fd.record(key, value)
		for _, g := range fd.groups {
			for tp, c := range g.offsets {
				r := offsetRecord(g.id, tp, c)
				d, err := decode(r.key, r.value)
				if err != nil || d.tp != tp || d.offset.offset != c.offset || d.offset.metadata != c.metadata || d.offset.at != c.at {
					t.Fatalf("%+v became %+v: %v", c, d, err)
				}
			}
			if g.journaled == nil {
				continue
			}
			again := newGroup(g.id, stillHost{})
			d, err := decode(groupKey(g.id), g.encode(nil))
			if err != nil {
				t.Fatal(err)
			}
			again.restore(&d.meta)
			if !bytes.Equal(again.encode(nil), g.encode(nil)) {
				t.Fatalf("%x became %x", g.encode(nil), again.encode(nil))
			}
		}
	})
}

// stillHost is a host at one moment.
type stillHost struct{}

func (stillHost) now() time.Time                      { return time.UnixMilli(1) }
func (stillHost) limits() *Limits                     { return &Limits{} }
func (stillHost) newMemberID(p string) string         { return p }
func (stillHost) persist(*group, []byte, func(error)) {}
func (stillHost) rebalancing(*group, string)          {}
