// Command replay measures what comes back from the bucket: how fast one partition
// is replayed from a store 30 ms away with an empty cache, beside the same replay
// from a store next door, how many bytes are fetched for each byte served, and what
// a paced replay costs a producer and a consumer at the tail.
//
// The store is versitygw with its files on tmpfs, behind a proxy that adds the
// latency and counts. Raw JSON on stdout, progress and the table on stderr.
//
// In a real deployment the store and the replaying client are other machines. Here
// they share two cores with the server, so they run at the lowest priority in a
// process of their own (far.go): what is measured is the server.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/firnlog/firn/bench/load"
)

type bench struct {
	firn, gateway string
	dir           string
	bytes         int64
	rounds        int
	latency       time.Duration
	store         *exec.Cmd
	far           *far
	server        *exec.Cmd
	serverDone    chan struct{}
	addr, admin   string
	cold          int64 // bytes of the topic that are only in the bucket
	tailFor       time.Duration
	pace          int64
}

// sample is one run.
type sample struct {
	Work      string  `json:"work"`
	Round     int     `json:"round"`
	LatencyMs float64 `json:"store_latency_ms"`
	Rate      float64 `json:"mib_per_s,omitempty"`
	PerByte   float64 `json:"get_bytes_per_byte,omitempty"`
	Gets      int64   `json:"gets,omitempty"`
	CPU       float64 `json:"server_cpu_s_per_gib,omitempty"`
	Peak      float64 `json:"server_peak_mib,omitempty"`
	Produce   float64 `json:"produce_p99_ms,omitempty"`
	Consume   float64 `json:"consume_p99_ms,omitempty"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "replay:", err)
		os.Exit(1)
	}
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func run(ctx context.Context) (err error) {
	if len(os.Args) == 3 && os.Args[1] == "far" {
		return beFar(ctx, os.Args[2])
	}
	var b bench
	var base string
	flag.StringVar(&b.firn, "firn", "bin/firn", "firn's binary")
	flag.StringVar(&b.gateway, "versitygw", "versitygw", "the store's binary")
	flag.StringVar(&base, "dir", "/dev/shm", "where the store and the data lie")
	flag.Int64Var(&b.bytes, "bytes", 1<<30, "bytes to replay")
	flag.IntVar(&b.rounds, "rounds", 5, "runs of each kind; medians are compared")
	flag.DurationVar(&b.latency, "latency", 30*time.Millisecond, "the far store's latency")
	flag.DurationVar(&b.tailFor, "tail", 10*time.Second, "how long the tail is watched in each run")
	flag.Int64Var(&b.pace, "pace", 50<<20, "bytes a second of the replay beside the tail")
	flag.Parse()
	if b.dir, err = os.MkdirTemp(base, "firn-replay-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	defer b.stopAll()
	if err := b.startStore(ctx); err != nil {
		return err
	}
	if err := b.startServer(ctx); err != nil {
		return err
	}
	progress("filling %d MiB, and waiting until the bucket alone has them", b.bytes>>20)
	if err := b.fill(ctx); err != nil {
		return err
	}
	enc := json.NewEncoder(os.Stdout)
	var all []sample
	for round := range b.rounds {
		for _, latency := range []time.Duration{0, b.latency} {
			s, err := b.replay(ctx, latency)
			if err != nil {
				return err
			}
			s.Round = round
			progress("   replay, store %3.0f ms away   %7.1f MiB/s  %.3f bytes fetched a byte served in %d GETs  %.2f CPU-s/GiB  peak %.0f MiB", s.LatencyMs, s.Rate, s.PerByte, s.Gets, s.CPU, s.Peak)
			all = append(all, s)
			enc.Encode(s)
		}
	}
	for round := range b.rounds {
		for _, beside := range []bool{false, true} {
			s, err := b.tail(ctx, beside)
			if err != nil {
				return err
			}
			s.Round = round
			progress("   %-28s producer p99 %6.2f ms  consumer p99 %6.2f ms  replay %.1f MiB/s", s.Work, s.Produce, s.Consume, s.Rate)
			all = append(all, s)
			enc.Encode(s)
		}
	}
	fmt.Fprint(os.Stderr, "\n", table(all))
	return nil
}

func median(all []sample, work string, latency float64, of func(sample) float64) float64 {
	var v []float64
	for _, s := range all {
		if s.Work == work && s.LatencyMs == latency {
			v = append(v, of(s))
		}
	}
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[len(v)/2]
}

func table(all []sample) string {
	far := all[1].LatencyMs
	rate := func(s sample) float64 { return s.Rate }
	perByte := func(s sample) float64 { return s.PerByte }
	near, away := median(all, "replay", 0, rate), median(all, "replay", far, rate)
	verdict := func(ok bool) string {
		if ok {
			return "met"
		}
		return "missed"
	}
	out := "| work | figure | value | aim |\n|---|---|---|---|\n"
	out += fmt.Sprintf("| cold replay, one partition, store next door | rate | %.0f MiB/s | |\n", near)
	out += fmt.Sprintf("| cold replay, one partition, store %.0f ms away | rate | %.0f MiB/s | at least 200: %s |\n", far, away, verdict(away >= 200))
	out += fmt.Sprintf("| | of the near one | %.2f | at least 0.7: %s |\n", away/near, verdict(away >= 0.7*near))
	pb := median(all, "replay", far, perByte)
	out += fmt.Sprintf("| | bytes fetched a byte served | %.3f | at most 1.1: %s |\n", pb, verdict(pb <= 1.1))
	for _, who := range []struct {
		name string
		of   func(sample) float64
	}{{"producer", func(s sample) float64 { return s.Produce }}, {"consumer", func(s sample) float64 { return s.Consume }}} {
		alone, beside := median(all, "tail alone", far, who.of), median(all, "tail beside a replay", far, who.of)
		out += fmt.Sprintf("| tail beside a paced replay | p99 of a %s | %.2f ms, alone %.2f ms: %.2f | at most 1.5: %s |\n", who.name, beside, alone, beside/alone, verdict(beside <= 1.5*alone))
	}
	return out
}

func (b *bench) startStore(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Join(b.dir, "s3", "bench"), 0o755); err != nil {
		return err
	}
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	b.store = exec.CommandContext(ctx, "nice", "-n", "19", b.gateway, "--access", "bench", "--secret", "benchbench", "--port", addr, "--region", "us-east-1", "--keep-alive", "--quiet", "posix", filepath.Join(b.dir, "s3"))
	if err := b.store.Start(); err != nil {
		return err
	}
	for range 200 {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			b.far, err = startFar(ctx, "http://"+addr)
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("versitygw does not answer")
}

func (b *bench) startServer(ctx context.Context) (err error) {
	if b.addr == "" {
		if b.addr, err = freeAddr(); err != nil {
			return err
		}
		if b.admin, err = freeAddr(); err != nil {
			return err
		}
	}
	q := url.Values{"endpoint": {b.far.URL}, "region": {"us-east-1"}, "path-style": {"true"}}
	out, err := os.OpenFile(filepath.Join(b.dir, "firn.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	b.server = exec.CommandContext(ctx, b.firn, "up", "--data-dir", filepath.Join(b.dir, "data"), "--kafka-addr", b.addr, "--admin-addr", b.admin,
		"--bucket", "s3://bench/firn?"+q.Encode(), "--cache-size", "8GiB")
	b.server.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID=bench", "AWS_SECRET_ACCESS_KEY=benchbench")
	b.server.Stderr = out
	if err := b.server.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	b.serverDone = done
	go func(cmd *exec.Cmd) { cmd.Wait(); close(done) }(b.server)
	for range 600 {
		resp, err := http.Get("http://" + b.admin + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-done:
			text, _ := os.ReadFile(filepath.Join(b.dir, "firn.log"))
			return fmt.Errorf("firn ended: %s", text[max(0, len(text)-1000):])
		case <-time.After(50 * time.Millisecond):
		}
	}
	return errors.New("firn is not ready after 30 s")
}

func (b *bench) stopServer() {
	if b.server == nil || b.server.Process == nil {
		return
	}
	b.server.Process.Signal(syscall.SIGTERM)
	select {
	case <-b.serverDone:
	case <-time.After(30 * time.Second):
		b.server.Process.Kill()
		<-b.serverDone
	}
	b.server = nil
}

func (b *bench) stopAll() {
	b.stopServer()
	if b.far != nil {
		b.far.close()
	}
	if b.store != nil && b.store.Process != nil {
		b.store.Process.Kill()
		b.store.Wait()
	}
}

func (b *bench) options() load.Options {
	return load.Options{Addr: b.addr, Topic: "replay", Partitions: 1, Batch: 128, Acks: -1, For: 5 * time.Minute, PIDs: []int{b.server.Process.Pid}}
}

// fill produces, and waits until all but the active segment is in the bucket alone.
func (b *bench) fill(ctx context.Context) error {
	o := b.options()
	o.Create, o.Config = true, map[string]string{"segment.bytes": "67108864", "local.retention.bytes": "1", "firn.durability": "replicated"}
	o.Bytes = b.bytes + 64<<20
	leaders, err := load.Prepare(o)
	if err != nil {
		return err
	}
	if _, err := load.Produce(o, leaders); err != nil {
		return err
	}
	batch, err := load.EncodeBatch(o.Batch, 1024, "none")
	if err != nil {
		return err
	}
	for range 1200 {
		local, err := load.Offset(b.addr, "replay", 0, -4) // earliest local
		if err != nil {
			return err
		}
		if b.cold = local / int64(o.Batch) * int64(len(batch)); b.cold >= b.bytes*9/10 {
			progress("   %d MiB are in the bucket alone", b.cold>>20)
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return fmt.Errorf("only %d MiB left the local disk within two minutes", b.cold>>20)
}

// fresh starts firn again with nothing in its cache.
func (b *bench) fresh(ctx context.Context) error {
	if err := b.far.latency(0); err != nil {
		return err
	}
	b.stopServer()
	if err := os.RemoveAll(filepath.Join(b.dir, "data", "cache")); err != nil {
		return err
	}
	return b.startServer(ctx)
}

func (b *bench) replay(ctx context.Context, latency time.Duration) (s sample, err error) {
	if err := b.fresh(ctx); err != nil {
		return s, err
	}
	if err := b.far.latency(latency); err != nil {
		return s, err
	}
	o := b.options()
	o.Bytes = b.cold
	r, n, err := b.far.fetch(ctx, o)
	if err != nil {
		return s, err
	}
	return sample{Work: "replay", LatencyMs: latency.Seconds() * 1e3, Rate: r.MiBPerSecond(), PerByte: float64(n.GetBytes) / float64(r.Bytes), Gets: n.Gets, CPU: r.CPUPerGiB(), Peak: r.Peak}, nil
}

func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}
