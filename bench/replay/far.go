package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/firnlog/firn/bench/load"
	"github.com/firnlog/firn/integration/s3/proxy"
)

// far is the process that stands for the other machines: the proxy in front of
// the store and the client that replays.
type far struct {
	URL     string // of the store, by way of the proxy
	Control string // of what follows
	cmd     *exec.Cmd
}

// fetched is the answer to a fetch order.
type fetched struct {
	Result load.Result
	Counts proxy.Counts
	Err    string
}

// beFar serves until its parent closes the pipe.
func beFar(ctx context.Context, upstream string) error {
	p, err := proxy.New(upstream)
	if err != nil {
		return err
	}
	defer p.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /latency", func(w http.ResponseWriter, r *http.Request) {
		d, err := time.ParseDuration(r.FormValue("d"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		p.SetLatency(d)
	})
	mux.HandleFunc("POST /fetch", func(w http.ResponseWriter, r *http.Request) {
		var o load.Options
		var out fetched
		err := json.NewDecoder(r.Body).Decode(&o)
		if err == nil {
			p.Reset()
			var leaders map[string][]int32
			if leaders, err = load.Prepare(o); err == nil {
				out.Result, err = load.Fetch(o, leaders)
			}
		}
		if err != nil {
			out.Err = err.Error()
		}
		out.Counts = p.Counts()
		json.NewEncoder(w).Encode(out)
	})
	go http.Serve(ln, mux)
	if err := json.NewEncoder(os.Stdout).Encode(far{URL: p.URL, Control: "http://" + ln.Addr().String()}); err != nil {
		return err
	}
	gone := make(chan struct{})
	go func() { io.Copy(io.Discard, os.Stdin); close(gone) }()
	select {
	case <-gone:
	case <-ctx.Done():
	}
	return nil
}

func startFar(ctx context.Context, upstream string) (*far, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	f := &far{cmd: exec.CommandContext(ctx, "nice", "-n", "19", self, "far", upstream)}
	f.cmd.Stderr = os.Stderr
	if _, err := f.cmd.StdinPipe(); err != nil { // closed when this process ends
		return nil, err
	}
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := f.cmd.Start(); err != nil {
		return nil, err
	}
	return f, json.NewDecoder(out).Decode(f)
}

func (f *far) close() {
	f.cmd.Process.Kill()
	f.cmd.Wait()
}

func (f *far) latency(d time.Duration) error {
	resp, err := http.Post(f.Control+"/latency?d="+strconv.Itoa(int(d.Milliseconds()))+"ms", "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("set the store's latency: %s", resp.Status)
	}
	return nil
}

// fetch replays from there.
func (f *far) fetch(ctx context.Context, o load.Options) (load.Result, proxy.Counts, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return load.Result{}, proxy.Counts{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.Control+"/fetch", bytes.NewReader(body))
	if err != nil {
		return load.Result{}, proxy.Counts{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return load.Result{}, proxy.Counts{}, err
	}
	defer resp.Body.Close()
	var out fetched
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		return out.Result, out.Counts, err
	}
	if out.Err != "" {
		return out.Result, out.Counts, fmt.Errorf("replay: %s", out.Err)
	}
	return out.Result, out.Counts, nil
}
