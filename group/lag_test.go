package group

import (
	"fmt"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/firnlog/firn/metadata"
)

// field is where the logs of a test lie.
type field struct {
	mu sync.Mutex
	by map[topicPartition]Position
}

func (f *field) set(topic string, partition int32, p Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.by[topicPartition{topic, partition}] = p
}

func (f *field) drop(topic string, partition int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.by, topicPartition{topic, partition})
}

func (f *field) position(tp metadata.TopicPartition) (Position, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.by[topicPartition{tp.Topic, tp.Partition}]
	return p, ok
}

// lagging is a coordinator whose lag is told of the logs in the field, at most of
// so many pairs.
func lagging(t *testing.T, w *world, pairs int) (*Coordinator, *field, *prometheus.Registry) {
	c, f, reg := w.coordinator(), &field{by: map[topicPartition]Position{}}, prometheus.NewRegistry()
	c.cfg.Position = f.position // only lagCollector reads it
	reg.MustRegister(lagCollector{c, pairs})
	return c, f, reg
}

// gathered are the values by "name group topic".
func gathered(t *testing.T, reg prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			out[name] = m.GetGauge().GetValue()
		}
	}
	return out
}

// TestLagIsWhatIsBetweenCommitAndWatermark: the lag sums the partitions that the group
// has committed, its cold part is below the local start, and records that are gone, and
// commits above the watermark, count nothing.
func TestLagIsWhatIsBetweenCommitAndWatermark(t *testing.T) {
	w := newWorld(t, 4)
	w.topic("t")
	c, logs, reg := lagging(t, w, 100)
	expect := func(when string, records, cold float64) {
		t.Helper()
		m := gathered(t, reg)
		if m["firn_consumer_group_lag g t"] != records || m["firn_consumer_group_cold_lag g t"] != cold {
			t.Errorf("%s: %v, want a lag of %v and %v of it cold", when, m, records, cold)
		}
	}
	if m := gathered(t, reg); len(m) != 1 || m["firn_consumer_group_lag_dropped"] != 0 {
		t.Errorf("nothing is committed: %v", m)
	}
	logs.set("t", 0, Position{LogStart: 0, LocalStart: 60, HighWatermark: 100})
	logs.set("t", 1, Position{LogStart: 20, LocalStart: 20, HighWatermark: 50})
	logs.set("t", 2, Position{HighWatermark: 1000}) // nobody reads it
	await(t, c.Commit(commitOf("g", "t", 0, 10)))
	expect("one partition", 90, 50)
	await(t, c.Commit(commitOf("g", "t", 1, 5)))
	expect("one more, committed below its log start", 90+30, 50)
	await(t, c.Commit(commitOf("g", "t", 0, 70)))
	expect("past the cold records", 30+30, 0)
	logs.set("t", 0, Position{LocalStart: 60, HighWatermark: 130})
	expect("records arrive", 60+30, 0)
	logs.set("t", 1, Position{LogStart: 50, LocalStart: 50, HighWatermark: 50})
	expect("everything was deleted", 60, 0)
	await(t, c.Commit(commitOf("g", "t", 0, 200)))
	expect("above the watermark", 0, 0)
}

// TestLagThatIsNotKnownIsNotTold: a sum without one of its partitions would look like
// a group that is nearly there. What cannot be a label is counted and breaks nothing,
// and a commit to a topic that was deleted is no lag.
func TestLagThatIsNotKnownIsNotTold(t *testing.T) {
	w := newWorld(t, 4)
	w.topic("t")
	w.topic("gone")
	c, logs, reg := lagging(t, w, 100)
	for p := range int32(2) {
		logs.set("t", p, Position{HighWatermark: 10})
		logs.set("gone", p, Position{HighWatermark: 10})
		await(t, c.Commit(commitOf("g", "t", p, 3)))
	}
	logs.drop("t", 1)
	if m := gathered(t, reg); len(m) != 1 || m["firn_consumer_group_lag_dropped"] != 1 {
		t.Errorf("a partition is led elsewhere: %v", m)
	}
	logs.set("t", 1, Position{HighWatermark: 10})
	await(t, c.Commit(commitOf("\xff", "t", 0, 3)))
	if m := gathered(t, reg); m["firn_consumer_group_lag g t"] != 14 || m["firn_consumer_group_lag_dropped"] != 1 {
		t.Errorf("a group of no UTF-8: %v", m)
	}
	old := commitOf("g", "gone", 0, 3)
	old.Offsets[0].TopicID = [16]byte{1}
	await(t, c.Commit(old))
	if m := gathered(t, reg); len(m) != 3 {
		t.Errorf("an offset of a deleted topic: %v", m)
	}
}

// TestLagSeriesAreBounded: of more pairs than there may be, those of the groups that
// are furthest behind stay, and the gauge says how many do not.
func TestLagSeriesAreBounded(t *testing.T) {
	const groups, pairs = 600, 10
	w := newWorld(t, 4)
	w.topic("a")
	w.topic("b")
	c, logs, reg := lagging(t, w, pairs)
	logs.set("a", 0, Position{HighWatermark: 10_000})
	logs.set("b", 0, Position{HighWatermark: 10_000})
	for i := range groups {
		r := commitOf(fmt.Sprintf("g%03d", i), "a", 0, int64(i))
		r.Offsets = append(r.Offsets, Commit{Topic: "b", Offset: 9_999, Epoch: -1})
		await(t, c.Commit(r))
	}
	m := gathered(t, reg)
	if len(m) != 2*pairs+1 || m["firn_consumer_group_lag_dropped"] != 2*groups-pairs {
		t.Errorf("%d values, %v are dropped", len(m), m["firn_consumer_group_lag_dropped"])
	}
	for i := range pairs / 2 {
		name := fmt.Sprintf("firn_consumer_group_lag g%03d ", i)
		if m[name+"a"] != float64(10_000-i) || m[name+"b"] != 1 {
			t.Errorf("%s: %v and %v", name, m[name+"a"], m[name+"b"])
		}
	}
}
