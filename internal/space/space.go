// Package space keeps a disk from filling up to where nothing works any more
// (SAFETY 22). It measures what is free, and as it shrinks the parts of the broker
// give way in order: first the cache of chunks from the bucket, then local
// segments that the bucket covers, and at last producers, who are refused while
// there is still room for what protects: checkpoints, syncs, the groups' journal.
// When room comes back, everything goes on by itself.
package space

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ErrFull refuses a write that the reserve is not for.
var ErrFull = errors.New("the disk is as full as it may get")

// Level says how far things have come. Each level includes those before it.
type Level int32

const (
	Ample Level = iota
	// Tight is less than three reserves: the cache shrinks.
	Tight
	// Low is less than two: local segments that the bucket covers go early.
	Low
	// Full is less than one: producers are refused.
	Full
)

func (l Level) String() string { return [...]string{"ample", "tight", "low", "full"}[l] }

// Cache is what gives way first; localcache.Cache is one by way of the wiring.
type Cache interface {
	Used() int64
	SetMaxBytes(n int64)
}

// Config is what a Guard is made of.
type Config struct {
	// Measure says what is free for us on the disk and how large it is.
	Measure func() (free, total int64, err error)
	// Reserve is what is kept; 0 is a twentieth of the disk, at most 1 GiB.
	Reserve int64
	// Cache may take up to CacheBytes; nil for none.
	Cache      Cache
	CacheBytes int64
	Every      time.Duration // between measurements; default 1 s
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Guard watches one disk. Safe for concurrent use.
type Guard struct {
	cfg     Config
	reserve int64
	level   atomic.Int32
	left    atomic.Int64 // bytes that may be written before the next measurement

	mu      sync.Mutex
	allowed int64 // what the cache was last told
	broken  bool  // the disk could not be measured

	free    prometheus.Gauge
	refused prometheus.Counter
}

// New measures once, and fails when that does.
func New(cfg Config) (*Guard, error) {
	if cfg.Every <= 0 {
		cfg.Every = time.Second
	}
	_, total, err := cfg.Measure()
	if err != nil {
		return nil, fmt.Errorf("measure the disk: %w", err)
	}
	g := &Guard{cfg: cfg, reserve: cfg.Reserve, allowed: cfg.CacheBytes}
	if g.reserve <= 0 {
		g.reserve = min(total/20, 1<<30)
	}
	g.free = prometheus.NewGauge(prometheus.GaugeOpts{Name: "firn_disk_free_bytes", Help: "Free on the data dir's disk, as last measured."})
	g.refused = prometheus.NewCounter(prometheus.CounterOpts{Name: "firn_disk_refused_total", Help: "Appends refused because the disk is nearly full."})
	if cfg.Registerer != nil {
		reserve := prometheus.NewGauge(prometheus.GaugeOpts{Name: "firn_disk_reserve_bytes", Help: "Free bytes below which producers are refused."})
		reserve.Set(float64(g.reserve))
		cfg.Registerer.MustRegister(g.free, g.refused, reserve, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "firn_disk_level", Help: "0 ample, 1 the cache shrinks, 2 covered segments go early, 3 producers are refused.",
		}, func() float64 { return float64(g.Level()) }))
	}
	g.measure()
	return g, nil
}

// Level is where things stand.
func (g *Guard) Level() Level { return Level(g.level.Load()) }

// Pressed says whether local segments that the bucket covers should go early.
func (g *Guard) Pressed() bool { return g.Level() >= Low }

// Take asks for room for n bytes. With protects, half of the reserve may be used.
// The error wraps ErrFull and says what to do.
func (g *Guard) Take(n int, protects bool) error {
	// A fast writer is measured more often than the clock ticks.
	if g.left.Add(-int64(n)) < 0 {
		g.measure()
	}
	if g.Level() < Full {
		return nil
	}
	free, _, err := g.cfg.Measure()
	if err == nil && protects && free > g.reserve/2 {
		return nil
	}
	g.refused.Inc()
	return fmt.Errorf("%w: %d MiB are free, the reserve is %d MiB; make room, or lower --disk-reserve", ErrFull, free>>20, g.reserve>>20)
}

// Run measures until ctx ends.
func (g *Guard) Run(ctx context.Context) {
	t := time.NewTicker(g.cfg.Every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			g.measure()
		}
	}
}

func (g *Guard) measure() {
	g.mu.Lock()
	defer g.mu.Unlock()
	free, _, err := g.cfg.Measure()
	if err != nil {
		if !g.broken {
			g.cfg.Logger.Error("the disk cannot be measured", "event", "disk_measure_failed", "err", err)
		}
		g.broken = true
		return
	}
	g.broken = false
	g.free.Set(float64(free))
	g.left.Store(max(g.reserve/8, 1<<20))
	before, now := g.Level(), g.levelAt(free)
	g.level.Store(int32(now))
	if now != before {
		log := g.cfg.Logger.Info
		if now > before {
			log = g.cfg.Logger.Warn
		}
		log("disk space", "event", "disk_level", "level", now.String(), "before", before.String(), "free", free, "reserve", g.reserve)
	}
	g.shrink(free)
}

// levelAt is the level at free bytes. Going back takes a quarter of a reserve more
// than coming, so that nothing flaps.
func (g *Guard) levelAt(free int64) Level {
	at := func(free int64) Level {
		switch {
		case free < g.reserve:
			return Full
		case free < 2*g.reserve:
			return Low
		case free < 3*g.reserve:
			return Tight
		}
		return Ample
	}
	now := at(free)
	if before := g.Level(); now < before {
		return min(before, at(max(0, free-g.reserve/4)))
	}
	return now
}

// shrink gives the cache what it has and may have beyond three reserves.
func (g *Guard) shrink(free int64) {
	if g.cfg.Cache == nil {
		return
	}
	may := min(max(g.cfg.Cache.Used()+free-3*g.reserve, 0), g.cfg.CacheBytes)
	// Small steps up are not worth telling.
	if may < g.allowed || may >= g.allowed+g.reserve/4 || may == g.cfg.CacheBytes && may != g.allowed {
		g.allowed = may
		g.cfg.Cache.SetMaxBytes(may)
	}
}
