package localcache

import "github.com/prometheus/client_golang/prometheus"

// metrics of the cache; there is one of each a broker, never one a partition.
type metrics struct {
	hits, misses, evictions, corrupt, diskErrors, filled prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, c *Cache) metrics {
	counter := func(name, help string) prometheus.Counter {
		m := prometheus.NewCounter(prometheus.CounterOpts{Name: "firn_remote_cache_" + name, Help: help})
		if reg != nil {
			reg.MustRegister(m)
		}
		return m
	}
	gauge := func(name, help string, f func() float64) {
		if reg != nil {
			reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "firn_remote_cache_" + name, Help: help}, f))
		}
	}
	gauge("size_bytes", "Bytes of chunk files on disk.", func() float64 { return float64(c.Stats().Bytes) })
	gauge("objects", "Chunks on disk.", func() float64 { return float64(c.Stats().Objects) })
	gauge("memory_bytes", "Memory of fills in flight and of chunks that the disk refused.", func() float64 { return float64(c.mem.inUse()) })
	return metrics{
		hits:       counter("hits_total", "Reads that found their chunk."),
		misses:     counter("misses_total", "Reads that had to wait for a fill."),
		evictions:  counter("evictions_total", "Chunks evicted to stay within the budget."),
		corrupt:    counter("corrupt_total", "Cached chunks dropped because their bytes were damaged."),
		diskErrors: counter("disk_errors_total", "Chunks that the cache's disk refused."),
		filled:     counter("filled_bytes_total", "Bytes that fills brought in."),
	}
}
