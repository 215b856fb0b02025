package replication

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/record"
)

// gateFS holds back or fails the Datasyncs of .log files.
type gateFS struct {
	disk.FS
	mu    sync.Mutex
	hook  func(name string) error // before each; nil: none
	after func()                  // after each that worked; nil: none
}

type gateFile struct {
	disk.File
	fs *gateFS
}

func (g *gateFS) OpenFile(name string, flag int, perm fs.FileMode) (disk.File, error) {
	f, err := g.FS.OpenFile(name, flag, perm)
	if err == nil && strings.HasSuffix(name, ".log") {
		f = &gateFile{f, g}
	}
	return f, err
}

func (f *gateFile) Datasync() error {
	f.fs.mu.Lock()
	hook, after := f.fs.hook, f.fs.after
	f.fs.mu.Unlock()
	if hook != nil {
		if err := hook(f.Name()); err != nil {
			return err
		}
	}
	err := f.File.Datasync()
	if after != nil && err == nil {
		after()
	}
	return err
}

func (g *gateFS) set(hook func(name string) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hook = hook
}

// shut holds every Datasync until open is called.
func (g *gateFS) shut() (open func()) {
	gate := make(chan struct{})
	g.set(func(string) error { <-gate; return nil })
	return sync.OnceFunc(func() {
		g.set(nil)
		close(gate)
	})
}

func partition(t *testing.T, d metadata.Durability) (*Partition, *gateFS) {
	t.Helper()
	g := &gateFS{FS: disk.OS()}
	f := commitlog.NewFlusher(1)
	l, _, err := commitlog.Open(context.Background(), commitlog.Config{FS: g, Dir: t.TempDir(), Topic: "t", Now: time.Now, Flusher: f, SegmentBytes: 4096})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(false); f.Close() })
	cfg := &metadata.TopicConfig{Durability: d, SegmentBytes: 4096, MinISR: 1, RetentionMs: -1, RetentionBytes: -1, Delete: true}
	return newPartition(metadata.TopicPartition{Topic: "t"}, &DataDir{}, l, cfg, slog.New(slog.DiscardHandler)), g
}

func one(i int) record.Batch {
	b := record.NewBuilder(record.NewBatchOptions())
	b.Append(record.Record{TimestampDelta: int64(i), Value: fmt.Appendf(nil, "record %d", i)})
	return b.Build()
}

var all = AppendOptions{Acks: -1, CurrentEpoch: -1}

// TestNobodySeesUnsyncedBytes holds the sync back: no acknowledgement, no reader
// and no upload passes the synced end; all do once it has moved (SAFETY 1).
func TestNobodySeesUnsyncedBytes(t *testing.T) {
	p, g := partition(t, metadata.DurabilityFsync)
	p.startLeading(1, 1, 1)
	open := g.shut()
	defer open()
	a, err := p.Append(one(0), all)
	if err != nil {
		t.Fatal(err)
	}
	p.advance() // anybody may, at any time
	if p.Committed(a) {
		t.Fatal("an unsynced batch counts as committed")
	}
	if r, err := p.Read(0, 1<<20, true, false); err != nil || r.Slice.Len() != 0 || r.HighWatermark != 0 {
		t.Fatalf("a reader sees %d bytes, high watermark %d: %v", r.Slice.Len(), r.HighWatermark, err)
	}
	if _, _, end := p.Offsets(); end != 0 {
		t.Fatalf("uploads may go to %d", end)
	}
	done := make(chan error, 1)
	go func() { done <- p.WaitCommitted(context.Background(), a) }()
	open()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r, err := p.Read(0, 1<<20, true, false)
	if err != nil || r.HighWatermark != 1 || r.Slice.Len() == 0 {
		t.Fatalf("after the sync: %+v %v", r, err)
	}
	r.Slice.Release()
}

// TestWaitingProduceBelongsToItsEpoch deposes the leader under a waiting produce;
// when it leads again and the watermark passes that offset, the produce must not
// be acknowledged by it (SAFETY 5).
func TestWaitingProduceBelongsToItsEpoch(t *testing.T) {
	p, g := partition(t, metadata.DurabilityFsync)
	p.startLeading(5, 1, 1)
	open := g.shut()
	defer open()
	a, err := p.Append(one(0), all)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- p.WaitCommitted(context.Background(), a) }()
	p.stopLeading()
	p.startLeading(7, 1, 1)
	open()
	if err := <-done; !errors.Is(err, ErrNotLeader) {
		t.Fatalf("the produce of epoch 5 ended with %v", err)
	}
	if p.Committed(a) {
		t.Fatal("a batch of epoch 5 counts as committed in epoch 7")
	}
}

// TestAWaitThatBeginsTooLateEndsAtOnce: the leader was deposed between the append
// and the wait. Nothing will ever move this watermark again, as when the topic was
// deleted, and the producer must not find that out by its timeout.
func TestAWaitThatBeginsTooLateEndsAtOnce(t *testing.T) {
	p, g := partition(t, metadata.DurabilityFsync)
	p.startLeading(5, 1, 1)
	open := g.shut()
	defer open()
	a, err := p.Append(one(0), all)
	if err != nil {
		t.Fatal(err)
	}
	p.stopLeading()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := p.WaitCommitted(ctx, a); !errors.Is(err, ErrNotLeader) {
		t.Fatalf("the wait ended with %v", err)
	}
}

// TestEpochsFence checks every answer of KIP-320, and that a deposed leader takes
// no append.
func TestEpochsFence(t *testing.T) {
	p, _ := partition(t, metadata.DurabilityReplicated)
	if _, err := p.Append(one(0), all); !errors.Is(err, ErrNotLeader) {
		t.Fatalf("append before any leadership: %v", err)
	}
	p.startLeading(3, 1, 1)
	for current, want := range map[int32]error{-1: nil, 2: ErrFencedEpoch, 3: nil, 4: ErrUnknownEpoch} {
		if err := p.CheckEpoch(current); !errors.Is(err, want) {
			t.Errorf("epoch %d: %v, want %v", current, err, want)
		}
		if _, err := p.Append(one(1), AppendOptions{Acks: 1, CurrentEpoch: current}); !errors.Is(err, want) {
			t.Errorf("append in epoch %d: %v, want %v", current, err, want)
		}
	}
	p.startLeading(2, 1, 1)
	if epoch, _ := p.Leadership(); epoch != 3 {
		t.Fatalf("an older epoch was obeyed: %d", epoch)
	}
	p.stopLeading()
	if _, err := p.Append(one(2), all); !errors.Is(err, ErrNotLeader) {
		t.Fatalf("append after the leadership: %v", err)
	}
}

// TestRetentionTakesWholeOldSegments lets time and size pass and looks at what is
// left; nothing above the high watermark may go.
func TestRetentionTakesWholeOldSegments(t *testing.T) {
	p, _ := partition(t, metadata.DurabilityReplicated)
	p.startLeading(1, 1, 1)
	now := time.UnixMilli(1_000_000)
	for i := range 400 {
		if _, err := p.Append(one(i*10), all); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.log.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	cfg := *p.Config()
	cfg.RetentionMs = 998_000 // records stamped below 2000 are too old
	p.setConfig(&cfg)
	if err := p.keepHouse(now, false, false, false); err != nil {
		t.Fatal(err)
	}
	st := p.State()
	if st.LogStart == 0 || st.LogStart > 200 || st.LocalStart != st.LogStart {
		t.Fatalf("by time: log start %d, local start %d", st.LogStart, st.LocalStart)
	}
	cfg.RetentionMs, cfg.RetentionBytes = -1, 8192
	p.setConfig(&cfg)
	if err := p.keepHouse(now, false, false, false); err != nil {
		t.Fatal(err)
	}
	if st := p.State(); st.LocalBytes < 8192 || st.LocalBytes > 3*8192 {
		t.Fatalf("by size: %d bytes stay", st.LocalBytes)
	}
	cfg.RetentionBytes = 0
	p.setConfig(&cfg)
	if err := p.keepHouse(now, false, false, false); err != nil {
		t.Fatal(err)
	}
	if segs, start := p.log.Segments(), p.State().LogStart; len(segs) != 1 || segs[0].Base != start || segs[0].Bytes == 0 {
		t.Fatalf("by the smallest size: log start %d, %+v stay", start, segs)
	}
	cfg.RetentionBytes, cfg.RetentionMs = -1, 0
	p.setConfig(&cfg)
	for range 2 {
		if err := p.keepHouse(now, false, false, false); err != nil {
			t.Fatal(err)
		}
	}
	if st := p.State(); st.LogStart != st.HighWatermark {
		t.Fatalf("everything has expired, but [%d, %d) stays", st.LogStart, st.HighWatermark)
	}
}

// TestDataDirKnowsItself opens a dir twice, after a clean and an unclean close, for
// another cluster, and with damaged identity.
func TestDataDirKnowsItself(t *testing.T) {
	path := t.TempDir()
	d, err := OpenDataDir(disk.OS(), path, "c", 1)
	if err != nil || !d.Fresh || d.Clean || d.Meta.Incarnation != 1 {
		t.Fatalf("%+v %v", d, err)
	}
	if _, err := OpenDataDir(disk.OS(), path, "c", 1); !errors.Is(err, ErrDirInUse) {
		t.Fatalf("second open: %v", err)
	}
	if err := errors.Join(d.Adopt("id"), d.Close(true)); err != nil {
		t.Fatal(err)
	}
	if d, err = OpenDataDir(disk.OS(), path, "c", 1); err != nil || !d.Clean || d.Fresh || d.Meta.Incarnation != 2 {
		t.Fatalf("after a clean close: %+v %v", d, err)
	}
	if err := d.Adopt("other"); !errors.Is(err, ErrForeignDir) {
		t.Fatalf("another cluster id: %v", err)
	}
	d.Close(false)
	if d, err = OpenDataDir(disk.OS(), path, "c", 1); err != nil || d.Clean {
		t.Fatalf("after an unclean close: %+v %v", d, err)
	}
	d.Close(true)
	if _, err := OpenDataDir(disk.OS(), path, "elsewhere", 1); !errors.Is(err, ErrForeignDir) {
		t.Fatalf("another cluster name: %v", err)
	}
}

// TestLogsWithoutAnIdentityAreNoFreshDir: a dir whose meta.json is gone is not begun
// anew over its logs.
func TestLogsWithoutAnIdentityAreNoFreshDir(t *testing.T) {
	b := newBroker(t, disk.NewSim(1))
	b.start()
	b.produce(b.part(b.topic("t", 1, nil), 0), 1)
	b.stop(false)
	if err := b.fs.Remove(filepath.Join("/data", metaFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDataDir(b.fs, "/data", "c", 1); err == nil {
		t.Fatal("it was opened")
	}
	if _, err := b.fs.Stat(filepath.Join("/data", metaFile)); err == nil {
		t.Fatal("it was given an identity")
	}
}

// TestACleanMarkerNamesItsRun: only the marker that the last process wrote in this
// very dir is believed. One that is missing, damaged, of an older incarnation or of
// another disk is an unclean end, and is gone afterwards (SAFETY 2).
func TestACleanMarkerNamesItsRun(t *testing.T) {
	sim := disk.NewSim(1)
	marker := filepath.Join("/data", cleanFile)
	life := func(clean bool) *DataDir {
		t.Helper()
		d, err := OpenDataDir(sim, "/data", "c", 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Close(clean); err != nil {
			t.Fatal(err)
		}
		return d
	}
	life(true)
	old, err := disk.ReadFile(sim, marker, 4096)
	if err != nil {
		t.Fatal(err)
	}
	other, err := OpenDataDir(sim, "/other", "c", 1)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		marker func(last DirMeta) []byte
		clean  bool
	}{
		"its own": {func(last DirMeta) []byte { return must(encodeMeta(last)) }, true},
		"missing": {func(DirMeta) []byte { return nil }, false},
		"stale":   {func(DirMeta) []byte { return old }, false},
		"of the next run": {func(last DirMeta) []byte {
			last.Incarnation++
			return must(encodeMeta(last))
		}, false},
		"of another disk": {func(last DirMeta) []byte {
			m := other.Meta
			m.Incarnation = last.Incarnation
			return must(encodeMeta(m))
		}, false},
		"damaged": {func(last DirMeta) []byte {
			raw := must(encodeMeta(last))
			raw[len(raw)/2] ^= 1
			return raw
		}, false},
		"empty": {func(DirMeta) []byte { return []byte{} }, false},
	} {
		last := life(false).Meta
		if raw := c.marker(last); raw != nil {
			if err := disk.WriteFileAtomic(sim, marker, raw); err != nil {
				t.Fatal(err)
			}
		}
		if d := life(false); d.Clean != c.clean {
			t.Errorf("%s: clean is %v", name, d.Clean)
		}
		if _, err := sim.Stat(marker); err == nil {
			t.Errorf("%s: the marker is still there", name)
		}
		if d := life(false); d.Clean {
			t.Errorf("%s: it vouches for a second run", name)
		}
	}
}

func must(raw []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return raw
}
