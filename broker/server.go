package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/firnlog/firn/fetch"
	"github.com/firnlog/firn/group"
	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/replication"
)

// Config is what a Server is made of.
type Config struct {
	Admin       *Admin
	Metadata    *metadata.Client
	Replication *replication.Manager
	Fetch       *fetch.Reader
	Groups      *group.Coordinator
	Sessions    *fetch.Sessions
	NodeID      int32
	Now         func() time.Time
	Logger      *slog.Logger
	Registerer  prometheus.Registerer // nil: no metrics
	// Authorizer is asked about every request; nil allows everything.
	Authorizer Authorizer
	// Quotas bounds clients by principal and client id; nil bounds nobody.
	Quotas func(principal, clientID string) Quota
	// AutoCreate says whether a request may make a missing topic
	// (auto.create.topics.enable).
	AutoCreate func() bool
	// Memory is the account of requests and answers; nil counts nothing.
	Memory *Memory
	// MaxConnections is how many connections there may be, and MaxConnectionsPerIP
	// how many from one address; 0 is 10,000 and nine tenths of all. Limits, when
	// not nil, may lower both while the server runs.
	MaxConnections, MaxConnectionsPerIP int
	Limits                              func() (connections, perIP int)
	// MaxIdle is connections.max.idle.ms: how long a connection may be silent
	// while nothing is unanswered; 0 is for ever.
	MaxIdle time.Duration
	// MaxRequestBytes is socket.request.max.bytes; 0 is 100 MiB.
	MaxRequestBytes int32
	// FetchMaxBytes is fetch.max.bytes, the most that a fetch is answered
	// whatever it asks; 0 is 55 MiB.
	FetchMaxBytes int32
}

// Server answers Kafka clients on any number of listeners.
type Server struct {
	cfg     Config
	logger  *slog.Logger
	metrics *serverMetrics
	making  chan struct{} // a token for each bulky answer that is being made
	pids    producerIDs
	quotas  quotas

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	bound   []*Bound
	conns   map[*Conn]struct{}
	perIP   map[string]int
	refused int       // connections, since a line said so
	said    time.Time // when that was
	closed  bool
}

// sayEvery is how often a line says that connections are refused.
const sayEvery = 10 * time.Second

// New returns a server that listens nowhere yet.
func New(cfg Config) *Server {
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = 10_000
	}
	if cfg.MaxConnectionsPerIP == 0 {
		cfg.MaxConnectionsPerIP = cfg.MaxConnections / 10 * 9
	}
	if cfg.Authorizer == nil {
		cfg.Authorizer = allowAll{}
	}
	if cfg.MaxRequestBytes == 0 {
		cfg.MaxRequestBytes = 100 << 20
	}
	if cfg.FetchMaxBytes == 0 {
		cfg.FetchMaxBytes = 55 << 20
	}
	s := &Server{cfg: cfg, logger: cfg.Logger.With("component", "broker"), conns: map[*Conn]struct{}{}, perIP: map[string]int{}, quotas: quotas{of: cfg.Quotas, now: cfg.Now}, making: make(chan struct{}, makers)}
	s.metrics = newServerMetrics(cfg.Registerer)
	if cfg.Registerer != nil && cfg.Replication != nil {
		cfg.Registerer.MustRegister(partitionCollector{cfg.NodeID, cfg.Metadata, cfg.Replication})
	}
	if cfg.Memory != nil {
		reclaim := s.reclaim
		cfg.Memory.reclaim.Store(&reclaim)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Serve accepts on b until Close. It returns at once.
func (s *Server) Serve(b *Bound) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		b.ln.Close()
		return
	}
	s.bound = append(s.bound, b)
	s.wg.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.wg.Done()
		for {
			nc, err := b.ln.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					s.logger.Warn("accept failed", "event", "accept_failed", "err", err)
				}
				select {
				case <-s.ctx.Done():
					return
				case <-time.After(50 * time.Millisecond): // out of descriptors: do not spin
					continue
				}
			}
			s.admit(b, nc)
		}
	}()
}

// admit starts a connection, or refuses it when there are too many.
func (s *Server) admit(b *Bound, nc net.Conn) {
	ip, _, _ := net.SplitHostPort(nc.RemoteAddr().String())
	most, mostPerIP := s.cfg.MaxConnections, s.cfg.MaxConnectionsPerIP
	if s.cfg.Limits != nil {
		all, one := s.cfg.Limits()
		most, mostPerIP = min(most, all), min(mostPerIP, one)
	}
	s.mu.Lock()
	switch {
	case s.closed:
		s.mu.Unlock()
		nc.Close()
		return
	case len(s.conns) >= most || s.perIP[ip] >= mostPerIP:
		s.refuseLocked(nc, ip, most, mostPerIP)
		s.mu.Unlock()
		return
	}
	c := newConn(s, b.Listener, nc)
	s.conns[c] = struct{}{}
	s.perIP[ip]++
	s.mu.Unlock()
	s.metrics.connections.Inc()
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		c.serve()
		s.mu.Lock()
		delete(s.conns, c)
		if s.perIP[ip]--; s.perIP[ip] == 0 {
			delete(s.perIP, ip)
		}
		s.mu.Unlock()
		s.metrics.connections.Dec()
	}()
}

// refuseLocked closes a connection that is one too many, with a line now and then.
func (s *Server) refuseLocked(nc net.Conn, ip string, most, mostPerIP int) {
	nc.Close()
	s.metrics.refused.Inc()
	s.refused++
	now := s.cfg.Now()
	if !s.said.IsZero() && now.Sub(s.said) < sayEvery {
		return
	}
	reason := fmt.Sprintf("%d connections are open (max.connections)", most)
	if len(s.conns) < most {
		reason = fmt.Sprintf("%d connections are open from this address (max.connections.per.ip)", mostPerIP)
	}
	s.logger.Warn("connection refused", "event", "connection_refused", "reason", reason, "remote", ip, "refused", s.refused)
	s.refused, s.said = 0, now
}

// makers is how many answers of APIs that are bulky are made at once.
const makers = 4

// bulky waits until an answer that may be large may be made: few at a time, since
// what it takes is known only when it is made, and none while there is no room.
// It is over with the call of done.
func (s *Server) bulky(ctx context.Context) (done func(), err error) {
	select {
	case s.making <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	room := s.cfg.Memory.begin(smallFrame)
	if err := room.take(ctx, smallFrame); err != nil {
		<-s.making
		return nil, err
	}
	return sync.OnceFunc(func() {
		room.release()
		<-s.making
	}), nil
}

// reclaim ends connections that hold memory for a client which has stalled, those
// with the most first: until there are large bytes of large requests and other
// bytes of whatever it is.
func (s *Server) reclaim(large, other int64) {
	since := s.cfg.Now().Add(-pressureStall)
	type holder struct {
		c       *Conn
		n       int64
		request int64 // of n, by a request that is being read
	}
	var all []holder
	s.mu.Lock()
	for c := range s.conns {
		request := c.in.stalled(since)
		if n := request + c.stalled(since); n > 0 {
			all = append(all, holder{c, n, request})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b holder) int { return cmp.Compare(b.n, a.n) })
	for _, h := range all {
		switch {
		case large > 0 && h.request > 0:
			large -= h.request
		case other > 0:
			other -= h.n
		default:
			continue
		}
		s.metrics.reclaimed.Inc()
		h.c.end(fmt.Sprintf("the client stalled for %v while it held %d bytes that others wait for", pressureStall, h.n))
	}
}

// Close stops accepting, ends every connection and returns when no goroutine is
// left. Safe to call twice.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.cancel()
	for _, b := range s.bound {
		b.ln.Close()
	}
	for c := range s.conns {
		c.nc.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}
