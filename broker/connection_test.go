package broker

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/firnlog/firn/metadata"
)

var update = flag.Bool("update", false, "rewrite docs/protocol.md")

// listen starts a server that has no partitions: enough for what happens before a
// handler needs any.
func listen(t testing.TB, log io.Writer) (*Server, string) {
	t.Helper()
	s := New(Config{NodeID: 1, Now: time.Now, Logger: slog.New(slog.NewTextHandler(log, nil)), MaxRequestBytes: 1 << 20, MaxConnectionsPerIP: 2})
	b, err := Listen(Listener{Name: "T", Address: "127.0.0.1:0"}, net.Listen)
	if err != nil {
		t.Fatal(err)
	}
	s.Serve(b)
	t.Cleanup(s.Close)
	return s, b.Addr().String()
}

// frame is a whole request.
func rawFrame(key, version int16, correlation int32, body []byte, flexible bool) []byte {
	p := binary.BigEndian.AppendUint16(make([]byte, 4), uint16(key))
	p = binary.BigEndian.AppendUint16(p, uint16(version))
	p = binary.BigEndian.AppendUint32(p, uint32(correlation))
	p = binary.BigEndian.AppendUint16(p, 0xffff) // null client id
	if flexible {
		p = append(p, 0)
	}
	p = append(p, body...)
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	return p
}

func readAnswer(t *testing.T, c net.Conn) (correlation int32, body []byte) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	var head [8]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		t.Fatal(err)
	}
	body = make([]byte, binary.BigEndian.Uint32(head[:])-4)
	if _, err := io.ReadFull(c, body); err != nil {
		t.Fatal(err)
	}
	return int32(binary.BigEndian.Uint32(head[4:])), body
}

// TestApiVersionsNegotiates asks in every version, and in one from the future,
// which is answered in v0 so that the client can ask again.
func TestApiVersionsNegotiates(t *testing.T) {
	defer goleak.VerifyNone(t)
	s, addr := listen(t, io.Discard)
	defer s.Close()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for v := int16(0); v <= 5; v++ {
		req := kmsg.NewPtrApiVersionsRequest()
		req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = min(v, 4), "test", "1.0"
		if _, err := c.Write(rawFrame(18, v, int32(v), req.AppendTo(nil), v >= 3)); err != nil {
			t.Fatal(err)
		}
		id, body := readAnswer(t, c)
		resp := kmsg.NewPtrApiVersionsResponse()
		resp.Version = v
		if v == 5 {
			resp.Version = 0
		}
		if err := resp.ReadFrom(body); err != nil || id != int32(v) {
			t.Fatalf("v%d: answer %d: %v", v, id, err)
		}
		if v == 5 {
			if resp.ErrorCode != 35 || len(resp.ApiKeys) != 1 || resp.ApiKeys[0].ApiKey != 18 {
				t.Fatalf("v5: %+v", resp)
			}
			continue
		}
		for _, k := range resp.ApiKeys {
			if k.ApiKey == 0 && k.MinVersion != 0 {
				t.Errorf("Produce is advertised from v%d: librdkafka would stop compressing", k.MinVersion)
			}
			if k.ApiKey == 17 || k.ApiKey == 36 {
				t.Errorf("SASL is advertised and not served")
			}
		}
		if resp.ErrorCode != 0 || len(resp.ApiKeys) < 15 {
			t.Fatalf("v%d: error %d, %d keys", v, resp.ErrorCode, len(resp.ApiKeys))
		}
	}
}

// TestAnswersKeepTheOrderOfRequests pipelines more requests than may be unanswered
// at once, of which some are answered by goroutines of their own.
func TestAnswersKeepTheOrderOfRequests(t *testing.T) {
	s, addr := listen(t, io.Discard)
	defer s.Close()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const n = 500
	go func() {
		for i := range int32(n) {
			if i%3 == 0 {
				// A transactional id is refused without any metadata; an empty
				// list of topics is answered later, by a goroutine.
				req := kmsg.NewPtrListOffsetsRequest()
				req.Version = 2
				c.Write(rawFrame(2, 2, i, req.AppendTo(nil), false))
			} else {
				req := kmsg.NewPtrApiVersionsRequest()
				c.Write(rawFrame(18, 0, i, req.AppendTo(nil), false))
			}
		}
	}()
	for i := range int32(n) {
		if id, _ := readAnswer(t, c); id != i {
			t.Fatalf("answer %d came as number %d", id, i)
		}
	}
}

// TestHostileBytesEndTheConnection sends what no client sends. Each connection ends
// with one line that says why; none of them harms the others.
func TestHostileBytesEndTheConnection(t *testing.T) {
	defer goleak.VerifyNone(t)
	produceV2 := rawFrame(0, 2, 1, make([]byte, 20), false)
	for name, tc := range map[string]struct {
		send []byte
		want string
	}{
		"HTTP":                     {[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "speaks HTTP"},
		"TLS":                      {[]byte{0x16, 3, 1, 2, 0, 1, 0, 1}, "speaks TLS"},
		"an oversized frame":       {[]byte{0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0}, "socket.request.max.bytes"},
		"a negative frame":         {[]byte{0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 0}, "socket.request.max.bytes"},
		"an unknown key":           {rawFrame(99, 0, 1, nil, false), "API key 99 is not served"},
		"Produce of old":           {produceV2, "Produce v2 is not served"},
		"a body that is no body":   {rawFrame(3, 9, 1, []byte{0xff, 0xff, 0xff, 0xff, 0xff}, true), "cannot be decoded"},
		"a header that runs short": {append([]byte{0, 0, 0, 10}, rawFrame(3, 9, 1, nil, false)[4:14]...), "cannot be decoded"},
	} {
		var log safeBuffer
		s, addr := listen(t, &log)
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(tc.send); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%s: got an answer", name)
		}
		c.Close()
		s.Close()
		if got := log.String(); !strings.Contains(got, tc.want) || strings.Count(got, "\n") != 1 {
			t.Errorf("%s: logged %q, want one line with %q", name, got, tc.want)
		}
	}
}

// TestOnlyThisBrokerIsWhereTheClientCame checks the address of a broker that
// advertises nothing: ours is where the client came to, another's is unknown.
func TestOnlyThisBrokerIsWhereTheClientCame(t *testing.T) {
	s, addr := listen(t, io.Discard)
	defer s.Close()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := &Conn{s: s, nc: nc, listener: Listener{Name: "T"}}
	if host, port := c.Address(&metadata.Broker{Node: 1}); host != "127.0.0.1" || port == 0 {
		t.Errorf("this broker is at %s:%d", host, port)
	}
	if host, _ := c.Address(&metadata.Broker{Node: 2}); host != "" {
		t.Errorf("another broker is advertised as %s", host)
	}
}

// safeBuffer is a bytes.Buffer for one writer at a time, guarded by the log handler;
// it is read after the server has closed.
type safeBuffer struct{ bytes.Buffer }

// TestTooManyConnectionsAreRefused opens one more than allowed from one address.
func TestTooManyConnectionsAreRefused(t *testing.T) {
	s, addr := listen(t, io.Discard)
	defer s.Close()
	var conns []net.Conn
	for range 3 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	alive := 0
	for i, c := range conns {
		c.Write(rawFrame(18, 0, int32(i), nil, false))
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, _ := c.Read(make([]byte, 1)); n == 1 {
			alive++
		}
	}
	if alive != 2 {
		t.Fatalf("%d of 3 connections are served, want 2", alive)
	}
}

func TestListenersAreParsed(t *testing.T) {
	l, err := ParseListener("EXT=0.0.0.0:9092;advertise=logs.example.org:443;protocol=PLAINTEXT")
	if err != nil || l != (Listener{"EXT", "0.0.0.0:9092", "logs.example.org", 443, "PLAINTEXT"}) {
		t.Fatalf("%+v %v", l, err)
	}
	for _, bad := range []string{"", "9092", "X=", "X=host", "X=h:1;advertise=h", "X=h:1;protocol=SSL", "X=h:1;advertize=h:1", "=h:1", "X=h:70000"} {
		if _, err := ParseListener(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// one is a listener with one connection to accept, which comes from nowhere.
type one struct {
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

func (l *one) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *one) Close() error   { l.close(); return nil }
func (l *one) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 9092} }

// TestTheNetworkIsGiven serves a connection that no socket carries, and names the
// listener that could not be bound.
func TestTheNetworkIsGiven(t *testing.T) {
	defer goleak.VerifyNone(t)
	if _, err := Listen(Listener{Name: "EXT", Address: "h:1"}, func(network, address string) (net.Listener, error) {
		return nil, fmt.Errorf("%s %s is taken", network, address)
	}); err == nil || err.Error() != "listener EXT: tcp h:1 is taken" {
		t.Errorf("%v", err)
	}
	server, client := net.Pipe()
	closed := make(chan struct{})
	ln := &one{conns: make(chan net.Conn, 1), closed: closed, close: sync.OnceFunc(func() { close(closed) })}
	ln.conns <- server
	b, err := Listen(Listener{Name: "T"}, func(string, string) (net.Listener, error) { return ln, nil })
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{NodeID: 1, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	s.Serve(b)
	defer s.Close()
	defer client.Close()
	if _, err := client.Write(rawFrame(18, 0, 7, nil, false)); err != nil {
		t.Fatal(err)
	}
	if id, _ := readAnswer(t, client); id != 7 {
		t.Errorf("answer %d", id)
	}
}

func FuzzConnection(f *testing.F) {
	f.Add(rawFrame(18, 3, 1, nil, true))
	f.Add(rawFrame(3, 12, 1, []byte{1, 0, 0, 0}, true))
	f.Add(rawFrame(0, 9, 1, []byte{0, 0xff, 0xff, 0, 0, 0, 1, 1, 0}, true))
	f.Fuzz(func(t *testing.T, p []byte) {
		// What needs no partitions: framing, headers and every decoder.
		if len(p) < 12 {
			return
		}
		s := &Server{cfg: Config{MaxRequestBytes: 1 << 16}}
		a, b := net.Pipe()
		c := newConnForFuzz(s, a)
		go func() {
			b.Write(p)
			b.Close()
		}()
		in, err := newFrames(a, nil).next(true, s.cfg.MaxRequestBytes)
		a.Close()
		body := in.bytes
		if err != nil || len(body) < 8 {
			return
		}
		r := &Request{Key: int16(binary.BigEndian.Uint16(body)), Version: int16(binary.BigEndian.Uint16(body[2:]))}
		if r.Key < 0 || r.Key >= maxKey || apis[r.Key] == nil || r.Version < apis[r.Key].min || r.Version > apis[r.Key].max {
			return
		}
		r.Body = kmsg.RequestForKey(r.Key)
		r.Body.SetVersion(r.Version)
		if rest, err := c.header(r, body[8:]); err == nil {
			r.Body.ReadFrom(rest)
		}
	})
}

func newConnForFuzz(s *Server, nc net.Conn) *Conn { return &Conn{s: s, nc: nc} }

// TestProtocolDocIsCurrent compares docs/protocol.md with the table; -update writes
// it.
func TestProtocolDocIsCurrent(t *testing.T) {
	var b strings.Builder
	b.WriteString("# The Kafka protocol, as served\n\nGenerated from the table in broker/api.go (`go test ./broker -run ProtocolDoc -update`).\nAn API that is not here is absent from ApiVersions, and asking for it closes the connection.\n\n| key | API | versions | note |\n|---|---|---|---|\n")
	for key, a := range apis {
		if a != nil {
			fmt.Fprintf(&b, "| %d | %s | %d-%d | %s |\n", key, a.name, a.min, a.max, a.note)
			if max := kmsg.RequestForKey(int16(key)).MaxVersion(); a.max > max {
				t.Errorf("%s is advertised up to v%d, the codec knows v%d", a.name, a.max, max)
			}
		}
	}
	const path = "../docs/protocol.md"
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != b.String() {
		t.Fatalf("docs/protocol.md is not what the table says (%v): run with -update", err)
	}
}
