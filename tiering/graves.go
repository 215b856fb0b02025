package tiering

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/firnlog/firn/tiering/format"
)

// readClock measures how far the store's clock is ahead of ours, once a
// leadership. It stamps burials; how long they last is measured by both.
func (ar *Archive) readClock(ctx context.Context) error {
	date, err := ar.a.bucket.Date(ctx)
	if err != nil {
		return fmt.Errorf("read the store's clock: %w", err)
	}
	ar.skew = date.Sub(ar.a.cfg.Now())
	return nil
}

func (ar *Archive) stamp() int64 { return ar.a.cfg.Now().Add(ar.skew).UnixMilli() }

// bury moves entries into the graveyard of h; the caller unlinks them.
func (ar *Archive) bury(h *format.Head, entries []format.Entry) {
	for i := range entries {
		e := &entries[i]
		h.Graves = append(h.Graves, format.Grave{State: format.Unlinked, Since: ar.stamp(), Base: e.Base, End: e.End, Epoch: e.Epoch, Nonce: e.Nonce})
	}
}

// buryBelow unlinks and buries what lies wholly below offset, oldest first.
func (ar *Archive) buryBelow(h *format.Head, offset int64) {
	n := 0
	for n < len(h.Parts) && h.Parts[n].To <= offset && len(h.Graves) < ar.a.shape.graves {
		p := &h.Parts[n]
		h.Graves = append(h.Graves, format.Grave{State: format.Unlinked, Since: ar.stamp(), Part: true, WithEntries: true, Base: p.From, End: p.To, Epoch: -1, Nonce: p.Nonce})
		n++
	}
	h.Parts = h.Parts[n:]
	if len(h.Parts) > 0 {
		return
	}
	n = 0
	for n < len(h.Entries) && h.Entries[n].End <= offset && len(h.Graves)+n < ar.a.shape.graves {
		n++
	}
	ar.bury(h, h.Entries[:n])
	h.Entries = h.Entries[n:]
}

// buriable says whether buryBelow has something to do and room for it.
func (ar *Archive) buriable(h *format.Head) bool {
	if len(h.Graves) >= ar.a.shape.graves {
		return false
	}
	if len(h.Parts) > 0 {
		return h.Parts[0].To <= h.LogStart
	}
	return len(h.Entries) > 0 && h.Entries[0].End <= h.LogStart
}

func (ar *Archive) graceOf(g *format.Grave) time.Duration {
	if g.Orphan {
		return ar.a.cfg.OrphanAge
	}
	return ar.a.cfg.Grace
}

// nextGrave is when the first grave may be opened, zero for none.
func (ar *Archive) nextGrave() (at time.Time) {
	if ar.head == nil {
		return at
	}
	for i := range ar.head.Graves {
		g := &ar.head.Graves[i]
		t := ar.seen[g.Nonce].Add(ar.graceOf(g))
		if g.State == format.Deleting {
			t = ar.seen[g.Nonce]
		}
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	return at
}

func (ar *Archive) graveDue(now time.Time) bool {
	at := ar.nextGrave()
	return !at.IsZero() && !now.Before(at)
}

// purge opens the graves whose time has come. Marking them is a commit of its
// own and irrevocable; only then the objects go, and only then the graves
// (SAFETY 11). Time counts from the burial, as the lesser of what the store's
// clock says and what this leader has seen pass.
func (ar *Archive) purge(ctx context.Context, now time.Time) error {
	if !ar.graveDue(now) {
		return nil
	}
	date, err := ar.a.bucket.Date(ctx)
	if err != nil {
		return fmt.Errorf("read the store's clock: %w", err)
	}
	ripe := map[format.Nonce]bool{}
	opened := false
	for i := range ar.head.Graves {
		g := &ar.head.Graves[i]
		grace := ar.graceOf(g)
		due := now.Sub(ar.seen[g.Nonce]) >= grace && date.UnixMilli()-g.Since >= grace.Milliseconds()
		if g.State == format.Deleting || due {
			ripe[g.Nonce] = true
			opened = opened || g.State != format.Deleting
		}
	}
	if len(ripe) == 0 {
		return nil
	}
	if opened {
		err := ar.commit(ctx, func(h *format.Head) error {
			for i := range h.Graves {
				if ripe[h.Graves[i].Nonce] {
					h.Graves[i].State = format.Deleting
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	keys, err := ar.a.graveKeys(ctx, ar.folder, ar.head, func(g *format.Grave) bool { return g.State == format.Deleting })
	if err != nil {
		return err
	}
	if err := ar.a.bucket.Delete(ctx, keys); err != nil {
		ar.a.metrics.deleteErrors.Inc()
		return fmt.Errorf("delete %d buried objects: %w", len(keys), err)
	}
	ar.logger.Debug("graves are empty", "event", "graves_purged", "objects", len(keys))
	return ar.commit(ctx, func(h *format.Head) error {
		h.Graves = slices.DeleteFunc(h.Graves, func(g format.Grave) bool { return g.State == format.Deleting })
		return nil
	})
}

// graveKeys are the keys of what lies in the chosen graves. A part that is
// already gone has taken nothing with it: its objects went before it.
func (a *Archiver) graveKeys(ctx context.Context, folder string, h *format.Head, chosen func(*format.Grave) bool) (keys []string, err error) {
	var parts []string
	for i := range h.Graves {
		g := &h.Graves[i]
		if !chosen(g) {
			continue
		}
		if !g.Part {
			keys = append(keys, folder+g.Name())
			continue
		}
		parts = append(parts, folder+g.Name())
		if !g.WithEntries {
			continue
		}
		p, err := a.readPart(ctx, folder+g.Name(), g.Nonce)
		if isGone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for j := range p.Entries {
			if p.Entries[j].Key == "" {
				keys = append(keys, folder+p.Entries[j].Name())
			}
		}
	}
	return append(keys, parts...), nil // objects first: a part is the only list of its objects
}
