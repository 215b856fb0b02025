package tiering

import (
	"context"
	"io"
	"sync"
	"time"
)

// pacer spreads bytes over time: a bucket of a quarter of a second.
type pacer struct {
	rate int64 // bytes a second, 0 for no bound

	mu   sync.Mutex
	busy time.Duration // how far ahead of the ticker's clock we have spent
	last time.Time
}

func newPacer(rate int64) *pacer { return &pacer{rate: rate} }

// wait returns when n more bytes may be sent.
func (p *pacer) wait(ctx context.Context, now func() time.Time, n int) error {
	if p.rate <= 0 {
		return nil
	}
	p.mu.Lock()
	t := now()
	if d := t.Sub(p.last); !p.last.IsZero() && d > 0 {
		p.busy = max(p.busy-d, 0)
	}
	p.last = t
	p.busy += time.Duration(float64(n) / float64(p.rate) * float64(time.Second))
	ahead := p.busy - 250*time.Millisecond
	p.mu.Unlock()
	if ahead <= 0 {
		return nil
	}
	timer := time.NewTimer(ahead)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// paced is a body that is read at the pacer's rate. Seeking is free; a driver
// that reads twice pays twice.
type paced struct {
	body
	ctx context.Context
	p   *pacer
	now func() time.Time
	// moved is told of each read.
	moved func()
}

// piece bounds what is read before a wait, and a wait to about a second.
const piece = 256 << 10

func (r *paced) Read(b []byte) (int, error) {
	if rate := r.p.rate; rate > 0 {
		b = b[:min(int64(len(b)), piece, rate)]
	}
	n, err := r.body.Read(b)
	r.moved()
	if n > 0 {
		if werr := r.p.wait(r.ctx, r.now, n); werr != nil {
			return n, werr
		}
	}
	return n, err
}

// body is the bytes of an object: what objectstore needs, with a sum that is
// known beforehand.
type body interface {
	io.ReadSeeker
	CRC32C() uint32
}
