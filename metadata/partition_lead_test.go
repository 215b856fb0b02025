package metadata

import (
	"errors"
	"math"
	"reflect"
	"testing"
)

// TestAPlaceBelongsToTheReplicaThatEarnedIt (SAFETY 2, 3): leading takes a place in the
// ISR, or among the eligible when the ISR is empty, and the place is that of one
// process on one disk.
func TestAPlaceBelongsToTheReplicaThatEarnedIt(t *testing.T) {
	member := func(node int32, inc uint64, dir string) Member {
		return Member{Node: node, Incarnation: inc, DirID: dir}
	}
	led := func(leader int32, isr, elr []Member) PartitionState {
		return PartitionState{Leader: leader, LeaderEpoch: 4, Replicas: []int32{1, 2, 3}, ISR: isr, ELR: elr}
	}
	me, other := member(1, 7, "d"), member(2, 3, "e")
	for name, tc := range map[string]struct {
		cur  PartitionState
		node int32
		inc  uint64
		dir  string
		isr  []Member // nil: refused
	}{
		"its own":                             {led(1, []Member{other, me}, nil), 1, 7, "d", []Member{other, me}},
		"nobody leads":                        {led(-1, []Member{other, me}, nil), 1, 7, "d", []Member{other, me}},
		"another leads":                       {led(2, []Member{other, me}, nil), 1, 7, "d", nil},
		"a later process":                     {led(-1, []Member{other, me}, nil), 1, 8, "d", nil},
		"an earlier process":                  {led(-1, []Member{other, me}, nil), 1, 6, "d", nil},
		"another disk":                        {led(-1, []Member{other, me}, nil), 1, 7, "x", nil},
		"no disk was named yet":               {led(-1, []Member{other, member(1, 7, "")}, nil), 1, 7, "d", []Member{other, me}},
		"not in sync":                         {led(-1, []Member{other}, nil), 1, 7, "d", nil},
		"no replica":                          {led(-1, []Member{other}, nil), 9, 7, "d", nil},
		"eligible, but somebody is in sync":   {led(-1, []Member{other}, []Member{me}), 1, 7, "d", nil},
		"eligible":                            {led(-1, nil, []Member{other, me}), 1, 7, "d", []Member{me}},
		"another process was eligible":        {led(-1, nil, []Member{other, me}), 1, 8, "d", nil},
		"another disk was eligible":           {led(-1, nil, []Member{other, me}), 1, 7, "x", nil},
		"nobody is in sync, nobody eligible":  {led(-1, nil, nil), 1, 7, "d", nil},
		"the only replica, as a later one":    {PartitionState{Leader: 1, LeaderEpoch: 4, Replicas: []int32{1}, ISR: []Member{me}}, 1, 8, "d", []Member{member(1, 8, "d")}},
		"the only replica is somewhere else":  {PartitionState{Leader: 1, LeaderEpoch: 4, Replicas: []int32{1}, ISR: []Member{me}}, 2, 3, "e", nil},
		"the epochs are used up":              {PartitionState{Leader: 1, LeaderEpoch: math.MaxInt32, Replicas: []int32{1}, ISR: []Member{me}}, 1, 7, "d", nil},
		"the first leadership names the rest": {PartitionState{Leader: -1, LeaderEpoch: -1, Replicas: []int32{1, 2, 3}}, 1, 7, "d", []Member{me, other, member(3, 5, "")}},
	} {
		im := emptyImage(1, nil)
		// Which of its disks the third one will take is not known.
		im.brokers = []*Broker{{Node: 1, Incarnation: 7, DirIDs: []string{"d"}}, {Node: 2, Incarnation: 3, DirIDs: []string{"e"}}, {Node: 3, Incarnation: 5, DirIDs: []string{"f", "g"}}}
		next, err := elect(im, tc.cur, LeadRequest{Node: tc.node, MinEpoch: -1, Incarnation: tc.inc, DirID: tc.dir})
		switch {
		case tc.isr == nil && !errors.Is(err, ErrNotEligible):
			t.Errorf("%s: %+v, %v", name, next, err)
		case tc.isr != nil && (err != nil || next.Leader != tc.node || next.LeaderEpoch != tc.cur.LeaderEpoch+1 || !reflect.DeepEqual(next.ISR, tc.isr)):
			t.Errorf("%s: %+v, %v", name, next, err)
		}
	}
}
