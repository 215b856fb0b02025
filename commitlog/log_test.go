package commitlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, fsys disk.FS, dir string, change ...func(*Config)) (*Log, Recovery) {
	t.Helper()
	l, rec, err := tryOpen(t, fsys, dir, change...)
	if err != nil {
		t.Fatal(err)
	}
	return l, rec
}

func tryOpen(t *testing.T, fsys disk.FS, dir string, change ...func(*Config)) (*Log, Recovery, error) {
	t.Helper()
	f := NewFlusher(2)
	cfg := Config{FS: fsys, Dir: dir, TopicID: [16]byte{1}, Topic: "t", Now: time.Now, Flusher: f, SegmentBytes: 4096, IndexInterval: 200}
	for _, c := range change {
		c(&cfg)
	}
	l, rec, err := Open(context.Background(), cfg)
	t.Cleanup(func() {
		if l != nil {
			l.Close(false)
		}
		f.Close()
	})
	return l, rec, err
}

func clean(c *Config) { c.Clean = true }

// batch makes n records with values that name i.
func batch(i, n int) record.Batch {
	b := record.NewBuilder(record.NewBatchOptions())
	for j := range n {
		b.Append(record.Record{TimestampDelta: int64(1000 + i), Value: fmt.Appendf(nil, "batch %d record %d", i, j)})
	}
	return b.Build()
}

func idempotent(id int64, epoch int16, seq int32, n int) record.Batch {
	o := record.NewBatchOptions()
	o.ProducerID, o.ProducerEpoch, o.BaseSequence = id, epoch, seq
	b := record.NewBuilder(o)
	for j := range n {
		b.Append(record.Record{TimestampDelta: 1, Value: fmt.Appendf(nil, "%d", int(seq)+j)})
	}
	return b.Build()
}

func mustAppend(t *testing.T, l *Log, epoch int32, b record.Batch) Appended {
	t.Helper()
	a, err := l.Append(epoch, b)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// dump reads everything from the local start, in reads of at most limit bytes.
func dump(t *testing.T, l *Log, limit int) []byte {
	t.Helper()
	var all []byte
	for at := l.LocalStart(); at < l.End(); {
		s, err := l.Read(at, l.End(), limit, true)
		if err != nil {
			t.Fatalf("read at %d: %v", at, err)
		}
		if s.Len() == 0 || s.FirstBase != at {
			t.Fatalf("read at %d gave %d bytes from %d", at, s.Len(), s.FirstBase)
		}
		p, err := s.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		all, at = append(all, p...), s.End
		s.Release()
	}
	return all
}

// TestReadsGiveBackTheAppendedBytes appends batches of many sizes over many
// segments and reads them back with every limit, before and after both kinds of
// restart.
func TestReadsGiveBackTheAppendedBytes(t *testing.T) {
	dir := t.TempDir()
	l, _ := open(t, disk.OS(), dir)
	var want []byte
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 400 {
		b := batch(i, 1+r.IntN(9))
		a := mustAppend(t, l, 3, b)
		if a.Base != b.BaseOffset() || b.LeaderEpoch() != 3 {
			t.Fatalf("batch %d at %d carries offset %d, epoch %d", i, a.Base, b.BaseOffset(), b.LeaderEpoch())
		}
		want = append(want, b...)
	}
	check := func(when string, l *Log) {
		t.Helper()
		for _, limit := range []int{1, 100, 777, 5000, 1 << 20} {
			if got := dump(t, l, limit); !bytes.Equal(got, want) {
				t.Fatalf("%s: %d bytes read with limit %d differ from the %d appended", when, len(got), limit, len(want))
			}
		}
		// Every offset finds the batch that contains it, and nothing passes upTo.
		for at := int64(0); at < l.End(); at += 7 {
			upTo := min(l.End(), at+1+at%13)
			for _, limit := range []int{1, 300, 1 << 20} {
				s, err := l.Read(at, upTo, limit, true)
				if err != nil {
					t.Fatal(err)
				}
				if s.Len() > 0 && (s.FirstBase > at || s.End > upTo) {
					t.Fatalf("%s: read [%d, %d) gave [%d, %d)", when, at, upTo, s.FirstBase, s.End)
				}
				s.Release()
			}
		}
	}
	check("live", l)
	if len(l.Segments()) < 5 {
		t.Fatalf("only %d segments", len(l.Segments()))
	}
	if err := l.Close(true); err != nil {
		t.Fatal(err)
	}
	l, rec := open(t, disk.OS(), dir, clean)
	if !rec.Clean || rec.ScannedBytes != 0 {
		t.Fatalf("after a clean close: %+v", rec)
	}
	check("after a clean close", l)
	l.Close(false)
	l, rec = open(t, disk.OS(), dir)
	if rec.CutAt != -1 {
		t.Fatalf("after a kill: %+v", rec)
	}
	check("after a kill", l)
	want = append(want, func() []byte { b := batch(999, 2); mustAppend(t, l, 4, b); return b }()...)
	check("appended after a kill", l)
	if e := l.Epochs(); len(e) != 2 || e[0] != (EpochStart{3, 0}) || e[1].Epoch != 4 {
		t.Fatalf("lineage %v", e)
	}
}

// TestTornTailIsCut damages the log at every kind of place behind the checkpoint
// and expects the good batches before it, no more and no less.
func TestTornTailIsCut(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 2))
		dir := t.TempDir()
		l, _ := open(t, disk.OS(), dir, func(c *Config) { c.SegmentBytes = 1 << 20 })
		var ends []int64 // file position after each batch
		pos := int64(0)
		for i := range 20 {
			b := batch(i, 1+r.IntN(5))
			mustAppend(t, l, 1, b)
			pos += int64(len(b))
			ends = append(ends, pos)
		}
		offsets := l.End()
		l.Close(false)
		name := filepath.Join(dir, logName(0))
		at := r.Int64N(pos)
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		switch r.IntN(3) {
		case 0:
			err = f.Truncate(at)
		case 1:
			// CRC-32C covers everything behind the epoch; the epoch itself may
			// change, so hit a byte that matters.
			var one [1]byte
			if _, err = f.ReadAt(one[:], at); err == nil {
				one[0] ^= 0x40
				_, err = f.WriteAt(one[:], at)
			}
		case 2:
			_, err = f.WriteAt(make([]byte, pos-at), at)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		l, rec := open(t, disk.OS(), dir)
		whole := 0
		for whole < len(ends) && ends[whole] <= at {
			whole++
		}
		got := dump(t, l, 1<<20)
		min := int64(0)
		if whole > 0 {
			min = ends[whole-1]
		}
		if int64(len(got)) < min {
			t.Fatalf("seed %d: damage at %d left %d bytes, %d were good", seed, at, len(got), min)
		}
		if l.End() < offsets && rec.CutAt != l.End() {
			t.Fatalf("seed %d: log ends at %d but recovery says it cut at %d", seed, l.End(), rec.CutAt)
		}
		for rest := got; len(rest) > 0; {
			b, next, err := record.Parse(rest)
			if err != nil || b.CheckCRC() != nil {
				t.Fatalf("seed %d: a bad batch survived recovery", seed)
			}
			rest = next
		}
		// Nothing of the old tail may come back behind what is written over it.
		mustAppend(t, l, 2, batch(99, 1))
		end := l.End()
		l.Close(false)
		l, rec = open(t, disk.OS(), dir)
		if l.End() != end || rec.CutAt >= 0 {
			t.Fatalf("seed %d: the log ended at %d and ends at %d now: %+v", seed, end, l.End(), rec)
		}
		l.Close(false)
	}
}

// TestDamageBelowTheCheckpointIsNotTruncated shortens, and empties, what the
// checkpoint vouches for: the log must refuse to open rather than become shorter.
func TestDamageBelowTheCheckpointIsNotTruncated(t *testing.T) {
	for _, cut := range []int64{0, 10, 500} {
		dir := t.TempDir()
		l, _ := open(t, disk.OS(), dir, func(c *Config) { c.SegmentBytes = 1 << 20 })
		for i := range 20 {
			mustAppend(t, l, 1, batch(i, 3))
		}
		if err := l.Close(true); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, logName(0))
		if err := os.Truncate(name, cut); err != nil {
			t.Fatal(err)
		}
		for _, c := range [][]func(*Config){nil, {clean}} {
			if _, _, err := tryOpen(t, disk.OS(), dir, c...); !errors.Is(err, ErrDamaged) {
				t.Fatalf("cut to %d: %v, want ErrDamaged", cut, err)
			}
		}
		if st, err := os.Stat(name); err != nil || st.Size() != cut {
			t.Fatalf("cut to %d: the open changed the file: %v %v", cut, st.Size(), err)
		}
	}
}

// TestCleanRestartReadsLittle opens a log of many sealed segments after a clean
// close and counts the bytes that pass through the disk.
func TestCleanRestartReadsLittle(t *testing.T) {
	dir := t.TempDir()
	l, _ := open(t, disk.OS(), dir)
	for i := range 3000 {
		mustAppend(t, l, 1, batch(i, 10))
	}
	if err := l.Close(true); err != nil {
		t.Fatal(err)
	}
	c := disk.Counting(disk.OS())
	l, rec := open(t, c, dir, clean)
	segs := len(l.Segments())
	if !rec.Clean || segs < 100 {
		t.Fatalf("%+v, %d segments", rec, segs)
	}
	if perSegment := c.ReadBytes() / int64(segs); perSegment > 512 {
		t.Fatalf("%d bytes read for %d segments", c.ReadBytes(), segs)
	}
}

// faultFS lets a test fail chosen operations.
type faultFS struct {
	disk.FS
	sync, write atomic.Pointer[error]
	partial     atomic.Bool
}

type faultFile struct {
	disk.File
	fs *faultFS
}

func (f *faultFS) OpenFile(name string, flag int, perm fs.FileMode) (disk.File, error) {
	file, err := f.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &faultFile{file, f}, nil
}

func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	if e := f.fs.write.Load(); e != nil {
		if f.fs.partial.Load() {
			n, _ := f.File.WriteAt(p[:len(p)/2], off)
			return n, *e
		}
		return 0, *e
	}
	return f.File.WriteAt(p, off)
}

func (f *faultFile) Datasync() error {
	if e := f.fs.sync.Load(); e != nil {
		return *e
	}
	return f.File.Datasync()
}

// TestFullDiskLeavesTheLogIntact fills the disk, also in the middle of a write,
// and goes on when there is space again.
func TestFullDiskLeavesTheLogIntact(t *testing.T) {
	for _, partial := range []bool{false, true} {
		fsys := &faultFS{FS: disk.OS()}
		fsys.partial.Store(partial)
		dir := t.TempDir()
		l, _ := open(t, fsys, dir, func(c *Config) { c.SegmentBytes = 1 << 20 })
		first := batch(1, 2)
		mustAppend(t, l, 1, first)
		full := error(syscall.ENOSPC)
		fsys.write.Store(&full)
		if _, err := l.Append(1, batch(2, 2)); !errors.Is(err, ErrNoSpace) {
			t.Fatalf("%v, want ErrNoSpace", err)
		}
		if st, err := os.Stat(filepath.Join(dir, logName(0))); err != nil || st.Size() != int64(len(first)) {
			t.Fatalf("the file has %d bytes, %d were appended: %v", st.Size(), len(first), err)
		}
		fsys.write.Store(nil)
		third := batch(3, 2)
		if a := mustAppend(t, l, 1, third); a.Base != 2 {
			t.Fatalf("the next batch is at %d, want 2", a.Base)
		}
		l.Close(false)
		l, rec := open(t, disk.OS(), dir)
		if want := append(bytes.Clone(first), third...); !bytes.Equal(dump(t, l, 1<<20), want) || rec.CutAt != -1 {
			t.Fatalf("partial=%v: the log holds something else: %+v", partial, rec)
		}
	}
}

// TestFailedSyncIsFinal fails one sync: nothing counts as synced by it, and the log
// takes no more writes although later syncs would succeed.
func TestFailedSyncIsFinal(t *testing.T) {
	fsys := &faultFS{FS: disk.OS()}
	l, _ := open(t, fsys, t.TempDir())
	mustAppend(t, l, 1, batch(1, 2))
	eio := error(syscall.EIO)
	fsys.sync.Store(&eio)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := l.Sync(ctx); !errors.Is(err, ErrOffline) {
		t.Fatalf("sync: %v, want ErrOffline", err)
	}
	fsys.sync.Store(nil)
	if l.SyncedEnd() != 0 {
		t.Fatalf("synced end %d after a failed sync", l.SyncedEnd())
	}
	if _, err := l.Append(1, batch(2, 2)); !errors.Is(err, ErrOffline) {
		t.Fatalf("append: %v, want ErrOffline", err)
	}
	if err := l.Close(true); err == nil {
		t.Fatal("an offline log closed cleanly")
	}
}

// TestIdempotence walks KIP-98's rules through the log, before and after a restart
// of each kind.
func TestIdempotence(t *testing.T) {
	dir := t.TempDir()
	l, _ := open(t, disk.OS(), dir)
	for i := range int32(8) {
		mustAppend(t, l, 1, idempotent(7, 0, 2*i, 2))
	}
	rules := func(when string, l *Log) {
		t.Helper()
		if a, err := l.Append(1, idempotent(7, 0, 14, 2)); err != nil || !a.Duplicate || a.Base != 14 {
			t.Fatalf("%s: repeated batch: %+v %v", when, a, err)
		}
		for name, b := range map[string]record.Batch{
			"a hole": idempotent(7, 0, 18, 1), "an old repeat": idempotent(7, 0, 0, 2), "a new epoch not at 0": idempotent(7, 1, 3, 1),
		} {
			if _, err := l.Append(1, b); !errors.Is(err, ErrOutOfOrderSequence) {
				t.Fatalf("%s: %s: %v", when, name, err)
			}
		}
		if _, err := l.Append(1, idempotent(7, -1, 16, 1)); !errors.Is(err, ErrInvalidProducerEpoch) {
			t.Fatalf("%s: old epoch: %v", when, err)
		}
	}
	rules("live", l)
	if err := l.Close(true); err != nil {
		t.Fatal(err)
	}
	l, _ = open(t, disk.OS(), dir, clean)
	rules("after a clean close", l)
	l.Close(false)
	l, _ = open(t, disk.OS(), dir)
	rules("after a kill", l)
	if a := mustAppend(t, l, 1, idempotent(9, 3, 1000, 1)); a.Duplicate {
		t.Fatal("an unknown producer may begin anywhere")
	}
	states, err := l.ProducersAt(4)
	if err != nil || len(states) != 1 || len(states[0].Batches) != 2 || states[0].Batches[1].LastOffset != 3 {
		t.Fatalf("fold at 4: %+v %v", states, err)
	}
}

// TestReadersKeepDeletedBytes deletes segments under a reader, then looks at the
// offsets that are left.
func TestReadersKeepDeletedBytes(t *testing.T) {
	dir := t.TempDir()
	l, _ := open(t, disk.OS(), dir)
	for i := range 300 {
		mustAppend(t, l, 1, batch(i, 5))
	}
	s, err := l.Read(0, l.End(), 2000, true)
	if err != nil {
		t.Fatal(err)
	}
	before, err := s.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := l.SetStart(700); err != nil {
		t.Fatal(err)
	}
	if n, err := l.DeleteLocal(700); err != nil || n == 0 {
		t.Fatalf("deleted %d bytes: %v", n, err)
	}
	after, err := s.Bytes()
	if err != nil || !bytes.Equal(before, after) {
		t.Fatalf("the reader's bytes changed: %v", err)
	}
	s.Release()
	if _, err := l.Read(0, l.End(), 100, true); !errors.Is(err, ErrBelowLocal) {
		t.Fatalf("read below local start: %v", err)
	}
	local := l.LocalStart()
	if local == 0 || local > 700 {
		t.Fatalf("local start %d", local)
	}
	rest := dump(t, l, 1<<20)
	l.Close(false)
	l, _ = open(t, disk.OS(), dir)
	if l.Start() != 700 || l.LocalStart() != local || !bytes.Equal(dump(t, l, 1<<20), rest) {
		t.Fatalf("after a kill: start %d, local start %d", l.Start(), l.LocalStart())
	}
}

// TestNothingIsSeenBeforeItIsWritten looks at the log in the middle of each write to
// a segment: its end and its size are those of what is there.
func TestNothingIsSeenBeforeItIsWritten(t *testing.T) {
	s := disk.NewSim(8)
	s.MkdirAll("/p", 0o755)
	l, _ := open(t, s, "/p")
	var written int64 // records
	looked := 0
	s.FailOn(func(op, name string) error {
		if op == "write" && strings.HasSuffix(name, ".log") {
			looked++
			if l.End() != written || l.active().end.Load() != written {
				t.Errorf("the log ends at %d, its segment at %d, %d records are written", l.End(), l.active().end.Load(), written)
			}
		}
		return nil
	})
	for i := range 200 {
		mustAppend(t, l, 1, batch(i, 3))
		written += 3
	}
	if s.FailOn(nil); looked != 200 {
		t.Fatalf("looked %d times", looked)
	}
}

// TestReadersKeepTheirFiles: a bound on open files closes none that somebody reads.
func TestReadersKeepTheirFiles(t *testing.T) {
	l, _ := open(t, disk.OS(), t.TempDir(), func(c *Config) { c.Flusher.Files = NewFiles(2) })
	for i := range 300 {
		mustAppend(t, l, 1, batch(i, 5))
	}
	if err := l.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	var held []Slice
	for _, seg := range l.Segments() {
		for range 2 {
			s, err := l.Read(seg.Base, seg.End, 1000, true)
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, s)
		}
	}
	for i := 0; i < len(held); i += 2 { // one of the two readers of each leaves
		held[i].Release()
	}
	for i := 1; i < len(held); i += 2 {
		if _, err := held[i].Bytes(); err != nil {
			t.Fatalf("read of segment %d: %v", held[i].FirstBase, err)
		}
		held[i].Release()
	}
	files := l.cfg.Flusher.Files
	if files.mu.Lock(); files.open > 3 { // the active one comes on top
		t.Errorf("%d files are open, 2 may be", files.open)
	}
	files.mu.Unlock()
}

// TestReadersSeeOnlyWholeCommittedBatches races appends, rolls and trims with
// readers.
func TestReadersSeeOnlyWholeCommittedBatches(t *testing.T) {
	l, _ := open(t, disk.OS(), t.TempDir())
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			at := int64(0)
			for {
				select {
				case <-stop:
					return
				default:
				}
				s, err := l.Read(at, l.End(), 3000, true)
				if errors.Is(err, ErrBelowLocal) {
					at = l.LocalStart()
					continue
				}
				if err != nil {
					t.Errorf("read at %d: %v", at, err)
					return
				}
				if s.Len() == 0 {
					continue
				}
				p, err := s.Bytes()
				if err != nil {
					t.Errorf("bytes: %v", err)
					return
				}
				for len(p) > 0 {
					b, rest, err := record.Parse(p)
					if err != nil || b.CheckCRC() != nil || b.NextOffset() <= at && b.BaseOffset() != at {
						t.Errorf("bad batch at %d: %v", at, err)
						return
					}
					at, p = b.NextOffset(), rest
				}
				s.Release()
			}
		}()
	}
	for i := range 1500 {
		mustAppend(t, l, 1, batch(i, 1+i%4))
		if i%200 == 199 {
			if err := l.Sync(context.Background()); err != nil {
				t.Fatal(err)
			}
			if err := l.SetStart(l.End() / 2); err != nil {
				t.Fatal(err)
			}
			if _, err := l.DeleteLocal(l.Start()); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	wg.Wait()
}

// TestLookupByTimeIsExact compares with a walk over all records.
func TestLookupByTimeIsExact(t *testing.T) {
	l, _ := open(t, disk.OS(), t.TempDir())
	r := rand.New(rand.NewPCG(5, 5))
	var stamps []int64
	for range 200 {
		b := record.NewBuilder(record.NewBatchOptions())
		for range 1 + r.IntN(5) {
			ts := r.Int64N(1000)
			stamps = append(stamps, ts)
			b.Append(record.Record{TimestampDelta: ts, Value: []byte("v")})
		}
		mustAppend(t, l, 1, b.Build())
	}
	for ts := int64(0); ts <= 1001; ts += 3 {
		want := int64(-1)
		for o, s := range stamps {
			if s >= ts {
				want = int64(o)
				break
			}
		}
		got, at, ok, err := l.OffsetForTime(ts)
		if err != nil || ok != (want >= 0) || ok && (got != want || at != stamps[want]) {
			t.Fatalf("time %d: offset %d at %d, %v %v; want %d", ts, got, at, ok, err, want)
		}
	}
	best := 0
	for o, s := range stamps {
		if s > stamps[best] {
			best = o
		}
	}
	if o, ts, err := l.MaxTimestamp(); err != nil || o != int64(best) || ts != stamps[best] {
		t.Fatalf("greatest timestamp %d at %d, %v; want %d at %d", ts, o, err, stamps[best], best)
	}
}

// TestResetContinuesTheBucket makes a log that ends below the bucket go on at the
// bucket's end, over a restart.
func TestResetContinuesTheBucket(t *testing.T) {
	dir := t.TempDir()
	l, _ := open(t, disk.OS(), dir)
	for i := range 50 {
		mustAppend(t, l, 1, batch(i, 2))
	}
	lineage := []EpochStart{{1, 0}, {2, 90}}
	if err := l.Reset(10, 500, lineage, nil); err != nil {
		t.Fatal(err)
	}
	l.Close(false)
	l, _ = open(t, disk.OS(), dir)
	if l.Start() != 10 || l.LocalStart() != 500 || l.End() != 500 || len(l.Epochs()) != 2 {
		t.Fatalf("start %d, local %d, end %d, lineage %v", l.Start(), l.LocalStart(), l.End(), l.Epochs())
	}
	if a := mustAppend(t, l, 3, batch(1, 1)); a.Base != 500 {
		t.Fatalf("next offset %d", a.Base)
	}
	if err := l.Reset(10, 400, lineage, nil); err == nil {
		t.Fatal("a reset below the end drops records")
	}
}

// TestStartNeverHidesLaterRecords raises the start over records that a power cut
// then takes, appends anew, and looks for the new ones.
func TestStartNeverHidesLaterRecords(t *testing.T) {
	dir := t.TempDir()
	l, _ := open(t, disk.OS(), dir, func(c *Config) { c.SegmentBytes = 1 << 20 })
	for i := range 10 {
		mustAppend(t, l, 1, batch(i, 1))
	}
	if err := l.SetStart(10); err != nil {
		t.Fatal(err)
	}
	if l.SyncedEnd() < 10 {
		t.Fatalf("the durable start 10 is above the synced end %d", l.SyncedEnd())
	}
}

func FuzzDecoders(f *testing.F) {
	f.Add(encodeEpochs([]EpochStart{{1, 0}, {2, 5}}))
	f.Add(encodeSnapshot(9, []ProducerState{{ID: 1, TxnFirst: -1, Batches: []SeqRange{{0, 1, 2, 3, 4}}}}, []AbortedTxn{{1, 2, 3, 4}}))
	f.Add(encodeIndex(indexHeader{base: 0, end: 10, size: 100}, []indexEntry{{0, 0, -1}}, []AbortedTxn{{1, 2, 3, 4}}))
	f.Add(checkpoint{seq: 1, snapshot: noSnapshot}.encode())
	f.Add(encodeMeta([16]byte{1}, "t", 3))
	f.Fuzz(func(t *testing.T, b []byte) {
		decodeEpochs(b)
		decodeSnapshot(b)
		decodeIndex(b)
		decodeCheckpoint(b)
		if len(b) >= record.HeaderSize {
			parseHeader(b)
		}
	})
}

// TestDeletionStopsAtTheCheckpoint: while a full disk keeps checkpoints from being
// written, the segment that the last one points to stays, and so does everything
// behind it: without it the next start would find damage.
func TestDeletionStopsAtTheCheckpoint(t *testing.T) {
	s := disk.NewSim(1)
	for _, d := range []string{"/data", "/data/p"} {
		s.MkdirAll(d, 0o755)
	}
	s.SyncDir("/")
	s.SyncDir("/data")
	l, _ := open(t, s, "/data/p")
	roll := func(seq int32) {
		t.Helper()
		mustAppend(t, l, 1, idempotent(7, 0, seq, 1))
		if err := errors.Join(l.Roll(), l.Sync(context.Background())); err != nil {
			t.Fatal(err)
		}
	}
	roll(0)
	if err := l.flush(true); err != nil {
		t.Fatal(err)
	}
	roll(1)
	roll(2)
	full := true
	s.FailOn(func(op, name string) error {
		if full && op == "open" && strings.Contains(name, foldSuffix) {
			return syscall.ENOSPC
		}
		return nil
	})
	if n, err := l.DeleteLocal(l.End()); err != nil || n == 0 || l.LocalStart() != 1 {
		t.Fatalf("%d bytes went, local start %d: %v", n, l.LocalStart(), err)
	}
	l.Close(false)
	full = false
	l, _ = open(t, s.Crash(), "/data/p")
	if l.End() != 3 || l.LocalStart() != 1 {
		t.Fatalf("[%d, %d) after the crash", l.LocalStart(), l.End())
	}
	if _, err := l.DeleteLocal(l.End()); err != nil || l.LocalStart() != 3 {
		t.Fatalf("local start %d with room on the disk: %v", l.LocalStart(), err)
	}
}
