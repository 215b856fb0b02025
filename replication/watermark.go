package replication

import (
	"container/heap"
	"context"
)

// ackWaiter is a produce that waits until end is at or below the high watermark.
type ackWaiter struct {
	end   int64
	epoch int32
	done  chan<- error // capacity 1
}

type ackHeap []ackWaiter

func (h ackHeap) Len() int           { return len(h) }
func (h ackHeap) Less(i, j int) bool { return h[i].end < h[j].end }
func (h ackHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *ackHeap) Push(x any)        { *h = append(*h, x.(ackWaiter)) }
func (h *ackHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = ackWaiter{}
	*h = old[:len(old)-1]
	return x
}

type subscription struct{ ch chan<- struct{} }

// advance recomputes the watermarks from the log and wakes who waited for them.
// Safe to call from any goroutine, at any time, any number of times.
func (p *Partition) advance() {
	p.lead.RLock()
	leading := p.lead.leading
	p.lead.RUnlock()
	if !leading || p.dir.Err() != nil {
		return // a disk that failed vouches for nothing
	}
	end := p.log.End()
	if p.fsync.Load() {
		end = min(end, p.log.SyncedEnd())
	}
	moved := raise(&p.hw, end)
	hw := p.hw.Load()
	stable := hw
	if first := p.log.FirstUnstable(hw); first >= 0 {
		stable = min(stable, first)
	}
	moved = raise(&p.lso, stable) || moved
	if !moved {
		return
	}
	p.log.SetHighWatermark(hw)
	if p.waiting.Load() > 0 {
		p.wake(hw)
	}
}

// raise sets v to x unless v is already there, and says whether it did.
func raise(v interface {
	Load() int64
	CompareAndSwap(int64, int64) bool
}, x int64) bool {
	for {
		old := v.Load()
		if x <= old {
			return false
		}
		if v.CompareAndSwap(old, x) {
			return true
		}
	}
}

// Committed says whether a's acknowledgement may be given at once.
func (p *Partition) Committed(a Appended) bool {
	if a.End > p.hw.Load() {
		return false
	}
	epoch, leading := p.Leadership()
	return leading && epoch == a.Epoch
}

// WaitCommitted returns nil once the high watermark has passed a, in the epoch
// in which a was appended. Any change of leadership ends it with ErrNotLeader
// (SAFETY 5), a failed disk with ErrOffline, ctx with its error: then the batch
// is in the log and may or may not become committed.
func (p *Partition) WaitCommitted(ctx context.Context, a Appended) error {
	if p.Committed(a) {
		return nil
	}
	done := make(chan error, 1)
	p.wait.Lock()
	heap.Push((*ackHeap)(&p.wait.acks), ackWaiter{end: a.End, epoch: a.Epoch, done: done})
	p.waiting.Add(1)
	p.wait.Unlock()
	// The watermark or the leadership may have moved between the look and the
	// registration; whoever moves them from now on sees the waiter.
	if epoch, leading := p.Leadership(); !leading || epoch != a.Epoch {
		// Each leadership is a new epoch, so a's is over for good, whoever leads.
		p.endWaits(func(w ackWaiter) bool { return w.epoch > a.Epoch }, ErrNotLeader)
	}
	p.wake(p.hw.Load())
	// The same for the disk: once it has failed nobody moves the watermark again.
	if err := p.dir.Err(); err != nil {
		p.failOffline(err)
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		p.drop(done)
		select {
		case err := <-done:
			return err
		default:
			return ctx.Err()
		}
	}
}

func (p *Partition) drop(done chan<- error) {
	p.wait.Lock()
	defer p.wait.Unlock()
	for i, w := range p.wait.acks {
		if w.done == done {
			heap.Remove((*ackHeap)(&p.wait.acks), i)
			p.waiting.Add(-1)
			return
		}
	}
}

// wake answers the acks at or below hw and pokes every subscriber.
func (p *Partition) wake(hw int64) {
	epoch, leading := p.Leadership()
	p.wait.Lock()
	for len(p.wait.acks) > 0 && p.wait.acks[0].end <= hw {
		w := heap.Pop((*ackHeap)(&p.wait.acks)).(ackWaiter)
		p.waiting.Add(-1)
		if leading && w.epoch == epoch {
			w.done <- nil
		} else {
			w.done <- ErrNotLeader
		}
	}
	p.pokeLocked()
	p.wait.Unlock()
}

// failWaiters ends every wait of another epoch than keep (-1: all of them).
func (p *Partition) failWaiters(keep int32) {
	p.endWaits(func(w ackWaiter) bool { return w.epoch == keep }, ErrNotLeader)
}

// failOffline ends every wait: the disk under the log has failed.
func (p *Partition) failOffline(err error) {
	p.endWaits(func(ackWaiter) bool { return false }, err)
	p.wakeSubscribers()
}

func (p *Partition) endWaits(stays func(ackWaiter) bool, err error) {
	p.wait.Lock()
	defer p.wait.Unlock()
	kept := p.wait.acks[:0]
	for _, w := range p.wait.acks {
		if stays(w) {
			kept = append(kept, w)
			continue
		}
		p.waiting.Add(-1)
		w.done <- err
	}
	clear(p.wait.acks[len(kept):])
	p.wait.acks = kept
	heap.Init((*ackHeap)(&p.wait.acks))
}

// Subscribe pokes ch, without blocking, whenever the high watermark, the last
// stable offset, the log start or the leadership has changed. ch should have a
// capacity of one; a poke means "look again". cancel may be called twice.
func (p *Partition) Subscribe(ch chan<- struct{}) (cancel func()) {
	s := &subscription{ch: ch}
	p.wait.Lock()
	p.wait.subs[s] = struct{}{}
	p.waiting.Add(1)
	p.wait.Unlock()
	return func() {
		p.wait.Lock()
		if _, ok := p.wait.subs[s]; ok {
			delete(p.wait.subs, s)
			p.waiting.Add(-1)
		}
		p.wait.Unlock()
	}
}

func (p *Partition) wakeSubscribers() {
	p.wait.Lock()
	p.pokeLocked()
	p.wait.Unlock()
}

func (p *Partition) pokeLocked() {
	for s := range p.wait.subs {
		select {
		case s.ch <- struct{}{}:
		default:
		}
	}
}
