package replication

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/firnlog/firn/metadata"
)

// newShrinks counts the replicas that left the ISR of a partition that this broker
// leads.
func newShrinks(reg prometheus.Registerer) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "firn_isr_shrinks_total", Help: "Replicas that left the ISR of a partition that this broker leads."})
	if reg != nil {
		reg.MustRegister(c)
	}
	return c
}

// followISRLocked compares the ISR with the one of the image before. Images may be
// skipped: a replica that leaves and returns between two of them is not seen.
func (m *Manager) followISRLocked(r *replica, st metadata.PartitionState) {
	if left := r.isr - len(st.ISR); left > 0 && st.Leader == m.cfg.NodeID {
		m.shrinks.Add(float64(left))
	}
	r.isr = len(st.ISR)
}
