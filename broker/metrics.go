package broker

import (
	"fmt"
	"reflect"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/replication"
)

// serverMetrics are what a Server counts. No series is per partition.
type serverMetrics struct {
	requests    *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	connections prometheus.Gauge
	refused     prometheus.Counter
	reclaimed   prometheus.Counter
	byKey       [maxKey]struct {
		ok prometheus.Counter // requests without an error
		d  prometheus.Observer
	}
}

func newServerMetrics(reg prometheus.Registerer) *serverMetrics {
	m := &serverMetrics{
		requests:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "firn_kafka_requests_total", Help: "Requests answered, by API and by the first error of the answer."}, []string{"api", "error"}),
		duration:    prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "firn_kafka_request_duration_seconds", Help: "From a request's last byte to its answer being ready, waiting included.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9)}, []string{"api"}),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{Name: "firn_kafka_connections", Help: "Open client connections."}),
		refused:     prometheus.NewCounter(prometheus.CounterOpts{Name: "firn_kafka_connections_refused_total", Help: "Connections refused because there were too many."}),
		reclaimed:   prometheus.NewCounter(prometheus.CounterOpts{Name: "firn_kafka_connections_reclaimed_total", Help: "Connections ended because they had stalled and held memory that others waited for."}),
	}
	for key, a := range apis {
		if a != nil {
			m.byKey[key].ok, m.byKey[key].d = m.requests.WithLabelValues(a.name, errorName(codeNone)), m.duration.WithLabelValues(a.name)
		}
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.duration, m.connections, m.refused, m.reclaimed)
	}
	return m
}

// count counts a request that was answered with a code.
func (m *serverMetrics) count(key, code int16) {
	if code == codeNone {
		m.byKey[key].ok.Inc()
		return
	}
	m.requests.WithLabelValues(apis[key].name, errorName(code)).Inc()
}

// errorName is Kafka's name of a code.
func errorName(code int16) string {
	if code == codeNone {
		return "NONE"
	}
	if e := kerr.TypedErrorForCode(code); e != nil {
		return e.Message
	}
	return fmt.Sprintf("%d", code)
}

// firstError is the first error code of an answer: its own, else that of its parts
// in their order. The answers that are asked for all the time are looked through
// by hand.
func firstError(resp kmsg.Response) int16 {
	switch r := resp.(type) {
	case nil:
		return codeNone
	case *kmsg.ProduceResponse:
		for i := range r.Topics {
			for j := range r.Topics[i].Partitions {
				if code := r.Topics[i].Partitions[j].ErrorCode; code != codeNone {
					return code
				}
			}
		}
		return codeNone
	case *fetchAnswer:
		return firstFetchError(r.FetchResponse)
	case *kmsg.FetchResponse:
		return firstFetchError(r)
	}
	v := reflect.ValueOf(resp).Elem()
	return placesOf(v.Type()).first(v)
}

func firstFetchError(r *kmsg.FetchResponse) int16 {
	if r.ErrorCode != codeNone {
		return r.ErrorCode
	}
	for i := range r.Topics {
		for j := range r.Topics[i].Partitions {
			if code := r.Topics[i].Partitions[j].ErrorCode; code != codeNone {
				return code
			}
		}
	}
	return codeNone
}

// places are where the error codes of a type of answer lie.
type places struct {
	own   int // field, -1 for none
	lists []codedParts
}

// codedParts is a field with parts that have error codes.
type codedParts struct {
	field int
	parts *places
}

// knownPlaces holds *places by reflect.Type; there are as many as there are APIs.
var knownPlaces sync.Map

func placesOf(t reflect.Type) *places {
	if p, ok := knownPlaces.Load(t); ok {
		return p.(*places)
	}
	p := findPlaces(t)
	knownPlaces.Store(t, p)
	return p
}

func findPlaces(t reflect.Type) *places {
	p := &places{own: -1}
	for i := range t.NumField() {
		switch f := t.Field(i); {
		case f.Name == "ErrorCode":
			p.own = i
		case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct:
			if parts := findPlaces(f.Type.Elem()); parts.own >= 0 || len(parts.lists) > 0 {
				p.lists = append(p.lists, codedParts{i, parts})
			}
		}
	}
	return p
}

func (p *places) first(v reflect.Value) int16 {
	if p.own >= 0 {
		if code := int16(v.Field(p.own).Int()); code != codeNone {
			return code
		}
	}
	for _, l := range p.lists {
		parts := v.Field(l.field)
		for i := range parts.Len() {
			if code := l.parts.first(parts.Index(i)); code != codeNone {
				return code
			}
		}
	}
	return codeNone
}

// partitionCollector computes what there is to say of partitions when it is asked.
type partitionCollector struct {
	node     int32
	metadata *metadata.Client
	replicas *replication.Manager
}

var (
	offlinePartitions = prometheus.NewDesc("firn_offline_partitions", "Partitions of this broker that cannot be used now.", nil, nil)
	underReplicated   = prometheus.NewDesc("firn_under_replicated_partitions", "Partitions led by this broker of which a replica is not in sync.", nil, nil)
	localLogSize      = prometheus.NewDesc("firn_local_log_size_bytes", "Bytes of segments on this broker's disk.", []string{"topic"}, nil)
)

func (c partitionCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- offlinePartitions
	ch <- underReplicated
	ch <- localLogSize
}

func (c partitionCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(offlinePartitions, float64(c.replicas.Offline()))
	gauge(underReplicated, float64(countUnderReplicated(c.metadata.Image(), c.node)))
	sizes := map[string]int64{}
	c.replicas.Each(func(p *replication.Partition) { sizes[p.TopicPartition().Topic] += p.Log().LocalBytes() })
	for topic, n := range sizes {
		gauge(localLogSize, float64(n), topic)
	}
}

// countUnderReplicated counts the partitions that node leads and of which a replica
// is not in sync.
func countUnderReplicated(im *metadata.Image, node int32) (n int) {
	for _, t := range im.Topics() {
		for i := range t.Partitions {
			if st, ok := im.Partition(t.ID, i); ok && st.Leader == node && lacksReplica(st) {
				n++
			}
		}
	}
	return n
}

// lacksReplica says whether a replica is outside the ISR.
func lacksReplica(st metadata.PartitionState) bool {
	return slices.ContainsFunc(st.Replicas, func(r int32) bool {
		return !slices.ContainsFunc(st.ISR, func(m metadata.Member) bool { return m.Node == r })
	})
}
