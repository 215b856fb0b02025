package limits

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/integration/node"
)

// eventually waits until ok, asking again and again.
func eventually(t *testing.T, what string, within time.Duration, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(within); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("after %v still not: %s", within, what)
		}
	}
}

func get(n *node.Node, path string) (string, error) {
	resp, err := http.Get("http://" + n.Admin + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return string(raw), err
}

// goroutines counts those of the process.
func goroutines(t *testing.T, n *node.Node) int {
	t.Helper()
	s, err := get(n, "/debug/pprof/goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	_, count, _ := strings.Cut(strings.SplitN(s, "\n", 2)[0], "total ")
	c, err := strconv.Atoi(count)
	if err != nil {
		t.Fatalf("%q: %v", s[:min(len(s), 100)], err)
	}
	return c
}

// metric is the value of a series, 0 when there is none.
func metric(t *testing.T, n *node.Node, name string) float64 {
	t.Helper()
	s, err := get(n, "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(s) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
	}
	return 0
}

// resident is a line of /proc/PID/status, in bytes.
func resident(n *node.Node, line string) int64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.Pid()))
	if err != nil {
		return 0
	}
	for l := range strings.Lines(string(raw)) {
		var kib int64
		if _, err := fmt.Sscanf(l, line+": %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	return 0
}

// watch samples the resident memory until its stop is called, which returns the
// most that was seen.
func watch(n *node.Node) (stop func() int64) {
	quit, done := make(chan struct{}), make(chan struct{})
	most := int64(0)
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			most = max(most, resident(n, "VmRSS"))
			select {
			case <-tick.C:
			case <-quit:
				return
			}
		}
	}()
	return sync.OnceValue(func() int64 {
		close(quit)
		<-done
		return most
	})
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

func createTopic(t *testing.T, n *node.Node, topic string, partitions int32, configs map[string]string) {
	t.Helper()
	c := map[string]*string{}
	for k, v := range configs {
		c[k] = &v
	}
	cl := client(t, n)
	defer cl.Close()
	if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), partitions, 1, c, topic); err != nil {
		t.Fatal(err)
	}
}

// fillTopic produces mib MiB of noise, in records of 32 KiB.
func fillTopic(t *testing.T, n *node.Node, topic string, mib int) {
	t.Helper()
	cl := client(t, n, kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	defer cl.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	for range mib * 32 {
		p := make([]byte, 32<<10)
		for i := 0; i < len(p); i += 8 {
			v := rng.Uint64()
			for j := range 8 {
				p[i+j] = byte(v >> (8 * j))
			}
		}
		cl.Produce(t.Context(), &kgo.Record{Value: p}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("fill %s: %v", topic, err)
			}
		})
	}
	if err := cl.Flush(t.Context()); err != nil || t.Failed() {
		t.Fatalf("fill %s: %v", topic, err)
	}
}

// ends are the offsets that ListOffsets answers for a timestamp: -4 is the local
// start, -1 the end.
func ends(t *testing.T, n *node.Node, topic string, timestamp int64) map[int32]int64 {
	t.Helper()
	cl := client(t, n)
	defer cl.Close()
	l, err := kadm.NewClient(cl).ListOffsetsAfterMilli(t.Context(), timestamp, topic)
	if err != nil {
		t.Fatal(err)
	}
	out := map[int32]int64{}
	l.Each(func(o kadm.ListedOffset) { out[o.Partition] = o.Offset })
	return out
}

// crowd is many clients at once, each on a connection of its own.
type crowd struct {
	t    *testing.T
	name string
	quit context.Context
	wg   sync.WaitGroup

	mu    sync.Mutex
	conns []*conn
	over  bool
	ended map[string]int // how clients ended, before they were asked to
	began atomic.Int64   // clients that have done what they are for
}

// gather starts count clients. do returns when it is done for, or fails when its
// connection is closed.
func gather(t *testing.T, addr, name string, count int, do func(i int, c *conn, cr *crowd) error) *crowd {
	t.Helper()
	quit, cancel := context.WithCancel(t.Context())
	cr := &crowd{t: t, name: name, quit: quit, ended: map[string]int{}}
	t.Cleanup(func() { cancel(); cr.leave() })
	dialing := make(chan struct{}, 64)
	for i := range count {
		cr.wg.Add(1)
		go func() {
			defer cr.wg.Done()
			dialing <- struct{}{}
			c, err := dial(addr)
			<-dialing
			if err == nil {
				if !cr.add(c) {
					return
				}
				err = do(i, c, cr)
				c.Close()
			}
			cr.mu.Lock()
			defer cr.mu.Unlock()
			if !cr.over {
				why := "ok"
				if err != nil {
					why = err.Error()
					if at := strings.LastIndex(why, ": "); at >= 0 {
						why = why[at+2:] // without addresses
					}
				}
				cr.ended[why]++
			}
		}()
	}
	return cr
}

func (cr *crowd) add(c *conn) bool {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	if cr.over {
		c.Close()
		return false
	}
	cr.conns = append(cr.conns, c)
	return true
}

// leave closes every connection and waits for the clients.
func (cr *crowd) leave() {
	cr.mu.Lock()
	cr.over = true
	for _, c := range cr.conns {
		c.Close()
	}
	cr.mu.Unlock()
	cr.wg.Wait()
}

// citizen produces a record and consumes it, again and again.
type citizen struct {
	rounds  atomic.Int64
	slowest atomic.Int64
	quit    context.CancelFunc
	done    chan struct{}
}

func startCitizen(t *testing.T, n *node.Node, topic string, size int) *citizen {
	t.Helper()
	producer := client(t, n, kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.NoCompression()))
	consumer := client(t, n, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	ctx, cancel := context.WithCancel(t.Context())
	c := &citizen{quit: cancel, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		defer producer.Close()
		defer consumer.Close()
		value := make([]byte, size)
		for ctx.Err() == nil {
			begun := time.Now()
			round, cancel := context.WithTimeout(ctx, 30*time.Second)
			if err := producer.ProduceSync(round, &kgo.Record{Value: value}).FirstErr(); err != nil && ctx.Err() == nil {
				t.Errorf("round %d: produce of %d bytes: %v", c.rounds.Load(), size, err)
			}
			if f := consumer.PollRecords(round, 1); ctx.Err() == nil && (f.Err0() != nil || f.NumRecords() != 1) {
				t.Errorf("round %d: consume of %d bytes: %d records, %v", c.rounds.Load(), size, f.NumRecords(), f.Err0())
			}
			cancel()
			if t.Failed() {
				return
			}
			if ctx.Err() == nil {
				c.slowest.Store(max(c.slowest.Load(), int64(time.Since(begun))))
				c.rounds.Add(1)
			}
		}
	}()
	return c
}

func (c *citizen) stop() {
	c.quit()
	<-c.done
}

// TestHostileClientsStayWithinTheMemoryLimit lets 500 clients ask for much and
// read next to nothing, 500 begin requests of 100 MiB and stop somewhere, 1,000
// read what only the bucket has, and 64 produce batches of a few KiB that open to
// 200 MiB to a compacted topic, all at once, in a node that may have 256 MiB.
func TestHostileClientsStayWithinTheMemoryLimit(t *testing.T) {
	const limit = 256 << 20
	n := node.Start(t, "--memory-limit", "256MiB", "--cache-size", "96MiB", "--set", "offsets.topic.num.partitions=1")
	createTopic(t, n, "cold", 8, map[string]string{"segment.bytes": "4194304", "local.retention.ms": "1", "firn.remote.max.unuploaded.ms": "1000"})
	createTopic(t, n, "hot", 4, nil)
	createTopic(t, n, "wide", 500, nil)
	createTopic(t, n, "small", 1, nil)
	createTopic(t, n, "medium", 1, nil)
	createTopic(t, n, "compacted", 1, map[string]string{"cleanup.policy": "compact"})
	large, fair := zeros(200<<20), zeros(4<<20)
	fillTopic(t, n, "cold", 192)
	fillTopic(t, n, "hot", 96)
	var local map[int32]int64
	eventually(t, "the cold topic has left the local disk", 30*time.Second, func() bool {
		local = ends(t, n, "cold", -4)
		here, all := int64(0), int64(0)
		for p, end := range ends(t, n, "cold", -1) {
			all += end
			here += end - local[p]
		}
		return here*20 < all
	})
	base := goroutines(t, n)
	most := watch(n)

	small, medium := startCitizen(t, n, "small", 1<<10), startCitizen(t, n, "medium", 700<<10)
	begun := time.Now()

	slow := gather(t, n.Addr, "slow reader", 500, func(i int, c *conn, cr *crowd) error {
		c.SetReadBuffer(4 << 10)
		if err := c.hello(); err != nil {
			return err
		}
		var ask []byte
		if i%2 == 0 { // records
			for range 20 {
				ask = append(ask, c.encode(fetchVersion, fetch("hot", int32(i%4), 0, 0, 50<<20), "slow")...)
			}
		} else { // what is made in memory
			for range 90 {
				req := kmsg.NewPtrMetadataRequest()
				req.Topics = nil
				ask = append(ask, c.encode(8, req, "slow")...)
			}
		}
		if _, err := c.Write(ask); err != nil {
			return err
		}
		p := make([]byte, 1<<10)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for first := true; ; first = false {
			if _, err := c.Read(p); err != nil {
				return err
			}
			if first {
				cr.began.Add(1)
			}
			select {
			case <-tick.C:
			case <-cr.quit.Done():
				return nil
			}
		}
	})
	stalled := gather(t, n.Addr, "stalled frame", 500, func(i int, c *conn, cr *crowd) error {
		if i%4 != 0 { // else it is the first frame
			if err := c.hello(); err != nil {
				return err
			}
		}
		p := append(produceHead(100<<20), make([]byte, []int{0, 1 << 10, 60 << 10, 300 << 10, 4 << 20, 30 << 20}[i%6])...)
		c.SetWriteDeadline(time.Now().Add(2 * time.Second))
		_, werr := c.Write(p)
		cr.began.Add(1)
		if werr != nil && !os.IsTimeout(werr) {
			return werr
		}
		_, err := c.Read(p[:1])
		return err
	})
	cold := gather(t, n.Addr, "cold reader", 1000, func(i int, c *conn, cr *crowd) error {
		if err := c.hello(); err != nil {
			return err
		}
		rng := rand.New(rand.NewPCG(uint64(i), 7))
		part := int32(i % 8)
		offset := rng.Int64N(local[part])
		for got := 0; got == 0; {
			if err := c.send(fetchVersion, fetch("cold", part, offset, time.Second, 1<<20), fmt.Sprintf("cold-%d", i)); err != nil {
				return err
			}
			body, _, err := c.answer(true)
			if err != nil {
				return err
			}
			if got, err = records(body); err != nil {
				return err
			}
		}
		cr.began.Add(1)
		return nil
	})
	bombs := gather(t, n.Addr, "bomb", 64, func(i int, c *conn, cr *crowd) error {
		if err := c.hello(); err != nil {
			return err
		}
		// Kafka has no bound of its own here; what is too large to open is too large.
		for _, s := range []struct {
			batch []byte
			want  int16
		}{{large, 10}, {fair, 0}} {
			if code, err := c.produce("compacted", s.batch); err != nil {
				return err
			} else if code != s.want {
				return fmt.Errorf("error code %d, want %d", code, s.want)
			}
		}
		return nil
	})

	eventually(t, "the cold readers have their records", 40*time.Second, func() bool { cold.wg.Wait(); return true })
	t.Logf("1,000 cold reads: %v", time.Since(begun).Round(time.Millisecond))
	if got := cold.began.Load(); got != 1000 {
		t.Errorf("%d of 1,000 cold reads succeeded; %v", got, cold.ended)
	}
	eventually(t, "every slow reader has begun, every frame has stalled and one was closed for it", 20*time.Second, func() bool {
		return slow.began.Load() == 500 && stalled.began.Load() == 500 && metric(t, n, "firn_kafka_connections_reclaimed_total") > 0
	})
	eventually(t, "every bomb has been answered", 40*time.Second, func() bool { bombs.wg.Wait(); return true })
	rounds := [2]int64{small.rounds.Load(), medium.rounds.Load()}
	eventually(t, "the others go on", 20*time.Second, func() bool {
		return small.rounds.Load() >= rounds[0]+100 && medium.rounds.Load() >= rounds[1]+20 || t.Failed()
	})
	peak := most()
	t.Logf("peak %d MiB of %d; %v; small rounds %d, slowest %v; medium rounds %d, slowest %v", peak>>20, limit>>20, time.Since(begun).Round(time.Millisecond),
		small.rounds.Load(), time.Duration(small.slowest.Load()), medium.rounds.Load(), time.Duration(medium.slowest.Load()))
	t.Logf("ended early: slow %v, stalled %v, cold %v; waits %v, reclaimed %v", slow.ended, stalled.ended, cold.ended,
		metric(t, n, "firn_kafka_memory_waits_total"), metric(t, n, "firn_kafka_connections_reclaimed_total"))
	reasons := map[string]int{}
	for line := range strings.Lines(n.Log()) {
		if _, reason, ok := strings.Cut(line, `"reason":"`); ok {
			reason, _, _ = strings.Cut(reason, `"`)
			reasons[reason]++
		}
	}
	t.Logf("closed by the broker: %v", reasons)
	if peak > limit+limit/10 {
		t.Errorf("resident memory was %d MiB, the limit is %d MiB", peak>>20, limit>>20)
	}
	if peak == 0 {
		t.Error("nothing was measured")
	}
	if len(slow.ended) > 0 {
		t.Errorf("slow readers that read were ended: %v", slow.ended)
	}
	if bombs.ended["ok"] != 64 {
		t.Errorf("producers to a compacted topic ended with %v", bombs.ended)
	}
	small.stop()
	medium.stop()
	slow.leave()
	stalled.leave()
	cold.leave()
	settle(t, n, base)
	eventually(t, "nothing is charged any more", 10*time.Second, func() bool { return metric(t, n, "firn_kafka_memory_bytes") < 64<<10 })
}

// TestLargeRequestsTakeTurns has six clients send requests of some 90 MiB each to a
// node of 256 MiB, while others make it produce garbage: all of them succeed.
func TestLargeRequestsTakeTurns(t *testing.T) {
	const limit, partitions, size = 256 << 20, 100, 900 << 10
	n := node.Start(t, "--memory-limit", "256MiB", "--set", "offsets.topic.num.partitions=1")
	createTopic(t, n, "wide", partitions, map[string]string{"firn.durability": "replicated"})
	createTopic(t, n, "small", 1, nil)
	most := watch(n)
	small := startCitizen(t, n, "small", 1<<10)
	garbage := gather(t, n.Addr, "garbage", 4, func(_ int, c *conn, cr *crowd) error {
		for cr.quit.Err() == nil {
			req := kmsg.NewPtrMetadataRequest()
			req.Topics = nil
			if err := c.send(8, req, "garbage"); err != nil {
				return err
			}
			if _, _, err := c.answer(false); err != nil {
				return err
			}
		}
		return nil
	})
	begun := time.Now()
	var senders sync.WaitGroup
	var slowest atomic.Int64
	for range 6 {
		cl := client(t, n, kgo.DefaultProduceTopic("wide"), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()),
			kgo.BrokerMaxWriteBytes(100<<20), kgo.ProducerLinger(300*time.Millisecond), kgo.MaxBufferedBytes(400<<20), kgo.ProduceRequestTimeout(time.Minute))
		senders.Go(func() {
			value := make([]byte, size)
			for range 2 {
				begun := time.Now()
				var records []*kgo.Record
				for p := range int32(partitions) {
					records = append(records, &kgo.Record{Partition: p, Value: value})
				}
				if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
					t.Errorf("a large request: %v", err)
				}
				slowest.Store(max(slowest.Load(), int64(time.Since(begun))))
			}
		})
	}
	senders.Wait()
	peak := most()
	t.Logf("12 requests in %v, the slowest %v; peak %d MiB of %d, %v waits; small rounds %d, slowest %v", time.Since(begun).Round(time.Millisecond), time.Duration(slowest.Load()),
		peak>>20, limit>>20, metric(t, n, "firn_kafka_memory_waits_total"), small.rounds.Load(), time.Duration(small.slowest.Load()))
	if peak > limit+limit/10 || peak == 0 {
		t.Errorf("resident memory was %d MiB, the limit is %d MiB", peak>>20, limit>>20)
	}
	if waits := metric(t, n, "firn_kafka_memory_waits_total"); waits == 0 {
		t.Error("no request had to wait: they were not large")
	}
	if len(garbage.ended) > 0 {
		t.Errorf("ended: %v", garbage.ended)
	}
	small.stop()
	garbage.leave()
}

// settle waits until the process has no more goroutines than before, but for one
// or two that come and go.
func settle(t *testing.T, n *node.Node, base int) {
	t.Helper()
	last := 0
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if last = goroutines(t, n); last <= base+4 {
			t.Logf("goroutines: %d before, %d after", base, last)
			return
		}
	}
	s, _ := get(n, "/debug/pprof/goroutine?debug=1")
	t.Fatalf("%d goroutines before, %d after:\n%s", base, last, s[:min(len(s), 6000)])
}

// TestIdleConnectionsCostLittle opens 2,000 consumers that wait for records and
// 5,000 connections that say nothing more, and sees what each costs.
func TestIdleConnectionsCostLittle(t *testing.T) {
	const most = 64 << 10
	n := node.Start(t, "--set", "offsets.topic.num.partitions=1")
	createTopic(t, n, "quiet", 4, nil)
	createTopic(t, n, "small", 1, nil)
	citizen := startCitizen(t, n, "small", 1<<10)
	defer citizen.stop()
	eventually(t, "the first record has come back", 10*time.Second, func() bool { return citizen.rounds.Load() > 0 || t.Failed() })
	base, before := goroutines(t, n), resident(n, "VmRSS")
	each := func(what string, count int) {
		now := resident(n, "VmRSS")
		cost := (now - before) / int64(count)
		t.Logf("%s: %d KiB each; %d MiB in all, %d goroutines", what, cost>>10, now>>20, goroutines(t, n))
		if cost > most {
			t.Errorf("%s: %d bytes each, want at most %d", what, cost, most)
		}
		before = now
	}

	polling := gather(t, n.Addr, "long poll", 2000, func(i int, c *conn, cr *crowd) error {
		if err := c.hello(); err != nil {
			return err
		}
		if err := c.send(fetchVersion, fetch("quiet", int32(i%4), 0, 5*time.Minute, 1<<20), fmt.Sprintf("poll-%d", i)); err != nil {
			return err
		}
		cr.began.Add(1)
		_, _, err := c.answer(false)
		return err
	})
	// The reader, the one that waits for records, and the writer.
	eventually(t, "2,000 long polls wait", 20*time.Second, func() bool { return polling.began.Load() == 2000 && goroutines(t, n) >= base+3*2000 })
	each("a long-polling consumer", 2000)

	idle := gather(t, n.Addr, "idle", 5000, func(_ int, c *conn, cr *crowd) error {
		if err := c.hello(); err != nil {
			return err
		}
		cr.began.Add(1)
		_, err := c.Read(make([]byte, 1))
		return err
	})
	eventually(t, "5,000 connections are idle", 20*time.Second, func() bool { return idle.began.Load() == 5000 })
	each("an idle connection", 5000)
	if len(polling.ended) > 0 || len(idle.ended) > 0 {
		t.Errorf("ended: %v %v", polling.ended, idle.ended)
	}
	rounds := citizen.rounds.Load()
	eventually(t, "the others go on", 10*time.Second, func() bool { return citizen.rounds.Load() > rounds+10 || t.Failed() })
	polling.leave()
	idle.leave()
	settle(t, n, base)
}
