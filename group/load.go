package group

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/firnlog/firn/record"
	"github.com/firnlog/firn/replication"
)

// readBytes is how much of the journal is read at a time, and maxDecoded what a
// compressed batch of somebody else's may decompress to.
const (
	readBytes  = 1 << 20
	maxDecoded = 64 << 20
)

// fold is the state that a journal's records make.
type fold struct {
	h       host
	groups  map[string]*group
	unknown map[string][]byte
	bytes   int64
	bad     int // records that say nothing we can read
}

// load reads the partition from its log start to its end as it is now.
func load(ctx context.Context, log Log, h host) (*fold, error) {
	f := &fold{h: h, groups: map[string]*group{}, unknown: map[string][]byte{}}
	start, _, end := log.Bounds()
	if err := awaitCommitted(ctx, log, end); err != nil {
		return nil, err
	}
	for at := start; at < end; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p, next, err := log.Read(at, readBytes)
		if err != nil {
			return nil, fmt.Errorf("read the journal at %d: %w", at, err)
		}
		if next <= at {
			return nil, fmt.Errorf("the journal ends at %d, before %d", at, end)
		}
		f.bytes += int64(len(p))
		for len(p) > 0 {
			b, rest, err := record.Parse(p)
			if err != nil {
				return nil, fmt.Errorf("read the journal at %d: %w", at, err)
			}
			f.batch(b, at)
			p = rest
		}
		at = next
	}
	for id, g := range f.groups {
		if g.journaled == nil && len(g.offsets) == 0 {
			delete(f.groups, id)
		}
	}
	return f, nil
}

// awaitCommitted waits until all that a leadership found in its log is committed:
// it may become so at any moment, and then it counts.
func awaitCommitted(ctx context.Context, log Log, end int64) error {
	poke := make(chan struct{}, 1)
	defer log.Subscribe(poke)()
	for {
		if _, hw, _ := log.Bounds(); hw >= end {
			return nil
		}
		if _, leading := log.Epoch(); !leading {
			return replication.ErrNotLeader
		}
		select {
		case <-poke:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// batch folds one batch in, from the offset from on. A record that cannot be read is
// counted: clients may write to the topic too, and what they write harms nobody
// but the group it names.
func (f *fold) batch(b record.Batch, from int64) {
	if b.IsControl() {
		return
	}
	for r, err := range b.Records(maxDecoded) {
		if err != nil {
			f.bad++
			return
		}
		if b.Offset(r) >= from {
			f.record(r.Key, r.Value)
		}
	}
}

func (f *fold) record(key, value []byte) {
	d, err := decode(key, value)
	if errors.Is(err, errUnknownKey) {
		if value == nil {
			delete(f.unknown, string(key))
		} else {
			f.unknown[string(key)] = bytes.Clone(value)
		}
		return
	}
	if err != nil {
		f.bad++
		return
	}
	g := f.groups[d.group]
	if g == nil {
		if d.gone {
			return
		}
		g = newGroup(d.group, f.h)
		f.groups[d.group] = g
	}
	switch {
	case d.kind == keyOffset && d.gone:
		delete(g.offsets, d.tp)
	case d.kind == keyOffset:
		if g.offsets == nil {
			g.offsets = map[topicPartition]committed{}
		}
		g.offsets[d.tp] = d.offset
	case d.gone:
		if len(g.offsets) == 0 {
			delete(f.groups, d.group)
			return
		}
		fresh := newGroup(d.group, f.h)
		fresh.offsets = g.offsets
		f.groups[d.group] = fresh
	default:
		g.restore(&d.meta)
		g.journaled = bytes.Clone(value)
	}
}
