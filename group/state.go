package group

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// State is where a group is in its life.
//
//	Empty --join--> PreparingRebalance --all joined--> CompletingRebalance --assignment journaled--> Stable
//	Stable, CompletingRebalance --member joins, leaves, fails or changes--> PreparingRebalance
//	PreparingRebalance --nobody left--> Empty
//	Empty --deleted, expired--> Dead
type State int8

// The states, with Kafka's names.
const (
	Empty State = iota
	PreparingRebalance
	CompletingRebalance
	Stable
	Dead
)

// String is Kafka's name of the state.
func (s State) String() string {
	return [...]string{"Empty", "PreparingRebalance", "CompletingRebalance", "Stable", "Dead"}[s]
}

// consumerProtocol is the protocol type of consumers; only for it does the
// coordinator look into what members say (which topics they subscribe to).
const consumerProtocol = "consumer"

// host is what a group asks of the shard that holds it. All of it is called, and
// calls back, under the shard's lock.
type host interface {
	now() time.Time
	limits() *Limits
	newMemberID(prefix string) string
	// persist journals the group's record and calls done when it is committed, or
	// has failed.
	persist(g *group, value []byte, done func(error))
	// rebalancing is told of every rebalance that begins.
	rebalancing(g *group, reason string)
}

// Protocol is one way of assigning partitions that a member supports, with what
// it has to say in it.
type Protocol struct {
	Name     string
	Metadata []byte
}

// member is one member of a group.
type member struct {
	id               string
	instanceID       *string // static membership (KIP-345)
	clientID, host   string
	sessionTimeout   time.Duration
	rebalanceTimeout time.Duration
	protocols        []Protocol // in order of preference
	assignment       []byte

	joining func(JoinResult) // the parked JoinGroup
	syncing func(SyncResult) // the parked SyncGroup
	// isNew: it has joined for the first time and does not know its id yet, so its
	// session runs while it is parked.
	isNew bool
	// expires is when the session ends unless something is heard; zero: never.
	expires time.Time
}

func (m *member) metadata(protocol string) []byte {
	for _, p := range m.protocols {
		if p.Name == protocol {
			return p.Metadata
		}
	}
	return nil
}

// sameProtocols says whether the member would join with the same words again.
func (m *member) sameProtocols(ps []Protocol) bool {
	return slices.EqualFunc(m.protocols, ps, func(a, b Protocol) bool { return a.Name == b.Name && slices.Equal(a.Metadata, b.Metadata) })
}

// waits says that the member has nothing to send now: it is parked in JoinGroup
// or SyncGroup, which counts as a heartbeat, except for new members.
func (m *member) waits() bool { return !m.isNew && (m.joining != nil || m.syncing != nil) }

// group is the state machine of one group. It has no lock, no goroutine and no
// clock of its own.
type group struct {
	id string
	h  host

	state, previous State
	// since is when the state last changed; zero when a journal did not say.
	since        time.Time
	generation   int32
	protocolType string // "" for a group that only keeps offsets
	protocol     string // chosen for this generation
	leader       string // member id, "" none

	members  []*member // in order of joining
	byID     map[string]*member
	static   map[string]string // instance id to member id
	votes    map[string]int    // protocol name to members that support it
	awaiting int               // members parked in JoinGroup
	// pending are member ids given out that have not joined yet (KIP-394), with
	// when they are forgotten.
	pending map[string]time.Time
	// unsynced are the members of this generation that have not sent SyncGroup.
	unsynced map[string]struct{}
	// topics are what the members subscribe to; nil when that is not known.
	topics map[string]struct{}

	join        joinTimer
	syncExpires time.Time // when unsynced members are removed; zero: never

	offsets map[topicPartition]committed
	// commits counts commits in the journal's queue.
	commits int
	// journaled is the group's record as committed last; nil: none.
	journaled []byte
	// writing counts records of the group itself in the journal's queue.
	writing int
	// deleting: its tombstone is in the journal's queue.
	deleting bool

	// wake is when the shard looks at the group's deadlines; zero: not at all.
	wake time.Time
	heap int // position in the shard's heap of wakes, -1: not in it
}

// joinTimer ends the joining phase. An initial one is extended, delay by delay,
// while new members come, for remaining at most.
type joinTimer struct {
	at        time.Time // zero: not running
	initial   bool
	delay     time.Duration
	remaining time.Duration
	newMember bool // somebody joined since it was set
}

func newGroup(id string, h host) *group {
	return &group{id: id, h: h, state: Empty, previous: Dead, since: h.now(), heap: -1}
}

func (g *group) enter(s State) {
	g.previous, g.state, g.since = g.state, s, g.h.now()
}

// find checks that a request comes from a member of the group: ErrUnknownMember,
// ErrFencedInstance.
func (g *group) find(memberID string, instanceID *string) (*member, error) {
	if instanceID != nil {
		holder, ok := g.static[*instanceID]
		switch {
		case !ok:
			return nil, ErrUnknownMember
		case holder != memberID:
			return nil, ErrFencedInstance
		}
	}
	m := g.byID[memberID]
	if m == nil {
		return nil, ErrUnknownMember
	}
	return m, nil
}

// add puts a member into the group; the first one sets its protocol type.
func (g *group) add(m *member, protocolType string) {
	if g.byID == nil {
		g.byID, g.static, g.votes = map[string]*member{}, map[string]string{}, map[string]int{}
		g.unsynced = map[string]struct{}{}
	}
	if len(g.members) == 0 {
		g.protocolType = protocolType
	}
	if m.instanceID != nil {
		g.static[*m.instanceID] = m.id
	}
	if g.leader == "" {
		g.leader = m.id
	}
	g.members = append(g.members, m)
	g.byID[m.id] = m
	g.vote(m, 1)
	if m.joining != nil {
		g.awaiting++
	}
	delete(g.pending, m.id)
}

func (g *group) vote(m *member, by int) {
	for _, p := range m.protocols {
		if g.votes[p.Name] += by; g.votes[p.Name] == 0 {
			delete(g.votes, p.Name)
		}
	}
}

// remove takes a member, or a pending id, out of the group.
func (g *group) remove(id string) {
	if m := g.byID[id]; m != nil {
		delete(g.byID, id)
		g.members = slices.DeleteFunc(g.members, func(o *member) bool { return o == m })
		g.vote(m, -1)
		if m.joining != nil {
			g.awaiting--
		}
		if m.instanceID != nil && g.static[*m.instanceID] == id {
			delete(g.static, *m.instanceID)
		}
	}
	if g.leader == id {
		g.leader = ""
		if len(g.members) > 0 {
			g.leader = g.members[0].id
		}
	}
	delete(g.pending, id)
	delete(g.unsynced, id)
}

// supports says whether a member with these protocols can be in the group. An
// empty group takes any that has a type and a protocol.
func (g *group) supports(protocolType string, ps []Protocol) bool {
	if g.state == Empty {
		return protocolType != "" && len(ps) > 0
	}
	return protocolType == g.protocolType && slices.ContainsFunc(ps, func(p Protocol) bool { return g.votes[p.Name] == len(g.members) })
}

// choose picks the protocol that most members prefer of those that all support;
// of equal ones, the one that the earliest member prefers.
func (g *group) choose() string {
	count := map[string]int{}
	best := ""
	var order []string
	for _, m := range g.members {
		for _, p := range m.protocols {
			if g.votes[p.Name] >= len(g.members) {
				if count[p.Name]++; count[p.Name] == 1 {
					order = append(order, p.Name)
				}
				break
			}
		}
	}
	for _, name := range order {
		if best == "" || count[name] > count[best] {
			best = name
		}
	}
	return best
}

// readTopics works out what the members subscribe to.
func (g *group) readTopics() {
	g.topics = nil
	if g.protocolType != consumerProtocol {
		return
	}
	topics := map[string]struct{}{}
	for _, m := range g.members {
		var sub kmsg.ConsumerMemberMetadata
		raw := m.metadata(g.protocol)
		if err := sub.ReadFrom(raw); err != nil {
			// Some clients announce a later version than they write: the topics are
			// where version 0 has them.
			if len(raw) < 2 || sub.ReadFrom(append([]byte{0, 0}, raw[2:]...)) != nil {
				return // a client of its own kind: then nothing is known
			}
		}
		for _, t := range sub.Topics {
			topics[t] = struct{}{}
		}
	}
	g.topics = topics
}

// subscribed says whether the group reads the topic, as far as it is known: a
// group of consumers that cannot be understood reads everything.
func (g *group) subscribed(topic string) bool {
	if g.topics == nil {
		return g.protocolType == consumerProtocol
	}
	_, ok := g.topics[topic]
	return ok
}

func (g *group) rebalanceTimeout() (longest time.Duration) {
	for _, m := range g.members {
		longest = max(longest, m.rebalanceTimeout)
	}
	return longest
}

func (g *group) allJoined() bool { return g.awaiting == len(g.members) && len(g.pending) == 0 }

// heard gives the member's session its full length again.
func (g *group) heard(m *member) { g.expire(m, m.sessionTimeout) }

func (g *group) expire(m *member, after time.Duration) { m.expires = g.h.now().Add(after) }

// deadline is the earliest moment at which tick has something to do.
func (g *group) deadline() time.Time {
	next := earlier(g.join.at, g.syncExpires)
	for _, m := range g.members {
		next = earlier(next, m.expires)
	}
	for _, at := range g.pending {
		next = earlier(next, at)
	}
	return next
}

// earlier is the earlier of two moments of which zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// tick does what is due: sessions that ended, ids that nobody joined with,
// joining phases and syncs that took too long.
func (g *group) tick() {
	now := g.h.now()
	due := func(at time.Time) bool { return !at.IsZero() && !at.After(now) }
	for id, at := range g.pending {
		if due(at) {
			g.remove(id)
			if g.state == PreparingRebalance && g.allJoined() {
				g.completeJoin()
			}
		}
	}
	for _, m := range slices.Clone(g.members) {
		if !due(m.expires) || g.byID[m.id] != m {
			continue
		}
		m.expires = time.Time{}
		if !m.waits() {
			g.drop(m, "member "+m.id+" sent no heartbeat within its session timeout")
		}
	}
	if due(g.join.at) {
		g.joinDue()
	}
	if due(g.syncExpires) {
		g.syncExpires = time.Time{}
		g.syncDue()
	}
}

// drop removes a member that was not heard of.
func (g *group) drop(m *member, reason string) {
	g.giveJoin(m, JoinResult{Err: ErrUnknownMember})
	g.giveSync(m, SyncResult{Err: ErrUnknownMember})
	g.remove(m.id)
	switch {
	case g.state == Stable || g.state == CompletingRebalance:
		g.prepareRebalance(reason)
	case g.state == PreparingRebalance && g.allJoined():
		g.completeJoin()
	}
}

// fail answers everything that is parked and forgets who was in the group.
func (g *group) fail(err error) {
	for _, m := range g.members {
		g.giveJoin(m, JoinResult{Err: err, MemberID: m.id})
		g.giveSync(m, SyncResult{Err: err})
	}
}

func (g *group) giveJoin(m *member, r JoinResult) {
	if m.joining != nil {
		m.joining(r)
		m.joining = nil
		g.awaiting--
	}
}

func (g *group) giveSync(m *member, r SyncResult) {
	if m.syncing != nil {
		m.syncing(r)
		m.syncing = nil
	}
}
