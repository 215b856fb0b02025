package fetch

import "github.com/prometheus/client_golang/prometheus"

// metrics of the cold side; one of each a broker, never one a partition.
type metrics struct {
	bytes, requests, errors, getErrors, damaged, refused, served prometheus.Counter
	duration                                                     prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, s *slots) *metrics {
	counter := func(name, help string) prometheus.Counter {
		m := prometheus.NewCounter(prometheus.CounterOpts{Name: "firn_remote_" + name, Help: help})
		if reg != nil {
			reg.MustRegister(m)
		}
		return m
	}
	gauge := func(name, help string, f func() float64) {
		if reg != nil {
			reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "firn_remote_" + name, Help: help}, f))
		}
	}
	gauge("reader_queue_depth", "Cold reads that wait for a slot.", func() float64 { q, _ := s.depth(); return float64(q) })
	gauge("reader_idle_ratio", "Share of the cold slots that are free.", func() float64 { _, b := s.depth(); return 1 - float64(b)/float64(s.total) })
	m := &metrics{
		bytes:     counter("fetch_bytes_total", "Bytes of chunks that came from the bucket."),
		requests:  counter("fetch_requests_total", "Ranged GETs of chunks."),
		errors:    counter("fetch_errors_total", "Cold reads that failed for their consumer."),
		getErrors: counter("fetch_get_errors_total", "Ranged GETs that failed."),
		damaged:   counter("fetch_damaged_total", "Times the bucket answered with damaged bytes."),
		refused:   counter("fetch_refused_total", "Cold reads that found every queue full; their consumers ask again."),
		served:    counter("fetch_served_bytes_total", "Bytes of records given to consumers from the bucket or its cache."),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "firn_remote_fetch_duration_seconds", Help: "Time from a cold slot to the chunk in the cache.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
		}),
	}
	if reg != nil {
		reg.MustRegister(m.duration)
	}
	return m
}
