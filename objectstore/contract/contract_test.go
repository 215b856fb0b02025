package contract

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firnlog/firn/objectstore"
)

// memory is a bucket in a map. It is correct, unless racy: then it compares
// first and writes later, as stores do that pass every serial test.
type memory struct {
	mu      sync.Mutex
	objects map[string]object
	serial  int
	racy    bool
}

type object struct {
	data []byte
	etag string
	at   time.Time
}

func newMemory(racy bool) *memory { return &memory{objects: map[string]object{}, racy: racy} }

func (m *memory) Put(ctx context.Context, key string, body io.ReadSeeker, size int64, c objectstore.Cond) (string, error) {
	if err := errors.Join(objectstore.CheckKey(key), objectstore.CheckBody(body, size), ctx.Err()); err != nil {
		return "", err
	}
	if c.IfNoneMatch && c.IfMatch != "" {
		return "", errors.New("both conditions")
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old, ok := m.objects[key]
	switch {
	case c.IfNoneMatch && ok, c.IfMatch != "" && ok && old.etag != c.IfMatch:
		return "", objectstore.ErrPrecondition
	case c.IfMatch != "" && !ok:
		return "", objectstore.ErrNotFound
	}
	if m.racy {
		m.mu.Unlock()
		for range 100 {
			runtime.Gosched()
		}
		m.mu.Lock()
	}
	m.serial++
	etag := fmt.Sprintf("e%d", m.serial)
	m.objects[key] = object{data, etag, time.Now()}
	return etag, nil
}

func (m *memory) find(ctx context.Context, key string) (object, error) {
	if err := errors.Join(objectstore.CheckKey(key), ctx.Err()); err != nil {
		return object{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.objects[key]
	if !ok {
		return o, objectstore.ErrNotFound
	}
	return o, nil
}

func (m *memory) Get(ctx context.Context, key string) ([]byte, string, error) {
	o, err := m.find(ctx, key)
	return bytes.Clone(o.data), o.etag, err
}

func (m *memory) GetRange(ctx context.Context, key string, p []byte, off int64) error {
	o, err := m.find(ctx, key)
	if err != nil {
		return err
	}
	if len(p) == 0 {
		return nil
	}
	if off < 0 || off > int64(len(o.data)) || int64(len(p)) > int64(len(o.data))-off {
		return objectstore.ErrRange
	}
	copy(p, o.data[off:])
	return nil
}

func (m *memory) Head(ctx context.Context, key string) (objectstore.Info, error) {
	o, err := m.find(ctx, key)
	return objectstore.Info{Key: key, Size: int64(len(o.data)), ETag: o.etag, LastModified: o.at}, err
}

func (m *memory) List(ctx context.Context, prefix string) iter.Seq2[objectstore.Info, error] {
	return func(yield func(objectstore.Info, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(objectstore.Info{}, err)
			return
		}
		m.mu.Lock()
		var keys []string
		for k := range m.objects {
			if strings.HasPrefix(k, prefix) {
				keys = append(keys, k)
			}
		}
		m.mu.Unlock()
		slices.Sort(keys)
		for _, k := range keys {
			info, err := m.Head(ctx, k)
			if errors.Is(err, objectstore.ErrNotFound) {
				continue
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

func (m *memory) Delete(ctx context.Context, keys []string) error {
	for _, k := range keys {
		if err := errors.Join(objectstore.CheckKey(k), ctx.Err()); err != nil {
			return err
		}
		m.mu.Lock()
		delete(m.objects, k)
		m.mu.Unlock()
	}
	return nil
}

func (m *memory) Date(ctx context.Context) (time.Time, error) { return time.Now(), ctx.Err() }
func (m *memory) Name() string                                { return "memory" }
func (m *memory) Close() error                                { return nil }

func TestACorrectBucketPasses(t *testing.T) {
	Run(t, func(*testing.T) objectstore.Bucket { return newMemory(false) })
}

// TestARacyBucketFails is the suite's own mutant: a store that compares and
// writes in two steps passes serial tests and must fail both races and the probe.
func TestARacyBucketFails(t *testing.T) {
	b := newMemory(true)
	if err := RaceCreate(t.Context(), b, "c/", Rounds); err == nil {
		t.Error("the create race does not notice a racy store")
	}
	if err := RaceReplace(t.Context(), b, "r/", Rounds); err == nil {
		t.Error("the replace race does not notice a racy store")
	}
	if err := objectstore.Probe(t.Context(), b, "p"); !errors.Is(err, objectstore.ErrNoConditional) {
		t.Errorf("the probe says %v about a racy store", err)
	}
	// Serially it is beyond reproach.
	for _, test := range []func(*testing.T, objectstore.Bucket, string){createRefuses, replaceNeedsETag, equalBytes} {
		test(t, b, "serial/")
	}
}
