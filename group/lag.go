package group

import (
	"cmp"
	"slices"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/firnlog/firn/metadata"
)

// Position is where the log of a partition lies now.
type Position struct {
	LogStart, LocalStart, HighWatermark int64
}

// lagSeries bounds the series of lag. Each pair of a group and a topic has two.
const lagSeries = 10_000

// lagCollector computes how far groups are behind, from what is committed and from
// where the logs end, when it is asked. There is nothing per partition.
type lagCollector struct {
	c     *Coordinator
	pairs int // at most, of a group and a topic
}

var (
	lagRecords = prometheus.NewDesc("firn_consumer_group_lag", "Records between what a group has committed and the high watermark, over the partitions of a topic that it has committed.", []string{"group", "topic"}, nil)
	lagCold    = prometheus.NewDesc("firn_consumer_group_cold_lag", "Of firn_consumer_group_lag, the records that are no longer on the local disk.", []string{"group", "topic"}, nil)
	lagDropped = prometheus.NewDesc("firn_consumer_group_lag_dropped", "Pairs of a group and a topic whose lag is not told: there are too many, a partition is not led here, or the group's name is not UTF-8.", nil, nil)
)

func (l lagCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- lagRecords
	ch <- lagCold
	ch <- lagDropped
}

// lag is how far a group is behind in a topic.
type lag struct {
	group, topic  string
	records, cold int64
	// all is the group's lag in all its topics, by which it is kept.
	all int64
	// untold: of one of its partitions it is not known where it ends, and the others
	// alone would say too little.
	untold bool
}

// before is the order in which lags are kept: groups that are far behind first.
func (a *lag) before(b *lag) int {
	return cmp.Or(cmp.Compare(b.all, a.all), cmp.Compare(a.group, b.group), cmp.Compare(b.records, a.records), cmp.Compare(a.topic, b.topic))
}

func (l lagCollector) Collect(ch chan<- prometheus.Metric) {
	var kept []lag
	dropped := 0
	trim := func() {
		slices.SortFunc(kept, func(a, b lag) int { return a.before(&b) })
		if n := len(kept) - l.pairs; n > 0 {
			dropped += n
			kept = kept[:l.pairs]
		}
	}
	at := positions{l.c, l.c.cfg.Cluster.Image(), map[topicPartition]position{}}
	l.c.eachCommitted(func(group string, offsets []offsetOf) {
		lags := lagsOf(group, offsets, at)
		if !utf8.ValidString(group) {
			dropped += len(lags)
			return
		}
		for _, g := range lags {
			if g.untold {
				dropped++
				continue
			}
			kept = append(kept, *g)
		}
		// However many groups there are, few are held at once.
		if len(kept) > 2*l.pairs+1000 {
			trim()
		}
	})
	trim()
	for i := range kept {
		g := &kept[i]
		ch <- prometheus.MustNewConstMetric(lagRecords, prometheus.GaugeValue, float64(g.records), g.group, g.topic)
		ch <- prometheus.MustNewConstMetric(lagCold, prometheus.GaugeValue, float64(g.cold), g.group, g.topic)
	}
	ch <- prometheus.MustNewConstMetric(lagDropped, prometheus.GaugeValue, float64(dropped))
}

// lagsOf are the lags of a group by topic. Records below the log start are gone:
// nobody is behind by them. An offset of a topic that was deleted, also when there is
// another of its name, says nothing.
func lagsOf(group string, offsets []offsetOf, at positions) map[string]*lag {
	lags := map[string]*lag{}
	var all int64
	for _, o := range offsets {
		p := at.of(o.topicPartition)
		if !p.exists || o.topicID != ([16]byte{}) && o.topicID != p.id {
			continue
		}
		g := lags[o.topic]
		if g == nil {
			g = &lag{group: group, topic: o.topic}
			lags[o.topic] = g
		}
		if !p.known {
			g.untold = true
			continue
		}
		from := max(o.offset, p.LogStart)
		behind := max(p.HighWatermark-from, 0)
		g.records += behind
		g.cold += max(min(p.LocalStart, p.HighWatermark)-from, 0)
		all += behind
	}
	for _, g := range lags {
		g.all = all
	}
	return lags
}

// offsetOf is one committed offset.
type offsetOf struct {
	topicPartition
	offset  int64
	topicID [16]byte
}

// eachCommitted calls fn with the committed offsets of every group that is loaded
// here. The slice is fn's until it returns. A shard is locked for one group at a
// time, and never while fn runs.
func (c *Coordinator) eachCommitted(fn func(group string, offsets []offsetOf)) {
	var ids []string
	var buf []offsetOf
	for _, s := range c.shards() {
		ids = ids[:0]
		s.mu.Lock()
		if s.status == nil { // half a journal would tell old offsets
			for id := range s.groups {
				ids = append(ids, id)
			}
		}
		s.mu.Unlock()
		for _, id := range ids {
			buf = buf[:0]
			s.mu.Lock()
			if g := s.groups[id]; g != nil && s.status == nil {
				for tp, o := range g.offsets {
					buf = append(buf, offsetOf{tp, o.offset, o.topicID})
				}
			}
			s.mu.Unlock()
			if len(buf) > 0 {
				fn(id, buf)
			}
		}
	}
}

// position is what is known of a partition in one scrape.
type position struct {
	Position
	id     metadata.TopicID
	exists bool // the topic has such a partition
	known  bool // and it is led here
}

// positions asks once for each partition.
type positions struct {
	c  *Coordinator
	im *metadata.Image
	by map[topicPartition]position
}

func (ps positions) of(tp topicPartition) position {
	p, ok := ps.by[tp]
	if ok {
		return p
	}
	if t, ok := ps.im.TopicByName(tp.topic); ok && tp.partition >= 0 && tp.partition < t.Partitions {
		p.id, p.exists = t.ID, true
		p.Position, p.known = ps.c.cfg.Position(metadata.TopicPartition{TopicID: t.ID, Topic: t.Name, Partition: tp.partition})
	}
	ps.by[tp] = p
	return p
}
