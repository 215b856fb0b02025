package tiering

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/internal/failpoint"
	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/tiering/format"
)

// expire applies total retention over both tiers and tells the head about the
// log start, wherever that came from (DeleteRecords, too). The log start goes
// first and durably: a crash in between leaves objects, never a hole.
func (ar *Archive) expire(ctx context.Context, cfg *metadata.TopicConfig, now time.Time) error {
	// A part that cannot be read ends the walk; what the head can be told without
	// it, it is told.
	err := errors.Join(ar.raiseExpired(cfg, now, ar.head, ar.partEntries(ctx)), ar.trimPart(ctx))
	logStart, _, _ := ar.src.Offsets()
	switch {
	case !ar.claimed || ar.pending != nil || ctx.Err() != nil:
		return err
	case ar.head.LogStart >= logStart && ar.head.Start() >= min(logStart, ar.head.End) || ar.head.Start() >= logStart:
		return err
	case ar.head.LogStart >= logStart && !ar.buriable(ar.head):
		return err
	}
	return errors.Join(err, ar.commit(ctx, func(*format.Head) error { return nil }))
}

// raiseExpired raises the log start over what retention.ms and retention.bytes
// let go: objects first, then local segments that never reached the bucket.
// entries reads the entries of a part; without it parts only go as a whole.
func (ar *Archive) raiseExpired(cfg *metadata.TopicConfig, now time.Time, h *format.Head, entries ...func(*format.PartRef) ([]format.Entry, error)) error {
	logStart, localStart, _ := ar.src.Offsets()
	if h != nil && !cfg.RemoteEnabled && cfg.RemoteDeleteOnDisable && h.Start() < h.End {
		// Tiering was switched off and its data is to go (KIP-950).
		return ar.src.RaiseLogStart(max(logStart, min(localStart, h.End)))
	}
	if !cfg.CleanupDelete() || cfg.RetentionMs < 0 && cfg.RetentionBytes < 0 {
		return nil
	}
	segs := ar.src.Segments()
	// Kafka's rule: an active segment whose every record has expired is rolled,
	// so that it can go.
	if n := len(segs); n > 0 && !segs[n-1].Sealed && segs[n-1].Bytes > 0 && segmentExpired(segs[n-1], cfg.RetentionMs, now) {
		if err := ar.src.Roll(); err != nil {
			return err
		}
		segs = ar.src.Segments()
	}
	w := expiry{cfg: cfg, now: now, total: ar.totalBytes(h, segs), below: logStart}
	err := w.walk(h, segs, ar.uploadEnd(), entries...)
	if w.kept.entry.End > 0 {
		ar.mu.Lock()
		ar.mu.kept = w.kept
		ar.mu.Unlock()
	}
	if w.below > logStart {
		if err := ar.src.RaiseLogStart(w.below); err != nil {
			return err
		}
		ar.logger.Debug("retention raised the log start", "event", "retention", "offset", w.below)
	}
	return err
}

func (ar *Archive) uploadEnd() int64 {
	_, _, end := ar.src.Offsets()
	return end
}

// hasExpired says, from memory alone, whether retention may have something to do.
func (ar *Archive) hasExpired(cfg *metadata.TopicConfig, now time.Time, h *format.Head) bool {
	logStart, localStart, _ := ar.src.Offsets()
	if h != nil && !cfg.RemoteEnabled && cfg.RemoteDeleteOnDisable && h.Start() < h.End {
		return logStart < min(localStart, h.End)
	}
	if !cfg.CleanupDelete() || cfg.RetentionMs < 0 && cfg.RetentionBytes < 0 {
		return false
	}
	segs := ar.src.Segments()
	if n := len(segs); n > 0 && !segs[n-1].Sealed && segs[n-1].Bytes > 0 && segmentExpired(segs[n-1], cfg.RetentionMs, now) {
		return true
	}
	w := expiry{cfg: cfg, now: now, total: ar.totalBytes(h, segs), below: logStart}
	ar.mu.Lock()
	kept := ar.mu.kept
	ar.mu.Unlock()
	perhaps := false
	w.walk(h, segs, ar.uploadEnd(), func(p *format.PartRef) ([]format.Entry, error) {
		if p.Nonce == kept.part {
			// What went before it has gone; it is the first to look at.
			w.total -= kept.before
			return []format.Entry{kept.entry}, nil
		}
		// Its entries are not in memory: the oldest of them may have expired.
		perhaps = p.MinTs < 0 || w.old(p.MinTs) || w.big(p.Bytes/p.Count)
		return nil, ErrNotTiered // ends the walk
	})
	return perhaps || w.below > logStart
}

// totalBytes is the size of the log over both tiers, each byte counted once.
func (ar *Archive) totalBytes(h *format.Head, segs []commitlog.SegmentInfo) (total int64) {
	var tiered int64
	if h != nil {
		tiered = h.End
		for i := range h.Parts {
			total += h.Parts[i].Bytes
		}
		for i := range h.Entries {
			total += h.Entries[i].Bytes
		}
	}
	for _, s := range segs {
		switch {
		case s.Base >= tiered:
			total += s.Bytes
		case s.End > tiered: // in part, by its share of offsets
			total += int64(float64(s.Bytes) * float64(s.End-tiered) / float64(s.End-s.Base))
		}
	}
	return total
}

// expiry walks the log from its start and stops at the first thing that stays.
type expiry struct {
	cfg   *metadata.TopicConfig
	now   time.Time
	total int64 // bytes of what has not been passed
	below int64 // everything below may go
	kept  kept  // where the walk ended, when that was within a part
}

// kept is the first entry of a part that retention left, so that whether the next
// pass has something to do can be said without reading the part.
type kept struct {
	part   format.Nonce
	entry  format.Entry
	before int64 // bytes of the part's entries before it
}

func (w *expiry) old(maxTs int64) bool {
	return w.cfg.RetentionMs >= 0 && maxTs >= 0 && maxTs < w.now.UnixMilli() && w.now.UnixMilli()-maxTs > w.cfg.RetentionMs
}

func (w *expiry) big(bytes int64) bool {
	return w.cfg.RetentionBytes >= 0 && w.total-bytes >= w.cfg.RetentionBytes
}

func (w *expiry) pass(end, bytes int64) {
	w.below = max(w.below, end)
	w.total -= bytes
}

func (w *expiry) entry(e *format.Entry) (stays bool) {
	newest := e.MaxTs
	if newest < 0 {
		newest = e.CreatedMs
	}
	if e.End > w.below && !w.old(newest) && !w.big(e.Bytes) {
		return true
	}
	w.pass(e.End, e.Bytes)
	return false
}

func (w *expiry) walk(h *format.Head, segs []commitlog.SegmentInfo, hw int64, entries ...func(*format.PartRef) ([]format.Entry, error)) error {
	var tiered int64
	if h != nil {
		tiered = h.End
		for i := range h.Parts {
			p := &h.Parts[i]
			if p.To <= w.below || w.old(p.MaxTs) || w.big(p.Bytes) {
				w.pass(p.To, p.Bytes)
				continue
			}
			if len(entries) == 0 {
				return nil
			}
			es, err := entries[0](p)
			if err != nil {
				return err
			}
			var before int64
			for j := range es {
				if w.entry(&es[j]) {
					w.kept = kept{part: p.Nonce, entry: es[j], before: before}
					return nil
				}
				before += es[j].Bytes
			}
		}
		for i := range h.Entries {
			if w.entry(&h.Entries[i]) {
				return nil
			}
		}
	}
	for _, s := range segs {
		if s.End <= tiered {
			continue
		}
		if !s.Sealed || s.End > hw || s.End > w.below && !segmentExpired(s, w.cfg.RetentionMs, w.now) && !w.big(s.Bytes) {
			return nil
		}
		w.pass(s.End, s.Bytes)
	}
	return nil
}

// segmentExpired says whether every record of s is older than retentionMs.
// Records without a timestamp are as old as the segment's first append.
func segmentExpired(s commitlog.SegmentInfo, retentionMs int64, now time.Time) bool {
	if retentionMs < 0 {
		return false
	}
	newest := s.MaxTs
	if newest < 0 {
		newest = s.FirstAppend.UnixMilli()
	}
	return newest < now.UnixMilli() && now.UnixMilli()-newest > retentionMs
}

// deletableLocally is the offset below which whole local segments may go: past
// local retention and in the bucket, as far as memory knows, or below the log
// start. A damaged segment goes as soon as the bucket has what it held, and with it
// what lies before: readers get the bucket's copy. It is the local start while the object that would go next reaches further
// than that.
func (ar *Archive) deletableLocally(cfg *metadata.TopicConfig, now time.Time, h *format.Head) int64 {
	logStart, localStart, _ := ar.src.Offsets()
	segs := ar.src.Segments()
	var total, tiered int64
	for _, s := range segs {
		total += s.Bytes
	}
	if h != nil && cfg.RemoteEnabled {
		tiered = h.End
	}
	pressed := ar.a.cfg.Pressed != nil && ar.a.cfg.Pressed()
	below, unneeded := localStart, localStart
	damaged := localStart // what ends here or below goes for the sake of a damaged segment
	for _, s := range segs {
		if s.Damaged {
			damaged = s.End
		}
	}
	ar.mu.Lock()
	if damaged > localStart {
		damaged = max(damaged, ar.mu.whole) // with the rest of its object
	}
	ar.mu.Unlock()
	for _, s := range segs {
		if !s.Sealed {
			break
		}
		expired := s.End <= tiered && (pressed || s.End <= damaged || segmentExpired(s, cfg.LocalRetentionMs, now) || cfg.LocalRetentionBytes >= 0 && total-s.Bytes >= cfg.LocalRetentionBytes)
		if s.End > logStart && !expired {
			break
		}
		total -= s.Bytes
		if below = s.End; below <= logStart {
			unneeded = below
		}
	}
	ar.mu.Lock()
	defer ar.mu.Unlock()
	if below < ar.mu.whole {
		return unneeded
	}
	return below
}

// deleteLocal lets local segments go, on fresh evidence: the head is read again,
// and the store is asked for every object that covers them (SAFETY 13). Segments
// go up to the end of an object: of one that is lost in the bucket, of which a part
// is still needed, the whole should be here to write it again. (The segments of
// another replica may have been cut elsewhere; then the last of them waits.)
func (ar *Archive) deleteLocal(ctx context.Context, cfg *metadata.TopicConfig, now time.Time) error {
	below := ar.deletableLocally(cfg, now, ar.head)
	logStart, localStart, _ := ar.src.Offsets()
	if below <= localStart {
		return nil
	}
	if below > logStart {
		proved, err := ar.prove(ctx, max(localStart, logStart), below)
		if err != nil {
			return err
		}
		below = max(proved, min(below, logStart))
	}
	if below <= localStart {
		return nil
	}
	failpoint.Hit(failpoint.LocalDelete)
	bytes, err := ar.src.DeleteLocal(below)
	if err != nil {
		return fmt.Errorf("delete local segments below %d: %w", below, err)
	}
	ar.logger.Debug("local segments are gone", "event", "local_deleted", "offset", below, "bytes", bytes)
	return nil
}

// prove returns up to where [from, to) is in the bucket in whole objects, certainly
// and now.
func (ar *Archive) prove(ctx context.Context, from, to int64) (int64, error) {
	if err := ar.remember(); err != nil {
		return 0, err
	}
	h, err := ar.fresh(ctx)
	if err != nil {
		return 0, fmt.Errorf("before a local deletion: %w", err)
	}
	if err := ar.check(); err != nil {
		return 0, err
	}
	at, asked, whole := from, 0, int64(0)
	err = ar.each(ctx, h, from, func(e *format.Entry) (bool, error) {
		if e.Base > at || at >= to {
			return false, nil
		}
		if e.End > to {
			whole = e.End
			return false, nil
		}
		if asked++; asked > ar.a.proofs {
			return false, nil // the next pass goes on
		}
		err := ar.a.verify(ctx, ar.a.key(ar.tp, e), e)
		ar.moved()
		if errors.Is(err, objectstore.ErrNotFound) || errors.Is(err, errDamaged) {
			if rerr := ar.repair(ctx, *e, err); rerr != nil {
				return false, rerr
			}
			return false, fmt.Errorf("%w: object [%d, %d) was repaired", errConflict, e.Base, e.End)
		}
		if err != nil {
			return false, fmt.Errorf("prove that [%d, %d) is in the bucket: %w", e.Base, e.End, err)
		}
		at = e.End
		return at < to, nil
	})
	ar.mu.Lock()
	ar.mu.whole = whole
	ar.mu.Unlock()
	return at, err
}
