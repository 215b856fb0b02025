package group

import (
	"bytes"
	"time"
)

// SyncRequest is a SyncGroup.
type SyncRequest struct {
	Group        string
	MemberID     string
	InstanceID   *string
	Generation   int32
	ProtocolType *string // checked where given (KIP-559)
	Protocol     *string
	// Assignments are the leader's, by member id.
	Assignments map[string][]byte
}

// SyncResult is the answer to a SyncGroup.
type SyncResult struct {
	Err          error
	ProtocolType *string
	Protocol     *string
	Assignment   []byte
}

// syncs takes a SyncGroup; done is called once, now or when the leader's
// assignment is in the journal.
func (g *group) syncs(r SyncRequest, done func(SyncResult)) {
	m, err := g.find(r.MemberID, r.InstanceID)
	switch {
	case err != nil:
	case r.Generation != g.generation:
		err = ErrIllegalGeneration
	case r.ProtocolType != nil && *r.ProtocolType != g.protocolType, r.Protocol != nil && *r.Protocol != g.protocol:
		err = ErrInconsistentProtocol
	case g.state == Empty || g.state == Dead:
		err = ErrUnknownMember
	case g.state == PreparingRebalance:
		err = ErrRebalance
	}
	if err != nil {
		done(SyncResult{Err: err})
		return
	}
	g.synced(m)
	if g.state == Stable {
		done(g.assigned(m))
		return
	}
	g.giveSync(m, SyncResult{Err: ErrRebalance}) // an older request of the same member
	m.syncing = done
	if m.id != g.leader {
		return
	}
	assignment := make(map[string][]byte, len(g.members))
	for _, m := range g.members {
		assignment[m.id] = bytes.Clone(r.Assignments[m.id])
	}
	generation := g.generation
	g.h.persist(g, g.encode(assignment), func(err error) {
		if g.state != CompletingRebalance || g.generation != generation {
			return // it went on without us
		}
		if err != nil {
			g.endSyncs(err)
			g.prepareRebalance("the assignment could not be journaled: " + err.Error())
			return
		}
		g.enter(Stable)
		for _, m := range g.members {
			m.assignment = assignment[m.id]
			if m.syncing != nil {
				g.giveSync(m, g.assigned(m))
				// A session that ended while the assignment was awaited was let
				// pass: it counts anew from here.
				g.heard(m)
			}
		}
	})
}

func (g *group) assigned(m *member) SyncResult {
	protocol, typ := g.protocol, g.protocolType
	return SyncResult{ProtocolType: &typ, Protocol: &protocol, Assignment: m.assignment}
}

// synced notes that the member has sent its SyncGroup of this generation.
func (g *group) synced(m *member) {
	delete(g.unsynced, m.id)
	if len(g.unsynced) == 0 {
		g.syncExpires = time.Time{}
	}
}

// endSyncs answers the parked syncs with an error and forgets assignments.
func (g *group) endSyncs(err error) {
	for _, m := range g.members {
		m.assignment = nil
		if m.syncing != nil {
			g.giveSync(m, SyncResult{Err: err})
			g.heard(m)
		}
	}
}

// syncDue removes the members that joined the generation and never asked for
// their assignment.
func (g *group) syncDue() {
	if g.state != CompletingRebalance && g.state != Stable || len(g.unsynced) == 0 {
		return
	}
	for id := range g.unsynced {
		g.remove(id)
	}
	g.prepareRebalance("members did not ask for their assignment in time")
}

// heartbeats takes a Heartbeat.
func (g *group) heartbeats(memberID string, instanceID *string, generation int32) error {
	m, err := g.find(memberID, instanceID)
	switch {
	case err != nil:
		return err
	case generation != g.generation:
		return ErrIllegalGeneration
	case g.state == Empty:
		return ErrUnknownMember
	}
	g.heard(m)
	if g.state == PreparingRebalance {
		return ErrRebalance
	}
	return nil
}
