package commitlog

import (
	"testing"

	"github.com/firnlog/firn/internal/mutation"
)

// TestMutants: TestEverySyncMatters takes away each sync by itself; here are the
// order of things and the rules that are no sync.
func TestMutants(t *testing.T) {
	m := mutation.Of(t)
	m.Catch("1 sealed segments are synced before the end counts", "flusher.go", `		if err := s.file.Datasync(); err != nil {`, `		if err := error(nil); err != nil {`, "TestPowerCuts")
	m.Catch("1 the active segment too", "flusher.go", `if file != nil && (end > l.synced.Load() || force) {`, `if file != nil && false {`, "TestPowerCuts")
	m.Catch("1 the folder entry of a new segment too", "flusher.go", `	if dir {
`, `	if dir && false {
`, "TestPowerCuts")
	m.Catch("1 the end counts after the syncs", "flusher.go", `	failpoint.Hit(failpoint.Fsync)
`, `	l.synced.Store(max(end, l.synced.Load()))
`, "TestPowerCuts|TestFailedSyncIsFinal")
	m.Catch("1 a slot is written after the syncs", "flusher.go", `	failpoint.Hit(failpoint.Fsync)
`, `	if due {
		l.checkpoint(at, states, aborted)
		due = false
	}
`, "TestPowerCuts")
	m.Catch("1 a slot comes after the producers it points to", "fold.go", `if err := f.Datasync(); err != nil {`, `if err := error(nil); err != nil {`, "TestPowerCuts")
	m.Catch("1 two files for them, by turns", "checkpoint.go", `		fold = 1 - fold
`, ``, "TestPowerCuts")
	m.Catch("1 what a recovery found is synced before anyone counts on it", "recover.go", `	return l.flush(true)
}`, `	l.synced.Store(end)
	return nil
}`, "TestPowerCuts")
	m.Catch("1 its sealed segments too", "recover.go", `if s != active && s.base >= k.segment {`, `if s != active && s.base > end {`, "TestPowerCuts")
	m.Catch("1 a log start is never above what is synced", "trim.go", `if offset > l.SyncedEnd() {`, `if false {`, "TestStartNeverHidesLaterRecords|TestPowerCuts")
	m.Catch("1 a reset shows nothing before it is durable", "trim.go", `	if err := l.writeEpochs(epochs); err != nil {
		return l.writeFailure(err)`, `	l.synced.Store(end)
	if err := l.writeEpochs(epochs); err != nil {
		return l.writeFailure(err)`, "TestPowerCuts")
	m.Catch("4 an epoch is durable before a record carries it", "epochs.go", `	if err := l.writeEpochs(list); err != nil {
		return err
	}
`, ``, "TestPowerCuts")
	m.Catch("4 epochs never go back", "append.go", `if epoch < last {`, `if false {`, "TestEpochsNeverGoBack")
	m.Catch("8 a deleted segment's readers keep it", "segment.go", `if s.file == nil || s.refs > 0 {`, `if s.file == nil {`, "TestReadersKeepDeletedBytes")
	m.Catch("8 a batch is written before its end is seen", "append.go", `	if n, err := s.file.WriteAt(buf, pos); err != nil {
`, `	s.end.Store(next)
	s.size.Store(pos + size)
	l.end.Store(next)
	if n, err := s.file.WriteAt(buf, pos); err != nil {
`, "TestNothingIsSeenBeforeItIsWritten")
	m.Catch("8 a reader keeps its file open", "segment.go", `if s.refs > 0 || s.file == nil || s.pinned {`, `if s.file == nil || s.pinned {`, "TestReadersKeepTheirFiles")
	m.Catch("8 nothing above the limit of a read", "read.go", `if first.next > upTo {`, `if false {`, "TestReadsGiveBackTheAppendedBytes|TestReadersSeeOnly")
	m.Catch("13 deletion stops at the checkpoint", "trim.go", `segs, n = l.deletable(below, l.ckpt.get().segment)`, `segs, n = l.deletable(below, MaxOffset)`, "TestDeletionStopsAtTheCheckpoint")
	m.Catch("13 the local start is durable before files go", "trim.go", `if err := l.updateBothSlots(func(c *checkpoint) { c.localStart = local }); err != nil {`, `if err := error(nil); err != nil {`, "TestReadersKeepDeletedBytes|TestPowerCuts")
	m.Catch("13 in both slots", "trim.go", `	return l.updateCheckpoint(change)
`, `	return nil
`, "TestDamagedCheckpoints")
	m.Catch("14 producers are kept before their batches go", "trim.go", `for n > 0 && !l.foldable(segs[n].base) {`, `for false {`, "TestProducersAreKeptBeforeTheirBatchesGo")
	m.Catch("14 nobody folds from nothing", "recover.go", `	if base > 0 {
		return nil, 0,`, `	if false {
		return nil, 0,`, "TestDerivedFilesAreMadeAgain")
	m.Catch("22 a partial append is cut back", "append.go", `		if n > 0 {
`, `		if n > 1<<40 {
`, "TestFullDiskLeavesTheLogIntact")
	m.Catch("22 or the log goes offline", "append.go", `return Appended{}, l.fail(errors.Join(err, terr))`, `return Appended{}, l.writeFailure(errors.Join(err, terr))`, "TestAPartialAppendThatStaysIsFinal")
	m.Catch("22 a failed sync is final", "log.go", `	if p := l.offline.Load(); p != nil {
		return *p
	}
	if l.closed`, `	if l.closed`, "TestFailedSyncIsFinal")
	m.Catch("22 nothing is synced by a failed sync", "flusher.go", `		if err := file.Datasync(); err != nil {
			return l.fail(err)
		}`, `		if err := file.Datasync(); err != nil {
			l.fail(err)
		}`, "TestFailedSyncIsFinal")
	m.Catch("22 a checkpoint has room for its first producers", "fold.go", `if has >= foldBlock {`, `if true {`, "TestAFullDiskKeepsNoFirstCheckpointBack")
	m.Catch("22 and for more", "fold.go", `size < used*3/2 {`, `size < used {`, "TestAFullDiskKeepsNoCheckpointBack")
	m.Catch("a torn tail is cut", "recover.go", `			if err := s.file.Truncate(pos); err != nil {`, `			if err := error(nil); err != nil {`, "TestTornTailIsCut")
	m.Catch("a torn tail is found", "recover.go", `|| b.CheckCRC() != nil `, ``, "TestTornTailIsCut")
	m.Catch("damage below the checkpoint is never truncated", "recover.go", `if size < k.pos {`, `if false {`, "TestDamageBelowTheCheckpointIsNotTruncated|TestAShorterSegmentIsDamage")
	m.Catch("a lost segment is no tail", "recover.go", `if found && !slices.Contains(bases, base) {`, `if found && base < 0 {`, "TestALostSegmentIsDamage")
	m.Catch("without a checkpoint nothing is cut", "recover.go", `			if !found {
				return 0,`, `			if false {
				return 0,`, "TestDamagedCheckpoints")
	m.Catch("without a checkpoint a trimmed log does not know its start", "recover.go", `if base != end && !found {`, `if false {`, "TestDamagedCheckpoints")
	m.Catch("a trim of a closed log is refused", "checkpoint.go", `	if k.f == nil {
		return ErrClosed
	}
`, ``, "TestAClosedLogRefusesTrims")
	m.Catch("the log start only grows", "trim.go", `	raise(&l.start, offset)
`, `	l.start.Store(offset)
`, "TestTheLogStartNeverGoesBack")
	m.Catch("a checkpoint is due by bytes", "flusher.go", `due := force || l.sinceCkpt >= l.cfg.CheckpointBytes || l`, `due := force || l`, "TestACrashScansAtMostTheBound")
	m.Catch("and by time on an idle log", "flusher.go", `l.ckpt.covered.Load() < l.end.Load() && now`, `l.synced.Load() < l.end.Load() && now`, "TestAnIdleLogIsCheckpointedOnce")
	m.Catch("and then costs nothing", "flusher.go", `l.ckpt.covered.Load() < l.end.Load() && now`, `now`, "TestAnIdleLogIsCheckpointedOnce")
	m.Catch("a log is queued once", "flusher.go", `if l.flushQueued.CompareAndSwap(false, true) {`, `if l.flushQueued.Store(true); true {`, "TestAppendsShareASync")
	m.Catch("KIP-98 a repeated batch is a duplicate", "producers.go", `if r.FirstSeq == first && r.LastSeq == last {`, `if r.FirstSeq == first && r.LastSeq == last && false {`, "TestIdempotence")
	m.Catch("KIP-98 sequences have no holes", "producers.go", `if first != want {`, `if first != want && false {`, "TestIdempotence")
	m.Catch("KIP-98 an older producer epoch is fenced", "producers.go", `case epoch < st.Epoch:`, `case false:`, "TestIdempotence")
	m.Catch("KIP-98 a new producer epoch begins at 0", "producers.go", `		if first != 0 {
`, `		if false {
`, "TestIdempotence")
	m.Catch("KIP-98 the fold outlives a kill", "recover.go", `	if restored != nil && bad == len(segs) {
		l.producers.Store(restored)`, `	if restored != nil && bad == len(segs) {
		l.producers.Store(newProducers())`, "TestIdempotence")
	m.Catch("producers are idle by our clock", "producers.go", `	st.LastTimestamp = now
`, `	st.LastTimestamp = b.MaxTimestamp()
`, "TestProducersExpireWhenTheyAreIdle")
	m.Catch("KIP-101 an epoch older than all ends where the first begins", "epochs.go", `		return epoch, end
`, `		return -1, -1
`, "TestEpochEndsAreKafkas")
	m.Catch("8 rot is looked for in every batch", "verify.go", `if b == nil || b.BaseOffset() != at ||`, `if b == nil ||`, "TestRotIsFound")
	m.Catch("8 and in epochs", "verify.go", ` || l.EpochAt(at) >= 0 && l.EpochAt(at) != b.LeaderEpoch() {`, ` {`, "TestRotIsFound")
	m.Catch("18 the greatest producer id is known", "producer_ids.go", `greatest = max(greatest, id)`, `_ = id`, "TestTheGreatestProducerIDIsKnown")
}
