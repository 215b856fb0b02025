package tiering

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/tiering/format"
)

// million gives w's partition a manifest of n objects of 1,000 records each, and a
// log that goes on behind them. The objects themselves do not exist.
func million(t *testing.T, w *world, n int) {
	t.Helper()
	ctx := context.Background()
	const per = 1000
	entry := func(i int) format.Entry {
		e := format.Entry{
			Base: int64(i) * per, End: int64(i+1) * per, Epoch: 1, Nonce: newNonce(), Size: 128<<20 + int64(i%1000), Bytes: 128 << 20, Records: per, Batches: 50,
			MinTs: int64(i) * 60_000, MaxTs: int64(i)*60_000 + 59_000, CRC: uint32(i) * 2654435761, CreatedMs: int64(i) * 60_000,
		}
		e.ETag = fmt.Sprintf("%08x%024x", e.CRC, i)
		return e
	}
	h := &format.Head{ClusterID: "id", ClusterGeneration: 1, TopicID: w.tp.TopicID, Topic: "t", Generation: 1, Nonce: newNonce(), Epoch: 1, End: int64(n) * per, Lineage: []format.Epoch{{Epoch: 1}}}
	i := 0
	for ; n-i > defaultShape.part+defaultShape.inline-defaultShape.spill; i += defaultShape.part {
		p := &format.Part{TopicID: w.tp.TopicID}
		ref := format.PartRef{Nonce: newNonce(), Count: int64(defaultShape.part), MinTs: -1, MaxTs: -1}
		for j := i; j < i+defaultShape.part; j++ {
			e := entry(j)
			p.Entries = append(p.Entries, e)
			ref.Bytes, ref.Stored = ref.Bytes+e.Bytes, ref.Stored+e.Size
			ref.MinTs, ref.MaxTs = format.WidenTs(ref.MinTs, ref.MaxTs, e.MinTs, e.MaxTs)
		}
		ref.From, ref.To = p.Entries[0].Base, p.Entries[len(p.Entries)-1].End
		data := format.EncodePart(p)
		ref.Size, ref.CRC = int64(len(data)), crc32.Checksum(data, castagnoli)
		etag, err := w.raw.Put(ctx, w.folder()+ref.Name(), bytes.NewReader(data), ref.Size, objectstore.Cond{IfNoneMatch: true})
		if err != nil {
			t.Fatal(err)
		}
		ref.ETag = etag
		h.Parts = append(h.Parts, ref)
	}
	for ; i < n; i++ {
		h.Entries = append(h.Entries, entry(i))
	}
	for len(h.Graves) < defaultShape.graves {
		h.Graves = append(h.Graves, format.Grave{State: format.Unlinked, Since: time.Now().UnixMilli(), Orphan: true, Base: 1 << 40, End: 1<<40 + per, Epoch: 1, Nonce: newNonce()})
	}
	data := format.EncodeHead(h)
	if _, err := w.raw.Put(ctx, w.folder()+format.HeadName, bytes.NewReader(data), int64(len(data)), objectstore.Cond{IfNoneMatch: true}); err != nil {
		t.Fatal(err)
	}
	if err := w.log.Reset(0, h.End, []commitlog.EpochStart{{Epoch: 1}}, nil); err != nil {
		t.Fatal(err)
	}
	w.epoch = 1
}

func heapBytes() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestAMillionObjects: what a manifest of a million objects costs. Its memory, the
// commit that appends one more, and a lookup in it, in requests and bytes.
func TestAMillionObjects(t *testing.T) {
	const n = 1_000_000
	w := newWorld(t)
	defer w.close()
	million(t, w, n)
	ctx := context.Background()
	w.cfg.MaxUnuploaded = time.Millisecond
	l := w.lead()
	before := heapBytes()
	if err := l.archive.Load(ctx); err != nil {
		t.Fatal(err)
	}
	gets := func() (int64, int64) {
		c := w.bucket.Count(objectstore.OpGet)
		return c.Requests, c.Bytes
	}
	rng := rand.New(rand.NewPCG(1, 1))
	var most int64
	for range 300 {
		o := rng.Int64N(n * 1000)
		g0, b0 := gets()
		e, err := l.archive.Locate(ctx, o)
		if err != nil || o < e.Base || o >= e.End {
			t.Fatalf("offset %d is in [%d, %d): %v", o, e.Base, e.End, err)
		}
		g1, b1 := gets()
		if g1-g0 > 1 || b1-b0 > 640<<10 {
			t.Fatalf("offset %d took %d GETs of %d bytes", o, g1-g0, b1-b0)
		}
		most = max(most, b1-b0)
		if _, err := l.archive.Locate(ctx, e.End-1); err != nil {
			t.Fatal(err)
		}
		if again, _ := gets(); again != g1 {
			t.Fatalf("offset %d, next to one that was asked for, took another GET", e.End-1)
		}
	}
	g0, _ := gets()
	for i := range int64(256) {
		if _, err := l.archive.Locate(ctx, n*1000-1-i*1000); err != nil {
			t.Fatal(err)
		}
	}
	if g1, _ := gets(); g1 != g0 {
		t.Fatalf("%d GETs for recent offsets", g1-g0)
	}
	if u := l.archive.Usage(); u.Objects != n {
		t.Fatalf("%d objects", u.Objects)
	}
	if !l.archive.due(time.Now()) { // for it was never read by a pass, and scans what is in memory
		l.archive.mu.queued = false
	}
	used := heapBytes() - before
	if used > 64<<20 {
		t.Errorf("the manifest takes %d MiB of memory", used>>20)
	}

	var commits []int64
	l.hook().put = func(key string, size int64) {
		if strings.HasSuffix(key, "/"+format.HeadName) {
			commits = append(commits, size)
		}
	}
	for len(commits) < 3 {
		w.fill(1)
		deadline := time.Now().Add(10 * time.Second)
		for end := w.log.End(); w.head().End < end; {
			if err := l.pass(); err != nil {
				t.Fatal(err)
			}
			if time.Now().After(deadline) {
				t.Fatal("nothing is uploaded")
			}
		}
	}
	for _, size := range commits {
		if size > format.MaxHead {
			t.Errorf("a commit of %d bytes", size)
		}
	}
	if h := w.head(); h.End <= n*1000 || len(h.Graves) != defaultShape.graves {
		t.Fatalf("the head ends at %d with %d graves", h.End, len(h.Graves))
	}
	// A lookup that needs no GET, as they all do but the first in an old range. Times
	// are only held against a bound where nothing else runs.
	var times []time.Duration
	for range 10_000 {
		o := (n-256+rng.Int64N(256))*1000 + rng.Int64N(1000)
		began := time.Now()
		if _, err := l.archive.Locate(ctx, o); err != nil {
			t.Fatal(err)
		}
		times = append(times, time.Since(began))
	}
	slices.Sort(times)
	p99 := times[len(times)*99/100]
	if os.Getenv("FIRN_TEST_TIMES") != "" && p99 > time.Millisecond {
		t.Errorf("p99 of a lookup is %v", p99)
	}
	t.Logf("verify: a lookup takes %v (p99 %v)", times[len(times)/2], p99)
	t.Logf("verify: %d KiB of memory, commits of %d KiB, a lookup in an old range reads %d KiB", used>>10, commits[len(commits)-1]>>10, most>>10)
}

// TestManyAbortedTransactionsStayInBounds: parts whose entries name 16 aborted
// transactions each do not fill the memory.
func TestManyAbortedTransactionsStayInBounds(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	l := w.lead()
	before := heapBytes()
	for range 40 {
		p := &format.Part{}
		for i := range defaultShape.part {
			p.Entries = append(p.Entries, format.Entry{Base: int64(i), End: int64(i) + 1, Size: 1, ETag: strings.Repeat("e", 32), Aborted: make([]format.Aborted, format.MaxAborted)})
		}
		l.a.parts.put(newNonce(), p, weightOf(p))
	}
	if used := heapBytes() - before; used > 64<<20 {
		t.Errorf("%d MiB for parts", used>>20)
	}
	runtime.KeepAlive(l)
}
