package admin

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

// TestReadinessFollowsTheBroker asks before and after the broker says it is
// ready; liveness and metrics answer all the time.
func TestReadinessFollowsTheBroker(t *testing.T) {
	defer goleak.VerifyNone(t)
	defer http.DefaultClient.CloseIdleConnections()
	var ready atomic.Bool
	reg := prometheus.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "firn_test_total", Help: "a counter"})
	reg.MustRegister(c)
	c.Inc()
	s, err := Start(Config{Addr: "127.0.0.1:0", Listen: net.Listen, Gatherer: reg, Logger: slog.New(slog.DiscardHandler), Ready: func() error {
		if ready.Load() {
			return nil
		}
		return errors.New("3 partitions are being recovered")
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	get := func(path string) (int, string) {
		t.Helper()
		resp, err := http.Get("http://" + s.Addr() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	if code, body := get("/readyz"); code != 503 || !strings.Contains(body, "3 partitions") {
		t.Errorf("before ready: %d %q, want 503 with the reason", code, body)
	}
	ready.Store(true)
	for path, want := range map[string]string{"/readyz": "ready", "/livez": "ok", "/metrics": "firn_test_total 1", "/public_metrics": "firn_test_total 1"} {
		if code, body := get(path); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %q, want 200 with %q", path, code, body, want)
		}
	}
	if code, _ := get("/nothing"); code != 404 {
		t.Errorf("unknown path: %d, want 404", code)
	}
}
