package group

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	commits, expired, rebalances, snapshots, bytes prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, c *Coordinator) *metrics {
	m := &metrics{
		commits:    prometheus.NewCounter(prometheus.CounterOpts{Name: "firn_group_offset_commits_total", Help: "Offsets committed."}),
		expired:    prometheus.NewCounter(prometheus.CounterOpts{Name: "firn_group_offsets_removed_total", Help: "Offsets removed by retention, or because their topic was deleted."}),
		rebalances: prometheus.NewCounter(prometheus.CounterOpts{Name: "firn_group_rebalances_total", Help: "Rebalances begun."}),
		snapshots:  prometheus.NewCounter(prometheus.CounterOpts{Name: "firn_group_journal_snapshots_total", Help: "Times a partition of the groups' journal was trimmed to a snapshot."}),
		bytes:      prometheus.NewCounter(prometheus.CounterOpts{Name: "firn_group_journal_bytes_total", Help: "Bytes appended to the groups' journal, snapshots included."}),
	}
	if reg != nil {
		reg.MustRegister(m.commits, m.expired, m.rebalances, m.snapshots, m.bytes,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "firn_groups", Help: "Groups that this broker coordinates."}, func() float64 { return float64(c.count()) }))
		if c.cfg.Position != nil {
			reg.MustRegister(lagCollector{c, lagSeries / 2})
		}
	}
	return m
}
