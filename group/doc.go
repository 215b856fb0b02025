// Package group is the consumer-group coordinator: who is in a group, who reads
// which partition, and up to where each group has read (JoinGroup, SyncGroup,
// Heartbeat, LeaveGroup and the offsets APIs of the classic protocol).
//
// A group belongs to one partition of the topic __consumer_offsets, chosen by its
// id as Kafka chooses it, and its coordinator is that partition's leader. What a
// partition holds is a Shard:
//
//	request -> Coordinator -> shard (one lock) -> group, the state machine
//	                                |
//	                                +-> journal queue -> one writer -> the log
//
// What holds:
//
//   - Memory is the fold of the committed journal, plus membership that is still
//     being negotiated and never needs to survive. A record is applied only when
//     the high watermark has passed it, in journal order, and only then is its
//     request answered: an acknowledged commit survives whatever the partition
//     survives.
//   - The journal is written by one goroutine a shard. Everything that queued up
//     while it waited for the last commit goes out as one batch, so concurrent
//     commits share one sync.
//   - An append that failed left nothing in the log and fails its requests. One
//     whose outcome is not known ends the shard: it is loaded again from the log,
//     which alone knows, and meanwhile clients are told to retry.
//   - Topics are not compacted yet, so the writer now and then journals the whole
//     state once more as ordinary records, and when that is committed and synced
//     it raises the log start to where they begin. Records say the same whether
//     they are read once or twice, so a crash between any two steps leaves a log
//     that folds to the same state (snapshot.go).
//   - Keys and values are Kafka's own (OffsetCommit, GroupMetadata), so Kafka's
//     tools read the topic.
//
// Read coordinator.go, then shard.go, journal.go, load.go and snapshot.go for how
// state survives; state.go, join.go, sync.go and leave.go for the state machine,
// which knows neither locks nor goroutines nor a clock of its own; offsets.go and
// expire.go for offsets; records.go for the bytes.
//
// Lock order: Coordinator.mu, then shard.mu. Neither is held across an append, a
// sync or a metadata call. Callbacks of the journal run under shard.mu.
package group
