// Package commitlog stores one replica of one partition on local disk.
//
// A Log is a run of segments. Only the last one, the active segment, takes
// writes; the others are sealed and never change again, which is what lets
// tiering upload them without a lock.
//
//	start <= local start <= synced end <= end     offsets; ends are exclusive
//	[start, local start)     only in object storage
//	[local start, end)       on this disk, dense: no gap, no repeat
//	[synced end, end)        a power cut may take it
//
// A segment's .log file holds record batches (message format v2) exactly as the
// producer sent them, but for base offset and leader epoch, so Kafka's own dump
// tools read it. Everything else in the folder is ours, carries a magic, a format
// version and a checksum. What can be made again from the .log files is, when it is
// lost; the rest is damage:
//
//	partition.meta           which partition this is, and the format of the folder
//	checkpoint               two fixed slots, written in place by turns: up to where
//	                         everything is synced, high watermark, starts
//	leader-epochs            where each leader epoch began (KIP-101)
//	<base>.log               batches
//	<base>.index             sparse offset and time index, aborted transactions
//	<base>.snapshot          state of idempotent and transactional producers there
//	producers-<i>.fold       that at the checkpoint, two files written by turns
//
// Durability. Append returns when the bytes are in the page cache. The Flusher
// syncs in groups, and the synced end moves only when every older file and the
// folder entry of every new segment are synced too. A failed sync takes the log
// offline for good: the kernel may have dropped the pages it could not write.
//
// Recovery scans only past the checkpoint and cuts at the first bad batch there.
// A bad batch below it is damage: the log refuses to open rather than drop what
// may be committed.
//
// Lock order: Log.flushing (one flush at a time), Log.appending (serialises
// everything that changes the log), then the small ones: checkpointer.mu, index.mu,
// epochCache.mu, Files.mu. Log.flushing and checkpointer.mu are held across syncs,
// Log.appending only where something must be durable before the next append: a new
// epoch, a local start, a reset. Reads take no Log lock for their I/O.
//
// Read log.go for the type, then segment.go, append.go, producers.go, read.go,
// flusher.go, checkpoint.go, fold.go, recover.go and trim.go.
package commitlog
