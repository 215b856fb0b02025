package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firnlog/firn/localcache"
	"github.com/firnlog/firn/record"
)

// TestReplayIsFastAndFrugal replays one cold partition, in pieces of a chunk's
// quarter, over many objects, with 30 ms to each GET: read-ahead keeps the time
// to a fraction of what one chunk at a time takes, and no byte is read twice.
func TestReplayIsFastAndFrugal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const chunkBytes = 16 << 10
		g := newRig(t, Config{CoalesceBytes: 2 * chunkBytes}, localcache.Config{MemoryBytes: 64 * chunkBytes, MaxBytes: 1 << 30})
		g.bucket.latency = 30 * time.Millisecond
		batches := makeBatches(1, 0, 4000, func(*rand.Rand) int { return 2000 })
		l := g.log(1, batches, 1, chunkBytes, 8*chunkBytes, false)
		l.arch.latency = 30 * time.Millisecond
		begin := time.Now()
		got := g.replay(l, "c", 0, chunkBytes/4, 500*time.Millisecond)
		took := time.Since(begin)
		if !bytes.Equal(got, join(batches)) {
			t.Fatal("other bytes")
		}
		cold := int64(sizes(batches[:len(batches)-1]))
		chunks := cold / chunkBytes
		if most := time.Duration(chunks) * 30 * time.Millisecond / 6; took > most {
			t.Errorf("%d chunks took %v, more than %v: not read ahead", chunks, took, most)
		}
		if got := g.bucket.bytes.Load(); got*10 > cold*11 {
			t.Errorf("%d bytes from the bucket for %d served", got, cold)
		}
		if gets := g.bucket.total.Load(); gets > chunks*3/4 {
			t.Errorf("%d GETs for %d chunks: neighbours do not share", gets, chunks)
		}
		if most := g.bucket.most.Load(); most > 20 {
			t.Errorf("%d GETs at once", most)
		}
		g.close()
	})
}

// TestSeekersReadOneChunk jumps about: nothing is read ahead of them.
func TestSeekersReadOneChunk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{}, localcache.Config{})
		batches := makeBatches(2, 0, 1000, func(*rand.Rand) int { return 2000 })
		l := g.log(1, batches, 1, 16<<10, 128<<10, false)
		for i := range 20 {
			b := batches[(i*487)%999]
			res := g.r.Fetch(t.Context(), Request{Client: "c", MaxWait: time.Second, MinBytes: 1, MaxBytes: 1000, Parts: []Part{part(l, b.BaseOffset(), 1000)}})
			if !bytes.Equal(raw(t, res[0].Records), b) {
				t.Fatal("other bytes")
			}
			Release(res)
		}
		if n := g.bucket.total.Load(); n > 20 {
			t.Errorf("%d GETs for 20 seeks", n)
		}
		g.close()
	})
}

// TestManyConsumersOfOneChunkCauseOneGet starts a crowd at the same offset.
func TestManyConsumersOfOneChunkCauseOneGet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{}, localcache.Config{})
		g.bucket.latency = 50 * time.Millisecond
		batches := makeBatches(2, 0, 60, small)
		l := g.log(1, batches, 1, 1<<20, 1<<20, false)
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				q := Request{Client: fmt.Sprint(i % 7), MaxWait: time.Second, MinBytes: 1, MaxBytes: 500, Parts: []Part{part(l, int64(i%3), 500)}}
				res := g.r.Fetch(t.Context(), q)
				if res[0].Err != nil || res[0].Records.Len() == 0 {
					t.Errorf("%d: %v", i, res[0].Err)
				}
				Release(res)
			})
		}
		synctest.Wait()
		if n, busy := g.r.cold.slots.depth(); n+busy != 3 {
			t.Errorf("40 consumers at 3 offsets take %d slots and wait for %d", busy, n)
		}
		wg.Wait()
		if n := g.bucket.total.Load(); n != 1 {
			t.Errorf("%d GETs", n)
		}
		g.close()
	})
}

// TestAServedReplayPinsNothing lets two consumers read each of eight chunks, through one
// slot and a cache of two. The second finds its chunk in the cache long before the turn
// of its job comes; that job must not fetch and pin the chunk for it once more.
func TestAServedReplayPinsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const chunkBytes, chunks = 16 << 10, 8
		g := newRig(t, Config{ColdSlots: 1}, localcache.Config{MaxBytes: 5 * chunkBytes / 2, MemoryBytes: 4 * chunkBytes, PinFor: 30 * time.Second})
		g.bucket.latency = 200 * time.Millisecond
		batches := makeBatches(2, 0, 8*chunks+1, func(*rand.Rand) int { return 1900 })
		l := g.log(1, batches, 1, chunkBytes, 15<<10, false) // eight batches each
		if len(l.arch.layouts) != chunks {
			t.Fatalf("%d objects, want %d", len(l.arch.layouts), chunks)
		}
		var wg sync.WaitGroup
		for second := range 2 {
			for i, o := range l.arch.layouts {
				at := o.base + int64(second)
				wg.Go(func() {
					for got := 0; got == 0; {
						res := g.r.Fetch(t.Context(), Request{Client: fmt.Sprint(second, i), MaxWait: 100 * time.Millisecond, MinBytes: 1, MaxBytes: 500, Parts: []Part{part(l, at, 500)}})
						if res[0].Err != nil {
							t.Error(res[0].Err)
							return
						}
						got = res[0].Records.Len()
						Release(res)
					}
				})
			}
			synctest.Wait()
		}
		wg.Wait()
		time.Sleep(10 * time.Second)
		if n, unread := g.bucket.total.Load(), g.cache.Stats().UnreadBytes; n != chunks || unread != 0 {
			t.Errorf("%d GETs of %d chunks, %d bytes are pinned for nobody", n, chunks, unread)
		}
		g.close()
	})
}

// TestHotNeverWaitsForCold asks for a hot and a cold partition with a store that
// takes ten seconds: the hot one comes at once, and the cold one comes with a
// later fetch though nobody waited for it, with one GET (SAFETY 20).
func TestHotNeverWaitsForCold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{}, localcache.Config{})
		g.bucket.latency = 10 * time.Second
		hot := newFakeLog(1, makeBatches(1, 0, 500, small))
		cold := g.log(2, makeBatches(2, 0, 50, small), 1, 4000, 1<<20, false)
		hotAt, begin := int64(0), time.Now()
		for round := 0; ; round++ {
			at := time.Now()
			// The hot one is first and would fill the answer by itself.
			q := Request{MaxWait: 500 * time.Millisecond, MinBytes: 1, MaxBytes: 600, Parts: []Part{part(hot, hotAt, 600), part(cold, 0, 600)}}
			res := g.r.Fetch(t.Context(), q)
			if d := time.Since(at); d != 0 {
				t.Fatalf("round %d: the hot partition waited %v", round, d)
			}
			if res[0].Records.Len() == 0 || res[1].Err != nil {
				t.Fatalf("round %d: %+v", round, res)
			}
			b, _, _ := record.Parse(raw(t, res[0].Records))
			hotAt = b.NextOffset()
			n := res[1].Records.Len()
			if !res[1].Cold || res[1].Waiting != (n == 0) {
				t.Fatalf("round %d: %+v", round, res[1])
			}
			Release(res)
			if n > 0 {
				break
			}
			if time.Since(begin) > 15*time.Second {
				t.Fatal("the cold partition starves")
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := g.bucket.total.Load(); n != 1 {
			t.Errorf("%d GETs for one chunk", n)
		}
		g.close()
	})
}

// TestWorkOutlivesItsRequest: requests leave while their chunks wait for a slot, or are on
// their way. All are there when their consumers come again, and stay for as long as
// the pin says, however many others pass through a cache of two chunks (SAFETY 20).
func TestWorkOutlivesItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const chunkBytes = 16 << 10
		g := newRig(t, Config{ColdSlots: 1}, localcache.Config{MaxBytes: 5 * chunkBytes / 2, PinFor: 30 * time.Second})
		g.bucket.latency, g.bucket.slow = 10*time.Millisecond, map[string]time.Duration{}
		var logs []*fakeLog
		for i := range byte(22) {
			l := g.log(i, makeBatches(uint64(i), 0, 9, func(*rand.Rand) int { return 2000 }), 1, chunkBytes, 1<<20, false)
			if i < 2 {
				g.bucket.slow[l.arch.layouts[0].key] = 5 * time.Second
			}
			logs = append(logs, l)
		}
		patient, others := logs[:2], logs[2:]
		ask := func(l *fakeLog, wait time.Duration) int {
			res := g.r.Fetch(t.Context(), Request{Client: "c", MaxWait: wait, MinBytes: 1, MaxBytes: 1000, Parts: []Part{part(l, 0, 1000)}})
			defer Release(res)
			if res[0].Err != nil {
				t.Error(res[0].Err)
			}
			return res[0].Records.Len()
		}
		for _, l := range patient {
			if ask(l, 100*time.Millisecond) != 0 {
				t.Fatal("too early")
			}
		}
		time.Sleep(11 * time.Second)
		if n := g.bucket.total.Load(); n != 2 {
			t.Fatalf("%d GETs while nobody waited, want 2", n)
		}
		for _, l := range others {
			if ask(l, time.Second) == 0 {
				t.Error("others get nothing")
			}
		}
		for i, l := range patient {
			if ask(l, 0) == 0 {
				t.Errorf("partition %d: its chunk went before anybody had read it", i)
			}
		}
		g.close()
	})
}

// TestAFullSlotIsAnEmptyPartitionAfterMaxWait: the only cold slot is taken for long. Whoever
// waits for it, and whoever finds the queue full, gets an empty partition after its max
// wait, neither an error nor sooner; with a hot partition in the request, at once. The
// answer says what is cold, because only all of it together may be throttled (SAFETY 20).
func TestAFullSlotIsAnEmptyPartitionAfterMaxWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{ColdSlots: 1}, localcache.Config{})
		g.bucket.latency = time.Millisecond
		hot := newFakeLog(200, makeBatches(1, 0, 3, small))
		const queued = 16 // of one client
		var asked []*fakeLog
		for i := range byte(queued + 3) {
			asked = append(asked, g.log(i, makeBatches(uint64(i), 0, 3, small), 1, 4000, 4000, false))
		}
		g.bucket.slow = map[string]time.Duration{asked[0].arch.layouts[0].key: 30 * time.Second}
		for i, l := range asked {
			for _, parts := range [][]Part{{part(l, 0, 1000)}, {part(l, 0, 1000), part(hot, 0, 1000)}} {
				begin, want := time.Now(), 500*time.Millisecond
				if len(parts) > 1 {
					want = 0
				}
				res := g.r.Fetch(t.Context(), Request{Client: "c", MaxWait: 500 * time.Millisecond, MinBytes: 1, MaxBytes: 4000, Parts: parts})
				if d := time.Since(begin); d != want {
					t.Errorf("consumer %d, %d partitions: answered after %v, want %v", i, len(parts), d, want)
				}
				if res[0].Err != nil || !res[0].Cold || !res[0].Waiting || res[0].Records.Len() != 0 {
					t.Errorf("consumer %d: %+v", i, res[0])
				}
				if len(parts) > 1 && (res[1].Cold || res[1].Waiting || res[1].Records.Len() == 0) {
					t.Errorf("consumer %d, hot partition: %+v", i, res[1])
				}
				Release(res)
			}
		}
		if n, busy := g.r.cold.slots.depth(); n != queued || busy != 1 {
			t.Errorf("%d wait for the slot, %d have it", n, busy)
		}
		time.Sleep(30 * time.Second)
		for i, l := range asked {
			if got := g.replay(l, "c", 0, 1000, time.Second); !bytes.Equal(got, join(l.batches)) {
				t.Errorf("consumer %d: other bytes", i)
			}
		}
		g.close()
	})
}

// TestShortWaitsMakeProgress replays with a max wait far below the store's
// latency: every fetch may be empty, the replay still ends, and no GET is wasted.
func TestShortWaitsMakeProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{}, localcache.Config{})
		g.bucket.latency = 3 * time.Second
		batches := makeBatches(4, 0, 100, small)
		l := g.log(1, batches, 1, 2000, 6000, false)
		if got := g.replay(l, "c", 0, 1000, 100*time.Millisecond); !bytes.Equal(got, join(batches)) {
			t.Error("other bytes")
		}
		if got, cold := g.bucket.bytes.Load(), int64(sizes(batches[:99])); got != cold {
			t.Errorf("%d bytes from the bucket for %d", got, cold)
		}
		g.close()
	})
}

// TestColdPartitionsOfARequestRunAtOnce asks for ten partitions whose chunks are
// all missing, and for the bytes of all of them: they take no longer than one.
func TestColdPartitionsOfARequestRunAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{}, localcache.Config{})
		g.bucket.latency = time.Second
		var parts []Part
		size := 0
		for i := range 10 {
			batches := makeBatches(uint64(i), 0, 2, small)
			l := g.log(byte(i), batches, 1, 4000, 4000, false)
			size += len(batches[0])
			parts = append(parts, part(l, 0, len(batches[0])))
		}
		begin := time.Now()
		res := g.r.Fetch(t.Context(), Request{MaxWait: 5 * time.Second, MinBytes: size, MaxBytes: 1 << 20, Parts: parts})
		if d := time.Since(begin); d != time.Second {
			t.Errorf("ten cold partitions took %v", d)
		}
		for i := range res {
			if res[i].Records.Len() != parts[i].MaxBytes {
				t.Errorf("part %d: %+v", i, res[i])
			}
		}
		Release(res)
		g.close()
	})
}

// TestAFastColdPartitionDoesNotWaitForASlowOne asks for three cold partitions whose
// objects take 100 ms, 3 s and 10 s, in every order: each answer comes when the next of
// them is there, says which are still on their way, and no object is asked for twice.
func TestAFastColdPartitionDoesNotWaitForASlowOne(t *testing.T) {
	took := []time.Duration{100 * time.Millisecond, 3 * time.Second, 10 * time.Second}
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t, Config{}, localcache.Config{})
			g.bucket.slow = map[string]time.Duration{}
			var logs []*fakeLog
			for i, d := range took {
				l := g.log(byte(i), makeBatches(uint64(i), 0, 2, small), 1, 4000, 4000, false)
				g.bucket.slow[l.arch.layouts[0].key] = d
				logs = append(logs, l)
			}
			offsets := make([]int64, len(logs))
			begin := time.Now()
			for next := range took {
				var parts []Part
				for _, i := range order {
					parts = append(parts, part(logs[i], offsets[i], 1000))
				}
				// A consumer that has got a part's last record does not ask for it again.
				parts = slices.DeleteFunc(parts, func(p Part) bool { return p.Offset > 0 })
				res := g.r.Fetch(t.Context(), Request{MaxWait: time.Minute, MinBytes: 1, MaxBytes: 1 << 20, Parts: parts})
				if d := time.Since(begin); d != took[next] {
					t.Errorf("order %v: answer %d came after %v, its partition was there after %v", order, next, d, took[next])
				}
				for j := range res {
					i := slices.Index(logs, parts[j].src.(*fakeLog))
					if ready := i == next; res[j].Err != nil || !res[j].Cold || res[j].Waiting == ready || (res[j].Records.Len() > 0) != ready {
						t.Errorf("order %v, answer %d, partition %d: %+v", order, next, i, res[j])
					}
					if res[j].Records.Len() > 0 {
						offsets[i] = logs[i].local
					}
				}
				Release(res)
			}
			if n := g.bucket.total.Load(); n != 3 {
				t.Errorf("order %v: %d GETs", order, n)
			}
			g.close()
		})
	}
}

// TestByteLimitsSpanBothTiers mixes hot and cold partitions at random; no answer
// passes the request's limit, or a partition's, but for one first batch.
func TestByteLimitsSpanBothTiers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seed := rand.Uint64()
		r := rand.New(rand.NewPCG(seed, 0))
		g := newRig(t, Config{}, localcache.Config{})
		var logs []*fakeLog
		for i := range 8 {
			logs = append(logs, g.log(byte(i), makeBatches(seed+uint64(i), 0, 60, small), r.IntN(61), 1500, 5000, i%2 == 0))
		}
		for range 300 {
			q := Request{MaxWait: time.Second, MinBytes: 1 + r.IntN(500), MaxBytes: r.IntN(3000)}
			for _, i := range r.Perm(len(logs))[:1+r.IntN(len(logs))] {
				q.Parts = append(q.Parts, part(logs[i], r.Int64N(logs[i].hw), r.IntN(1500)))
			}
			res := g.r.Fetch(t.Context(), q)
			total := 0
			for i := range res {
				if res[i].Err != nil {
					t.Fatalf("seed %d: %v", seed, res[i].Err)
				}
				n := res[i].Records.Len()
				total += n
				if n > 0 && (n > q.Parts[i].MaxBytes || total > q.MaxBytes) {
					b, rest, err := record.Parse(raw(t, res[i].Records))
					if err != nil || len(rest) > 0 || total != len(b) {
						t.Fatalf("seed %d: part %d has %d bytes (limit %d), %d in all (limit %d)", seed, i, n, q.Parts[i].MaxBytes, total, q.MaxBytes)
					}
				}
			}
			Release(res)
			if total == 0 {
				t.Fatalf("seed %d: nothing within a second", seed)
			}
		}
		g.close()
	})
}

// TestSlotsAreFairAndBounded lets one client ask for a hundred partitions before
// another asks for one.
func TestSlotsAreFairAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{ColdSlots: 4}, localcache.Config{})
		g.bucket.latency = time.Second
		var wg sync.WaitGroup
		ask := func(client string, id int, within time.Duration) {
			l := g.log(byte(id), makeBatches(uint64(id), 0, 3, small), 1, 4000, 4000, false)
			wg.Go(func() {
				begin := time.Now()
				res := g.r.Fetch(t.Context(), Request{Client: client, MaxWait: time.Hour, MinBytes: 1, MaxBytes: 1000, Parts: []Part{part(l, 0, 1000)}})
				if d := time.Since(begin); d > within || res[0].Records.Len() == 0 {
					t.Errorf("%s %d: %v after %v, within %v", client, id, res[0].Err, d, within)
				}
				Release(res)
			})
		}
		for i := range 60 { // its 60 objects take at most 30 s on its half of the slots
			ask("greedy", i, 31*time.Second)
		}
		synctest.Wait()
		if q, busy := g.r.cold.slots.depth(); busy != 2 || q != 58 {
			t.Errorf("%d queued, %d busy", q, busy)
		}
		ask("modest", 100, time.Second)
		wg.Wait()
		if n := g.bucket.most.Load(); n > 4 {
			t.Errorf("%d GETs at once with 4 slots", n)
		}
		g.close()
	})
}

// TestFullQueuesGiveEmptyAnswers overfills every queue: consumers get empty
// answers, never errors, and are served when they ask again.
func TestFullQueuesGiveEmptyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{ColdSlots: 1}, localcache.Config{})
		g.bucket.latency = time.Second
		var wg sync.WaitGroup
		for i := range 100 { // one client may queue 16
			batches := makeBatches(uint64(i), 0, 3, small)
			l := g.log(byte(i), batches, 1, 4000, 4000, false)
			wg.Go(func() {
				if got := g.replay(l, "c", 0, 1000, 500*time.Millisecond); !bytes.Equal(got, join(batches)) {
					t.Errorf("%d: other bytes", i)
				}
			})
		}
		wg.Wait()
		if n := g.bucket.total.Load(); n != 100 {
			t.Errorf("%d GETs", n)
		}
		g.close()
	})
}

// TestReplayLeavesWhatOthersReadAgain replays ten times what the cache holds, in
// small pieces, beside consumers that come back to the same few chunks.
func TestReplayLeavesWhatOthersReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{}, localcache.Config{MaxBytes: 200_000})
		hot := g.log(1, makeBatches(1, 0, 300, small), 1, 4000, 20000, false)
		pass := func(client string) int64 {
			before := g.bucket.total.Load()
			for _, b := range hot.batches {
				res := g.r.Fetch(t.Context(), Request{Client: client, MaxWait: time.Second, MinBytes: 1, MaxBytes: 1, Parts: []Part{part(hot, b.BaseOffset(), 1)}})
				Release(res)
			}
			return g.bucket.total.Load() - before
		}
		for i := range 4 {
			pass(fmt.Sprint("warm", i))
		}
		long := g.log(2, makeBatches(2, 0, 6000, func(*rand.Rand) int { return 300 }), 1, 4000, 20000, false)
		g.replay(long, "replay", 0, 800, time.Second)
		if n := pass("after"); n > 2 {
			t.Errorf("the replay cost the others %d GETs", n)
		}
		g.close()
	})
}

// TestStaleManifestIsReadOnceMore takes an object away: a new manifest that names
// another one helps, otherwise it is an error.
func TestStaleManifestIsReadOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{}, localcache.Config{})
		batches := makeBatches(1, 0, 20, small)
		l := g.log(1, batches, 1, 4000, 1<<20, false)
		g.bucket.remove(l.arch.layouts[0].key)
		l.arch.onRefresh = func(a *fakeArchive) {
			a.mu.Lock()
			a.layouts = nil
			a.mu.Unlock()
			a.upload(batches[:19], 4000, 1<<20, false, "merged")
		}
		if got := g.replay(l, "c", 0, 10000, time.Second); !bytes.Equal(got, join(batches)) || l.arch.refreshes != 1 {
			t.Errorf("%d bytes after %d refreshes", len(got), l.arch.refreshes)
		}

		l2 := g.log(2, batches, 1, 4000, 1<<20, false)
		g.bucket.remove(l2.arch.layouts[0].key)
		res := g.r.Fetch(t.Context(), Request{MaxWait: time.Second, MinBytes: 1, MaxBytes: 1000, Parts: []Part{part(l2, 0, 1000)}})
		if !errors.Is(res[0].Err, ErrColdRead) || l2.arch.refreshes != 1 {
			t.Errorf("%v after %d refreshes", res[0].Err, l2.arch.refreshes)
		}
		Release(res)
		g.close()
	})
}

// TestDamageIsAnErrorNeverSilence flips bits in what the store delivers: once,
// and the second GET helps; always, and the consumer gets an error, not an empty
// answer and no damaged byte.
func TestDamageIsAnErrorNeverSilence(t *testing.T) {
	for _, compressed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t, Config{}, localcache.Config{})
			batches := makeBatches(1, 0, 20, small)
			l := g.log(1, batches, 1, 1000, 1<<20, compressed)
			left := 1
			var mu sync.Mutex
			g.bucket.mangle = func(_ string, _ int64, p []byte) error {
				mu.Lock()
				defer mu.Unlock()
				if left > 0 {
					left--
					p[len(p)/2] ^= 4
				}
				return nil
			}
			if got := g.replay(l, "c", 0, 10000, time.Second); !bytes.Equal(got, join(batches)) {
				t.Error("one damaged answer was not mended")
			}
			mu.Lock()
			left = 1 << 30
			mu.Unlock()
			l2 := g.log(2, batches, 1, 1000, 1<<20, compressed)
			gets := g.bucket.total.Load()
			// The first request leaves before the answer: the error waits for the
			// consumer's next fetch.
			g.bucket.latency = 100 * time.Millisecond
			for i, wait := range []time.Duration{50 * time.Millisecond, time.Second} {
				res := g.r.Fetch(t.Context(), Request{MaxWait: wait, MinBytes: 1, MaxBytes: 1000, Parts: []Part{part(l2, 0, 1000)}})
				if res[0].Records.Len() != 0 || (i == 1) != errors.Is(res[0].Err, ErrColdRead) {
					t.Errorf("%d: %v, %d bytes", i, res[0].Err, res[0].Records.Len())
				}
				Release(res)
			}
			if n := g.bucket.total.Load() - gets; n != 2 {
				t.Errorf("%d GETs of a damaged chunk", n)
			}
			g.close()
		})
	}
}

// TestAChunkThatGoesBadIsFetchedAgain spoils what the cache has on disk after this
// process has written it: reads of it fail, or it is cut, or holds other bytes. The
// consumer gets all records, and each chunk costs one more GET.
func TestAChunkThatGoesBadIsFetchedAgain(t *testing.T) {
	for how, spoil := range map[string]func(g *rig) error{
		"unreadable": func(g *rig) error { g.disk.broken.Store(true); return nil },
		"cut": func(g *rig) error {
			var errs []error
			for _, f := range g.chunkFiles() {
				errs = append(errs, os.Truncate(f, 200))
			}
			return errors.Join(errs...)
		},
		"other bytes": func(g *rig) error {
			var errs []error
			for _, f := range g.chunkFiles() {
				st, err := os.Stat(f)
				errs = append(errs, err, os.WriteFile(f, bytes.Repeat([]byte{0xff}, int(st.Size())), 0o644))
			}
			return errors.Join(errs...)
		},
	} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t, Config{CoalesceBytes: 1}, localcache.Config{})
				g.bucket.latency = 50 * time.Millisecond
				batches := makeBatches(1, 0, 100, small)
				l := g.log(1, batches, 1, 2000, 6000, false)
				for round := range 3 {
					before := g.bucket.total.Load()
					if got := g.replay(l, "c", 0, 700, time.Second); !bytes.Equal(got, join(batches)) {
						t.Fatalf("round %d: other bytes", round)
					}
					chunks, gets := int64(len(g.bucket.gets)), g.bucket.total.Load()-before
					if want := []int64{chunks, chunks, 0}[round]; gets != want {
						t.Errorf("round %d: %d GETs, want %d", round, gets, want)
					}
					if round == 0 {
						if err := spoil(g); err != nil {
							t.Fatal(err)
						}
					}
				}
				g.close()
			})
		})
	}
}

// TestADiskThatLiesIsAnErrorInTheEnd: what is fetched again cannot be read either. Each
// request fetches it once more and then says so; it does not go round for as long as it may
// wait. When the disk is well the same request succeeds.
func TestADiskThatLiesIsAnErrorInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The disk is trusted again at once, so what is fetched again lands on it.
		g := newRig(t, Config{}, localcache.Config{DiskRetry: time.Millisecond})
		g.bucket.latency = 50 * time.Millisecond
		l := g.log(1, makeBatches(1, 0, 20, small), 1, 4000, 1<<20, false)
		q := Request{MaxWait: 10 * time.Second, MinBytes: 1, MaxBytes: 1000, Parts: []Part{part(l, 0, 1000)}}
		for i, broken := range []bool{false, true, true, false} {
			before, begin := g.bucket.total.Load(), time.Now()
			g.disk.broken.Store(broken)
			res := g.r.Fetch(t.Context(), q)
			if broken != errors.Is(res[0].Err, ErrColdRead) || broken != (res[0].Records.Len() == 0) {
				t.Errorf("request %d, disk broken %v: %d bytes, %v", i, broken, res[0].Records.Len(), res[0].Err)
			}
			n, d := g.bucket.total.Load()-before, time.Since(begin)
			if want := []int64{1, 1, 2, 1}[i]; n != want || d > time.Second {
				t.Errorf("request %d, disk broken %v: %d GETs in %v, want %d", i, broken, n, d, want)
			}
			Release(res)
		}
		g.close()
	})
}

// TestRecordsThatCannotBeSentAreFetchedAgain: the file fails after the answer was put
// together, while its records are copied. That answer is lost; the next is not.
func TestRecordsThatCannotBeSentAreFetchedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{}, localcache.Config{})
		batches := makeBatches(1, 0, 20, small)
		l := g.log(1, batches, 1, 1<<20, 1<<20, false)
		q := Request{MaxWait: time.Second, MinBytes: 1, MaxBytes: 1000, Parts: []Part{part(l, 0, 1000)}}
		// A client that goes away says nothing of the file.
		res := g.r.Fetch(t.Context(), q)
		if _, err := res[0].Records.WriteTo(brokenPipe{}); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("got %v", err)
		}
		Release(res)
		for i, broken := range []bool{true, false} {
			res := g.r.Fetch(t.Context(), q)
			if n := g.bucket.total.Load(); n != int64(1+i) {
				t.Errorf("answer %d: %d GETs", i, n)
			}
			if res[0].Err != nil {
				t.Fatal(res[0].Err)
			}
			g.disk.broken.Store(broken)
			var b bytes.Buffer
			if _, err := res[0].Records.WriteTo(&b); (err != nil) != broken {
				t.Errorf("answer %d: %v", i, err)
			}
			Release(res)
			g.disk.broken.Store(false)
		}
		g.close()
	})
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, syscall.EPIPE }

// TestStoreThatRecoversCostsOnlyTime answers with errors now and then.
func TestStoreThatRecoversCostsOnlyTime(t *testing.T) {
	for range 10 {
		seed := rand.Uint64()
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t, Config{}, localcache.Config{})
			r := rand.New(rand.NewPCG(seed, 0))
			var mu sync.Mutex
			g.bucket.latency = 10 * time.Millisecond
			g.bucket.mangle = func(string, int64, []byte) error {
				mu.Lock()
				defer mu.Unlock()
				if r.IntN(12) == 0 {
					return errors.New("503 slow down")
				}
				return nil
			}
			batches := makeBatches(seed, 0, 100, small)
			l := g.log(1, batches, 10, 1000, 5000, false)
			if got := g.replay(l, "c", 0, 1000, 2*time.Second); !bytes.Equal(got, join(batches)) && !t.Failed() {
				t.Errorf("seed %d: other bytes", seed)
			}
			g.close()
		})
	}
}

// TestDeadStoreIsAnErrorInTime never answers: fetches come back after their max
// wait, the consumer hears of it after the cold deadline, and hot reads go on.
func TestDeadStoreIsAnErrorInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{ColdTimeout: 20 * time.Second}, localcache.Config{FillTimeout: time.Minute})
		g.bucket.latency = time.Hour
		l := g.log(1, makeBatches(1, 0, 20, small), 1, 4000, 1<<20, false)
		begin := time.Now()
		for {
			at := time.Now()
			res := g.r.Fetch(t.Context(), Request{MaxWait: 500 * time.Millisecond, MinBytes: 1, MaxBytes: 1000, Parts: []Part{part(l, 0, 1000)}})
			Release(res)
			if d := time.Since(at); d > 500*time.Millisecond {
				t.Fatalf("a fetch took %v", d)
			}
			if errors.Is(res[0].Err, ErrColdRead) {
				break
			}
			if time.Since(begin) > 30*time.Second {
				t.Fatal("never an error")
			}
		}
		g.close()
	})
}

// TestHoleIsAnError asks for an offset that neither tier has.
func TestHoleIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{}, localcache.Config{})
		l := newFakeLog(1, makeBatches(1, 0, 20, small))
		l.arch = &fakeArchive{log: l, bucket: g.bucket}
		l.local = l.batches[10].BaseOffset()
		for _, a := range []*fakeArchive{l.arch, nil} {
			l.arch = a
			res := g.r.Fetch(t.Context(), Request{MaxWait: time.Second, MinBytes: 1, MaxBytes: 1000, Parts: []Part{part(l, 0, 1000)}})
			if !errors.Is(res[0].Err, ErrColdRead) {
				t.Errorf("got %v", res[0].Err)
			}
			Release(res)
		}
		g.close()
	})
}

// TestReplayAfterARestartUsesTheCache reads once, restarts, takes the bucket's
// objects away and reads again.
func TestReplayAfterARestartUsesTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{}, localcache.Config{})
		batches := makeBatches(1, 0, 200, small)
		l := g.log(1, batches, 10, 2000, 10000, true)
		g.replay(l, "c", 0, 1000, time.Second)
		gets := g.bucket.total.Load()
		g.reopen(Config{}, localcache.Config{})
		if got := g.replay(l, "c", 0, 1000, time.Second); !bytes.Equal(got, join(batches)) {
			t.Error("other bytes")
		}
		if n := g.bucket.total.Load(); n != gets {
			t.Errorf("%d GETs after the restart", n-gets)
		}
		g.close()
	})
}

// TestRecreatedTopicShowsNoOldRecord reads a topic, then another of the same name
// and partition, with other records at the same offsets.
func TestRecreatedTopicShowsNoOldRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{}, localcache.Config{})
		for id := range byte(3) {
			batches := makeBatches(uint64(id), 0, 50, small)
			l := g.log(id, batches, 5, 2000, 10000, false)
			if got := g.replay(l, "c", 0, 1000, time.Second); !bytes.Equal(got, join(batches)) {
				t.Errorf("topic %d: other bytes", id)
			}
		}
		// The same partition under a new leader epoch whose lineage lost the
		// object's records: what was known of the old one does not count.
		l := g.log(9, makeBatches(50, 0, 50, small), 5, 2000, 10000, false)
		g.replay(l, "c", 0, 1000, time.Second)
		other := makeBatches(51, 0, 60, small)
		l.batches, l.leaderEpoch, l.local = other, 1, other[44].NextOffset()
		l.hw = other[59].NextOffset()
		l.lso = l.hw
		l.arch.layouts = nil
		l.arch.upload(other[:45], 2000, 10000, false, "b")
		if got := g.replay(l, "c", 0, 1000, time.Second); !bytes.Equal(got, join(other)) {
			t.Error("bytes of the old lineage")
		}
		g.close()
	})
}

// TestReplaysRaceEachOther runs many consumers over several partitions with a
// small cache and little memory, a store with faults, and watermarks that move.
func TestReplaysRaceEachOther(t *testing.T) {
	seed := rand.Uint64()
	g := newRig(t, Config{ColdSlots: 4, CoalesceBytes: 5000}, localcache.Config{MaxBytes: 60_000, MemoryBytes: 20_000, PinFor: 20 * time.Millisecond})
	r := rand.New(rand.NewPCG(seed, 0))
	var mu sync.Mutex
	damaged := map[string]bool{} // twice in a row would be an error by right
	g.bucket.mangle = func(key string, off int64, p []byte) error {
		mu.Lock()
		defer mu.Unlock()
		switch r.IntN(50) {
		case 0:
			if at := fmt.Sprint(key, off); !damaged[at] {
				damaged[at] = true
				p[r.IntN(len(p))] ^= 1
			}
		case 1:
			return errors.New("503")
		}
		return nil
	}
	var wg sync.WaitGroup
	for i := range 4 {
		batches := makeBatches(seed+uint64(i), 0, 150, small)
		l := g.log(byte(i), batches, 20, 1500, 7000, i%2 == 0)
		want := join(batches)
		for j := range 5 {
			wg.Go(func() {
				if got := g.replay(l, fmt.Sprint(j%2), 0, 500+200*j, 100*time.Millisecond); !bytes.Equal(got, want) {
					t.Errorf("seed %d: partition %d consumer %d: %d bytes, want %d", seed, i, j, len(got), len(want))
				}
			})
		}
	}
	wg.Wait()
}

// TestCancelledRequestLeavesNothingBehind ends requests by their context.
func TestCancelledRequestLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{}, localcache.Config{})
		g.bucket.latency = time.Second
		l := g.log(1, makeBatches(1, 0, 20, small), 1, 4000, 1<<20, false)
		for range 50 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			res := g.r.Fetch(ctx, Request{MaxWait: time.Hour, MinBytes: 1, MaxBytes: 1000, Parts: []Part{part(l, 0, 1000)}})
			Release(res)
			cancel()
		}
		g.r.cold.mu.Lock()
		for k, j := range g.r.cold.jobs {
			if len(j.subs) != 0 {
				t.Errorf("%v: %d requests still attached", k, len(j.subs))
			}
		}
		g.r.cold.mu.Unlock()
		if len(l.subs) != 0 {
			t.Errorf("%d subscriptions", len(l.subs))
		}
		time.Sleep(2 * time.Second)
		if n := g.bucket.total.Load(); n != 1 {
			t.Errorf("%d GETs", n)
		}
		g.close()
	})
}
