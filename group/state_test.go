package group

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// bench is a group on its own: a clock that the test moves, ids that count, and a
// journal that commits when the test says so.
type bench struct {
	t       *testing.T
	g       *group
	at      time.Time
	ids     int
	lim     Limits
	journal []func(error)
	hold    bool // the journal waits for commit
	values  [][]byte
	reasons []string
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, at: time.UnixMilli(1_700_000_000_000), lim: Limits{MaxSize: 100, MaxMetadata: 4096, InitialDelay: 3 * time.Second}}
	b.g = newGroup("g", b)
	return b
}

func (b *bench) now() time.Time                      { return b.at }
func (b *bench) limits() *Limits                     { return &b.lim }
func (b *bench) newMemberID(p string) string         { b.ids++; return fmt.Sprintf("%s-%d", p, b.ids) }
func (b *bench) rebalancing(_ *group, reason string) { b.reasons = append(b.reasons, reason) }
func (b *bench) persist(g *group, value []byte, done func(error)) {
	b.values = append(b.values, value)
	if b.hold {
		b.journal = append(b.journal, done)
		return
	}
	done(nil)
}

// commit lets the journal go on.
func (b *bench) commit(err error) {
	for len(b.journal) > 0 {
		done := b.journal[0]
		b.journal = b.journal[1:]
		done(err)
	}
}

// pass moves the clock and runs what is due on the way, each at its moment.
func (b *bench) pass(d time.Duration) {
	end := b.at.Add(d)
	for {
		next := b.g.deadline()
		if next.IsZero() || next.After(end) {
			b.at = end
			return
		}
		if next.After(b.at) {
			b.at = next
		}
		b.g.tick()
	}
}

func (b *bench) state(want State) {
	b.t.Helper()
	if b.g.state != want {
		b.t.Fatalf("the group is %v, want %v", b.g.state, want)
	}
}

// call is a request that may be parked.
type call[T any] struct {
	t *testing.T
	r *T
	n int
}

func (c *call[T]) done(v T) { c.r = &v; c.n++ }

// answer is what came; it must have come, once.
func (c *call[T]) answer() T {
	c.t.Helper()
	if c.n != 1 {
		c.t.Fatalf("answered %d times, want once", c.n)
	}
	return *c.r
}

func (c *call[T]) parked() {
	c.t.Helper()
	if c.n != 0 {
		c.t.Fatalf("answered %d times (%+v), want it parked", c.n, *c.r)
	}
}

// subscription is what a consumer says: the topics it wants.
func subscription(topics ...string) []byte {
	m := kmsg.NewConsumerMemberMetadata()
	m.Topics = topics
	return m.AppendTo(nil)
}

func protocols(names ...string) []Protocol {
	var ps []Protocol
	for _, n := range names {
		ps = append(ps, Protocol{n, subscription("t")})
	}
	return ps
}

func joinOf(id string) JoinRequest {
	return JoinRequest{Group: "g", MemberID: id, ClientID: "c", ProtocolType: "consumer", Protocols: protocols("range"), SessionTimeout: 10 * time.Second, RebalanceTimeout: 60 * time.Second}
}

func (b *bench) join(r JoinRequest) *call[JoinResult] {
	b.t.Helper()
	c := &call[JoinResult]{t: b.t}
	b.g.joins(r, c.done)
	return c
}

func (b *bench) sync(id string, assignments map[string][]byte) *call[SyncResult] {
	c := &call[SyncResult]{t: b.t}
	b.g.syncs(SyncRequest{Group: "g", MemberID: id, Generation: b.g.generation, Assignments: assignments}, c.done)
	return c
}

// stable makes a stable group of n members and returns their ids, the leader first.
func (b *bench) stable(n int, more ...func(*JoinRequest)) (ids []string) {
	b.t.Helper()
	var calls []*call[JoinResult]
	for range n {
		r := joinOf("")
		for _, f := range more {
			f(&r)
		}
		calls = append(calls, b.join(r))
	}
	b.pass(2 * b.lim.InitialDelay)
	assignments := map[string][]byte{}
	for _, c := range calls {
		id := c.answer().MemberID
		ids = append(ids, id)
		assignments[id] = []byte("for " + id)
	}
	if ids[0] != b.g.leader {
		b.t.Fatalf("the leader is %s, want the first, %s", b.g.leader, ids[0])
	}
	for _, id := range slices.Backward(ids) {
		var a map[string][]byte
		if id == b.g.leader {
			a = assignments
		}
		b.sync(id, a)
	}
	b.state(Stable)
	return ids
}

// TestGroupFormsInOneRebalance lets three members come within the initial delay:
// one generation has them all, the leader alone sees the roster, and everyone gets
// what the leader assigned, once that is in the journal.
func TestGroupFormsInOneRebalance(t *testing.T) {
	b := newBench(t)
	var calls []*call[JoinResult]
	for range 3 {
		calls = append(calls, b.join(joinOf("")))
		b.pass(time.Second)
	}
	for _, c := range calls {
		c.parked()
	}
	b.pass(10 * time.Second)
	var ids []string
	for i, c := range calls {
		r := c.answer()
		ids = append(ids, r.MemberID)
		if r.Err != nil || r.Generation != 1 || *r.Protocol != "range" || *r.ProtocolType != "consumer" || r.Leader != ids[0] || r.SkipAssignment {
			t.Fatalf("member %d: %+v", i, r)
		}
		if want := 3; i == 0 && len(r.Members) != want || i > 0 && len(r.Members) != 0 {
			t.Fatalf("member %d sees %d members", i, len(r.Members))
		}
	}
	b.hold = true
	followers := []*call[SyncResult]{b.sync(ids[1], nil), b.sync(ids[2], nil)}
	leader := b.sync(ids[0], map[string][]byte{ids[0]: []byte("a"), ids[1]: []byte("b")})
	leader.parked()
	b.state(CompletingRebalance)
	b.commit(nil)
	b.state(Stable)
	if got := string(leader.answer().Assignment) + string(followers[0].answer().Assignment) + string(followers[1].answer().Assignment); got != "ab" {
		t.Fatalf("assigned %q", got)
	}
	if again := b.sync(ids[1], nil).answer(); string(again.Assignment) != "b" || *again.Protocol != "range" {
		t.Fatalf("asked again: %+v", again)
	}
}

// TestInitialDelayEndsWithTheRebalanceTimeout keeps members coming: the first
// rebalance is put off while they do, and not for ever.
func TestInitialDelayEndsWithTheRebalanceTimeout(t *testing.T) {
	b := newBench(t)
	first := joinOf("")
	first.RebalanceTimeout = 10 * time.Second
	c := b.join(first)
	for range 4 {
		b.pass(2900 * time.Millisecond)
		r := joinOf("")
		r.RebalanceTimeout = 10 * time.Second
		if c.n == 0 {
			b.join(r)
		}
	}
	c.answer()
	if b.at.Sub(time.UnixMilli(1_700_000_000_000)) < 9*time.Second {
		t.Fatal("the rebalance was not put off")
	}
}

// TestMemberIDIsRequired goes through KIP-394: the id is given out, counts as
// somebody to wait for, and is forgotten when nobody joins with it.
func TestMemberIDIsRequired(t *testing.T) {
	b := newBench(t)
	r := joinOf("")
	r.RequireMemberID = true
	given := b.join(r).answer()
	if !errors.Is(given.Err, ErrMemberIDRequired) || given.MemberID != "c-1" {
		t.Fatalf("%+v", given)
	}
	b.state(Empty)
	r.MemberID = given.MemberID
	c := b.join(r)
	b.pass(4 * time.Second)
	if got := c.answer(); got.Err != nil || got.MemberID != "c-1" {
		t.Fatalf("%+v", got)
	}
	b.sync("c-1", nil)
	b.state(Stable)

	r.MemberID = ""
	b.join(r)
	again := b.join(joinOf("c-1")) // the leader joins, and waits for the one with the id
	again.parked()
	b.pass(11 * time.Second)
	if got := again.answer(); got.Err != nil || len(got.Members) != 1 {
		t.Fatalf("%+v", got)
	}
}

// TestWhoIsSilentIsRemoved stops one member's heartbeats; the others are told to
// join again and share its partitions.
func TestWhoIsSilentIsRemoved(t *testing.T) {
	b := newBench(t)
	ids := b.stable(3)
	beat := func(id string) error { return b.g.heartbeats(id, nil, b.g.generation) }
	for range 3 {
		b.pass(5 * time.Second)
		beat(ids[0])
		beat(ids[1])
	}
	b.state(PreparingRebalance)
	if err := beat(ids[0]); !errors.Is(err, ErrRebalance) {
		t.Fatalf("heartbeat: %v", err)
	}
	if err := beat(ids[2]); !errors.Is(err, ErrUnknownMember) {
		t.Fatalf("heartbeat of the removed: %v", err)
	}
	a, c := b.join(joinOf(ids[0])), b.join(joinOf(ids[1]))
	if r := a.answer(); r.Generation != 2 || len(r.Members) != 2 {
		t.Fatalf("%+v", r)
	}
	if r := c.answer(); r.Err != nil || r.Leader != ids[0] {
		t.Fatalf("%+v", r)
	}
	if !strings.Contains(b.reasons[len(b.reasons)-1], "heartbeat") {
		t.Errorf("reason: %q", b.reasons)
	}
}

// TestWhoDoesNotRejoinIsOut ends the rebalance by its timeout: whoever is there is
// the new generation, and if the leader is not, another one leads.
func TestWhoDoesNotRejoinIsOut(t *testing.T) {
	b := newBench(t)
	ids := b.stable(3)
	slow := joinOf(ids[1])
	slow.Protocols = protocols("range", "sticky")
	c := b.join(slow) // its words have changed: a rebalance
	b.state(PreparingRebalance)
	for range 14 {
		b.pass(5 * time.Second)
		for _, id := range ids {
			b.g.heartbeats(id, nil, b.g.generation)
		}
	}
	if r := c.answer(); r.Err != nil || r.Leader != ids[1] || len(r.Members) != 1 {
		t.Fatalf("%+v", r)
	}
}

// TestWhoNeverSyncsIsOut joins two and syncs one: the other is removed after the
// rebalance timeout though it sends heartbeats.
func TestWhoNeverSyncsIsOut(t *testing.T) {
	b := newBench(t)
	x, y := b.join(joinOf("")), b.join(joinOf(""))
	b.pass(2 * b.lim.InitialDelay)
	leader, silent := x.answer().MemberID, y.answer().MemberID
	b.sync(leader, nil)
	b.state(Stable)
	for range 13 {
		b.pass(5 * time.Second)
		b.g.heartbeats(leader, nil, b.g.generation)
		b.g.heartbeats(silent, nil, b.g.generation)
	}
	if b.g.byID[silent] != nil || b.g.byID[leader] == nil {
		t.Fatalf("members are %v", b.g.byID)
	}
}

// TestLastOneOutEmptiesTheGroup checks that the generation after the last member is
// journaled, without members.
func TestLastOneOutEmptiesTheGroup(t *testing.T) {
	b := newBench(t)
	ids := b.stable(2)
	if errs := b.g.leaves([]Leaver{{MemberID: ids[0]}, {MemberID: ids[1]}, {MemberID: "who"}}); errs[0] != nil || errs[1] != nil || !errors.Is(errs[2], ErrUnknownMember) {
		t.Fatalf("%v", errs)
	}
	b.state(Empty)
	var v kmsg.GroupMetadataValue
	if err := v.ReadFrom(b.values[len(b.values)-1]); err != nil || len(v.Members) != 0 || v.Generation != 2 || v.ProtocolType != "consumer" || v.Protocol != nil {
		t.Fatalf("%+v %v", v, err)
	}
}

// TestLeaderMayAskForARebalance joins again with the same words: from the leader
// that means that what it assigns has changed, from a follower that it lost the
// answer.
func TestLeaderMayAskForARebalance(t *testing.T) {
	b := newBench(t)
	ids := b.stable(2)
	if r := b.join(joinOf(ids[1])).answer(); r.Err != nil || r.Generation != 1 || len(r.Members) != 0 {
		t.Fatalf("follower: %+v", r)
	}
	b.state(Stable)
	b.join(joinOf(ids[0])).parked()
	b.state(PreparingRebalance)
}

// TestUnjournaledAssignmentIsNotGivenOut fails the journal under the leader's
// assignment: everybody who waits hears of it and joins again.
func TestUnjournaledAssignmentIsNotGivenOut(t *testing.T) {
	b := newBench(t)
	x, y := b.join(joinOf("")), b.join(joinOf(""))
	b.pass(2 * b.lim.InitialDelay)
	b.hold = true
	f, l := b.sync(y.answer().MemberID, nil), b.sync(x.answer().MemberID, nil)
	b.commit(ErrNotAvailable)
	if r := l.answer(); !errors.Is(r.Err, ErrNotAvailable) || r.Assignment != nil {
		t.Fatalf("leader: %+v", r)
	}
	if r := f.answer(); !errors.Is(r.Err, ErrNotAvailable) {
		t.Fatalf("follower: %+v", r)
	}
	b.state(PreparingRebalance)
}

// TestLateJournalDoesNotOverrule lets a member leave while the assignment is being
// journaled: the assignment of the generation that is over reaches nobody.
func TestLateJournalDoesNotOverrule(t *testing.T) {
	b := newBench(t)
	x, y := b.join(joinOf("")), b.join(joinOf(""))
	b.pass(2 * b.lim.InitialDelay)
	b.hold = true
	l := b.sync(x.answer().MemberID, nil)
	b.g.leaves([]Leaver{{MemberID: y.answer().MemberID}})
	if r := l.answer(); !errors.Is(r.Err, ErrRebalance) {
		t.Fatalf("%+v", r)
	}
	b.commit(nil)
	b.state(PreparingRebalance)
}

func static(instance string) func(*JoinRequest) {
	return func(r *JoinRequest) { r.InstanceID = &instance; r.SkipAssignment = true }
}

func ptr(s string) *string { return &s }

// TestStaticMemberReturns restarts a static member of a stable group: it is in
// under another id at once, with its assignment, the old id is fenced, and the
// journal has the new one. A leader need not assign again (KIP-814).
func TestStaticMemberReturns(t *testing.T) {
	b := newBench(t)
	old := b.stable(1, static("i"))[0]
	r := joinOf("")
	static("i")(&r)
	got := b.join(r).answer()
	if got.Err != nil || got.Generation != 1 || got.MemberID == old || got.Leader != got.MemberID || !got.SkipAssignment || len(got.Members) != 1 {
		t.Fatalf("%+v", got)
	}
	b.state(Stable)
	if err := b.g.heartbeats(old, ptr("i"), 1); !errors.Is(err, ErrFencedInstance) {
		t.Fatalf("heartbeat of the old: %v", err)
	}
	if err := b.g.heartbeats(old, nil, 1); !errors.Is(err, ErrUnknownMember) {
		t.Fatalf("heartbeat of the old without its instance: %v", err)
	}
	if a := b.sync(got.MemberID, nil).answer(); string(a.Assignment) != "for "+old {
		t.Fatalf("%+v", a)
	}
	var v kmsg.GroupMetadataValue
	if err := v.ReadFrom(b.values[len(b.values)-1]); err != nil || v.Members[0].MemberID != got.MemberID {
		t.Fatalf("journaled %+v %v", v, err)
	}
	// An older client would take itself for a leader that has to assign.
	r.SkipAssignment = false
	if older := b.join(r).answer(); older.Leader != got.MemberID || len(older.Members) != 0 || older.SkipAssignment {
		t.Fatalf("an older client: %+v", older)
	}
	if errs := b.g.leaves([]Leaver{{InstanceID: ptr("i")}, {InstanceID: ptr("j")}}); errs[0] != nil || !errors.Is(errs[1], ErrUnknownMember) {
		t.Fatalf("removed by instance: %v", errs)
	}
	b.state(Empty)
}

// TestStaticMemberKeepsItsPlace lets a rebalance time out without a static member:
// it stays until its session ends.
func TestStaticMemberKeepsItsPlace(t *testing.T) {
	b := newBench(t)
	long := func(r *JoinRequest) { r.SessionTimeout, r.RebalanceTimeout = 100*time.Second, 20*time.Second }
	ids := b.stable(1, static("i"), long)
	c := b.join(joinOf(""))
	b.pass(61 * time.Second)
	if r := c.answer(); r.Err != nil || len(r.Members) != 2 {
		t.Fatalf("%+v", r)
	}
	b.pass(30 * time.Second)
	if b.g.byID[ids[0]] == nil {
		t.Fatal("it went before its session ended")
	}
	b.pass(80 * time.Second)
	if b.g.byID[ids[0]] != nil {
		t.Fatal("its session never ends")
	}
	b.state(Empty)
}

// TestFailedReplacementIsUndone fails the journal under a static member's new id.
func TestFailedReplacementIsUndone(t *testing.T) {
	b := newBench(t)
	old := b.stable(1, static("i"))[0]
	r := joinOf("")
	static("i")(&r)
	b.hold = true
	c := b.join(r)
	c.parked()
	b.commit(ErrNotAvailable)
	if got := c.answer(); !errors.Is(got.Err, ErrNotAvailable) {
		t.Fatalf("%+v", got)
	}
	if err := b.g.heartbeats(old, ptr("i"), 1); err != nil {
		t.Fatalf("the old id: %v", err)
	}
}

// TestProtocolIsTheOneMostPrefer votes.
func TestProtocolIsTheOneMostPrefer(t *testing.T) {
	for _, tc := range []struct {
		want    string
		members []string
	}{
		{"a", []string{"a b", "b a", "a b"}},
		{"b", []string{"a b", "b a", "b a"}},
		{"c", []string{"a c", "b c", "c"}},
		{"a", []string{"a b", "b a"}},
	} {
		b := newBench(t)
		for _, m := range tc.members {
			r := joinOf("")
			r.Protocols = protocols(strings.Fields(m)...)
			b.join(r)
		}
		b.pass(2 * b.lim.InitialDelay)
		if b.g.protocol != tc.want {
			t.Errorf("%v: chose %s, want %s", tc.members, b.g.protocol, tc.want)
		}
	}
}

// TestRefusals asks a stable group of one for what it must refuse.
func TestRefusals(t *testing.T) {
	join := func(change func(*JoinRequest)) func(*bench, string) error {
		return func(b *bench, id string) error {
			r := joinOf(id)
			change(&r)
			return b.join(r).answer().Err
		}
	}
	sync := func(change func(*SyncRequest)) func(*bench, string) error {
		return func(b *bench, id string) error {
			r := SyncRequest{Group: "g", MemberID: id, Generation: 1}
			change(&r)
			c := &call[SyncResult]{t: b.t}
			b.g.syncs(r, c.done)
			return c.answer().Err
		}
	}
	commit := func(change func(*CommitRequest)) func(*bench, string) error {
		return func(b *bench, id string) error {
			r := CommitRequest{Group: "g", MemberID: id, Generation: 1}
			change(&r)
			return b.g.mayCommit(&r)
		}
	}
	for name, tc := range map[string]struct {
		ask  func(*bench, string) error
		want error
	}{
		"another protocol type":           {join(func(r *JoinRequest) { r.ProtocolType = "connect" }), ErrInconsistentProtocol},
		"no common protocol":              {join(func(r *JoinRequest) { r.Protocols = protocols("other") }), ErrInconsistentProtocol},
		"no protocol":                     {join(func(r *JoinRequest) { r.Protocols = nil }), ErrInconsistentProtocol},
		"an unknown member":               {join(func(r *JoinRequest) { r.MemberID = "who" }), ErrUnknownMember},
		"an unknown instance":             {join(func(r *JoinRequest) { r.InstanceID = ptr("x") }), ErrUnknownMember},
		"sync of an unknown member":       {sync(func(r *SyncRequest) { r.MemberID = "who" }), ErrUnknownMember},
		"sync of another generation":      {sync(func(r *SyncRequest) { r.Generation = 0 }), ErrIllegalGeneration},
		"sync of another protocol":        {sync(func(r *SyncRequest) { r.Protocol = ptr("other") }), ErrInconsistentProtocol},
		"sync of another type":            {sync(func(r *SyncRequest) { r.ProtocolType = ptr("other") }), ErrInconsistentProtocol},
		"commit from outside":             {commit(func(r *CommitRequest) { r.MemberID, r.Generation = "", -1 }), ErrUnknownMember},
		"commit of an unknown member":     {commit(func(r *CommitRequest) { r.MemberID = "who" }), ErrUnknownMember},
		"commit of another generation":    {commit(func(r *CommitRequest) { r.Generation = 7 }), ErrIllegalGeneration},
		"heartbeat of another generation": {func(b *bench, id string) error { return b.g.heartbeats(id, nil, 7) }, ErrIllegalGeneration},
		"deletion with members":           {func(b *bench, _ string) error { return b.g.mayDelete() }, ErrNonEmpty},
		"a full group": {func(b *bench, _ string) error {
			b.lim.MaxSize = 1
			return b.join(joinOf("")).answer().Err
		}, ErrMaxSize},
		"commit before the assignment": {func(b *bench, id string) error {
			b.join(joinOf(id)).answer()
			return b.g.mayCommit(&CommitRequest{MemberID: id, Generation: b.g.generation})
		}, ErrRebalance},
		"sync of a group that joins": {func(b *bench, id string) error {
			b.join(joinOf("")).parked()
			return b.sync(id, nil).answer().Err
		}, ErrRebalance},
		"commit during a rebalance": {func(b *bench, id string) error {
			b.join(joinOf("")).parked()
			return b.g.mayCommit(&CommitRequest{MemberID: id, Generation: 1})
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			id := b.stable(1)[0]
			if err := tc.ask(b, id); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

// TestCountsHold drives a group at random and checks after each step what has to
// hold in every state, and that nobody is left waiting in a stable one.
func TestCountsHold(t *testing.T) {
	for seed := range uint64(300) {
		b := newBench(t)
		b.lim.MaxSize = 6
		rng := newRand(seed)
		var ids []string
		note := func(c *call[JoinResult]) {
			if c.n > 0 && c.r.Err == nil {
				ids = append(ids, c.r.MemberID)
			}
		}
		var open []*call[JoinResult]
		for step := range 200 {
			pick := ""
			if len(ids) > 0 {
				pick = ids[rng.IntN(len(ids))]
			}
			switch rng.IntN(9) {
			case 0:
				r := joinOf("")
				r.RequireMemberID = rng.IntN(2) == 0
				if rng.IntN(3) == 0 {
					static(fmt.Sprint("i", rng.IntN(3)))(&r)
				}
				c := b.join(r)
				if c.n > 0 && errors.Is(c.r.Err, ErrMemberIDRequired) && rng.IntN(2) == 0 {
					c = b.join(joinOf(c.r.MemberID))
				}
				open = append(open, c)
			case 1, 2:
				open = append(open, b.join(joinOf(pick)))
			case 3, 4:
				b.sync(pick, map[string][]byte{})
			case 5:
				b.g.leaves([]Leaver{{MemberID: pick}})
			case 6:
				b.g.heartbeats(pick, nil, b.g.generation)
			case 7:
				b.pass(time.Duration(rng.IntN(20)) * time.Second)
			case 8:
				if b.hold = !b.hold; !b.hold {
					var err error
					if rng.IntN(4) == 0 {
						err = ErrNotAvailable
					}
					b.commit(err)
				}
			}
			for _, c := range open {
				note(c)
			}
			open = slices.DeleteFunc(open, func(c *call[JoinResult]) bool { return c.n > 0 })
			b.check(seed, step)
		}
	}
}

// check says what holds in any state.
func (b *bench) check(seed uint64, step int) {
	b.t.Helper()
	g := b.g
	fail := func(format string, args ...any) {
		b.t.Fatalf("seed %d, step %d, %v: %s", seed, step, g.state, fmt.Sprintf(format, args...))
	}
	awaiting := 0
	votes := map[string]int{}
	for _, m := range g.members {
		if g.byID[m.id] != m {
			fail("member %s is not found by its id", m.id)
		}
		if m.joining != nil {
			awaiting++
		}
		for _, p := range m.protocols {
			votes[p.Name]++
		}
		if m.instanceID != nil && g.static[*m.instanceID] != m.id {
			fail("instance %s is not %s", *m.instanceID, m.id)
		}
		if m.expires.IsZero() && !m.waits() {
			fail("the session of %s never ends", m.id)
		}
	}
	if awaiting != g.awaiting || len(g.members) != len(g.byID) || len(votes) != len(g.votes) {
		fail("%d wait, %d counted; %d members, %d by id; votes %v, counted %v", awaiting, g.awaiting, len(g.members), len(g.byID), votes, g.votes)
	}
	if len(g.members) > 0 && g.byID[g.leader] == nil {
		fail("the leader %q is no member", g.leader)
	}
	for id := range g.unsynced {
		if g.byID[id] == nil {
			fail("%s is awaited for its sync and is no member", id)
		}
	}
	switch g.state {
	case Empty:
		if len(g.members) > 0 {
			fail("it has members")
		}
	case PreparingRebalance:
		if g.join.at.IsZero() {
			fail("the rebalance never ends")
		}
	case CompletingRebalance:
		if len(g.unsynced) > 0 && g.syncExpires.IsZero() {
			fail("it waits for syncs for ever")
		}
	}
}
