package fetch

import (
	"context"
	"time"
)

// Fetch answers a fetch. It returns as soon as MinBytes are there, a partition
// has an error or diverges, MaxWait is over, or ctx ends; whichever comes first.
// The caller's goroutine is the only one that waits, parked on one channel that
// the partitions and the cold jobs poke. The caller releases every result.
func (r *Reader) Fetch(ctx context.Context, q Request) []Result {
	ev := evaluation{results: make([]Result, len(q.Parts))}
	enough := func() bool { return ev.ended || ev.bytes >= q.MinBytes || q.MaxWait <= 0 }
	if r.evaluate(&q, &ev, nil); enough() {
		return ev.results
	}

	timer := time.NewTimer(q.MaxWait)
	defer timer.Stop()
	poke := make(chan struct{}, 1)
	for i := range q.Parts {
		if q.Parts[i].Err == nil {
			defer q.Parts[i].source().subscribe(poke)()
		}
	}
	defer func() { r.cold.leave(poke, ev.waits) }()
	for again := 0; ; {
		Release(ev.results)
		r.cold.leave(poke, ev.waits)
		ev.waits = ev.waits[:0]
		if r.evaluate(&q, &ev, poke); enough() {
			return ev.results
		}
		if again++; again < maxAgain && stale(ev.results) {
			continue
		}
		again = 0
		select {
		case <-poke:
		case <-timer.C:
			return ev.results
		case <-ctx.Done():
			return ev.results
		}
	}
}

// maxAgain bounds how often in a row a fetch looks again at once: a cache much too
// small for its readers, or a log that contradicts itself, must not keep a processor.
const maxAgain = 8

// stale says that a part turned cold while it was looked at: the next look sends
// for its chunk.
func stale(results []Result) bool {
	for i := range results {
		if results[i].again {
			return true
		}
	}
	return false
}
