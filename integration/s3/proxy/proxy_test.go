package proxy

import (
	"bytes"
	"context"
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
	var host, last atomic.Value
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		host.Store(r.Host)
		sent, _ := io.ReadAll(r.Body)
		last.Store(string(sent))
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

	// Late: the client has gone, the store is asked all the same, with the body.
	until, met := make(chan struct{}), make(chan struct{})
	p.Inject(Rule{Action: Late, Method: "PUT", Until: until, Met: func(*http.Request) { close(met) }})
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	before := reached.Load()
	go func() {
		req, _ := http.NewRequestWithContext(ctx, "PUT", p.URL+"/b/k", bytes.NewReader([]byte("late")))
		_, err := http.DefaultClient.Do(req)
		gone <- err
	}()
	<-met
	cancel()
	if err := <-gone; err == nil {
		t.Error("a late request was answered")
	}
	if reached.Load() != before {
		t.Error("a late request has passed before its time")
	}
	close(until)
	for deadline := time.Now().Add(10 * time.Second); reached.Load() != before+1 || last.Load() != "late"; {
		if time.Now().After(deadline) {
			t.Fatalf("the store saw %d requests and %q", reached.Load()-before, last.Load())
		}
		<-time.After(time.Millisecond)
	}
	p.Inject(Rule{Action: Damage, Method: "GET", Bytes: 200_000})
	status, got, err := do("GET", "/b/k", nil)
	if status != 200 || err != nil || len(got) != len(body) || got[200_000] == body[200_000] || !bytes.Equal(got[:200_000], body[:200_000]) || !bytes.Equal(got[200_001:], body[200_001:]) {
		t.Errorf("one bit should be wrong: status %d, %d bytes, %v", status, len(got), err)
	}
	p.SetLatency(30 * time.Millisecond)
	began := time.Now()
	do("PUT", "/b/k", nil)
	if d := time.Since(began); d < 30*time.Millisecond {
		t.Errorf("a request with 30 ms added took %v", d)
	}
}
