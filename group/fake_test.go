package group

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/metadata/memory"
	"github.com/firnlog/firn/record"
	"github.com/firnlog/firn/replication"
)

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

// errDead is what a log says after the crash.
var errDead = errors.New("the process is dead")

// fakeLog is a partition in memory. Its disk syncs when somebody waits for a
// commit. It can be made to die at its n-th step, on any side of any effect.
type fakeLog struct {
	mu         sync.Mutex
	epoch      int32
	leading    bool
	batches    []record.Batch
	start      int64
	hw, end    int64
	synced     int64 // what a power cut leaves
	replicated bool  // commits do not wait for the disk
	held       chan struct{}
	failAppend error
	failWait   error
	failRolled error // what appends fail with once a segment was rolled
	steps      int
	crashAt    int // 0: never
	dead       bool
	subs       map[chan<- struct{}]struct{}
	left       func() // called when a leadership stops listening
	appends    int
	trims      int
	maxBatch   int
}

func newFakeLog() *fakeLog {
	return &fakeLog{epoch: 1, leading: true, subs: map[chan<- struct{}]struct{}{}, maxBatch: 1 << 20}
}

// survivor is what a new process finds: everything after a kill, or what is
// synced and perhaps some more after a power cut.
func (l *fakeLog) survivor(power bool, rng *rand.Rand) *fakeLog {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := newFakeLog()
	n.epoch, n.start, n.end, n.replicated, n.maxBatch = l.epoch+1, l.start, l.start, l.replicated, l.maxBatch
	end := l.end
	if power {
		end = l.synced + rng.Int64N(l.end-l.synced+1)
	}
	for _, b := range l.batches {
		if b.NextOffset() > end {
			break
		}
		n.batches = append(n.batches, b)
		n.end = b.NextOffset()
	}
	n.hw, n.synced = n.end, n.end
	return n
}

// stepLocked is one moment at which the process can die.
func (l *fakeLog) stepLocked() error {
	if l.dead {
		return errDead
	}
	if l.steps++; l.steps == l.crashAt {
		l.dead = true
		return errDead
	}
	return nil
}

func (l *fakeLog) Epoch() (int32, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch, l.leading
}

func (l *fakeLog) Append(epoch int32, b record.Batch) (replication.Appended, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.stepLocked(); err != nil {
		return replication.Appended{}, err
	}
	switch {
	case !l.leading || epoch != l.epoch:
		return replication.Appended{}, replication.ErrNotLeader
	case l.failAppend != nil:
		return replication.Appended{}, l.failAppend
	case len(b) > l.maxBatch:
		return replication.Appended{}, fmt.Errorf("a batch of %d bytes", len(b))
	}
	b.SetBaseOffset(l.end)
	l.batches = append(l.batches, b)
	base := l.end
	l.end = b.NextOffset()
	l.appends++
	if l.replicated && l.held == nil {
		l.hw = l.end
	}
	return replication.Appended{Base: base, End: l.end, Epoch: epoch}, l.stepLocked()
}

func (l *fakeLog) WaitCommitted(ctx context.Context, a replication.Appended) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.stepLocked(); err != nil {
		return err
	}
	if held := l.held; held != nil {
		l.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
		}
		l.mu.Lock()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	switch {
	case !l.leading:
		return replication.ErrNotLeader
	case l.failWait != nil:
		return l.failWait
	}
	if !l.replicated {
		l.synced = l.end
	}
	l.hw = l.end
	return l.stepLocked()
}

func (l *fakeLog) Bounds() (start, committed, end int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.start, l.hw, l.end
}

func (l *fakeLog) Read(offset int64, maxBytes int) (p []byte, next int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next = offset
	for _, b := range l.batches {
		if b.NextOffset() <= offset {
			continue
		}
		if b.NextOffset() > l.hw || len(p) > 0 && len(p)+len(b) > maxBytes {
			break
		}
		p, next = append(p, b...), b.NextOffset()
	}
	return p, next, nil
}

func (l *fakeLog) Subscribe(ch chan<- struct{}) func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.subs[ch] = struct{}{}
	return func() {
		l.mu.Lock()
		delete(l.subs, ch)
		left := l.left
		l.mu.Unlock()
		if left != nil {
			left()
		}
	}
}

func (l *fakeLog) MaxBatchBytes() int { return l.maxBatch }

func (l *fakeLog) Roll() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failRolled != nil {
		l.failAppend = l.failRolled
	}
	return l.stepLocked()
}

func (l *fakeLog) Trim(_ context.Context, offset int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.stepLocked(); err != nil {
		return err
	}
	if offset > l.hw {
		panic("BUG: a log start above the high watermark")
	}
	l.synced = l.end
	if err := l.stepLocked(); err != nil {
		return err
	}
	l.start = offset
	l.trims++
	if err := l.stepLocked(); err != nil {
		return err
	}
	for len(l.batches) > 0 && l.batches[0].NextOffset() <= l.start {
		l.batches = l.batches[1:]
	}
	return nil
}

// lead ends or begins a leadership.
func (l *fakeLog) lead(epoch int32, leading bool) {
	l.mu.Lock()
	l.epoch, l.leading = epoch, leading
	for ch := range l.subs {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
	l.mu.Unlock()
}

// hold keeps commits back until release.
func (l *fakeLog) hold() (release func()) {
	l.mu.Lock()
	ch := make(chan struct{})
	l.held = ch
	l.mu.Unlock()
	return func() {
		l.mu.Lock()
		l.held = nil
		l.mu.Unlock()
		close(ch)
	}
}

func (l *fakeLog) size() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.batches {
		n += len(b)
	}
	return n
}

// world is a broker's metadata and the partitions of the groups' topic.
type world struct {
	t    *testing.T
	meta *metadata.Client
	mu   sync.Mutex
	logs map[int32]*fakeLog
	lim  Limits
	// garbage makes snapshots frequent.
	garbage int64
}

func newWorld(t *testing.T, partitions int32) *world {
	t.Helper()
	c, err := metadata.Open(t.Context(), metadata.Config{Store: memory.NewServer(1, time.Now).Open(), Cluster: "c", NodeID: 1, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.RegisterBroker(t.Context(), metadata.Broker{Node: 1, Incarnation: 1, DirIDs: []string{"d"}, Endpoints: []metadata.Endpoint{{Name: "P", Host: "h", Port: 9092, Protocol: "PLAINTEXT"}}}); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, meta: c, logs: map[int32]*fakeLog{}, lim: LimitsOf(c.Image().BrokerConfig())}
	w.lim.Partitions, w.lim.InitialDelay = partitions, 3*time.Second
	for n := range partitions {
		w.logs[n] = newFakeLog()
	}
	return w
}

func (w *world) log(n int32) *fakeLog {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.logs[n]
}

func (w *world) setLog(n int32, l *fakeLog) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.logs[n] = l
}

// coordinator starts one and waits until it has loaded.
func (w *world) coordinator() *Coordinator {
	w.t.Helper()
	c, err := New(Config{
		Cluster: w.meta, NodeID: 1, Now: time.Now, Logger: slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})), Limits: w.lim, garbageForTest: w.garbage,
		Partition: func(n int32) (Log, error) {
			l := w.log(n)
			if _, leading := l.Epoch(); !leading {
				return nil, replication.ErrNotLeader
			}
			return l, nil
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	w.ready(c)
	return c
}

func (w *world) ready(c *Coordinator) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	if node, err := c.Find(ctx, ""); err != nil || node != 1 {
		w.t.Fatalf("find: node %d, %v", node, err)
	}
	for _, s := range c.shards() {
		if err := s.awaitReady(ctx); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) topic(name string) *metadata.Topic {
	w.t.Helper()
	t, err := w.meta.EnsureTopic(w.t.Context(), metadata.NewTopic{Name: name, Partitions: 100, ReplicationFactor: 1})
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

func await[T any](t *testing.T, a Answer[T]) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	v, err := a.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// commitOf commits one offset from outside of any membership.
func commitOf(group, topic string, partition int32, offset int64) CommitRequest {
	return CommitRequest{Group: group, Generation: -1, Retention: -1, Offsets: []Commit{{Topic: topic, Partition: partition, Offset: offset, Epoch: -1}}}
}

// state is everything that the committed journal makes, in a form to compare.
func (c *Coordinator) state() map[string]string {
	all := map[string]string{}
	for _, s := range c.shards() {
		maps.Copy(all, recordsOf(s.eachRecord))
	}
	return all
}

func recordsOf(each func(func(kv) bool)) map[string]string {
	all := map[string]string{}
	each(func(r kv) bool {
		all[string(r.key)] = string(r.value)
		return true
	})
	return all
}
