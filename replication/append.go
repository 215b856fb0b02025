package replication

import (
	"fmt"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/record"
)

// AppendOptions say how a produce wants its batch treated.
type AppendOptions struct {
	// Acks is the producer's: 0, 1, or -1 for all in-sync replicas.
	Acks int16
	// CurrentEpoch is the leader epoch the caller believes in, -1 for none.
	CurrentEpoch int32
	// Protects marks a batch that the disk's reserve is for: the broker's own
	// journals.
	Protects bool
}

// Appended says where a batch went. It names the epoch it was appended in,
// because waiting for its acknowledgement means waiting in that epoch.
type Appended struct {
	Base, End   int64
	LogAppendMs int64 // -1 unless the topic stamps records itself
	LogStart    int64
	Epoch       int32
	// Duplicate says that the producer had sent this batch before and that Base
	// is the offset it got then (KIP-98).
	Duplicate bool
}

// Append writes one batch to the leader's log and returns as soon as it is in
// the log; acks=all callers then ask Committed or WaitCommitted. The batch must
// have passed record.ValidateProduced; its base offset and leader epoch are
// written in place.
//
// Errors: ErrNotLeader, ErrFencedEpoch, ErrUnknownEpoch, ErrNotEnoughReplicas,
// ErrOffline, and those of commitlog.Append. On any error nothing of the batch is in the log.
func (p *Partition) Append(b record.Batch, o AppendOptions) (Appended, error) {
	if err := p.dir.Err(); err != nil {
		return Appended{}, err
	}
	p.lead.RLock()
	if !p.lead.leading {
		p.lead.RUnlock()
		return Appended{}, ErrNotLeader
	}
	epoch := p.lead.epoch
	if o.CurrentEpoch >= 0 && o.CurrentEpoch != epoch {
		p.lead.RUnlock()
		if o.CurrentEpoch < epoch {
			return Appended{}, ErrFencedEpoch
		}
		return Appended{}, ErrUnknownEpoch
	}
	// The effective minimum is capped by the replication factor, or a topic
	// with fewer replicas than the default could never be written.
	if o.Acks == -1 && p.lead.isr < min(p.Config().MinISR, p.lead.rf) {
		p.lead.RUnlock()
		return Appended{}, ErrNotEnoughReplicas
	}
	if p.room != nil {
		if err := p.room(len(b), o.Protects); err != nil {
			p.lead.RUnlock()
			return Appended{}, fmt.Errorf("%w: %w", commitlog.ErrNoSpace, err)
		}
	}
	a, err := p.log.Append(epoch, b)
	p.lead.RUnlock()
	if err != nil {
		return Appended{}, err
	}
	if p.fsync.Load() {
		p.log.SyncAsync()
	} else {
		p.advance()
	}
	return Appended{
		Base: a.Base, End: a.End, LogAppendMs: a.LogAppendMs, LogStart: p.log.Start(),
		Epoch: epoch, Duplicate: a.Duplicate,
	}, nil
}

// Lineage is the log's leader epochs and where each began, oldest first.
func (p *Partition) Lineage() []commitlog.EpochStart { return p.log.Epochs() }

// EpochEnd returns the largest epoch at or below epoch that has records here
// and the offset at which it ends (KIP-101, KIP-279). The end of the current
// epoch is the log end.
func (p *Partition) EpochEnd(epoch int32) (int32, int64) {
	current, _ := p.Leadership()
	switch {
	case epoch == current:
		return current, p.log.End()
	case epoch > current:
		return -1, -1 // nobody has led in it: the caller knows more than we do
	}
	if e, end := p.log.EpochEnd(epoch); e >= 0 || epoch < 0 {
		return e, end
	}
	// Nothing was ever written: the leader's epoch begins at the end, and so an older
	// one ended there.
	return epoch, p.log.End()
}

// DeleteRecords raises the log start to offset, durably, and returns the new
// log start. An offset of -1 means the high watermark; one below the log start
// is no error and changes nothing (as Kafka answers). Errors: ErrNotLeader,
// ErrOffsetOutOfRange above the high watermark or below -1, ErrPolicyViolation
// on a compacted topic.
func (p *Partition) DeleteRecords(offset int64) (int64, error) {
	if _, leading := p.Leadership(); !leading {
		return -1, ErrNotLeader
	}
	if p.Config().CompactOnly() {
		return -1, ErrPolicyViolation
	}
	hw := p.hw.Load()
	if offset == -1 {
		offset = hw
	}
	if offset < 0 || offset > hw {
		return -1, ErrOffsetOutOfRange
	}
	if err := p.RaiseLogStart(offset); err != nil {
		return -1, err
	}
	return p.log.Start(), nil
}

// RaiseLogStart moves the log start up to offset, durably; it never lowers it.
func (p *Partition) RaiseLogStart(offset int64) error {
	if offset <= p.log.Start() {
		return nil
	}
	if err := p.dir.Err(); err != nil {
		return err
	}
	if err := p.log.SetStart(offset); err != nil {
		return fmt.Errorf("raise log start of %s-%d to %d: %w", p.tp.Topic, p.tp.Partition, offset, err)
	}
	p.wakeSubscribers()
	return nil
}
