package fetch

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/localcache"
	"github.com/firnlog/firn/record"
	"github.com/firnlog/firn/replication"
)

// TestHotAndColdMeetWithoutGapOrRepeat replays logs of random batches, chunk
// sizes, object sizes, codecs, fetch sizes and start offsets, and moves the local
// start under the reader.
func TestHotAndColdMeetWithoutGapOrRepeat(t *testing.T) {
	for range 30 {
		seed := rand.Uint64()
		r := rand.New(rand.NewPCG(seed, 0))
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t, Config{CoalesceBytes: int64(1000 + r.IntN(10000))}, localcache.Config{MaxBytes: int64(20000 + r.IntN(200000)), MemoryBytes: int64(30000 + r.IntN(60000))})
			g.bucket.latency = time.Duration(r.IntN(30)) * time.Millisecond
			batches := makeBatches(seed, 0, 200+r.IntN(400), func(r *rand.Rand) int {
				if r.IntN(50) == 0 {
					return 8000 // larger than most limits
				}
				return 50 + r.IntN(500)
			})
			l := g.log(1, batches, 50, 500+r.IntN(4000), 5000+r.IntN(40000), r.IntN(2) == 0)
			first := r.IntN(len(batches))
			start := batches[first].BaseOffset() + int64(r.IntN(int(batches[first].Count())))
			if r.IntN(2) == 0 {
				last := l.local
				l.local = batches[first/2].BaseOffset() // some are in both tiers
				go func() {
					for l.localStart() < last {
						time.Sleep(20 * time.Millisecond)
						l.change(func() { l.local = min(l.local+int64(1+r.IntN(50)), last) })
					}
				}()
			}
			got := g.replay(l, "c", start, 200+r.IntN(8000), time.Duration(1+r.IntN(200))*time.Millisecond)
			if want := join(batches[first:]); !bytes.Equal(got, want) {
				t.Errorf("seed %d: replay from %d gave %d bytes, want %d", seed, start, len(got), len(want))
			}
			time.Sleep(2 * time.Second)
			g.close()
			synctest.Wait()
		})
	}
}

// TestTheForkIsAtTheLocalStart asks for the last offset that is only in the bucket, and for
// the first that is on disk: the bucket is asked for the one and not for the other.
func TestTheForkIsAtTheLocalStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{}, localcache.Config{})
		batches := stamped(make([]int64, 20)) // of one record
		l := g.log(1, batches, 5, 1<<20, 1<<20, false)
		l.arch.upload(batches[15:17], 1<<20, 1<<20, false, "b") // in both tiers
		for _, c := range []struct {
			offset, gets int64
			cold         bool
		}{{15, 0, false}, {14, 1, true}, {16, 0, false}} {
			before := g.bucket.total.Load()
			res := g.r.Fetch(t.Context(), Request{MaxWait: time.Second, MinBytes: 1, MaxBytes: 1, Parts: []Part{part(l, c.offset, 1)}})
			if res[0].Err != nil || res[0].Cold != c.cold || !bytes.Equal(raw(t, res[0].Records), batches[c.offset]) {
				t.Errorf("offset %d: %+v, want cold %v", c.offset, res[0], c.cold)
			}
			if n := g.bucket.total.Load() - before; n != c.gets {
				t.Errorf("offset %d: %d GETs, want %d", c.offset, n, c.gets)
			}
			Release(res)
		}
		g.close()
	})
}

// TestALocalStartThatPassesCostsNoWait: the local start passes the offset of a fetch
// between the look that finds it hot and the read. The records come from the bucket in
// the same answer, not after max wait.
func TestALocalStartThatPassesCostsNoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{}, localcache.Config{})
		g.bucket.latency = 50 * time.Millisecond
		batches := makeBatches(1, 0, 20, small)
		l := g.log(1, batches, 1, 1<<20, 1<<20, false)
		passed, end, looks := l.local, l.hw, 0
		l.local, l.hw = 0, 0 // the first look finds nothing, or it would be the answer
		l.onRead = func() {
			if looks++; looks == 2 {
				l.local, l.hw, l.lso = passed, end, end
			}
		}
		begin := time.Now()
		res := g.r.Fetch(t.Context(), Request{MaxWait: time.Minute, MinBytes: 1, MaxBytes: 1000, Parts: []Part{part(l, 0, 1000)}})
		if d := time.Since(begin); d != 50*time.Millisecond || res[0].Err != nil || !res[0].Cold || res[0].Records.Len() == 0 {
			t.Errorf("%+v after %v", res[0], d)
		}
		Release(res)
		g.close()
	})
}

// TestAnswersAsKafkaRecorded holds the answers that a real Kafka gave to the same
// questions, for a partition of five batches of two records.
func TestAnswersAsKafkaRecorded(t *testing.T) {
	for _, tier := range []string{"hot", "cold"} {
		t.Run(tier, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t, Config{}, localcache.Config{})
				mk := func(id byte) *fakeLog {
					var batches []record.Batch
					for i := range 5 {
						opts := record.NewBatchOptions()
						opts.BaseOffset = int64(2 * i)
						b := record.NewBuilder(opts)
						b.Append(record.Record{Value: []byte("a")})
						b.Append(record.Record{OffsetDelta: 1, Value: []byte("b")})
						batches = append(batches, b.Build())
					}
					if tier == "hot" {
						return newFakeLog(id, batches)
					}
					return g.log(id, batches, 0, 1000, 1000, false)
				}
				l, l2 := mk(1), mk(2)
				size := len(l.batches[0])
				type want struct {
					err         error
					first, last int64 // batches; -1: none
					diverging   *EpochEnd
				}
				none := want{first: -1, last: -1}
				ask := func(name string, q Request, wants ...want) {
					t.Helper()
					if q.MaxBytes == 0 {
						q.MaxBytes = 1 << 20
					}
					if q.MaxBytes < 0 {
						q.MaxBytes = 0
					}
					q.MinBytes, q.MaxWait = max(q.MinBytes, 1), max(q.MaxWait, 100*time.Millisecond)
					res := g.r.Fetch(t.Context(), q)
					defer Release(res)
					for i, w := range wants {
						got := res[i]
						if !errors.Is(got.Err, w.err) {
							t.Errorf("%s, part %d: error %v, want %v", name, i, got.Err, w.err)
							continue
						}
						if w.err != nil {
							if got.HighWatermark != -1 || got.LastStable != -1 || got.LogStart != -1 || got.Records.Len() != 0 {
								t.Errorf("%s, part %d: %+v beside an error", name, i, got)
							}
							continue
						}
						if got.HighWatermark != l.hw || got.LastStable != l.lso || got.LogStart != l.start {
							t.Errorf("%s, part %d: hw=%d lso=%d start=%d", name, i, got.HighWatermark, got.LastStable, got.LogStart)
						}
						if (got.Diverging == nil) != (w.diverging == nil) || (w.diverging != nil && *got.Diverging != *w.diverging) {
							t.Errorf("%s, part %d: diverging %v, want %v", name, i, got.Diverging, w.diverging)
						}
						var expect []byte
						if w.first >= 0 {
							expect = join(l.batches[w.first/2 : w.last/2+1])
						}
						if !bytes.Equal(raw(t, got.Records), expect) {
							t.Errorf("%s, part %d: %d bytes, want %d", name, i, got.Records.Len(), len(expect))
						}
					}
				}
				one := func(offset int64, mod func(*Part)) Request {
					p := part(l, offset, 1<<20)
					if mod != nil {
						mod(&p)
					}
					return Request{Parts: []Part{p}}
				}
				both := func(max, partMax int) Request {
					return Request{MaxBytes: max, Parts: []Part{part(l, 0, partMax), part(l2, 0, partMax)}}
				}
				if tier == "cold" { // bring both into the cache
					for _, x := range []*fakeLog{l, l2} {
						g.replay(x, "warm", 0, 1<<20, time.Second)
					}
				}
				ask("all", one(0, nil), want{first: 0, last: 8})
				ask("mid-batch offset gives the whole batch", one(3, nil), want{first: 2, last: 8})
				ask("at the high watermark", one(10, nil), none)
				ask("above the high watermark", one(11, nil), want{err: replication.ErrOffsetOutOfRange})
				ask("negative offset", one(-1, nil), want{err: replication.ErrOffsetOutOfRange})
				ask("max bytes 1 gives the first batch", Request{MaxBytes: 1, Parts: one(0, nil).Parts}, want{first: 0, last: 0})
				ask("max bytes 0", Request{MaxBytes: -1, Parts: one(0, nil).Parts}, want{first: 0, last: 0})
				ask("partition max bytes 1", one(0, func(p *Part) { p.MaxBytes = 1 }), want{first: 0, last: 0})
				ask("max bytes 1, two partitions", both(1, 1), want{first: 0, last: 0}, none)
				ask("partition max bytes 1, two partitions", both(1<<20, 1), want{first: 0, last: 0}, none)
				ask("partition max bytes inside the third batch", one(0, func(p *Part) { p.MaxBytes = 2*size + size/2 }), want{first: 0, last: 2})
				unknown := errors.New("unknown partition")
				ask("unknown partition", Request{Parts: []Part{part(l, 0, 1<<20), {Err: unknown}}}, want{first: 0, last: 8}, want{err: unknown})
				ask("leader epoch right", one(0, func(p *Part) { p.CurrentEpoch = 0 }), want{first: 0, last: 8})
				ask("leader epoch too new", one(0, func(p *Part) { p.CurrentEpoch = 99 }), want{err: replication.ErrUnknownEpoch})
				ask("last fetched epoch right", one(2, func(p *Part) { p.LastFetchedEpoch = 0 }), want{first: 2, last: 8})
				ask("last fetched epoch from the future", one(2, func(p *Part) { p.LastFetchedEpoch = 50 }), want{err: replication.ErrOffsetOutOfRange})
				ask("diverging past the end", one(1000, func(p *Part) { p.LastFetchedEpoch = 0 }), want{first: -1, diverging: &EpochEnd{0, 10}})

				took := func(name string, q Request, atLeast, atMost time.Duration, wants ...want) {
					t.Helper()
					begin := time.Now()
					ask(name, q, wants...)
					if d := time.Since(begin); d < atLeast || d > atMost {
						t.Errorf("%s took %v", name, d)
					}
				}
				took("empty waits for max wait", Request{MaxWait: 700 * time.Millisecond, Parts: one(10, nil).Parts}, 700*time.Millisecond, 700*time.Millisecond, none)
				took("min bytes not reached waits, then gives what is there", Request{MinBytes: 1 << 20, MaxWait: 600 * time.Millisecond, Parts: one(0, nil).Parts}, 600*time.Millisecond, 600*time.Millisecond, want{first: 0, last: 8})
				took("an error does not wait", Request{MaxWait: 5 * time.Second, Parts: one(11, nil).Parts}, 0, 0, want{err: replication.ErrOffsetOutOfRange})
				took("one bad partition does not wait", Request{MinBytes: 1 << 20, MaxWait: 5 * time.Second, Parts: []Part{part(l, 0, 1<<20), {Err: unknown}}}, 0, 0, want{first: 0, last: 8}, want{err: unknown})

				l.change(func() { l.start = 4 })
				ask("below the log start", one(3, nil), want{err: replication.ErrOffsetOutOfRange})
				ask("at the log start", one(4, nil), want{first: 4, last: 8})
				l.change(func() { l.start = 5 })
				ask("offset in a batch cut by the log start", one(5, nil), want{first: 4, last: 8})
				if len(l.subs) != 0 {
					t.Errorf("%d subscriptions left", len(l.subs))
				}
				g.close()
			})
		})
	}
}

// TestFetchIsWokenByAnAppend parks a fetch and moves the watermark under it.
func TestFetchIsWokenByAnAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{}, localcache.Config{})
		batches := makeBatches(1, 0, 20, small)
		l := newFakeLog(1, batches)
		l.hw = batches[9].NextOffset()
		go func() {
			time.Sleep(400 * time.Millisecond)
			l.change(func() { l.hw = batches[10].NextOffset() })
			time.Sleep(400 * time.Millisecond)
			l.change(func() { l.hw = batches[19].NextOffset() })
		}()
		begin := time.Now()
		q := Request{MaxWait: 5 * time.Second, MinBytes: len(batches[10]) + 1, MaxBytes: 1 << 20, Parts: []Part{part(l, batches[10].BaseOffset(), 1<<20)}}
		res := g.r.Fetch(t.Context(), q)
		if d := time.Since(begin); d != 800*time.Millisecond {
			t.Errorf("answered after %v", d)
		}
		if !bytes.Equal(raw(t, res[0].Records), join(batches[10:])) {
			t.Error("other bytes")
		}
		Release(res)
		if l.reads > 6 {
			t.Errorf("%d reads for two wake-ups: is it polling?", l.reads)
		}
		if len(l.subs) != 0 || l.maxSubs != 1 {
			t.Errorf("%d subscriptions left, %d at most", len(l.subs), l.maxSubs)
		}
		// A change of leadership ends the wait at once.
		go func() {
			time.Sleep(time.Second)
			l.change(func() { l.readErr = replication.ErrNotLeader })
		}()
		begin = time.Now()
		res = g.r.Fetch(t.Context(), Request{MaxWait: time.Minute, MinBytes: 1, MaxBytes: 1, Parts: []Part{part(l, l.hw, 1)}})
		if d := time.Since(begin); d != time.Second || !errors.Is(res[0].Err, replication.ErrNotLeader) {
			t.Errorf("%v after %v", res[0].Err, d)
		}
		g.close()
	})
}

// TestCommittedReadsStopAtTheLastStableOffset reads with and without isolation,
// from both tiers, and compares the aborted lists.
func TestCommittedReadsStopAtTheLastStableOffset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{}, localcache.Config{})
		batches := makeBatches(3, 0, 40, small)
		l := g.log(1, batches, 10, 1000, 3000, false)
		l.lso = batches[35].BaseOffset()
		cold := commitlog.AbortedTxn{ProducerID: 1, First: batches[2].BaseOffset(), Last: batches[6].BaseOffset()}
		spanning := commitlog.AbortedTxn{ProducerID: 2, First: batches[20].BaseOffset(), Last: batches[33].BaseOffset()}
		hot := commitlog.AbortedTxn{ProducerID: 3, First: batches[31].BaseOffset(), Last: batches[32].BaseOffset()}
		// Of a cold range, and no footer has it.
		local := commitlog.AbortedTxn{ProducerID: 4, First: batches[8].BaseOffset(), Last: batches[12].BaseOffset()}
		l.txns = []commitlog.AbortedTxn{hot, spanning, local}
		for _, x := range l.arch.layouts {
			x.aborted = overlapping([]commitlog.AbortedTxn{cold, spanning}, x.base, x.end)
		}
		seen := make(map[int64]int)
		offset, bytesRead := int64(0), 0
		for range 1000 {
			res := g.r.Fetch(t.Context(), Request{MaxWait: 100 * time.Millisecond, MinBytes: 1, MaxBytes: 700, ReadCommitted: true, Parts: []Part{part(l, offset, 700)}})
			if res[0].Err != nil {
				t.Fatal(res[0].Err)
			}
			p := raw(t, res[0].Records)
			Release(res)
			if len(p) == 0 && offset >= l.lso {
				break
			}
			bytesRead += len(p)
			begin := offset
			for len(p) > 0 {
				b, rest, err := record.Parse(p)
				if err != nil {
					t.Fatal(err)
				}
				offset, p = b.NextOffset(), rest
			}
			if offset > l.lso {
				t.Fatalf("offset %d given, last stable offset %d", offset-1, l.lso)
			}
			if offset == begin {
				continue
			}
			for _, a := range []commitlog.AbortedTxn{cold, spanning, hot, local} {
				overlaps, listed := a.First < offset && a.Last >= begin, 0
				for _, b := range res[0].Aborted {
					if a == b {
						listed++
					}
				}
				if overlaps && listed != 1 || !overlaps && listed != 0 {
					t.Fatalf("[%d,%d): transaction %+v listed %d times: %+v", begin, offset, a, listed, res[0].Aborted)
				}
				seen[a.ProducerID] += listed
			}
		}
		if bytesRead != sizes(batches[:35]) || len(seen) != 4 {
			t.Errorf("%d bytes, want %d; transactions %v", bytesRead, sizes(batches[:35]), seen)
		}
		g.close()
	})
}

// TestColdStopsAtTheWatermarks: the bucket never holds what is above them, and if
// it did nobody would read it.
func TestColdStopsAtTheWatermarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{}, localcache.Config{})
		batches := makeBatches(3, 0, 40, small)
		l := g.log(1, batches, 10, 1000, 3000, false)
		l.lso, l.hw = batches[11].BaseOffset(), batches[22].BaseOffset()
		for _, committed := range []bool{true, false} {
			offset, end := int64(0), l.hw
			if committed {
				end = l.lso
			}
			for {
				res := g.r.Fetch(t.Context(), Request{MaxWait: 100 * time.Millisecond, MinBytes: 1, MaxBytes: 900, ReadCommitted: committed, Parts: []Part{part(l, offset, 900)}})
				p := raw(t, res[0].Records)
				Release(res)
				if res[0].Err != nil {
					t.Fatal(res[0].Err)
				}
				if len(p) == 0 {
					break
				}
				for len(p) > 0 {
					b, rest, err := record.Parse(p)
					if err != nil {
						t.Fatal(err)
					}
					offset, p = b.NextOffset(), rest
				}
			}
			if offset != end {
				t.Errorf("committed %v: read to %d instead of %d", committed, offset, end)
			}
		}
		g.close()
	})
}

// TestHugeBatchIsDelivered reads a batch larger than every limit (KIP-74), behind
// small ones, from both tiers.
func TestHugeBatchIsDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{}, localcache.Config{MemoryBytes: 10000})
		for _, local := range []int{0, 9} {
			batches := makeBatches(5, 0, 3, small)
			batches = append(batches, makeBatches(6, batches[2].NextOffset(), 1, func(*rand.Rand) int { return 300_000 })...)
			batches = append(batches, makeBatches(7, batches[3].NextOffset(), 5, small)...)
			l := g.log(byte(10+local), batches, local, 2000, 1<<20, false)
			if got := g.replay(l, "c", 0, 1000, time.Second); !bytes.Equal(got, join(batches)) {
				t.Errorf("%d local: %d bytes, want %d", local, len(got), sizes(batches))
			}
		}
		g.close()
	})
}
