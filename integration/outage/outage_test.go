// Package outage lets the bucket fail while producers, readers of the tail and
// readers of the bucket are at work. Producers and the tail must not notice;
// whoever reads from the bucket waits and then has everything; and when the store
// is well again so is the service, without a hand.
package outage

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/firnlog/firn/integration/ledger"
	"github.com/firnlog/firn/integration/node"
	"github.com/firnlog/firn/integration/s3"
	"github.com/firnlog/firn/integration/s3/proxy"
)

// TestMain lets the cases run side by side: they wait for each other's back-off
// rather than work.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f != nil {
		if err := f.Value.Set("12"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

const (
	topic      = "t"
	partitions = 2
	// patience bounds what a healthy bucket has to do, and promptness what an
	// ailing one must not delay.
	patience   = 30 * time.Second
	promptness = 5 * time.Second
)

// outage is a way for a store to fail.
type outage struct {
	rules []proxy.Rule
	// puts and gets say that it meets uploads, and cold reads.
	puts, gets bool
	// kill ends the process as kill -9 does before the store is well: it starts
	// with uploads whose outcome nobody knows.
	kill bool
}

func outages(until <-chan struct{}) map[string]outage {
	always := func(rules ...proxy.Rule) []proxy.Rule {
		for i := range rules {
			rules[i].Times = -1
		}
		return rules
	}
	return map[string]outage{
		"500":                  {always(proxy.Rule{Action: proxy.Refuse, Status: 500}), true, true, false},
		"503 SlowDown":         {always(proxy.Rule{Action: proxy.Refuse, Status: 503}), true, true, false},
		"connections end":      {always(proxy.Rule{Action: proxy.Drop}), true, true, false},
		"no answer":            {always(proxy.Rule{Action: proxy.Hang, Until: until}), true, true, false},
		"effect, no answer":    {always(proxy.Rule{Action: proxy.Lose, Method: http.MethodPut, Until: until}), true, false, false},
		"effect, and a kill":   {always(proxy.Rule{Action: proxy.Lose, Method: http.MethodPut}), true, false, true},
		"effect, lost answer":  {always(proxy.Rule{Action: proxy.Lose}), true, true, false},
		"short bodies":         {always(proxy.Rule{Action: proxy.Cut, Method: http.MethodGet, Bytes: 100}), false, true, false},
		"corrupt bodies":       {always(proxy.Rule{Action: proxy.Damage, Method: http.MethodGet, Bytes: 20}), false, true, false},
		"corrupt far behind":   {always(proxy.Rule{Action: proxy.Damage, Method: http.MethodGet, Match: ".seg", Bytes: 30_000}), false, true, false},
		"everything, at times": {nil, true, true, false},
	}
}

// chaos injects one fault after the other until ctx is over, each for the next
// request that it fits, with a short peace in between.
func chaos(ctx context.Context, p *proxy.Proxy, met func(*http.Request)) {
	for ctx.Err() == nil {
		hit := make(chan struct{})
		r := proxy.Rule{Skip: rand.IntN(3), Met: func(req *http.Request) {
			met(req)
			close(hit)
		}}
		switch rand.IntN(6) {
		case 0:
			r.Action, r.Status = proxy.Refuse, 500
		case 1:
			r.Action, r.Status = proxy.Refuse, 503
		case 2:
			r.Action = proxy.Lose
		case 3:
			r.Action, r.Method, r.Bytes = proxy.Cut, http.MethodGet, rand.Int64N(5000)
		case 4:
			r.Action, r.Method, r.Bytes = proxy.Damage, http.MethodGet, rand.Int64N(5000)
		case 5:
			r.Action = proxy.Drop
		}
		p.Inject(r)
		select {
		case <-hit:
		case <-time.After(100 * time.Millisecond):
			p.Heal()
		case <-ctx.Done():
		}
		<-time.After(rand.N(5 * time.Millisecond))
	}
}

// TestTheBucketFails runs each outage against a node and a store of its own, with
// the two drivers by turns.
func TestTheBucketFails(t *testing.T) {
	for i, name := range slices.Sorted(maps.Keys(outages(nil))) {
		driver := []string{"aws", "minio"}[i%2]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Logf("driver %s", driver)
			fail(t, name, driver)
		})
	}
}

func fail(t *testing.T, name, driver string) {
	store := s3.ServeVersityGW(t, t.TempDir())
	p := proxy.Start(t, store.URL)
	n := node.New(t, "--bucket", store.Through(p.URL).URLOf(store.NewBucket(t), "logs", driver), "--cache-size", "1MiB")
	n.Env = store.Env()
	n.Up()
	adm := kadm.NewClient(client(t, n))
	configs := map[string]*string{}
	for k, v := range map[string]string{"segment.bytes": "1048576", "local.retention.ms": "1", "firn.remote.max.unuploaded.ms": "1000"} {
		configs[k] = &v
	}
	if _, err := adm.CreateTopic(t.Context(), partitions, 1, configs, topic); err != nil {
		t.Fatal(err)
	}
	load := produce(t, n)
	until(t, patience, "records are only in the bucket", func() bool {
		local := offsets(t, adm, -4)
		return local[0] > 0 && local[1] > 0
	})

	// It fails.
	release := make(chan struct{})
	var puts, gets atomic.Int64
	met := func(r *http.Request) {
		if r.Method == http.MethodPut {
			puts.Add(1)
		}
		if r.Method == http.MethodGet {
			gets.Add(1)
		}
	}
	o := outages(release)[name]
	ctx, heal := context.WithCancel(t.Context())
	t.Cleanup(heal)
	var wg sync.WaitGroup
	for _, r := range o.rules {
		r.Met = met
		p.Inject(r)
	}
	if o.rules == nil {
		wg.Go(func() { chaos(ctx, p, met) })
	}
	load.slowest.Store(0)
	acked := load.ledger.Count()
	cold := read(t, n, kgo.NewOffset().AtStart())
	tail := read(t, n, kgo.NewOffset().AtEnd())
	until(t, patience, "the outage is felt", func() bool {
		return (!o.puts || puts.Load() > 0) && (!o.gets || gets.Load() > 0) && (o.rules != nil || puts.Load()+gets.Load() >= 6)
	})
	until(t, patience, "producers go on", func() bool { return load.ledger.Count() >= acked+300 })
	until(t, patience, "readers of the tail go on", func() bool { return tail.count() >= 100 })
	began := time.Now()
	if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, "another"); err != nil {
		t.Errorf("create a topic: %v", err)
	}
	if d := time.Since(began); d > promptness {
		t.Errorf("a topic was created in %v", d)
	}
	if d := time.Duration(load.slowest.Load()); d > promptness {
		t.Errorf("an acknowledgement took %v", d)
	}
	// Once more a little later, when failures have been counted and waited for.
	acked = load.ledger.Count()
	until(t, patience, "producers still go on", func() bool { return load.ledger.Count() >= acked+200 })
	t.Logf("%d PUTs and %d GETs met the fault; the slowest acknowledgement took %v", puts.Load(), gets.Load(), time.Duration(load.slowest.Load()).Round(time.Millisecond))

	// It is well again.
	if o.kill {
		n.Kill()
	}
	heal()
	wg.Wait()
	p.Heal()
	close(release)
	if o.kill {
		n.Up()
	}
	began = time.Now()
	ends := offsets(t, adm, -1)
	until(t, patience, "uploads go on", func() bool {
		tiered := offsets(t, adm, -5)
		for i, end := range ends {
			if tiered[i]+1 < end {
				return false
			}
		}
		return true
	})
	uploads := time.Since(began)
	until(t, patience, "the reader of the bucket has all of it", func() bool { return cold.has(ends) })
	t.Logf("after the outage uploads were up to date in %v, the reader in %v", uploads.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))

	load.stop()
	ends = offsets(t, adm, -1)
	until(t, patience, "both readers have the rest", func() bool { return cold.has(ends) && tail.has(ends) })
	load.compare(cold, true)
	load.compare(tail, false)

	// What the bucket has is whole, by itself.
	until(t, patience, "everything is only in the bucket", func() bool {
		local := offsets(t, adm, -4)
		return local[0] == ends[0] && local[1] == ends[1]
	})
	n.Stop()
	if err := os.RemoveAll(filepath.Join(n.DataDir, "cache")); err != nil {
		t.Fatal(err)
	}
	n.Up()
	vctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := load.ledger.Verify(vctx, topic, kgo.SeedBrokers(n.Addr)); err != nil {
		t.Error(err)
	}
	if strings.Contains(n.Log(), "panic") {
		t.Error("the log has a panic")
	}
}

func client(t *testing.T, n *node.Node, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(n.Addr), kgo.MetadataMinAge(50 * time.Millisecond)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// until waits for cond and fails the test when it does not come.
func until(t *testing.T, within time.Duration, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// offsets is ListOffsets of all partitions for a timestamp.
func offsets(t *testing.T, adm *kadm.Client, ts int64) (all [partitions]int64) {
	t.Helper()
	l, err := adm.ListOffsetsAfterMilli(t.Context(), ts, topic)
	if err = errors.Join(err, l.Error()); err != nil {
		t.Fatalf("ListOffsets %d: %v", ts, err)
	}
	l.Each(func(o kadm.ListedOffset) { all[o.Partition] = o.Offset })
	return all
}

// load is a steady producer.
type load struct {
	t       *testing.T
	ledger  *ledger.Ledger
	cl      *kgo.Client
	slowest atomic.Int64 // acknowledgement, in ns
	cancel  context.CancelFunc
	done    chan struct{}

	mu    sync.Mutex
	acked [partitions]map[int64]uint32
}

func produce(t *testing.T, n *node.Node) *load {
	l := &load{t: t, ledger: ledger.New(), done: make(chan struct{})}
	for i := range l.acked {
		l.acked[i] = map[int64]uint32{}
	}
	l.cl = client(t, n, kgo.DefaultProduceTopic(topic), kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	t.Cleanup(cancel)
	go func() {
		defer close(l.done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			value := make([]byte, 2000)
			for j := range value {
				value[j] = byte(rand.Uint32())
			}
			sent := time.Now()
			r := &kgo.Record{Key: fmt.Appendf(nil, "%d", i), Value: value}
			l.cl.Produce(context.Background(), r, func(r *kgo.Record, err error) {
				for took := int64(time.Since(sent)); ; {
					if old := l.slowest.Load(); took <= old || l.slowest.CompareAndSwap(old, took) {
						break
					}
				}
				l.ledger.Ack(r, err)
				if err != nil {
					t.Errorf("produce: %v", err)
					return
				}
				l.mu.Lock()
				l.acked[r.Partition][r.Offset] = ledger.Sum(r)
				l.mu.Unlock()
			})
		}
	}()
	return l
}

// stop ends the load; everything that was sent is acknowledged then.
func (l *load) stop() {
	l.t.Helper()
	l.cancel()
	<-l.done
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := l.cl.Flush(ctx); err != nil {
		l.t.Fatalf("flush: %v", err)
	}
}

// compare holds what a reader got against what was acknowledged.
func (l *load) compare(r *reader, whole bool) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	for p, acked := range l.acked {
		if first := r.first[p]; whole && first != 0 {
			l.t.Errorf("partition %d: the reader began at %d", p, first)
		}
		wrong := 0
		for offset, sum := range acked {
			if got, ok := r.got[p][offset]; offset >= r.first[p] && (!ok || got != sum) {
				wrong++
			}
		}
		if wrong > 0 {
			l.t.Errorf("partition %d: %d of %d acknowledged records were not read, or are others", p, wrong, len(acked))
		}
	}
}

// reader reads all partitions on and on and minds the order.
type reader struct {
	mu          sync.Mutex
	first, next [partitions]int64
	got         [partitions]map[int64]uint32
}

func read(t *testing.T, n *node.Node, from kgo.Offset) *reader {
	t.Helper()
	r := &reader{}
	assign := map[int32]kgo.Offset{}
	for i := range partitions {
		r.first[i], r.got[i] = -1, map[int64]uint32{}
		assign[int32(i)] = from
	}
	cl := client(t, n, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: assign}), kgo.FetchMaxPartitionBytes(200_000), kgo.FetchMaxWait(200*time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	go func() {
		for {
			fetches := cl.PollFetches(context.Background())
			if fetches.IsClientClosed() {
				return
			}
			fetches.EachError(func(_ string, p int32, err error) { t.Errorf("reading partition %d: %v", p, err) })
			r.mu.Lock()
			fetches.EachRecord(func(rec *kgo.Record) {
				p := rec.Partition
				if r.first[p] < 0 {
					r.first[p], r.next[p] = rec.Offset, rec.Offset
				}
				if rec.Offset != r.next[p] {
					t.Errorf("partition %d: read offset %d where %d was due", p, rec.Offset, r.next[p])
				}
				r.next[p] = rec.Offset + 1
				r.got[p][rec.Offset] = ledger.Sum(rec)
			})
			r.mu.Unlock()
		}
	}()
	return r
}

func (r *reader) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got[0]) + len(r.got[1])
}

// has says whether the reader has come to ends.
func (r *reader) has(ends [partitions]int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next[0] >= ends[0] && r.next[1] >= ends[1]
}
