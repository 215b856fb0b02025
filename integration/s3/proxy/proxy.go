// Package proxy stands between firn and a store over http and sees what the
// store sees: it counts requests and bytes, adds latency as a distant store would
// have, and fails on demand in ways only a network can: a 503 that never reached
// the store, an answer that got lost after it had, a body cut in the middle.
//
// Signatures cover the Host header, so it is passed on as the client sent it.
package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Action is what happens to a request that a rule meets.
type Action int

// The actions.
const (
	// Refuse answers Status (default 503) without asking the store.
	Refuse Action = iota
	// Lose asks the store, then closes the connection without an answer: at once,
	// or where there is Until, when that is closed or the client gives up.
	Lose
	// Cut passes Bytes of the answer's body, then closes the connection.
	Cut
	// Drop closes the connection without asking the store.
	Drop
	// Hang passes nothing on until the client gives up, or Until is closed.
	Hang
	// Late takes the whole request, waits until Until is closed, and then asks the
	// store, whether the client still waits or not.
	Late
	// Damage turns a bit of the answer's body, behind its first Bytes bytes.
	Damage
)

// Rule scripts an action.
type Rule struct {
	Action Action
	Method string // "" is any
	Match  string // part of the path with its query; "" is any
	Skip   int    // matching requests that pass first
	Times  int    // how many are met then: 0 means one, negative all
	Status int    // Refuse
	Bytes  int64  // Cut, Damage
	Until  <-chan struct{}
	Met    func(*http.Request) // called when a request meets the rule, before the action; may be nil
}

// Counts is traffic at the store's side since the last Reset.
type Counts struct {
	Requests map[string]int64 // by method
	Up, Down int64            // bytes of bodies to and from the store
	// GetBytes is the part of Down that answered a GET of an object (a listing,
	// which has a query, is not one).
	GetBytes int64
	Gets     int64 // GETs of objects
}

// Proxy is one. All methods are safe for concurrent use.
type Proxy struct {
	// URL is where it listens, on the loopback interface.
	URL string

	server  *http.Server
	target  atomic.Pointer[url.URL]
	latency atomic.Int64

	mu struct {
		sync.Mutex
		rules    []*Rule
		requests map[string]int64
	}
	up, down, getBytes, gets atomic.Int64
}

// Start starts a proxy to the store at upstream (http://HOST:PORT) and stops it
// with the test.
func Start(t testing.TB, upstream string) *Proxy {
	t.Helper()
	p, err := New(upstream)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// New starts a proxy; Close stops it.
func New(upstream string) (*Proxy, error) {
	target, err := url.Parse(upstream)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{URL: "http://" + l.Addr().String()}
	p.target.Store(target)
	p.mu.requests = map[string]int64{}
	rp := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(p.target.Load())
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{
			MaxIdleConnsPerHost: 256, DisableCompression: true, ExpectContinueTimeout: time.Second,
			WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10,
		},
		BufferPool:    &buffers{},
		FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			// The store is gone or the client is: no answer is the honest one.
			panic(http.ErrAbortHandler)
		},
	}
	p.server = &http.Server{Handler: p.handler(rp), ErrorLog: nil}
	go p.server.Serve(l)
	return p, nil
}

// Redirect leads what comes from now on to another store, as a name in DNS may.
func (p *Proxy) Redirect(upstream string) error {
	target, err := url.Parse(upstream)
	if err == nil {
		p.target.Store(target)
	}
	return err
}

// Close stops the proxy and breaks what is under way.
func (p *Proxy) Close() { p.server.Close() }

// SetLatency makes each request wait for d before it reaches the store.
func (p *Proxy) SetLatency(d time.Duration) { p.latency.Store(int64(d)) }

// Inject adds rules; of several that match a request the oldest is met.
func (p *Proxy) Inject(rules ...Rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range rules {
		if r.Times == 0 {
			r.Times = 1
		}
		p.mu.rules = append(p.mu.rules, &r)
	}
}

// Heal removes all rules.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.rules = nil
}

// Reset starts counting anew.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.requests = map[string]int64{}
	for _, c := range []*atomic.Int64{&p.up, &p.down, &p.getBytes, &p.gets} {
		c.Store(0)
	}
}

// Counts returns what passed since the last Reset.
func (p *Proxy) Counts() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := Counts{Requests: map[string]int64{}, Up: p.up.Load(), Down: p.down.Load(), GetBytes: p.getBytes.Load(), Gets: p.gets.Load()}
	for m, n := range p.mu.requests {
		c.Requests[m] = n
	}
	return c
}

func (p *Proxy) meet(r *http.Request) *Rule {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, rule := range p.mu.rules {
		if rule.Method != "" && rule.Method != r.Method || !strings.Contains(r.URL.RequestURI(), rule.Match) || rule.Times == 0 {
			continue
		}
		if rule.Skip > 0 {
			rule.Skip--
			continue
		}
		if rule.Times > 0 {
			rule.Times--
		}
		met := *rule
		return &met
	}
	return nil
}

func (p *Proxy) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d := time.Duration(p.latency.Load()); d > 0 {
			timer := time.NewTimer(d)
			select {
			case <-timer.C:
			case <-r.Context().Done():
				timer.Stop()
				return
			}
		}
		rule := p.meet(r)
		if rule != nil {
			if rule.Met != nil {
				rule.Met(r)
			}
			switch rule.Action {
			case Late:
				body, err := io.ReadAll(r.Body)
				if err != nil {
					panic(http.ErrAbortHandler)
				}
				<-rule.Until
				r = r.WithContext(context.WithoutCancel(r.Context()))
				r.Body = io.NopCloser(bytes.NewReader(body))
			case Refuse:
				status := rule.Status
				if status == 0 {
					status = http.StatusServiceUnavailable
				}
				io.Copy(io.Discard, r.Body)
				w.Header().Set("Content-Type", "application/xml")
				w.WriteHeader(status)
				code := "SlowDown"
				if status == http.StatusInternalServerError {
					code = "InternalError"
				}
				fmt.Fprintf(w, "<Error><Code>%s</Code><Message>injected %d</Message></Error>", code, status)
				return
			case Drop:
				panic(http.ErrAbortHandler)
			case Hang:
				io.Copy(io.Discard, r.Body)
				select {
				case <-r.Context().Done():
				case <-rule.Until:
				}
				panic(http.ErrAbortHandler)
			}
		}
		p.mu.Lock()
		p.mu.requests[r.Method]++
		p.mu.Unlock()
		m := &meter{ResponseWriter: w, p: p, left: -1, damage: -1}
		if r.Method == http.MethodGet && r.URL.Query().Get("list-type") == "" {
			m.object = true
			p.gets.Add(1)
		}
		if rule != nil && rule.Action == Cut {
			m.left = rule.Bytes
		}
		if rule != nil && rule.Action == Damage {
			m.damage = rule.Bytes
		}
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &counted{r.Body, &p.up}
		}
		if rule != nil && rule.Action == Lose {
			// The store sees the whole request, whatever the client does.
			next.ServeHTTP(lost{}, r.WithContext(context.WithoutCancel(r.Context())))
			if rule.Until != nil {
				select {
				case <-r.Context().Done():
				case <-rule.Until:
				}
			}
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(m, r)
	})
}

type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// meter counts an answer's body and cuts it.
type meter struct {
	http.ResponseWriter
	p      *Proxy
	object bool
	status int
	left   int64 // bytes to pass before the cut; negative: no cut
	damage int64 // bytes to pass before the damaged one; negative: none
}

func (m *meter) WriteHeader(status int) {
	m.status = status
	m.ResponseWriter.WriteHeader(status)
}

var errCut = errors.New("cut")

func (m *meter) Write(b []byte) (int, error) {
	cut := m.left >= 0 && int64(len(b)) > m.left
	if cut {
		b = b[:m.left]
	}
	if m.damage >= 0 {
		if int64(len(b)) > m.damage {
			b = bytes.Clone(b)
			b[m.damage] ^= 1
		}
		m.damage -= int64(len(b))
	}
	// Counted before the write: a client may have read the last byte, and asked
	// for the counts, before this goroutine runs again.
	m.count(len(b))
	n, err := m.ResponseWriter.Write(b)
	m.count(n - len(b))
	if m.left >= 0 {
		m.left -= int64(n)
	}
	if cut && err == nil {
		err = errCut // the reverse proxy closes the connection
	}
	return n, err
}

func (m *meter) count(n int) {
	m.p.down.Add(int64(n))
	if m.object && m.status < 300 {
		m.p.getBytes.Add(int64(n))
	}
}

// Unwrap lets the reverse proxy flush.
func (m *meter) Unwrap() http.ResponseWriter { return m.ResponseWriter }

// lost takes an answer to nowhere. It cannot be flushed: headers alone would be
// an answer.
type lost struct{}

func (lost) Header() http.Header         { return http.Header{} }
func (lost) Write(b []byte) (int, error) { return len(b), nil }
func (lost) WriteHeader(int)             {}

// buffers keeps the copying cheap.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 128<<10)
}

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }
