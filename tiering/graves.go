package tiering

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/firnlog/firn/tiering/format"
)

// clock is what the store's clock said at a moment of ours.
type clock struct{ store, ours time.Time }

// readClock asks the store for its time. It stamps burials; how long they last is
// measured by both clocks.
func (ar *Archive) readClock(ctx context.Context) error {
	date, err := ar.a.bucket.Date(ctx)
	if err != nil {
		return fmt.Errorf("read the store's clock: %w", err)
	}
	ar.clock = clock{date, ar.a.cfg.Now()}
	return nil
}

// stamp is the store's time now: what it was, and the monotonic time since, so
// that jumps of our wall clock do not matter.
func (ar *Archive) stamp() int64 {
	return ar.clock.store.Add(ar.a.cfg.Now().Sub(ar.clock.ours)).UnixMilli()
}

// bury moves entries into the graveyard of h; the caller unlinks them.
func (ar *Archive) bury(h *format.Head, entries []format.Entry) {
	for i := range entries {
		e := &entries[i]
		h.Graves = append(h.Graves, format.Grave{State: format.Unlinked, Since: ar.stamp(), Base: e.Base, End: e.End, Epoch: e.Epoch, Nonce: e.Nonce, Size: e.Size, Objects: 1})
	}
}

// buryBelow unlinks and buries what lies wholly below offset, oldest first.
func (ar *Archive) buryBelow(h *format.Head, offset int64) {
	n := 0
	for n < len(h.Parts) && h.Parts[n].To <= offset && len(h.Graves) < ar.a.shape.graves {
		p := &h.Parts[n]
		h.Graves = append(h.Graves, format.Grave{State: format.Unlinked, Since: ar.stamp(), Part: true, WithEntries: true, Base: p.From, End: p.To, Epoch: -1, Nonce: p.Nonce, Size: p.Size + p.Stored, Objects: p.Count})
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
	if !at.IsZero() && at.Before(ar.purgeAt) {
		at = ar.purgeAt
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
	if err := ar.readClock(ctx); err != nil {
		return err
	}
	date := ar.clock.store
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
		// The store's clock is behind: no use in asking every second.
		ar.purgeAt = now.Add(min(ar.a.cfg.Grace, time.Minute))
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
	return ar.empty(ctx)
}

// empty deletes what lies in open graves, and then the graves.
func (ar *Archive) empty(ctx context.Context) error {
	open, err := ar.a.contents(ctx, ar.folder, ar.head)
	if err != nil {
		return err
	}
	var all content
	for _, c := range open {
		all.objects, all.parts = append(all.objects, c.objects...), append(all.parts, c.parts...)
	}
	done := map[format.Nonce]bool{}
	for _, c := range open {
		done[c.grave] = true
	}
	err = ar.a.remove(ctx, all)
	if err != nil {
		// One object that cannot be deleted keeps its own grave, and no other.
		ar.a.metrics.deleteErrors.Inc()
		failed := 0
		for i, c := range open {
			if failed >= 16 && failed == i || ctx.Err() != nil || ar.a.remove(ctx, c) != nil {
				failed++
				delete(done, c.grave)
			}
		}
		err = fmt.Errorf("delete %d buried objects, %d graves stay: %w", len(all.objects)+len(all.parts), failed, err)
	}
	if len(done) == 0 {
		return err
	}
	ar.logger.Debug("graves are empty", "event", "graves_purged", "graves", len(done))
	return errors.Join(err, ar.commit(ctx, func(h *format.Head) error {
		h.Graves = slices.DeleteFunc(h.Graves, func(g format.Grave) bool { return g.State == format.Deleting && done[g.Nonce] })
		return nil
	}))
}

// content is what lies in a grave: keys.
type content struct {
	grave          format.Nonce
	objects, parts []string
}

// remove deletes objects, and then the parts: a part is the only list of its
// objects.
func (a *Archiver) remove(ctx context.Context, c content) error {
	for _, keys := range [][]string{c.objects, c.parts} {
		if len(keys) == 0 {
			continue
		}
		if err := a.bucket.Delete(ctx, keys); err != nil {
			return err
		}
	}
	return nil
}

// maxOpened bounds the keys of one pass's deletions, give or take a part.
const maxOpened = 8192

// contents looks into the open graves. A part that is gone, or that cannot be
// read, hides nothing for long: what it listed lies below the log start and is
// found as orphans.
func (a *Archiver) contents(ctx context.Context, folder string, h *format.Head) (all []content, err error) {
	keys := 0
	for i := range h.Graves {
		g := &h.Graves[i]
		if g.State != format.Deleting {
			continue
		}
		if keys > maxOpened {
			break // the next pass goes on
		}
		c := content{grave: g.Nonce}
		if !g.Part {
			c.objects = []string{folder + g.Name()}
			all = append(all, c)
			keys++
			continue
		}
		c.parts = []string{folder + g.Name()}
		if g.WithEntries {
			p, err := a.readPart(ctx, folder+g.Name(), g.Nonce)
			if err != nil && !isGone(err) && !errors.Is(err, format.ErrCorrupt) {
				return nil, err
			}
			for j := 0; err == nil && j < len(p.Entries); j++ {
				if p.Entries[j].Key == "" {
					c.objects = append(c.objects, folder+p.Entries[j].Name())
				}
			}
		}
		all = append(all, c)
		keys += 1 + len(c.objects)
	}
	return all, nil
}
