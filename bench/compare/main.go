// Command compare runs firn, Apache Kafka and the floor beside each other on this
// machine and prints what the same work cost each: raw JSON, a line for each run,
// on stdout, and the table of medians with their spread on stderr and in -table.
//
// Every habit in it was learnt from a wrong number. Servers take turns within each
// round. The memory a run will fill is touched just before, because on a virtual
// machine the first write to a page costs several times a later one. The JVM is
// warmed up. Data lies on tmpfs where CPU is compared, and each run's topic is
// deleted. A ratio is given only when both servers say, asked over the protocol,
// that they have the same settings.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

type config struct {
	firn, floor, kafkaLibs string
	tmpfs, disk            string
	rounds                 int
	warm                   time.Duration
	scale                  float64
	out                    io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	c := config{out: os.Stdout}
	var only, table string
	flag.StringVar(&c.firn, "firn", "bin/firn", "firn's binary")
	flag.StringVar(&c.floor, "floor", "bin/bench-floor", "the floor's binary")
	flag.StringVar(&c.kafkaLibs, "kafka", "", "folder of Apache Kafka's libraries; empty: no Kafka")
	flag.StringVar(&c.tmpfs, "tmpfs", "/dev/shm", "where data lies when CPU is compared")
	flag.StringVar(&c.disk, "disk", os.TempDir(), "where data lies when the disk is")
	flag.IntVar(&c.rounds, "rounds", 5, "runs of each scenario; medians are compared")
	flag.DurationVar(&c.warm, "warm", 25*time.Second, "warm-up of the JVM")
	flag.Float64Var(&c.scale, "scale", 1, "share of the bytes to send")
	flag.StringVar(&only, "only", "", "scenarios to run, a,b,c; empty: all")
	flag.StringVar(&table, "table", "", "file for the table, in Markdown")
	flag.Parse()
	var err error
	if c.tmpfs, err = os.MkdirTemp(c.tmpfs, "firn-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(c.tmpfs)
	if c.disk, err = os.MkdirTemp(c.disk, "firn-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(c.disk)

	var rows []row
	for _, s := range scenarios() {
		if only != "" && !contains(strings.Split(only, ","), s.name) {
			continue
		}
		runs, err := s.run(ctx, &c, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		enc := json.NewEncoder(c.out)
		for _, r := range runs {
			if err := enc.Encode(r); err != nil {
				return err
			}
		}
		rows = append(rows, summarize(s, runs)...)
	}
	text := render(rows)
	fmt.Fprint(os.Stderr, "\n", text)
	if table != "" {
		head := fmt.Sprintf("Made by `make bench` on %s: %s, %d CPUs, %d rounds.\n\n", time.Now().UTC().Format(time.DateOnly), cpuModel(), runtime.NumCPU(), c.rounds)
		return os.WriteFile(table, []byte(head+text), 0o644)
	}
	return nil
}

func contains(all []string, s string) bool {
	for _, a := range all {
		if a == s {
			return true
		}
	}
	return false
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

// touch writes and frees n bytes of dir's file system, so that the runs that
// follow meet pages the machine already has.
func touch(dir string, n int64) error {
	f, err := os.Create(filepath.Join(dir, "touch"))
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block := make([]byte, 1<<20)
	for ; n > 0; n -= int64(len(block)) {
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	return nil
}
