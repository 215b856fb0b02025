// Package tiering moves committed data to the bucket, remembers it there, and
// lets go of it.
//
// An Archiver works for one broker; each partition that the broker leads has an
// Archive. What is in the bucket is what the partition's head says (the object
// `manifest`): a list of segment objects that follow each other without a gap.
//
//	head.Start() <= LogStart <= head.End     what the head knows
//	[LogStart, head.End)                     readable from the bucket
//	[local start, log end)                   readable from disk; the two overlap
//
// The head is only ever replaced by compare-and-set, and that is at once the
// commit and the fence: a leader claims the head with its leader epoch before it
// uploads, expires or locally deletes anything (SAFETY 9), and loses every race
// against a later one. Unknown outcomes are resolved by sending the same bytes
// again (SAFETY 12). Nothing is deleted that was not buried first (SAFETY 11),
// and no local byte without a look at the bucket (SAFETY 13).
//
// All work of a partition happens in passes, one at a time: claim, expire,
// upload and commit, delete locally, purge graves, scrub. A pass does what is
// due and returns; RunOnce runs one by hand.
//
// Locks: Archive.pass is held across a pass and taken before Archive.mu;
// Archiver.mu before neither: it is never held while a pass runs. Readers take
// no lock but those of the caches of parts and footers.
//
// Read source.go and archiver.go (who works when), archive.go (a pass), head.go
// (load, claim, commit), upload.go, retention.go, graves.go, scrub.go, parts.go,
// lookup.go (the read side), topic.go and cluster.go (the JSON objects).
package tiering
