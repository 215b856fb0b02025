package tiering

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/tiering/format"
)

// Errors of the archive.
var (
	// ErrNotTiered means that no object of the bucket holds the offset.
	ErrNotTiered = errors.New("offset is not in the bucket")
	// ErrFenced means that a later leader epoch has written the head: this
	// broker's leadership is over, whether it knows or not.
	ErrFenced = errors.New("a later leader has claimed the partition in the bucket")
	// ErrSafeMode means that the bucket does not have what it should have. It is
	// read, and neither written nor deleted from, until somebody looks (SAFETY 10).
	ErrSafeMode = errors.New("bucket safe mode")
	// errConflict means that the head changed under us; the next pass claims it
	// again.
	errConflict = errors.New("the head changed")
	// errLost means a named object that is gone or changed, with no local copy to
	// write it again from. It is a case of ErrSafeMode for that object alone.
	errLost = fmt.Errorf("%w: an object is lost", ErrSafeMode)
)

// Archive is what one partition is in the bucket, and the work on it, for one
// leadership.
type Archive struct {
	a      *Archiver
	src    Source
	tp     metadata.TopicPartition
	epoch  int32
	folder string
	logger *slog.Logger

	ctx    context.Context // of everything under way; ends in close
	cancel context.CancelFunc

	// view is what readers see; nil until the head was read once. publishing
	// serialises its replacement.
	view       atomic.Pointer[view]
	publishing sync.Mutex

	// passing serialises passes and guards everything down to mu: it holds a
	// token while a pass runs, so that waiting for one can end.
	passing  chan struct{}
	moved    func()       // tells that something moved in the pass under way
	head     *format.Head // nil when there is none, or it is not loaded
	etag     string
	loaded   bool         // head is what the bucket had, at some time in this leadership
	claimed  bool         // and this leader wrote it
	wrote    format.Nonce // of the last head that this leader wrote
	pending  *write
	headSize int // bytes of the last head that was encoded
	fenced   bool
	seen     map[format.Nonce]time.Time // when this leader first saw a grave
	clock    clock
	purgeAt  time.Time // no use in opening graves before
	scrubAt  time.Time // when the next look for orphans is due

	// mu guards what due reads and passes write.
	mu struct {
		sync.Mutex
		queued  bool
		again   bool      // the last pass had more to do
		retryAt time.Time // after a failure
		failed  int       // passes in a row
		graveAt time.Time // when the first grave may be opened; zero for none
		scrubAt time.Time
		pending time.Time // since when something waits for the upload; zero for nothing
		err     error     // of the last pass
		kept    kept
		gone    bool
	}
}

// view is an immutable state of the manifest.
type view struct {
	head *format.Head
	etag string
}

func newArchive(a *Archiver, src Source) *Archive {
	tp := src.TopicPartition()
	epoch, _ := src.Leadership()
	ar := &Archive{
		a: a, src: src, tp: tp, epoch: epoch, folder: a.folder(tp),
		logger: a.logger.With("topic", tp.Topic, "partition", tp.Partition, "epoch", epoch),
		seen:   map[format.Nonce]time.Time{}, passing: make(chan struct{}, 1), moved: func() {},
	}
	ar.ctx, ar.cancel = context.WithCancel(a.ctx)
	// The first scrub comes at a random time of the period, or all partitions
	// would list their folders at once.
	ar.scrubAt = a.cfg.Now().Add(rand.N(a.cfg.ScrubEvery))
	ar.mu.scrubAt = ar.scrubAt
	return ar
}

// close ends the work and waits for it.
func (ar *Archive) close() {
	ar.mu.Lock()
	ar.mu.gone = true
	ar.mu.Unlock()
	ar.cancel()
	ar.passing <- struct{}{} // waits for the pass under way
	ar.unlock()
}

// Err is why the last pass failed, nil when it did not.
func (ar *Archive) Err() error {
	ar.mu.Lock()
	defer ar.mu.Unlock()
	return ar.mu.err
}

// due says, from memory alone, whether a pass has something to do. It marks the
// Archive as queued when it has.
func (ar *Archive) due(now time.Time) bool {
	cfg := ar.src.Config()
	if !cfg.RemoteRead {
		return false
	}
	work := ar.wants(cfg, now)
	ar.mu.Lock()
	defer ar.mu.Unlock()
	if ar.mu.gone || ar.mu.queued || now.Before(ar.mu.retryAt) {
		return false
	}
	if !work && !ar.mu.again && (ar.mu.graveAt.IsZero() || now.Before(ar.mu.graveAt)) && now.Before(ar.mu.scrubAt) {
		return false
	}
	ar.mu.queued = true
	return true
}

// wants says whether the partition itself has something for a pass: data to
// upload, to expire or to delete locally, or a head that was never read.
func (ar *Archive) wants(cfg *metadata.TopicConfig, now time.Time) bool {
	v := ar.view.Load()
	if v == nil {
		return true
	}
	if _, _, ok := ar.uploadable(cfg, now, v.head); ok {
		return true
	}
	logStart, localStart, _ := ar.src.Offsets()
	if v.head != nil && v.head.LogStart < logStart && v.head.Start() < logStart || localStart < logStart && ar.deletableLocally(cfg, now, v.head) > localStart {
		return true
	}
	return ar.deletableLocally(cfg, now, v.head) > localStart || ar.hasExpired(cfg, now, v.head)
}

// run is one pass of a worker.
func (ar *Archive) run(ctx context.Context) {
	err := ar.pass(ctx, false)
	now := ar.a.cfg.Now()
	ar.mu.Lock()
	defer ar.mu.Unlock()
	ar.mu.queued = false
	ar.mu.err = err
	if err == nil || errors.Is(err, errConflict) {
		ar.mu.retryAt, ar.mu.failed = time.Time{}, 0
		return
	}
	// Full jitter: a bucket that comes back must not meet all partitions at once.
	ar.mu.failed++
	wait := min(time.Second<<min(ar.mu.failed, 5), 30*time.Second)
	if errors.Is(err, ErrFenced) || errors.Is(err, ErrSafeMode) {
		wait = time.Minute
	}
	ar.mu.retryAt = now.Add(wait/4 + rand.N(wait))
	if ar.ctx.Err() == nil {
		ar.logger.Warn("archiving failed, trying again later", "event", "archive_failed", "attempt", ar.mu.failed, "wait", wait, "err", err)
		ar.a.metrics.copyErrors.Inc()
	}
}

// lock takes the right to a pass; it is released by unlock.
func (ar *Archive) lock(ctx context.Context) error {
	select {
	case ar.passing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if ar.ctx.Err() != nil {
		ar.unlock()
		return fmt.Errorf("%w: archiving for epoch %d has ended", ErrFenced, ar.epoch)
	}
	return nil
}

func (ar *Archive) unlock() { <-ar.passing }

// watched is ctx for one pass: it ends when nothing moves for the timeout. A pass
// itself may take as long as its bytes take.
func (ar *Archive) watched(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	patience := ar.a.cfg.Timeout
	t := time.AfterFunc(patience, func() { cancel(fmt.Errorf("nothing moved for %v: %w", patience, context.DeadlineExceeded)) })
	closing := context.AfterFunc(ar.ctx, func() { cancel(context.Canceled) })
	ar.moved = func() { t.Reset(patience) }
	return ctx, func() {
		t.Stop()
		closing()
		cancel(nil)
	}
}

// pass does what is due. With all it also scrubs, whether due or not.
func (ar *Archive) pass(ctx context.Context, all bool) (err error) {
	if err := ar.lock(ctx); err != nil {
		return err
	}
	defer ar.unlock()
	ctx, stop := ar.watched(ctx)
	defer stop()
	if err := ar.check(); err != nil {
		return err
	}
	cfg := ar.src.Config()
	if !cfg.RemoteRead {
		return nil
	}
	if ar.pending != nil {
		if err := ar.resolve(ctx); err != nil {
			return err
		}
	}
	if !ar.loaded {
		if err := ar.load(ctx); err != nil {
			return err
		}
	}
	now := ar.a.cfg.Now()
	work := ar.wants(cfg, now) || ar.graveDue(now) || all || !now.Before(ar.scrubAt)
	if !work {
		ar.note(false)
		return nil
	}
	// A partition that never had anything in the bucket, and has nothing for it,
	// needs no head.
	if _, _, ok := ar.uploadable(cfg, now, ar.head); ar.head == nil && !ok {
		return ar.withoutHead(cfg, now)
	}
	if !ar.claimed {
		if err := ar.claim(ctx); err != nil {
			return err
		}
	}
	return ar.work(ctx, cfg, now, all)
}

// work does each kind of work in turn. What fails in one, a bad object or a
// request, does not keep the others from being done.
func (ar *Archive) work(ctx context.Context, cfg *metadata.TopicConfig, now time.Time, all bool) error {
	var errs []error
	more := false
	for _, do := range []func() error{
		func() error { return ar.expire(ctx, cfg, now) },
		func() (err error) { more, err = ar.upload(ctx, cfg, now); return err },
		func() error { return ar.deleteLocal(ctx, cfg, now) },
		func() error { return ar.purge(ctx, now) },
		func() error { return ar.scrubIfDue(ctx, now, all) },
	} {
		err := do()
		if err == nil {
			continue
		}
		errs = append(errs, err)
		// Without the head there is nothing to do; without the store neither.
		if !ar.claimed || ar.pending != nil || ar.fenced || ctx.Err() != nil || errors.Is(err, errConflict) || errors.Is(err, objectstore.ErrUnreachable) {
			break
		}
	}
	// What is below the log start and found no room in the graveyard.
	ar.note(more || len(errs) == 0 && ar.buriable(ar.head))
	return errors.Join(errs...)
}

func (ar *Archive) scrubIfDue(ctx context.Context, now time.Time, all bool) error {
	if !all && now.Before(ar.scrubAt) {
		return nil
	}
	err := ar.scrub(ctx)
	switch {
	case err == nil || errors.Is(err, errLost):
		ar.scrubAt = now.Add(ar.a.cfg.ScrubEvery/2 + rand.N(ar.a.cfg.ScrubEvery))
	case !errors.Is(err, errConflict):
		ar.scrubAt = now.Add(ar.a.cfg.ScrubEvery / 24) // it listed the whole folder
	}
	return err
}

// note tells due what the pass left.
func (ar *Archive) note(more bool) {
	ar.mu.Lock()
	defer ar.mu.Unlock()
	ar.mu.again = more
	ar.mu.graveAt = ar.nextGrave()
	ar.mu.scrubAt = ar.scrubAt
}

// check says whether this leadership may still touch the bucket.
func (ar *Archive) check() error {
	epoch, leading := ar.src.Leadership()
	if !leading || epoch != ar.epoch {
		return fmt.Errorf("%w: leading %v in epoch %d, archiving for %d", ErrFenced, leading, epoch, ar.epoch)
	}
	if ar.fenced {
		return ErrFenced
	}
	return nil
}

// withoutHead does what retention asks of a partition with nothing in the bucket.
func (ar *Archive) withoutHead(cfg *metadata.TopicConfig, now time.Time) error {
	if err := ar.raiseExpired(cfg, now, nil); err != nil {
		return err
	}
	logStart, localStart, _ := ar.src.Offsets()
	if localStart < logStart {
		if _, err := ar.src.DeleteLocal(logStart); err != nil {
			return err
		}
	}
	if !now.Before(ar.scrubAt) {
		ar.scrubAt = now.Add(ar.a.cfg.ScrubEvery) // there is nothing to list
	}
	ar.note(false)
	return nil
}

func isSafeMode(err error) bool { return errors.Is(err, ErrSafeMode) }
