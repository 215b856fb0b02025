package fetch

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firnlog/firn/localcache"
)

type sessionRig struct {
	t   *testing.T
	s   *Sessions
	now time.Time
}

func newSessionRig(t *testing.T, slots int) *sessionRig {
	r := &sessionRig{t: t, now: time.Unix(1000, 0)}
	r.s = NewSessions(SessionsConfig{Slots: slots, Now: func() time.Time { return r.now }})
	return r
}

func sp(p int32, offset int64) SessionPart {
	return SessionPart{SessionKey: SessionKey{Topic: "t", Partition: p}, Offset: offset, MaxBytes: 100, CurrentEpoch: -1, LastFetchedEpoch: -1}
}

// turn runs one request; find says what each partition has. It returns the
// answer's session id and the partitions it mentions.
func (r *sessionRig) turn(q SessionRequest, find func(SessionPart) SessionOutcome) (int32, []int32, error) {
	r.t.Helper()
	turn, err := r.s.Begin(q)
	if err != nil {
		return 0, nil, err
	}
	var found []SessionOutcome
	for _, p := range turn.Parts() {
		found = append(found, find(p))
	}
	id, mention, err := turn.Finish(found)
	var parts []int32
	for i, m := range mention {
		if m {
			parts = append(parts, turn.Parts()[i].Partition)
		}
	}
	return id, parts, err
}

// TestSessionsAnswerAsKafkaRecorded plays the recorded session of a real Kafka.
func TestSessionsAnswerAsKafkaRecorded(t *testing.T) {
	r := newSessionRig(t, 10)
	end := map[int32]int64{0: 1, 1: 1}
	find := func(p SessionPart) SessionOutcome {
		e, ok := end[p.Partition]
		if !ok {
			return SessionOutcome{HighWatermark: -1, LogStart: -1, Err: true}
		}
		return SessionOutcome{Bytes: int(e - p.Offset), HighWatermark: e}
	}
	var id int32
	step := func(name string, q SessionRequest, session bool, want []int32, wantErr error) {
		t.Helper()
		got, parts, err := r.turn(q, find)
		if !errors.Is(err, wantErr) || (got != 0) != session || !slices.Equal(parts, want) {
			t.Errorf("%s: session %v, partitions %v, error %v; want %v, %v, %v", name, got != 0, parts, err, session, want, wantErr)
		}
		if got != 0 {
			id = got
		}
	}
	step("full fetch opens one", SessionRequest{Parts: []SessionPart{sp(0, 0), sp(1, 0)}}, true, []int32{0, 1}, nil)
	step("epoch 1, both moved to the end", SessionRequest{ID: id, Epoch: 1, Parts: []SessionPart{sp(0, 1), sp(1, 1)}}, true, nil, nil)
	step("epoch 2, nothing new: no partitions", SessionRequest{ID: id, Epoch: 2}, true, nil, nil)
	end[1] = 2
	step("epoch 3, one partition got a record", SessionRequest{ID: id, Epoch: 3}, true, []int32{1}, nil)
	step("epoch 4, the offset has not moved: it comes again", SessionRequest{ID: id, Epoch: 4}, true, []int32{1}, nil)
	step("epoch 5, forget partition 1", SessionRequest{ID: id, Epoch: 5, Forgotten: []SessionKey{{Topic: "t", Partition: 1}}}, true, nil, nil)
	end[1] = 3
	step("epoch 6, record to the forgotten one", SessionRequest{ID: id, Epoch: 6}, true, nil, nil)
	step("wrong epoch", SessionRequest{ID: id, Epoch: 99}, false, nil, ErrSessionEpoch)
	step("unknown id", SessionRequest{ID: id + 1, Epoch: 1}, false, nil, ErrSessionNotFound)
	step("ids instead of names", SessionRequest{ID: id, Epoch: 7, ByID: true}, false, nil, ErrSessionTopicID)
	step("closed by epoch -1", SessionRequest{ID: id, Epoch: -1, Parts: []SessionPart{sp(0, 0)}}, false, []int32{0}, nil)
	step("after the close", SessionRequest{ID: id, Epoch: 7}, false, nil, ErrSessionNotFound)
	step("none asked for", SessionRequest{Epoch: -1, Parts: []SessionPart{sp(0, 0)}}, false, []int32{0}, nil)
	step("with an error partition", SessionRequest{Parts: []SessionPart{sp(0, 0), sp(77, 0)}}, true, []int32{0, 77}, nil)
	step("with an error partition: it stays in the answer", SessionRequest{ID: id, Epoch: 1}, true, []int32{0, 77}, nil)
	end[77] = 0
	step("the error is gone: it is told once", SessionRequest{ID: id, Epoch: 2, Parts: []SessionPart{sp(0, 1)}}, true, []int32{77}, nil)
	step("and then not", SessionRequest{ID: id, Epoch: 3}, true, nil, nil)
	step("nothing left ends it", SessionRequest{ID: id, Epoch: 4, Forgotten: []SessionKey{{Topic: "t", Partition: 0}, {Topic: "t", Partition: 77}}}, false, nil, nil)
	step("it has ended", SessionRequest{ID: id, Epoch: 5}, false, nil, ErrSessionNotFound)
}

// TestNoPartitionStarvesInASession: what got records goes to the back.
func TestNoPartitionStarvesInASession(t *testing.T) {
	r := newSessionRig(t, 10)
	full := func() func(SessionPart) SessionOutcome { // only the first gets bytes
		given := false
		return func(SessionPart) SessionOutcome {
			if given {
				return SessionOutcome{HighWatermark: 9}
			}
			given = true
			return SessionOutcome{HighWatermark: 9, Bytes: 5}
		}
	}
	id, _, _ := r.turn(SessionRequest{Parts: []SessionPart{sp(0, 0), sp(1, 0), sp(2, 0)}}, full())
	var served []int32
	for e := int32(1); e <= 6; e++ {
		_, parts, err := r.turn(SessionRequest{ID: id, Epoch: e}, full())
		if err != nil || len(parts) != 1 {
			t.Fatal(parts, err)
		}
		served = append(served, parts[0])
	}
	if !slices.Equal(served, []int32{0, 1, 2, 0, 1, 2}) {
		t.Errorf("served %v", served)
	}
}

// TestSessionCacheIsBounded fills it, and checks who may replace whom.
func TestSessionCacheIsBounded(t *testing.T) {
	r := newSessionRig(t, 3)
	nothing := func(SessionPart) SessionOutcome { return SessionOutcome{} }
	open := func(parts int) int32 {
		var q SessionRequest
		for i := range parts {
			q.Parts = append(q.Parts, sp(int32(i), 0))
		}
		id, told, err := r.turn(q, nothing)
		if err != nil || len(told) != parts {
			t.Fatal(told, err)
		}
		return id
	}
	a, b, c := open(5), open(2), open(9)
	if a == 0 || b == 0 || c == 0 {
		t.Fatal("no session though there is room")
	}
	if open(100) != 0 {
		t.Fatal("a fresh session was evicted")
	}
	// They grow old but stay in use: only a larger one takes the smallest's slot.
	epochs := map[int32]int32{}
	touch := func(ids ...int32) {
		for _, id := range ids {
			epochs[id]++
			if _, _, err := r.turn(SessionRequest{ID: id, Epoch: epochs[id]}, nothing); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 3 {
		r.now = r.now.Add(time.Minute)
		touch(a, b, c)
	}
	if open(2) != 0 {
		t.Fatal("evicted by one of the same size")
	}
	d := open(3)
	if d == 0 {
		t.Fatal("the smallest was not evicted")
	}
	if _, err := r.s.Begin(SessionRequest{ID: b, Epoch: 1}); !errors.Is(err, ErrSessionNotFound) {
		t.Fatal("another was evicted")
	}
	// One that nobody uses goes, whatever its size.
	for range 3 {
		r.now = r.now.Add(time.Minute)
		touch(a, d)
	}
	if open(1) == 0 {
		t.Fatal("an unused session keeps its slot")
	}
	if _, err := r.s.Begin(SessionRequest{ID: c, Epoch: epochs[c] + 1}); !errors.Is(err, ErrSessionNotFound) {
		t.Fatal("not the unused one was evicted")
	}
	if n := len(r.s.byID); n != 3 || r.s.lru.Len() != 3 || r.s.parts != 5+3+1 {
		t.Errorf("%d sessions, %d partitions", n, r.s.parts)
	}
}

// TestOverlappingTurnsAreRefused: a session has one request at a time.
func TestOverlappingTurnsAreRefused(t *testing.T) {
	r := newSessionRig(t, 3)
	id, _, _ := r.turn(SessionRequest{Parts: []SessionPart{sp(0, 0)}}, func(SessionPart) SessionOutcome { return SessionOutcome{} })
	first, err := r.s.Begin(SessionRequest{ID: id, Epoch: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.s.Begin(SessionRequest{ID: id, Epoch: 1}); !errors.Is(err, ErrSessionEpoch) {
		t.Fatal(err)
	}
	second, err := r.s.Begin(SessionRequest{ID: id, Epoch: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := first.Finish(make([]SessionOutcome, 1)); !errors.Is(err, ErrSessionEpoch) {
		t.Fatal(err)
	}
	if _, _, err := second.Finish(make([]SessionOutcome, 1)); err != nil {
		t.Fatal(err)
	}
	if nextEpoch(1<<31-1) != 1 {
		t.Error("epochs do not wrap to 1")
	}
}

// TestASessionHearsOfAColdPartitionThatIsReady: two partitions in a session, whose chunks
// come after the answer that the client waited for. The client says nothing more of
// them, and nothing else changes; the next answer mentions each that is ready and has
// its records, and no other (SAFETY 20).
func TestASessionHearsOfAColdPartitionThatIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{}, localcache.Config{})
		r := newSessionRig(t, 10)
		var logs []*fakeLog
		var parts []SessionPart
		g.bucket.slow = map[string]time.Duration{}
		for i, took := range []time.Duration{2 * time.Second, 20 * time.Second} {
			l := g.log(byte(i), makeBatches(uint64(i), 0, 3, small), 1, 4000, 4000, false)
			g.bucket.slow[l.arch.layouts[0].key] = took
			logs, parts = append(logs, l), append(parts, sp(int32(i), 0))
		}
		turn := func(q SessionRequest) (int32, []int32) {
			t.Helper()
			id, mentioned, err := r.turn(q, func(p SessionPart) SessionOutcome {
				res := g.r.Fetch(t.Context(), Request{MaxWait: 100 * time.Millisecond, MinBytes: 1, MaxBytes: 1000, Parts: []Part{part(logs[p.Partition], p.Offset, 1000)}})
				defer Release(res)
				return SessionOutcome{Bytes: res[0].Records.Len(), HighWatermark: res[0].HighWatermark, LogStart: res[0].LogStart, Err: res[0].Err != nil}
			})
			if err != nil {
				t.Fatal(err)
			}
			return id, mentioned
		}
		id, mentioned := turn(SessionRequest{Parts: parts})
		if id == 0 || len(mentioned) != 2 {
			t.Fatalf("session %d, %v mentioned", id, mentioned)
		}
		for i, step := range []struct {
			passed time.Duration
			want   []int32
		}{{0, nil}, {3 * time.Second, []int32{0}}, {20 * time.Second, []int32{1, 0}}} {
			time.Sleep(step.passed)
			if _, mentioned := turn(SessionRequest{ID: id, Epoch: int32(i + 1)}); !slices.Equal(mentioned, step.want) {
				t.Errorf("turn %d mentions %v, want %v", i+1, mentioned, step.want)
			}
		}
		g.close()
	})
}
