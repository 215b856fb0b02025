package commitlog

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firnlog/firn/internal/disk"
)

// settle returns once every flush that was asked for is done.
func settle(l *Log) {
	for l.flushQueued.Load() {
		runtime.Gosched()
	}
	l.flushing.Lock() // a flush that had begun has ended
	defer l.flushing.Unlock()
}

// TestACrashScansAtMostTheBound: however fast a log is written, and although no
// time passes, a process that is killed leaves at most CheckpointBytes to be
// scanned, what came while a checkpoint was being written, and one batch.
func TestACrashScansAtMostTheBound(t *testing.T) {
	const bound = 20_000
	for _, everyAppendSynced := range []bool{true, false} {
		t.Run(fmt.Sprintf("synced=%v", everyAppendSynced), func(t *testing.T) {
			dir := t.TempDir()
			tune := func(c *Config) {
				c.SegmentBytes, c.CheckpointBytes, c.CheckpointEvery = 1<<30, bound, time.Hour
			}
			l, _ := open(t, disk.OS(), dir, tune)
			biggest := int64(0)
			appendAll := func(n int) (bytes int64) {
				for i := range n {
					b := batch(i, 1+i%5)
					mustAppend(t, l, 1, b)
					biggest, bytes = max(biggest, int64(len(b))), bytes+int64(len(b))
					if everyAppendSynced && n > 500 {
						if err := l.Sync(context.Background()); err != nil {
							t.Fatal(err)
						}
					}
				}
				return bytes
			}
			if n := appendAll(2000); n < 10*bound {
				t.Fatalf("only %d bytes", n)
			}
			settle(l)
			crashed, rec := open(t, disk.OS(), dir, tune)
			if rec.ScannedBytes > bound+biggest || crashed.End() != l.End() {
				t.Fatalf("%d bytes were scanned, at most %d are allowed; end %d of %d", rec.ScannedBytes, bound+biggest, crashed.End(), l.End())
			}
			crashed.Close(false)

			// A slow disk: the checkpoint is asked for and does not come.
			l, _ = open(t, disk.OS(), dir, tune)
			l.flushing.Lock()
			since := appendAll(500)
			_, rec, err := tryOpen(t, disk.OS(), dir, tune)
			l.flushing.Unlock()
			if err != nil || rec.ScannedBytes > bound+biggest+since {
				t.Fatalf("%d bytes were scanned, at most %d are allowed: %v", rec.ScannedBytes, bound+biggest+since, err)
			}
		})
	}
}

// TestAnIdleLogIsCheckpointedOnce: a burst that is synced and followed by nothing
// is behind a checkpoint a few seconds later; after that, idle logs cost nothing,
// however many there are.
func TestAnIdleLogIsCheckpointedOnce(t *testing.T) {
	const logs = 50
	counted := disk.Counting(disk.OS())
	root := t.TempDir()
	var now atomic.Int64
	now.Store(1_000_000)
	tune := func(c *Config) {
		c.Now = func() time.Time { return time.UnixMilli(now.Load()) }
		c.CheckpointBytes, c.CheckpointEvery, c.SegmentAge = 1<<40, 5*time.Second, 24*time.Hour
	}
	var all []*Log
	for i := range logs {
		dir := filepath.Join(root, fmt.Sprint(i))
		if err := counted.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		l, _ := open(t, counted, dir, tune)
		for j := range 20 {
			mustAppend(t, l, 1, batch(j, 3))
		}
		if err := l.Sync(context.Background()); err != nil {
			t.Fatal(err)
		}
		settle(l)
		all = append(all, l)
	}
	tick := func() (syncs int64) {
		before := counted.Syncs()
		for _, l := range all {
			if rolled, err := l.RollIfDue(time.UnixMilli(now.Load())); rolled || err != nil {
				t.Fatalf("rolled %v: %v", rolled, err)
			}
		}
		for _, l := range all {
			settle(l)
		}
		return counted.Syncs() - before
	}
	if n := tick(); n != 0 {
		t.Fatalf("%d syncs before a checkpoint is due", n)
	}
	now.Add(6000)
	if n := tick(); n != logs {
		t.Fatalf("%d syncs for the checkpoints of %d logs", n, logs)
	}
	for range 100 {
		now.Add(6000)
		if n := tick(); n != 0 {
			t.Fatalf("%d syncs for logs that are idle", n)
		}
	}
	for i := range all {
		_, rec := open(t, counted, filepath.Join(root, fmt.Sprint(i)), tune)
		if rec.ScannedBytes != 0 {
			t.Fatalf("log %d: %d bytes were scanned", i, rec.ScannedBytes)
		}
	}
}
