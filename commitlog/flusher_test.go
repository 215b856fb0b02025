package commitlog

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firnlog/firn/internal/disk"
)

// gateFS holds the syncs of segments back while the gate is shut, and counts them.
type gateFS struct {
	disk.FS
	gate  sync.RWMutex
	syncs atomic.Int64
}

type gateFile struct {
	disk.File
	fs *gateFS
}

func (g *gateFS) OpenFile(name string, flag int, perm fs.FileMode) (disk.File, error) {
	f, err := g.FS.OpenFile(name, flag, perm)
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	return gateFile{f, g}, nil
}

func (f gateFile) Datasync() error {
	f.fs.syncs.Add(1)
	f.fs.gate.RLock()
	defer f.fs.gate.RUnlock()
	return f.File.Datasync()
}

// TestAppendsShareASync: many appenders on many logs ask for a sync after each append
// while the disk is busy with one. Whatever came meanwhile rides the next: two for
// each log are enough for all of it.
func TestAppendsShareASync(t *testing.T) {
	const logs, appenders, each = 20, 5, 40
	g := &gateFS{FS: disk.OS()}
	root := t.TempDir()
	f := NewFlusher(2)
	var all []*Log
	for i := range logs {
		dir := filepath.Join(root, fmt.Sprint(i))
		if err := g.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		l, _ := open(t, g, dir, func(c *Config) {
			c.Flusher.Close()
			c.Flusher, c.SegmentBytes, c.CheckpointEvery = f, 1<<30, time.Hour
		})
		all = append(all, l)
	}
	g.syncs.Store(0)
	g.gate.Lock()
	var wg sync.WaitGroup
	for _, l := range all {
		for range appenders {
			wg.Go(func() {
				for i := range each {
					if _, err := l.Append(1, batch(i, 1)); err != nil {
						t.Error(err)
					}
					l.SyncAsync()
				}
			})
		}
	}
	wg.Wait()
	f.mu.Lock()
	if len(f.queue) > logs {
		t.Errorf("%d logs are queued, there are %d", len(f.queue), logs)
	}
	f.mu.Unlock()
	g.gate.Unlock()
	for _, l := range all {
		if err := l.Sync(context.Background()); err != nil {
			t.Fatal(err)
		}
		if l.SyncedEnd() != appenders*each {
			t.Fatalf("synced to %d of %d", l.SyncedEnd(), l.End())
		}
	}
	if n := g.syncs.Load(); n > 2*logs {
		t.Fatalf("%d syncs of segments for %d appends on %d logs", n, logs*appenders*each, logs)
	}
	for _, l := range all {
		l.Close(false)
	}
	f.Close()
}

// TestSegmentsRollByAge: a segment is rolled once its first append is SegmentAge old,
// by the timer or by the next append, whichever comes first; an empty one never is,
// and age 0 rolls nothing.
func TestSegmentsRollByAge(t *testing.T) {
	var now atomic.Int64
	now.Store(1_000_000)
	at := func() time.Time { return time.UnixMilli(now.Load()) }
	dir := t.TempDir()
	tune := func(c *Config) { c.Now, c.SegmentAge, c.SegmentBytes = at, time.Minute, 1<<20 }
	l, _ := open(t, disk.OS(), dir, tune)
	tick := func(want bool) {
		t.Helper()
		if rolled, err := l.RollIfDue(at()); err != nil || rolled != want {
			t.Fatalf("rolled %v, want %v: %v", rolled, want, err)
		}
	}
	segments := func(want ...int64) {
		t.Helper()
		var got []int64
		for _, s := range l.Segments() {
			got = append(got, s.Base)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("segments at %v, want %v", got, want)
		}
	}
	now.Add(time.Hour.Milliseconds())
	tick(false) // empty
	mustAppend(t, l, 1, batch(0, 1))
	now.Add(59_999)
	tick(false)
	mustAppend(t, l, 1, batch(1, 1)) // the age counts from the first
	segments(0)
	now.Add(1)
	tick(true)
	tick(false)
	segments(0, 2)
	mustAppend(t, l, 1, batch(2, 1))
	now.Add(60_000)
	mustAppend(t, l, 1, batch(3, 1)) // goes to a new segment by itself
	segments(0, 2, 3)

	// The age outlives a restart of either kind.
	now.Add(30_000)
	if err := l.Close(true); err != nil {
		t.Fatal(err)
	}
	l, _ = open(t, disk.OS(), dir, tune, clean)
	now.Add(29_999)
	tick(false)
	l.Close(false)
	l, _ = open(t, disk.OS(), dir, tune)
	now.Add(1)
	tick(true)
	segments(0, 2, 3, 4)
	mustAppend(t, l, 1, batch(4, 1))
	l.SetConfig(Live{})
	now.Add(time.Hour.Milliseconds())
	tick(false)
	mustAppend(t, l, 1, batch(5, 1))
	segments(0, 2, 3, 4)
}
