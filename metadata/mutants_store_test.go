package metadata

import (
	"testing"

	"github.com/firnlog/firn/internal/mutation"
)

// TestMutantsOfTheStore are those of how writes are resolved, of formats, and of what a
// client makes of the store and of its guard when it starts.
func TestMutantsOfTheStore(t *testing.T) {
	m := mutation.Of(t)
	m.Catch("2 the first ISR names the disks", "partition_lead.go", `if len(b.DirIDs) == 1 {`, `if len(b.DirIDs) == 0 {`, "TestAPlaceBelongs")
	m.Catch("3 the eligible lead when nobody is in sync", "partition_lead.go", `		if len(cur.ISR) == 0 {
			places = cur.ELR`, `		if len(cur.ELR) > 0 {
			places = cur.ELR`, "TestAPlaceBelongs")
	m.Catch("4 nobody takes the leadership of another", "partition_lead.go", `if cur.Leader >= 0 && cur.Leader != r.Node {`, `if cur.Leader >= 0 && cur.Leader == -2 {`, "TestAPlaceBelongs|TestOnlyAReplicaInSyncLeads")
	m.Catch("4 a write in doubt is sent again as it was", "cas.go", `		doubt = true
		c.m.doubted()
`, `		c.m.doubted()
`, "TestALostAckIsNotASecondAttempt")
	m.Catch("4 our own value is recognised", "cas.go", `if bytes.Equal(e.Value, value) {`, `if bytes.Equal(e.Value, nil) {`, "TestALostAckIsNotASecondAttempt")
	m.Catch("4 a read that is older than the conflict decides nothing", "cas.go", `if err == nil && e.Revision >= want {`, `if err == nil && want > 0 {`, "TestAnAnswerOlderThanTheConflictDecidesNothing|TestALostAckIsNotASecondAttempt")
	m.Catch("4 a refusal is not made on a stale read", "cas.go", `if e.Revision < c.Image().known(key).revision && attempt < 100 {`, `if attempt < 0 {`, "TestARefusalIsNotMadeOnAStaleRead")
	m.Catch("4 a conflict is not a win", "cas.go", `		case errors.Is(err, ErrConflict) && !doubt:
			return 0, err`, `		case errors.Is(err, ErrConflict) && !doubt:
			return rev + 1, nil`, "TestRacingCreationsHaveOneWinner")
	m.Catch("4 two wishes for one key are two epochs", "batch.go", `if len(batch) == MaxBatch || keys[w.entry.Key] {`, `if len(batch) == MaxBatch {`, "TestABatchInDoubtIsNotASecondAttempt")
	m.Catch("4 a deletion in doubt is not refused", "topic_delete.go", `			if tried && slices`, `			if !tried && slices`, "TestADeletionInDoubtIsNotRefused")
	m.Catch("16 a known cluster is not begun again", "client.go", `		if !fresh {
			c.enterSafeMode("the store has no bucket`, `		if len(guarded) > 1000 {
			c.enterSafeMode("the store has no bucket`, "TestAClusterIsNeverBootstrappedTwice|TestALostStoreIsSafeMode")
	m.Catch("16 nor where there is something already", "client.go", `if !fresh || im.Revision() > 0 {`, `if !fresh {`, "TestNoClusterIsMadeOverAnother")
	m.Catch("16 another cluster's store is refused", "client.go", `if want != "" && want != im.ClusterID() {`, `if want != "" && im.ClusterID() == "" {`, "TestAClusterIsNeverBootstrappedTwice")
	m.Catch("16 a tombstone outlives its partitions' keys", "topic_delete.go", `return c.expired(&t) && !held && len`, `return c.expired(&t) && (held || !held) && len`, "TestATombstoneOutlivesItsPartitionsKeys")
	m.Catch("16 and the hints about it", "topic_delete.go", `!held && len(im.hintsOf(t.ID)) == 0`, `!held`, "TestHintsGoWithTheirTopic")
	m.Catch("16 deleting leaves a tombstone", "topic_delete.go", `		r.Tombstones = append(r.Tombstones, dead)
`, `		_ = dead
`, "TestTopicsLiveThroughTheirClients")
	m.Catch("16 nothing is deleted in safe mode", "topic_delete.go", `	if reason, on := c.SafeMode(); on {
		return fmt.Errorf("%w: %s", ErrSafeMode, reason)
	}
	ctx, cancel`, `	ctx, cancel`, "TestSafeModeSweepsNothing")
	m.Catch("16 a silent watch is not believed", "watch.go", `silent := c.behind.Swap(st.LastRevision) > watched`, `silent := c.behind.Swap(st.LastRevision) > watched+1<<40`, "TestASilentWatchIsNotBelieved")
	m.Catch("17 safe mode ends for nothing that contradicts", "watch.go", `if err := c.contradicts(entries); err != nil {`, `if err := c.contradicts(nil); err != nil {`, "TestWhatALaterVersionWroteStays")
	m.Catch("17 a damaged guard is said", "guard.go", `if at < 0 || crc32.Checksum(raw[:at], castagnoli) != s.Checksum {`, `if at < 0 {`, "TestEveryBitOfTheGuardIsCovered")
	m.Catch("17 and is not taken for none", "guard.go", `		return nil, fmt.Errorf("metadata guard %s: %w", path, err)
`, `		return &guardFile{fs: fsys, path: path}, nil
`, "TestAGuardSurvivesRestartsAndDamageIsSaid")
	m.Catch("17 a guard of a later version is refused", "guard.go", `if s.Major != guardMajor {`, `if s.Major < guardMajor {`, "TestAGuardOfALaterVersionIsRefused")
	m.Catch("17 what was lost just now is remembered", "safemode.go", `if c.safe.whole.Swap(false) {`, `if c.safe.whole.Swap(false) && c.guard.path == "" {`, "TestALossOfTheLastMomentOutlivesARestart")
	m.Catch("17 what a wrong store offers is not", "safemode.go", `if c.safe.whole.Swap(false) {`, `if c.safe.whole.Swap(false) || true {`, "TestSafeModeOutlivesARestart")
	m.Catch("18 the gap outlives a restart", "guard.go", `	g.unsafe = g.state.Unsafe
`, ``, "TestTheGapOutlivesARestart")
	m.Catch("18 until ids were reserved", "guard.go", `	next.Unsafe = g.unsafe
`, `	next.Unsafe = false
`, "TestTheGapOutlivesARestart")
	m.Catch("18 and no longer", "guard.go", `g.unsafe = g.unsafe && again()`, `g.unsafe = g.unsafe || again()`, "TestTheGapOutlivesARestart")
	m.Catch("18 a lost guard leaves a gap", "client.go", `if c.guard.lost() && !fresh {`, `if c.guard.lost() && fresh {`, "TestALostGuardLeavesAGapInTheProducerIDs")
	m.Catch("a later format is refused", "record.go", `if h := r.head(); h.Major != formatMajor {`, `if h := r.head(); h.Major < formatMajor {`, "TestANewerFormatIsRefused")
	m.Catch("and not written over", "cas.go", `			if err := decode(key, e.Value, r); err != nil {
				return err
			}
`, `			_ = decode(key, e.Value, r)
`, "TestWhatALaterVersionWroteStays")
}
