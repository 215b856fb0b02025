package localcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/firnlog/firn/internal/disk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// faultyFS is the real disk until told otherwise.
type faultyFS struct {
	disk.FS
	writeErr atomic.Pointer[error]
}

func (f *faultyFS) fail(err error) {
	if err == nil {
		f.writeErr.Store(nil)
		return
	}
	f.writeErr.Store(&err)
}

func (f *faultyFS) OpenFile(name string, flag int, perm fs.FileMode) (disk.File, error) {
	file, err := f.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &faultyFile{file, f}, nil
}

type faultyFile struct {
	disk.File
	fs *faultyFS
}

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fs.writeErr.Load(); err != nil {
		n, _ := f.File.WriteAt(p[:len(p)/2], off)
		return n, *err
	}
	return f.File.WriteAt(p, off)
}

func open(t *testing.T, cfg Config) *Cache {
	t.Helper()
	if cfg.FS == nil {
		cfg.FS = disk.OS()
	}
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

const chunkSize = 1000

func key(i int) Key {
	return Key{Object: "t/0/a.seg", ETag: "e1", Chunk: uint32(i), CRC: uint32(i) * 7}
}

// content is what chunk i holds.
func content(i int) []byte {
	r := rand.New(rand.NewPCG(uint64(i), 1))
	p := make([]byte, chunkSize)
	for j := range p {
		p[j] = byte(r.Uint32())
	}
	return p
}

func fillOf(i int) func(context.Context, []byte) error {
	return func(_ context.Context, p []byte) error { copy(p, content(i)); return nil }
}

func noFill(context.Context, []byte) error { return errors.New("filled again") }

func check(t *testing.T, h *Handle, i int) {
	t.Helper()
	p := make([]byte, h.Len())
	if _, err := h.ReadAt(p, 0); err != nil {
		t.Fatalf("chunk %d: %v", i, err)
	}
	if !bytes.Equal(p, content(i)) {
		t.Fatalf("chunk %d has other bytes", i)
	}
}

// read is one whole pass over chunk i by a new reader.
func read(t *testing.T, c *Cache, i int) (hit bool) {
	t.Helper()
	filled := false
	h, err := c.Get(t.Context(), key(i), chunkSize, func(ctx context.Context, p []byte) error {
		filled = true
		return fillOf(i)(ctx, p)
	})
	if err != nil {
		t.Fatalf("chunk %d: %v", i, err)
	}
	check(t, h, i)
	h.Drained()
	h.Release()
	return !filled
}

// TestKeysNeverMix reads chunks whose keys differ in one part only.
func TestKeysNeverMix(t *testing.T) {
	c := open(t, Config{})
	keys := []Key{
		{"a", "e", 0, 1}, {"a", "f", 0, 1}, {"b", "e", 0, 1}, {"a", "e", 1, 1}, {"a", "e", 0, 2}, {"ae", "", 0, 1}, {"", "ae", 0, 1},
	}
	for round := range 2 {
		for i, k := range keys {
			h, err := c.Get(t.Context(), k, chunkSize, fillOf(i))
			if err != nil {
				t.Fatal(err)
			}
			check(t, h, i)
			if round == 1 && h.Bytes() != nil {
				t.Error("chunk in memory though the disk is well")
			}
			h.Release()
		}
	}
}

// TestFillsAreSingleFlight asks for one chunk from many goroutines at once.
func TestFillsAreSingleFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, Config{})
		var fills atomic.Int32
		gate := make(chan struct{})
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				h, err := c.Get(t.Context(), key(1), chunkSize, func(ctx context.Context, p []byte) error {
					fills.Add(1)
					<-gate
					return fillOf(1)(ctx, p)
				})
				if err != nil {
					t.Error(err)
					return
				}
				check(t, h, 1)
				h.Release()
			})
		}
		synctest.Wait() // all of them ask, none has an answer
		close(gate)
		wg.Wait()
		if n := fills.Load(); n != 1 {
			t.Fatalf("%d fills", n)
		}
		c.Close()
	})
}

// TestFillOutlivesItsRequester gives up waiting; the fill goes on, its chunk is
// kept for whoever comes again, and it is not filled twice (SAFETY 20).
func TestFillOutlivesItsRequester(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, Config{MaxBytes: 2500, PinFor: 30 * time.Second}) // room for two chunks
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err := c.Get(ctx, key(1), chunkSize, func(ctx context.Context, p []byte) error {
			select {
			case <-time.After(10 * time.Second):
			case <-ctx.Done():
				t.Error("fill cancelled")
			}
			return fillOf(1)(ctx, p)
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		time.Sleep(11 * time.Second)
		for i := 2; i < 10; i++ { // others come and go
			read(t, c, i)
		}
		h, ok := c.Lookup(key(1), chunkSize, false)
		if !ok {
			t.Fatal("the chunk was evicted before its first read")
		}
		check(t, h, 1)
		h.Release()
		// The pin is bounded: an abandoned chunk goes.
		c.Ahead([]Request{{key(50), chunkSize}}, func(ctx context.Context, _, _ int, p []byte) error { return fillOf(50)(ctx, p) })
		synctest.Wait()
		time.Sleep(31 * time.Second)
		for i := 10; i < 20; i++ {
			read(t, c, i)
		}
		if h, ok := c.Lookup(key(50), chunkSize, false); ok {
			h.Release()
			t.Fatal("an abandoned chunk stays for ever")
		}
		c.Close()
	})
}

// TestFillHasItsOwnDeadline lets a fill hang.
func TestFillHasItsOwnDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, Config{FillTimeout: 20 * time.Second})
		start := time.Now()
		_, err := c.Get(t.Context(), key(1), chunkSize, func(ctx context.Context, p []byte) error {
			<-ctx.Done()
			return ctx.Err()
		})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 20*time.Second {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
		if got := c.Stats().MemoryBytes; got != 0 {
			t.Fatalf("%d bytes of memory still charged", got)
		}
		c.Close()
	})
}

// TestScanLeavesTheHotSet replays far more than the cache holds, once, beside a
// hot set that is read again and again. The replay reads each chunk in several
// pieces, as a consumer does.
func TestScanLeavesTheHotSet(t *testing.T) {
	c := open(t, Config{MaxBytes: 100 * 1100})
	const hot = 50
	for range 4 {
		for i := range hot {
			read(t, c, i)
		}
	}
	hits, misses := 0, 0
	for i := 1000; i < 3000; i++ {
		h, err := c.Get(t.Context(), key(i), chunkSize, fillOf(i))
		if err != nil {
			t.Fatal(err)
		}
		h.Release()
		for range 4 {
			h, ok := c.Lookup(key(i), chunkSize, true)
			if !ok {
				t.Fatalf("chunk %d evicted under its reader", i)
			}
			h.Release()
		}
		if i%10 == 0 {
			if read(t, c, i/10%hot) {
				hits++
			} else {
				misses++
			}
		}
	}
	if hits*100 < 99*(hits+misses) {
		t.Errorf("the replay pushed the hot set out: %d hits, %d misses", hits, misses)
	}
	if s := c.Stats(); s.Bytes > 100*1100 {
		t.Errorf("%d bytes on disk", s.Bytes)
	}
}

// TestBudgetsHold fills at random from many goroutines, and no limit is passed.
func TestBudgetsHold(t *testing.T) {
	t.Run("bytes", func(t *testing.T) { budgetsHold(t, Config{MaxBytes: 10 * 1100, MaxObjects: 1000, MemoryBytes: 4000}) })
	t.Run("chunks", func(t *testing.T) { budgetsHold(t, Config{MaxBytes: 1000 * 1100, MaxObjects: 10, MemoryBytes: 4000}) })
}

func budgetsHold(t *testing.T, cfg Config) {
	dir := t.TempDir()
	cfg.Dir = dir
	c := open(t, cfg)
	seed := rand.Uint64()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(g)))
			for range 200 {
				i := r.IntN(60)
				h, err := c.Get(t.Context(), key(i), chunkSize, fillOf(i))
				if err != nil {
					t.Errorf("seed %d: %v", seed, err)
					return
				}
				check(t, h, i)
				s := c.Stats()
				if s.Bytes > cfg.MaxBytes || s.Objects > cfg.MaxObjects || s.MemoryBytes > cfg.MemoryBytes {
					t.Errorf("seed %d: %+v", seed, s)
				}
				if r.IntN(2) == 0 {
					h.Drained()
				}
				h.Release()
			}
		})
	}
	wg.Wait()
	c.Close()
	var onDisk int64
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if st, err := d.Info(); err == nil && filepath.Ext(p) == fileSuffix {
			onDisk += st.Size()
		}
		return nil
	})
	if onDisk > cfg.MaxBytes {
		t.Errorf("%d bytes of files", onDisk)
	}
	if s := c.Stats(); s.MemoryBytes != 0 && onDisk > 0 {
		c.reclaim(1 << 30)
		if s := c.Stats(); s.MemoryBytes != 0 {
			t.Errorf("memory still charged: %+v", s)
		}
	}
}

// TestEvictionTakesNoBytesFromAReader holds a chunk while everything around it
// is evicted and the chunk itself is dropped.
func TestEvictionTakesNoBytesFromAReader(t *testing.T) {
	c := open(t, Config{MaxBytes: 3300})
	h, err := c.Get(t.Context(), key(1), chunkSize, fillOf(1))
	if err != nil {
		t.Fatal(err)
	}
	second := h.Retain()
	for i := 10; i < 40; i++ {
		read(t, c, i)
	}
	check(t, h, 1)
	c.drop(h.e)
	read(t, c, 1) // a new file of the same chunk
	for i := 10; i < 40; i++ {
		read(t, c, i)
	}
	check(t, h, 1)
	h.Release()
	h.Release() // only the first counts
	check(t, second, 1)
	second.Release()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead != 0 {
		t.Errorf("%d bytes of dropped files never given back", c.dead)
	}
}

// TestHeldFilesCount: a file that was dropped takes room until its last reader lets go.
func TestHeldFilesCount(t *testing.T) {
	c := open(t, Config{})
	h, err := c.Get(t.Context(), key(1), chunkSize, fillOf(1))
	if err != nil {
		t.Fatal(err)
	}
	before := c.Stats().Bytes
	c.drop(h.e)
	if s := c.Stats(); s.Bytes != before || s.Objects != 0 {
		t.Errorf("%+v while a reader has a file of %d bytes", s, before)
	}
	h.Release()
	if s := c.Stats(); s.Bytes != 0 {
		t.Errorf("%+v after it", s)
	}
}

// TestHeldChunksStayInTheBudget holds as many chunks as fit: others are served
// beside the disk, and nothing that is held is evicted.
func TestHeldChunksStayInTheBudget(t *testing.T) {
	c := open(t, Config{MaxBytes: 3300})
	var held []*Handle
	for i := range 3 {
		h, err := c.Get(t.Context(), key(i), chunkSize, fillOf(i))
		if err != nil {
			t.Fatal(err)
		}
		h.Drained()
		held = append(held, h)
	}
	for i := 10; i < 20; i++ {
		read(t, c, i)
	}
	if s := c.Stats(); s.Objects != 3 || s.Bytes > 3300 {
		t.Errorf("%+v", s)
	}
	for i, h := range held {
		if !c.Has(key(i)) {
			t.Errorf("chunk %d was evicted while held", i)
		}
		check(t, h, i)
		h.Release()
		read(t, c, 30+i) // now there is room
	}
	if s := c.Stats(); s.Bytes < 2200 {
		t.Errorf("room is not used again: %+v", s)
	}
}

// TestEnsureReadsForNobody makes a chunk ready twice; it stays pinned until the
// first Lookup.
func TestEnsureReadsForNobody(t *testing.T) {
	dir := t.TempDir()
	for range 2 { // the second round verifies what it finds
		c := open(t, Config{Dir: dir, MaxBytes: 3300})
		for range 2 {
			if err := c.Ensure(t.Context(), []Request{{key(1), chunkSize}}, func(ctx context.Context, _, _ int, p []byte) error { return fillOf(1)(ctx, p) }); err != nil {
				t.Fatal(err)
			}
		}
		for i := 10; i < 30; i++ {
			read(t, c, i)
		}
		if !c.Has(key(1)) || c.Stats().UnreadBytes == 0 {
			t.Fatal("not kept for its reader")
		}
		h, ok := c.Lookup(key(1), chunkSize, false)
		if !ok {
			t.Fatal("not here")
		}
		check(t, h, 1)
		h.Release()
		if n := c.Stats().UnreadBytes; n != 0 {
			t.Fatalf("%d bytes still pinned", n)
		}
		c.Close()
	}
}

// TestRestartKeepsChunks closes and reopens, with the index and without it, and
// after a crash that lost the index's newest entries.
func TestRestartKeepsChunks(t *testing.T) {
	for _, how := range []string{"clean", "no index", "stale index", "broken index"} {
		t.Run(how, func(t *testing.T) {
			dir := t.TempDir()
			c := open(t, Config{Dir: dir})
			for i := range 10 {
				read(t, c, i)
			}
			if how == "stale index" {
				c.save()
				for i := 10; i < 20; i++ {
					read(t, c, i)
				}
				stale, err := os.ReadFile(filepath.Join(dir, indexName))
				if err != nil {
					t.Fatal(err)
				}
				c.Close()
				if err := os.WriteFile(filepath.Join(dir, indexName), stale, 0o644); err != nil {
					t.Fatal(err)
				}
			} else {
				for i := 10; i < 20; i++ {
					read(t, c, i)
				}
				c.Close()
			}
			switch how {
			case "no index":
				os.Remove(filepath.Join(dir, indexName))
			case "broken index":
				os.WriteFile(filepath.Join(dir, indexName), []byte("FIRNCIX\nxxxxxxxxxxxxxxx"), 0o644)
			}
			count := disk.Counting(disk.OS())
			c = open(t, Config{Dir: dir, FS: count})
			if n := count.ReadBytes(); n > 2000 {
				t.Errorf("start read %d bytes", n)
			}
			for i := range 20 {
				if h, ok := c.Lookup(key(i), chunkSize, false); ok || c.Has(key(i)) {
					if ok {
						h.Release()
					}
					t.Fatalf("chunk %d served before it was verified", i)
				}
				h, err := c.Get(t.Context(), key(i), chunkSize, noFill)
				if err != nil {
					t.Fatalf("chunk %d: %v", i, err)
				}
				check(t, h, i)
				h.Release()
				h, ok := c.Lookup(key(i), chunkSize, false)
				if !ok {
					t.Fatalf("chunk %d not here after it was verified", i)
				}
				h.Release()
			}
		})
	}
}

// TestDamageIsFilledAgain breaks files while the cache is closed: each is found
// out on first use, dropped and filled again; no damaged byte is served.
func TestDamageIsFilledAgain(t *testing.T) {
	dir := t.TempDir()
	c := open(t, Config{Dir: dir})
	const n = 30
	for i := range n {
		read(t, c, i)
	}
	c.Close()
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	files, _ := filepath.Glob(filepath.Join(dir, "*", "*"+fileSuffix))
	if len(files) != n {
		t.Fatalf("%d files", len(files))
	}
	for i, f := range files {
		p, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		switch i % 3 {
		case 0:
			p[r.IntN(len(p))] ^= 1 << r.IntN(8)
		case 1:
			p = p[:r.IntN(len(p))]
		case 2:
			other, err := os.ReadFile(files[(i+1)%len(files)])
			if err != nil {
				t.Fatal(err)
			}
			p = other
		}
		if err := os.WriteFile(f, p, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c = open(t, Config{Dir: dir})
	filled := 0
	for round := range 2 {
		for i := range n {
			if !read(t, c, i) {
				filled++
			}
		}
		if round == 0 && filled < n*2/3 {
			t.Errorf("seed %d: only %d of %d damaged chunks were filled again", seed, filled, n)
		}
	}
	if filled > n {
		t.Errorf("seed %d: %d fills: refilled chunks are not kept", seed, filled)
	}
}

// TestDiscardedChunksAreFilledAgain: a reader finds that it cannot use what it was given.
// Others that hold the chunk keep it, the next one gets a new one, and the disk is left
// alone for a while.
func TestDiscardedChunksAreFilledAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, Config{DiskRetry: 5 * time.Second})
		for i, inMemory := range []bool{false, true} {
			h, err := c.Get(t.Context(), key(1), chunkSize, fillOf(1))
			if err != nil {
				t.Fatal(err)
			}
			if (h.Bytes() != nil) != inMemory {
				t.Errorf("round %d: in memory %v, want %v", i, !inMemory, inMemory)
			}
			other := h.Retain()
			h.Discard(syscall.EIO)
			other.Discard(syscall.EIO)
			h.Release()
			check(t, other, 1)
			if c.Has(key(1)) || read(t, c, 1) {
				t.Errorf("round %d: a discarded chunk is served", i)
			}
			other.Release()
			if !read(t, c, 1) {
				t.Errorf("round %d: the new one is gone", i)
			}
		}
		time.Sleep(6 * time.Second)
		if h, err := c.Get(t.Context(), key(2), chunkSize, fillOf(2)); err != nil || h.Bytes() != nil {
			t.Errorf("the disk is left alone for ever: %v", err)
		} else {
			h.Release()
		}
		c.Close()
	})
}

// TestCutFilesAreFilledAgain cuts a file that this process has verified, so that its
// checksum is not compared any more.
func TestCutFilesAreFilledAgain(t *testing.T) {
	dir := t.TempDir()
	c := open(t, Config{Dir: dir})
	read(t, c, 1)
	files, _ := filepath.Glob(filepath.Join(dir, "*", "*"+fileSuffix))
	if len(files) != 1 {
		t.Fatalf("%d files", len(files))
	}
	if err := os.Truncate(files[0], chunkSize); err != nil {
		t.Fatal(err)
	}
	if h, ok := c.Lookup(key(1), chunkSize, false); ok {
		t.Error("a file that was cut is served")
		h.Release()
	}
	if read(t, c, 1) {
		t.Error("not filled again")
	}
}

// TestFailedDiskServesFromMemory breaks the disk in several ways; every read
// still succeeds, memory stays bounded, and the disk is used again when it is
// well.
func TestFailedDiskServesFromMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ff := &faultyFS{FS: disk.OS()}
		c := open(t, Config{FS: ff, MemoryBytes: 3500, DiskRetry: 5 * time.Second})
		for _, err := range []error{syscall.ENOSPC, syscall.EIO} {
			ff.fail(err)
			for i := range 20 {
				h, gerr := c.Get(t.Context(), key(i), chunkSize, fillOf(i))
				if gerr != nil {
					t.Fatalf("%v: %v", err, gerr)
				}
				if h.Bytes() == nil {
					t.Fatalf("%v: not from memory", err)
				}
				check(t, h, i)
				h.Release()
				if s := c.Stats(); s.MemoryBytes > 3500 {
					t.Fatalf("%+v", s)
				}
			}
			ff.fail(nil)
			time.Sleep(6 * time.Second)
			h, gerr := c.Get(t.Context(), key(100), chunkSize, fillOf(100))
			if gerr != nil {
				t.Fatal(gerr)
			}
			if h.Bytes() != nil {
				t.Fatal("the disk is well and still not used")
			}
			c.drop(h.e)
			h.Release()
		}
		c.Close()
	})
}

// TestFullMemoryDelaysButServes pins all memory with unread chunks on a broken
// disk: the next fill waits for a pin to lapse instead of failing.
func TestFullMemoryDelaysButServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ff := &faultyFS{FS: disk.OS()}
		ff.fail(syscall.EIO)
		c := open(t, Config{FS: ff, MemoryBytes: 2 * chunkSize, PinFor: 10 * time.Second})
		for i := range 2 {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			c.Get(ctx, key(i), chunkSize, fillOf(i)) // nobody waits for them
			synctest.Wait()
		}
		start := time.Now()
		h, err := c.Get(t.Context(), key(9), chunkSize, fillOf(9))
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d < 9*time.Second || d > 11*time.Second {
			t.Errorf("waited %v for a pin of 10 s", d)
		}
		check(t, h, 9)
		h.Release()
		c.Close()
	})
}

// TestMemoryThatIsPinnedLaterIsWaitedFor: all memory is held when a fill begins to wait,
// and becomes that of pinned chunks which nobody reads only then: those of fills that
// end, or a chunk that is read and made ready once more. The waiter comes to its turn
// when the pins lapse, not at its own deadline.
func TestMemoryThatIsPinnedLaterIsWaitedFor(t *testing.T) {
	for _, how := range []string{"fills end", "kept again"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ff := &faultyFS{FS: disk.OS()}
				ff.fail(syscall.EIO)
				c := open(t, Config{FS: ff, MemoryBytes: 2 * chunkSize, PinFor: 10 * time.Second, FillTimeout: time.Minute})
				reqs := []Request{{key(0), chunkSize}, {key(1), chunkSize}}
				fill := func(ctx context.Context, from, to int, p []byte) error {
					time.Sleep(5 * time.Second)
					for i := from; i < to; i++ {
						copy(p[(i-from)*chunkSize:], content(i))
					}
					return nil
				}
				var held []*Handle
				if how == "fills end" {
					c.start(reqs, false, fill)
				} else {
					for _, r := range reqs {
						h, err := c.Get(t.Context(), r.Key, r.Size, fillOf(int(r.Key.Chunk)))
						if err != nil {
							t.Fatal(err)
						}
						held = append(held, h)
					}
				}
				time.Sleep(time.Second)
				begin := time.Now()
				done := make(chan struct{})
				go func() {
					defer close(done)
					h, err := c.Get(t.Context(), key(9), chunkSize, fillOf(9))
					if err != nil {
						t.Error(err)
						return
					}
					check(t, h, 9)
					h.Release()
				}()
				synctest.Wait()
				for i, h := range held {
					if err := c.Ensure(t.Context(), reqs[i:i+1], fill); err != nil {
						t.Error(err)
					}
					h.Release()
				}
				<-done
				if d := time.Since(begin); d > 4*time.Second+10*time.Second {
					t.Errorf("waited %v for memory that is pinned for 10 s", d)
				}
				c.Close()
			})
		})
	}
}

// TestNeighboursAreOneFill asks for a run with one chunk already here.
func TestNeighboursAreOneFill(t *testing.T) {
	c := open(t, Config{})
	read(t, c, 3)
	var mu sync.Mutex
	var runs []string
	reqs := make([]Request, 6)
	for i := range reqs {
		reqs[i] = Request{key(i), chunkSize}
	}
	fill := func(_ context.Context, from, to int, p []byte) error {
		mu.Lock()
		defer mu.Unlock()
		runs = append(runs, fmt.Sprintf("%d-%d", from, to))
		for i := from; i < to; i++ {
			copy(p[(i-from)*chunkSize:], content(i))
		}
		return nil
	}
	h, err := c.GetRun(t.Context(), reqs, false, fill)
	if err != nil {
		t.Fatal(err)
	}
	check(t, h, 0)
	h.Release()
	for i := range reqs {
		h, err := c.GetRun(t.Context(), reqs[i:], false, func(context.Context, int, int, []byte) error { return errors.New("filled again") })
		if err != nil {
			t.Fatal(err)
		}
		check(t, h, i)
		h.Release()
	}
	mu.Lock()
	defer mu.Unlock()
	if len(runs) != 2 {
		t.Errorf("runs %v, want 0-3 and 4-6", runs)
	}
}

// TestFailedFillIsNotCached fails once; the next request fills anew.
func TestFailedFillIsNotCached(t *testing.T) {
	c := open(t, Config{})
	boom := errors.New("boom")
	if _, err := c.Get(t.Context(), key(1), chunkSize, func(context.Context, []byte) error { return boom }); !errors.Is(err, boom) {
		t.Fatalf("got %v", err)
	}
	read(t, c, 1)
	c.Close()
	if _, err := c.Get(t.Context(), key(2), chunkSize, fillOf(2)); !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v", err)
	}
}

// TestShrinkEvictsAtOnce lowers the budget of a full cache.
func TestShrinkEvictsAtOnce(t *testing.T) {
	c := open(t, Config{MaxBytes: 50 * 1100})
	for i := range 40 {
		read(t, c, i)
	}
	c.SetMaxBytes(5 * 1100)
	if s := c.Stats(); s.Bytes > 5*1100 {
		t.Fatalf("%+v", s)
	}
}
