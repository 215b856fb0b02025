package objectstore

import (
	"context"
	"fmt"
	"io"
	"iter"
	"sync/atomic"
	"time"
)

// Gate is a bucket that answers nothing until it is opened: a broker that starts
// while its store does not answer serves what it has, and touches the bucket only
// once it has seen that it is the right one. Until then every call fails with
// ErrUnreachable, which is true: nothing was sent.
type Gate struct {
	b    Bucket
	open atomic.Bool
	why  atomic.Pointer[string]
}

// NewGate returns a closed gate before b.
func NewGate(b Bucket) *Gate {
	g := &Gate{b: b}
	g.Shut("it has not been looked at yet")
	return g
}

// Open lets every call through from now on.
func (g *Gate) Open() { g.open.Store(true) }

// IsOpen says whether calls go through.
func (g *Gate) IsOpen() bool { return g.open.Load() }

// Shut says why the gate is still closed, for the errors of those who ask. It does
// not close one that was opened.
func (g *Gate) Shut(why string) { g.why.Store(&why) }

func (g *Gate) pass() error {
	if g.open.Load() {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrUnreachable, *g.why.Load())
}

// Put is Bucket's.
func (g *Gate) Put(ctx context.Context, key string, body io.ReadSeeker, size int64, c Cond) (string, error) {
	if err := g.pass(); err != nil {
		return "", err
	}
	return g.b.Put(ctx, key, body, size, c)
}

// Get is Bucket's.
func (g *Gate) Get(ctx context.Context, key string) ([]byte, string, error) {
	if err := g.pass(); err != nil {
		return nil, "", err
	}
	return g.b.Get(ctx, key)
}

// GetRange is Bucket's.
func (g *Gate) GetRange(ctx context.Context, key string, p []byte, off int64) error {
	if err := g.pass(); err != nil {
		return err
	}
	return g.b.GetRange(ctx, key, p, off)
}

// Head is Bucket's.
func (g *Gate) Head(ctx context.Context, key string) (Info, error) {
	if err := g.pass(); err != nil {
		return Info{}, err
	}
	return g.b.Head(ctx, key)
}

// List is Bucket's.
func (g *Gate) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	if err := g.pass(); err != nil {
		return func(yield func(Info, error) bool) { yield(Info{}, err) }
	}
	return g.b.List(ctx, prefix)
}

// Delete is Bucket's.
func (g *Gate) Delete(ctx context.Context, keys []string) error {
	if err := g.pass(); err != nil {
		return err
	}
	return g.b.Delete(ctx, keys)
}

// Date is Bucket's.
func (g *Gate) Date(ctx context.Context) (time.Time, error) {
	if err := g.pass(); err != nil {
		return time.Time{}, err
	}
	return g.b.Date(ctx)
}

// Name is Bucket's.
func (g *Gate) Name() string { return g.b.Name() }

// Close is Bucket's.
func (g *Gate) Close() error { return g.b.Close() }
