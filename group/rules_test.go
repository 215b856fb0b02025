package group

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firnlog/firn/metadata/memory"
	"github.com/firnlog/firn/record"
	"github.com/firnlog/firn/replication"
)

// TestAnOldGenerationIsFenced: a member that slept through a rebalance commits
// nothing, gets no assignment and keeps no session, though its id is still good.
func TestAnOldGenerationIsFenced(t *testing.T) {
	b := newBench(t)
	ids := b.stable(2)
	b.join(joinOf(ids[0]))
	b.join(joinOf(ids[1]))
	b.state(CompletingRebalance)
	b.sync(ids[0], map[string][]byte{ids[0]: []byte("new"), ids[1]: []byte("new")})
	b.state(Stable)
	if b.g.generation != 2 {
		t.Fatalf("generation %d", b.g.generation)
	}
	until := b.g.byID[ids[1]].expires
	b.at = b.at.Add(time.Second)
	if err := b.g.mayCommit(&CommitRequest{MemberID: ids[1], Generation: 1}); !errors.Is(err, ErrIllegalGeneration) {
		t.Errorf("commit: %v", err)
	}
	s := &call[SyncResult]{t: t}
	b.g.syncs(SyncRequest{MemberID: ids[1], Generation: 1}, s.done)
	if r := s.answer(); !errors.Is(r.Err, ErrIllegalGeneration) || r.Assignment != nil {
		t.Errorf("sync: %+v", r)
	}
	if err := b.g.heartbeats(ids[1], nil, 1); !errors.Is(err, ErrIllegalGeneration) {
		t.Errorf("heartbeat: %v", err)
	}
	if got := b.g.byID[ids[1]].expires; got != until {
		t.Errorf("its session was prolonged to %v", got)
	}
	if err := b.g.mayCommit(&CommitRequest{MemberID: ids[1], Generation: 2}); err != nil {
		t.Errorf("commit of this generation: %v", err)
	}
}

// TestALateJournalIsOfItsGeneration: an assignment that reaches the journal when the
// next generation already waits for its own is not given to it.
func TestALateJournalIsOfItsGeneration(t *testing.T) {
	b := newBench(t)
	x, y := b.join(joinOf("")), b.join(joinOf(""))
	b.pass(2 * b.lim.InitialDelay)
	leader, other := x.answer().MemberID, y.answer().MemberID
	b.hold = true
	b.sync(leader, map[string][]byte{leader: []byte("both")})
	b.g.leaves([]Leaver{{MemberID: other}})
	if r := b.join(joinOf(leader)).answer(); r.Err != nil || r.Generation != 2 {
		t.Fatalf("%+v", r)
	}
	b.state(CompletingRebalance)
	again := b.sync(leader, map[string][]byte{leader: []byte("alone")})
	first := b.journal[0]
	b.journal = b.journal[1:]
	first(nil)
	again.parked()
	b.commit(nil)
	if r := again.answer(); r.Err != nil || string(r.Assignment) != "alone" {
		t.Fatalf("%+v", r)
	}
}

// filling is a log whose disk is full after so many more appends; negative: never.
type filling struct {
	*fakeLog
	room atomic.Int64
}

func (l *filling) Append(epoch int32, b record.Batch) (replication.Appended, error) {
	if l.room.Add(-1) == -1 {
		return replication.Appended{}, errors.New("disk full")
	}
	return l.fakeLog.Append(epoch, b)
}

// TestHalfOfADeletionIsReadFromTheLog deletes a group of more offsets than a batch
// holds, and the disk is full behind the first one: then only the log knows what is
// left.
func TestHalfOfADeletionIsReadFromTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		l := &filling{fakeLog: w.log(0)}
		l.maxBatch = minBatch
		l.room.Store(-1)
		logger := slog.New(slog.NewTextHandler(t.Output(), nil))
		c, err := New(Config{Cluster: w.meta, NodeID: 1, Now: time.Now, Logger: logger, Limits: w.lim, Partition: func(int32) (Log, error) { return l, nil }})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		w.ready(c)
		const offsets = 10_000
		for from := int32(0); from < offsets; from += 500 {
			r := commitOf("g", "t", from, 7)
			for n := from + 1; n < from+500; n++ {
				r.Offsets = append(r.Offsets, Commit{Topic: "t", Partition: n, Offset: 7, Epoch: -1})
			}
			if got := await(t, c.Commit(r)); got.Err != nil {
				t.Fatal(got.Err)
			}
		}
		l.room.Store(1)
		if err := await(t, c.Delete("g")); !errors.Is(err, ErrNotCoordinator) {
			t.Fatalf("half a deletion: %v", err)
		}
		l.mu.Lock()
		l.hw, l.synced = l.end, l.end
		l.mu.Unlock()
		l.lead(1, true)
		w.ready(c)
		f, err := load(t.Context(), l, c.shards()[0])
		if err != nil {
			t.Fatal(err)
		}
		read := recordsOf((&shard{groups: f.groups, unknown: f.unknown}).eachRecord)
		if got := c.state(); !maps.Equal(got, read) || len(read) == 0 || len(read) >= offsets {
			t.Fatalf("memory has %d records, the log %d", len(got), len(read))
		}
	})
}

// TestAnAppendBelongsToItsEpoch: the journal of a leadership that is over gets
// nothing into the partition, though this broker leads it again.
func TestAnAppendBelongsToItsEpoch(t *testing.T) {
	store, path := memory.NewServer(1, time.Now), t.TempDir()
	start(t, store, path, "fsync").stop()
	n := start(t, store, path, "fsync")
	defer n.stop()
	part, err := n.manager.ByName(Topic, 0)
	if err != nil {
		t.Fatal(err)
	}
	log := PartitionLog{part}
	epoch, leading := log.Epoch()
	if !leading || epoch < 1 {
		t.Fatalf("leading %v in epoch %d, want a second leadership", leading, epoch)
	}
	_, _, before := log.Bounds()
	for offset, want := range map[int32]error{-1: replication.ErrFencedEpoch, 1: replication.ErrUnknownEpoch} {
		b := record.NewBuilder(record.NewBatchOptions())
		b.Append(record.Record{Key: []byte(fmt.Sprint(offset))})
		if _, err := log.Append(epoch+offset, b.Build()); !errors.Is(err, want) {
			t.Errorf("append in epoch %d of %d: %v", epoch+offset, epoch, err)
		}
	}
	if _, _, end := log.Bounds(); end != before {
		t.Fatalf("the log grew from %d to %d", before, end)
	}
}

// TestASnapshotHasMembersAndOffsets lets a stable group's own records be trimmed
// away: what a new process finds has its members with their assignments, and its
// offsets.
func TestASnapshotHasMembersAndOffsets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.garbage = 1 << 10
		c := w.coordinator()
		ids := form(t, c, "g", 2)
		if r := await(t, c.Commit(CommitRequest{Group: "g", MemberID: ids[0], Generation: 1, Retention: -1, Offsets: []Commit{{Topic: "t", Offset: 9, Epoch: -1}}})); r.Err != nil {
			t.Fatal(r.Err)
		}
		before, err := c.Describe("g")
		if err != nil || before.State != Stable {
			t.Fatalf("%+v, %v", before, err)
		}
		for i := range 100 {
			await(t, c.Commit(commitOf("other", "t", 0, int64(i))))
		}
		c.Close()
		l := w.log(0)
		if start, _, _ := l.Bounds(); start < 50 {
			t.Fatalf("the journal begins at %d", start)
		}
		w.setLog(0, l.survivor(false, nil))
		c = w.coordinator()
		defer c.Close()
		after, err := c.Describe("g")
		if err != nil || after.State != Stable || len(after.Members) != 2 {
			t.Fatalf("%+v, %v", after, err)
		}
		for i, m := range after.Members {
			if m.ID != before.Members[i].ID || len(m.Assignment) == 0 || string(m.Assignment) != string(before.Members[i].Assignment) {
				t.Errorf("member %d is %+v, was %+v", i, m, before.Members[i])
			}
		}
		if r := await(t, c.Fetch("g", []string{"t"}, []int32{0}, false)); r.Offsets[0].Offset != 9 {
			t.Errorf("%+v", r)
		}
	})
}
