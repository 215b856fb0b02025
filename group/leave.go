package group

// Leaver is one member that leaves, or is removed by its instance id alone.
type Leaver struct {
	MemberID   string
	InstanceID *string
	Reason     string // KIP-800
}

// leaves takes a LeaveGroup and says for each member what became of it.
func (g *group) leaves(all []Leaver) []error {
	errs := make([]error, len(all))
	left := 0
	for i, l := range all {
		if errs[i] = g.leavesOne(l); errs[i] == nil {
			left++
		}
	}
	if left > 0 {
		switch g.state {
		case Stable, CompletingRebalance:
			reason := "members left"
			if left == 1 {
				reason = "member " + all[0].MemberID + " left" + because(all[0].Reason)
			}
			g.prepareRebalance(reason)
		case PreparingRebalance:
			g.maybeComplete()
		}
	}
	return errs
}

func (g *group) leavesOne(l Leaver) error {
	id := l.MemberID
	if id == "" {
		if l.InstanceID == nil {
			return ErrUnknownMember
		}
		holder, ok := g.static[*l.InstanceID]
		if !ok {
			return ErrUnknownMember
		}
		id = holder
	} else if _, ok := g.pending[id]; ok {
		g.remove(id)
		return nil
	} else if _, err := g.find(id, l.InstanceID); err != nil {
		return err
	}
	m := g.byID[id]
	g.giveJoin(m, JoinResult{Err: ErrUnknownMember, Generation: -1})
	g.giveSync(m, SyncResult{Err: ErrUnknownMember})
	g.remove(id)
	return nil
}
