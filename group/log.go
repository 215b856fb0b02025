package group

import (
	"context"

	"github.com/firnlog/firn/record"
	"github.com/firnlog/firn/replication"
)

// Log is one partition of Topic as its coordinator uses it: PartitionLog, or a
// fake in tests.
type Log interface {
	// Epoch is the leader epoch; leading is false once this broker does not lead
	// the partition, for good.
	Epoch() (epoch int32, leading bool)
	// Append writes one batch in that epoch and returns at once. On an error
	// nothing of the batch is in the log.
	Append(epoch int32, b record.Batch) (replication.Appended, error)
	// WaitCommitted returns once the high watermark has passed a, which is when
	// it may be acknowledged. On an error a may be in the log or not.
	WaitCommitted(ctx context.Context, a replication.Appended) error
	// Bounds are the log start, the high watermark and the log end.
	Bounds() (start, committed, end int64)
	// Read returns whole committed batches, the first of them with offset, and
	// the offset behind the last. No bytes at the high watermark.
	Read(offset int64, maxBytes int) (batches []byte, next int64, err error)
	// Subscribe pokes ch, without blocking, when the leadership or the high
	// watermark changes.
	Subscribe(ch chan<- struct{}) (cancel func())
	// MaxBatchBytes bounds one batch (max.message.bytes).
	MaxBatchBytes() int
	// Roll begins a new segment, so that the ones before can be dropped whole.
	Roll() error
	// Trim syncs the log up to its end and then raises the log start to offset,
	// durably, and drops what is below it. A crash in between leaves more, never
	// less.
	Trim(ctx context.Context, offset int64) error
}

// PartitionLog is a partition that this broker leads.
type PartitionLog struct{ P *replication.Partition }

// Epoch says whether the partition is led here.
func (l PartitionLog) Epoch() (int32, bool) { return l.P.Leadership() }

// Append writes a batch with acks=all.
func (l PartitionLog) Append(epoch int32, b record.Batch) (replication.Appended, error) {
	return l.P.Append(b, replication.AppendOptions{Acks: -1, CurrentEpoch: epoch, Protects: true})
}

// WaitCommitted waits for the high watermark.
func (l PartitionLog) WaitCommitted(ctx context.Context, a replication.Appended) error {
	return l.P.WaitCommitted(ctx, a)
}

// Bounds are the partition's offsets.
func (l PartitionLog) Bounds() (start, committed, end int64) {
	log := l.P.Log()
	start = log.Start()
	committed, _, end = l.P.State().HighWatermark, 0, log.End()
	return start, committed, end
}

// Read reads up to the high watermark.
func (l PartitionLog) Read(offset int64, maxBytes int) ([]byte, int64, error) {
	r, err := l.P.Read(offset, maxBytes, true, false)
	if err != nil || r.Slice.Len() == 0 {
		return nil, offset, err
	}
	defer r.Slice.Release()
	p, err := r.Slice.Bytes()
	return p, r.Slice.End, err
}

// Subscribe follows the partition.
func (l PartitionLog) Subscribe(ch chan<- struct{}) func() { return l.P.Subscribe(ch) }

// MaxBatchBytes is the topic's max.message.bytes.
func (l PartitionLog) MaxBatchBytes() int { return l.P.Config().MaxMessageBytes }

// Roll seals the active segment.
func (l PartitionLog) Roll() error { return l.P.Roll() }

// Trim raises the log start.
func (l PartitionLog) Trim(ctx context.Context, offset int64) error {
	// With firn.durability=replicated the high watermark is ahead of the disk:
	// without this sync a power cut could take the snapshot and leave a log start
	// above all that was.
	if err := l.P.Log().Sync(ctx); err != nil {
		return err
	}
	if err := l.P.RaiseLogStart(offset); err != nil {
		return err
	}
	_, err := l.P.DeleteLocal(offset)
	return err
}
