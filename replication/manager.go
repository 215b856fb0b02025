package replication

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/metadata"
)

// Cluster is what the manager needs of the metadata; metadata.Client meets it.
type Cluster interface {
	// Image is the newest state of the cluster that this broker has folded.
	Image() *metadata.Image
	// Subscribe pokes ch, without blocking, after every change of the image.
	Subscribe(ch chan<- struct{}) (cancel func())
	// Lead takes the leadership of partitions for this broker, each in a new
	// epoch above req.MinEpoch, by one compare-and-set each. The results are in
	// the order of the requests.
	Lead(ctx context.Context, reqs []metadata.LeadRequest) []metadata.LeadResult
	// SafeMode says that the metadata has gone back or lost what it knew: then
	// nothing is elected and nothing deleted (SAFETY 16, 17).
	SafeMode() (reason string, on bool)
}

// Archive is what the manager needs of the bucket when it opens and leads
// partitions; the wiring adapts tiering.Archiver to it. A broker without a
// bucket has none.
type Archive interface {
	// Recover reads the head of tp from the bucket. ok is false when the bucket
	// has nothing of this partition.
	Recover(ctx context.Context, tp metadata.TopicPartition) (t Tiered, ok bool, err error)
	// Prove returns nil when the bucket has [from, to) of tp, certainly and now: a
	// fresh head names objects for all of it, and the store was asked for each of
	// them (SAFETY 13).
	Prove(ctx context.Context, tp metadata.TopicPartition, from, to int64) error
	// Lead starts archiving for a partition that this broker now leads.
	Lead(p *Partition)
	// Resign stops archiving for tp and returns when nothing of it is under way.
	Resign(tp metadata.TopicPartition)
}

// Tiered is what the bucket knows of one partition.
type Tiered struct {
	LogStart  int64 // first readable offset
	End       int64 // exclusive end of the committed contiguous range
	MaxEpoch  int32 // highest leader epoch that wrote the head
	Epochs    []commitlog.EpochStart
	Producers []commitlog.ProducerState // the fold at exactly End
}

// Config is what a Manager is made of.
type Config struct {
	Dirs    []*DataDir
	Cluster Cluster
	Archive Archive // nil without a bucket
	NodeID  int32
	Now     func() time.Time
	Logger  *slog.Logger
	// Flusher is shared by all logs of the node.
	Flusher *commitlog.Flusher
	// ProducerExpiry forgets idle idempotent producers
	// (producer.id.expiration.ms).
	ProducerExpiry time.Duration
	// CheckpointBytes bounds what a crash recovery has to scan; 0 is the
	// default of commitlog.
	CheckpointBytes int64
	// Room refuses an append of n bytes while the disk is nearly full; protects
	// marks those that the reserve is for. Nil refuses nothing.
	Room func(n int, protects bool) error
	// Pressed says that the disk fills up, and active segments of tiered topics
	// are to be rolled so that they can go to the bucket. Nil is never.
	Pressed func() bool
	// ScrubEvery is how long a look at all sealed segments takes at least, and
	// ScrubBytes how much of them is read a second at most; 0 are a day and 4 MiB.
	ScrubEvery time.Duration
	ScrubBytes int64
	// HousekeepingEvery is how often segments are rolled by time and local
	// retention runs; 0 is one second.
	HousekeepingEvery time.Duration
	// Registerer takes the metrics; nil: none.
	Registerer prometheus.Registerer
}

// Manager knows which partitions this broker has a replica of, opens their logs,
// leads them when the metadata says so, and removes them when a tombstone does.
type Manager struct {
	cfg    Config
	logger *slog.Logger
	// shrinks counts the replicas that left an ISR of ours.
	shrinks prometheus.Counter

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	// opening bounds how many logs are recovered at once: recovery is disk
	// bound, and two cores gain nothing from more.
	opening chan struct{}

	mu struct {
		sync.RWMutex
		byID    map[metadata.TopicID]map[int32]*replica
		byName  map[string]metadata.TopicID
		leaving map[metadata.TopicID]int // replicas that are being removed
		closed  bool
		settled bool // every partition of the first image was opened or failed
	}
	firstImage chan struct{}
}

// replica is a partition's slot: it exists from the moment the metadata assigns
// it, before its log is open.
type replica struct {
	tp     metadata.TopicPartition
	dir    *DataDir
	config *metadata.TopicConfig // when it was assigned
	made   bool                  // the folder was not there
	isr    int                   // members of the ISR in the last image
	part   *Partition            // nil until open
	err    error                 // why it is not usable, wraps ErrOffline
	done   chan struct{}         // closed when opening ended, either way
	told   chan struct{}         // closed when it said why it cannot lead yet
	stop   context.CancelFunc
}

// NewManager returns a manager; Start makes it work.
func NewManager(cfg Config) (*Manager, error) {
	if len(cfg.Dirs) == 0 {
		return nil, errors.New("replication needs a data dir")
	}
	if cfg.ScrubEvery == 0 {
		cfg.ScrubEvery = 24 * time.Hour
	}
	if cfg.ScrubBytes == 0 {
		cfg.ScrubBytes = 4 << 20
	}
	if cfg.HousekeepingEvery == 0 {
		cfg.HousekeepingEvery = time.Second
	}
	m := &Manager{cfg: cfg, logger: cfg.Logger.With("component", "replication"), shrinks: newShrinks(cfg.Registerer), opening: make(chan struct{}, 4), firstImage: make(chan struct{})}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.mu.byID = map[metadata.TopicID]map[int32]*replica{}
	m.mu.byName = map[string]metadata.TopicID{}
	m.mu.leaving = map[metadata.TopicID]int{}
	return m, nil
}

// Start opens what the metadata assigns to this broker and follows its changes.
// It returns once every partition of the present image leads or has said why it
// cannot; those keep trying in the background.
func (m *Manager) Start(ctx context.Context) error {
	poke := make(chan struct{}, 1)
	unsubscribe := m.cfg.Cluster.Subscribe(poke)
	m.wg.Add(3)
	go func() {
		defer m.wg.Done()
		defer unsubscribe()
		m.reconcile()
		close(m.firstImage)
		for {
			select {
			case <-m.ctx.Done():
				return
			case <-poke:
				m.reconcile()
			}
		}
	}()
	go func() {
		defer m.wg.Done()
		m.housekeeping()
	}()
	go func() {
		defer m.wg.Done()
		m.scrubbing()
	}()
	select {
	case <-m.firstImage:
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, r := range m.replicas() {
		select {
		case <-r.done:
		case <-r.told:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m.reportStrays()
	return nil
}

// Close stops leading, closes every log and says whether all of them closed
// cleanly. It is safe to call twice.
func (m *Manager) Close() (clean bool) {
	m.mu.Lock()
	if m.mu.closed {
		m.mu.Unlock()
		return false
	}
	m.mu.closed = true
	m.mu.Unlock()
	m.cancel()
	m.wg.Wait()
	clean = true
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, r := range m.replicas() {
		wg.Add(1)
		go func() {
			defer wg.Done()
			m.opening <- struct{}{}
			defer func() { <-m.opening }()
			if !m.closeReplica(r, true) {
				mu.Lock()
				clean = false
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	return clean
}

// closeReplica resigns and closes one log; clean asks for a clean marker.
func (m *Manager) closeReplica(r *replica, clean bool) bool {
	r.stop()
	<-r.done
	if r.part == nil {
		return false
	}
	r.part.stopLeading()
	if m.cfg.Archive != nil {
		m.cfg.Archive.Resign(r.tp)
	}
	defer r.dir.leave(r.part)
	if r.dir.Err() != nil {
		// What failed has been said, and no log of the dir is asked for one more sync.
		_ = r.part.log.Close(false)
		return false
	}
	if err := r.part.log.Close(clean); err != nil {
		m.logger.Error("log did not close cleanly", "event", "log_close_failed", "topic", r.tp.Topic, "partition", r.tp.Partition, "err", err)
		return false
	}
	return true
}

func (m *Manager) replicas() []*replica {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var all []*replica
	for _, parts := range m.mu.byID {
		for _, r := range parts {
			all = append(all, r)
		}
	}
	return all
}

// Partition returns this broker's replica. ErrUnknownTopicOrPartition when the
// metadata has no such partition or assigns it elsewhere, ErrOffline when its
// log cannot be used, ErrNotLeader while it is still being opened.
func (m *Manager) Partition(id metadata.TopicID, partition int32) (*Partition, error) {
	m.mu.RLock()
	r := m.mu.byID[id][partition]
	m.mu.RUnlock()
	return usable(r)
}

// ByName is Partition for the requests that name topics.
func (m *Manager) ByName(topic string, partition int32) (*Partition, error) {
	m.mu.RLock()
	id, ok := m.mu.byName[topic]
	r := m.mu.byID[id][partition]
	m.mu.RUnlock()
	if !ok {
		return nil, ErrUnknownTopicOrPartition
	}
	return usable(r)
}

func usable(r *replica) (*Partition, error) {
	if r == nil {
		return nil, ErrUnknownTopicOrPartition
	}
	select {
	case <-r.done:
	default:
		return nil, ErrNotLeader // being opened: a client retries
	}
	if r.part == nil {
		return nil, r.err
	}
	return r.part, nil
}

// Each calls fn for every open partition.
func (m *Manager) Each(fn func(*Partition)) {
	for _, r := range m.replicas() {
		if p, err := usable(r); err == nil {
			fn(p)
		}
	}
}

// Offline counts the partitions that cannot be used now, or not be written to.
func (m *Manager) Offline() (n int) {
	for _, r := range m.replicas() {
		select {
		case <-r.done:
			if r.part == nil || r.dir.Err() != nil {
				n++
			}
		default:
		}
	}
	return n
}

// reconcile makes the replicas what the image says.
func (m *Manager) reconcile() {
	im := m.cfg.Cluster.Image()
	var opened []*replica
	var gone []*replica
	m.mu.Lock()
	if m.mu.closed {
		m.mu.Unlock()
		return
	}
	for _, t := range im.Topics() {
		m.mu.byName[t.Name] = t.ID
		cfg := im.TopicConfig(t.Name)
		for n := range t.Partitions {
			if !t.AssignedTo(int32(n), m.cfg.NodeID) {
				continue
			}
			parts := m.mu.byID[t.ID]
			if parts == nil {
				parts = map[int32]*replica{}
				m.mu.byID[t.ID] = parts
			}
			st, _ := im.Partition(t.ID, int32(n))
			if r := parts[int32(n)]; r != nil {
				m.followISRLocked(r, st)
				if p, err := usable(r); err == nil && p.Config() != cfg {
					p.setConfig(cfg)
				}
				continue
			}
			ctx, stop := context.WithCancel(m.ctx)
			r := &replica{
				tp:  metadata.TopicPartition{TopicID: t.ID, Topic: t.Name, Partition: int32(n)},
				dir: m.cfg.Dirs[0], config: cfg, isr: len(st.ISR),
				done: make(chan struct{}), told: make(chan struct{}), stop: stop,
			}
			parts[int32(n)] = r
			opened = append(opened, r)
			m.wg.Add(1)
			go func() {
				defer m.wg.Done()
				m.open(ctx, r)
			}()
		}
	}
	// Only an explicit tombstone removes a replica. A topic that is merely
	// absent is either being read late or lost: its logs stay (SAFETY 16).
	for id, parts := range m.mu.byID {
		if !im.Tombstoned(id) {
			continue
		}
		for _, r := range parts {
			gone = append(gone, r)
			m.mu.leaving[id]++
		}
		delete(m.mu.byID, id)
	}
	for name, id := range m.mu.byName {
		if cur, ok := im.TopicByName(name); !ok || cur.ID != id {
			delete(m.mu.byName, name)
		}
	}
	m.mu.Unlock()
	for _, r := range gone {
		m.remove(r)
		m.mu.Lock()
		if m.mu.leaving[r.tp.TopicID]--; m.mu.leaving[r.tp.TopicID] == 0 {
			delete(m.mu.leaving, r.tp.TopicID)
		}
		m.mu.Unlock()
	}
	if len(opened) > 0 {
		m.logger.Debug("opening partitions", "event", "partitions_opening", "count", len(opened))
	}
}

// remove drops a replica whose topic was deleted.
func (m *Manager) remove(r *replica) {
	m.closeReplica(r, false)
	dir := partitionDir(r.dir, r.tp)
	if err := r.dir.FS.RemoveAll(dir); err != nil {
		m.logger.Error("deleted partition's folder stays", "event", "partition_remove_failed", "topic", r.tp.Topic, "partition", r.tp.Partition, "err", err)
		return
	}
	m.logger.Info("partition removed", "event", "partition_removed", "topic", r.tp.Topic, "partition", r.tp.Partition, "topic_id", fmt.Sprintf("%x", r.tp.TopicID))
}

// Gone says whether nothing is left here of a deleted topic. It removes what a
// removal that was cut short left behind.
func (m *Manager) Gone(id metadata.TopicID) (bool, error) {
	m.mu.RLock()
	held := len(m.mu.byID[id]) > 0 || m.mu.leaving[id] > 0
	m.mu.RUnlock()
	if held || !m.cfg.Cluster.Image().Tombstoned(id) {
		return false, nil
	}
	for _, d := range m.cfg.Dirs {
		if err := d.Err(); err != nil {
			return false, err
		}
		if err := d.FS.RemoveAll(topicDir(d, id)); err != nil {
			return false, err
		}
		if err := d.FS.SyncDir(filepath.Join(d.Path, logFolder)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return true, nil
}
