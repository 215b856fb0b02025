package group

import (
	"bytes"
	"strings"
	"time"
)

// JoinRequest is a JoinGroup. Strings and bytes may point into a buffer of the
// caller's: what is kept is copied.
type JoinRequest struct {
	Group            string
	MemberID         string // "" for a member that joins for the first time
	InstanceID       *string
	ClientID, Host   string
	ProtocolType     string
	Protocols        []Protocol
	SessionTimeout   time.Duration
	RebalanceTimeout time.Duration
	Reason           string // KIP-800
	// RequireMemberID: a member without an id gets one and joins again (KIP-394,
	// JoinGroup v4).
	RequireMemberID bool
	// SkipAssignment: the client understands that a leader has nothing to assign
	// (KIP-814, JoinGroup v9).
	SkipAssignment bool
}

// tooLong says that the journal could not hold the member.
func (r *JoinRequest) tooLong() bool {
	for _, p := range r.Protocols {
		if len(p.Name) > maxString {
			return true
		}
	}
	return len(r.ClientID) > maxString || len(r.Host) > maxString || len(r.ProtocolType) > maxString || r.InstanceID != nil && len(*r.InstanceID) > maxString
}

// JoinResult is the answer to a JoinGroup.
type JoinResult struct {
	Err            error
	MemberID       string
	Generation     int32
	ProtocolType   *string
	Protocol       *string
	Leader         string
	Members        []JoinMember // only for the leader
	SkipAssignment bool
}

// JoinMember is a member as its leader sees it.
type JoinMember struct {
	ID         string
	InstanceID *string
	Metadata   []byte
}

// accepts says whether the group has room. While members are joining, those that
// are parked count, so that a group above its size sheds the last to rejoin.
func (g *group) accepts(memberID string) bool {
	m := g.byID[memberID]
	limit := g.h.limits().MaxSize
	switch g.state {
	case PreparingRebalance:
		return m != nil && m.joining != nil || g.awaiting < limit
	case CompletingRebalance, Stable:
		return m != nil || len(g.members) < limit
	}
	return true
}

// joins takes a JoinGroup; done is called once, now or when the join is complete.
func (g *group) joins(r JoinRequest, done func(JoinResult)) {
	refuse := func(id string, err error) { done(JoinResult{Err: err, MemberID: id, Generation: -1}) }
	switch {
	case !g.accepts(r.MemberID):
		g.remove(r.MemberID)
		refuse("", ErrMaxSize)
	case !g.supports(r.ProtocolType, r.Protocols):
		refuse(r.MemberID, ErrInconsistentProtocol)
	case r.MemberID == "":
		g.joinsNew(r, done)
	default:
		g.joinsAgain(r, done)
	}
}

// joinsNew takes a member without an id.
func (g *group) joinsNew(r JoinRequest, done func(JoinResult)) {
	if r.InstanceID != nil {
		id := g.h.newMemberID(*r.InstanceID)
		if old, ok := g.static[*r.InstanceID]; ok {
			g.replaceStatic(r, old, id, done)
			return
		}
		g.joinsAs(id, r, done)
		return
	}
	id := g.h.newMemberID(r.ClientID)
	if !r.RequireMemberID {
		g.joinsAs(id, r, done)
		return
	}
	if g.pending == nil {
		g.pending = map[string]time.Time{}
	}
	g.pending[id] = g.h.now().Add(r.SessionTimeout)
	done(JoinResult{Err: ErrMemberIDRequired, MemberID: id, Generation: -1})
}

// joinsAs adds a member and begins or goes on with a rebalance.
func (g *group) joinsAs(id string, r JoinRequest, done func(JoinResult)) {
	m := &member{id: id, clientID: strings.Clone(r.ClientID), host: strings.Clone(r.Host), joining: done, isNew: true}
	if r.InstanceID != nil {
		instance := strings.Clone(*r.InstanceID)
		m.instanceID = &instance
	}
	m.take(r)
	if g.state == PreparingRebalance && g.previous == Empty {
		g.join.newMember = true
	}
	g.add(m, strings.Clone(r.ProtocolType))
	g.expire(m, newMemberJoinTimeout)
	g.rebalanceOrComplete("member " + id + " joined" + because(r.Reason))
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + strings.Clone(reason)
}

// take copies what a member says of itself.
func (m *member) take(r JoinRequest) {
	m.sessionTimeout, m.rebalanceTimeout = r.SessionTimeout, r.RebalanceTimeout
	m.protocols = make([]Protocol, len(r.Protocols))
	for i, p := range r.Protocols {
		m.protocols[i] = Protocol{strings.Clone(p.Name), bytes.Clone(p.Metadata)}
	}
}

// retake is take for a member of the group.
func (g *group) retake(m *member, r JoinRequest, done func(JoinResult)) {
	if m.joining != nil {
		// The same member asks again, for instance behind a broken connection:
		// the older request has nobody to answer to.
		g.giveJoin(m, JoinResult{Err: ErrRebalance, MemberID: m.id, Generation: -1})
	}
	g.vote(m, -1)
	m.take(r)
	g.vote(m, 1)
	m.joining = done
	g.awaiting++
}

// joinsAgain takes a member that has an id.
func (g *group) joinsAgain(r JoinRequest, done func(JoinResult)) {
	if _, ok := g.pending[r.MemberID]; ok && r.InstanceID == nil {
		g.joinsAs(strings.Clone(r.MemberID), r, done)
		return
	}
	m, err := g.find(r.MemberID, r.InstanceID)
	if err != nil {
		done(JoinResult{Err: err, MemberID: r.MemberID, Generation: -1})
		return
	}
	switch {
	case g.state == PreparingRebalance:
		g.retake(m, r, done)
		g.rebalanceOrComplete("")
	case g.state == CompletingRebalance && m.sameProtocols(r.Protocols):
		// It did not get the answer of this generation.
		done(g.joined(m))
	case g.state == Stable && m.id != g.leader && m.sameProtocols(r.Protocols):
		done(g.joined(m))
	case g.state == Stable && m.id == g.leader:
		// What the leader sees may have changed though its own words have not
		// (partitions were added): it asks for a rebalance by joining.
		g.retake(m, r, done)
		g.rebalanceOrComplete("the leader " + m.id + " joined again" + because(r.Reason))
	case g.state == Stable || g.state == CompletingRebalance:
		g.retake(m, r, done)
		g.rebalanceOrComplete("member " + m.id + " changed its metadata" + because(r.Reason))
	default:
		done(JoinResult{Err: ErrUnknownMember, MemberID: r.MemberID, Generation: -1})
	}
}

// joined is the answer to a member in the present generation.
func (g *group) joined(m *member) JoinResult {
	protocol, typ := g.protocol, g.protocolType
	r := JoinResult{MemberID: m.id, Generation: g.generation, Protocol: &protocol, ProtocolType: &typ, Leader: g.leader}
	if m.id == g.leader {
		r.Members = g.roster()
	}
	return r
}

func (g *group) roster() []JoinMember {
	all := make([]JoinMember, len(g.members))
	for i, m := range g.members {
		all[i] = JoinMember{m.id, m.instanceID, m.metadata(g.protocol)}
	}
	return all
}

// replaceStatic lets a restarted static member take its place again under a new
// id. In a stable group whose protocol stays the same nobody else notices.
func (g *group) replaceStatic(r JoinRequest, oldID, newID string, done func(JoinResult)) {
	leader := g.leader
	old := g.byID[oldID]
	m := g.rename(old, newID)
	g.heard(m)
	before := *m
	g.retake(m, r, done)
	reason := "static member " + *m.instanceID + " joined as " + newID + because(r.Reason)
	switch g.state {
	case Stable:
		if g.choose() != g.protocol {
			g.rebalanceOrComplete(reason)
			return
		}
		// Its words are the next generation's; the journal keeps the new id.
		g.h.persist(g, g.encode(nil), func(err error) {
			if g.byID[newID] != m || m.joining == nil {
				return
			}
			if err != nil {
				g.giveJoin(m, JoinResult{Err: err, Generation: g.generation, Leader: leader})
				g.vote(m, -1)
				m.protocols, m.sessionTimeout, m.rebalanceTimeout = before.protocols, before.sessionTimeout, before.rebalanceTimeout
				g.vote(m, 1)
				g.heard(g.rename(m, oldID))
				return
			}
			// While the record was on its way the group may have begun to
			// rebalance; then the answer is that of the next generation.
			if g.state != Stable {
				return
			}
			res := g.joined(m)
			if r.SkipAssignment {
				res.SkipAssignment = m.id == g.leader
			} else {
				// An older client that finds itself the leader would assign, and
				// with an assignment of its own make a mess of a stable group: it
				// is told of the leader it does not know.
				res.Members, res.Leader = nil, leader
			}
			g.giveJoin(m, res)
		})
	case CompletingRebalance:
		// The leader may have been told of the old id already, and would assign
		// to nobody.
		g.prepareRebalance(reason)
	default:
		g.maybeComplete()
	}
}

// rename gives a static member another id, keeping its place. Whoever still waits
// under the old one is fenced.
func (g *group) rename(old *member, id string) *member {
	g.giveJoin(old, JoinResult{Err: ErrFencedInstance, MemberID: old.id, Generation: -1})
	g.giveSync(old, SyncResult{Err: ErrFencedInstance})
	m := *old
	m.id, m.isNew = id, false
	for i := range g.members {
		if g.members[i] == old {
			g.members[i] = &m
		}
	}
	delete(g.byID, old.id)
	g.byID[id] = &m
	if g.leader == old.id {
		g.leader = id
	}
	g.static[*m.instanceID] = id
	if _, ok := g.unsynced[old.id]; ok {
		delete(g.unsynced, old.id)
		g.unsynced[id] = struct{}{}
	}
	return &m
}

// rebalanceOrComplete begins a rebalance, or ends the one under way if this was
// the last member missing.
func (g *group) rebalanceOrComplete(reason string) {
	if g.state == PreparingRebalance {
		g.maybeComplete()
		return
	}
	g.prepareRebalance(reason)
}

// prepareRebalance asks all members to join again, by what they find in the answer
// to their next heartbeat.
func (g *group) prepareRebalance(reason string) {
	if g.state == CompletingRebalance {
		g.endSyncs(ErrRebalance)
	}
	g.syncExpires = time.Time{}
	clear(g.unsynced)
	initial := g.state == Empty
	g.enter(PreparingRebalance)
	g.h.rebalancing(g, reason)
	if initial {
		delay := g.h.limits().InitialDelay
		g.join = joinTimer{at: g.h.now().Add(delay), initial: true, delay: delay, remaining: max(g.rebalanceTimeout()-delay, 0)}
		return
	}
	if g.allJoined() {
		g.completeJoin()
		return
	}
	g.join = joinTimer{at: g.h.now().Add(g.rebalanceTimeout())}
}

// joinDue runs when the joining phase has lasted long enough.
func (g *group) joinDue() {
	t := g.join
	g.join.at = time.Time{}
	if g.state != PreparingRebalance {
		return
	}
	if t.initial && t.newMember && t.remaining > 0 {
		delay := min(g.h.limits().InitialDelay, t.remaining)
		g.join = joinTimer{at: g.h.now().Add(delay), initial: true, delay: delay, remaining: max(t.remaining-t.delay, 0)}
		return
	}
	g.completeJoin()
}

// maybeComplete ends the joining phase when everybody is there; that of an empty
// group ends by time only, because nobody knows who else is coming.
func (g *group) maybeComplete() {
	if g.state == PreparingRebalance && g.previous != Empty && g.allJoined() {
		g.completeJoin()
	}
}

// completeJoin ends the joining phase: who has not rejoined is out, except static
// members, who have until their session ends; the rest are the new generation.
func (g *group) completeJoin() {
	g.join = joinTimer{}
	var missing []string
	for _, m := range g.members {
		if m.joining == nil && m.instanceID == nil {
			missing = append(missing, m.id)
		}
	}
	for _, id := range missing {
		g.remove(id)
	}
	if len(g.members) > 0 && !g.electJoined() {
		// Only static members are left and none has rejoined: wait until one
		// does, or their sessions end.
		g.join = joinTimer{at: g.h.now().Add(g.rebalanceTimeout())}
		return
	}
	g.generation++
	clear(g.unsynced)
	if len(g.members) == 0 {
		g.protocol = ""
		g.readTopics()
		g.enter(Empty)
		// Should this fail, the generation before comes back after a restart and
		// times out: nobody is in it.
		g.h.persist(g, g.encode(nil), func(error) {})
		return
	}
	g.protocol = g.choose()
	g.readTopics()
	g.enter(CompletingRebalance)
	for _, m := range g.members {
		g.giveJoin(m, g.joined(m))
		g.heard(m)
		m.isNew = false
		g.unsynced[m.id] = struct{}{}
	}
	g.syncExpires = g.h.now().Add(g.rebalanceTimeout())
}

// electJoined makes sure that the leader is one who has rejoined.
func (g *group) electJoined() bool {
	if l := g.byID[g.leader]; l != nil && l.joining != nil {
		return true
	}
	for _, m := range g.members {
		if m.joining != nil {
			g.leader = m.id
			return true
		}
	}
	return false
}
