package tiering

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"time"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/internal/failpoint"
	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/tiering/format"
)

// write is a head on its way to the bucket. It stays until its outcome is known:
// the same bytes under the same condition are sent again (SAFETY 12).
type write struct {
	head *format.Head
	data []byte
	cond objectstore.Cond
	// doubt says that an attempt may have landed, or may yet.
	doubt bool
}

// readHead reads the head of tp. A head of nil means that the bucket has none
// and, as far as this broker remembers, never had.
func (a *Archiver) readHead(ctx context.Context, tp metadata.TopicPartition) (*format.Head, string, error) {
	// First what is known: a commit may come between the two.
	known := a.cfg.Memory.Generation(tp)
	data, etag, err := a.bucket.Get(ctx, a.folder(tp)+format.HeadName)
	if errors.Is(err, objectstore.ErrNotFound) {
		if known > 0 {
			return nil, "", fmt.Errorf("%w: the manifest of %s-%d is missing, generation %d was there; restore it from an older version of the object, or from a listing", ErrSafeMode, tp.Topic, tp.Partition, known)
		}
		return nil, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("read the manifest of %s-%d: %w", tp.Topic, tp.Partition, err)
	}
	h, err := format.DecodeHead(data)
	if err != nil {
		return nil, "", fmt.Errorf("the manifest of %s-%d: %w", tp.Topic, tp.Partition, err)
	}
	if h.TopicID != tp.TopicID || h.Partition != tp.Partition || h.ClusterID != a.cfg.ClusterID {
		return nil, "", fmt.Errorf("%w: the manifest of %s-%d is that of %s-%d in cluster %s", ErrSafeMode, tp.Topic, tp.Partition, h.Topic, h.Partition, h.ClusterID)
	}
	if h.Generation < known {
		return nil, "", fmt.Errorf("%w: the manifest of %s-%d has generation %d, generation %d was there", ErrSafeMode, tp.Topic, tp.Partition, h.Generation, known)
	}
	return h, etag, nil
}

// load reads the head for the first time in this leadership, or again.
func (ar *Archive) load(ctx context.Context) error {
	h, etag, err := ar.readHead(ctx)
	if err != nil {
		return err
	}
	ar.install(h, etag, false)
	if err := ar.remember(); err != nil {
		ar.logger.Warn("the head's generation could not be remembered", "event", "head_memory_failed", "err", err)
	}
	return nil
}

// readHead reads the head and compares it with the log, too: records that are no
// longer on disk were in the bucket, so there was a head (SAFETY 10).
func (ar *Archive) readHead(ctx context.Context) (*format.Head, string, error) {
	logStart, localStart, _ := ar.src.Offsets()
	h, etag, err := ar.a.readHead(ctx, ar.tp)
	if err == nil && h == nil && logStart < localStart {
		return nil, "", fmt.Errorf("%w: %s-%d has no manifest, and its records below %d are not on disk either; restore the manifest, or say with DeleteRecords up to %d that they are lost",
			ErrSafeMode, ar.tp.Topic, ar.tp.Partition, localStart, localStart)
	}
	return h, etag, err
}

// remember makes durable that the head was there.
func (ar *Archive) remember() error {
	if ar.head == nil || ar.head.Generation <= ar.a.cfg.Memory.Generation(ar.tp) {
		return nil
	}
	if err := ar.a.cfg.Memory.Remember(ar.tp, ar.head.Generation, ar.head.End); err != nil {
		return fmt.Errorf("remember generation %d of the manifest of %s-%d: %w", ar.head.Generation, ar.tp.Topic, ar.tp.Partition, err)
	}
	return nil
}

// fresh reads the head again and returns it when it is still the one that this
// leader wrote last.
func (ar *Archive) fresh(ctx context.Context) (*format.Head, error) {
	h, etag, err := ar.readHead(ctx)
	switch {
	case isSafeMode(err):
		ar.claimed, ar.loaded = false, false
		return nil, err
	case err != nil:
		return nil, err
	case h == nil || etag != ar.etag || h.Nonce != ar.head.Nonce:
		ar.claimed, ar.loaded = false, false
		return nil, errConflict
	}
	return h, nil
}

// install makes h what this Archive knows, as a whole. A head that another
// leader wrote is shown to readers without what is not of our lineage.
func (ar *Archive) install(h *format.Head, etag string, own bool) {
	ar.head, ar.etag, ar.loaded, ar.claimed = h, etag, true, own
	shown := h
	if !own {
		shown = ar.shown(h)
	}
	ar.publish(&view{head: shown, etag: etag})
	if h == nil {
		return
	}
	now := ar.a.cfg.Now()
	graves := make(map[format.Nonce]time.Time, len(h.Graves))
	for i := range h.Graves {
		at, ok := ar.seen[h.Graves[i].Nonce]
		if !ok {
			at = now
		}
		graves[h.Graves[i].Nonce] = at
	}
	ar.seen = graves
}

// claim makes this leader the writer of the head: nothing in the bucket is
// changed and nothing local deleted before (SAFETY 9).
func (ar *Archive) claim(ctx context.Context) error {
	if err := ar.load(ctx); err != nil {
		return err
	}
	if err := ar.a.describeTopic(ctx, ar.tp); err != nil {
		return err
	}
	if err := ar.readClock(ctx); err != nil {
		return err
	}
	logStart, _, _ := ar.src.Offsets()
	h := ar.head
	if h == nil {
		// Only an empty folder makes a beginning (SAFETY 10).
		for info, err := range ar.a.bucket.List(ctx, ar.folder) {
			if err != nil {
				return fmt.Errorf("list %s: %w", ar.folder, err)
			}
			return fmt.Errorf("%w: %s-%d has no manifest and yet %s; restore the manifest or move the objects away", ErrSafeMode, ar.tp.Topic, ar.tp.Partition, info.Key)
		}
		return ar.commit(ctx, func(h *format.Head) error {
			h.LogStart, h.End = logStart, logStart
			return nil
		})
	}
	if h.Epoch > ar.epoch || h.ClusterGeneration > ar.a.cfg.ClusterGeneration() || h.Deleted {
		ar.fenced = true
		return fmt.Errorf("%w: the head has epoch %d of broker %d", ErrFenced, h.Epoch, h.Writer)
	}
	// A head of ours that went away and came back is still ours.
	if h.Epoch == ar.epoch && h.Nonce != ar.wrote {
		ar.fenced = true
		return fmt.Errorf("%w: the head has our own epoch %d, written by broker %d before we claimed it", ErrFenced, h.Epoch, h.Writer)
	}
	own := ar.ownEntries(h)
	if own == len(h.Entries) && h.End > ar.localEnd() {
		// Rule 4 should have made the log continue at the bucket's end.
		return fmt.Errorf("%w: the log of %s-%d ends at %d, below the bucket's end %d; restart the broker so that it continues from there",
			ErrSafeMode, ar.tp.Topic, ar.tp.Partition, ar.localEnd(), h.End)
	}
	if n := len(h.Parts); n > 0 && own < len(h.Entries) && divergence(ar.src.Lineage(), h.Lineage, ar.localEnd()) < h.Parts[n-1].To {
		return fmt.Errorf("%w: the log of %s-%d left the bucket's lineage below %d, thousands of objects ago; this needs a person to look",
			ErrSafeMode, ar.tp.Topic, ar.tp.Partition, h.Parts[n-1].To)
	}
	foreign := int64(format.EndOfTime)
	if own < len(h.Entries) {
		foreign = h.Entries[own].Base
		ar.logger.Warn("the bucket has objects of another lineage; they are buried", "event", "foreign_lineage", "objects", len(h.Entries)-own, "offset", foreign)
	}
	return ar.commit(ctx, func(h *format.Head) error {
		// A stamp from the future would keep its grave closed until then.
		for i := range h.Graves {
			h.Graves[i].Since = min(h.Graves[i].Since, ar.stamp())
		}
		// By offset, not by index: what lies below the log start is gone already.
		n := sort.Search(len(h.Entries), func(i int) bool { return h.Entries[i].Base >= foreign })
		if n < len(h.Entries) {
			ar.bury(h, h.Entries[n:])
			h.Entries = h.Entries[:n]
			h.End = endOf(h)
		}
		return nil
	})
}

// localEnd is the end of the local log, committed or not.
func (ar *Archive) localEnd() int64 {
	segs := ar.src.Segments()
	if len(segs) == 0 {
		_, localStart, _ := ar.src.Offsets()
		return localStart
	}
	return segs[len(segs)-1].End
}

// ownEntries counts the entries of h that lie in our log's lineage: those that
// end at or below the first offset where the two name different epochs. Where
// our log knows nothing, the head is believed.
func (ar *Archive) ownEntries(h *format.Head) int {
	at := divergence(ar.src.Lineage(), h.Lineage, ar.localEnd())
	n := len(h.Entries)
	for n > 0 && h.Entries[n-1].End > at {
		n--
	}
	return n
}

// divergence is the first offset at which two lineages differ, as far as ours
// reaches (end); the greatest offset when they do not.
func divergence(ours []commitlog.EpochStart, theirs []format.Epoch, end int64) int64 {
	if len(ours) == 0 {
		return format.EndOfTime
	}
	epochOf := func(n int, start func(int) (int32, int64), offset int64) int32 {
		e := int32(-1)
		for i := range n {
			if epoch, at := start(i); at <= offset {
				e = epoch
			}
		}
		return e
	}
	own := func(i int) (int32, int64) { return ours[i].Epoch, ours[i].Start }
	other := func(i int) (int32, int64) { return theirs[i].Epoch, theirs[i].Start }
	// Two step functions can only begin to differ at a step.
	var steps []int64
	for _, e := range ours {
		steps = append(steps, e.Start)
	}
	for _, e := range theirs {
		steps = append(steps, e.Start)
	}
	slices.Sort(steps)
	for _, at := range steps {
		if at < ours[0].Start || at >= end {
			continue
		}
		e := epochOf(len(theirs), other, at)
		if e >= 0 && e != epochOf(len(ours), own, at) {
			return at
		}
	}
	return format.EndOfTime
}

// commit replaces the head by what change makes of it.
func (ar *Archive) commit(ctx context.Context, change func(h *format.Head) error) error {
	if err := ar.check(); err != nil {
		return err
	}
	if ar.pending != nil {
		return fmt.Errorf("%w: an earlier head is still undecided", errConflict)
	}
	next := &format.Head{}
	cond := objectstore.Cond{IfNoneMatch: true}
	if ar.head != nil {
		next = cloneHead(ar.head)
		cond = objectstore.Cond{IfMatch: ar.etag}
	}
	next.ClusterID, next.ClusterGeneration = ar.a.cfg.ClusterID, ar.a.cfg.ClusterGeneration()
	next.TopicID, next.Topic, next.Partition = ar.tp.TopicID, ar.tp.Topic, ar.tp.Partition
	next.Epoch, next.Writer = ar.epoch, ar.a.cfg.NodeID
	next.Generation++
	next.Nonce = newNonce()
	ar.follow(next)
	if err := change(next); err != nil {
		return err
	}
	ar.follow(next)
	data := format.EncodeHead(next)
	if len(data) > format.MaxHead {
		return fmt.Errorf("BUG: a head of %d bytes: %d entries, %d parts, %d graves", len(data), len(next.Entries), len(next.Parts), len(next.Graves))
	}
	// What cannot be read back must not be written.
	if _, err := format.DecodeHead(data); err != nil {
		return fmt.Errorf("BUG: unreadable head: %w", err)
	}
	ar.headSize = len(data)
	ar.pending = &write{head: next, data: data, cond: cond}
	return ar.resolve(ctx)
}

// follow makes what every commit carries: the log start, with the burial of what
// lies below it, and the lineage of what the head covers.
func (ar *Archive) follow(h *format.Head) {
	logStart, _, _ := ar.src.Offsets()
	if logStart > h.LogStart {
		h.LogStart = logStart
	}
	ar.buryBelow(h, h.LogStart)
	if len(h.Entries) == 0 && len(h.Parts) == 0 {
		h.End = max(h.End, h.LogStart)
	}
	var lineage []format.Epoch
	low := min(h.LogStart, h.Start())
	for _, e := range mergeLineage(h.Lineage, toEpochs(ar.src.Lineage())) {
		if len(lineage) > 0 && e.Start <= low {
			lineage = lineage[:0] // the epoch before ended below everything
		}
		if e.Start < h.End || len(lineage) == 0 {
			lineage = append(lineage, e)
		}
	}
	h.Lineage = lineage
}

// mergeLineage takes what ours knows, and below it what the head knew.
func mergeLineage(head, ours []format.Epoch) []format.Epoch {
	if len(ours) == 0 {
		return head
	}
	var out []format.Epoch
	for _, e := range head {
		if e.Start < ours[0].Start && e.Epoch < ours[0].Epoch {
			out = append(out, e)
		}
	}
	return append(out, ours...)
}

// resolve sends the pending head until its outcome is known or ctx ends. It
// returns errConflict when another head won, ErrFenced when that is of a later
// epoch.
func (ar *Archive) resolve(ctx context.Context) error {
	w := ar.pending
	key := ar.folder + format.HeadName
	for attempt := 0; ; attempt++ {
		failpoint.Hit(failpoint.ManifestCommit)
		etag, err := ar.a.bucket.Put(ctx, key, bytes.NewReader(w.data), int64(len(w.data)), w.cond)
		switch {
		case err == nil:
			failpoint.Hit(failpoint.Committed)
			return ar.committed(w, etag)
		case errors.Is(err, objectstore.ErrPrecondition):
			return ar.lostOrWon(ctx, w)
		case errors.Is(err, objectstore.ErrNotFound):
			ar.claimed, ar.loaded = false, false
			if !w.doubt {
				ar.pending = nil // else it may have landed, and come back
			}
			return fmt.Errorf("%w: the manifest of %s-%d vanished", ErrSafeMode, ar.tp.Topic, ar.tp.Partition)
		case errors.Is(err, objectstore.ErrInDoubt):
			w.doubt = true
		default:
			if !w.doubt {
				ar.pending = nil // it had no effect and never will
			}
			return fmt.Errorf("commit the manifest of %s-%d: %w", ar.tp.Topic, ar.tp.Partition, err)
		}
		if attempt >= 5 {
			return fmt.Errorf("commit the manifest of %s-%d: %w", ar.tp.Topic, ar.tp.Partition, err)
		}
		pause := 100 * time.Millisecond << attempt
		t := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("commit the manifest of %s-%d: %w", ar.tp.Topic, ar.tp.Partition, err)
		}
	}
}

// lostOrWon reads the head that refused ours: it may be ours, from an attempt
// whose answer got lost.
func (ar *Archive) lostOrWon(ctx context.Context, w *write) error {
	data, etag, err := ar.a.bucket.Get(ctx, ar.folder+format.HeadName)
	if errors.Is(err, objectstore.ErrNotFound) {
		ar.claimed, ar.loaded = false, false
		return fmt.Errorf("%w: the manifest of %s-%d vanished", ErrSafeMode, ar.tp.Topic, ar.tp.Partition)
	}
	if err != nil {
		return fmt.Errorf("read the manifest of %s-%d that refused ours: %w", ar.tp.Topic, ar.tp.Partition, err)
	}
	h, err := format.DecodeHead(data)
	if err != nil {
		return fmt.Errorf("the manifest of %s-%d: %w", ar.tp.Topic, ar.tp.Partition, err)
	}
	if h.Nonce == w.head.Nonce && h.Generation == w.head.Generation {
		return ar.committed(w, etag)
	}
	// Whatever we knew is replaced as a whole.
	ar.pending = nil
	ar.install(h, etag, false)
	if h.Epoch > ar.epoch {
		ar.fenced = true
		return fmt.Errorf("%w: epoch %d of broker %d", ErrFenced, h.Epoch, h.Writer)
	}
	if h.Epoch == ar.epoch && h.Writer != ar.a.cfg.NodeID {
		ar.fenced = true
		return fmt.Errorf("%w: broker %d writes in our epoch %d", ErrFenced, h.Writer, h.Epoch)
	}
	return fmt.Errorf("%w: generation %d of epoch %d is there", errConflict, h.Generation, h.Epoch)
}

func (ar *Archive) committed(w *write, etag string) error {
	ar.moved()
	ar.pending, ar.wrote = nil, w.head.Nonce
	ar.install(w.head, etag, true)
	if err := ar.remember(); err != nil {
		// The alarm of rule 10 would come a generation late; no local copy goes
		// until it works.
		ar.logger.Warn("the head's generation could not be remembered", "event", "head_memory_failed", "err", err)
	}
	return nil
}

// endOf is the end of what a head names.
func endOf(h *format.Head) int64 {
	if n := len(h.Entries); n > 0 {
		return h.Entries[n-1].End
	}
	if n := len(h.Parts); n > 0 {
		return h.Parts[n-1].To
	}
	return h.LogStart
}

// cloneHead copies what commits change; entries themselves never change.
func cloneHead(h *format.Head) *format.Head {
	c := *h
	c.Lineage, c.Parts, c.Entries, c.Graves = slices.Clone(h.Lineage), slices.Clone(h.Parts), slices.Clone(h.Entries), slices.Clone(h.Graves)
	return &c
}
