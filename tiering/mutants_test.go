package tiering

import (
	"testing"

	"github.com/firnlog/firn/internal/mutation"
)

// TestMutants: the numbers are those of the rules in judge_test.go and rules_test.go.
func TestMutants(t *testing.T) {
	m := mutation.Of(t)
	m.Catch("9 a later epoch fences the claim", "head.go", `if h.Epoch > ar.epoch || h.ClusterGeneration`, `if h.ClusterGeneration`, "TestALateLeaderClaimsNothing")
	m.Catch("9 an equal epoch fences the claim", "head.go", `if h.Epoch == ar.epoch && h.Nonce != ar.wrote {`, `if false {`, "TestAnEpochHasOneLeader")
	m.Catch("9 the head is replaced by compare-and-set", "head.go", `cond = objectstore.Cond{IfMatch: ar.etag}`, `cond = objectstore.Cond{}`, "TestZombieCommitsNothing|TestHistories")
	m.Catch("9 a claim comes before the first upload", "archive.go", `if !ar.claimed {
		if err := ar.claim(ctx)`, `if !ar.claimed && ar.head == nil {
		if err := ar.claim(ctx)`, "TestZombieCommitsNothing|TestHistories")
	m.Catch("9 objects of another lineage are dropped", "head.go", `if n < len(h.Entries) {
			ar.bury`, `if false {
			ar.bury`, "TestForeignObjects")
	m.Catch("9 by offset, for the log start moves", "head.go", `return h.Entries[i].Base >= foreign`, `return i >= own`, "TestForeignObjects")
	m.Catch("9 each head has a nonce of its own", "head.go", `	next.Nonce = newNonce()
`, ``, "TestSealedSegmentsSink|TestHistories")
	m.Catch("10 a missing head is an alarm", "head.go", `if known > 0 {`, `if known > 1<<62 {`, "TestMissingHeadIsAnAlarm")
	m.Catch("10 an older head is an alarm", "head.go", `if h.Generation < known {`, `if false {`, "TestMissingHeadIsAnAlarm")
	m.Catch("10 a first head needs an empty folder", "head.go", `ar.a.bucket.List(ctx, ar.folder)`, `ar.a.bucket.List(ctx, "elsewhere/")`, "TestFirstHeadNeedsAnEmptyFolder")
	m.Catch("10 a local hole without a head is an alarm", "head.go", `if err == nil && h == nil && logStart < localStart {`, `if err == nil && h == nil && logStart < -1 {`, "TestALocalHoleIsAnAlarm")
	m.Catch("10 heads that were only read are remembered", "head.go", `if ar.head == nil || ar.head.Generation`, `if ar.head == nil || !ar.claimed || ar.head.Generation`, "TestWhatWasReadIsRemembered")
	m.Catch("10 orphans above the end stay", "scrub.go", `if n.End > h.End && n.End > h.LogStart {`, `if false {`, "TestOrphans")
	m.Catch("10 orphans stay while what covers them is lost", "scrub.go", `if !n.Part && slices.ContainsFunc(lost`, `if false && slices.ContainsFunc(lost`, "TestAnOrphanMayBeTheLastCopy")
	m.Catch("11 only what is marked is deleted", "graves.go", `if g.State != format.Deleting {
			continue`, `if false {
			continue`, "TestRetentionSpansBothTiers|TestHistories")
	m.Catch("11 grace by our own time since we saw the burial", "graves.go", `due := now.Sub(ar.seen[g.Nonce]) >= grace && date`, `due := date`, "TestOnlyRipeGravesAreOpened|TestANewLeaderBeginsToCountAnew")
	m.Catch("11 grace by the store's time", "graves.go", `>= grace && date.UnixMilli()-g.Since >= grace.Milliseconds()`, `>= grace && !date.IsZero()`, "TestGraceNeedsBothClocks")
	m.Catch("11 orphans wait longer", "graves.go", `if g.Orphan {`, `if false {`, "TestOrphans")
	m.Catch("11 what is unlinked is buried", "graves.go", `	ar.bury(h, h.Entries[:n])
`, ``, "TestRetentionSpansBothTiers")
	m.Catch("11 stamps are the store's", "graves.go", `ar.clock.store.Add(ar.a.cfg.Now().Sub(ar.clock.ours))`, `ar.a.cfg.Now()`, "TestBurialsAreStampedByTheStore")
	m.Catch("11 a part goes after its objects", "graves.go", `[][]string{c.objects, c.parts}`, `[][]string{append(c.parts, c.objects...)}`, "TestAPartGoesAfterItsObjects")
	m.Catch("11 a deleted topic is fenced", "topic.go", `	if deleted {
`, `	if false {
`, "TestADeletedTopicIsNotClaimed")
	m.Catch("11 a topic waits for the grace time", "topic.go", `if now.Sub(seen) < a.cfg.Grace || date.UnixMilli()-t.SinceMs < a.cfg.Grace.Milliseconds() {`, `if date.UnixMilli() < now.Sub(seen).Milliseconds() {`, "TestTopicDeletion")
	m.Catch("11 a deleting topic is never unlinked again", "topic.go", `live := now.State != format.StateUnlinked && now.State != format.StateDeleting`, `live := now.State != format.StateUnlinked`, "TestDeletingIsIrrevocable")
	m.Catch("11 a topic that was revived stays", "topic.go", `unlinked := now.State == format.StateUnlinked`, `unlinked := true`, "TestDeletingIsIrrevocable")
	m.Catch("11 a topic's head says so before its objects go", "topic.go", `	if err := a.markDeleted(ctx, tp); err != nil {
		return err
	}
`, ``, "TestATopicGoesInOrder")
	m.Catch("11 a topic's head goes after its objects", "topic.go", `if found == 0 {`, `if found >= 0 {`, "TestADamagedHeadDoesNotKeepItsTopic")
	m.Catch("11 topic.json goes last", "topic.go", `err := a.emptyTopic(ctx, id, t); err != nil {`, `err := a.emptyTopic(ctx, id, t); err != nil && false {`, "TestOneObjectKeepsItsPartitionOnly")
	m.Catch("11 what appears during a deletion goes too", "topic.go", `if len(left) == 0 || len(errs) > 0 {`, `if true {`, "TestWhatAppearsDuringADeletionGoesToo")
	m.Catch("12 an unknown outcome is sent again", "head.go", `			w.doubt = true
`, `			ar.pending = nil
			return err
`, "TestUnknownOutcomes")
	m.Catch("12 a refusal may come from our own first attempt", "head.go", `if h.Nonce == w.head.Nonce && h.Generation == w.head.Generation {`, `if false {`, "TestUnknownOutcomes")
	m.Catch("12 doubt outlives a certain failure", "head.go", `			if !w.doubt {
				ar.pending = nil // it had`, `			if true {
				ar.pending = nil // it had`, "TestDoubtOutlivesACertainFailure")
	m.Catch("12 doubt outlives an answer of no head", "head.go", `		ar.claimed, ar.loaded = false, false
		return fmt.Errorf("%w: the manifest of %s-%d vanished"`, `		ar.pending, ar.claimed, ar.loaded = nil, false, false
		return fmt.Errorf("%w: the manifest of %s-%d vanished"`, "TestAVanishedAnswer")
	m.Catch("12 objects are created, never replaced", "upload.go", `b.size, objectstore.Cond{IfNoneMatch: true})`, `b.size, objectstore.Cond{})`, "TestObjectsAreNeverReplaced|TestSealedSegmentsSink")
	m.Catch("13 a fresh look at the head", "retention.go", `h, err := ar.fresh(ctx)`, `h, err := ar.head, error(nil)`, "TestADeposedLeaderDeletesNothingLocally")
	m.Catch("13 the store is asked for each object", "retention.go", `err := ar.a.verify(ctx, ar.a.key(ar.tp, e), e)`, `var err error`, "TestDamagedObjectsKeepTheLocalCopy")
	m.Catch("13 length and ETag must be those of the commit", "upload.go", `if info.Size != e.Size || info.ETag != e.ETag ||`, `if`, "TestWithoutChecksumsLengthAndETagDecide")
	m.Catch("13 the ETag, for the length may be the same", "upload.go", `if info.Size != e.Size || info.ETag != e.ETag ||`, `if info.Size != e.Size ||`, "TestWithoutChecksumsLengthAndETagDecide")
	m.Catch("13 the checksum, where the store keeps one", "upload.go", ` || info.CRC32C != nil && *info.CRC32C != e.CRC {`, ` {`, "TestAnotherChecksumKeepsTheLocalCopy")
	m.Catch("13 no local deletion before the head is remembered", "retention.go", `	if err := ar.remember(); err != nil {
		return 0, err
	}
`, ``, "TestNoLocalDeletionWithoutMemory")
	m.Catch("13 objects leave the disk whole", "retention.go", `if e.End > to {`, `if false {`, "TestObjectsLeaveTheDiskWhole")
	m.Catch("13 while they do not, nobody is asked", "retention.go", `if below < ar.mu.whole {`, `if false {`, "TestObjectsLeaveTheDiskWhole")
	m.Catch("14 producers at exactly the end", "upload.go", `ar.src.ProducersAt(f.End)`, `ar.src.ProducersAt(ar.localEnd())`, "TestFootersFoldExactlyAtTheirEnd")
	m.Catch("14 aborted transactions whose marker is elsewhere", "upload.go", `ar.src.Aborted(f.Base, f.End)`, `ar.src.Aborted(f.End-1, f.End)`, "TestFootersFoldExactlyAtTheirEnd")
	m.Catch("14 and those that began elsewhere", "upload.go", `ar.src.Aborted(f.Base, f.End)`, `ar.src.Aborted(f.Base, f.Base+1)`, "TestFootersFoldExactlyAtTheirEnd")
	// Not rules, but each once stopped a partition for good.
	m.Catch("the head has room for many aborted transactions", "parts.go", `if ar.headSize <= spillBytes ||`, `if true ||`, "TestManyAbortsFitTheHead")
	m.Catch("a part under a rising log start", "parts.go", `case last >= 0 && h.Parts[last].Nonce == old.Nonce:`, `case true:`, "TestSpillUnderARisingLogStart")
	m.Catch("one kind of work does not stop the others", "archive.go", `if !ar.claimed || ar.pending != nil || ar.fenced ||`, `if true ||`, "TestOneBadPartStopsNothingElse|TestOneUndeletableObject")
	m.Catch("each kind of work has a pace of its own", "archive.go", `	ar.tried(beginning, nil)
	return errors.Join(errs...)`, `	ar.tried(beginning, errors.Join(errs...))
	return errors.Join(errs...)`, "TestUploadsKeepTheirPace|TestGravesEmptyBesideFailingUploads")
	m.Catch("what fails is left alone for a while", "archive.go", `a.until = now.Add(wait/4 + rand.N(wait))`, `a.until = now`, "TestUploadsKeepTheirPace|TestAStoreThatIsAwayIsAskedNowAndThen")
	m.Catch("a topic that changes is told", "archive.go", `work[describing] = ar.a.undescribed(ar.tp)`, ``, "TestTopicJSONFollowsTheTopic")
	m.Catch("what was told is what the metadata said", "topic.go", `a.mu.described[tp.TopicID] = said`, `_, a.mu.described[tp.TopicID] = said, info`, "TestTopicJSONFollowsTheTopic")
	m.Catch("a repair needs nothing below the log start", "scrub.go", `from = max(from, localStart)`, ``, "TestRepairNeedsNothingBelowTheLogStart")
	m.Catch("uploads keep their rate", "pace.go", `if p.rate <= 0 {`, `if true {`, "TestUploadsKeepTheirRate")
	m.Catch("idle time earns nothing", "pace.go", `p.busy = max(p.busy-d, 0)`, `p.busy -= d`, "TestUploadsKeepTheirRate")
	m.Catch("the rate is reached", "pace.go", `	p.last = t
	p.busy +=`, `	p.last = t
	p.busy += 2 *`, "TestUploadsKeepTheirRate")
	m.Catch("partitions share the rate", "pace.go", `	t := now()
	if d`, `	t := now()
	p.busy = 0
	if d`, "TestPartitionsShareTheRate")
	m.Catch("a damaged head is looked at twice", "topic.go", `for range 2 { // it may`, `for range 1 { // it may`, "TestDamageOnTheWayIsLookedAtTwice")
	m.Catch("a damaged topic.json does not keep its topic", "topic.go", `if errors.Is(err, format.ErrCorrupt) {`, `if create && errors.Is(err, format.ErrCorrupt) {`, "TestADamagedHeadDoesNotKeepItsTopic")
	m.Catch("a damaged head does not keep its topic", "topic.go", `if err != nil && !errors.Is(err, format.ErrCorrupt) {
			return fmt.Errorf("%s: %w", key, err)`, `if err != nil {
			return fmt.Errorf("%s: %w", key, err)`, "TestADamagedHeadDoesNotKeepItsTopic")
	m.Catch("a listing at its own pace", "archive.go", `case err == nil || errors.Is(err, errLost):`, `case err == nil:`, "TestALostObjectIsNotAskedForInEveryPass")
	m.Catch("bytes that move keep a pass alive", "archive.go", `ar.moved = func() { t.Reset(patience) }`, `ar.moved = func() {}`, "TestSlowUploadsEnd")
	m.Catch("retention in parts is quiet", "retention.go", `if p.Nonce == kept.part {`, `if false {`, "TestRetentionInPartsIsQuiet")
	m.Catch("a pass ends with the leadership", "archive.go", `	if ar.ctx.Err() != nil {
		ar.unlock()`, `	if false {
		ar.unlock()`, "TestResignIsTheEnd")
	m.Catch("17 safe mode deletes nothing", "archive.go", `if w.job != uploading && ar.a.keepAll() {`, `if false {`, "TestSafeModeKeepsAll")
	m.Catch("8 a damaged segment is left to the bucket", "retention.go", `s.End <= damaged || `, `s.End < damaged-1<<40 || `, "TestADamagedSegmentGoes")
	m.Catch("8 what is damaged is not uploaded", "format/segment.go", `b.CheckCRC()`, `error(nil)`, "TestADamagedSegmentGoes")
}
