package tiering

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/tiering/format"
)

// proveTimeout bounds one question to the store: a range may take thousands.
const proveTimeout = 30 * time.Second

// ProveRange returns nil when the bucket has [from, to) of tp, certainly and now:
// the head is read again, it names objects that cover the range without a hole, and
// the store has each of them with the length, ETag and checksum of its commit. A
// replica asks before it drops a log that may be the last copy (SAFETY 13). An
// object that is missing or changed is an ErrSafeMode, which no retry mends.
func (a *Archiver) ProveRange(ctx context.Context, tp metadata.TopicPartition, from, to int64) error {
	if from >= to {
		return nil
	}
	h, _, err := a.readHead(ctx, tp)
	if err != nil {
		return err
	}
	if h == nil {
		return fmt.Errorf("%w: the bucket has nothing of %s-%d", ErrSafeMode, tp.Topic, tp.Partition)
	}
	// Once the local copy is gone, a missing or older head has to be an alarm.
	if h.Generation > a.cfg.Memory.Generation(tp) {
		if err := a.cfg.Memory.Remember(tp, h.Generation, h.End); err != nil {
			return fmt.Errorf("remember generation %d of the manifest of %s-%d: %w", h.Generation, tp.Topic, tp.Partition, err)
		}
	}
	at := from
	ar := &Archive{a: a, tp: tp} // no leadership: only its walk is used
	err = ar.each(ctx, h, from, func(e *format.Entry) (bool, error) {
		if e.Base > at {
			return false, nil
		}
		ctx, cancel := context.WithTimeout(ctx, proveTimeout)
		defer cancel()
		switch err := a.verify(ctx, a.key(tp, e), e); {
		case lost(err):
			return false, fmt.Errorf("%w: object [%d, %d) of %s-%d: %w", errLost, e.Base, e.End, tp.Topic, tp.Partition, err)
		case err != nil:
			return false, fmt.Errorf("ask for object [%d, %d) of %s-%d: %w", e.Base, e.End, tp.Topic, tp.Partition, err)
		}
		at = e.End
		return at < to, nil
	})
	if err != nil {
		return err
	}
	if at < to {
		return fmt.Errorf("%w: the manifest of %s-%d names nothing for [%d, %d)", ErrSafeMode, tp.Topic, tp.Partition, at, to)
	}
	return nil
}

// lost says that an object is not there as it was committed.
func lost(err error) bool { return isGone(err) || errors.Is(err, errDamaged) }
