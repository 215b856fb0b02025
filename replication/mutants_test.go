package replication

import (
	"testing"

	"github.com/firnlog/firn/internal/mutation"
)

// TestMutants: the numbers are those of the rules that the package keeps.
func TestMutants(t *testing.T) {
	m := mutation.Of(t)
	m.Catch("1 the high watermark stops at the synced end", "watermark.go", `	if p.fsync.Load() {
		end = min(`, `	if false {
		end = min(`, "TestNobodySeesUnsyncedBytes")
	m.Catch("1 readers stop at the high watermark", "read.go", `limit := r.HighWatermark`, `limit := p.log.End()`, "TestNobodySeesUnsyncedBytes")
	m.Catch("1 uploads stop at the synced end", "read.go", `min(p.lso.Load(), p.log.SyncedEnd())`, `p.lso.Load()`, "TestUploadsStopAtTheSyncedEnd")
	m.Catch("1 an acknowledgement waits for the high watermark", "watermark.go", `	if a.End > p.hw.Load() {
		return false
	}
`, ``, "TestNobodySeesUnsyncedBytes")
	m.Catch("1 a failed sync ends the waits", "partition.go", `d.failWith(err, p.logger)`, `_ = err`, "TestAFailedSyncEndsAWaitingProduce")
	m.Catch("1 and those that begin after it", "watermark.go", `	if err := p.dir.Err(); err != nil {
		p.failOffline(err)
	}
`, ``, "TestAWaitAfterAFailedSyncEndsAtOnce")
	m.Catch("1 a failed sync is that of the whole dir", "offline.go", `	for _, p := range parts {`, `	for _, p := range parts[:min(1, len(parts))] {`, "TestAFailedSyncTakesTheDirOffline")
	m.Catch("1 nothing is appended to a dir that failed", "append.go", `	if err := p.dir.Err(); err != nil {
		return Appended{}, err
	}
`, ``, "TestAFailedSyncTakesTheDirOffline")
	m.Catch("1 and its logs are asked for no more syncs", "manager.go", `	if r.dir.Err() != nil {
		// What`, `	if false {
		// What`, "TestAFailedSyncTakesTheDirOffline")
	m.Catch("1 a folder that was made is synced", "open.go", `	for _, d := range above {`, `	for _, d := range above[:0] {`, "TestPowerCuts")

	m.Catch("2 every process is an incarnation of its own", "datadir.go", `	d.Meta.Incarnation++
`, ``, "TestDataDirKnowsItself")
	m.Catch("2 a clean marker is of the last incarnation", "datadir.go", ` && c.Incarnation == d.Meta.Incarnation`, ``, "TestACleanMarkerNamesItsRun")
	m.Catch("2 a clean marker is of this disk", "datadir.go", ` && c.DirID == d.Meta.DirID`, ``, "TestACleanMarkerNamesItsRun")
	m.Catch("2 a clean marker is used once", "datadir.go", `d.FS.Remove(filepath.Join(d.Path, cleanFile))`, `error(nil)`, "TestACleanMarkerNamesItsRun")
	m.Catch("2 no marker for a dir with a log that did not close", "manager.go", `				clean = false
`, ``, "TestAFailedSyncTakesTheDirOffline|TestADamagedLog")
	m.Catch("2 a missing log is said", "open.go", `	case r.made:`, `	case false:`, "TestAMissingLogIsSaid")
	m.Catch("2 logs without an identity are no fresh dir", "datadir.go", `err == nil && len(entries) > 0 {`, `err == nil && len(entries) < 0 {`, "TestLogsWithoutAnIdentity")

	m.Catch("3 a sole replica says what it lost", "open.go", `lost := p.log.HighWatermark() - p.log.End()`, `lost := int64(0)`, "TestASoleReplicaSaysWhatItLost")

	m.Catch("4 a new epoch is above the log's", "open.go", `minEpoch := lastEpoch(p.log)`, `minEpoch := int32(-1)`, "TestEveryStartIsANewEpoch")
	m.Catch("4 a new epoch is above the head's", "open.go", `minEpoch = max(minEpoch, t.MaxEpoch)`, `_ = minEpoch`, "TestNobodyWritesBelowTheBucketsEnd")
	m.Catch("4 an older epoch is not obeyed", "partition.go", `if epoch <= p.lead.epoch {`, `if false {`, "TestEpochsFence")
	m.Catch("4 an unclean replica reads the head", "open.go", `(!rec.Clean || p.log.End() == p.log.Start())`, `p.log.End() == p.log.Start()`, "TestNobodyWritesBelowTheBucketsEnd")
	m.Catch("4 an empty one, too", "open.go", `(!rec.Clean || p.log.End() == p.log.Start())`, `!rec.Clean && p.log.End() != p.log.Start()`, "TestAnEmptyLogTakesTheBucketsPlace")
	m.Catch("4 a head that cannot be read is waited for", "open.go", `			return fmt.Errorf("read the head in the bucket: %w", err)`, `			ok = false`, "TestAHeadThatCannotBeReadDelaysTheLead")
	m.Catch("4 nothing is written below the bucket's end", "open.go", `end < t.End {`, `end < 0 {`, "TestNobodyWritesBelowTheBucketsEnd")

	m.Catch("5 the end of a leadership ends its waits", "partition.go", `	p.lead.Unlock()
	p.failWaiters(-1)
`, `	p.lead.Unlock()
`, "TestAWatermarkThatPasses")
	m.Catch("5 so does the begin of the next", "partition.go", `	p.failWaiters(epoch)
`, ``, "TestAWatermarkThatPasses")
	m.Catch("5 a watermark that passes answers its own epoch", "watermark.go", `if leading && w.epoch == epoch {`, `if leading || epoch != w.epoch {`, "TestAWatermarkThatPasses")
	m.Catch("5 so does a look at it", "watermark.go", `return leading && epoch == a.Epoch`, `_, _ = leading, epoch
	return true`, "TestWaitingProduceBelongsToItsEpoch|TestAWatermarkThatPasses")
	m.Catch("5 a wait that begins too late ends", "watermark.go", `!leading || epoch != a.Epoch {`, `false && (!leading || epoch != a.Epoch) {`, "TestAWaitThatBeginsTooLate")
	m.Catch("5 no append is under way when a leadership has ended", "append.go", `	if !p.lead.leading {`, `	if p.lead.epoch < 0 {`, "TestEpochsFence")

	m.Catch("6 acks=all needs min.insync.replicas", "append.go", `p.lead.isr < min(p.Config().MinISR, p.lead.rf)`, `false`, "TestTooFewInSyncReplicas")
	m.Catch("6 the minimum is capped by the replication factor", "append.go", `min(p.Config().MinISR, p.lead.rf)`, `p.Config().MinISR`, "TestTooFewInSyncReplicas")
	m.Catch("6 and is of acks=all alone", "append.go", `o.Acks == -1 && p.lead.isr`, `p.lead.isr`, "TestTooFewInSyncReplicas")

	m.Catch("13 what is here is proved before it goes", "open.go", `err := m.cfg.Archive.Prove(ctx, r.tp, from, end); err != nil {`, `err := error(nil); err != nil {`, "TestALogBelowTheBucket")
	m.Catch("13 all of it", "open.go", `Prove(ctx, r.tp, from, end)`, `Prove(ctx, r.tp, end-1, end)`, "TestNobodyWritesBelowTheBucketsEnd")
	m.Catch("13 and is of the bucket's lineage", "open.go", `here != there {`, `false {`, "TestTwoHistoriesAreNotJoined")

	m.Catch("16 only a tombstone removes an open replica", "manager.go", `		if !im.Tombstoned(id) {
			continue
		}
		for _, r`, `		if _, ok := im.TopicByID(id); ok {
			continue
		}
		for _, r`, "TestAbsenceIsNeverDeletion")
	m.Catch("16 only a tombstone removes a stray", "open.go", `if im.Tombstoned(id) && !keep {`, `if !keep {`, "TestAbsenceIsNeverDeletion")
	m.Catch("16 what is absent is not gone", "manager.go", `if held || !m.cfg.Cluster.Image().Tombstoned(id) {`, `if held {`, "TestAbsenceIsNeverDeletion")
	m.Catch("16 nothing is led in safe mode", "open.go", `on := m.cfg.Cluster.SafeMode(); on {`, `on := m.cfg.Cluster.SafeMode(); on && false {`, "TestSafeModeElectsNothing")

	m.Catch("KIP-320 a reader of an older epoch is fenced", "partition.go", `		return ErrFencedEpoch
	default:`, `		return nil
	default:`, "TestEpochsFence")
	m.Catch("KIP-320 one of a later epoch comes too early", "partition.go", `		return ErrUnknownEpoch
	}
}`, `		return nil
	}
}`, "TestEpochsFence")
	m.Catch("KIP-320 a producer, too", "append.go", `o.CurrentEpoch >= 0 && o.CurrentEpoch != epoch {`, `o.CurrentEpoch > epoch {`, "TestEpochsFence")
	m.Catch("KIP-101 the leader's own epoch ends at the log end", "append.go", `	case epoch == current:
		return current, p.log.End()
`, ``, "TestEpochEnds")
	m.Catch("KIP-101 an epoch to come ends nowhere", "append.go", `	case epoch > current:`, `	case epoch > current+1000:`, "TestEpochEnds")
	m.Catch("DeleteRecords stops at the high watermark", "append.go", `offset > hw {`, `offset > p.log.End() {`, "TestDeleteRecordsKeepsItsBounds")
	m.Catch("DeleteRecords knows no negative offset", "append.go", `if offset < 0 || offset`, `if offset`, "TestDeleteRecordsKeepsItsBounds")
	m.Catch("DeleteRecords is for the leader", "append.go", `		return -1, ErrNotLeader
`, ``, "TestDeleteRecordsKeepsItsBounds")
	m.Catch("DeleteRecords leaves compacted topics", "append.go", `p.Config().CompactOnly()`, `false`, "TestDeleteRecordsKeepsItsBounds")
	m.Catch("nobody reads below the log start", "read.go", `offset < r.LogStart || `, ``, "TestDeleteRecordsKeepsItsBounds")
	m.Catch("retention takes sealed segments", "housekeeping.go", `if !s.Sealed || s.End > hw {`, `if s.End > hw {`, "TestRetentionTakesWholeOldSegments")
	m.Catch("retention stops at the high watermark", "housekeeping.go", `if !s.Sealed || s.End > hw {`, `if !s.Sealed || s.End > hw+1000 {`, "TestRetentionStopsAtTheHighWatermark")
	m.Catch("retention.bytes keeps that many", "housekeeping.go", `total-s.Bytes >= cfg.RetentionBytes`, `total >= cfg.RetentionBytes`, "TestRetentionTakesWholeOldSegments")
	m.Catch("retention moves the log start first", "housekeeping.go", `			if err := p.RaiseLogStart(below); err != nil {
				return err
			}
		}
	}
`, `			_, err := p.log.DeleteLocal(below)
			return err
		}
	}
`, "TestRetentionTakesWholeOldSegments")
	m.Catch("a topic that is gone keeps its configuration", "open.go", `	return r.config
`, `	return m.cfg.Cluster.Image().TopicConfig(r.tp.Topic)
`, "TestATopicMayVanish")
	m.Catch("2 a log's clean mark is of the process just before", "open.go", `Clean: r.dir.Clean, Incarnation: r.dir.Meta.Incarnation,`, `Clean: r.dir.Clean,`, "TestAFolderOfAnOlderTimeIsNotBelieved")
	m.Catch("17 safe mode deletes nothing", "housekeeping.go", `_, keep := m.cfg.Cluster.SafeMode()`, `keep := false`, "TestSafeModeDeletesNothing")
	m.Catch("8 a damaged segment is said", "scrub.go", `next, err := p.log.VerifySealed(ctx, base, pace)`, `next, err := int64(-1), error(nil)
			_ = pace`, "TestASealedSegmentThatRotsIsSaid")
}
