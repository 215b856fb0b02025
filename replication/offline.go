package replication

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/firnlog/firn/commitlog"
)

// health is whether a data dir may still be written to. A disk that failed a sync,
// or a write for anything but want of space, may have dropped pages of any file,
// and a second sync may say that all is well. So the first failure in any log takes
// the whole dir offline until the process is started again and the logs recovered:
// whoever waits for one of its partitions hears ErrOffline, nothing is appended,
// rolled or deleted, and the dir gets no clean marker. What is committed stays
// readable.
type health struct {
	failed atomic.Pointer[error]

	mu    sync.Mutex // a leaf: nothing is locked under it
	parts map[*Partition]struct{}
}

// Err is nil while the dir takes writes; else it says why not and wraps ErrOffline.
func (d *DataDir) Err() error {
	if p := d.health.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// fail takes the dir offline and ends everybody's waits. The first reason stays. It
// is called with locks of the failed log held, so it takes no log's lock.
func (d *DataDir) fail(cause error, logger *slog.Logger) {
	err := fmt.Errorf("%w: data dir %s failed: %w", ErrOffline, d.Path, cause)
	if !d.health.failed.CompareAndSwap(nil, &err) {
		return
	}
	d.health.mu.Lock()
	parts := make([]*Partition, 0, len(d.health.parts))
	for p := range d.health.parts {
		parts = append(parts, p)
	}
	d.health.mu.Unlock()
	logger.Error("data dir is offline: none of its partitions takes writes until the disk is in order and the broker is started again",
		"event", "data_dir_offline", "dir", d.Path, "partitions", len(parts), "err", cause)
	for _, p := range parts {
		p.log.TakeOffline(cause)
		p.failOffline(err)
	}
}

// failWith takes the dir offline when err says that one of its logs went offline.
func (d *DataDir) failWith(err error, logger *slog.Logger) {
	if errors.Is(err, commitlog.ErrOffline) {
		d.fail(err, logger)
	}
}

// join makes p hear of a failure from now on; leave ends that.
func (d *DataDir) join(p *Partition) {
	d.health.mu.Lock()
	defer d.health.mu.Unlock()
	if d.health.parts == nil {
		d.health.parts = map[*Partition]struct{}{}
	}
	d.health.parts[p] = struct{}{}
}

func (d *DataDir) leave(p *Partition) {
	d.health.mu.Lock()
	defer d.health.mu.Unlock()
	delete(d.health.parts, p)
}
