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
		jobs    [jobCount]attempt
		graveAt time.Time // when the first grave may be opened; zero for none
		scrubAt time.Time
		pending time.Time // since when something waits for the upload; zero for nothing
		kept    kept
		whole   int64 // local segments do not go before all below this may; zero for nothing known
		gone    bool
	}
}

// view is an immutable state of the manifest.
type view struct {
	head *format.Head
	etag string
}

// job is a kind of work of a pass. Each has a pace of its own: one that fails is
// left alone for a while, and the others go on as if it were not there. Uploads
// above all must not wait for an object that nobody can delete.
type job int

// The kinds of work, in the order in which a pass does them.
const (
	beginning  job = iota // all that comes first; while it fails nothing else is done
	describing            // topic.json
	expiring
	uploading
	deleting // locally
	purging
	scrubbing
	jobCount
)

func (j job) String() string {
	return [...]string{"begin", "describe", "expire", "upload", "delete_local", "purge", "scrub"}[j]
}

// todo says of each kind of work whether there is some.
type todo [jobCount]bool

// attempt is how the last one at a job ended.
type attempt struct {
	err    error
	failed int       // attempts in a row
	until  time.Time // not before, after a failure
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

// Err is why the last attempts at any work failed, nil when none did.
func (ar *Archive) Err() error {
	ar.mu.Lock()
	defer ar.mu.Unlock()
	return ar.errLocked()
}

func (ar *Archive) errLocked() error {
	var errs []error
	for _, a := range ar.mu.jobs {
		errs = append(errs, a.err)
	}
	return errors.Join(errs...)
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
	if ar.mu.gone || ar.mu.queued || now.Before(ar.mu.jobs[beginning].until) {
		return false
	}
	work[purging] = !ar.mu.graveAt.IsZero() && !now.Before(ar.mu.graveAt)
	work[scrubbing] = !now.Before(ar.mu.scrubAt)
	for j, wanted := range work {
		if wanted && !now.Before(ar.mu.jobs[j].until) {
			ar.mu.queued = true
			return true
		}
	}
	return false
}

// wants says what the partition itself has for a pass: data to upload, to expire
// or to delete locally, a topic that changed, or a head that was never read.
func (ar *Archive) wants(cfg *metadata.TopicConfig, now time.Time) (work todo) {
	v := ar.view.Load()
	if v == nil {
		work[beginning] = true
		return work
	}
	_, _, work[uploading] = ar.uploadable(cfg, now, v.head)
	logStart, localStart, _ := ar.src.Offsets()
	work[deleting] = ar.deletableLocally(cfg, now, v.head) > localStart
	work[expiring] = ar.hasExpired(cfg, now, v.head)
	if v.head != nil {
		// What is below the log start may have found no room in the graveyard.
		untold := v.head.LogStart < logStart && v.head.Start() < logStart
		work[expiring] = work[expiring] || untold || ar.buriable(v.head)
		work[describing] = ar.a.undescribed(ar.tp)
	}
	return work
}

// run is one pass of a worker.
func (ar *Archive) run(ctx context.Context) {
	_ = ar.turn(ctx, false, ar.held) // each kind of work keeps its own error, and says it
	ar.mu.Lock()
	ar.mu.queued = false
	ar.mu.Unlock()
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

// pass does what there is to do, however often it failed before. With all it also
// scrubs, whether due or not.
func (ar *Archive) pass(ctx context.Context, all bool) error {
	return ar.turn(ctx, all, func(job) bool { return false })
}

// held says whether j failed a short while ago.
func (ar *Archive) held(j job) bool {
	ar.mu.Lock()
	defer ar.mu.Unlock()
	return ar.a.cfg.Now().Before(ar.mu.jobs[j].until)
}

// tried notes how an attempt at j ended, and returns err.
func (ar *Archive) tried(j job, err error) error {
	now := ar.a.cfg.Now()
	ar.mu.Lock()
	defer ar.mu.Unlock()
	a := &ar.mu.jobs[j]
	a.err = err
	if err == nil || errors.Is(err, errConflict) {
		a.failed, a.until = 0, time.Time{}
		return err
	}
	// Full jitter: a bucket that comes back must not meet all partitions at once.
	a.failed++
	wait := min(time.Second<<min(a.failed, 5), 30*time.Second)
	if errors.Is(err, ErrFenced) || errors.Is(err, ErrSafeMode) {
		wait = time.Minute
	}
	a.until = now.Add(wait/4 + rand.N(wait))
	if ar.ctx.Err() == nil {
		ar.logger.Warn("archiving failed, trying again later", "event", "archive_failed", "work", j.String(), "attempt", a.failed, "wait", wait, "err", err)
	}
	return err
}

// turn is one pass, without the work that held says to leave alone.
func (ar *Archive) turn(ctx context.Context, all bool, held func(job) bool) error {
	if err := ar.lock(ctx); err != nil {
		return err
	}
	defer ar.unlock()
	ctx, stop := ar.watched(ctx)
	defer stop()
	cfg := ar.src.Config()
	if err := ar.begin(ctx, cfg); err != nil {
		return ar.tried(beginning, err)
	}
	if !cfg.RemoteRead {
		return nil
	}
	defer ar.note()
	now := ar.a.cfg.Now()
	work := ar.wants(cfg, now)
	work[purging], work[scrubbing] = ar.graveDue(now), all || !now.Before(ar.scrubAt)
	for j := range work {
		work[j] = work[j] && !held(job(j))
	}
	var described error
	if work[describing] {
		// This needs no claim: topic.json is nobody's.
		described = ar.tried(describing, ar.a.describeTopic(ctx, ar.tp))
		if work[describing] = false; errors.Is(described, ErrFenced) {
			return described
		}
	}
	if work == (todo{}) {
		ar.tried(beginning, nil)
		return described
	}
	// A partition that never had anything in the bucket, and has nothing for it,
	// needs no head.
	if _, _, ok := ar.uploadable(cfg, now, ar.head); ar.head == nil && !ok {
		return ar.tried(beginning, ar.withoutHead(cfg, now))
	}
	if !ar.claimed {
		if err := ar.claim(ctx); err != nil {
			return ar.tried(beginning, err)
		}
	}
	return errors.Join(described, ar.work(ctx, cfg, now, all, held))
}

// begin makes sure that this leadership still is one and knows the head.
func (ar *Archive) begin(ctx context.Context, cfg *metadata.TopicConfig) error {
	if err := ar.check(); err != nil || !cfg.RemoteRead {
		return err
	}
	if ar.pending != nil {
		if err := ar.resolve(ctx); err != nil {
			return err
		}
	}
	if !ar.loaded {
		return ar.load(ctx)
	}
	return nil
}

// work does each kind of work in turn. What fails in one, a bad object or a
// request, does not keep the others from being done, now or in the next passes.
func (ar *Archive) work(ctx context.Context, cfg *metadata.TopicConfig, now time.Time, all bool, held func(job) bool) error {
	var errs []error
	for _, w := range []struct {
		job job
		do  func() error
	}{
		{expiring, func() error { return ar.expire(ctx, cfg, now) }},
		{uploading, func() error { return ar.upload(ctx, cfg, now) }},
		{deleting, func() error { return ar.deleteLocal(ctx, cfg, now) }},
		{purging, func() error { return ar.purge(ctx, now) }},
		{scrubbing, func() error { return ar.scrubAndPlan(ctx, now) }},
	} {
		// What a scrub said stands until the next one.
		if w.job != uploading && ar.a.keepAll() {
			continue
		}
		if held(w.job) || w.job == scrubbing && !all && now.Before(ar.scrubAt) {
			continue
		}
		err := w.do()
		if err == nil {
			ar.tried(w.job, nil)
			continue
		}
		errs = append(errs, err)
		// Without the head there is nothing to do; without the store neither.
		if !ar.claimed || ar.pending != nil || ar.fenced || errors.Is(err, ErrFenced) || errors.Is(err, objectstore.ErrUnreachable) {
			ar.tried(beginning, err)
			return errors.Join(errs...)
		}
		ar.tried(w.job, err)
		if ctx.Err() != nil || errors.Is(err, errConflict) {
			return errors.Join(errs...)
		}
	}
	ar.tried(beginning, nil)
	return errors.Join(errs...)
}

// keepAll says that nothing is deleted now.
func (a *Archiver) keepAll() bool { return a.cfg.KeepAll != nil && a.cfg.KeepAll() }

// scrubAndPlan scrubs and says when to do so again.
func (ar *Archive) scrubAndPlan(ctx context.Context, now time.Time) error {
	err := ar.scrub(ctx)
	switch {
	case err == nil || errors.Is(err, errLost):
		ar.scrubAt = now.Add(ar.a.cfg.ScrubEvery/2 + rand.N(ar.a.cfg.ScrubEvery))
	case !errors.Is(err, errConflict):
		ar.scrubAt = now.Add(ar.a.cfg.ScrubEvery / 24) // it listed the whole folder
	}
	return err
}

// note tells due when graves and a scrub are next.
func (ar *Archive) note() {
	ar.mu.Lock()
	defer ar.mu.Unlock()
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
	if ar.a.keepAll() {
		return nil
	}
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
	return nil
}

func isSafeMode(err error) bool { return errors.Is(err, ErrSafeMode) }
