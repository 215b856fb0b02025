// Package replication makes the logs of several brokers one partition.
//
// A Partition is this broker's replica together with the rules that make its
// log safe to acknowledge and to read: leadership and its epoch, the in-sync
// replicas, the high watermark and the last stable offset. Nothing outside this
// package appends to a commitlog.Log or reads one for a client.
//
//	log start <= local start <= last stable offset <= high watermark <= log end
//
//	[log start, local start)    only in the bucket: reads fail with
//	                            commitlog.ErrBelowLocal and the caller goes cold
//	[local start, high wm)      readable here
//	[high wm, log end)          not yet safe: a power cut or a new leader may
//	                            take it, so nobody sees it
//
// Every leadership is a new epoch, also on the same broker after a restart: it
// is taken by one compare-and-set in the metadata before the first append
// (SAFETY 4), so an (epoch, offset) pair never names two records. An epoch
// fences everything that was waiting under the one before it: a produce that
// waits for its acknowledgement ends with ErrNotLeader at any change of
// leadership, never because the high watermark passed its offset (SAFETY 5).
//
// What the high watermark counts depends on firn.durability. With "fsync" only
// synced bytes count, so no consumer reads and no producer is acknowledged what
// a power cut can take away (SAFETY 1). With "replicated" the log end counts,
// which is Kafka's way.
//
// A disk that fails under one log takes its whole data dir offline, and all who
// wait hear of it (offline.go).
//
// Read datadir.go (what a data dir knows about itself), offline.go, manager.go (which
// partitions this broker has and when it leads them), open.go (from a folder to
// a replica that may lead), partition.go, append.go, watermark.go, read.go and
// housekeeping.go (rolling and retention).
//
// Lock order: Manager.mu, then Partition.lead, then health.mu, then Partition.wait.
// None is held across a disk sync, a metadata call or a bucket call; Partition.lead is
// held shared across the log's append write.
package replication
