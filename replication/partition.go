package replication

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/metadata"
)

// Errors a caller branches on. The broker turns each into one Kafka code.
var (
	// ErrUnknownTopicOrPartition means the metadata has no such partition.
	ErrUnknownTopicOrPartition = errors.New("unknown topic or partition")
	// ErrNotLeader means this broker does not lead the partition now, or
	// stopped leading it while the caller waited.
	ErrNotLeader = errors.New("not leader for partition")
	// ErrOffline means the partition's log cannot be used: its disk failed, its
	// recovery found damage, or its recovery still waits for the bucket.
	ErrOffline = errors.New("partition is offline")
	// ErrFencedEpoch means the caller's leader epoch is older than ours (KIP-320).
	ErrFencedEpoch = errors.New("leader epoch is fenced")
	// ErrUnknownEpoch means the caller knows a later leader epoch than we do (KIP-320).
	ErrUnknownEpoch = errors.New("unknown leader epoch")
	// ErrNotEnoughReplicas means the committed ISR is smaller than
	// min.insync.replicas, capped by the replication factor.
	ErrNotEnoughReplicas = errors.New("not enough in-sync replicas")
	// ErrOffsetOutOfRange means the offset is below the log start or above the
	// high watermark; reading at the high watermark is legal and returns nothing.
	ErrOffsetOutOfRange = errors.New("offset out of range")
	// ErrPolicyViolation means the topic's cleanup policy does not allow the
	// operation (DeleteRecords on a compacted topic).
	ErrPolicyViolation = errors.New("policy violation")
)

// Partition is this broker's replica of one partition, as its leader.
type Partition struct {
	tp     metadata.TopicPartition
	logger *slog.Logger

	log    *commitlog.Log
	dir    *DataDir // that the log is in
	config atomic.Pointer[metadata.TopicConfig]
	fsync  atomic.Bool                      // firn.durability=fsync: only synced offsets count
	room   func(n int, protects bool) error // nil: there is room

	// hw only grows within this process: it is the minimum over the committed
	// ISR, and with an ISR of one that is this log's (synced) end.
	hw  atomic.Int64
	lso atomic.Int64

	// lead guards leadership. Append holds it shared across its log write, so
	// that when stopLeading returns no append of the old epoch is under way.
	lead struct {
		sync.RWMutex
		epoch   int32 // -1 before the first leadership
		leading bool
		isr     int // size of the committed ISR
		rf      int // replicas assigned
		tier    ColdTier
	}

	// wait guards those who wait for the watermark or for any change.
	wait struct {
		sync.Mutex
		acks []ackWaiter // a heap on end
		subs map[*subscription]struct{}
	}
	waiting atomic.Int32 // len(acks)+len(subs): lets an append skip the lock
}

// ColdTier is what replication needs of the bucket; tiering.Archive meets it.
type ColdTier interface {
	// TieredEnd returns the exclusive end of the contiguous committed range of
	// this partition's lineage in the bucket, or -1 when nothing is there.
	TieredEnd() int64
}

// State is a snapshot of a partition's offsets. The fields are read one after
// another from the log's end downwards, so LogStart <= LastStable <=
// HighWatermark <= End holds in every snapshot.
type State struct {
	LeaderEpoch   int32
	LogStart      int64
	LocalStart    int64
	LastStable    int64
	HighWatermark int64
	Synced        int64
	End           int64
	LocalBytes    int64
}

func newPartition(tp metadata.TopicPartition, d *DataDir, l *commitlog.Log, cfg *metadata.TopicConfig, logger *slog.Logger) *Partition {
	p := &Partition{tp: tp, log: l, dir: d, logger: logger.With("topic", tp.Topic, "partition", tp.Partition)}
	p.lead.epoch = -1
	p.wait.subs = make(map[*subscription]struct{})
	p.setConfig(cfg)
	// Nothing is readable before this broker leads: startLeading sets the
	// watermark from the log it is about to lead with.
	p.hw.Store(l.Start())
	p.lso.Store(l.Start())
	d.join(p)
	l.OnSynced(func(int64) {
		if err := l.Err(); err != nil {
			d.failWith(err, p.logger)
			return
		}
		p.advance()
	})
	return p
}

// TopicPartition names the partition.
func (p *Partition) TopicPartition() metadata.TopicPartition { return p.tp }

// TopicID is the topic's id.
func (p *Partition) TopicID() [16]byte { return p.tp.TopicID }

// Config is the topic's resolved configuration, as last seen in the metadata.
func (p *Partition) Config() *metadata.TopicConfig { return p.config.Load() }

// Log is the replica's log, for what reads without consequence (segments,
// sizes, dumps). Appends and client reads go through the partition.
func (p *Partition) Log() *commitlog.Log { return p.log }

func (p *Partition) setConfig(cfg *metadata.TopicConfig) {
	p.config.Store(cfg)
	wasFsync := p.fsync.Swap(cfg.Durability == metadata.DurabilityFsync)
	p.log.SetConfig(commitlog.Live{SegmentBytes: cfg.SegmentBytes, SegmentAge: cfg.SegmentAge})
	if wasFsync && !p.fsync.Load() {
		p.advance()
	}
}

// Leadership returns the epoch this broker leads in, or its last one and false.
func (p *Partition) Leadership() (epoch int32, leading bool) {
	p.lead.RLock()
	defer p.lead.RUnlock()
	return p.lead.epoch, p.lead.leading
}

// startLeading makes the replica the leader of epoch, which the metadata has
// already committed. The watermark starts at what this replica alone vouches
// for: with an ISR of one that is its end, synced where durability asks.
func (p *Partition) startLeading(epoch int32, isr, rf int) {
	p.lead.Lock()
	if epoch <= p.lead.epoch {
		p.lead.Unlock()
		return
	}
	p.lead.epoch, p.lead.leading, p.lead.isr, p.lead.rf = epoch, true, isr, rf
	p.lead.Unlock()
	p.failWaiters(epoch)
	p.advance()
	if p.fsync.Load() && p.log.SyncedEnd() < p.log.End() {
		p.log.SyncAsync()
	}
	p.wakeSubscribers()
}

// stopLeading ends the leadership: everything that waited under it fails with
// ErrNotLeader, and no append of it is under way when this returns.
func (p *Partition) stopLeading() {
	p.lead.Lock()
	p.lead.leading = false
	p.lead.Unlock()
	p.failWaiters(-1)
	p.wakeSubscribers()
}

// SetTier connects the partition with its archive in the bucket.
func (p *Partition) SetTier(t ColdTier) {
	p.lead.Lock()
	p.lead.tier = t
	p.lead.Unlock()
}

// Tier is the partition's archive, or nil when it has none.
func (p *Partition) Tier() ColdTier {
	p.lead.RLock()
	defer p.lead.RUnlock()
	return p.lead.tier
}

// State returns the partition's offsets.
func (p *Partition) State() State {
	p.lead.RLock()
	epoch := p.lead.epoch
	p.lead.RUnlock()
	s := State{LeaderEpoch: epoch, LogStart: p.log.Start()}
	s.LocalStart = p.log.LocalStart()
	s.LastStable = p.lso.Load()
	s.HighWatermark = p.hw.Load()
	s.Synced = p.log.SyncedEnd()
	s.End = p.log.End()
	// A concurrent trim may have moved the start above a value read before it.
	s.LastStable = max(s.LastStable, s.LogStart)
	s.HighWatermark = max(s.HighWatermark, s.LastStable)
	for _, seg := range p.log.Segments() {
		s.LocalBytes += seg.Bytes
	}
	return s
}

// CheckEpoch compares the leader epoch a client believes in with ours (KIP-320).
// A current of -1 is always right.
func (p *Partition) CheckEpoch(current int32) error {
	epoch, leading := p.Leadership()
	switch {
	case !leading:
		return ErrNotLeader
	case current < 0 || current == epoch:
		return nil
	case current < epoch:
		return ErrFencedEpoch
	default:
		return ErrUnknownEpoch
	}
}
