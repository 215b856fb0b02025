package localcache

import (
	"testing"

	"github.com/firnlog/firn/internal/mutation"
)

func TestMutants(t *testing.T) {
	m := mutation.Of(t)
	m.Catch("8 nothing is served before it was verified", "cache.go", `c.closed || (!e.verified && !verify) {`, `c.closed {`, "TestRestartKeepsChunks")
	m.Catch("8 nor said to be here", "fill.go", `return e != nil && e.verified && !c.closed`, `return e != nil && !c.closed`, "TestRestartKeepsChunks")
	m.Catch("8 every byte of the file is checked", "file.go", `	if sum != h.crc {`, `	if false {`, "TestDamageIsFilledAgain")
	m.Catch("8 a damaged chunk is dropped", "cache.go", `			"object", k.Object, "chunk", k.Chunk, "error", err)
		c.drop(e)
		c.unref(e)`, `			"object", k.Object, "chunk", k.Chunk, "error", err)
		c.unref(e)`, "TestCutFiles")
	m.Catch("8 the length of a verified file", "cache.go", `err == nil && size != e.head.size+e.head.payload {`, `false {`, "TestCutFiles")
	m.Catch("8 what a reader discards is not served again", "cache.go", `		h.c.diskFailed(why)
	}
	h.c.drop(h.e)`, `		h.c.diskFailed(why)
	}`, "TestDiscarded")
	m.Catch("8 a disk that gives bad bytes is left alone", "cache.go", `		h.c.diskFailed(why)
	}
	h.c.drop(h.e)`, `	}
	h.c.drop(h.e)`, "TestDiscarded")
	m.Catch("20 a fill outlives its requester", "fill.go", `				return nil, ctx.Err()`, `				c.stop()
				return nil, ctx.Err()`, "TestFillOutlivesItsRequester")
	m.Catch("20 a fill has a deadline of its own", "fill.go", `context.WithTimeout(c.ctx, c.cfg.FillTimeout)`, `context.WithTimeout(c.ctx, 10*c.cfg.FillTimeout)`, "TestFillHasItsOwnDeadline")
	m.Catch("20 a chunk is pinned until its first read", "evict.go", `return e.refs == 0 && e.read }`, `return e.refs == 0 }`, "TestFillOutlivesItsRequester")
	m.Catch("20 for a while", "evict.go", `e.pinnedUntil = c.cfg.Now().Add(c.cfg.PinFor)`, `e.pinnedUntil = c.cfg.Now()`, "TestFillOutlivesItsRequester")
	m.Catch("20 but not for ever", "evict.go", `		if now.Before(e.pinnedUntil) {
			return
		}`, `		if now.Before(e.pinnedUntil) || true {
			return
		}`, "TestFillOutlivesItsRequester")
	m.Catch("20 the first read ends the pin", "cache.go", `	if !e.read {
		c.unpinLocked(e)
	} else if`, `	if !e.read {
	} else if`, "TestEnsureReadsForNobody")
	m.Catch("20 a chunk that was here is pinned, too", "cache.go", `if e := h.e; e.read && !e.gone {`, `if e := h.e; false {`, "TestEnsureReadsForNobody")
	m.Catch("20 memory comes back when a pin lapses", "evict.go", `next = min(next, max(e.pinnedUntil.Sub(now), time.Millisecond))`, `next = max(next, e.pinnedUntil.Sub(now), c.cfg.FillTimeout)`, "TestFullMemoryDelays")
	m.Catch("20 when the pin began after the wait did", "evict.go", `	next = c.cfg.PinFor
`, `	next = c.cfg.FillTimeout
`, "TestMemoryThatIsPinnedLater")
	m.Catch("one fill for all who want a chunk", "fill.go", `			c.flights[reqs[j].Key.id()] = fl
`, ``, "TestFillsAreSingleFlight")
	m.Catch("a failed fill leaves nothing", "fill.go", `		if err := fill(ctx, buf); err != nil {
			return err
		}
		c.metrics`, `		err = fill(ctx, buf)
		c.metrics`, "TestFailedFill|TestFillHasItsOwnDeadline")
	m.Catch("the disk's budget in bytes", "evict.go", `c.usedLocked()+size > c.max || c.queue`, `c.queue`, "TestBudgetsHold")
	m.Catch("the disk's budget in chunks", "evict.go", ` || c.queue.len()+c.writing+objects > c.cfg.MaxObjects {`, ` {`, "TestBudgetsHold")
	m.Catch("files that readers hold count", "cache.go", `c.queue.bytes() + c.reserved + c.dead }`, `c.queue.bytes() + c.reserved }`, "TestHeldFilesCount")
	m.Catch("files being written count", "cache.go", `c.queue.bytes() + c.reserved + c.dead }`, `c.queue.bytes() + c.dead }`, "TestBudgetsHold")
	m.Catch("the budget of memory", "budget.go", `		if b.used+w.n > b.total {
			return
		}`, ``, "TestBudgetsHold|TestFailedDisk")
	m.Catch("chunks in memory are charged", "fill.go", `	kept = min(r.Size, grant)
`, `	kept = 0
`, "TestFailedDisk|TestFullMemoryDelays")
	m.Catch("nothing that is held is evicted", "evict.go", `return e.refs == 0 && e.read }`, `return e.read }`, "TestEvictionTakesNoBytes|TestHeldChunksStay")
	m.Catch("what one pass reads leaves first", "queue.go", `	q.pushSmall(e)
}

func (q *fifo) pushSmall`, `	q.pushMain(e)
}

func (q *fifo) pushSmall`, "TestScanLeaves")
}
