package group

import (
	"testing"

	"github.com/firnlog/firn/internal/mutation"
)

// TestMutants: the numbers are those of docs/SAFETY.md.
func TestMutants(t *testing.T) {
	m := mutation.Of(t)
	m.Catch("1 the journal is not trimmed before its snapshot is synced", "log.go", `if err := l.P.Log().Sync(ctx); err != nil {`, `if err := ctx.Err(); err != nil {`, "TestTrimWaitsForTheDisk")
	m.Catch("1 nor before all of it is in the journal", "snapshot.go", `	if failed != nil {
		return fmt.Errorf("journal a snapshot: %w", failed)
	}
`, ``, "TestAFailedSnapshotTrimsNothing")
	m.Catch("1 a snapshot has what nobody here can read", "snapshot.go", `	for _, r := range unknown {
`, `	for _, r := range unknown[:0] {
`, "TestForeignRecordsStay")
	m.Catch("1 and the offsets of every group", "snapshot.go", `		for tp, c := range g.offsets {
`, `		for tp, c := range map[topicPartition]committed(nil) {
`, "TestCrashKeepsAcknowledged|TestFailedSnapshotIsHarmless")
	m.Catch("1 a commit is answered when it is committed", "journal.go", `	if err := w.log.WaitCommitted(ctx, last); err != nil {`, `	if err := ctx.Err(); err != nil || last.End < 0 {`, "TestUnknownOutcomeIsReadFromTheLog")
	m.Catch("5 a commit whose outcome is not known is read from the log", "journal.go", `	if err := w.log.WaitCommitted(ctx, last); err != nil {
		return base, fmt.Errorf("%w: %w", errInDoubt, err)
	}`, `	if err := w.log.WaitCommitted(ctx, last); err != nil {
		return base, nil
	}`, "TestUnknownOutcomeIsReadFromTheLog")
	m.Catch("5 before anybody is told of it", "journal.go", `			s.refuseLocked(ErrLoading)
`, ``, "TestNobodyIsAnsweredFromBehindTheLog")
	m.Catch("5 a later epoch ends the leadership", "journal.go", `replication.ErrNotLeader, replication.ErrFencedEpoch`, `replication.ErrFencedEpoch`, "TestALaterEpochIsAnotherLeadership")
	m.Catch("16 offsets go with a tombstone that names their topic's id", "expire.go", `_, gone := byID[c.topicID]
			return gone`, `return true`, "TestDeletedTopicTakesItsOffsets")
	m.Catch("16 where they name no id, with one that is later", "expire.go", `return gone && c.at <= at.UnixMilli()`, `return gone && !at.IsZero()`, "TestOnlyATombstoneTakesOffsets")
	m.Catch("16 a topic that is not there is no reason", "expire.go", `_, gone := byID[c.topicID]
			return gone`, `_, there := s.c.cfg.Cluster.Image().TopicByID(c.topicID)
			return !there`, "TestOnlyATombstoneTakesOffsets")
	m.Catch("22 the journal may use the reserve", "log.go", `Protects: true}`, `Protects: false}`, "TestCommitsUseTheReserve")
	m.Catch("22 what waits for the journal is bounded", "journal.go", `case s.queued+e.bytes > maxQueued:`, `case false:`, "TestCommitsAreBounded")
	m.Catch("22 the journal stays small", "snapshot.go", `func (w *writer) due() bool { return w.size >= w.snapshot }`, `func (w *writer) due() bool { return false }`, "TestLogStaysBounded")
}
