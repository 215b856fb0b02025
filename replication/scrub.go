package replication

import (
	"context"
	"errors"
	"time"

	"github.com/firnlog/firn/commitlog"
)

// scrubbing reads all sealed segments again and again, slowly, so that bytes that
// rot on the disk are found while another copy exists (SAFETY 8). Tiering lets a
// damaged segment go once the bucket certainly has what it held; one that nothing
// else holds stays, and is said at every look.
func (m *Manager) scrubbing() {
	select {
	case <-m.firstImage:
	case <-m.ctx.Done():
		return
	}
	for _, r := range m.replicas() { // the first look is worth something once they are open
		select {
		case <-r.done:
		case <-r.told:
		case <-m.ctx.Done():
			return
		}
	}
	for {
		began := time.NewTimer(m.cfg.ScrubEvery)
		m.scrub(m.ctx)
		select {
		case <-began.C:
		case <-m.ctx.Done():
			began.Stop()
			return
		}
	}
}

// scrub looks at every sealed segment once and returns how many are damaged.
func (m *Manager) scrub(ctx context.Context) (damaged int) {
	// A second's bytes at once, then the rest of the second.
	left := m.cfg.ScrubBytes
	pace := func(ctx context.Context, n int64) error {
		if left -= n; left > 0 {
			return nil
		}
		wait := time.Duration(float64(time.Second) * float64(m.cfg.ScrubBytes-left) / float64(m.cfg.ScrubBytes))
		left = m.cfg.ScrubBytes
		select {
		case <-time.After(wait):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m.Each(func(p *Partition) {
		for base := p.log.LocalStart(); base >= 0 && ctx.Err() == nil; {
			next, err := p.log.VerifySealed(ctx, base, pace)
			switch {
			case err == nil || ctx.Err() != nil:
			case errors.Is(err, commitlog.ErrDamaged):
				damaged++
				p.logger.Error("a sealed segment is damaged; of a tiered topic it goes once the bucket has all of it, else restore it from a copy",
					"event", "segment_damaged", "segment", base, "err", err)
			default:
				p.logger.Warn("a sealed segment cannot be read", "event", "segment_unreadable", "segment", base, "err", err)
			}
			base = next
		}
	})
	return damaged
}
