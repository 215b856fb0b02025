package tiering

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/tiering/format"
)

// Config is what an Archiver is made of. Zero durations and sizes take the
// stated default.
type Config struct {
	Bucket    objectstore.Bucket
	Cluster   string // its name, the first part of every key
	ClusterID string
	// ClusterGeneration is what cluster.json says; asked only while the bucket answers.
	ClusterGeneration func() uint64
	NodeID            int32
	Build             string // of the binary, for footers
	Memory            Memory
	// Topic is what topic.json says of a topic; ok is false when the metadata has
	// no such topic now.
	Topic      func(id metadata.TopicID) (t TopicInfo, ok bool)
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer

	// Pressed says that the disk fills up: what the bucket covers then leaves it
	// whatever local retention says. Nil is never.
	Pressed func() bool
	// KeepAll says that nothing is to be deleted now, here or in the bucket, because
	// what is known of the cluster cannot be trusted (SAFETY 17). Nil is never.
	KeepAll func() bool

	Concurrency    int           // passes at once; default 4
	BytesPerSecond int64         // upload rate of the broker; 0 is no bound
	ObjectBytes    int64         // target size of an object; default 128 MiB
	Tick           time.Duration // how often partitions are looked at; default 1 s
	Timeout        time.Duration // of a pass in which no byte moves; default 5 min
	Grace          time.Duration // between unlinking and deleting; default 10 min
	OrphanAge      time.Duration // the same for objects that no manifest ever named; default 24 h
	ScrubEvery     time.Duration // between looks for orphans; default 6 h
}

// Archiver uploads, expires and deletes for the partitions that this broker
// leads, and answers what is in the bucket. Safe for concurrent use.
type Archiver struct {
	cfg     Config
	bucket  objectstore.Bucket
	logger  *slog.Logger
	metrics *metrics
	pace    *pacer
	shape   shape
	parts   *lru[format.Nonce, *format.Part]
	footers *lru[string, *format.Footer] // without producers
	proofs  int                          // objects that one pass asks the store for before a local deletion

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	queue  chan *Archive

	mu struct {
		sync.Mutex
		led map[metadata.TopicPartition]*Archive
		// described is what this broker knows topic.json to say.
		described map[metadata.TopicID]TopicInfo
		// doomed is when this broker first saw a topic unlinked.
		doomed map[metadata.TopicID]time.Time
	}
}

// New returns an Archiver at work. Close stops it.
func New(cfg Config) (*Archiver, error) {
	a, err := newArchiver(cfg)
	if err != nil {
		return nil, err
	}
	a.wg.Add(1)
	go a.schedule()
	for range a.cfg.Concurrency {
		a.wg.Add(1)
		go a.work()
	}
	return a, nil
}

func newArchiver(cfg Config) (*Archiver, error) {
	if cfg.Bucket == nil || cfg.Memory == nil || cfg.Now == nil || cfg.Topic == nil || cfg.Cluster == "" {
		return nil, errors.New("tiering needs a bucket, a memory, topics, a clock and the cluster's name")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	defaultTo(&cfg.Concurrency, 4)
	defaultTo(&cfg.ObjectBytes, 128<<20)
	defaultTo(&cfg.Tick, time.Second)
	defaultTo(&cfg.Timeout, 5*time.Minute)
	defaultTo(&cfg.Grace, 10*time.Minute)
	defaultTo(&cfg.OrphanAge, 24*time.Hour)
	defaultTo(&cfg.ScrubEvery, 6*time.Hour)
	a := &Archiver{
		cfg: cfg, bucket: cfg.Bucket, logger: cfg.Logger.With("component", "tiering"), pace: newPacer(cfg.BytesPerSecond), shape: defaultShape,
		// A part of 4,096 entries takes about 1 MiB decoded, more with many aborted
		// transactions; a footer of 32 chunks a few KiB.
		parts: newLRU[format.Nonce, *format.Part](32, 32<<20), footers: newLRU[string, *format.Footer](1024, 16<<20), proofs: 256,
		queue: make(chan *Archive), // unbuffered: a waiting Archive waits in the scheduler, where it can still be resigned
	}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.mu.led = map[metadata.TopicPartition]*Archive{}
	a.mu.described = map[metadata.TopicID]TopicInfo{}
	a.mu.doomed = map[metadata.TopicID]time.Time{}
	a.metrics = newMetrics(cfg.Registerer, a)
	return a, nil
}

func defaultTo[T int | int64 | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// Close stops all work and waits for it. Uploads under way are abandoned; what
// they left in the bucket is found and buried later. It may be called twice.
func (a *Archiver) Close() error {
	a.cancel()
	a.wg.Wait()
	return nil
}

// Lead starts to archive for a partition that this broker leads now, in a new
// leader epoch. An Archive of an earlier epoch ends.
func (a *Archiver) Lead(src Source) *Archive {
	tp := src.TopicPartition()
	a.Resign(tp)
	ar := newArchive(a, src)
	if src.Config().RemoteCopy {
		a.metrics.begin(tp.Topic)
	}
	a.mu.Lock()
	a.mu.led[tp] = ar
	a.mu.Unlock()
	return ar
}

// Resign stops archiving for tp and returns when nothing of it is under way.
func (a *Archiver) Resign(tp metadata.TopicPartition) {
	a.mu.Lock()
	ar := a.mu.led[tp]
	delete(a.mu.led, tp)
	a.mu.Unlock()
	if ar != nil {
		ar.close()
	}
}

func (a *Archiver) archives() []*Archive {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]*Archive, 0, len(a.mu.led))
	for _, ar := range a.mu.led {
		all = append(all, ar)
	}
	return all
}

// schedule offers the partitions that have something due to the workers. Whether
// something is due is decided from memory, so idle partitions cost nothing.
func (a *Archiver) schedule() {
	defer a.wg.Done()
	t := time.NewTicker(a.cfg.Tick)
	defer t.Stop()
	for {
		for _, ar := range a.archives() {
			if !ar.due(a.cfg.Now()) {
				continue
			}
			select {
			case a.queue <- ar:
			case <-a.ctx.Done():
				return
			}
		}
		select {
		case <-t.C:
		case <-a.ctx.Done():
			return
		}
	}
}

func (a *Archiver) work() {
	defer a.wg.Done()
	for {
		select {
		case ar := <-a.queue:
			ar.run(a.ctx)
		case <-a.ctx.Done():
			return
		}
	}
}

// RunOnce runs one pass for tp now, for tests and for operators.
func (a *Archiver) RunOnce(ctx context.Context, tp metadata.TopicPartition) error {
	a.mu.Lock()
	ar := a.mu.led[tp]
	a.mu.Unlock()
	if ar == nil {
		return fmt.Errorf("%s-%d is not led here", tp.Topic, tp.Partition)
	}
	return ar.pass(ctx, true)
}

// Recovered is what the bucket knows of a partition, for a replica that lost
// some or all of its log.
type Recovered struct {
	LogStart  int64
	End       int64 // exclusive end of the contiguous range in the bucket
	Epoch     int32 // of the last writer of the head
	Lineage   []commitlog.EpochStart
	Producers []commitlog.ProducerState // the fold at exactly End
}

// Recover reads what the bucket knows of tp. ok is false when it has nothing and
// never had, as far as this broker remembers; ErrSafeMode when it should have.
func (a *Archiver) Recover(ctx context.Context, tp metadata.TopicPartition) (r Recovered, ok bool, err error) {
	h, _, err := a.readHead(ctx, tp)
	if err != nil || h == nil {
		return Recovered{}, false, err
	}
	r = Recovered{LogStart: min(h.LogStart, h.End), End: h.End, Epoch: h.Epoch, Lineage: fromEpochs(h.Lineage)}
	last, ok, err := a.lastEntry(ctx, tp, h)
	if err != nil {
		return Recovered{}, false, err
	}
	if ok {
		f, err := a.readFooter(ctx, tp, &last)
		if err != nil {
			return Recovered{}, false, err
		}
		r.Lineage, r.Producers = fromEpochs(f.Lineage), fromProducers(f.Producers)
	}
	return r, true, nil
}

// folder is the prefix of the partition's objects.
func (a *Archiver) folder(tp metadata.TopicPartition) string {
	return format.PartitionFolder(a.cfg.Cluster, tp.TopicID.String(), tp.Partition)
}

// key is where an entry's object is.
func (a *Archiver) key(tp metadata.TopicPartition, e *format.Entry) string {
	if e.Key != "" {
		return e.Key
	}
	return a.folder(tp) + e.Name()
}

// Tests replace newNonce to make histories repeatable.
var newNonce = func() (n format.Nonce) {
	rand.Read(n[:]) // never fails
	return n
}
