// Package spine tests the product's spine from outside: one firn process, an
// unmodified client, and what survives when the process does not.
package spine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/firnlog/firn/integration/ledger"
	"github.com/firnlog/firn/integration/node"
	"github.com/firnlog/firn/internal/failpoint"
)

func client(t *testing.T, n *node.Node, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(n.Addr), kgo.MetadataMinAge(50 * time.Millisecond)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func createTopic(t *testing.T, n *node.Node, topic string, partitions int32, configs map[string]string) {
	t.Helper()
	c := map[string]*string{}
	for k, v := range configs {
		c[k] = &v
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := kadm.NewClient(client(t, n)).CreateTopic(ctx, partitions, 1, c, topic); err != nil {
		t.Fatal(err)
	}
}

func verify(t *testing.T, n *node.Node, l *ledger.Ledger, topic string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := l.Verify(ctx, topic, kgo.SeedBrokers(n.Addr)); err != nil {
		t.Fatal(err)
	}
}

// TestEveryCodecComesBackAfterARestart produces with each codec, null keys and
// values, headers and a 900 KiB record, and reads all of it back before and after
// a clean restart.
func TestEveryCodecComesBackAfterARestart(t *testing.T) {
	n := node.Start(t)
	createTopic(t, n, "codecs", 3, nil)
	l := ledger.New()
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	for i, codec := range codecs {
		cl := client(t, n, kgo.ProducerBatchCompression(codec), kgo.DefaultProduceTopic("codecs"))
		for j := range 300 {
			r := &kgo.Record{Key: []byte(fmt.Sprintf("k%d", j%7)), Value: []byte(fmt.Sprintf("codec %d record %d", i, j)), Timestamp: time.UnixMilli(1_700_000_000_000 + int64(j))}
			switch j % 10 {
			case 0:
				r.Key = nil
			case 1:
				r.Value = nil
			case 2:
				r.Headers = []kgo.RecordHeader{{Key: "h", Value: []byte{0, 1, 2}}, {Key: "empty", Value: nil}}
			case 3:
				r.Value = []byte{}
			}
			if j == 299 {
				r.Value = make([]byte, 900<<10)
				for k := range r.Value {
					r.Value[k] = byte(rand.Uint32())
				}
			}
			cl.Produce(context.Background(), r, l.Ack)
		}
		if err := cl.Flush(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if l.Count() != 1500 {
		t.Fatalf("%d of 1500 records were acknowledged", l.Count())
	}
	verify(t, n, l, "codecs")
	n.Stop()
	n.Up()
	verify(t, n, l, "codecs")
}

// TestKillKeepsAcknowledged kills the process with kill -9 again and again while
// producers have requests in flight. A kill counts only when it cut off at least one
// that was on the wire.
// Then every acknowledged record is there, at its offset, with its bytes, and the
// offsets have no gap.
func TestKillKeepsAcknowledged(t *testing.T) {
	kills := 30
	if s := os.Getenv("FIRN_TEST_KILLS"); s != "" {
		var err error
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	for _, durability := range []string{"fsync", "replicated"} {
		t.Run(durability, func(t *testing.T) {
			n := node.Start(t)
			createTopic(t, n, "t", 4, map[string]string{"firn.durability": durability, "segment.bytes": "1048576"})
			h := startHammer(t, n)
			l := h.ledger
			rounds := kills / 2
			for hit := 0; hit < rounds; {
				target := l.Count() + int64(100+rand.IntN(400))
				waitFor(t, 60*time.Second, func() bool { return l.Count() >= target })
				before := h.wire.cut.Load()
				n.Kill()
				if h.wire.settled(t) > before {
					hit++
				}
				n.Up()
			}
			h.stop()
			t.Logf("verify: %d kills, %d requests cut off, %d sent, %d acknowledged", rounds, h.wire.cut.Load(), h.sent.Load(), l.Count())
			verify(t, n, l, "t")
		})
	}
}

// wire counts the produce requests that a broker has got and not answered, and those
// that it never answered because it was gone.
type wire struct{ open, cut atomic.Int64 }

const produceKey = 0

// OnBrokerWrite is kgo's: a request goes out.
func (w *wire) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	if key == produceKey {
		w.open.Add(1)
	}
}

// OnBrokerE2E is kgo's: a request was answered, or never will be.
func (w *wire) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e kgo.BrokerE2E) {
	if key != produceKey {
		return
	}
	if e.BytesWritten > 0 && (e.ReadErr != nil || e.WriteErr != nil) {
		w.cut.Add(1)
	}
	w.open.Add(-1)
}

// settled waits until the client knows what became of all requests to a process
// that is gone, and returns how many were cut off so far.
func (w *wire) settled(t *testing.T) int64 {
	t.Helper()
	waitFor(t, 20*time.Second, func() bool { return w.open.Load() <= 0 })
	return w.cut.Load()
}

// hammer produces without pause, through whatever happens to the broker.
type hammer struct {
	t              *testing.T
	ledger         *ledger.Ledger
	cl             *kgo.Client
	wire           *wire
	inFlight, sent atomic.Int64
	cancel         context.CancelFunc
	wg             sync.WaitGroup
}

func startHammer(t *testing.T, n *node.Node) *hammer {
	h := &hammer{t: t, ledger: ledger.New(), wire: &wire{}}
	h.cl = client(t, n, kgo.WithHooks(h.wire), kgo.DefaultProduceTopic("t"), kgo.ProducerLinger(0), kgo.RecordRetries(1<<20), kgo.RetryBackoffFn(func(int) time.Duration { return 10 * time.Millisecond }),
		kgo.ProduceRequestTimeout(5*time.Second), kgo.DialTimeout(time.Second))
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	t.Cleanup(cancel)
	for w := range 4 {
		h.wg.Add(1)
		go func() {
			defer h.wg.Done()
			value := make([]byte, 2000)
			for i := 0; ctx.Err() == nil; i++ {
				if h.inFlight.Load() > 500 {
					runtimeYield()
					continue
				}
				v := append([]byte(fmt.Sprintf("w%d-%d-", w, i)), value...)
				h.inFlight.Add(1)
				h.sent.Add(1)
				h.cl.Produce(context.Background(), &kgo.Record{Key: []byte(fmt.Sprint(w, i%50)), Value: v}, func(r *kgo.Record, err error) {
					h.ledger.Ack(r, err)
					h.inFlight.Add(-1)
				})
			}
		}()
	}
	return h
}

// stop ends the load and waits until everything that was sent is acknowledged.
func (h *hammer) stop() {
	h.t.Helper()
	h.cancel()
	h.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := h.cl.Flush(ctx); err != nil {
		h.t.Fatalf("not everything was acknowledged in the end: %v", err)
	}
}

// TestKillAtEveryFailpoint lets the process end itself at each named place of the
// write path, of tiering and of recovery, with data on its way to the bucket and off
// the disk. An end counts only when it cut off a produce request that was on the
// wire; in recovery, which no client reaches, when the kill before it did.
// FIRN_TEST_FAILPOINT_KILLS is how often at each. In the end the bucket holds what its
// manifests name and nothing else.
func TestKillAtEveryFailpoint(t *testing.T) {
	each := 2
	if s := os.Getenv("FIRN_TEST_FAILPOINT_KILLS"); s != "" {
		var err error
		if each, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	n := node.Start(t)
	createTopic(t, n, "t", 4, map[string]string{"segment.bytes": "1048576", "local.retention.ms": "1"})
	h := startHammer(t, n)
	kills := map[string]int{}
	for _, name := range failpoint.Names {
		for tries := 0; kills[name] < each; tries++ {
			if tries > 20*each {
				t.Fatalf("%s: only %d of %d ends cut off a request", name, kills[name], tries)
			}
			if endAt(t, n, h, name) {
				kills[name]++
			}
		}
	}
	t.Logf("verify: %v; %d requests cut off, %d sent, %d acknowledged", kills, h.wire.cut.Load(), h.sent.Load(), h.ledger.Count())
	nothingIsLeft(t, n, h)
}

// endAt kills the process under load, starts it with the failpoint armed, and waits
// for its end. It says whether that cut off a request.
func endAt(t *testing.T, n *node.Node, h *hammer, name string) bool {
	t.Helper()
	target := h.ledger.Count() + 100
	waitFor(t, 60*time.Second, func() bool { return h.ledger.Count() >= target })
	before := h.wire.cut.Load()
	n.Kill() // nothing here stops cleanly
	killed := h.wire.settled(t)
	nth := 1
	switch name {
	case failpoint.Recovery:
	case failpoint.Fsync, failpoint.Synced, failpoint.Checkpoint:
		nth = 10 + rand.IntN(30) // a recovery passes some of them
	case failpoint.Append:
		nth = 1 + rand.IntN(200)
	default:
		nth = 1 + rand.IntN(4)
	}
	n.Env = []string{fmt.Sprintf("FIRN_FAILPOINTS=%s:%d", name, nth)}
	n.Launch()
	if err := n.Reap(60 * time.Second); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("at %s:%d: %v", name, nth, err)
	}
	after := h.wire.settled(t)
	n.Env = nil
	n.Up()
	if name == failpoint.Recovery {
		return killed > before
	}
	return after > killed
}

func runtimeYield() { <-time.After(time.Millisecond) }

func waitFor(t *testing.T, within time.Duration, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatal("condition was not met in time")
		}
		runtimeYield()
	}
}

// TestMissingTopicIsMade produces to a topic that nobody made, with a client's
// default retries.
func TestMissingTopicIsMade(t *testing.T) {
	n := node.Start(t, "--set", "num.partitions=2")
	cl := client(t, n, kgo.AllowAutoTopicCreation())
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "made", Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// TestSecondProcessIsRefused starts another process on the same data dir: it must
// say so in one line, and the first one must not notice.
func TestSecondProcessIsRefused(t *testing.T) {
	n := node.Start(t)
	other := node.New(t)
	other.DataDir = n.DataDir
	out, err := other.Command().CombinedOutput()
	if err == nil {
		t.Fatal("a second process runs on the same data dir")
	}
	if got := string(out); !containsAll(got, "in use by another process", "--data-dir") {
		t.Fatalf("refusal does not say what to do: %s", got)
	}
	createTopic(t, n, "after", 1, nil)
}

func containsAll(s string, parts ...string) bool {
	for _, p := range parts {
		found := false
		for i := 0; i+len(p) <= len(s); i++ {
			if s[i:i+len(p)] == p {
				found = true
				break
			}
		}
		if !found {
			return false
		}
	}
	return true
}
