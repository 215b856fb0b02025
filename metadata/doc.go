// Package metadata holds the cluster's facts and is the only way to change them.
//
// The facts live in a key-value Store whose revisions grow with every write: one
// key for each thing that must change in one piece, each change one
// compare-and-set on that key (key.go lists them). A Client watches the store and
// folds what it sees into an immutable Image that everybody reads without locks.
//
//	decide from the Image  ->  compare-and-set  ->  the watch folds it  ->  Image
//
// What holds:
//
//   - A read is a hint. Every decision ends in a compare-and-set on the key it
//     was taken from, so a stale read loses instead of winning.
//   - An outcome that is not known is resolved by sending the same bytes again,
//     and after a conflict by looking for the request id inside the value.
//   - Absence is never deletion: a topic goes only by a tombstone that names its
//     id, written by the same compare-and-set that removes it.
//   - Metadata that went back in time, or lost what this broker has seen, is
//     noticed and puts the client into safe mode: it serves, and neither elects
//     nor deletes (guard.go, safemode.go).
//   - Creating, deleting and recreating a topic all go through the one key of
//     its normalised name, so they are ordered, and a.b and a_b cannot both be.
//
// Read store.go for the seam, key.go and record.go for what is stored, image.go
// and fold.go for how it is read, client.go, cas.go and batch.go for how it is changed, and
// then one file per operation: topic_create.go, topic_delete.go, topic_alter.go,
// partition_lead.go, producer_ids.go, registration.go, hints.go. Configuration is
// config_spec.go, config_topic.go, config_broker.go and config_resolve.go.
//
// Locks: Client.fold, then Client.subs; Client.safe and Client.batch are taken
// alone. None is held across a call to the store.
package metadata
