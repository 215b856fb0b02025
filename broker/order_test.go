package broker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// pipeServer serves one connection that has no buffers, in a bubble: what is not
// read is not sent.
func pipeServer(t *testing.T, cfg Config) (client net.Conn) {
	t.Helper()
	server, client := net.Pipe()
	closed := make(chan struct{})
	ln := &one{conns: make(chan net.Conn, 1), closed: closed, close: sync.OnceFunc(func() { close(closed) })}
	ln.conns <- server
	b, err := Listen(Listener{Name: "T"}, func(string, string) (net.Listener, error) { return ln, nil })
	if err != nil {
		t.Fatal(err)
	}
	cfg.NodeID, cfg.Now, cfg.Logger = 1, time.Now, slog.New(slog.DiscardHandler)
	s := New(cfg)
	s.Serve(b)
	t.Cleanup(func() {
		client.Close()
		s.Close()
	})
	return client
}

// handleBy answers an API by h until the test is over.
func handleBy(t *testing.T, key int16, h handler) {
	old := apis[key].handle
	apis[key].handle = h
	t.Cleanup(func() { apis[key].handle = old })
}

// parked lets the requests of an API wait for a token each, and counts them.
func parked(t *testing.T, key int16) (handled *atomic.Int32, tokens chan struct{}) {
	handled, tokens = new(atomic.Int32), make(chan struct{})
	handleBy(t, key, func(_ context.Context, _ *Server, r *Request) Reply {
		handled.Add(1)
		return Reply{Park: func(ctx context.Context) kmsg.Response {
			select {
			case <-tokens:
			case <-ctx.Done():
			}
			return r.Body.ResponseKind()
		}}
	})
	return handled, tokens
}

func heartbeatFrame(n int32) []byte {
	return rawFrame(12, 0, n, kmsg.NewPtrHeartbeatRequest().AppendTo(nil), false)
}

// produceFrame is a Produce of one partition with a given number of bytes.
func produceFrame(n int32, acks int16, bytes int) []byte {
	r := kmsg.NewPtrProduceRequest()
	r.Version, r.Acks = 3, acks
	rt, rp := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
	rp.Records = make([]byte, bytes)
	rt.Partitions = append(rt.Partitions, rp)
	r.Topics = append(r.Topics, rt)
	return rawFrame(0, 3, n, r.AppendTo(nil), false)
}

// TestUnansweredRequestsAreBounded: a client that asks and asks is read until it has
// 100 requests unanswered, and again when one of them is answered.
func TestUnansweredRequestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 100 // as docs/operations.md says
		handled, tokens := parked(t, 12)
		client := pipeServer(t, Config{})
		go func() {
			for n := range int32(3 * most) {
				if _, err := client.Write(heartbeatFrame(n)); err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		if n := handled.Load(); n != most {
			t.Errorf("%d requests are unanswered, want %d", n, most)
		}
		tokens <- struct{}{}
		readAnswer(t, client)
		synctest.Wait()
		if n := handled.Load(); n != most+1 {
			t.Errorf("%d requests were read after one answer, want %d", n, most+1)
		}
	})
}

// TestBytesInFlightAreBounded: the same for 16 MiB, where one request may be larger.
func TestBytesInFlightAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handled, tokens := parked(t, 0)
		client := pipeServer(t, Config{})
		go func() {
			for n, mibs := range []int{20, 3, 3, 3, 3, 3, 3, 3} {
				if _, err := client.Write(produceFrame(int32(n), -1, mibs<<20)); err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		if n := handled.Load(); n != 1 {
			t.Errorf("%d requests are in flight, the first of 20 MiB", n)
		}
		tokens <- struct{}{}
		readAnswer(t, client)
		synctest.Wait()
		if n := handled.Load(); n != 1+5 {
			t.Errorf("%d requests of 3 MiB are in flight, want 5", n-1)
		}
	})
}

// TestProducesThatWaitStopTheReader pipelines batches of 3 MiB with acks=all of which
// none is acknowledged: the sixth is not read. Another one is when an answer has been
// taken, not when it is there, and all of them in the end.
func TestProducesThatWaitStopTheReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const all, most, each = 12, 5, 3 << 20
		var handled atomic.Int32
		acked := make(chan struct{})
		handleBy(t, 0, func(_ context.Context, _ *Server, r *Request) Reply {
			handled.Add(1)
			return Reply{Wait: func(ctx context.Context) kmsg.Response {
				select {
				case <-acked:
				case <-ctx.Done():
				}
				return r.Body.ResponseKind()
			}}
		})
		m := newMemory(1024 * mib)
		client := pipeServer(t, Config{Memory: m})
		go func() {
			for n := range int32(all) {
				if _, err := client.Write(produceFrame(n, -1, each)); err != nil {
					return
				}
			}
		}()
		look := func(when string, want int32) {
			t.Helper()
			synctest.Wait()
			if n := handled.Load(); n != want {
				t.Errorf("%s: %d requests were read, want %d", when, n, want)
			}
			if n := m.inUse(); n > maxInFlight {
				t.Errorf("%s: %d bytes are charged", when, n)
			}
		}
		look("before any is acknowledged", most)
		close(acked)
		for n := range int32(all) {
			look("before an answer is taken", min(all, most+n))
			if id, _ := readAnswer(t, client); id != n {
				t.Fatalf("answer %d came as number %d", id, n)
			}
			look("when it has been", min(all, most+n+1))
		}
		if n := m.inUse(); n != 0 {
			t.Errorf("%d bytes are charged when all is answered", n)
		}
	})
}

// TestWithoutAcksThereIsNoSlot: requests that want no answer pass those that wait
// for theirs, however many there are.
func TestWithoutAcksThereIsNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waiting, _ := parked(t, 12)
		var silent atomic.Int32
		handleBy(t, 0, func(context.Context, *Server, *Request) Reply {
			silent.Add(1)
			return Reply{}
		})
		client := pipeServer(t, Config{})
		go func() {
			for n := range int32(maxUnanswered - 1) {
				client.Write(heartbeatFrame(n))
			}
			for n := range int32(5 * maxUnanswered) {
				client.Write(produceFrame(n, 0, 100))
			}
			client.Write(heartbeatFrame(1000))
		}()
		synctest.Wait()
		if w, s := waiting.Load(), silent.Load(); w != maxUnanswered || s != 5*maxUnanswered {
			t.Errorf("%d requests wait, %d without an answer passed; want %d and %d", w, s, maxUnanswered, 5*maxUnanswered)
		}
	})
}

// TestAQuotaStopsReadingAtOnce: bytes count when they are read, not when they are
// answered, which may be long after.
func TestAQuotaStopsReadingAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handled, tokens := parked(t, 0)
		client := pipeServer(t, Config{Quotas: func(string, string) Quota { return Quota{ProduceRate: 1000} }})
		go func() {
			for n := range int32(3) {
				client.Write(produceFrame(n, -1, 3000))
			}
		}()
		synctest.Wait()
		if n := handled.Load(); n != 1 {
			t.Errorf("%d requests were read from a client that is to be quiet", n)
		}
		tokens <- struct{}{}
		_, body := readAnswer(t, client)
		resp := kmsg.NewPtrProduceResponse()
		resp.Version = 3
		if err := resp.ReadFrom(body); err != nil || resp.ThrottleMillis < 2000 || resp.ThrottleMillis > 2100 {
			t.Errorf("throttled for %d ms (%v), want a little above 2 s", resp.ThrottleMillis, err)
		}
		time.Sleep(time.Duration(resp.ThrottleMillis) * time.Millisecond)
		synctest.Wait()
		if n := handled.Load(); n != 2 {
			t.Errorf("%d requests were read when the client might speak again, want 2", n)
		}
	})
}

// TestAppendsKeepTheOrderOfArrival pipelines batches on one connection: each lies
// where its place among the requests puts it (SAFETY 7).
func TestAppendsKeepTheOrderOfArrival(t *testing.T) {
	addr, meta := groupServer(t)
	a := dialAsker(t, addr)
	topic := led(t, a, meta, "t")
	const n = 300
	go func() {
		for i := range int32(n) {
			r := kmsg.NewPtrProduceRequest()
			r.Version, r.Acks, r.TimeoutMillis = 13, 1-int16(i%2)*2, 5000
			rt, rp := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
			rt.TopicID, rp.Records = topic.ID, batchOf(time.Now().UnixMilli())
			rt.Partitions = append(rt.Partitions, rp)
			r.Topics = append(r.Topics, rt)
			if _, err := a.nc.Write(rawFrame(0, 13, i, r.AppendTo(nil), true)); err != nil {
				return
			}
		}
	}()
	for i := range int64(n) {
		if p := receive(a, 13, kmsg.NewPtrProduceResponse()).Topics[0].Partitions[0]; p.ErrorCode != 0 || p.BaseOffset != i {
			t.Fatalf("request %d was appended at %d (%s)", i, p.BaseOffset, codeName(p.ErrorCode))
		}
	}
}

// TestWithoutAcks: what is fine has no answer, and what is refused ends the
// connection, once all that came before has been answered.
func TestWithoutAcks(t *testing.T) {
	addr, meta := groupServer(t)
	a := dialAsker(t, addr)
	led(t, a, meta, "t")
	send := func(topic string, acks int16) {
		t.Helper()
		r := kmsg.NewPtrProduceRequest()
		r.Acks, r.TimeoutMillis = acks, 5000
		rt, rp := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
		rt.Topic, rp.Records = topic, batchOf(time.Now().UnixMilli())
		rt.Partitions = append(rt.Partitions, rp)
		r.Topics = append(r.Topics, rt)
		a.send(9, r)
	}
	send("t", 0)
	send("t", 0)
	if p := offsetsFor(a, 1, "t", 0, latest, -1); p.ErrorCode != 0 || p.Offset > 2 {
		t.Fatalf("%+v", p)
	}
	send("t", -1)
	send("none", 0)
	if p := receive(a, 9, kmsg.NewPtrProduceResponse()).Topics[0].Partitions[0]; p.ErrorCode != 0 || p.BaseOffset != 2 {
		t.Errorf("the request before: %s at %d, want 2: both without acks lie before it", codeName(p.ErrorCode), p.BaseOffset)
	}
	a.nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := a.nc.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("after an error without acks: %d bytes, %v; want the end", n, err)
	}
}

// TestAnAccountIsOfOneClient: another client id, or another principal, pays for
// itself alone.
func TestAnAccountIsOfOneClient(t *testing.T) {
	now := time.Unix(1000, 0)
	q := quotas{of: func(string, string) Quota { return Quota{ProduceRate: 10} }, now: func() time.Time { return now }}
	for i, who := range [][2]string{{"p", "c"}, {"p", "d"}, {"q", "c"}} {
		if d := q.charge(who[0], who[1], usage{produced: 10}); d != 0 {
			t.Errorf("client %d waits %v for the others", i, d)
		}
	}
	if d := q.charge("p", "c", usage{produced: 1}); d == 0 {
		t.Error("the account does not count")
	}
}
