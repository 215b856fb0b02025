package commitlog

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/record"
)

// simDir is a disk with the log's folder.
func simDir(seed uint64) *disk.Sim {
	s := disk.NewSim(seed)
	s.MkdirAll("/data", 0o755)
	s.MkdirAll("/data/p", 0o755)
	s.SyncDir("/")
	s.SyncDir("/data")
	return s
}

// fill takes every byte that is left.
func fill(t *testing.T, s *disk.Sim) {
	t.Helper()
	s.SetCapacity(1 << 20)
	f, err := s.OpenFile("/data/somebody-else", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, _ := f.Size()
	if _, err := f.WriteAt(make([]byte, 2<<20), size); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// TestAFullDiskKeepsNoCheckpointBack: somebody else fills the disk while a log with
// many producers is behind its checkpoint. The checkpoint is written, so the next
// start scans nothing and local bytes can go; then appends go on (SAFETY 22).
func TestAFullDiskKeepsNoCheckpointBack(t *testing.T) {
	s := simDir(22)
	tune := func(c *Config) { c.CheckpointEvery = time.Hour }
	l, _ := open(t, s, "/data/p", tune)
	var last []record.Batch
	write := func(seq int32, producers int64) {
		t.Helper()
		last = nil
		for id := range producers {
			b := idempotent(id, 0, seq, 1)
			mustAppend(t, l, 1, b)
			last = append(last, b)
		}
	}
	for seq := range int32(5) { // the producers' state has its full size
		write(seq, 60)
		if err := l.flush(true); err != nil {
			t.Fatal(err)
		}
	}
	write(5, 60)
	for id := int64(60); id < 80; id++ { // and more
		mustAppend(t, l, 1, idempotent(id, 0, 0, 1))
	}
	if err := l.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	fill(t, s)
	if _, err := l.Append(1, batch(0, 100)); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("append: %v, want ErrNoSpace", err)
	}
	if err := l.flush(true); err != nil {
		t.Fatal(err)
	}
	if k := l.ckpt.get(); k.synced != l.End() {
		t.Fatalf("the checkpoint stays at %d, the log ends at %d", k.synced, l.End())
	}
	end := l.End()
	l.Close(false)
	s = s.Crash()
	l, rec := open(t, s, "/data/p", tune)
	if l.End() != end || rec.ScannedBytes != 0 {
		t.Fatalf("end %d, want %d: %+v", l.End(), end, rec)
	}
	for _, b := range last {
		if a, err := l.Append(1, b); err != nil || !a.Duplicate || a.Base != b.BaseOffset() {
			t.Fatalf("a retry of %d gave %+v, %v", b.BaseOffset(), a, err)
		}
	}
	if n, err := l.DeleteLocal(end); err != nil || n == 0 {
		t.Fatalf("%d bytes went: %v", n, err)
	}
	write(6, 5)
}

// TestAFullDiskKeepsNoFirstCheckpointBack: nor does it when the log meets its first
// producer just before.
func TestAFullDiskKeepsNoFirstCheckpointBack(t *testing.T) {
	s := simDir(24)
	l, _ := open(t, s, "/data/p")
	mustAppend(t, l, 1, idempotent(7, 0, 0, 1))
	fill(t, s)
	for range 2 { // each of the two files
		if err := l.flush(true); err != nil || l.ckpt.get().synced != 1 || l.ckpt.get().snapshot != 1 {
			t.Fatalf("checkpoint %+v: %v", l.ckpt.get(), err)
		}
	}
}

// TestAPartialAppendThatStaysIsFinal: when what was written of a batch cannot be cut
// off again the log takes no more, for nobody knows what its file holds (SAFETY 22).
func TestAPartialAppendThatStaysIsFinal(t *testing.T) {
	s := simDir(25)
	l, _ := open(t, s, "/data/p")
	mustAppend(t, l, 1, batch(0, 1))
	fill(t, s)
	s.SetCapacity(1<<20 + 30)
	s.FailOn(func(op, _ string) error {
		if op == "truncate" {
			return syscall.EIO
		}
		return nil
	})
	if _, err := l.Append(1, batch(1, 5)); !errors.Is(err, ErrOffline) {
		t.Fatalf("append: %v, want ErrOffline", err)
	}
	s.FailOn(nil)
	s.SetCapacity(0)
	if _, err := l.Append(1, batch(1, 5)); !errors.Is(err, ErrOffline) {
		t.Fatalf("the next append: %v, want ErrOffline", err)
	}
	l.Close(false)
	l, _ = open(t, s.Crash(), "/data/p")
	if l.End() > 1 {
		t.Fatalf("the log ends at %d", l.End())
	}
}

// TestProducersAreKeptBeforeTheirBatchesGo: what a full disk, or a damaged one, took
// of the snapshots at segments' bases is made again before the batches below go, and
// until that is possible they stay (SAFETY 14).
func TestProducersAreKeptBeforeTheirBatchesGo(t *testing.T) {
	s := simDir(23)
	l, _ := open(t, s, "/data/p")
	roll := func(seq int32) {
		t.Helper()
		mustAppend(t, l, 1, idempotent(7, 0, seq, 1))
		if err := errors.Join(l.Roll(), l.Sync(context.Background()), l.flush(true)); err != nil {
			t.Fatal(err)
		}
	}
	roll(0)
	roll(1)
	mustAppend(t, l, 1, idempotent(7, 0, 2, 1))
	fill(t, s)
	if err := errors.Join(l.Roll(), l.flush(true)); err != nil {
		t.Fatal(err)
	}
	known := func() {
		t.Helper()
		for at := l.LocalStart(); at <= l.End(); at++ {
			states, err := l.ProducersAt(at)
			if err != nil || at > 0 && (len(states) != 1 || states[0].Batches[len(states[0].Batches)-1].LastOffset != at-1) {
				t.Fatalf("producers at %d: %+v %v", at, states, err)
			}
		}
	}
	if n, err := l.DeleteLocal(3); err != nil || n == 0 || l.LocalStart() != 2 {
		t.Fatalf("%d bytes went, local start %d: %v; the segment at 3 has no snapshot", n, l.LocalStart(), err)
	}
	known()
	s.SetCapacity(0)
	if _, err := l.DeleteLocal(3); err != nil || l.LocalStart() != 3 {
		t.Fatalf("local start %d: %v", l.LocalStart(), err)
	}
	known()
}
