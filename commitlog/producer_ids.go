package commitlog

// MaxProducerID is the greatest producer id below that the log remembers, -1 when it
// remembers none. An id that is handed out again is taken for its first owner's: what
// it sends is answered as a duplicate and dropped (SAFETY 18).
func (l *Log) MaxProducerID(below int64) int64 {
	l.appending.Lock()
	defer l.appending.Unlock()
	greatest := int64(-1)
	for id := range l.producers.Load().byID {
		if id < below {
			greatest = max(greatest, id)
		}
	}
	return greatest
}
