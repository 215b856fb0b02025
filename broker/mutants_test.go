package broker

import (
	"testing"

	"github.com/firnlog/firn/internal/mutation"
)

// TestMutants takes out, one at a time, what keeps requests in order, clients within
// their means, and answers whole.
func TestMutants(t *testing.T) {
	m := mutation.Of(t)
	m.Catch("7 appends in the order of arrival", "connection.go", `reply = a.handle(c.ctx, c.s, r)`, `reply = Reply{Wait: func(ctx context.Context) kmsg.Response { return a.handle(ctx, c.s, r).Response }}`, "TestAppendsKeepTheOrder")
	m.Catch("7 answers in the order of requests", "connection.go", `if a.ready == nil && a.park == nil && c.queued.Load() == 0 {`, `if a.ready == nil && a.park == nil {`, "TestAnswersKeepTheOrder")
	m.Catch("7 a cap of unanswered requests", "connection.go", `maxUnanswered = 100`, `maxUnanswered = 1000`, "TestUnansweredRequests")
	m.Catch("7 which stops reading", "connection.go", `for c.queued.Load() >= maxUnanswered {`, `for false {`, "TestUnansweredRequests")
	m.Catch("7 a cap of unanswered bytes", "connection.go", `c.bytes.Load()+size > c.s.cfg.Memory.fair()`, `c.bytes.Load() < 0`, "TestBytesInFlight|TestProducesThatWait")
	m.Catch("7 one request may be larger", "connection.go", `for c.queued.Load() > 0 && c.bytes`, `for c.bytes`, "TestBytesInFlight")
	m.Catch("7 a quota is charged at read", "connection.go", `	c.chargeRead(ans)
`, ``, "TestAQuota")
	m.Catch("7 and stops reading", "quota.go", `c.quietUntil.CompareAndSwap(old, end.UnixNano())`, `true`, "TestAQuota")
	m.Catch("7 acks=0 takes no slot", "connection.go", `} else if ans.resp == nil && ans.park == nil && !ans.close {`, `} else if false {`, "TestWithoutAcks")
	m.Catch("7 errors of acks=0 close the connection", "api_00_produce.go", `return Reply{Close: failed}`, `return Reply{Close: failed && false}`, "TestWithoutAcks")
	m.Catch("7 after all that came before", "connection.go", `for c.queued.Load() > 0 {`, `for false {`, "TestWithoutAcks")
	m.Catch("a frame's length has a bound", "frame.go", `if size < 8 || size > most {`, `if size < 8 {`, "TestHostileBytes")
	m.Catch("a frame's length alone allocates nothing", "frame.go", `out.make(min(int(size), max(frameStep, frameGrowth*have)))`, `out.make(int(size))`, "TestALengthAlone")
	m.Catch("nor does a large one", "frame.go", `step = max(int64(have)*factor, firstCharge)`, `step = cost`, "TestALengthAlone|TestALargeFrame")
	m.Catch("only a Produce may be large", "frame.go", `case !isProduce && size > maxOtherFrame:`, `case false:`, "TestRequestsThatNeverFit")
	m.Catch("a frame that has no room is refused", "frame.go", `case cost > f.memory.largest():`, `case false:`, "TestRequestsThatNeverFit")
	m.Catch("a frame has its time", "frame.go", `			f.deadline(f.now(), first)
		}
		end :=`, `		}
		end :=`, "TestStalledRequests")
	m.Catch("the first one has it once", "frame.go", `end = f.firstEnd`, `end = now.Add(firstFrameTimeout)`, "TestATrickledFirst")
	m.Catch("while we do not make it wait", "frame.go", `f.firstEnd = f.firstEnd.Add(f.now().Sub(begun))`, `_ = begun`, "TestATrickledFirst")
	m.Catch("memory is not overdrawn by small requests", "memory.go", `if m.used+step > m.total && m.used > 0 {`, `if false {`, "TestMemoryIsNever|TestSmallAndMedium")
	m.Catch("nor by medium ones", "memory.go", `if m.used+step > m.mediumEnd && m.used > 0 ||`, `if`, "TestMediumRequestsLeave")
	m.Catch("nor by large ones", "memory.go", `if m.kept+lacking > m.keptEnd || m.used+lacking > m.total && m.used > 0 {`, `if false {`, "TestMemoryIsNever")
	m.Catch("nor by their first steps", "memory.go", `m.common+step <= m.largeEnd-m.keptEnd && m.used+step <= m.total`, `true`, "TestMemoryIsNever")
	m.Catch("nor by batches that are opened", "opened.go", `m.opened.Acquire(ctx, n)`, `m.opened.Acquire(ctx, 0*n)`, "TestOpenedBatches")
	m.Catch("which are charged", "opened.go", `	m.add(n)
`, ``, "TestOpenedBatches")
	m.Catch("and bounded by the account", "opened.go", `min(maxDecodedProduce, m.openedEnd/2)`, `min(maxDecodedProduce, 64*m.openedEnd)`, "TestABatchOpens")
	m.Catch("but not by the usual ratio", "opened.go", `if l.MaxDecoded == most ||`, `if true ||`, "TestABatchOpens")
	m.Catch("every answer tells the throttle", "quota.go", `r.SetThrottle(int32((d + time.Millisecond - 1).Milliseconds()))`, `_ = r`, "TestAQuota|TestEveryAnswer")
	m.Catch("every answer is charged", "connection.go", `	a.r.Conn.throttle(a, 0)
	a.code`, `	if a.r.Key == 0 {
		a.r.Conn.throttle(a, 0)
	}
	a.code`, "TestEveryAnswer")
	m.Catch("a fetch is charged its bytes", "sendfile.go", `c.throttle(a, f.bytes())`, `c.throttle(a, 0)`, "TestFetchedBytes")
	m.Catch("an account is of one client", "quota.go", `key := quotaKey{principal, clientID}`, `key := quotaKey{principal, ""}`, "TestAnAccountIsOfOneClient")
	m.Catch("and of one principal", "quota.go", `key := quotaKey{principal, clientID}`, `key := quotaKey{"", clientID}`, "TestAnAccountIsOfOneClient")
	m.Catch("the right to a topic is asked for", "api_00_produce.go", `if !c.mayTopic(op, topic) {`, `if false {`, "TestEveryRequestAsks")
	m.Catch("before whether there is one", "api_03_metadata.go", `case q.Topic != nil && !r.Conn.mayTopic(kmsg.ACLOperationDescribe, *q.Topic):`, `case false:`, "TestEveryRequestAsks")
	m.Catch("the right to know of offsets", "api_23_offset_for_leader_epoch.go", `if !r.Conn.mayTopic(kmsg.ACLOperationDescribe, t.Topic) {`, `if false {`, "TestEveryRequestAsks")
	m.Catch("the right to a producer id", "api_22_init_producer_id.go", `if !s.mayWriteSomewhere(r.Conn) {`, `if false {`, "TestEveryRequestAsks")
	m.Catch("the right to delete records", "api_21_delete_records.go", `if !c.Allowed(kmsg.ACLOperationDelete, kmsg.ACLResourceTypeTopic, t.Topic) {`, `if false {`, "TestEveryAdministrative")
	m.Catch("the right to make a topic by the way", "api_03_metadata.go", `if !r.Conn.mayCreate(*t.Topic) {`, `if false {`, "TestEveryRequestAsks|TestATopicIsMade")
	m.Catch("nobody writes to the groups' journal", "api_00_produce.go", `if p.TopicPartition().Topic == group.Topic {`, `if p.TopicPartition().Topic == group.Topic+"x" {`, "TestNobodyWrites")
	m.Catch("21 strict is the topic's", "api_00_produce.go", `Strict: cfg.StrictValidation`, `Strict: false`, "TestATopicsRules")
	m.Catch("21 so are keys", "api_00_produce.go", `RequireKeys: cfg.Compact`, `RequireKeys: false`, "TestATopicsRules")
	m.Catch("21 and the codec", "api_00_produce.go", `Codec: codecOf(cfg)`, `Codec: record.ProducerCodec`, "TestATopicsRules")
	m.Catch("sendfile stays within the records", "sendfile.go", `int(min(left, sendStep))`, `int(min(left+1, sendStep))`, "TestFetchAnswers")
	m.Catch("so does a copy", "sendfile.go", `p := buf[:min(g.Len, int64(len(buf)))]`, `p := buf`, "TestFetchAnswers")
	m.Catch("a file that ends early ends the connection", "sendfile.go", `			return errShortFile
		}
		left`, `			return nil
		}
		left`, "TestAShortFile")
	m.Catch("records that cannot be read are an error", "fetch_answer.go", `p.ErrorCode, p.HighWatermark, p.LastStableOffset, p.LogStartOffset = codeStorage, -1, -1, -1`, `p.HighWatermark, p.LastStableOffset, p.LogStartOffset = -1, -1, -1`, "TestUnreadableRecords")
	m.Catch("and are forgotten", "sendfile.go", `unreadable(cut.records, i, err)`, `unreadable(cut.records, 0*i, err)`, "TestAnUnreadableRegion")
	m.Catch("connections of one address have a cap", "server.go", ` || s.perIP[ip] >= mostPerIP:`, `:`, "TestTooManyConnections")
	m.Catch("versions that are not served are refused", "connection.go", `if r.Version < a.min || r.Version > a.max {`, `if r.Version > a.max {`, "TestHostileBytes")
	m.Catch("DeleteRecords keeps its timeout", "api_21_delete_records.go", `withinTimeout(ctx, req.TimeoutMillis)`, `withinTimeout(ctx, 0)`, "TestDeleteRecordsKeeps")
}
