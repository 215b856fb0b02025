package group

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/metadata/memory"
	"github.com/firnlog/firn/record"
	"github.com/firnlog/firn/replication"
)

// realNode is a broker's partitions on a real disk, with a coordinator.
type realNode struct {
	*Coordinator
	meta    *metadata.Client
	dir     *replication.DataDir
	manager *replication.Manager
	flusher *commitlog.Flusher
}

// start opens what is in path; store holds the cluster's facts over restarts.
func start(t testing.TB, store *memory.Server, path string, durability string) *realNode {
	t.Helper()
	return startOn(t, disk.OS(), store, path, map[string]string{"firn.durability": durability})
}

func startOn(t testing.TB, fsys disk.FS, store *memory.Server, path string, static map[string]string, more ...func(*replication.Config)) *realNode {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	n := &realNode{flusher: commitlog.NewFlusher(2)}
	logger := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	n.dir, err = replication.OpenDataDir(fsys, path, "c", 1)
	must(err)
	n.meta, err = metadata.Open(ctx, metadata.Config{Store: store.Open(), Cluster: "c", NodeID: 1, ClusterID: n.dir.Meta.ClusterID, Now: time.Now, Static: static})
	must(err)
	must(n.dir.Adopt(n.meta.Image().ClusterID()))
	must(n.meta.RegisterBroker(ctx, metadata.Broker{Node: 1, Incarnation: n.dir.Meta.Incarnation, DirIDs: []string{n.dir.Meta.DirID}, Endpoints: []metadata.Endpoint{{Name: "P", Host: "h", Port: 9092, Protocol: "PLAINTEXT"}}}))
	cfg := replication.Config{Dirs: []*replication.DataDir{n.dir}, Cluster: n.meta, NodeID: 1, Now: time.Now, Logger: logger, Flusher: n.flusher}
	for _, f := range more {
		f(&cfg)
	}
	n.manager, err = replication.NewManager(cfg)
	must(err)
	must(n.manager.Start(ctx))
	n.Coordinator, err = New(Config{
		Cluster: n.meta, NodeID: 1, Now: time.Now, Logger: logger, Limits: LimitsOf(n.meta.Image().BrokerConfig()),
		Partition: func(p int32) (Log, error) {
			part, err := n.manager.ByName(Topic, p)
			if err != nil {
				return nil, err
			}
			return PartitionLog{part}, nil
		},
	})
	must(err)
	if _, err := n.Find(ctx, "g"); err != nil {
		t.Fatal(err)
	}
	for _, s := range n.shards() {
		must(s.awaitReady(ctx))
	}
	return n
}

// stop closes everything. The data dir is left as a crash would leave it, but for
// what the logs write when they are closed.
func (n *realNode) stop() {
	n.Close()
	n.manager.Close()
	n.flusher.Close()
	n.meta.Close()
	n.dir.Close(false)
}

// bytes is what the topic takes on disk.
func (n *realNode) bytes() (sum int64) {
	n.manager.Each(func(p *replication.Partition) {
		if p.TopicPartition().Topic == Topic {
			sum += p.Log().LocalBytes()
		}
	})
	return sum
}

// TestCommitsStayWithin64MiB commits 300,000 offsets, 10 million with
// FIRN_TEST_COMMITS=10000000, without waiting for the disk. The topic's size does
// not depend on how many there are: it stays below 64 MiB after any number, and
// with this few live offsets below 16 MiB, which is less than the 300,000 take in
// the log. Then the node starts again and has them all.
func TestCommitsStayWithin64MiB(t *testing.T) {
	total := 300_000
	if s := os.Getenv("FIRN_TEST_COMMITS"); s != "" {
		var err error
		if total, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	const workers, pipeline, limit = 32, 64, 16 << 20
	store, path := memory.NewServer(1, time.Now), t.TempDir()
	n := start(t, store, path, "replicated")
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	began := time.Now()
	for w := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var open []Answer[CommitResult]
			settle := func(down int) {
				for ; len(open) > down; open = open[1:] {
					if r, err := open[0].Wait(ctx); err != nil || r.Err != nil {
						t.Errorf("commit: %v %v", err, r.Err)
						cancel()
						return
					}
				}
			}
			for i := w; i < total && ctx.Err() == nil; i += workers {
				open = append(open, n.Commit(commitOf(fmt.Sprint("group-", w, "-", i/workers%4), "orders", int32(i/workers%25), int64(i))))
				settle(pipeline)
			}
			settle(0)
		}()
	}
	most := int64(0)
	watched := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(watched)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				most = max(most, n.bytes())
			case <-stop:
				return
			}
		}
	}()
	wg.Wait()
	close(stop)
	<-watched
	cancel()
	took := time.Since(began)
	end := n.bytes()
	most = max(most, end)
	if most > limit {
		t.Errorf("%d commits: %s took %d bytes at most, the bound is %d", total, Topic, most, limit)
	}
	t.Logf("verify: %d commits in %v (%.0f a second); %s took %.1f MiB at most, %.1f at the end", total, took.Round(time.Millisecond), float64(total)/took.Seconds(), Topic, float64(most)/(1<<20), float64(end)/(1<<20))
	before := n.state()
	n.stop()
	n = start(t, store, path, "replicated")
	defer n.stop()
	if after := n.state(); !maps.Equal(before, after) {
		t.Fatalf("%d records before, %d after a restart, or others", len(before), len(after))
	}
}

// syncGate stops every sync of a segment while it is shut.
type syncGate struct {
	disk.FS
	shut    atomic.Bool
	entered chan struct{} // a sync has come to the gate
	open    chan struct{}
}

type gatedFile struct {
	disk.File
	g *syncGate
}

func (g *syncGate) OpenFile(name string, flag int, perm fs.FileMode) (disk.File, error) {
	f, err := g.FS.OpenFile(name, flag, perm)
	if err == nil && strings.HasSuffix(name, ".log") {
		f = gatedFile{f, g}
	}
	return f, err
}

func (f gatedFile) Datasync() error {
	if f.g.shut.Load() {
		select {
		case f.g.entered <- struct{}{}:
		default:
		}
		<-f.g.open
	}
	return f.File.Datasync()
}

// TestTrimWaitsForTheDisk trims a partition whose commits do not wait for the disk:
// until everything from the new log start on is synced, the log start must not
// move, or a power cut would leave nothing at all.
func TestTrimWaitsForTheDisk(t *testing.T) {
	gate := &syncGate{FS: disk.OS(), entered: make(chan struct{}, 1), open: make(chan struct{})}
	n := startOn(t, gate, memory.NewServer(1, time.Now), t.TempDir(), map[string]string{"firn.durability": "replicated"})
	defer n.stop()
	for i := range 200 {
		committedOK(t, n.Commit(commitOf("g", "t", int32(i%3), int64(i))))
	}
	part, err := n.manager.ByName(Topic, partitionFor("g", len(n.shards())))
	if err != nil {
		t.Fatal(err)
	}
	log := PartitionLog{part}
	if err := log.Roll(); err != nil {
		t.Fatal(err)
	}
	// Only what comes after is not synced: raising the log start would sync by
	// itself what is below it.
	if err := part.Log().Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	base := part.Log().End()
	gate.shut.Store(true)
	for i := range 50 {
		committedOK(t, n.Commit(commitOf("g", "t", int32(i%3), int64(i))))
	}
	end := part.Log().End()
	done := make(chan error, 1)
	go func() { done <- log.Trim(context.Background(), base) }()
	<-gate.entered
	if got := part.Log().Start(); got >= base {
		t.Errorf("the log start moved to %d before the snapshot was synced", got)
	}
	gate.shut.Store(false)
	close(gate.open)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if synced := part.Log().SyncedEnd(); synced < end || part.Log().Start() != base || part.Log().LocalStart() != base {
		t.Fatalf("log start %d, local start %d, synced to %d; want %d, %d, %d", part.Log().Start(), part.Log().LocalStart(), synced, base, base, end)
	}
}

// TestCommitsUseTheReserve (SAFETY 22): on a disk that is nearly full producers are
// refused, and groups still commit what they have read.
func TestCommitsUseTheReserve(t *testing.T) {
	n := startOn(t, disk.OS(), memory.NewServer(1, time.Now), t.TempDir(), nil, func(c *replication.Config) {
		c.Room = func(_ int, protects bool) error {
			if !protects {
				return commitlog.ErrNoSpace
			}
			return nil
		}
	})
	defer n.stop()
	committedOK(t, n.Commit(commitOf("g", "t", 1, 9)))
	part, err := n.manager.ByName(Topic, partitionFor("g", len(n.shards())))
	if err != nil {
		t.Fatal(err)
	}
	b := record.NewBuilder(record.NewBatchOptions())
	b.Append(record.Record{Key: []byte("k")})
	if _, err := part.Append(b.Build(), replication.AppendOptions{Acks: -1, CurrentEpoch: -1}); !errors.Is(err, commitlog.ErrNoSpace) {
		t.Fatalf("a producer's append: %v", err)
	}
}

func committedOK(t *testing.T, a Answer[CommitResult]) {
	t.Helper()
	if r := await(t, a); r.Err != nil {
		t.Fatal(r.Err)
	}
}

// TestMembersAndOffsetsOnARealDisk makes a stable group with commits, with
// firn.durability=fsync, and starts again.
func TestMembersAndOffsetsOnARealDisk(t *testing.T) {
	store, path := memory.NewServer(1, time.Now), t.TempDir()
	n := start(t, store, path, "fsync")
	committedOK(t, n.Commit(commitOf("g", "t", 1, 9)))
	before := n.state()
	topic, ok := n.meta.Image().TopicByName(Topic)
	if !ok || !topic.Internal || !topic.Config().CompactOnly() || topic.Config().RemoteEnabled || topic.Partitions != 8 {
		t.Fatalf("the topic: %+v", topic)
	}
	n.stop()
	n = start(t, store, path, "fsync")
	defer n.stop()
	if after := n.state(); len(before) != 1 || !maps.Equal(before, after) {
		t.Fatalf("before %q, after %q", before, after)
	}
}

// BenchmarkDurableCommits has 64 groups commit as fast as each gets its answers, in
// journals of 1, 8 and 50 partitions that wait for the disk.
func BenchmarkDurableCommits(b *testing.B) {
	for _, partitions := range []int{1, 8, 50} {
		b.Run(fmt.Sprintf("partitions=%d", partitions), func(b *testing.B) {
			n := startOn(b, disk.OS(), memory.NewServer(1, time.Now), b.TempDir(), map[string]string{
				"firn.durability": "fsync", "offsets.topic.num.partitions": strconv.Itoa(partitions),
			})
			defer n.stop()
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for w := range 64 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						r, err := n.Commit(commitOf(fmt.Sprint("group-", w), "orders", int32(i%10), i)).Wait(context.Background())
						if err != nil || r.Err != nil {
							b.Errorf("commit: %v %v", err, r.Err)
							return
						}
					}
				}()
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}
