package replication

// MaxProducerID is the greatest producer id below that an open log of this broker
// remembers, -1 when none does (SAFETY 18).
func (m *Manager) MaxProducerID(below int64) int64 {
	greatest := int64(-1)
	m.Each(func(p *Partition) { greatest = max(greatest, p.Log().MaxProducerID(below)) })
	return greatest
}
