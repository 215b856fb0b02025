package replication

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/metadata"
)

// shrunk is the value of firn_isr_shrinks_total.
func shrunk(t *testing.T, reg prometheus.Gatherer) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "firn_isr_shrinks_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatal("firn_isr_shrinks_total is not there")
	return 0
}

// setISR writes the partition's state as a cluster with these replicas in sync would.
func (b *broker) setISR(id metadata.TopicID, leader int32, nodes ...int32) {
	b.t.Helper()
	store := b.store.Open()
	defer store.Close()
	key := "partitions." + id.Hex() + ".0"
	e, err := store.Get(b.t.Context(), key)
	if err != nil {
		b.t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(e.Value, &fields); err != nil {
		b.t.Fatal(err)
	}
	var isr []metadata.Member
	for _, n := range nodes {
		isr = append(isr, metadata.Member{Node: n, Incarnation: 1})
	}
	fields["leader"], fields["isr"], fields["replicas"] = leader, isr, []int32{1, 2, 3}
	fields["ver"] = fields["ver"].(float64) + 1
	value, err := json.Marshal(fields)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := store.Update(b.t.Context(), key, value, e.Revision); err != nil {
		b.t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		st, _ := b.meta.Image().Partition(id, 0)
		if len(st.ISR) == len(nodes) && st.Leader == leader {
			break
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("the image has %+v", st)
		}
	}
	b.reconcile()
}

// TestShrinksOfTheISRAreCounted: each replica that leaves the ISR of a partition that
// is led here counts once. Those that join do not, nor what another leader does.
func TestShrinksOfTheISRAreCounted(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := newBroker(t, disk.NewSim(1))
	b.tune = func(c *Config) { c.Registerer = reg }
	b.start()
	defer b.stop(true)
	id := b.topic("t", 1, nil)
	b.part(id, 0)
	for _, step := range []struct {
		leader int32
		isr    []int32
		want   float64
	}{
		{1, []int32{1}, 0},
		{1, []int32{1, 2, 3}, 0},
		{1, []int32{1, 3}, 1},
		{1, []int32{1, 2, 3}, 1},
		{1, []int32{1}, 3},
		{2, []int32{1, 2}, 3},
		{2, []int32{2}, 3},
	} {
		b.setISR(id, step.leader, step.isr...)
		if got := shrunk(t, reg); got != step.want {
			t.Fatalf("leader %d, in sync %v: %v shrinks, want %v", step.leader, step.isr, got, step.want)
		}
	}
}
