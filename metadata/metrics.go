package metadata

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	doubts, resolutions prometheus.Counter
	up                  prometheus.Gauge
}

func newMetrics(r prometheus.Registerer, c *Client) metrics {
	m := metrics{
		doubts:      prometheus.NewCounter(prometheus.CounterOpts{Name: "firn_metadata_writes_in_doubt_total", Help: "Metadata writes whose outcome was not known at first."}),
		resolutions: prometheus.NewCounter(prometheus.CounterOpts{Name: "firn_metadata_writes_resolved_total", Help: "Metadata writes in doubt that turned out to have happened."}),
		up:          prometheus.NewGauge(prometheus.GaugeOpts{Name: "firn_metadata_up", Help: "1 while the metadata store answers."}),
	}
	m.up.Set(1)
	if r != nil {
		r.MustRegister(m.doubts, m.resolutions, m.up,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "firn_metadata_revision", Help: "Newest revision of the metadata that was folded."}, func() float64 {
				return float64(c.Image().Revision())
			}),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "firn_metadata_safe_mode", Help: "1 while the metadata is not trusted: nothing is elected or deleted."}, func() float64 {
				if _, on := c.SafeMode(); on {
					return 1
				}
				return 0
			}))
	}
	return m
}

func (m metrics) doubted()  { m.doubts.Inc() }
func (m metrics) resolved() { m.resolutions.Inc() }
func (m metrics) reachable(ok bool) {
	if ok {
		m.up.Set(1)
	} else {
		m.up.Set(0)
	}
}
