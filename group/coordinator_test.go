package group

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/firnlog/firn/replication"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestCommitsShareOneAppend holds the journal back while a thousand commits come:
// the first goes out alone, the others together.
func TestCommitsShareOneAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		c := w.coordinator()
		defer c.Close()
		release := w.log(0).hold()
		var answers []Answer[CommitResult]
		for i := range 1000 {
			answers = append(answers, c.Commit(commitOf(fmt.Sprint("g", i), "t", 0, int64(i))))
			synctest.Wait()
		}
		if _, ok := answers[0].Now(); ok {
			t.Fatal("answered before it was committed")
		}
		release()
		for _, a := range answers {
			if r := await(t, a); r.Err != nil || r.Errs[0] != nil {
				t.Fatalf("%+v", r)
			}
		}
		if n := w.log(0).appends; n > 3 {
			t.Fatalf("1000 commits took %d appends", n)
		}
	})
}

// TestFetchSeesTheCommitsBeforeIt pipelines an OffsetFetch behind an OffsetCommit
// that is still being journaled, as one connection may.
func TestFetchSeesTheCommitsBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		c := w.coordinator()
		defer c.Close()
		release := w.log(0).hold()
		first := c.Commit(commitOf("g", "t", 3, 5))
		synctest.Wait()
		second := c.Commit(commitOf("g", "t", 3, 6))
		f := c.Fetch("g", []string{"t", "t"}, []int32{3, 4}, false)
		synctest.Wait()
		if _, ok := f.Now(); ok {
			t.Fatal("the fetch did not wait for the commit")
		}
		release()
		await(t, first)
		await(t, second)
		r := await(t, f)
		if r.Err != nil || r.Offsets[0].Offset != 6 || r.Offsets[1].Offset != -1 {
			t.Fatalf("%+v", r)
		}
		if all := await(t, c.Fetch("g", nil, nil, true)); len(all.Offsets) != 1 || all.Offsets[0].Partition != 3 {
			t.Fatalf("%+v", all)
		}
		if none := await(t, c.Fetch("nobody", []string{"t"}, []int32{0}, false)); none.Offsets[0].Offset != -1 {
			t.Fatalf("%+v", none)
		}
	})
}

// TestFailedAppendChangesNothing refuses one append: its commits fail, what was
// committed before stays, and the next commit goes through.
func TestFailedAppendChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		c := w.coordinator()
		defer c.Close()
		await(t, c.Commit(commitOf("g", "t", 0, 1)))
		l := w.log(0)
		l.mu.Lock()
		l.failAppend = errors.New("disk full")
		l.mu.Unlock()
		if r := await(t, c.Commit(commitOf("g", "t", 0, 2))); !errors.Is(r.Err, ErrNotAvailable) {
			t.Fatalf("%+v", r)
		}
		if r := await(t, c.Commit(commitOf("new", "t", 0, 2))); !errors.Is(r.Err, ErrNotAvailable) {
			t.Fatalf("%+v", r)
		}
		if err := await(t, c.Delete("g")); !errors.Is(err, ErrNotAvailable) {
			t.Fatalf("delete: %v", err)
		}
		l.mu.Lock()
		l.failAppend = nil
		l.mu.Unlock()
		if r := await(t, c.Fetch("g", []string{"t"}, []int32{0}, false)); r.Offsets[0].Offset != 1 {
			t.Fatalf("%+v", r)
		}
		if all, err := c.List(); err != nil || len(all) != 1 {
			t.Fatalf("%v %v", all, err)
		}
		if r := await(t, c.Commit(commitOf("g", "t", 0, 3))); r.Err != nil {
			t.Fatalf("%+v", r)
		}
	})
}

// TestUnknownOutcomeIsReadFromTheLog loses the answer to an append that is in the
// log: the client is told to find its coordinator again, and then finds what the
// log has.
func TestUnknownOutcomeIsReadFromTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		c := w.coordinator()
		defer c.Close()
		l := w.log(0)
		l.mu.Lock()
		l.failWait = replication.ErrOffline
		l.mu.Unlock()
		if r := await(t, c.Commit(commitOf("g", "t", 0, 2))); !errors.Is(r.Err, ErrNotCoordinator) {
			t.Fatalf("%+v", r)
		}
		l.mu.Lock()
		l.failWait = nil
		l.hw, l.synced = l.end, l.end
		l.mu.Unlock()
		l.lead(1, true)
		w.ready(c)
		if r := await(t, c.Fetch("g", []string{"t"}, []int32{0}, false)); r.Offsets[0].Offset != 2 {
			t.Fatalf("%+v", r)
		}
	})
}

// TestNobodyIsAnsweredFromBehindTheLog (SAFETY 5) asks at the moment when a commit of
// unknown outcome has been answered and the groups are not unloaded yet.
func TestNobodyIsAnsweredFromBehindTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		c := w.coordinator()
		defer c.Close()
		await(t, c.Commit(commitOf("g", "t", 0, 1)))
		l, asked := w.log(0), make(chan FetchResult, 1)
		l.mu.Lock()
		l.failWait = replication.ErrOffline
		l.left = func() {
			l.mu.Lock()
			l.left, l.failWait = nil, nil
			l.mu.Unlock()
			a := c.Fetch("g", []string{"t"}, []int32{0}, false)
			got, _ := a.Now()
			asked <- got
		}
		l.mu.Unlock()
		if r := await(t, c.Commit(commitOf("g", "t", 0, 2))); !errors.Is(r.Err, ErrNotCoordinator) {
			t.Fatalf("%+v", r)
		}
		if r := <-asked; !errors.Is(r.Err, ErrLoading) {
			t.Fatalf("%+v", r)
		}
	})
}

// TestLoadingIsSaid keeps the log's tail from being committed: requests are told to
// wait, except heartbeats, which are not refused; then all of it is there.
func TestLoadingIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		c := w.coordinator()
		await(t, c.Commit(commitOf("g", "t", 0, 2)))
		c.Close()
		if r := await(t, c.Commit(commitOf("g", "t", 0, 2))); !errors.Is(r.Err, ErrNotCoordinator) {
			t.Fatalf("after the end: %+v", r)
		}
		l := w.log(0).survivor(false, nil)
		l.hw = 0
		w.setLog(0, l)
		c, err := New(Config{Cluster: w.meta, NodeID: 1, Now: time.Now, Logger: c.cfg.Logger, Limits: w.lim, Partition: func(n int32) (Log, error) { return w.log(n), nil }})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Find(ctx, "g"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("find: %v", err)
		}
		for what, err := range map[string]error{
			"join":   await(t, c.Join(joinOf(""))).Err,
			"sync":   await(t, c.Sync(SyncRequest{Group: "g"})).Err,
			"commit": await(t, c.Commit(commitOf("g", "t", 0, 3))).Err,
			"fetch":  await(t, c.Fetch("g", nil, nil, true)).Err,
			"delete": await(t, c.Delete("g")),
			"list":   func() error { _, err := c.List(); return err }(),
		} {
			if !errors.Is(err, ErrLoading) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := c.Heartbeat("g", "m", nil, 1); err != nil {
			t.Errorf("heartbeat: %v", err)
		}
		l.mu.Lock()
		l.hw = l.end
		l.mu.Unlock()
		l.lead(l.epoch, true)
		w.ready(c)
		if r := await(t, c.Fetch("g", []string{"t"}, []int32{0}, false)); r.Offsets[0].Offset != 2 {
			t.Fatalf("%+v", r)
		}
	})
}

// TestMembersSurviveARestart restarts the coordinator under a stable group: the
// members go on as if nothing had been, and who does not is removed in time.
func TestMembersSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		c := w.coordinator()
		ids := form(t, c, "g", 2)
		before := c.state()
		c.Close()
		for n := range int32(2) {
			w.setLog(n, w.log(n).survivor(false, nil))
		}
		c = w.coordinator()
		defer c.Close()
		if after := c.state(); !maps.Equal(before, after) {
			t.Fatalf("before %q, after %q", before, after)
		}
		for range 5 {
			time.Sleep(3 * time.Second)
			if err := c.Heartbeat("g", ids[0], nil, 1); err != nil {
				if errors.Is(err, ErrRebalance) {
					break
				}
				t.Fatal(err)
			}
		}
		d, err := c.Describe("g")
		if err != nil || d.State != PreparingRebalance || len(d.Members) != 1 {
			t.Fatalf("%+v %v", d, err)
		}
		r := joinOf(ids[0])
		if got := await(t, c.Join(r)); got.Err != nil || got.Generation != 2 {
			t.Fatalf("%+v", got)
		}
	})
}

// form makes a stable group of n and returns the members' ids, the leader first.
func form(t *testing.T, c *Coordinator, group string, n int) (ids []string) {
	t.Helper()
	var joins []Answer[JoinResult]
	for range n {
		r := joinOf("")
		r.Group = group
		joins = append(joins, c.Join(r))
	}
	assignments := map[string][]byte{}
	for _, a := range joins {
		r := await(t, a)
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		ids = append(ids, r.MemberID)
		assignments[r.MemberID] = []byte(r.MemberID)
	}
	for _, id := range ids {
		if r := await(t, c.Sync(SyncRequest{Group: group, MemberID: id, Generation: 1, Assignments: assignments})); r.Err != nil || string(r.Assignment) != id {
			t.Fatalf("%+v", r)
		}
	}
	return ids
}

// TestDeposedCoordinatorLetsGo ends the leadership under a parked join and a
// commit: both are told to go elsewhere, and a new leadership begins with what the
// log has.
func TestDeposedCoordinatorLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		c := w.coordinator()
		defer c.Close()
		await(t, c.Commit(commitOf("g", "t", 0, 1)))
		parked := c.Join(joinOf(""))
		l := w.log(0)
		l.lead(1, false)
		synctest.Wait()
		if r := await(t, parked); !errors.Is(r.Err, ErrNotCoordinator) {
			t.Fatalf("%+v", r)
		}
		if r := await(t, c.Commit(commitOf("g", "t", 0, 2))); r.Err == nil {
			t.Fatal("a deposed coordinator took a commit")
		}
		l.lead(3, true)
		w.ready(c)
		if r := await(t, c.Fetch("g", []string{"t"}, []int32{0}, false)); r.Offsets[0].Offset != 1 {
			t.Fatalf("%+v", r)
		}
	})
}

// TestALaterEpochIsAnotherLeadership begins one without an end of the one before: a
// commit of that is refused, and the new one reads the log.
func TestALaterEpochIsAnotherLeadership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		c := w.coordinator()
		defer c.Close()
		await(t, c.Commit(commitOf("g", "t", 0, 1)))
		l := w.log(0)
		l.mu.Lock()
		l.epoch++
		l.mu.Unlock()
		if r := await(t, c.Commit(commitOf("g", "t", 0, 2))); !errors.Is(r.Err, ErrNotCoordinator) {
			t.Fatalf("%+v", r)
		}
		w.ready(c)
		if r := await(t, c.Fetch("g", []string{"t"}, []int32{0}, false)); r.Offsets[0].Offset != 1 {
			t.Fatalf("%+v", r)
		}
		if r := await(t, c.Commit(commitOf("g", "t", 0, 3))); r.Err != nil {
			t.Fatal(r.Err)
		}
	})
}

// TestOffsetsExpire checks retention: an empty group's offsets go a while after it
// became empty, those of a group without members after their commit, and a client's
// own retention counts.
func TestOffsetsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.lim.Retention, w.lim.RetentionCheck = time.Hour, time.Minute
		c := w.coordinator()
		defer func() { c.Close() }()
		id := form(t, c, "members", 1)[0]
		own := func(group string, member string, generation int32, offset int64) {
			t.Helper()
			r := commitOf(group, "t", 0, offset)
			r.MemberID, r.Generation = member, generation
			if got := await(t, c.Commit(r)); got.Err != nil {
				t.Fatal(got.Err)
			}
		}
		own("members", id, 1, 1)
		own("simple", "", -1, 1)
		short := commitOf("short", "t", 0, 1)
		short.Retention = 5 * time.Minute
		await(t, c.Commit(short))
		have := func() string {
			all, err := c.List()
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, g := range all {
				names = append(names, g.ID)
			}
			return strings.Join(names, " ")
		}
		wait := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); {
				time.Sleep(5 * time.Second)
				if err := c.Heartbeat("members", id, nil, 1); err != nil && !errors.Is(err, ErrUnknownMember) {
					t.Fatal(err)
				}
			}
			synctest.Wait()
		}
		wait(7 * time.Minute)
		if got := have(); got != "members simple" {
			t.Fatalf("after 7 minutes: %s", got)
		}
		wait(55 * time.Minute)
		if got := have(); got != "members" {
			t.Fatalf("after an hour: %s", got)
		}
		if _, err := c.Leave("members", []Leaver{{MemberID: id}}); err != nil {
			t.Fatal(err)
		}
		wait(50 * time.Minute)
		if got := have(); got != "members" {
			t.Fatalf("50 minutes after the last member left: %q", got)
		}
		wait(12 * time.Minute)
		if got := have(); got != "" {
			t.Fatalf("after its retention: %s", got)
		}
		c.Close()
		for n := range int32(2) {
			w.setLog(n, w.log(n).survivor(false, nil))
		}
		c = w.coordinator()
		if got := c.state(); len(got) > 0 {
			t.Fatalf("a restart brings back %q", got)
		}
	})
}

// TestDeletedTopicTakesItsOffsets deletes a topic while the coordinator looks and
// while it is down, and makes it again: only the offsets of the deleted one go.
func TestDeletedTopicTakesItsOffsets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		c := w.coordinator()
		defer func() { c.Close() }()
		commit := func(topic string) {
			t.Helper()
			made := w.topic(topic)
			r := commitOf("g", topic, 0, 7)
			r.Offsets[0].TopicID = made.ID
			if got := await(t, c.Commit(r)); got.Err != nil {
				t.Fatal(got.Err)
			}
		}
		drop := func(topic string) {
			t.Helper()
			made := w.topic(topic)
			if err := w.meta.DeleteTopic(t.Context(), topic, made.ID); err != nil {
				t.Fatal(err)
			}
		}
		want := func(topics string) {
			t.Helper()
			var got []string
			for _, o := range await(t, c.Fetch("g", nil, nil, true)).Offsets {
				got = append(got, o.Topic)
			}
			if strings.Join(got, " ") != topics {
				t.Fatalf("offsets of %v, want %s", got, topics)
			}
		}
		commit("a")
		commit("b")
		commit("c")
		drop("a")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		want("b c")
		commit("a")
		time.Sleep(2 * time.Second)
		want("a b c")
		c.Close()
		drop("b")
		w.setLog(0, w.log(0).survivor(false, nil))
		c = w.coordinator()
		synctest.Wait()
		want("a c")
	})
}

// TestOnlyATombstoneTakesOffsets (SAFETY 16): offsets of a topic that is not there
// stay, and so do those that name a topic only by its name and are later than the
// tombstone of that name.
func TestOnlyATombstoneTakesOffsets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		c := w.coordinator()
		defer c.Close()
		commit := func(topic string, id [16]byte) {
			t.Helper()
			r := commitOf("g", topic, 0, 7)
			r.Offsets[0].TopicID = id
			if got := await(t, c.Commit(r)); got.Err != nil {
				t.Fatal(got.Err)
			}
		}
		drop := func(topic string) {
			t.Helper()
			if err := w.meta.DeleteTopic(t.Context(), topic, w.topic(topic).ID); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
		}
		want := func(topics string) {
			t.Helper()
			var got []string
			for _, o := range await(t, c.Fetch("g", nil, nil, true)).Offsets {
				got = append(got, o.Topic)
			}
			if strings.Join(got, " ") != topics {
				t.Fatalf("offsets of %v, want %s", got, topics)
			}
		}
		commit("elsewhere", [16]byte{9})
		commit("a", [16]byte{})
		drop("a")
		want("elsewhere")
		time.Sleep(time.Second)
		commit("a", [16]byte{})
		drop("b")
		time.Sleep(w.lim.RetentionCheck + time.Second) // a sweep looks at all tombstones again
		synctest.Wait()
		want("a elsewhere")
	})
}

// TestDeletedGroupTakesNothing pipelines a commit and a join behind a deletion that
// is still being journaled.
func TestDeletedGroupTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		c := w.coordinator()
		defer c.Close()
		await(t, c.Commit(commitOf("g", "t", 0, 1)))
		release := w.log(0).hold()
		late := c.Commit(commitOf("g", "t", 1, 1))
		deleted := c.Delete("g")
		if r := await(t, c.Commit(commitOf("g", "t", 2, 1))); !errors.Is(r.Err, ErrNotAvailable) {
			t.Fatalf("commit: %+v", r)
		}
		if r := await(t, c.Join(joinOf(""))); !errors.Is(r.Err, ErrNotAvailable) {
			t.Fatalf("join: %+v", r)
		}
		if _, err := c.Describe("g"); !errors.Is(err, ErrGroupNotFound) {
			t.Fatalf("describe: %v", err)
		}
		release()
		if r := await(t, late); r.Err != nil {
			t.Fatalf("the commit before: %+v", r)
		}
		if err := await(t, deleted); err != nil {
			t.Fatal(err)
		}
		if got := c.state(); len(got) > 0 {
			t.Fatalf("left: %q", got)
		}
		if err := await(t, c.Delete("g")); !errors.Is(err, ErrGroupNotFound) {
			t.Fatalf("again: %v", err)
		}
	})
}

// TestCommitsAreBounded checks the limits on notes, on one commit, and on what
// waits for the journal.
func TestCommitsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.log(0).maxBatch = 64 << 10
		c := w.coordinator()
		defer c.Close()
		r := commitOf("g", "t", 0, 1)
		r.Offsets = append(r.Offsets, Commit{Topic: "t", Partition: 1, Offset: 1, Metadata: strings.Repeat("x", 4097)})
		if got := await(t, c.Commit(r)); got.Err != nil || got.Errs[0] != nil || !errors.Is(got.Errs[1], ErrMetadataTooLarge) {
			t.Fatalf("%+v", got)
		}
		r.Offsets = nil
		for i := range int32(5000) {
			r.Offsets = append(r.Offsets, Commit{Topic: "t", Partition: i, Offset: 1})
		}
		if got := await(t, c.Commit(r)); !errors.Is(got.Err, ErrCommitTooLarge) {
			t.Fatalf("%+v", got.Err)
		}
		release := w.log(0).hold()
		r.Offsets = r.Offsets[:500]
		refused := 0
		for range 1000 {
			if got, ok := c.Commit(r).Now(); ok && errors.Is(got.Err, ErrNotAvailable) {
				refused++
			}
		}
		if refused == 0 || refused > 900 {
			t.Fatalf("%d of 1000 commits were refused by a journal that hangs", refused)
		}
		release()
	})
}

// TestLongNamesAreRefused sends strings that requests can carry and the journal
// cannot: its lengths have 16 bits.
func TestLongNamesAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.lim.MaxMetadata = 1 << 20
		c := w.coordinator()
		defer c.Close()
		long := strings.Repeat("x", 1<<15)
		if r := await(t, c.Commit(commitOf(long, "t", 0, 1))); !errors.Is(r.Err, ErrInvalidGroupID) {
			t.Errorf("group id: %+v", r)
		}
		r := commitOf("g", "t", 0, 1)
		r.Offsets[0].Metadata = long
		if got := await(t, c.Commit(r)); !errors.Is(got.Errs[0], ErrMetadataTooLarge) {
			t.Errorf("metadata: %+v", got)
		}
		for name, change := range map[string]func(*JoinRequest){
			"client id":     func(r *JoinRequest) { r.ClientID = long },
			"instance id":   func(r *JoinRequest) { r.InstanceID = &long },
			"protocol type": func(r *JoinRequest) { r.ProtocolType = long },
			"protocol":      func(r *JoinRequest) { r.Protocols = protocols("a", long) },
		} {
			r := joinOf("")
			change(&r)
			if got := await(t, c.Join(r)); !errors.Is(got.Err, ErrInvalidRequest) {
				t.Errorf("%s: %+v", name, got)
			}
		}
	})
}

// TestManyGroupsAreCheap keeps members in thousands of groups: there is one
// deadline for each group, and none for what is empty.
func TestManyGroupsAreCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		c := w.coordinator()
		defer c.Close()
		const n = 2000
		ids := make([]string, n)
		var joins []Answer[JoinResult]
		for i := range n {
			r := joinOf("")
			r.Group = fmt.Sprint("g", i)
			joins = append(joins, c.Join(r))
		}
		for i, a := range joins {
			ids[i] = await(t, a).MemberID
			c.Sync(SyncRequest{Group: fmt.Sprint("g", i), MemberID: ids[i], Generation: 1})
		}
		for range 10 {
			time.Sleep(5 * time.Second)
			for i, id := range ids {
				if err := c.Heartbeat(fmt.Sprint("g", i), id, nil, 1); err != nil {
					t.Fatal(err)
				}
			}
		}
		wakes := func() (sum int) {
			for _, s := range c.shards() {
				s.mu.Lock()
				sum += len(s.wakes)
				s.mu.Unlock()
			}
			return sum
		}
		if got := wakes(); got != n {
			t.Fatalf("%d deadlines for %d groups", got, n)
		}
		time.Sleep(time.Minute) // nobody is heard of
		synctest.Wait()
		if got := wakes(); got != 0 {
			t.Fatalf("%d deadlines for empty groups", got)
		}
		// Ids that nobody joins with leave nothing behind.
		for i := range n {
			r := joinOf("")
			r.Group, r.RequireMemberID = fmt.Sprint("idle", i), true
			c.Join(r)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := c.count(); got != n {
			t.Fatalf("%d groups, want %d", got, n)
		}
	})
}

// TestPartitionIsKafkas compares with what Java's String.hashCode gives.
func TestPartitionIsKafkas(t *testing.T) {
	for group, want := range map[string]int32{"": 0, "a": 47, "group": 47, "polygenelubricants": 0, "größe": 7, "a😀": 16} {
		if got := partitionFor(group, 50); got != want {
			t.Errorf("%q is in partition %d, want %d", group, got, want)
		}
	}
}
