package commitlog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/internal/failpoint"
)

// Flusher syncs the logs of one disk in groups: whatever is appended while a
// sync runs rides the next one. A log is in the queue at most once, so the queue
// is bounded by the number of logs.
type Flusher struct {
	Files *Files

	mu     sync.Mutex
	wake   sync.Cond
	queue  []*Log
	closed bool
	wg     sync.WaitGroup
}

// maxOpenSegments bounds the open sealed segments of a process; the active ones
// come on top.
const maxOpenSegments = 512

// NewFlusher starts parallel workers: on most disks a few fdatasync calls at a
// time finish sooner than one after another, and many do not finish sooner still.
func NewFlusher(parallel int) *Flusher {
	f := &Flusher{Files: NewFiles(maxOpenSegments)}
	f.wake.L = &f.mu
	for range max(1, parallel) {
		f.wg.Add(1)
		go f.work()
	}
	return f
}

func (f *Flusher) work() {
	defer f.wg.Done()
	for {
		f.mu.Lock()
		for len(f.queue) == 0 && !f.closed {
			f.wake.Wait()
		}
		if len(f.queue) == 0 {
			f.mu.Unlock()
			return
		}
		l := f.queue[0]
		f.queue = f.queue[1:]
		f.mu.Unlock()
		l.flush(false)
	}
}

func (f *Flusher) enqueue(l *Log) {
	f.mu.Lock()
	f.queue = append(f.queue, l)
	f.mu.Unlock()
	f.wake.Signal()
}

// Close ends the workers once the queue is empty. Logs are closed before.
func (f *Flusher) Close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.wake.Broadcast()
	f.wg.Wait()
}

// SyncAsync asks for everything appended so far to be synced; OnSynced's function
// hears of it.
func (l *Log) SyncAsync() {
	if l.flushQueued.CompareAndSwap(false, true) {
		l.cfg.Flusher.enqueue(l)
	}
}

// flush syncs what is appended. It writes a checkpoint when one is due, or when
// forced.
func (l *Log) flush(force bool) error {
	l.flushing.Lock()
	defer l.flushing.Unlock()
	return l.flushHeld(force)
}

func (l *Log) flushHeld(force bool) error {
	// Cleared first: an append after this point asks again.
	l.flushQueued.Store(false)
	if p := l.offline.Load(); p != nil {
		return *p
	}
	if l.filesClosed {
		return ErrClosed
	}
	l.appending.Lock()
	end, active := l.end.Load(), l.active()
	at := position{synced: end, segment: active.base, pos: active.size.Load()}
	dirty, dir := l.dirtySegments, l.dirtyDir
	l.dirtySegments, l.dirtyDir = nil, false
	now := l.cfg.Now().UnixMilli()
	due := force || l.sinceCkpt >= l.cfg.CheckpointBytes || l.checkpointDue(now)
	var states []ProducerState
	var aborted []AbortedTxn
	if due {
		states = l.producers.Load().states()
		aborted = l.aborted.decidedIn(active.base, end)
		at.maxTs, at.maxTsOffset, at.firstAppend = active.maxTs.Load(), active.maxTsOffset.Load(), active.firstAppend.Load()
		l.sinceCkpt = 0
		l.lastCkpt.Store(now)
	}
	// The descriptor stays open from the write to the sync, or the error of a
	// failed write-back could go unseen.
	var file disk.File
	if at.pos > 0 {
		file = active.file
	}
	l.appending.Unlock()
	failpoint.Hit(failpoint.Fsync)
	for _, s := range dirty {
		if err := s.file.Datasync(); err != nil {
			return l.fail(err)
		}
		// With these two on disk a recovery never folds a sealed segment again.
		for _, name := range []string{indexName(s.base), snapshotName(s.end.Load())} {
			if err := l.syncFile(name); err != nil {
				return l.fail(err)
			}
		}
	}
	if file != nil && (end > l.synced.Load() || force) {
		if err := file.Datasync(); err != nil {
			return l.fail(err)
		}
	}
	if dir {
		if err := l.cfg.FS.SyncDir(l.cfg.Dir); err != nil {
			return l.fail(err)
		}
	}
	if p := l.offline.Load(); p != nil {
		return *p // the disk failed meanwhile
	}
	failpoint.Hit(failpoint.Synced)
	for _, s := range dirty {
		s.files.unpin(s)
	}
	if end > l.synced.Load() {
		l.synced.Store(end)
		l.wakeSyncWaiters()
		if f := l.onSynced.Load(); f != nil {
			(*f)(end)
		}
	}
	if due {
		return l.checkpoint(at, states, aborted)
	}
	return nil
}

// checkpointDue says that the last checkpoint does not reach the end and is old,
// or was tried long ago. An idle log's does reach it: it costs nothing more.
func (l *Log) checkpointDue(now int64) bool {
	return l.ckpt.covered.Load() < l.end.Load() && now-l.lastCkpt.Load() >= l.cfg.CheckpointEvery.Milliseconds()
}

// syncFile syncs a file of the log's folder; one that a full disk kept from being
// written is no error.
func (l *Log) syncFile(name string) error {
	f, err := l.cfg.FS.OpenFile(filepath.Join(l.cfg.Dir, name), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
