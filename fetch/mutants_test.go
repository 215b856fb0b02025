package fetch

import (
	"testing"

	"github.com/firnlog/firn/internal/mutation"
)

func TestMutants(t *testing.T) {
	m := mutation.Of(t)
	m.Catch("14 a fetch knows the aborted transactions of the bucket", "reader.go", `union(c.aborted, p.aborted(c.base, c.end))`, `p.aborted(c.base, c.end)`, "TestCommittedReads")
	m.Catch("14 and those of the local log", "reader.go", `union(c.aborted, p.aborted(c.base, c.end))`, `c.aborted`, "TestCommittedReads")
	m.Catch("14 for its range, not for the object's", "serve.go", `overlapping(l.aborted, r.end, end)`, `l.aborted`, "TestCommittedReads")
	m.Catch("14 a transaction counts from before its marker", "serve.go", `if a.First < end && a.Last >= start {`, `if a.Last >= start && a.Last < end {`, "TestCommittedReads")
	m.Catch("20 work outlives its request while it waits for a slot", "cold.go", `return j.served && len(j.subs) == 0`, `return len(j.subs) == 0`, "TestWorkOutlivesItsRequest")
	m.Catch("20 what was served is not pinned for nobody", "cold.go", `return j.served && len(j.subs) == 0`, `return false`, "TestAServedReplayPinsNothing")
	m.Catch("20 a failure waits for its consumer", "cold.go", `if j.err != nil && now.Sub(j.at) < failedFor {`, `if false {`, "TestDamageIsAnError|TestHoleIsAnError")
	m.Catch("20 readiness pokes who waits", "cold.go", `for ch := range j.subs {
		select`, `for ch := range map[chan<- struct{}]struct{}(nil) {
		select`, "TestAFastColdPartition")
	m.Catch("20 readiness marks the session's partition", "session.go", `must := o.Bytes > 0 || o.Diverging`, `must := o.Diverging`, "TestASessionHears")
	m.Catch("20 a cold partition that is ready has room beside hot ones", "reader.go", `most = min(most, left-reserve)`, `most = min(most, left)`, "TestHotNeverWaitsForCold")
	m.Catch("20 a full queue is asked again", "cold.go", `		if c.jobs[key] == j {
			delete(c.jobs, key)
		}
`, ``, "TestFullQueues|TestAFullSlot")
	m.Catch("20 a cold partition is not hot in the answer", "reader.go", `	res.Cold = true
`, `	res.Cold = r.cold.ready(p.id(), p.epoch(), part.Offset)
`, "TestAFullSlot")
	m.Catch("20 no client has all slots", "slots.go", `if c.running >= s.perClient {`, `if false {`, "TestSlotsAreFair")
	m.Catch("8 bytes of the bucket are checked", "fill.go", `if sum := crc32.Checksum(stored, castagnoli); sum != ch.crc {`, `if sum := ch.crc; sum != ch.crc {`, "TestDamageIsAnError")
	m.Catch("8 damage is fetched once more", "fill.go", `for range 2 {`, `for range 1 {`, "TestDamageIsAnError")
	m.Catch("8 a cached chunk that went bad is forgotten", "serve.go", `			h.Discard(err)
`, ``, "TestAChunkThatGoesBad")
	m.Catch("8 and fetched again for the same request", "reader.go", `	case err != nil && ev.mended != nil && ev.mended[i]:
`, `	case err != nil:
		return err
	case err != nil && ev.mended[i]:
`, "TestAChunkThatGoesBad")
	m.Catch("8 but once", "reader.go", `		ev.mended[i] = true
`, ``, "TestADiskThatLies")
	m.Catch("8 a chunk that cannot be sent is forgotten", "records.go", `			if file.err != nil {`, `			if false {`, "TestRecordsThatCannotBeSent")
	m.Catch("a client that goes away spoils no chunk", "records.go", `			if file.err != nil {`, `			if err != nil {`, "TestRecordsThatCannotBeSent")
	m.Catch("the fork is at the local start", "reader.go", `if part.Offset < p.localStart() {
		r.prepareCold`, `if part.Offset < p.localStart()-1 {
		r.prepareCold`, "TestTheFork")
	m.Catch("the fork: below the log start nothing is cold", "reader.go", `	if !errors.Is(err, commitlog.ErrBelowLocal) {
		res.Err = err
		return
	}
	res.Cold`, `	res.Cold`, "TestAnswersAsKafkaRecorded")
	m.Catch("the fork is taken again when the local start passes", "reader.go", `			res.Cold, res.Waiting, res.again = true, true, true`, `			res.Cold, res.Waiting = true, true`, "TestALocalStartThatPasses")
	m.Catch("the limit of a request spans its partitions", "reader.go", `		left = max(left-n, 0)
`, ``, "TestByteLimits|TestAnswersAsKafkaRecorded")
	m.Catch("the limit of a partition", "batches.go", `(h.pos+h.size-pos > max && !(first && minOne))`, `(h.pos > pos+max && !(first && minOne))`, "TestByteLimits|TestCutAgrees")
	m.Catch("KIP-74: a first batch of any size", "serve.go", `minOne && r.records.len == 0`, `false`, "TestHugeBatch|TestAnswersAsKafkaRecorded")
	m.Catch("KIP-74: of the first partition only", "reader.go", `part, minOne := &q.Parts[i], ev.bytes == 0`, `part, minOne := &q.Parts[i], true`, "TestByteLimits|TestAnswersAsKafkaRecorded")
	m.Catch("cold reads end at the last stable offset", "reader.go", `		limit = res.LastStable
`, ``, "TestColdStopsAtTheWatermarks")
	m.Catch("one job for all who want an offset", "cold.go", `fresh := j == nil`, `fresh := j == nil || ch != nil`, "TestManyConsumers")
	m.Catch("a stale head is read once more", "cold.go", `			if refreshed {
				return err`, `			if refreshed || true {
				return err`, "TestStaleManifest")
	m.Catch("and only once", "cold.go", `			refreshed = true
`, `			refreshed = attempt > 3
`, "TestStaleManifest")
	m.Catch("another epoch may have another lineage", "layouts.go", `if pl == nil || pl.epoch != epoch {
		return nil, false`, `if pl == nil {
		return nil, false`, "TestRecreatedTopic")
	m.Catch("where the bucket ends is not guessed", "times.go", `		return -1, fmt.Errorf("%w: where the bucket ends: %w", ErrColdRead, err)
`, `		return -1, nil
`, "TestTimesFailWithTheBucket")
}
