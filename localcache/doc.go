// Package localcache keeps ranges of remote objects (chunks) on local disk within
// a byte budget. Losing it costs time, never data: every failure of its disk
// turns into a miss or into bytes served from memory, never into an error of the
// reader.
//
// A chunk is named by everything that decides its bytes: object key, ETag, chunk
// number and checksum (Key). It lives in one file of its own below one of 256
// folders, behind a header with the key and the payload's CRC-32C. What was
// written by this process is trusted; what was found at the start is read and
// verified whole on its first use, and dropped and filled again when it is not
// what its header says.
//
// The life of a chunk:
//
//	missing -> in flight -> on disk -> evicted
//	                    \-> in memory (disk full, failed, or too small)
//
// A fill is single-flight and belongs to the cache: it runs under the cache's own
// deadline and is never cancelled because a requester went away. Its chunk is
// pinned until somebody reads it, for a bounded time, so that a fill that took
// longer than its requester's patience is there when the requester comes again.
// Fills in flight and chunks that the disk refused share one memory budget.
//
// Eviction is S3-FIFO: a chunk that one pass reads once leaves through a small
// queue and never displaces what is read again and again.
//
// A Handle is a counted reference to a chunk: its bytes stay readable until
// Release, whatever is evicted meanwhile.
//
// Read key.go, cache.go (the type and its lookups), fill.go (single flight),
// queue.go and evict.go (what goes first), file.go and index.go (the bytes on disk),
// budget.go, metrics.go.
//
// Lock order: entry.io before Cache.mu; Cache.mu before budget.mu. Cache.mu is
// never held across I/O.
package localcache
