package commitlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/firnlog/firn/internal/disk"
)

// Errors a caller branches on.
var (
	// ErrOffsetOutOfRange means the offset is above the end, or above the limit
	// given to Read.
	ErrOffsetOutOfRange = errors.New("offset out of range")
	// ErrBelowLocal means the offset is below the local start: only the bucket
	// has it, if anything does.
	ErrBelowLocal = errors.New("offset is below the local log")
	// ErrOutOfOrderSequence means an idempotent producer skipped or repeated a
	// sequence number further back than is remembered (KIP-98).
	ErrOutOfOrderSequence = errors.New("out of order sequence number")
	// ErrInvalidProducerEpoch means a newer instance of the producer has written.
	ErrInvalidProducerEpoch = errors.New("invalid producer epoch")
	// ErrOffline means a write or sync failed before: the log takes no more
	// writes until the process is restarted and the log recovered.
	ErrOffline = errors.New("log is offline after a disk error")
	// ErrNoSpace means the disk is full; nothing was appended and the log is
	// intact.
	ErrNoSpace = errors.New("no space left for the log")
	// ErrClosed means the log was closed.
	ErrClosed = errors.New("log is closed")
	// ErrDamaged means bytes that were synced do not verify. Only a peer or the
	// bucket can repair that; the log never truncates because of it.
	ErrDamaged = errors.New("log is damaged below its checkpoint")
	// ErrOffsetOverflow means the batch would pass the last possible offset.
	ErrOffsetOverflow = errors.New("offset overflow")
	// ErrEpochRegression means an append came with an older leader epoch than
	// the log already has: a deposed leader's.
	ErrEpochRegression = errors.New("leader epoch went back")
)

// Defaults of Config.
const (
	DefaultSegmentBytes    = 128 << 20
	DefaultIndexInterval   = 16 << 10
	DefaultCheckpointBytes = 64 << 20
	DefaultCheckpointEvery = 5 * time.Second
	DefaultProducerExpiry  = 24 * time.Hour
	// MaxOffset bounds a log's end, so that the end and the offset after any record
	// are offsets too. What adds more to an offset must look first.
	MaxOffset = int64(^uint64(0)>>1) - 1
)

// Config is what a log is made of. Zero values of the numbers take the defaults.
type Config struct {
	FS        disk.FS
	Dir       string
	TopicID   [16]byte
	Topic     string
	Partition int32
	Now       func() time.Time
	Logger    *slog.Logger
	// Flusher syncs this log together with the others of its disk.
	Flusher *Flusher
	// Clean says that the data dir's previous process closed every log. Only
	// then is this log's own clean mark believed.
	Clean bool
	// Incarnation counts the processes over the data dir, and a clean mark names the
	// one that made it: only that of the process just before is believed, or a folder
	// put back from an older time would be (SAFETY 2). 0 where nobody counts.
	Incarnation uint64
	// SegmentBytes and SegmentAge bound the active segment; age 0 never rolls.
	SegmentBytes int64
	SegmentAge   time.Duration
	// IndexInterval is how many bytes of log there are between index entries.
	IndexInterval int
	// CheckpointBytes and CheckpointEvery bound what recovery scans: a checkpoint is
	// due when either has passed since the last one and it does not reach the end.
	CheckpointBytes int64
	CheckpointEvery time.Duration
	// ProducerExpiry forgets producers that wrote nothing for this long.
	ProducerExpiry time.Duration
}

func (c *Config) setDefaults() {
	if c.SegmentBytes <= 0 {
		c.SegmentBytes = DefaultSegmentBytes
	}
	if c.IndexInterval <= 0 {
		c.IndexInterval = DefaultIndexInterval
	}
	if c.CheckpointBytes <= 0 {
		c.CheckpointBytes = DefaultCheckpointBytes
	}
	if c.CheckpointEvery <= 0 {
		c.CheckpointEvery = DefaultCheckpointEvery
	}
	if c.ProducerExpiry <= 0 {
		c.ProducerExpiry = DefaultProducerExpiry
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Live are the settings that may change while the log is open.
type Live struct {
	SegmentBytes int64
	SegmentAge   time.Duration
}

// SegmentInfo describes one segment. Timestamps are -1 when no record has one.
type SegmentInfo struct {
	Base, End   int64
	Bytes       int64
	MaxTs       int64
	Sealed      bool
	Damaged     bool      // VerifySealed found other bytes than were written
	FirstAppend time.Time // when its first batch was appended; zero when empty
}

// Log is one replica's log. All methods are safe for concurrent use.
type Log struct {
	cfg    Config
	logger *slog.Logger

	// appending serialises appends, rolls, trims and resets.
	appending sync.Mutex
	producers atomic.Pointer[producers] // its fold is guarded by appending
	aborted   *abortedList
	epochs    epochCache
	ckpt      checkpointer

	// segments is replaced whole under appending; readers load it.
	segments atomic.Pointer[[]*segment]

	start      atomic.Int64 // log start; only grows, but for Reset
	localStart atomic.Int64
	end        atomic.Int64
	synced     atomic.Int64
	hw         atomic.Int64
	segBytes   atomic.Int64
	segAge     atomic.Int64

	// dirty state, guarded by appending: what the next flush has to sync.
	dirtySegments []*segment // sealed since the last flush, oldest first
	dirtyDir      bool
	sinceCkpt     int64        // bytes appended since a checkpoint was last tried
	lastCkpt      atomic.Int64 // unix ms of that; one that fails is tried again by bytes or time
	flushQueued   atomic.Bool
	flushing      sync.Mutex // one flush of this log at a time
	onSynced      atomic.Pointer[func(int64)]
	offline       atomic.Pointer[error]
	closed        atomic.Bool
	filesClosed   bool // guarded by flushing: a flush that was queued comes too late
	syncWaiters   sync.Mutex
	syncWaitersCh chan struct{} // closed and replaced whenever synced moves or the log fails
}

// Start is the log start: the first offset that a consumer may ask for.
func (l *Log) Start() int64 { return l.start.Load() }

// LocalStart is the first offset on this disk.
func (l *Log) LocalStart() int64 { return l.localStart.Load() }

// End is the next offset to be assigned.
func (l *Log) End() int64 { return l.end.Load() }

// SyncedEnd is the offset below which everything survives a power cut.
func (l *Log) SyncedEnd() int64 { return l.synced.Load() }

// HighWatermark is the last one set, or the persisted one right after Open.
func (l *Log) HighWatermark() int64 { return l.hw.Load() }

// SetHighWatermark keeps hw for the next checkpoint. It is persisted lazily: a
// watermark after a crash is a lower bound.
func (l *Log) SetHighWatermark(hw int64) { l.hw.Store(hw) }

// SetConfig changes the live settings; they hold from the next append on.
func (l *Log) SetConfig(c Live) {
	if c.SegmentBytes > 0 {
		l.segBytes.Store(c.SegmentBytes)
	}
	l.segAge.Store(int64(c.SegmentAge))
}

// OnSynced sets the function that is called, from the flusher's goroutine, when
// the synced end has moved or the log has gone offline.
func (l *Log) OnSynced(f func(end int64)) { l.onSynced.Store(&f) }

// Err is nil while the log takes writes, else why it does not.
func (l *Log) Err() error {
	if p := l.offline.Load(); p != nil {
		return *p
	}
	if l.closed.Load() {
		return ErrClosed
	}
	return nil
}

// fail takes the log offline; the first reason stays.
func (l *Log) fail(err error) error {
	e := fmt.Errorf("%w: %w", ErrOffline, err)
	if l.offline.CompareAndSwap(nil, &e) {
		l.logger.Error("log went offline", "event", "log_offline", "err", err)
	}
	l.wakeSyncWaiters()
	if f := l.onSynced.Load(); f != nil {
		(*f)(l.synced.Load())
	}
	return *l.offline.Load()
}

// TakeOffline ends all writing for a reason outside of this log, as when another log
// of the same disk failed: a sync that succeeds after that says nothing.
func (l *Log) TakeOffline(cause error) { l.fail(cause) }

// Segments lists the segments, oldest first; the last one is the active one.
func (l *Log) Segments() []SegmentInfo {
	segs := *l.segments.Load()
	out := make([]SegmentInfo, len(segs))
	for i, s := range segs {
		out[i] = s.info()
	}
	return out
}

// LocalBytes is the size of all segments.
func (l *Log) LocalBytes() (n int64) {
	for _, s := range *l.segments.Load() {
		n += s.size.Load()
	}
	return n
}

func (l *Log) now() int64 { return l.cfg.Now().UnixMilli() }

func (l *Log) active() *segment {
	segs := *l.segments.Load()
	return segs[len(segs)-1]
}

// Sync waits until everything appended before the call is synced.
func (l *Log) Sync(ctx context.Context) error {
	target := l.End()
	l.SyncAsync()
	for {
		l.syncWaiters.Lock()
		ch := l.syncWaitersCh
		l.syncWaiters.Unlock()
		if l.synced.Load() >= target {
			return nil
		}
		if err := l.Err(); err != nil {
			return err
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *Log) wakeSyncWaiters() {
	l.syncWaiters.Lock()
	close(l.syncWaitersCh)
	l.syncWaitersCh = make(chan struct{})
	l.syncWaiters.Unlock()
}

// Close syncs what is appended and closes the files. clean writes the mark that
// lets the next Open trust the log without a scan. Safe to call twice.
func (l *Log) Close(clean bool) error {
	if !l.closed.CompareAndSwap(false, true) {
		return nil
	}
	var err error
	if l.offline.Load() == nil && clean {
		err = l.closeClean()
	} else if p := l.offline.Load(); p != nil {
		err = *p
	}
	l.flushing.Lock()
	defer l.flushing.Unlock()
	l.appending.Lock()
	defer l.appending.Unlock()
	l.filesClosed = true
	l.wakeSyncWaiters()
	for _, s := range *l.segments.Load() {
		err = errors.Join(err, s.close())
	}
	return errors.Join(err, l.ckpt.close())
}
