package proxy

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// TestTheProxyShowsAndDoesWhatItSays drives each action against a plain server.
func TestTheProxyShowsAndDoesWhatItSays(t *testing.T) {
	var reached atomic.Int64
	body := bytes.Repeat([]byte("x"), 300_000)
	var host atomic.Value
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		host.Store(r.Host)
		io.Copy(io.Discard, r.Body)
		w.Header().Set("ETag", "e")
		if r.Method == http.MethodGet {
			w.Write(body)
		}
	}))
	defer store.Close()
	p := Start(t, store.URL)
	do := func(method, path string, send []byte) (int, []byte, error) {
		req, _ := http.NewRequest(method, p.URL+path, bytes.NewReader(send))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, nil, err
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		return resp.StatusCode, got, err
	}

	if status, got, err := do("GET", "/b/k", nil); status != 200 || !bytes.Equal(got, body) || err != nil {
		t.Fatalf("GET: %d, %d bytes, %v", status, len(got), err)
	}
	if "http://"+host.Load().(string) != p.URL {
		t.Errorf("the store saw Host %v, the client sent %s", host.Load(), p.URL)
	}
	do("GET", "/b?list-type=2", nil)
	do("PUT", "/b/k", body[:1000])
	if c := p.Counts(); c.Requests["GET"] != 2 || c.Requests["PUT"] != 1 || c.Gets != 1 || c.GetBytes != int64(len(body)) || c.Up != 1000 || c.Down != 2*int64(len(body)) {
		t.Errorf("counted %+v", c)
	}
	p.Reset()
	for _, tt := range []struct {
		rule    Rule
		reaches int64
		status  int // 0: an error
	}{
		{Rule{Action: Refuse}, 0, 503},
		{Rule{Action: Refuse, Status: 500}, 0, 500},
		{Rule{Action: Lose}, 1, 0},
		{Rule{Action: Drop}, 0, 0},
		{Rule{Action: Cut, Method: "GET", Bytes: 1000}, 1, 0},
	} {
		before := reached.Load()
		p.Inject(tt.rule)
		method := "PUT"
		if tt.rule.Action == Cut {
			method = "GET"
		}
		status, got, err := do(method, "/b/k", []byte("data"))
		if tt.status == 0 && err == nil || tt.status != 0 && status != tt.status {
			t.Errorf("%+v: status %d, %v", tt.rule, status, err)
		}
		if n := reached.Load() - before; n != tt.reaches {
			t.Errorf("%+v: %d requests reached the store, want %d", tt.rule, n, tt.reaches)
		}
		if tt.rule.Action == Cut && len(got) > 1000 {
			t.Errorf("cut after %d bytes", len(got))
		}
	}
	p.SetLatency(30 * time.Millisecond)
	began := time.Now()
	do("PUT", "/b/k", nil)
	if d := time.Since(began); d < 30*time.Millisecond {
		t.Errorf("a request with 30 ms added took %v", d)
	}
}
