// Command loadgen loads one Kafka server and prints what that cost it, as one
// line of JSON (package load says how).
//
//	loadgen produce -addr 127.0.0.1:9092 -topic t -partitions 8 -batch 128 -acks -1 -for 10s -pids 123
//	loadgen fetch   -addr 127.0.0.1:9092 -topic t -partitions 8 -batch 128 -pids 123
//	loadgen latency -addr 127.0.0.1:9092 -topic t -rate 1000 -batch 1 -for 10s -pids 123
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/firnlog/firn/bench/load"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "loadgen:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	modes := map[string]func(load.Options, map[string][]int32) (load.Result, error){
		"produce": load.Produce, "fetch": load.Fetch, "latency": load.Latency,
	}
	if len(args) == 0 || modes[args[0]] == nil {
		return fmt.Errorf("usage: loadgen produce|fetch|latency [flags]; -h lists them")
	}
	var o load.Options
	var config, pids string
	var acks, fetchMax int
	f := flag.NewFlagSet(args[0], flag.ExitOnError)
	f.StringVar(&o.Addr, "addr", "127.0.0.1:9092", "any broker; partition leaders are looked up")
	f.StringVar(&o.Topic, "topic", "bench", "topic")
	f.IntVar(&o.Partitions, "partitions", 1, "partitions to create and use")
	f.IntVar(&o.Replicas, "replicas", 1, "replication factor when creating")
	f.BoolVar(&o.Create, "create", true, "create the topic when it is missing")
	f.StringVar(&config, "config", "", "topic configs when creating, k=v,k=v")
	f.IntVar(&o.Batch, "batch", 128, "records in a batch")
	f.IntVar(&o.Record, "record", 1024, "bytes in a record's value; half of them are random")
	f.StringVar(&o.Codec, "codec", "none", "none, gzip, snappy, zstd")
	f.IntVar(&acks, "acks", -1, "0, 1 or -1")
	f.IntVar(&o.Conns, "conns", 1, "connections a partition leader")
	f.IntVar(&o.Depth, "depth", 4, "requests in flight on a connection")
	f.DurationVar(&o.For, "for", 0, "how long at most (default 10s)")
	f.Int64Var(&o.Bytes, "bytes", 0, "stop after this many bytes of batches, 0 for no limit")
	f.Int64Var(&o.From, "from", 0, "first offset of every partition to fetch")
	f.IntVar(&fetchMax, "fetchmax", 1<<20, "partition max bytes of a fetch")
	f.Int64Var(&o.Pace, "pace", 0, "fetch at most these bytes a second, 0 for no limit")
	f.IntVar(&o.Rate, "rate", 1000, "requests a second, for latency")
	f.StringVar(&pids, "pids", "", "comma separated pids of the server's processes")
	f.Parse(args[1:])
	o.Acks, o.FetchMax, o.Config = int16(acks), int32(fetchMax), map[string]string{}
	for kv := range strings.SplitSeq(config, ",") {
		if k, v, ok := strings.Cut(kv, "="); ok {
			o.Config[k] = v
		}
	}
	for p := range strings.SplitSeq(pids, ",") {
		if p == "" {
			continue
		}
		n, err := strconv.Atoi(p)
		if err != nil {
			return fmt.Errorf("-pids: %w", err)
		}
		o.PIDs = append(o.PIDs, n)
	}
	o.Create = o.Create && args[0] != "fetch"
	leaders, err := load.Prepare(o)
	if err != nil {
		return err
	}
	r, err := modes[args[0]](o, leaders)
	if err != nil {
		return err
	}
	ms := func(q float64) float64 { return r.Quantile(q).Seconds() * 1e3 }
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"mode": args[0], "topic": o.Topic, "partitions": o.Partitions, "batch": o.Batch, "record": o.Record, "codec": o.Codec, "acks": o.Acks,
		"seconds": r.Wall.Seconds(), "mib_per_s": r.MiBPerSecond(), "requests": r.Requests, "records": r.Records,
		"server_cpu_s_per_gib": r.CPUPerGiB(), "server_cpu_us_per_request": r.CPUPerRequest(), "server_rss_mib": r.RSS, "server_peak_mib": r.Peak,
		"p50_ms": ms(.5), "p99_ms": ms(.99), "p999_ms": ms(.999), "max_ms": ms(1),
	})
}
