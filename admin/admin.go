// Package admin is the HTTP side of a broker: whether it is alive and ready, its
// metrics, its profiles. It listens on loopback unless its caller was told
// otherwise, because profiles and metrics say a lot to whoever can read them.
//
//	/livez          200 while the process runs
//	/readyz         200 once every partition was opened and the listeners accept,
//	                503 with the reason before that and while stopping
//	/metrics        Prometheus text; /public_metrics is the same under the name
//	                that Redpanda's scrapers know
//	/debug/pprof/   Go's profiles
package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config is what a Server is made of.
type Config struct {
	// Addr is HOST:PORT; port 0 takes any free one.
	Addr string
	// Listen binds it: net.Listen outside of tests. Required.
	Listen func(network, address string) (net.Listener, error)
	// Ready says why the broker cannot serve yet, or nil.
	Ready    func() error
	Gatherer prometheus.Gatherer
	Logger   *slog.Logger
}

// Server is a listening admin API.
type Server struct {
	http *http.Server
	ln   net.Listener
	done chan struct{}
}

// Start listens and serves until Close.
func Start(cfg Config) (*Server, error) {
	ln, err := cfg.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("admin API: %w; choose another --admin-addr", err)
	}
	s := &Server{ln: ln, done: make(chan struct{}), http: &http.Server{
		Handler: handler(cfg), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(ln); err != nil && !errors.Is(err, http.ErrServerClosed) {
			cfg.Logger.Error("admin API stopped", "event", "admin_stopped", "err", err)
		}
	}()
	return s, nil
}

// Addr is the address that the server listens on.
func (s *Server) Addr() string { return s.ln.Addr().String() }

// Close stops listening, gives running requests a moment and returns when none
// is left. Safe to call twice.
func (s *Server) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		s.http.Close()
	}
	<-s.done
}

func handler(cfg Config) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := cfg.Ready(); err != nil {
			http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	metrics := promhttp.HandlerFor(cfg.Gatherer, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
	mux.Handle("GET /metrics", metrics)
	mux.Handle("GET /public_metrics", metrics)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
