package fetch

import (
	"context"
	"errors"
	"fmt"

	"github.com/firnlog/firn/objectstore"
)

// storeBucket is objectstore.Bucket as the cold side sees it.
type storeBucket struct{ b objectstore.Bucket }

func (s storeBucket) getRange(ctx context.Context, key string, p []byte, off int64) error {
	if s.b == nil {
		return errors.New("no bucket is configured")
	}
	err := s.b.GetRange(ctx, key, p, off)
	if errors.Is(err, objectstore.ErrNotFound) {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	if errors.Is(err, objectstore.ErrRange) || errors.Is(err, objectstore.ErrCorrupt) {
		return fmt.Errorf("%w: %w", errBadChunk, err)
	}
	return err
}
