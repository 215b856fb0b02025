package fetch

import (
	"context"
	"errors"
	"fmt"

	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/tiering"
	"github.com/firnlog/firn/tiering/format"
)

// tierArchive is tiering.Archive as the cold side sees it.
type tierArchive struct{ a *tiering.Archive }

// archive is nil for a partition that has nothing in the bucket and never will
// as it is configured now.
func (h hotPartition) archive() archive {
	if !h.p.Config().RemoteRead {
		return nil
	}
	if a, ok := h.p.Tier().(*tiering.Archive); ok && a != nil {
		return tierArchive{a}
	}
	return nil
}

func (t tierArchive) locate(ctx context.Context, offset int64) (object, error) {
	e, err := t.a.Locate(ctx, offset)
	if err != nil {
		return object{}, tierError(err)
	}
	return object{key: t.a.Key(&e), etag: e.ETag, base: e.Base, end: e.End, entry: &e}, nil
}

func (t tierArchive) open(ctx context.Context, o object) (*layout, error) {
	f, err := t.a.Footer(ctx, o.entry)
	if err != nil {
		return nil, tierError(err)
	}
	l := &layout{object: o, compressed: f.Codec != format.None, aborted: tiering.FooterAborted(f), chunks: make([]chunk, len(f.Chunks))}
	for i, c := range f.Chunks {
		l.chunks[i] = chunk{base: c.Base, pos: c.Pos, len: c.Len, size: c.Size, crc: c.CRC}
	}
	return l, nil
}

func (t tierArchive) refresh(ctx context.Context) error { return tierError(t.a.Refresh(ctx)) }

func (t tierArchive) tieredEnd(ctx context.Context) (int64, error) {
	if err := t.a.Load(ctx); err != nil {
		return -1, tierError(err)
	}
	return t.a.TieredEnd(), nil
}

func (t tierArchive) offsetForTime(ctx context.Context, ts int64) (offset, at int64, ok bool, err error) {
	offset, at, ok, err = t.a.OffsetForTime(ctx, ts)
	return offset, at, ok, tierError(err)
}

func (t tierArchive) maxTimestamp(ctx context.Context) (offset, at int64, ok bool, err error) {
	offset, at, ok, err = t.a.MaxTimestamp(ctx)
	return offset, at, ok, tierError(err)
}

// tierError says in the cold side's words what went wrong.
func tierError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, tiering.ErrNotTiered):
		return fmt.Errorf("%w: %w", errNotTiered, err)
	case errors.Is(err, objectstore.ErrNotFound):
		return fmt.Errorf("%w: %w", errGone, err)
	case errors.Is(err, format.ErrCorrupt), errors.Is(err, format.ErrVersion):
		return fmt.Errorf("%w: %w", errBadChunk, err)
	}
	return err
}
