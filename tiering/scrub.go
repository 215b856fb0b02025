package tiering

import (
	"context"
	"errors"
	"fmt"
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
	// The listing comes first: what is uploaded after it is not in it.
	found := map[string]objectstore.Info{}
	for info, err := range ar.a.bucket.List(ctx, ar.folder) {
		if err != nil {
			return fmt.Errorf("list %s: %w", ar.folder, err)
		}
		ar.moved()
		found[strings.TrimPrefix(info.Key, ar.folder)] = info
	}
	h, err := ar.fresh(ctx)
	if err != nil {
		return fmt.Errorf("before a scrub: %w", err)
	}
	var lost []format.Entry
	err = ar.each(ctx, h, 0, func(e *format.Entry) (bool, error) {
		if e.Key != "" {
			return true, nil // elsewhere in the store: not this folder's
		}
		info, ok := found[e.Name()]
		if !ok || info.Size != e.Size || info.ETag != e.ETag {
			lost = append(lost, *e)
		}
		delete(found, e.Name())
		return true, nil
	})
	if err != nil {
		return err
	}
	delete(found, format.HeadName)
	for i := range h.Parts {
		delete(found, h.Parts[i].Name())
	}
	if err := ar.forgetBuried(ctx, h, found); err != nil {
		return err
	}
	if err := ar.buryOrphans(ctx, h, found, lost); err != nil {
		return err
	}
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

// forgetBuried takes what lies in graves out of found.
func (ar *Archive) forgetBuried(ctx context.Context, h *format.Head, found map[string]objectstore.Info) error {
	buried, err := ar.a.contents(ctx, ar.folder, h, func(*format.Grave) bool { return true })
	if err != nil {
		return err
	}
	for _, c := range buried {
		for _, k := range append(c.objects, c.parts...) {
			delete(found, strings.TrimPrefix(k, ar.folder))
		}
	}
	return nil
}

func (ar *Archive) buryOrphans(ctx context.Context, h *format.Head, strangers map[string]objectstore.Info, lost []format.Entry) error {
	var graves []format.Grave
	for name, info := range strangers {
		n, ok := format.ParseName(name)
		if !ok {
			ar.logger.Warn("the bucket has an object that is not ours", "event", "stranger", "key", info.Key)
			continue
		}
		// The head says what is covered: [Start, End) without a gap, verified as
		// far as the listing shows; below the log start nothing is needed.
		if n.End > h.End && n.End > h.LogStart {
			ar.logger.Warn("the bucket has an object that no manifest names, above its end; it is left alone", "event", "uncovered_orphan", "key", info.Key, "end", h.End)
			continue
		}
		if n.Base < h.Start() && n.End > h.LogStart && h.Start() > h.LogStart {
			ar.logger.Warn("the bucket has an object that no manifest names, below its start; it is left alone", "event", "uncovered_orphan", "key", info.Key, "start", h.Start())
			continue
		}
		if !n.Part && slices.ContainsFunc(lost, func(e format.Entry) bool { return e.Base < n.End && n.Base < e.End }) {
			ar.logger.Warn("the bucket has an object that no manifest names, and what covers it is missing or changed; it is left alone", "event", "uncovered_orphan", "key", info.Key)
			continue
		}
		graves = append(graves, format.Grave{State: format.Unlinked, Since: ar.stamp(), Orphan: true, Part: n.Part, Base: n.Base, End: n.End, Epoch: n.Epoch, Nonce: n.Nonce})
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
// log, and names it in the place of the old one.
func (ar *Archive) repair(ctx context.Context, e format.Entry, why error) error {
	_, localStart, _ := ar.src.Offsets()
	if localStart > e.Base {
		ar.a.metrics.damaged.Inc()
		ar.logger.Error("an object of the bucket is lost and no local copy is left", "event", "object_lost", "offset", e.Base, "end", e.End, "key", ar.a.key(ar.tp, &e), "err", why)
		return fmt.Errorf("%w: [%d, %d), restore %s from a backup or an older version: %w", errLost, e.Base, e.End, ar.a.key(ar.tp, &e), why)
	}
	fresh, err := ar.put(ctx, e.Base, e.End)
	if err != nil {
		return fmt.Errorf("repair [%d, %d): %w", e.Base, e.End, err)
	}
	if fresh.Base != e.Base || fresh.End != e.End {
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
