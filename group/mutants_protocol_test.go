package group

import (
	"testing"

	"github.com/firnlog/firn/internal/mutation"
)

// TestMutantsOfTheProtocol are those of what a group promises its members, and of
// where its journal begins and ends: beside the numbered rules, it is what an
// acknowledged commit depends on.
func TestMutantsOfTheProtocol(t *testing.T) {
	m := mutation.Of(t)
	m.Catch("1 the journal is trimmed to where its snapshot begins", "snapshot.go", `	if base < 0 {
		// Nothing`, `	if base < 1<<62 {
		// Nothing`, "TestCrashKeepsAcknowledged")
	m.Catch("1 a snapshot has the members too", "snapshot.go", `		if g.journaled != nil {
			records`, `		if g.journaled != nil && len(g.offsets) == 0 {
			records`, "TestASnapshotHasMembersAndOffsets")
	m.Catch("5 an append belongs to its epoch", "log.go", `CurrentEpoch: epoch, `, `CurrentEpoch: -1, `, "TestAnAppendBelongsToItsEpoch")
	m.Catch("12 half of what was to be written is an unknown outcome", "journal.go", `			if base >= 0 {
				return`, `			if base > 1<<62 {
				return`, "TestHalfOfADeletionIsReadFromTheLog")
	m.Catch("a failed append changes nothing", "coordinator.go", `			a.give(CommitResult{Err: err})
		} else {`, `			a.give(CommitResult{Err: err})
		}
		if len(tps) > 0 {`, "TestFailedAppendChangesNothing")
	m.Catch("a fetch sees the commits before it", "coordinator.go", `if g == nil || g.commits == 0 {`, `if g == nil || g.commits >= 0 {`, "TestFetchSeesTheCommitsBeforeIt")
	m.Catch("an old generation commits nothing", "offsets.go", `case r.Generation != g.generation:`, `case r.Generation > g.generation:`, "TestAnOldGenerationIsFenced")
	m.Catch("an old generation gets no assignment", "sync.go", `case r.Generation != g.generation:`, `case r.Generation > g.generation:`, "TestAnOldGenerationIsFenced")
	m.Catch("an old generation keeps no session", "sync.go", `case generation != g.generation:`, `case generation > g.generation:`, "TestAnOldGenerationIsFenced")
	m.Catch("a static member that was replaced is fenced", "state.go", `case holder != memberID:`, `case holder == "":`, "TestStaticMemberReturns")
	m.Catch("an assignment is given out when it is journaled", "sync.go", `		if err != nil {
			g.endSyncs(err)`, `		if err != nil && generation < 0 {
			g.endSyncs(err)`, "TestUnjournaledAssignmentIsNotGivenOut")
	m.Catch("a late assignment does not overrule a rebalance", "sync.go", `if g.state != CompletingRebalance || g.generation != generation {`, `if g.generation != generation {`, "TestLateJournalDoesNotOverrule")
	m.Catch("nor does it reach the next generation", "sync.go", `if g.state != CompletingRebalance || g.generation != generation {`, `if g.state != CompletingRebalance || generation < 0 {`, "TestALateJournalIsOfItsGeneration")
	m.Catch("what is being deleted takes no commits", "offsets.go", `	if g.deleting {
		return ErrNotAvailable
	}
`, ``, "TestDeletedGroupTakesNothing")
}
