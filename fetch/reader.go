package fetch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/localcache"
	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/replication"
)

// Config is what a Reader is made of. Zero fields take the stated default.
type Config struct {
	Cache  *localcache.Cache  // required for cold reads
	Bucket objectstore.Bucket // required for cold reads

	ColdSlots     int           // cold reads that run at once; default 64
	ColdTimeout   time.Duration // deadline of one cold read, however long its client waits; default 60 s
	CoalesceBytes int64         // largest GET that neighbouring chunks share; default 8 MiB
	DecodeBytes   int64         // memory of compressed chunks while they are decoded; default 48 MiB

	Now        func() time.Time // required
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Reader answers fetches. One a broker; safe for concurrent use.
type Reader struct {
	cold *coldReader
}

// New returns a Reader. Close it before the cache and the bucket.
func New(cfg Config) (*Reader, error) {
	if cfg.Now == nil {
		return nil, errors.New("fetch: Now is required")
	}
	return newReader(cfg, storeBucket{cfg.Bucket}), nil
}

func newReader(cfg Config, b bucket) *Reader {
	if cfg.ColdSlots <= 0 {
		cfg.ColdSlots = 64
	}
	if cfg.ColdTimeout <= 0 {
		cfg.ColdTimeout = time.Minute
	}
	if cfg.CoalesceBytes <= 0 {
		cfg.CoalesceBytes = 8 << 20
	}
	if cfg.DecodeBytes <= 0 {
		cfg.DecodeBytes = 48 << 20
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &coldReader{
		cache: cfg.Cache, bucket: b, slots: newSlots(cfg.ColdSlots),
		layouts: newLayouts(1024), indexes: newIndexes(4096), streams: newStreams(),
		log: cfg.Logger, now: cfg.Now, timeout: cfg.ColdTimeout, coalesce: cfg.CoalesceBytes,
		decoding: semaphore.NewWeighted(cfg.DecodeBytes), decodeBytes: cfg.DecodeBytes, planners: make(chan struct{}, maxPlanners), jobs: make(map[jobKey]*job),
	}
	c.metrics = newMetrics(cfg.Registerer, c.slots)
	c.ctx, c.stop = context.WithCancel(context.Background())
	return &Reader{cold: c}
}

// Close ends the cold side's work and waits for it. It may be called twice.
func (r *Reader) Close() error {
	r.cold.close()
	return nil
}

// Request is one fetch of one consumer.
type Request struct {
	// Client is who asks, for fairness between clients: principal and client id.
	Client string
	// MaxWait is how long to wait for MinBytes. With MinBytes 0 or less the
	// answer is what is there now.
	MaxWait  time.Duration
	MinBytes int
	// MaxBytes bounds the whole answer, over both tiers. The first batch of the
	// first partition that has one is delivered whatever its size (KIP-74).
	MaxBytes      int
	ReadCommitted bool
	Parts         []Part
}

// Part is one partition of a Request.
type Part struct {
	P *replication.Partition
	// Err says that the partition cannot be read, instead of P: it comes back in
	// the result and ends the wait, as Kafka does.
	Err    error
	Offset int64
	// MaxBytes bounds the partition's records, with KIP-74's exception.
	MaxBytes int
	// CurrentEpoch is the leader epoch the client believes in, -1 for none
	// (KIP-320). LastFetchedEpoch is the epoch of the record before Offset, -1
	// for none: when our log parted from it, the result says where (KIP-595).
	CurrentEpoch     int32
	LastFetchedEpoch int32

	src partition // instead of P, in tests
}

// EpochEnd is an epoch and the offset at which it ends in this log.
type EpochEnd struct {
	Epoch int32
	End   int64
}

// Result is the answer for one Part, in the order of the request.
type Result struct {
	// Err is the partition's error: one of replication's, ErrColdRead, or
	// Part.Err. With an error the offsets are -1 and there are no records.
	Err                                 error
	HighWatermark, LastStable, LogStart int64
	// Diverging, when set, is where the log of the client's LastFetchedEpoch
	// ends here; the client truncates. There are no records then.
	Diverging *EpochEnd
	// Aborted are the aborted transactions that overlap Records, in order of
	// their first offset; only for read_committed.
	Aborted []commitlog.AbortedTxn
	// Records are whole batches; never nil. Release them.
	Records Records
	// Cold says that the offset was only in the bucket, Waiting that it still is:
	// the records are on their way to the cache and a later fetch finds them. A
	// request may be throttled for cold reads only when all its parts are Cold
	// (KIP-219 silences the whole connection).
	Cold, Waiting bool

	again bool // it turned cold while it was read: look again
}

// Release gives back the records of all results.
func Release(results []Result) {
	for i := range results {
		if results[i].Records != nil {
			results[i].Records.Release()
		}
	}
}

// partition is what a Reader needs of replication.Partition; hot.go makes one of
// it.
type partition interface {
	id() partID
	epoch() int32
	checkEpoch(current int32) error
	logStart() int64
	localStart() int64
	// read fills the offsets of its result also with ErrBelowLocal and
	// ErrOffsetOutOfRange.
	read(offset int64, maxBytes int, minOne, committed bool) (hotRead, error)
	epochEnd(epoch int32) (e int32, end int64)
	epochOf(offset int64) int32
	aborted(start, end int64) []commitlog.AbortedTxn
	subscribe(ch chan<- struct{}) (cancel func())
	archive() archive // nil without a cold tier
	offsetForTime(ts int64) (offset, at int64, ok bool, err error)
	maxTimestamp() (offset, ts int64, err error)
}

func (p *Part) source() partition {
	if p.src != nil {
		return p.src
	}
	return hotPartition{p.P}
}

// evaluation is one look at all parts of a request.
type evaluation struct {
	results []Result
	bytes   int
	ended   bool     // an error or a divergence: the wait is over
	waits   []jobKey // cold jobs that poke the waiter
	// mended are the parts whose chunk in the cache could not be used and is fetched
	// again: once a request, then it is an error. Nil for none.
	mended []bool
}

// evaluate answers what is there now. Cold parts that are not ready get a job
// each, all before any records are taken, and ch is poked when one ends.
func (r *Reader) evaluate(q *Request, ev *evaluation, ch chan<- struct{}) {
	ev.bytes, ev.ended = 0, false
	reserve := 0 // for cold parts that are ready: hot ones do not take it all
	for i := range q.Parts {
		res := &ev.results[i]
		*res = Result{Records: noRecords, HighWatermark: -1, LastStable: -1, LogStart: -1}
		r.prepare(q, i, res, ev, ch)
		if res.Err != nil {
			*res = Result{Records: noRecords, HighWatermark: -1, LastStable: -1, LogStart: -1, Err: res.Err}
		}
		if res.Err != nil || res.Diverging != nil {
			ev.ended = true
		}
		if res.Cold && !res.Waiting {
			reserve += max(q.Parts[i].MaxBytes, 0)
		}
	}
	left := max(q.MaxBytes, 0)
	reserve = min(reserve, left/2)
	for i := range q.Parts {
		res := &ev.results[i]
		if res.Err != nil || res.Diverging != nil || res.Waiting {
			continue
		}
		part := &q.Parts[i]
		most := max(part.MaxBytes, 0)
		if res.Cold {
			reserve = max(reserve-most, 0)
			most = min(most, left)
		} else {
			most = min(most, left-reserve)
		}
		if err := r.read(q, i, res, most, ev); err != nil {
			*res = Result{Records: noRecords, HighWatermark: -1, LastStable: -1, LogStart: -1, Err: err}
			ev.ended = true
			continue
		}
		n := res.Records.Len()
		ev.bytes += n
		left = max(left-n, 0)
	}
}

// prepare checks epochs and offset of a part, and sends the cold ones for their
// chunk.
func (r *Reader) prepare(q *Request, i int, res *Result, ev *evaluation, ch chan<- struct{}) {
	part := &q.Parts[i]
	if res.Err = part.Err; res.Err != nil {
		return
	}
	p := part.source()
	if res.Err = p.checkEpoch(part.CurrentEpoch); res.Err != nil {
		return
	}
	if part.LastFetchedEpoch >= 0 {
		e, end := p.epochEnd(part.LastFetchedEpoch)
		if e < 0 || end < 0 {
			res.Err = fmt.Errorf("%w: epoch %d is not known here", replication.ErrOffsetOutOfRange, part.LastFetchedEpoch)
			return
		}
		if e < part.LastFetchedEpoch || end < part.Offset {
			res.Diverging = &EpochEnd{Epoch: e, End: end}
			h, err := p.read(p.localStart(), 0, false, q.ReadCommitted)
			res.HighWatermark, res.LastStable, res.LogStart = h.highWatermark, h.lastStable, h.logStart
			if h.records != nil {
				h.records.Release()
			}
			if err != nil && !errors.Is(err, commitlog.ErrBelowLocal) && !errors.Is(err, replication.ErrOffsetOutOfRange) {
				res.Err = err
			}
			return
		}
	}
	// The fork. What is below the local start is cold; everything else is hot.
	if part.Offset < p.localStart() {
		r.prepareCold(q, part, p, res, ev, ch)
	}
}

// prepareCold looks whether a part below the local start is ready.
func (r *Reader) prepareCold(q *Request, part *Part, p partition, res *Result, ev *evaluation, ch chan<- struct{}) {
	h, err := p.read(part.Offset, 0, false, q.ReadCommitted)
	if h.records != nil {
		h.records.Release()
	}
	if err == nil {
		return // it is hot after all
	}
	if !errors.Is(err, commitlog.ErrBelowLocal) {
		res.Err = err
		return
	}
	res.Cold = true
	res.HighWatermark, res.LastStable, res.LogStart = h.highWatermark, h.lastStable, h.logStart
	epoch := p.epoch()
	if r.cold.ready(p.id(), epoch, part.Offset) {
		return
	}
	res.Waiting = true
	more := int64(min(part.MaxBytes, q.MaxBytes))
	if err := r.cold.want(q.Client, p, epoch, part.Offset, more, ch); err != nil {
		if errors.Is(err, errNotTiered) {
			if part.Offset >= p.localStart() {
				res.Cold, res.Waiting = false, false
				return
			}
			err = fmt.Errorf("%w: offset %d is neither on local disk nor in the bucket", ErrColdRead, part.Offset)
		}
		res.Err = err
		return
	}
	if ch != nil {
		ev.waits = append(ev.waits, jobKey{p.id(), epoch, part.Offset})
	}
	// The job may have ended before it knew of ch.
	res.Waiting = !r.cold.ready(p.id(), epoch, part.Offset)
}

// read takes the records of a part that is hot, or cold and ready.
func (r *Reader) read(q *Request, i int, res *Result, most int, ev *evaluation) error {
	part, minOne := &q.Parts[i], ev.bytes == 0
	p := part.source()
	if !res.Cold {
		h, err := p.read(part.Offset, most, minOne, q.ReadCommitted)
		if errors.Is(err, commitlog.ErrBelowLocal) {
			// The local start passed the offset just now: cold at the next look.
			res.Cold, res.Waiting, res.again = true, true, true
			res.HighWatermark, res.LastStable, res.LogStart = h.highWatermark, h.lastStable, h.logStart
			return nil
		}
		if err != nil {
			return err
		}
		res.HighWatermark, res.LastStable, res.LogStart = h.highWatermark, h.lastStable, h.logStart
		if h.records != nil {
			res.Records = h.records
		}
		if q.ReadCommitted {
			res.Aborted = h.aborted
		}
		return nil
	}
	limit := res.HighWatermark
	if q.ReadCommitted {
		limit = res.LastStable
	}
	// Before the chunk is read, so that a job which pins it after that knows.
	r.cold.served(jobKey{p.id(), p.epoch(), part.Offset})
	c, ok, err := r.cold.serve(q.Client, p, p.epoch(), part.Offset, limit, int64(most), minOne)
	switch {
	case err != nil && ev.mended != nil && ev.mended[i]:
		return err
	case err != nil:
		if ev.mended == nil {
			ev.mended = make([]bool, len(q.Parts))
		}
		ev.mended[i] = true
		res.Waiting, res.again = true, true
	case !ok: // evicted between the two looks
		res.Waiting, res.again = true, true
	case c.records.len > 0:
		res.Records = c.records
		if q.ReadCommitted {
			res.Aborted = union(c.aborted, p.aborted(c.base, c.end))
		}
	}
	return nil
}
