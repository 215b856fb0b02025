package tiering

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"
	"strings"

	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/tiering/format"
)

// scrub compares the partition's folder with its manifest. Objects that no
// manifest names are buried when named objects cover all their offsets, or they
// lie below the log start; others are reported and left (SAFETY 10). Named
// objects that are missing or changed are written again from the local log, when
// it still has them.
func (ar *Archive) scrub(ctx context.Context) error {
	if ar.head == nil || !ar.claimed {
		return nil
	}
	c := comparison{ar: ar, h: ar.head, buried: map[string]bool{}}
	if err := c.run(ctx); err != nil {
		return err
	}
	// What was compared must be the head as it is after the listing: then
	// everything that was uploaded meanwhile is not in either.
	if _, err := ar.fresh(ctx); err != nil {
		return fmt.Errorf("after a listing: %w", err)
	}
	if err := ar.buryOrphans(ctx, ar.head, c.orphans, c.lost); err != nil {
		return err
	}
	lost := c.lost
	var errs []error
	for _, e := range lost {
		// A listing can be older than the head: ask again.
		err := ar.a.verify(ctx, ar.a.key(ar.tp, &e), &e)
		ar.moved()
		if err == nil {
			continue
		}
		if !errors.Is(err, objectstore.ErrNotFound) && !errors.Is(err, errDamaged) {
			return err
		}
		err = ar.repair(ctx, e, err)
		switch {
		case errors.Is(err, errLost):
			errs = append(errs[:0], err) // each was logged; one is enough to say so
		case err != nil:
			return err
		}
	}
	return errors.Join(errs...)
}

// maxFound bounds what one scrub deals with; the next one finds the others.
const maxFound = 4096

// comparison walks the folder and the manifest side by side: both are in the order
// of base offsets, so that a million objects need no more memory than one part.
type comparison struct {
	ar      *Archive
	h       *format.Head
	buried  map[string]bool // names in graves, but for what buried parts list
	orphans []stranger
	lost    []format.Entry
}

// stranger is an object that no manifest names.
type stranger struct {
	format.Name
	size int64
}

func (c *comparison) run(ctx context.Context) error {
	for i := range c.h.Graves {
		c.buried[c.h.Graves[i].Name()] = true
	}
	parts := map[string]bool{}
	for i := range c.h.Parts {
		parts[c.h.Parts[i].Name()] = true
	}
	var broken error
	named, stop := iter.Pull(func(yield func(*format.Entry) bool) {
		broken = c.ar.each(ctx, c.h, 0, func(e *format.Entry) (bool, error) {
			return e.Key != "" || yield(e), nil // those elsewhere in the store are not this folder's
		})
	})
	defer stop()
	e, more := named()
	for info, err := range c.ar.a.bucket.List(ctx, c.ar.folder) {
		if err != nil {
			return fmt.Errorf("list %s: %w", c.ar.folder, err)
		}
		c.ar.moved()
		name := strings.TrimPrefix(info.Key, c.ar.folder)
		n, ours := format.ParseName(name)
		if ours && !n.Part {
			for more && e.Name() < name {
				c.miss(e)
				e, more = named()
			}
		}
		switch {
		case more && e.Name() == name:
			if info.Size != e.Size || info.ETag != e.ETag {
				c.miss(e)
			}
			e, more = named()
		case name == format.HeadName || parts[name] || c.buried[name]:
		case !ours:
			c.ar.logger.Warn("the bucket has an object that is not ours", "event", "stranger", "key", info.Key)
		default:
			listed, err := c.listed(ctx, n)
			if err != nil {
				return err
			}
			if !listed && len(c.orphans) < maxFound {
				c.orphans = append(c.orphans, stranger{n, info.Size})
			}
		}
	}
	for more {
		c.miss(e)
		e, more = named()
	}
	return broken
}

func (c *comparison) miss(e *format.Entry) { c.lost = append(c.lost, *e) }

// listed says whether a buried part names an object, which then has no grave of
// its own. One that cannot be read hides nothing.
func (c *comparison) listed(ctx context.Context, n format.Name) (bool, error) {
	if n.Part {
		return false, nil
	}
	for i := range c.h.Graves {
		g := &c.h.Graves[i]
		if !g.WithEntries || n.Base < g.Base || n.Base >= g.End {
			continue
		}
		p, err := c.ar.a.readPart(ctx, c.ar.folder+g.Name(), g.Nonce)
		if isGone(err) || errors.Is(err, format.ErrCorrupt) {
			continue
		}
		if err != nil {
			return false, err
		}
		k := sort.Search(len(p.Entries), func(k int) bool { return p.Entries[k].Base >= n.Base })
		if k < len(p.Entries) && p.Entries[k].Nonce == n.Nonce {
			return true, nil
		}
	}
	return false, nil
}

// buryOrphans buries the strangers that are covered, or below the log start.
func (ar *Archive) buryOrphans(ctx context.Context, h *format.Head, strangers []stranger, lost []format.Entry) error {
	var graves []format.Grave
	for _, n := range strangers {
		grave := format.Grave{State: format.Unlinked, Since: ar.stamp(), Orphan: true, Part: n.Part, Base: n.Base, End: n.End, Epoch: n.Epoch, Nonce: n.Nonce, Size: n.size}
		if !n.Part {
			grave.Objects = 1
		}
		key := ar.folder + grave.Name()
		// The head says what is covered: [Start, End) without a gap, verified as
		// far as the listing shows; below the log start nothing is needed.
		if n.End > h.End && n.End > h.LogStart {
			ar.logger.Warn("the bucket has an object that no manifest names, above its end; it is left alone", "event", "uncovered_orphan", "key", key, "end", h.End)
			continue
		}
		if n.Base < h.Start() && n.End > h.LogStart && h.Start() > h.LogStart {
			ar.logger.Warn("the bucket has an object that no manifest names, below its start; it is left alone", "event", "uncovered_orphan", "key", key, "start", h.Start())
			continue
		}
		if !n.Part && slices.ContainsFunc(lost, func(e format.Entry) bool { return e.Base < n.End && n.Base < e.End }) {
			ar.logger.Warn("the bucket has an object that no manifest names, and what covers it is missing or changed; it is left alone", "event", "uncovered_orphan", "key", key)
			continue
		}
		graves = append(graves, grave)
	}
	if room := ar.a.shape.graves - len(h.Graves); len(graves) > max(room, 0) {
		graves = graves[:max(room, 0)] // the others are found again
	}
	if len(graves) == 0 {
		return nil
	}
	ar.logger.Info("objects that no manifest names are buried", "event", "orphans_buried", "objects", len(graves))
	return ar.commit(ctx, func(h *format.Head) error {
		h.Graves = append(h.Graves, graves...)
		return nil
	})
}

// repair writes an object again that the store lost or changed, from the local
// log, and names it in the place of the old one. Of the first object what is below
// the log start may be missing here: nobody needs it.
func (ar *Archive) repair(ctx context.Context, e format.Entry, why error) error {
	logStart, localStart, _ := ar.src.Offsets()
	from := e.Base
	if localStart <= logStart && logStart < e.End && ar.head.Start() == e.Base {
		from = max(from, localStart)
	}
	if localStart > from {
		ar.a.metrics.damaged.Inc()
		ar.logger.Error("an object of the bucket is lost and no local copy is left", "event", "object_lost", "offset", e.Base, "end", e.End, "key", ar.a.key(ar.tp, &e), "err", why)
		return fmt.Errorf("%w: [%d, %d), restore %s from a backup or an older version: %w", errLost, e.Base, e.End, ar.a.key(ar.tp, &e), why)
	}
	fresh, err := ar.put(ctx, from, e.End)
	if err != nil {
		return fmt.Errorf("repair [%d, %d): %w", e.Base, e.End, err)
	}
	if fresh.Base != from || fresh.End != e.End {
		return fmt.Errorf("repair [%d, %d): the local log has [%d, %d)", e.Base, e.End, fresh.Base, fresh.End)
	}
	err = ar.rename(ctx, e, fresh)
	if err == nil {
		ar.logger.Warn("an object of the bucket was written again from the local log", "event", "object_repaired", "offset", e.Base, "end", e.End, "err", why)
	}
	return err
}

// rename names fresh in the place of e, which is buried.
func (ar *Archive) rename(ctx context.Context, e, fresh format.Entry) error {
	replace := func(entries []format.Entry) bool {
		for i := range entries {
			if entries[i].Nonce == e.Nonce {
				entries[i] = fresh
				return true
			}
		}
		return false
	}
	i := sort.Search(len(ar.head.Parts), func(i int) bool { return ar.head.Parts[i].To > e.Base })
	if i == len(ar.head.Parts) {
		return ar.commit(ctx, func(h *format.Head) error {
			if replace(h.Entries) {
				ar.bury(h, []format.Entry{e})
			}
			return nil // else it was buried meanwhile
		})
	}
	old := ar.head.Parts[i]
	p, err := ar.a.part(ctx, ar.tp, &old)
	if err != nil {
		return err
	}
	entries := slices.Clone(p.Entries)
	if !replace(entries) {
		return fmt.Errorf("%w: part [%d, %d) no longer names [%d, %d)", errConflict, old.From, old.To, e.Base, e.End)
	}
	ref, err := ar.putPart(ctx, entries)
	if err != nil {
		return err
	}
	return ar.commit(ctx, func(h *format.Head) error {
		for i := range h.Parts {
			if h.Parts[i].Nonce == old.Nonce {
				ar.replacePart(h, i, ref)
				ar.bury(h, []format.Entry{e})
			}
		}
		return nil
	})
}
