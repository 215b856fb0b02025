package replication

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/metadata"
)

// soon bounds what must not wait for anybody's timeout.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// waited returns once a produce waits for p.
func waited(t *testing.T, p *Partition) {
	t.Helper()
	for ctx := soon(t); p.waiting.Load() == 0; {
		if ctx.Err() != nil {
			t.Fatal("the produce never waited")
		}
	}
}

func broken(string) error { return syscall.EIO }

// TestAFailedSyncEndsAWaitingProduce: the disk fails under a produce that waits for
// its acknowledgement. It must hear so, and not find out by its timeout.
func TestAFailedSyncEndsAWaitingProduce(t *testing.T) {
	p, g := partition(t, metadata.DurabilityFsync)
	p.startLeading(1, 1, 1)
	fail := make(chan struct{})
	g.set(func(string) error { <-fail; return syscall.EIO })
	a, err := p.Append(one(0), all)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- p.WaitCommitted(soon(t), a) }()
	waited(t, p)
	close(fail)
	if err := <-done; !errors.Is(err, ErrOffline) {
		t.Fatalf("the wait ended with %v", err)
	}
	if p.Committed(a) {
		t.Fatal("a batch that never reached the disk counts as committed")
	}
}

// TestAWaitAfterAFailedSyncEndsAtOnce: the sync had failed before the produce began
// to wait for it. Nobody will ever move the watermark or fail the log again.
func TestAWaitAfterAFailedSyncEndsAtOnce(t *testing.T) {
	p, g := partition(t, metadata.DurabilityFsync)
	p.startLeading(1, 1, 1)
	first, err := p.Append(one(0), all)
	if err == nil {
		err = p.WaitCommitted(soon(t), first)
	}
	if err != nil {
		t.Fatal(err)
	}
	g.set(broken)
	a, err := p.Append(one(1), all)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.log.Sync(t.Context()); err == nil {
		t.Fatal("the sync did not fail")
	}
	_ = p.log.Close(false) // returns when all who waited until now have heard
	if err := p.WaitCommitted(soon(t), a); !errors.Is(err, ErrOffline) {
		t.Fatalf("the wait ended with %v", err)
	}
	if err := p.WaitCommitted(soon(t), first); err != nil {
		t.Fatalf("what was committed before the disk failed: %v", err)
	}
}

// TestAFailedSyncTakesTheDirOffline: a disk that failed under one log is trusted by
// none. Whoever waits for another partition hears so at once, nothing is appended
// anywhere, it is said once, and the dir is not closed cleanly.
func TestAFailedSyncTakesTheDirOffline(t *testing.T) {
	sim := disk.NewSim(1)
	g := &gateFS{FS: sim}
	b := newBroker(t, g)
	b.start()
	id := b.topic("t", 4, nil)
	failing, waiting, idle := b.part(id, 0), b.part(id, 1), b.part(id, 2)
	b.part(id, 3)
	b.produce(idle, 2)

	stuck := make(chan struct{})
	g.set(func(name string) error {
		if strings.HasPrefix(name, failing.log.Dir()+"/") {
			return syscall.EIO
		}
		<-stuck
		return nil
	})
	a, err := waiting.Append(one(0), all)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- waiting.WaitCommitted(soon(t), a) }()
	waited(t, waiting)
	f, err := failing.Append(one(0), all)
	if err != nil {
		t.Fatal(err)
	}
	if err := failing.WaitCommitted(soon(t), f); !errors.Is(err, ErrOffline) {
		t.Fatalf("the partition whose sync failed: %v", err)
	}
	if err := <-done; !errors.Is(err, ErrOffline) {
		t.Fatalf("the one that waited beside it: %v", err)
	}
	for name, do := range map[string]func() error{
		"append":         func() error { _, err := idle.Append(one(1), all); return err },
		"delete records": func() error { _, err := idle.DeleteRecords(1); return err },
		"delete local":   func() error { _, err := idle.DeleteLocal(1); return err },
		"roll":           func() error { return idle.Roll() },
	} {
		if err := do(); !errors.Is(err, ErrOffline) {
			t.Errorf("%s in a dir that failed: %v", name, err)
		}
	}
	if r, err := idle.Read(0, 1<<20, true, false); err != nil || r.HighWatermark != 2 {
		t.Errorf("what is committed: %+v %v", r, err)
	} else {
		r.Slice.Release()
	}
	if n := b.Offline(); n != 4 {
		t.Errorf("%d partitions of 4 are offline", n)
	}
	// A partition that is opened now has no disk either.
	late := b.topic("late", 1, nil)
	for ctx := soon(t); ; {
		if _, err := b.Partition(late, 0); errors.Is(err, ErrOffline) {
			break
		} else if ctx.Err() != nil {
			t.Fatalf("a partition that came later: %v", err)
		}
	}
	close(stuck)
	g.set(nil) // the disk says that all is well again
	writes := sim.WrittenBytes()
	if b.stop(false) {
		t.Error("the dir closed cleanly")
	}
	if now := sim.WrittenBytes(); now != writes {
		t.Errorf("%d bytes were written to a disk that failed", now-writes)
	}
	if n := b.said.count("data_dir_offline"); n != 1 {
		t.Errorf("it was said %d times", n)
	}
	b.start()
	if b.dir.Clean {
		t.Error("the next start believes that the dir was closed cleanly")
	}
	b.produce(b.part(id, 1), 1)
	b.stop(false)
}

// TestAFullDiskIsNoFailedDisk: an append that meets the end of the disk is refused,
// and goes through when there is room again.
func TestAFullDiskIsNoFailedDisk(t *testing.T) {
	sim := disk.NewSim(1)
	b := newBroker(t, sim)
	b.start()
	p := b.part(b.topic("t", 1, nil), 0)
	b.produce(p, 1)
	sim.SetCapacity(1)
	if _, err := p.Append(one(1), all); !errors.Is(err, commitlog.ErrNoSpace) || errors.Is(err, ErrOffline) {
		t.Fatalf("an append to a full disk: %v", err)
	}
	sim.SetCapacity(0)
	b.produce(p, 1)
	if !b.stop(false) {
		t.Fatal("the dir did not close cleanly")
	}
}

// TestAFolderThatCannotBeSyncedTakesTheDirOffline: the failure comes while a
// partition's folder is made.
func TestAFolderThatCannotBeSyncedTakesTheDirOffline(t *testing.T) {
	sim := disk.NewSim(1)
	b := newBroker(t, sim)
	b.start()
	p := b.part(b.topic("t", 1, nil), 0)
	sim.FailOn(func(op, name string) error {
		if op == "syncdir" && name == "/data/log" {
			return syscall.EIO
		}
		return nil
	})
	b.topic("u", 1, nil)
	for ctx := soon(t); b.dir.Err() == nil; {
		if ctx.Err() != nil {
			t.Fatal("the dir is still online")
		}
	}
	if _, err := p.Append(one(0), all); !errors.Is(err, ErrOffline) {
		t.Fatalf("an append to a disk that failed: %v", err)
	}
	sim.FailOn(nil)
	b.stop(false)
}

// TestAFailedDirStopsItsOtherLogs: what another log of the disk appends or syncs after
// the failure counts for nothing.
func TestAFailedDirStopsItsOtherLogs(t *testing.T) {
	b := newBroker(t, disk.NewSim(1))
	b.start()
	p := b.part(b.topic("t", 1, nil), 0)
	b.produce(p, 1)
	epoch, _ := p.Leadership()
	b.dir.fail(errors.New("another log's sync failed"), slog.New(slog.DiscardHandler))
	if _, err := p.log.Append(epoch, one(1)); !errors.Is(err, commitlog.ErrOffline) {
		t.Fatalf("an append: %v", err)
	}
	if err := p.log.Sync(t.Context()); err == nil && p.log.End() != p.log.SyncedEnd() {
		t.Fatal("a sync succeeds")
	}
	p.hw.Store(0)
	if p.advance(); p.hw.Load() != 0 {
		t.Fatal("the high watermark moves")
	}
	b.stop(true)
}
