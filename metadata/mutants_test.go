package metadata

import (
	"testing"

	"github.com/firnlog/firn/internal/mutation"
)

// TestMutants: the numbers are those of docs/SAFETY.md.
func TestMutants(t *testing.T) {
	m := mutation.Of(t)
	m.Catch("2 another incarnation has not earned the place", "partition_lead.go", `case places[i].Incarnation != r.Incarnation:`, `case false:`, "TestAPlaceBelongsToTheReplicaThatEarnedIt")
	m.Catch("2 nor has another disk", "partition_lead.go", `case places[i].DirID != "" && places[i].DirID != r.DirID:`, `case false:`, "TestAPlaceBelongsToTheReplicaThatEarnedIt")
	m.Catch("3 without anybody in sync the eligible lead", "partition_lead.go", `			places = cur.ELR
`, `			places = nil
`, "TestAPlaceBelongsToTheReplicaThatEarnedIt")
	m.Catch("2 who is not in sync leads nothing", "partition_lead.go", `		case i < 0:
			return cur,`, `		case i < 0:
			next.ISR, next.ELR = []Member{me}, nil
			return next, nil
			return cur,`, "TestAPlaceBelongsToTheReplicaThatEarnedIt")
	m.Catch("2 an older process does not take over the registration", "registration.go", `return ErrStaleIncarnation`, `return nil`, "TestAStaleIncarnationIsToldToStop")
	m.Catch("3 a sole replica leads again", "partition_lead.go", `case len(cur.Replicas) == 1:`, `case len(cur.Replicas) == 0:`, "TestASoleReplicaLeadsAgain")
	m.Catch("4 every leadership is a new epoch", "partition_lead.go", `next.Leader, next.LeaderEpoch = r.Node, epoch+1`, `next.Leader, next.LeaderEpoch = r.Node, max(epoch, 0)`, "TestALostAckIsNotASecondAttempt")
	m.Catch("4 above all that anybody is known to have used", "partition_lead.go", `epoch := max(cur.LeaderEpoch, r.MinEpoch)`, `epoch := cur.LeaderEpoch`, "TestOnlyAReplicaInSyncLeads")
	m.Catch("4 a conflict after a doubtful attempt may be our own", "cas.go", `case errors.Is(err, ErrConflict) && !doubt:`, `case errors.Is(err, ErrConflict):`, "TestALostAckIsNotASecondAttempt")
	m.Catch("4 also in a batch", "batch.go", `if doubt = errors.Is(err, ErrInDoubt); doubt {`, `if errors.Is(err, ErrInDoubt) {`, "TestABatchInDoubtIsNotASecondAttempt")
	m.Catch("15 tiering is refused for what is compacted", "config_resolve.go", `&& (c.Compact || next.EverCompacted) {`, `&& next.EverCompacted {`, "TestBadTopicConfigurationsAreRefused")
	m.Catch("15 and for what ever was", "config_resolve.go", `&& (c.Compact || next.EverCompacted) {`, `&& c.Compact {`, "TestOnceCompactedNeverTiers")
	m.Catch("15 nor does it tier by default", "config_topic.go", `return t.Remote && !t.EverCompacted`, `return t.Remote`, "TestOnceCompactedNeverTiers")
	m.Catch("15 nor while it is", "config_topic.go", `remoteEnabled(get, t) && !c.Compact`, `remoteEnabled(get, t)`, "TestWhatIsCompactNeverTiers")
	m.Catch("15 no broker's default compacts what was in the bucket", "compaction.go", `if t.value.follows() && t.value.EverTiered {`, `if false {`, "TestABrokersPolicyCompactsNothingTiered")
	m.Catch("15 nor a cluster's that this broker hides", "topic_alter.go", `		if err := im.checkPolicy(set); err != nil {
			return err
		}
`, ``, "TestABrokersPolicyCompactsNothingTiered")
	m.Catch("15 nor one that comes to light", "topic_alter.go", `return im.checkPolicy(next)`, `return nil`, "TestABrokersPolicyCompactsNothingTiered")
	m.Catch("15 nor that of its process", "client.go", `if err := im.checkStaticPolicy(); err != nil {`, `if err := error(nil); err != nil {`, "TestABrokersPolicyCompactsNothingTiered")
	m.Catch("15 a broker starts with what others set", "compaction.go", `src != SourceStaticBroker {`, `src == SourceDefault {`, "TestABrokersPolicyCompactsNothingTiered")
	m.Catch("15 what a default compacts is remembered", "topic_alter.go", `for _, l := range []layers{set, next} {`, `for _, l := range []layers(nil) {`, "TestOnceCompactedIsRemembered")
	m.Catch("15 also where this broker hides it", "topic_alter.go", `range []layers{set, next} {`, `range []layers{next} {`, "TestOnceCompactedIsRemembered")
	m.Catch("15 and what a process compacts", "client.go", `if err := c.rememberCompacted(ctx, im.layers); err != nil {`, `if err := error(nil); err != nil {`, "TestOnceCompactedIsRemembered")
	m.Catch("15 a topic that becomes compacted is remembered", "topic_alter.go", `v.EverCompacted = v.EverCompacted || cfg.Compact`, `v.EverCompacted = v.EverCompacted && cfg.Compact`, "TestOnceCompactedIsRemembered")
	m.Catch("15 and one that begins so", "topic_create.go", `v.EverCompacted, v.EverTiered = cfg.Compact, cfg.RemoteEnabled`, `v.EverTiered = cfg.RemoteEnabled`, "TestOnceCompactedIsRemembered")
	m.Catch("16 the deletion of a key is a loss", "fold.go", `case f.im.known(e.Key).revision > 0:`, `case false:`, "TestOnlyADeletedTopicsPartitionsMayBeDeleted|TestAVersionThatGoesBackIsALoss")
	m.Catch("16 but of the partitions of a deleted topic", "fold.go", `if _, alive := f.im.byID.get(id); alive {`, `if _, alive := f.im.byID.get(id); alive && false {`, "TestOnlyADeletedTopicsPartitionsMayBeDeleted")
	m.Catch("16 fewer keys than are known", "watch.go", `if short > len(hints) {`, `if false {`, "TestALostStoreIsSafeMode")
	m.Catch("16 but for hints", "watch.go", `if short > len(hints) {`, `if short > 0 {`, "TestALostHintIsNoLoss")
	m.Catch("16 a hint goes with its topic", "topic_delete.go", `		if t.dataGone() {
`, `		if false {
`, "TestHintsGoWithTheirTopic")
	m.Catch("16 and not while anybody has its data", "topic_delete.go", `		if t.dataGone() {
`, `		if true {
`, "TestHintsGoWithTheirTopic")
	m.Catch("16 each known key is looked for", "watch.go", `case !ok:
			reason = "the store lost key " + key`, `case !ok:
			_ = "the store lost key " + key`, "TestAnotherKeyMakesUpForNone")
	m.Catch("16 also those of the life before", "guard.go", `case !ok:
`, `case !ok && false:
`, "TestALostStoreIsSafeMode")
	m.Catch("16 a tombstone stays for days", "topic_delete.go", `return t.dataGone() && c.cfg.Now().Sub(t.At) > tombstoneAge`, `return t.dataGone()`, "TestTombstonesStayForDays")
	m.Catch("16 and until nobody has data", "topic_delete.go", `return t.dataGone() && c.cfg.Now().Sub(t.At) > tombstoneAge`, `return c.cfg.Now().Sub(t.At) > tombstoneAge`, "TestTombstonesStayUntilDataIsGone")
	m.Catch("16 nothing is deleted by another id's name", "topic_delete.go", `if t == nil || t.ID != id {`, `if t == nil {`, "TestTopicsLiveThroughTheirClients")
	m.Catch("17 the stream's creation time", "guard.go", `case s.ClusterID != "" && !s.Created.Equal(st.Created):`, `case false:`, "TestALostStoreIsSafeMode")
	m.Catch("17 also while running", "guard.go", `case !g.made.IsZero() && !g.made.Equal(st.Created):`, `case false:`, "TestALostStoreIsSafeMode")
	m.Catch("17 the last revision", "guard.go", `case st.LastRevision < s.Revision:`, `case false:`, "TestALostHintIsARollbackToo")
	m.Catch("17 the last revision, while running", "watch.go", `if st.LastRevision < before.Revision() {`, `if false {`, "TestALostStoreIsSafeMode")
	m.Catch("17 a lower version of a key", "guard.go", `case is.revision < was.Revision || is.version < was.Version:`, `case false:`, "TestALostStoreIsSafeMode")
	m.Catch("17 an equal version with another id", "guard.go", `case is.version == was.Version && is.request != was.Request:`, `case false:`, "TestAnotherHistoryOfTheSameLength")
	m.Catch("17 a key that goes back while we look", "watch.go", `case e.Revision < s.revision:`, `case false:`, "TestALostStoreIsSafeMode")
	m.Catch("17 another value under the same revision", "watch.go", `case e.Revision == s.revision && !e.Deleted && requestOf(e) != s.request:`, `case false:`, "TestAnotherHistoryOfTheSameLength")
	m.Catch("17 versions grow with revisions", "fold.go", `if r.Version <= old.version {`, `if r.Version < old.version {`, "TestAVersionThatGoesBackIsALoss")
	m.Catch("17 safe mode changes nothing", "cas.go", `func (c *Client) resolve(ctx context.Context, key string, value []byte, rev uint64, doubt bool) (uint64, error) {
	if reason, on := c.SafeMode(); on {`, `func (c *Client) resolve(ctx context.Context, key string, value []byte, rev uint64, doubt bool) (uint64, error) {
	if reason, on := c.SafeMode(); on && false {`, "TestALostStoreIsSafeMode")
	m.Catch("17 not in a batch either", "batch.go", `if reason, on := c.SafeMode(); on {`, `if reason, on := c.SafeMode(); on && false {`, "TestSafeModeRefusesABatch")
	m.Catch("17 what was known outlives safe mode", "client.go", `if _, on := c.SafeMode(); !on && c.Image().ClusterID() != "" {`, `if c.Image().ClusterID() != "" {`, "TestSafeModeOutlivesARestart")
	m.Catch("17 also while it lasts", "watch.go", `if _, on := c.SafeMode(); !on {
				if err`, `if true {
				if err`, "TestSafeModeOutlivesARestart")
	m.Catch("17 an image in safe mode stays as it is", "watch.go", `if _, on := c.SafeMode(); on && c.Image().Revision() > 0 {`, `if false {`, "TestNothingIsFoldedInSafeMode")
	m.Catch("18 producer ids are above those in the logs", "producer_ids.go", `first = max(first, id+1)`, `first = max(first, id)`, "TestProducerIDsAreAboveTheLogs")
	m.Catch("18 which are believed within a window", "producer_ids.go", `below = first + producerIDWindow`, `below--`, "TestOneProducerUsesUpNoIDs")
	m.Catch("18 and not above it", "producer_ids.go", `if id := used(below); id < below {`, `if id := used(below); id >= 0 {`, "TestOneProducerUsesUpNoIDs")
	m.Catch("18 safe mode leaves a gap", "producer_ids.go", `jump = producerIDJump`, `jump = 0`, "TestSafeModeLeavesAGapInTheProducerIDs")
	m.Catch("18 once", "producer_ids.go", `c.jumped.Store(times)`, `_ = times`, "TestSafeModeLeavesAGapInTheProducerIDs")
	m.Catch("18 behind the last id there is none", "producer_ids.go", `if first > math.MaxInt64-n-jump {`, `if first > math.MaxInt64-jump {`, "TestTheLastProducerIDsAreNotPassed")
	m.Catch("18 and handed out once", "producer_ids.go", `r.Next = first + n`, `r.Next = first + n - 1`, "TestProducerIDsAreNeverHandedOutTwice")
	m.Catch("21 compacted topics are always strict", "config_topic.go", `c.StrictValidation = c.Compact || str(`, `c.StrictValidation = str(`, "TestTopicConfigurationsResolve")
}
