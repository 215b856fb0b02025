package tiering

import (
	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/metadata"
)

// Source is a partition that this broker leads; replication.Partition meets it.
type Source interface {
	TopicPartition() metadata.TopicPartition
	// Leadership is the leader epoch and whether the broker leads in it now.
	Leadership() (epoch int32, leading bool)
	// Lineage is where each leader epoch of the log began, oldest first.
	Lineage() []commitlog.EpochStart
	// Offsets are the log start, the local start, and the end of what may be
	// uploaded: nothing at or above the high watermark, the last stable offset or
	// the synced end.
	Offsets() (logStart, localStart, uploadEnd int64)
	// Segments lists the local segments, oldest first.
	Segments() []commitlog.SegmentInfo
	// ReadLocal returns whole batches in [offset, upTo), the first being the one
	// that contains offset; at least one.
	ReadLocal(offset, upTo int64, maxBytes int) (commitlog.Slice, error)
	// ProducersAt is the producer state folded up to exactly offset.
	ProducersAt(offset int64) ([]commitlog.ProducerState, error)
	// Aborted are the aborted transactions that overlap [start, end).
	Aborted(start, end int64) []commitlog.AbortedTxn
	// DeleteLocal drops whole local segments that end at or below offset.
	DeleteLocal(below int64) (bytes int64, err error)
	// RaiseLogStart moves the log start up, durably.
	RaiseLogStart(offset int64) error
	// Roll seals the active segment.
	Roll() error
	Config() *metadata.TopicConfig
}

// Memory is what a broker remembers of heads, apart from the bucket: the highest
// generation it has seen of each. A head that is missing or older than that is
// an alarm and not a beginning (SAFETY 10).
type Memory interface {
	// Generation is the highest known generation of the partition's head, 0 when
	// none was ever seen.
	Generation(tp metadata.TopicPartition) uint64
	// Remember notes a generation and the end of what the head covers. It must
	// be durable before it returns nil; a lower generation changes nothing.
	Remember(tp metadata.TopicPartition, generation uint64, end int64) error
	// Forget drops what is known of a deleted topic.
	Forget(id metadata.TopicID) error
}
