package broker

import (
	"context"
	"errors"
	"log/slog"
	"net"
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
	// AutoCreate says whether a request may make a missing topic
	// (auto.create.topics.enable).
	AutoCreate func() bool
	// MaxConnections and MaxConnectionsPerIP refuse more; 0 is 10,000 and 5,000.
	MaxConnections, MaxConnectionsPerIP int
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
	pids    producerIDs

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	bound  []*Bound
	conns  map[*Conn]struct{}
	perIP  map[string]int
	closed bool
}

// New returns a server that listens nowhere yet.
func New(cfg Config) *Server {
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = 10_000
	}
	if cfg.MaxConnectionsPerIP == 0 {
		cfg.MaxConnectionsPerIP = 5_000
	}
	if cfg.MaxRequestBytes == 0 {
		cfg.MaxRequestBytes = 100 << 20
	}
	if cfg.FetchMaxBytes == 0 {
		cfg.FetchMaxBytes = 55 << 20
	}
	s := &Server{cfg: cfg, logger: cfg.Logger.With("component", "broker"), conns: map[*Conn]struct{}{}, perIP: map[string]int{}}
	s.metrics = newServerMetrics(cfg.Registerer)
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
	s.mu.Lock()
	if s.closed || len(s.conns) >= s.cfg.MaxConnections || s.perIP[ip] >= s.cfg.MaxConnectionsPerIP {
		s.mu.Unlock()
		s.metrics.refused.Inc()
		nc.Close()
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

type serverMetrics struct {
	requests    *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	connections prometheus.Gauge
	refused     prometheus.Counter
	byKey       [maxKey]struct {
		n prometheus.Counter
		d prometheus.Observer
	}
}

func newServerMetrics(reg prometheus.Registerer) *serverMetrics {
	m := &serverMetrics{
		requests:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "firn_kafka_requests_total", Help: "Requests answered, by API."}, []string{"api"}),
		duration:    prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "firn_kafka_request_duration_seconds", Help: "From a request's last byte to its answer being ready, waiting included.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9)}, []string{"api"}),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{Name: "firn_kafka_connections", Help: "Open client connections."}),
		refused:     prometheus.NewCounter(prometheus.CounterOpts{Name: "firn_kafka_connections_refused_total", Help: "Connections refused because there were too many."}),
	}
	for key, a := range apis {
		if a != nil {
			m.byKey[key].n, m.byKey[key].d = m.requests.WithLabelValues(a.name), m.duration.WithLabelValues(a.name)
		}
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.duration, m.connections, m.refused)
	}
	return m
}
