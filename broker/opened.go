package broker

import (
	"context"
	"errors"

	"github.com/firnlog/firn/record"
)

const (
	// maxDecodedProduce bounds what a batch may decompress to where it has to be
	// opened, however much memory there is.
	maxDecodedProduce = 256 << 20
	// usualRatio is how many times its length most batches open to at most.
	usualRatio = 8
	// openedCopies is how often opened records may lie in memory at once: as they
	// were opened, with their offsets mended, and in the batch that is built anew.
	openedCopies = 3
	// minOpened is the least that opened batches may take.
	minOpened = 8 << 20
)

// largestOpened is what a batch may decompress to.
func (m *Memory) largestOpened() int {
	if m == nil {
		return maxDecodedProduce
	}
	return int(min(maxDecodedProduce, m.openedEnd/2))
}

// open waits until n bytes of opened batches have room besides the others, and
// charges them until done. What asks for more than there is has all of it. The
// account itself is not waited for: the requests that fill it may be those that
// wait here.
func (m *Memory) open(ctx context.Context, n int64) (done func(), err error) {
	n = min(n, m.openedEnd)
	if err := m.opened.Acquire(ctx, n); err != nil {
		return nil, err
	}
	m.add(n)
	return func() {
		m.add(-n)
		m.opened.Release(n)
	}, nil
}

// validate is record.ValidateProduced within what opened batches may take. How much
// that will be no header tells, so a batch is first opened as far as most go, and
// once more, with all the room that one may have, when it goes further.
func (m *Memory) validate(ctx context.Context, in []byte, l record.Limits) (record.Batch, error) {
	most := m.largestOpened()
	l.MaxDecoded = most
	if m == nil || !opens(in, l) {
		return record.ValidateProduced(in, l)
	}
	for l.MaxDecoded = min(most, usualRatio*len(in)+smallFrame); ; l.MaxDecoded = most {
		b, err := m.validateOnce(ctx, in, l)
		var v *record.ValidationError
		if l.MaxDecoded == most || !errors.As(err, &v) || v.Kind != record.KindTooLarge {
			return b, err
		}
	}
}

// validateOnce charges what l allows the batch to open to while it is opened.
func (m *Memory) validateOnce(ctx context.Context, in []byte, l record.Limits) (record.Batch, error) {
	done, err := m.open(ctx, openedCopies*int64(l.MaxDecoded))
	if err != nil {
		return nil, err
	}
	defer done() // also after a panic, which ends only the connection
	return record.ValidateProduced(in, l)
}

// opens says whether validation has to open the batch in p, or to compress it.
func opens(p []byte, l record.Limits) bool {
	b, _, err := record.Parse(p)
	if err != nil || l.MaxBatchBytes > 0 && len(b) > l.MaxBatchBytes {
		return false // refused from outside
	}
	recoded := l.Codec >= record.None && l.Codec != b.Codec()
	return recoded || b.Codec() != record.None && (l.Strict || l.RequireKeys)
}
