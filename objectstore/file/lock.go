package file

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"path/filepath"
	"syscall"
	"time"

	"github.com/firnlog/firn/internal/disk"
)

// slotCount is how many lock files there are: enough that two busy keys rarely
// share one, few enough to forget about.
const slotCount = 256

// lock excludes all other writers of key, in this process and in others, until
// unlock is called. It waits as long as ctx allows. Inside the process a channel
// orders the waiters; between processes flock is tried again every few
// milliseconds, because a blocking flock would hold a thread and ignore ctx.
func (b *Bucket) lock(ctx context.Context, key string) (unlock func(), err error) {
	h := fnv.New32a()
	io.WriteString(h, key)
	slot := h.Sum32() % slotCount
	select {
	case b.slots[slot] <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	path := filepath.Join(b.root, hidden, "locks", fmt.Sprintf("%02x", slot))
	wait := 200 * time.Microsecond
	for {
		held, err := b.fs.Lock(path)
		if err == nil {
			return func() {
				held.Close()
				<-b.slots[slot]
			}, nil
		}
		if !errors.Is(err, disk.ErrLocked) {
			<-b.slots[slot]
			return nil, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			<-b.slots[slot]
			return nil, ctx.Err()
		}
		wait = min(2*wait, 10*time.Millisecond)
	}
}

// flockFile marks a temp file as owned until it is closed. A simulated disk has
// no descriptors and no other processes.
func flockFile(f disk.File) error {
	fd, ok := f.Fd()
	if !ok {
		return nil
	}
	return syscall.Flock(int(fd), syscall.LOCK_EX|syscall.LOCK_NB)
}

// sweep removes temp files that are old and have no owner.
func (b *Bucket) sweep() error {
	dir := filepath.Join(b.root, hidden, "tmp")
	entries, err := b.fs.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		st, err := e.Info()
		if err != nil || b.now().Sub(st.ModTime()) < tempAge {
			continue
		}
		path := filepath.Join(dir, e.Name())
		held, err := b.fs.Lock(path)
		if err != nil { // it has an owner after all
			continue
		}
		err = b.fs.Remove(path)
		held.Close()
		if err != nil && !isNotExist(err) {
			return err
		}
	}
	return nil
}
