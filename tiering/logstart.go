package tiering

import (
	"context"
	"errors"
	"fmt"
)

// CommitLogStart returns when the head says that nothing below offset is needed,
// so that a cluster that is raised from the bucket does not bring deleted records
// back. A partition with nothing in the bucket has nothing to say there.
func (ar *Archive) CommitLogStart(ctx context.Context, offset int64) error {
	if !ar.src.Config().RemoteRead {
		return nil
	}
	var err error
	for passes := 0; ; passes++ {
		v, verr := ar.viewed(ctx)
		switch {
		case verr != nil:
			return verr
		case v.head == nil || v.head.LogStart >= offset || v.head.Start() >= offset:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !errors.Is(err, errConflict):
			return fmt.Errorf("log start %d of %s-%d is not in the bucket yet: %w", offset, ar.tp.Topic, ar.tp.Partition, err)
		case passes == 5:
			return fmt.Errorf("log start %d of %s-%d is not in the bucket after %d passes", offset, ar.tp.Topic, ar.tp.Partition, passes)
		}
		err = ar.pass(ctx, false)
	}
}
