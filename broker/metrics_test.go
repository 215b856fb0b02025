package broker

import (
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/metadata/memory"
)

// scraped are the values of a metric by its labels, "a=b,c=d".
func scraped(t *testing.T, reg prometheus.Gatherer, name string) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			out[strings.Join(labels, ",")] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return out
}

// TestRequestsAreCountedByTheirError asks for what there is and for what there is
// not, with answers that are encoded at once, early, by hand, and never.
func TestRequestsAreCountedByTheirError(t *testing.T) {
	reg := prometheus.NewRegistry()
	addr, meta := wireServer(t, withAdmin, func(cfg *Config) {
		cfg.Registerer = reg
		cfg.AutoCreate = func() bool { return false }
	})
	a := dialAsker(t, addr)
	topic := led(t, a, meta, "t")
	now := time.Now().UnixMilli()
	produceTo(a, 9, "t", topic.ID, 0, -1, batchOf(now))
	produceTo(a, 9, "none", topic.ID, 0, -1, batchOf(now))
	fetchFrom(a, 12, "t", topic.ID, 0, 0, nil)
	fetchFrom(a, 12, "t", topic.ID, 0, 100, nil)
	none := "none"
	named := kmsg.NewPtrMetadataRequest()
	named.Topics = append(named.Topics, kmsg.MetadataRequestTopic{Topic: &none})
	ask(a, 9, named, kmsg.NewPtrMetadataResponse())
	pages := kmsg.NewPtrDescribeTopicPartitionsRequest()
	pages.Topics = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: "none"}, {Topic: "t"}}
	ask(a, 0, pages, kmsg.NewPtrDescribeTopicPartitionsResponse())
	future := kmsg.NewPtrApiVersionsRequest()
	if _, err := a.nc.Write(rawFrame(18, 9, 1, future.AppendTo(nil), false)); err != nil {
		t.Fatal(err)
	}
	receive(a, 0, kmsg.NewPtrApiVersionsResponse())
	silent := kmsg.NewPtrProduceRequest()
	silent.Acks = 0
	a.send(9, silent)
	ask(a, 0, kmsg.NewPtrApiVersionsRequest(), kmsg.NewPtrApiVersionsResponse())
	got := scraped(t, reg, "firn_kafka_requests_total")
	for labels, want := range map[string]float64{
		"api=Produce,error=NONE":                                       2,
		"api=Produce,error=UNKNOWN_TOPIC_OR_PARTITION":                 1,
		"api=Fetch,error=NONE":                                         1,
		"api=Fetch,error=OFFSET_OUT_OF_RANGE":                          1,
		"api=Metadata,error=UNKNOWN_TOPIC_OR_PARTITION":                1,
		"api=DescribeTopicPartitions,error=UNKNOWN_TOPIC_OR_PARTITION": 1,
		"api=ApiVersions,error=UNSUPPORTED_VERSION":                    1,
	} {
		if got[labels] != want {
			t.Errorf("%s is %v, want %v", labels, got[labels], want)
		}
	}
	if got := scraped(t, reg, "firn_local_log_size_bytes"); got["topic=t"] == 0 || len(got) != 2 {
		t.Errorf("sizes on disk: %v", got)
	}
	for _, name := range []string{"firn_offline_partitions", "firn_under_replicated_partitions"} {
		if got := scraped(t, reg, name); len(got) != 1 || got[""] != 0 {
			t.Errorf("%s: %v, want one that is 0", name, got)
		}
	}
}

// TestTheFirstErrorOfAnyAnswerIsFound puts one error code in the deepest place of
// each answer that has any.
func TestTheFirstErrorOfAnyAnswerIsFound(t *testing.T) {
	for key, a := range apis {
		if a == nil {
			continue
		}
		resp := kmsg.ResponseForKey(int16(key))
		if code := firstError(resp); code != 0 {
			t.Errorf("%s: an empty answer has code %d", a.name, code)
		}
		if !plant(reflect.ValueOf(resp).Elem()) {
			t.Errorf("%s: its answer has no error code", a.name)
			continue
		}
		if code := firstError(resp); code != 35 {
			t.Errorf("%s: found %d", a.name, code)
		}
	}
}

// plant sets the error code that lies deepest below v.
func plant(v reflect.Value) bool {
	for i := range v.NumField() {
		f := v.Field(i)
		if f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.Struct && v.Type().Field(i).IsExported() {
			f.Set(reflect.MakeSlice(f.Type(), 2, 2))
			if plant(f.Index(1)) {
				return true
			}
			f.SetZero()
		}
	}
	if f := v.FieldByName("ErrorCode"); f.IsValid() {
		f.SetInt(35)
		return true
	}
	return false
}

// TestPartitionsThatCannotBeUsedAreCounted spoils the folder of one partition.
func TestPartitionsThatCannotBeUsedAreCounted(t *testing.T) {
	path, store := t.TempDir(), memory.NewServer(1, time.Now)
	addr, meta, stop := serveAt(t, path, store)
	if _, err := meta.EnsureTopic(t.Context(), metadata.NewTopic{Name: "t", Partitions: 3, ReplicationFactor: 1}); err != nil {
		t.Fatal(err)
	}
	led(t, dialAsker(t, addr), meta, "t")
	stop()
	spoiled := ""
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "2" {
			spoiled = p
		}
		return err
	})
	if err != nil || spoiled == "" {
		t.Fatalf("partition 2 has no folder: %v", err)
	}
	if err := os.RemoveAll(spoiled); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(spoiled, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	_, _, stop = serveAt(t, path, store, func(cfg *Config) { cfg.Registerer = reg })
	defer stop()
	if got := scraped(t, reg, "firn_offline_partitions"); got[""] != 1 {
		t.Errorf("%v partitions are offline, want 1", got)
	}
}

// TestAPartitionLacksAReplicaOutsideTheISR: neither order nor an ISR that is larger,
// while replicas are moved, matters.
func TestAPartitionLacksAReplicaOutsideTheISR(t *testing.T) {
	for _, c := range []struct {
		replicas, isr []int32
		want          bool
	}{
		{[]int32{1}, []int32{1}, false},
		{[]int32{1, 2, 3}, []int32{3, 1, 2}, false},
		{[]int32{1, 2}, []int32{3, 2, 1}, false},
		{[]int32{1, 2}, []int32{1}, true},
		{[]int32{1, 2}, []int32{1, 3}, true},
		{[]int32{1}, nil, true},
	} {
		st := metadata.PartitionState{Replicas: c.replicas}
		for _, n := range c.isr {
			st.ISR = append(st.ISR, metadata.Member{Node: n})
		}
		if got := lacksReplica(st); got != c.want {
			t.Errorf("replicas %v, in sync %v: %v", c.replicas, c.isr, got)
		}
	}
}
