package fetch

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/localcache"
	"github.com/firnlog/firn/record"
	"github.com/firnlog/firn/replication"
)

func TestMain(m *testing.M) {
	// The codec's own channels must be made outside of any synctest bubble.
	p, err := record.Compress(record.Zstd, []byte("warm"))
	if err == nil {
		_, err = record.Decompress(record.Zstd, p, 100)
	}
	if err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// makeBatches returns n batches of 1 to 5 records from offset base on, of sizes
// that seed decides.
func makeBatches(seed uint64, base int64, n int, size func(r *rand.Rand) int) []record.Batch {
	r := rand.New(rand.NewPCG(seed, uint64(base)))
	var all []record.Batch
	for range n {
		opts := record.NewBatchOptions()
		opts.BaseOffset = base
		b := record.NewBuilder(opts)
		count := 1 + r.IntN(5)
		for i := range count {
			v := make([]byte, max(size(r)/count, 1))
			for j := range v {
				v[j] = byte(r.Uint32())
			}
			b.Append(record.Record{OffsetDelta: int32(i), TimestampDelta: base + int64(i), Value: v})
		}
		all = append(all, b.Build())
		base += int64(count)
	}
	return all
}

func small(r *rand.Rand) int { return 50 + r.IntN(200) }

// fakeLog is a partition whose batches are all in memory; the log start, local
// start and watermarks say which of them may be read how.
type fakeLog struct {
	name partID
	arch *fakeArchive

	mu             sync.Mutex
	batches        []record.Batch
	start, local   int64
	hw, lso        int64
	leaderEpoch    int32
	lineage        []commitlog.EpochStart
	txns           []commitlog.AbortedTxn
	readErr        error
	subs           map[chan<- struct{}]bool
	reads, maxSubs int
	onRead         func() // with the lock, before records are looked for
}

func newFakeLog(id byte, batches []record.Batch) *fakeLog {
	end := batches[len(batches)-1].NextOffset()
	return &fakeLog{
		name: partID{[16]byte{id}, 0}, batches: batches, hw: end, lso: end,
		lineage: []commitlog.EpochStart{{Epoch: 0, Start: 0}}, subs: make(map[chan<- struct{}]bool),
	}
}

func (l *fakeLog) id() partID { return l.name }
func (l *fakeLog) epoch() int32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leaderEpoch
}

func (l *fakeLog) checkEpoch(current int32) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.readErr != nil:
		return l.readErr
	case current >= 0 && current < l.leaderEpoch:
		return replication.ErrFencedEpoch
	case current > l.leaderEpoch:
		return replication.ErrUnknownEpoch
	}
	return nil
}

func (l *fakeLog) logStart() int64   { l.mu.Lock(); defer l.mu.Unlock(); return l.start }
func (l *fakeLog) localStart() int64 { l.mu.Lock(); defer l.mu.Unlock(); return l.local }

func (l *fakeLog) read(offset int64, maxBytes int, minOne, committed bool) (hotRead, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	if l.onRead != nil && maxBytes > 0 {
		l.onRead()
	}
	h := hotRead{highWatermark: l.hw, lastStable: l.lso, logStart: l.start}
	if offset < l.start || offset > l.hw {
		return h, replication.ErrOffsetOutOfRange
	}
	if offset < l.local {
		return h, commitlog.ErrBelowLocal
	}
	limit := l.hw
	if committed {
		limit = l.lso
	}
	p, _, end := takeBatches(l.batches, offset, limit, maxBytes, minOne)
	if len(p) > 0 {
		h.records = &pieces{len: len(p), regions: []Region{{Bytes: p, Len: int64(len(p))}}}
		if committed {
			h.aborted = overlapping(l.txns, offset, end)
		}
	}
	return h, nil
}

// takeBatches is the plain statement of what a read gives.
func takeBatches(all []record.Batch, offset, limit int64, maxBytes int, minOne bool) (p []byte, base, end int64) {
	end = offset
	for _, b := range all {
		if b.LastOffset() < offset {
			continue
		}
		if b.LastOffset() >= limit || (len(p)+len(b) > maxBytes && (len(p) > 0 || !minOne)) {
			break
		}
		if len(p) == 0 {
			base = b.BaseOffset()
		}
		p = append(p, b...)
		end = b.NextOffset()
	}
	return p, base, end
}

func (l *fakeLog) epochEnd(epoch int32) (int32, int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if epoch > l.leaderEpoch {
		return -1, -1
	}
	for i := len(l.lineage) - 1; i >= 0; i-- {
		if l.lineage[i].Epoch <= epoch {
			end := l.batches[len(l.batches)-1].NextOffset()
			if i+1 < len(l.lineage) {
				end = l.lineage[i+1].Start
			}
			return l.lineage[i].Epoch, end
		}
	}
	return -1, -1
}

func (l *fakeLog) epochOf(offset int64) int32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := int32(-1)
	for _, s := range l.lineage {
		if s.Start <= offset {
			e = s.Epoch
		}
	}
	return e
}

func (l *fakeLog) aborted(start, end int64) []commitlog.AbortedTxn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return overlapping(l.txns, start, end)
}

func (l *fakeLog) subscribe(ch chan<- struct{}) func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.subs[ch] = true
	l.maxSubs = max(l.maxSubs, len(l.subs))
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.subs, ch)
	}
}

func (l *fakeLog) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	for ch := range l.subs {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

func (l *fakeLog) archive() archive {
	if l.arch == nil {
		return nil
	}
	return l.arch
}

// times are the record's offset, see makeBatches.
func (l *fakeLog) offsetForTime(ts int64) (int64, int64, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return firstAt(l.batches, ts, max(l.start, l.local), l.hw)
}

func firstAt(all []record.Batch, ts, from, to int64) (int64, int64, bool, error) {
	for _, b := range all {
		if b.LastOffset() < from {
			continue
		}
		o, at, ok, err := b.FindTimestamp(ts, from, 1<<20)
		if err != nil || (ok && o < to) {
			return o, at, ok, err
		}
	}
	return -1, -1, false, nil
}

func greatest(all []record.Batch, from, to int64) (offset, ts int64) {
	offset, ts = -1, -1
	for _, b := range all {
		for r, err := range b.Records(1 << 20) {
			if err != nil {
				panic(err)
			}
			if o := b.Offset(r); o >= from && o < to && b.Timestamp(r) > ts {
				offset, ts = o, b.Timestamp(r)
			}
		}
	}
	return offset, ts
}

func (l *fakeLog) maxTimestamp() (int64, int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	offset, ts := greatest(l.batches, max(l.start, l.local), l.hw)
	return offset, ts, nil
}

// fakeArchive is a manifest and the footers it leads to.
type fakeArchive struct {
	log     *fakeLog
	bucket  *fakeBucket
	latency time.Duration // of a footer

	mu        sync.Mutex
	layouts   []*layout
	locates   int
	opens     int
	refreshes int
	onRefresh func(a *fakeArchive)
}

// upload puts the batches of [from, to) into objects of about objectBytes with
// chunks of about chunkBytes.
func (a *fakeArchive) upload(batches []record.Batch, chunkBytes, objectBytes int, compressed bool, tag string) {
	var l *layout
	var data []byte
	var pending []byte
	var pendingBase int64
	flush := func() {
		if len(pending) == 0 {
			return
		}
		stored := pending
		if compressed {
			var err error
			if stored, err = record.Compress(record.Zstd, pending); err != nil {
				panic(err)
			}
		}
		l.chunks = append(l.chunks, chunk{
			base: pendingBase, pos: int64(len(data)), len: int64(len(stored)), size: int64(len(pending)),
			crc: crc32.Checksum(stored, castagnoli),
		})
		data = append(data, stored...)
		pending = nil
	}
	closeObject := func(end int64) {
		if l == nil {
			return
		}
		flush()
		l.end = end
		a.bucket.put(l.key, data)
		a.mu.Lock()
		a.layouts = append(a.layouts, l)
		a.mu.Unlock()
		l, data = nil, nil
	}
	for _, b := range batches {
		if l == nil {
			l = &layout{object: object{key: fmt.Sprintf("%x/%d-%s.seg", a.log.name.topic[:1], b.BaseOffset(), tag), etag: tag, base: b.BaseOffset()}, compressed: compressed}
		}
		if len(pending) > 0 && len(pending)+len(b) > chunkBytes {
			flush()
		}
		if len(pending) == 0 {
			pendingBase = b.BaseOffset()
		}
		pending = append(pending, b...)
		if len(data)+len(pending) >= objectBytes {
			closeObject(b.NextOffset())
		}
	}
	closeObject(batches[len(batches)-1].NextOffset())
}

func (a *fakeArchive) locate(ctx context.Context, offset int64) (object, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.locates++
	for _, l := range a.layouts {
		if l.base <= offset && offset < l.end {
			return l.object, nil
		}
	}
	return object{}, errNotTiered
}

func (a *fakeArchive) open(ctx context.Context, o object) (*layout, error) {
	if a.latency > 0 {
		select {
		case <-time.After(a.latency):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.opens++
	for _, l := range a.layouts {
		if l.key == o.key {
			return &layout{object: l.object, compressed: l.compressed, chunks: l.chunks, aborted: l.aborted}, nil
		}
	}
	return nil, errGone
}

func (a *fakeArchive) refresh(context.Context) error {
	a.mu.Lock()
	a.refreshes++
	f := a.onRefresh
	a.mu.Unlock()
	if f != nil {
		f(a)
	}
	return nil
}

func (a *fakeArchive) tieredEnd(context.Context) (int64, error) { return a.end(), nil }

func (a *fakeArchive) end() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.layouts) == 0 {
		return -1
	}
	return a.layouts[len(a.layouts)-1].end
}

func (a *fakeArchive) offsetForTime(_ context.Context, ts int64) (int64, int64, bool, error) {
	return firstAt(a.log.batches, ts, a.log.logStart(), a.end())
}

func (a *fakeArchive) maxTimestamp(context.Context) (int64, int64, bool, error) {
	o, ts := greatest(a.log.batches, a.log.logStart(), a.end())
	return o, ts, o >= 0, nil
}

// fakeBucket counts what is read and can be slow, failing, empty and wrong.
type fakeBucket struct {
	latency time.Duration
	slow    map[string]time.Duration                    // of some keys, instead of latency
	mangle  func(key string, off int64, p []byte) error // after the bytes are in p

	mu      sync.Mutex
	objects map[string][]byte
	gets    map[string]int // by key and offset
	total   atomic.Int64   // GETs
	bytes   atomic.Int64
	running atomic.Int32
	most    atomic.Int32 // GETs at once
}

func newFakeBucket() *fakeBucket {
	return &fakeBucket{objects: make(map[string][]byte), gets: make(map[string]int)}
}

func (b *fakeBucket) put(key string, p []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.objects[key] = p
}

func (b *fakeBucket) remove(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.objects, key)
}

func (b *fakeBucket) getRange(ctx context.Context, key string, p []byte, off int64) error {
	n := b.running.Add(1)
	defer b.running.Add(-1)
	for m := b.most.Load(); n > m && !b.most.CompareAndSwap(m, n); m = b.most.Load() {
	}
	b.mu.Lock()
	b.gets[fmt.Sprintf("%s@%d", key, off)]++
	data, ok := b.objects[key]
	b.mu.Unlock()
	b.total.Add(1)
	latency := b.latency
	if d, ok := b.slow[key]; ok {
		latency = d
	}
	if latency > 0 {
		select {
		case <-time.After(latency):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if !ok {
		return errGone
	}
	copy(p, data[off:off+int64(len(p))])
	b.bytes.Add(int64(len(p)))
	if b.mangle != nil {
		return b.mangle(key, off, p)
	}
	return nil
}

// cacheDisk is the real disk, but for reads of chunks that fail when told to.
type cacheDisk struct {
	disk.FS
	broken atomic.Bool
}

func (d *cacheDisk) OpenFile(name string, flag int, perm fs.FileMode) (disk.File, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return cacheFile{f, d}, nil
}

type cacheFile struct {
	disk.File
	d *cacheDisk
}

func (f cacheFile) ReadAt(p []byte, off int64) (int, error) {
	if f.d.broken.Load() && strings.HasSuffix(f.Name(), ".chunk") {
		return 0, syscall.EIO
	}
	return f.File.ReadAt(p, off)
}

// rig is a reader over fakes and a real cache.
type rig struct {
	t      *testing.T
	bucket *fakeBucket
	disk   *cacheDisk
	cache  *localcache.Cache
	r      *Reader
	dir    string
}

func newRig(t *testing.T, cfg Config, ccfg localcache.Config) *rig {
	t.Helper()
	g := &rig{t: t, bucket: newFakeBucket(), disk: &cacheDisk{FS: disk.OS()}, dir: t.TempDir()}
	g.reopen(cfg, ccfg)
	return g
}

// reopen restarts reader and cache over the same bucket and cache folder.
func (g *rig) reopen(cfg Config, ccfg localcache.Config) {
	g.close()
	ccfg.FS, ccfg.Dir, ccfg.Now = g.disk, g.dir, time.Now
	cache, err := localcache.New(ccfg)
	if err != nil {
		g.t.Fatal(err)
	}
	cfg.Cache, cfg.Now = cache, time.Now
	g.cache = cache
	g.r = newReader(cfg, g.bucket)
	g.t.Cleanup(g.close)
}

func (g *rig) close() {
	if g.r != nil {
		g.r.Close()
		g.cache.Close()
	}
}

// chunkFiles are the files of the cache's chunks.
func (g *rig) chunkFiles() []string {
	g.t.Helper()
	files, err := filepath.Glob(filepath.Join(g.dir, "*", "*.chunk"))
	if err != nil || len(files) == 0 {
		g.t.Fatalf("no chunks in the cache: %v", err)
	}
	return files
}

// log makes a partition with all its batches below local in the bucket.
func (g *rig) log(id byte, batches []record.Batch, localBatches, chunkBytes, objectBytes int, compressed bool) *fakeLog {
	l := newFakeLog(id, batches)
	l.arch = &fakeArchive{log: l, bucket: g.bucket}
	if n := len(batches) - localBatches; n > 0 {
		l.arch.upload(batches[:n], chunkBytes, objectBytes, compressed, "a")
		l.local = batches[n-1].NextOffset()
	}
	return l
}

func part(l *fakeLog, offset int64, maxBytes int) Part {
	return Part{src: l, Offset: offset, MaxBytes: maxBytes, CurrentEpoch: -1, LastFetchedEpoch: -1}
}

// raw returns the bytes of records.
func raw(t *testing.T, r Records) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := r.WriteTo(&b)
	if err != nil || int(n) != r.Len() || b.Len() != r.Len() {
		t.Fatalf("wrote %d of %d bytes: %v", n, r.Len(), err)
	}
	return b.Bytes()
}

// replay consumes from offset to the high watermark as a client does, and
// returns all bytes; the first batch of an answer may repeat records before the
// offset only if it holds the offset.
func (g *rig) replay(l *fakeLog, client string, offset int64, maxBytes int, wait time.Duration) []byte {
	g.t.Helper()
	var all []byte
	empty := 0
	for offset < l.hw {
		res := g.r.Fetch(g.t.Context(), Request{Client: client, MaxWait: wait, MinBytes: 1, MaxBytes: maxBytes, Parts: []Part{part(l, offset, maxBytes)}})
		if res[0].Err != nil {
			g.t.Errorf("offset %d: %v", offset, res[0].Err)
			return all
		}
		p := raw(g.t, res[0].Records)
		Release(res)
		if len(p) == 0 {
			if empty++; empty > 1000 {
				g.t.Errorf("no progress at offset %d", offset)
				return all
			}
			continue
		}
		empty = 0
		all = append(all, p...)
		for rest := p; len(rest) > 0; {
			b, r, err := record.Parse(rest)
			if err != nil {
				g.t.Errorf("offset %d: %v", offset, err)
				return all
			}
			if b.BaseOffset() > offset || b.LastOffset() < offset {
				g.t.Errorf("wanted offset %d, got a batch %d-%d", offset, b.BaseOffset(), b.LastOffset())
				return all
			}
			offset = b.NextOffset()
			rest = r
		}
	}
	return all
}

func join(batches []record.Batch) []byte {
	var p []byte
	for _, b := range batches {
		p = append(p, b...)
	}
	return p
}

func sizes(batches []record.Batch) (n int) { return len(join(batches)) }
