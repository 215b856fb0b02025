package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/firnlog/firn/bench/load"
)

// scenario is one kind of work.
type scenario struct {
	name    string
	what    string
	options load.Options
	flushed bool // firn's acknowledgements wait for the disk (Kafka's never do)
	run     func(ctx context.Context, c *config, s scenario) ([]sample, error)
	figures []figure
}

// figure is one number of a scenario, and what firn's may be at most (or must be
// at least) as a multiple of the others'.
type figure struct {
	name, unit     string
	of             func(sample) float64
	kafka, floor   float64 // bounds as ratios; 0: none
	higherIsBetter bool
	limit          float64 // a bound of its own; 0: none
	acrossSettings bool    // compared although settings differ, which the name says
}

// sample is one run of a scenario on a server.
type sample struct {
	Scenario string            `json:"scenario"`
	Server   string            `json:"server"`
	Round    int               `json:"round"`
	Settings map[string]string `json:"settings,omitempty"`
	Options  map[string]any    `json:"load,omitempty"`
	Result   load.Result       `json:"result"`
	P99      float64           `json:"p99_ms,omitempty"`
	Ready    float64           `json:"ready_ms,omitempty"`
	Rate     float64           `json:"mib_per_s,omitempty"`
}

func perGiB(kafka, floor float64) figure {
	return figure{name: "server CPU", unit: "s/GiB", of: func(s sample) float64 { return s.Result.CPUPerGiB() }, kafka: kafka, floor: floor}
}

func perRequest(kafka, floor float64) figure {
	return figure{name: "server CPU", unit: "us/request", of: func(s sample) float64 { return s.Result.CPUPerRequest() }, kafka: kafka, floor: floor}
}

func rate() figure {
	return figure{name: "rate", unit: "MiB/s", of: func(s sample) float64 { return s.Rate }, higherIsBetter: true}
}

func peak(limit float64) figure {
	return figure{name: "peak resident memory", unit: "MiB", of: func(s sample) float64 { return s.Result.Peak }, limit: limit}
}

func scenarios() []scenario {
	o := func(batch int, codec string, bytes int64) load.Options {
		return load.Options{Partitions: 8, Batch: batch, Codec: codec, Acks: -1, Bytes: bytes, For: 40 * time.Second}
	}
	return []scenario{
		{name: "produce-1", what: "produce, one-record batches", options: o(1, "none", 80e6), run: produce, figures: []figure{perRequest(0.4, 1.8), rate()}},
		{name: "produce-16", what: "produce, 16-record batches", options: o(16, "none", 800e6), run: produce, figures: []figure{perGiB(0.45, 1.4), rate()}},
		{name: "produce-128", what: "produce, 128-record batches", options: o(128, "none", 2e9), run: produce, figures: []figure{perGiB(0.7, 1.4), rate(), peak(400)}},
		{name: "produce-128-zstd", what: "produce, 128-record batches, zstd", options: o(128, "zstd", 1.5e9), run: produce, figures: []figure{perGiB(0.45, 1.4), rate()}},
		{name: "fetch-hot", what: "fetch hot, 128-record batches", options: o(128, "none", 2e9), run: fetchHot, figures: []figure{perGiB(0.9, 1.2), rate()}},
		{name: "produce-fsync", what: "produce on disk: firn flushed, Kafka not", options: onDisk(o(128, "none", 3e9)), flushed: true, run: produceOnDisk,
			figures: []figure{{name: "rate", unit: "MiB/s", of: func(s sample) float64 { return s.Rate }, higherIsBetter: true, acrossSettings: true}, acrossCPU()}},
		{name: "start", what: "start to the first answer, then idle", run: startUp, figures: []figure{
			{name: "start to ready", unit: "ms", of: func(s sample) float64 { return s.Ready }, kafka: 0.1},
			{name: "idle resident memory", unit: "MiB", of: func(s sample) float64 { return s.Result.RSS }, limit: 60},
		}},
	}
}

func onDisk(o load.Options) load.Options {
	o.Conns, o.For = 8, 25*time.Second
	return o
}

func acrossCPU() figure {
	f := perGiB(1, 0)
	f.acrossSettings = true
	return f
}

// compared starts what is compared in the folder, warmed up.
func compared(ctx context.Context, c *config, dir string, withFloor bool) (all []*process, stop func(), err error) {
	servers := []server{firn{c.firn}}
	if c.kafkaLibs != "" {
		servers = append(servers, kafka{c.kafkaLibs})
	}
	if withFloor {
		servers = append(servers, floor{c.floor})
	}
	stop = func() {
		for _, p := range all {
			p.stop()
		}
	}
	for _, s := range servers {
		p, err := start(ctx, s, dir)
		if err != nil {
			stop()
			return nil, nil, err
		}
		all = append(all, p)
		if s.warm() {
			progress("   warming %s for %s", s.name(), c.warm)
			if err := warmUp(c, p); err != nil {
				stop()
				return nil, nil, err
			}
		}
	}
	return all, stop, nil
}

// warmUp gives the JVM every kind of work until it has compiled what it needs.
func warmUp(c *config, p *process) error {
	kinds := []load.Options{{Batch: 1}, {Batch: 16}, {Batch: 128}, {Batch: 16, Codec: "zstd"}, {Batch: 128, Codec: "zstd"}}
	for i, o := range kinds {
		o.Addr, o.Topic, o.Partitions, o.Acks, o.Create, o.Config = p.addr, fmt.Sprintf("warm-%d", i), 8, -1, true, p.topic(false)
		o.For, o.Bytes = c.warm/time.Duration(len(kinds)), 1500e6
		leaders, err := load.Prepare(o)
		if err != nil {
			return err
		}
		if _, err := load.Produce(o, leaders); err != nil {
			return err
		}
		o.For = c.warm / 10
		if _, err := load.Fetch(o, leaders); err != nil {
			return err
		}
		if err := load.DeleteTopic(p.addr, o.Topic); err != nil {
			return err
		}
		if err := p.drained(300 << 20); err != nil {
			return err
		}
	}
	return nil
}

// rounds runs one after the other, all servers in each round, in changing order.
func rounds(ctx context.Context, c *config, s scenario, all []*process, one func(p *process, round int) (sample, error)) (runs []sample, err error) {
	for round := range c.rounds {
		for i := range all {
			p := all[(i+round)%len(all)]
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			r, err := one(p, round)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.name(), err)
			}
			r.Scenario, r.Server, r.Round = s.name, p.name(), round
			runs = append(runs, r)
			progress("   %-16s round %d  %-6s %8.1f MiB/s  %7.3f CPU-s/GiB  %7.1f us/request  p99 %.1f ms", s.name, round+1, p.name(), r.Rate, r.Result.CPUPerGiB(), r.Result.CPUPerRequest(), r.P99)
		}
	}
	return runs, nil
}

func produce(ctx context.Context, c *config, s scenario) ([]sample, error) {
	return exercise(ctx, c, s, c.tmpfs, true, load.Produce)
}

func fetchHot(ctx context.Context, c *config, s scenario) ([]sample, error) {
	return exercise(ctx, c, s, c.tmpfs, true, func(o load.Options, leaders map[string][]int32) (load.Result, error) {
		fill := o
		fill.PIDs = nil
		if _, err := load.Produce(fill, leaders); err != nil {
			return load.Result{}, err
		}
		o.Bytes = 0
		var total load.Result
		for range 5 { // one pass is too short for the kernel's hundredths of a second
			r, err := load.Fetch(o, leaders)
			if err != nil {
				return r, err
			}
			total.Merge(r)
		}
		return total, nil
	})
}

func produceOnDisk(ctx context.Context, c *config, s scenario) ([]sample, error) {
	runs, err := exercise(ctx, c, s, c.disk, false, load.Produce)
	if err != nil {
		return nil, err
	}
	for round := range c.rounds {
		mib, err := probe(c.disk, int64(c.scale*1e9))
		if err != nil {
			return nil, err
		}
		progress("   %-16s round %d  %-6s %8.1f MiB/s of write and fdatasync, 4 MiB each", s.name, round+1, "probe", mib)
		runs = append(runs, sample{Scenario: s.name, Server: "probe", Round: round, Rate: mib})
	}
	return runs, nil
}

// probe is the rate at which a plain program writes and syncs.
func probe(dir string, n int64) (mibPerSecond float64, err error) {
	f, err := os.Create(filepath.Join(dir, "probe"))
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block, began := make([]byte, 4<<20), time.Now()
	for i := range block {
		block[i] = byte(i * 7)
	}
	written := int64(0)
	for ; written < n; written += int64(len(block)) {
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
	}
	return float64(written) / (1 << 20) / time.Since(began).Seconds(), nil
}

// exercise gives every server the same load, on a topic made for the run.
func exercise(ctx context.Context, c *config, s scenario, dir string, withFloor bool, do func(load.Options, map[string][]int32) (load.Result, error)) ([]sample, error) {
	progress("%s: %s", s.name, s.what)
	all, stop, err := compared(ctx, c, dir, withFloor)
	if err != nil {
		return nil, err
	}
	defer stop()
	return rounds(ctx, c, s, all, func(p *process, round int) (r sample, err error) {
		if p.name() == "floor" { // it deletes nothing: a new one each time
			old := *p
			old.stop()
			fresh, err := start(ctx, old.server, dir)
			if err != nil {
				return r, err
			}
			*p = *fresh
		}
		o := s.options
		o.Bytes = int64(float64(o.Bytes) * c.scale)
		if dir == c.tmpfs {
			if err := touch(dir, o.Bytes+o.Bytes/4); err != nil {
				return r, err
			}
		}
		o.Addr, o.Topic, o.Create, o.Config, o.PIDs = p.addr, fmt.Sprintf("%s-%d", s.name, round), true, p.topic(s.flushed && p.name() == "firn"), p.pids()
		leaders, err := load.Prepare(o)
		if err != nil {
			return r, err
		}
		if p.name() != "floor" {
			told, err := load.TopicConfig(o.Addr, o.Topic)
			if err != nil {
				return r, err
			}
			r.Settings = p.settings(told)
			r.Settings["file system"] = fileSystem(dir)
		}
		if r.Result, err = do(o, leaders); err != nil {
			return r, err
		}
		r.Rate, r.P99 = r.Result.MiBPerSecond(), r.Result.Quantile(.99).Seconds()*1e3
		r.Options = map[string]any{"partitions": o.Partitions, "batch": o.Batch, "record": 1024, "codec": o.Codec, "acks": o.Acks, "conns": max(1, o.Conns), "depth": 4, "bytes": o.Bytes}
		if p.name() == "floor" {
			return r, nil
		}
		if err := load.DeleteTopic(o.Addr, o.Topic); err != nil {
			return r, err
		}
		return r, p.drained(300 << 20)
	})
}

// startUp starts each server on an empty, formatted folder and looks at it when it
// has been idle for a while.
func startUp(ctx context.Context, c *config, s scenario) (runs []sample, err error) {
	progress("%s: %s", s.name, s.what)
	servers := []server{firn{c.firn}}
	if c.kafkaLibs != "" {
		servers = append(servers, kafka{c.kafkaLibs})
	}
	for round := range c.rounds {
		for _, sv := range servers {
			p, err := start(ctx, sv, c.disk)
			if err != nil {
				return nil, err
			}
			select {
			case <-time.After(5 * time.Second):
			case <-ctx.Done():
			}
			before, err := load.UsageOf(p.pids())
			p.stop()
			if err = errors.Join(err, ctx.Err()); err != nil {
				return nil, err
			}
			r := sample{Scenario: s.name, Server: sv.name(), Round: round, Ready: p.took.Seconds() * 1e3}
			r.Result.RSS, r.Result.Peak = before.RSS, before.Peak
			progress("   %-16s round %d  %-6s ready after %.0f ms, %.0f MiB resident when idle", s.name, round+1, sv.name(), r.Ready, r.Result.RSS)
			runs = append(runs, r)
		}
	}
	return runs, nil
}

// fileSystem names the kind of file system that dir is on.
func fileSystem(dir string) string {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return "unknown"
	}
	if name, ok := map[int64]string{0x01021994: "tmpfs", 0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs"}[int64(st.Type)]; ok {
		return name
	}
	return fmt.Sprintf("%#x", st.Type)
}
