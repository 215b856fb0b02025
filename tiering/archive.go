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

	// passing serialises passes and guards everything down to mu.
	passing  sync.Mutex
	head     *format.Head // nil when there is none, or it is not loaded
	etag     string
	loaded   bool         // head is what the bucket had, at some time in this leadership
	claimed  bool         // and this leader wrote it
	wrote    format.Nonce // of the last head that this leader wrote
	pending  *write
	headSize int // bytes of the last head that was encoded
	fenced   bool
	seen     map[format.Nonce]time.Time // when this leader first saw a grave
	skew     time.Duration              // the store's clock is this far ahead of ours
	scrubAt  time.Time                  // when the next look for orphans is due
	failed   int                        // passes in a row

	// mu guards what due reads and passes write.
	mu struct {
		sync.Mutex
		queued  bool
		again   bool      // the last pass had more to do
		retryAt time.Time // after a failure
		graveAt time.Time // when the first grave may be opened; zero for none
		scrubAt time.Time
		pending time.Time // since when something waits for the upload; zero for nothing
		err     error     // of the last pass
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
		seen:   map[format.Nonce]time.Time{},
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
	ar.passing.Lock() // waits for the pass under way
	defer ar.passing.Unlock()
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
		ar.mu.retryAt = time.Time{}
		return
	}
	// Full jitter: a bucket that comes back must not meet all partitions at once.
	wait := min(time.Second<<min(ar.failed, 5), 30*time.Second)
	if errors.Is(err, ErrFenced) || errors.Is(err, ErrSafeMode) {
		wait = time.Minute
	}
	ar.mu.retryAt = now.Add(wait/4 + rand.N(wait))
	if ar.ctx.Err() == nil {
		ar.logger.Warn("archiving failed, trying again later", "event", "archive_failed", "attempt", ar.failed, "wait", wait, "err", err)
		ar.a.metrics.copyErrors.Inc()
	}
}

// pass does what is due. With all it also scrubs, whether due or not.
func (ar *Archive) pass(ctx context.Context, all bool) (err error) {
	ar.passing.Lock()
	defer ar.passing.Unlock()
	ctx, cancel := context.WithTimeout(ctx, ar.a.cfg.Timeout)
	defer cancel()
	defer context.AfterFunc(ar.ctx, cancel)()
	defer func() {
		if err == nil {
			ar.failed = 0
		} else {
			ar.failed++
		}
	}()
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
	if err := ar.expire(ctx, cfg, now); err != nil {
		return err
	}
	more, err := ar.upload(ctx, cfg, now)
	if err != nil {
		return err
	}
	if err := ar.deleteLocal(ctx, cfg, now); err != nil {
		return err
	}
	if err := ar.purge(ctx, now); err != nil {
		return err
	}
	if all || !now.Before(ar.scrubAt) {
		if err := ar.scrub(ctx); err != nil {
			return err
		}
		ar.scrubAt = now.Add(ar.a.cfg.ScrubEvery/2 + rand.N(ar.a.cfg.ScrubEvery))
	}
	ar.note(more)
	return nil
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
	ar.note(false)
	return nil
}

func isSafeMode(err error) bool { return errors.Is(err, ErrSafeMode) }
