package replication

import (
	"time"

	"github.com/firnlog/firn/commitlog"
)

// pressedRoll is the least that an active segment has when it is rolled because
// the disk fills up.
const pressedRoll = 1 << 20

// housekeeping rolls segments by age and, for the topics that do not tier,
// applies retention. Tiered topics are trimmed by the archiver, which alone
// knows what the bucket covers.
func (m *Manager) housekeeping() {
	t := time.NewTicker(m.cfg.HousekeepingEvery)
	defer t.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-t.C:
			m.keepHouse(m.cfg.Now())
		}
	}
}

func (m *Manager) keepHouse(now time.Time) {
	_, keep := m.cfg.Cluster.SafeMode()
	pressed := m.cfg.Pressed != nil && m.cfg.Pressed()
	m.Each(func(p *Partition) {
		if err := p.keepHouse(now, m.cfg.Archive != nil, pressed, keep); err != nil {
			p.logger.Warn("housekeeping failed", "event", "housekeeping_failed", "err", err)
		}
	})
}

// keepHouse does what is due. keep says that nothing is to be deleted (SAFETY 17).
func (p *Partition) keepHouse(now time.Time, archived, pressed, keep bool) error {
	if _, leading := p.Leadership(); !leading || p.dir.Err() != nil {
		return nil
	}
	if _, err := p.log.RollIfDue(now); err != nil {
		return err
	}
	cfg := p.Config()
	if archived && cfg.RemoteRead {
		// On a disk that fills up what is worth an object leaves early.
		if s := p.log.Segments(); pressed && cfg.RemoteEnabled && len(s) > 0 && s[len(s)-1].Bytes >= pressedRoll {
			return p.log.Roll()
		}
		return nil
	}
	if keep {
		return nil
	}
	if cfg.CleanupDelete() {
		// Kafka's rule too: an active segment whose every record has expired is
		// rolled, so that it can go.
		if s := p.log.Segments(); len(s) > 0 && s[len(s)-1].Bytes > 0 && expiredAt(s[len(s)-1], cfg.RetentionMs, now) {
			if err := p.log.Roll(); err != nil {
				return err
			}
		}
		if below := p.expired(now); below > p.log.Start() {
			if err := p.RaiseLogStart(below); err != nil {
				return err
			}
		}
	}
	// The log start goes first and durably: a crash in between leaves bytes, not
	// a hole. DeleteRecords takes the same way.
	if p.log.LocalStart() < p.log.Start() {
		_, err := p.log.DeleteLocal(p.log.Start())
		return err
	}
	return nil
}

// expired is the end of the sealed segments that retention.ms or retention.bytes
// lets go, oldest first; never above the high watermark.
func (p *Partition) expired(now time.Time) int64 {
	cfg := p.Config()
	segs := p.log.Segments()
	var total int64
	for _, s := range segs {
		total += s.Bytes
	}
	hw := p.hw.Load()
	below := p.log.Start()
	for _, s := range segs {
		if !s.Sealed || s.End > hw {
			break
		}
		old := expiredAt(s, cfg.RetentionMs, now)
		big := cfg.RetentionBytes >= 0 && total-s.Bytes >= cfg.RetentionBytes
		if !old && !big {
			break
		}
		total -= s.Bytes
		below = s.End
	}
	return below
}

// expiredAt says whether every record of s is older than retentionMs. Records
// without a timestamp (-1) are as old as the segment's first append.
func expiredAt(s commitlog.SegmentInfo, retentionMs int64, now time.Time) bool {
	if retentionMs < 0 {
		return false
	}
	newest := s.MaxTs
	if newest < 0 {
		newest = s.FirstAppend.UnixMilli()
	}
	return newest < now.UnixMilli() && now.UnixMilli()-newest > retentionMs
}
