package replication

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/metadata/memory"
)

// broker is one node over a data dir, restarted as often as a test likes. The
// metadata and the bucket outlive it.
type broker struct {
	t     *testing.T
	fs    disk.FS // a *disk.Sim where a test cuts the power
	store *memory.Server
	arch  *bucket // nil: none
	tune  func(*Config)

	said    *lines
	dir     *DataDir
	meta    *metadata.Client
	flusher *commitlog.Flusher
	*Manager
}

func newBroker(t *testing.T, fsys disk.FS) *broker {
	return &broker{t: t, fs: fsys, store: memory.NewServer(1, time.Now)}
}

// start opens the data dir at /data and everything the metadata assigns to it.
func (b *broker) start() {
	b.t.Helper()
	must := func(err error) {
		b.t.Helper()
		if err != nil {
			b.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	b.said = &lines{}
	logger := slog.New(slog.NewTextHandler(io.MultiWriter(b.said, b.t.Output()), &slog.HandlerOptions{Level: slog.LevelInfo}))
	var err error
	b.dir, err = OpenDataDir(b.fs, "/data", "c", 1)
	must(err)
	b.meta, err = metadata.Open(ctx, metadata.Config{Store: b.store.Open(), Cluster: "c", NodeID: 1, ClusterID: b.dir.Meta.ClusterID, Now: time.Now})
	must(err)
	must(b.dir.Adopt(b.meta.Image().ClusterID()))
	must(b.meta.RegisterBroker(ctx, metadata.Broker{Node: 1, Incarnation: b.dir.Meta.Incarnation, DirIDs: []string{b.dir.Meta.DirID}, Endpoints: []metadata.Endpoint{{Name: "P", Host: "h", Port: 9092, Protocol: "PLAINTEXT"}}}))
	b.flusher = commitlog.NewFlusher(2)
	cfg := Config{Dirs: []*DataDir{b.dir}, Cluster: b.meta, NodeID: 1, Now: time.Now, Logger: logger, Flusher: b.flusher, HousekeepingEvery: time.Hour}
	if b.arch != nil {
		cfg.Archive = b.arch
	}
	if b.tune != nil {
		b.tune(&cfg)
	}
	b.Manager, err = NewManager(cfg)
	must(err)
	must(b.Manager.Start(ctx))
}

// stop ends the broker, without the marker of a clean end when it is killed.
func (b *broker) stop(killed bool) (clean bool) {
	b.t.Helper()
	clean = b.Manager.Close() && !killed
	b.flusher.Close()
	b.meta.Close()
	if err := b.dir.Close(clean); err != nil {
		b.t.Fatal(err)
	}
	return clean
}

func (b *broker) topic(name string, partitions int32, configs map[string]string) metadata.TopicID {
	b.t.Helper()
	topic, err := b.meta.CreateTopic(b.t.Context(), metadata.NewTopic{Name: name, Partitions: partitions, ReplicationFactor: 1, Configs: configs})
	if err != nil {
		b.t.Fatal(err)
	}
	return topic.ID
}

// part waits until the partition leads.
func (b *broker) part(id metadata.TopicID, n int32) *Partition {
	b.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		p, err := b.Partition(id, n)
		if err == nil {
			return p
		}
		if errors.Is(err, ErrOffline) || time.Now().After(deadline) {
			b.t.Fatalf("partition %d: %v", n, err)
		}
	}
}

// produce appends and waits for the acknowledgement.
func (b *broker) produce(p *Partition, n int) {
	b.t.Helper()
	for i := range n {
		a, err := p.Append(one(i), all)
		if err == nil {
			err = p.WaitCommitted(b.t.Context(), a)
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

// lines is what was logged.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// count is how often an event was logged.
func (l *lines) count(event string) int {
	return strings.Count(strings.ReplaceAll(l.String(), "\n", " \n"), "event="+event+" ")
}

// bucket is an Archive that a test fills by hand.
type bucket struct {
	mu       sync.Mutex
	tiered   map[metadata.TopicPartition]Tiered
	proof    error // of every Prove
	asked    [][2]int64
	recovers int
	err      error // of every Recover
}

func newBucket() *bucket { return &bucket{tiered: map[metadata.TopicPartition]Tiered{}} }

func (b *bucket) Recover(_ context.Context, tp metadata.TopicPartition) (Tiered, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.recovers++
	t, ok := b.tiered[tp]
	return t, ok, b.err
}

func (b *bucket) Prove(_ context.Context, _ metadata.TopicPartition, from, to int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, [2]int64{from, to})
	return b.proof
}

func (b *bucket) set(fn func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fn()
}

func (b *bucket) Lead(*Partition)                {}
func (b *bucket) Resign(metadata.TopicPartition) {}
