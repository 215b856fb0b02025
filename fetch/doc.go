// Package fetch gives records at an offset from wherever they are: hot from the
// partition's log, cold from the bucket through the chunk cache.
//
// There is one fork, in reader.go: an offset below the local start is cold. The
// two sides share nothing but the byte limits of the request. The hot side reads
// on the caller's goroutine. The cold side has slots (fair between clients),
// deadlines and a memory budget of its own; a thousand replays of last year queue
// there and nowhere else.
//
//	the request's goroutine            the cold side
//	-----------------------            -------------
//	evaluate: hot parts read,          job (slot): manifest -> footer -> cache
//	cold parts looked up in the          fill: one ranged GET for neighbours,
//	cache, never waiting                 checked, decoded, to disk
//	park until min bytes, max wait,    read-ahead: 1, 2, 4 .. 16 chunks in front
//	an error, or a poke                of a sequential reader, across objects
//
// What a request promises:
//
//   - It never waits for a bucket unless it asked to wait (max wait, min bytes):
//     whoever is ready is returned, and a cold partition that is not ready is
//     empty, never an error.
//   - Work for it outlives it. The chunk that was on its way is finished, pinned
//     until its first read, and found by the consumer's next fetch (SAFETY 20).
//   - Records begin with the batch that holds the offset and end with a whole
//     batch, below the high watermark or the last stable offset. One batch larger
//     than every limit is still delivered (KIP-74), hot or cold.
//   - Damaged bytes are fetched once more and then are an error, never silence.
//
// Read reader.go (the fork and the limits), wait.go (the long poll), hot.go,
// cold.go (jobs), serve.go (from chunks to records), fill.go (from the bucket to
// the cache), ahead.go, slots.go, layouts.go and batches.go (what is where),
// store.go (the view of the bucket), times.go (offsets by timestamp), session.go
// (KIP-227), records.go, metrics.go.
//
// Lock order: none of the locks here is held while another is taken, except
// coldReader.mu before slots.mu. None is held across I/O.
package fetch
