package tiering

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics of tiering. No series is per partition; those per topic go with the
// topic.
type metrics struct {
	copyBytes, copyRequests, copyErrors *prometheus.CounterVec
	deleteErrors, damaged               prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, a *Archiver) *metrics {
	m := &metrics{
		copyBytes:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "firn_remote_copy_bytes_total", Help: "Bytes of objects uploaded and verified."}, []string{"topic"}),
		copyRequests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "firn_remote_copy_requests_total", Help: "Uploads begun."}, []string{"topic"}),
		copyErrors:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "firn_remote_copy_errors_total", Help: "Uploads that failed and are tried again."}, []string{"topic"}),
		deleteErrors: prometheus.NewCounter(prometheus.CounterOpts{Name: "firn_remote_delete_errors_total", Help: "Deletions in the bucket that failed and are tried again."}),
		damaged:      prometheus.NewCounter(prometheus.CounterOpts{Name: "firn_remote_lost_objects_total", Help: "Objects found missing or changed with no local copy to repair them from."}),
	}
	if reg != nil {
		reg.MustRegister(m.copyBytes, m.copyRequests, m.copyErrors, m.deleteErrors, m.damaged, lagCollector{a})
	}
	return m
}

// begin makes a topic's series, so that the first failure is a rise from zero.
func (m *metrics) begin(topic string) {
	m.copyBytes.WithLabelValues(topic)
	m.copyRequests.WithLabelValues(topic)
	m.copyErrors.WithLabelValues(topic)
}

func (m *metrics) forget(topic string) {
	m.copyBytes.DeleteLabelValues(topic)
	m.copyRequests.DeleteLabelValues(topic)
	m.copyErrors.DeleteLabelValues(topic)
}

// lagCollector computes gauges when they are asked for.
type lagCollector struct{ a *Archiver }

var (
	lagBytes   = prometheus.NewDesc("firn_remote_copy_lag_bytes", "Committed bytes that are not yet in the bucket.", []string{"topic"}, nil)
	lagSegs    = prometheus.NewDesc("firn_remote_copy_lag_segments", "Sealed local segments that are not yet in the bucket.", []string{"topic"}, nil)
	lagSeconds = prometheus.NewDesc("firn_remote_copy_lag_seconds", "How long the oldest record outside the bucket has waited: the recovery point of a lost cluster.", nil, nil)
	logSize    = prometheus.NewDesc("firn_remote_log_size_bytes", "Bytes that manifests name in the bucket.", []string{"topic"}, nil)
	delSegs    = prometheus.NewDesc("firn_remote_delete_lag_segments", "Segment objects that are buried and wait for their deletion.", nil, nil)
	delBytes   = prometheus.NewDesc("firn_remote_delete_lag_bytes", "Bytes of objects that are buried and wait for their deletion.", nil, nil)
	safeMode   = prometheus.NewDesc("firn_remote_safe_mode_partitions", "Partitions whose objects are only read, because the bucket lacks what it should have.", nil, nil)
)

func (c lagCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{lagBytes, lagSegs, lagSeconds, logSize, delSegs, delBytes, safeMode} {
		ch <- d
	}
}

func (c lagCollector) Collect(ch chan<- prometheus.Metric) {
	type topic struct{ bytes, segs, size int64 }
	topics := map[string]*topic{}
	var buried topic
	var safe int
	var oldest float64
	now := c.a.cfg.Now()
	for _, ar := range c.a.archives() {
		if !ar.src.Config().RemoteRead {
			continue
		}
		t := topics[ar.tp.Topic]
		if t == nil {
			t = &topic{}
			topics[ar.tp.Topic] = t
		}
		end := ar.EarliestPending()
		for _, s := range ar.src.Segments() {
			if s.End <= end {
				continue
			}
			t.bytes += s.Bytes
			if s.Sealed {
				t.segs++
			}
		}
		t.size += ar.Usage().Stored
		if v := ar.view.Load(); v != nil && v.head != nil {
			for i := range v.head.Graves {
				buried.segs += v.head.Graves[i].Objects
				buried.bytes += v.head.Graves[i].Size
			}
		}
		ar.mu.Lock()
		if !ar.mu.pending.IsZero() {
			oldest = max(oldest, now.Sub(ar.mu.pending).Seconds())
		}
		if isSafeMode(ar.errLocked()) {
			safe++
		}
		ar.mu.Unlock()
	}
	for name, t := range topics {
		ch <- prometheus.MustNewConstMetric(lagBytes, prometheus.GaugeValue, float64(t.bytes), name)
		ch <- prometheus.MustNewConstMetric(lagSegs, prometheus.GaugeValue, float64(t.segs), name)
		ch <- prometheus.MustNewConstMetric(logSize, prometheus.GaugeValue, float64(t.size), name)
	}
	ch <- prometheus.MustNewConstMetric(lagSeconds, prometheus.GaugeValue, oldest)
	ch <- prometheus.MustNewConstMetric(delSegs, prometheus.GaugeValue, float64(buried.segs))
	ch <- prometheus.MustNewConstMetric(delBytes, prometheus.GaugeValue, float64(buried.bytes))
	ch <- prometheus.MustNewConstMetric(safeMode, prometheus.GaugeValue, float64(safe))
}
