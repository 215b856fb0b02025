package main

import (
	"bufio"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// documented are the metrics that dashboards and alerts may be built upon, from a
// broker that has taken, uploaded and served records. What they mean is in
// docs/operations.md and in their help texts.
var documented = []string{
	"firn_disk_free_bytes", "firn_disk_level", "firn_disk_refused_total", "firn_disk_reserve_bytes",
	"firn_groups", "firn_fetch_sessions",
	"firn_consumer_group_cold_lag", "firn_consumer_group_lag", "firn_consumer_group_lag_dropped", "firn_isr_shrinks_total",
	"firn_kafka_connections", "firn_kafka_connections_reclaimed_total", "firn_kafka_connections_refused_total",
	"firn_kafka_memory_bytes", "firn_kafka_memory_limit_bytes", "firn_kafka_memory_waiting",
	"firn_kafka_memory_wait_seconds_total", "firn_kafka_memory_waits_total",
	"firn_kafka_request_duration_seconds", "firn_kafka_requests_total",
	"firn_local_log_size_bytes", "firn_offline_partitions", "firn_under_replicated_partitions",
	"firn_metadata_safe_mode", "firn_metadata_up",
	"firn_remote_cache_evictions_total", "firn_remote_cache_hits_total", "firn_remote_cache_misses_total", "firn_remote_cache_size_bytes",
	"firn_remote_copy_bytes_total", "firn_remote_copy_errors_total", "firn_remote_copy_lag_bytes", "firn_remote_copy_lag_seconds",
	"firn_remote_copy_lag_segments", "firn_remote_copy_requests_total",
	"firn_remote_delete_errors_total", "firn_remote_delete_lag_bytes", "firn_remote_delete_lag_segments",
	"firn_remote_fetch_bytes_total", "firn_remote_fetch_duration_seconds", "firn_remote_fetch_errors_total", "firn_remote_fetch_requests_total",
	"firn_remote_log_size_bytes", "firn_remote_reader_idle_ratio", "firn_remote_reader_queue_depth",
	"firn_s3_bytes_total", "firn_s3_request_duration_seconds", "firn_s3_requests_total",
	"go_goroutines", "process_resident_memory_bytes",
}

// TestMetricsOfAThousandPartitions scrapes a node that has a topic of 1,000
// partitions: what is documented is there, and the number of series has nothing to
// do with the number of partitions.
func TestMetricsOfAThousandPartitions(t *testing.T) {
	const partitions, most = 1000, 800
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	limit := int64(512 << 20)
	cfg := Config{
		DataDir: t.TempDir(), KafkaAddr: "127.0.0.1:0", AdminAddr: "127.0.0.1:0", CacheSize: "64MiB", Cluster: defaultCluster,
	}
	n, err := startNode(ctx, cfg, planMemory(limit, descriptors()), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	client, err := kgo.NewClient(kgo.SeedBrokers(n.kafkaAddrs()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	if _, err := admin.CreateTopic(ctx, partitions, 1, nil, "many"); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CreateTopic(ctx, 1, 1, map[string]*string{"segment.ms": kadm.StringPtr("1000")}, "tiered"); err != nil {
		t.Fatal(err)
	}
	records := []*kgo.Record{{Topic: "tiered", Value: []byte("x")}}
	for p := range int32(partitions) {
		records = append(records, &kgo.Record{Topic: "many", Partition: p, Value: []byte("x")})
	}
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := admin.CommitAllOffsets(ctx, "group", kadm.OffsetsFromRecords(kgo.Record{Topic: "tiered"})); err != nil {
		t.Fatal(err)
	}
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	var missing []string
	var series map[string]int
	for {
		series = scrape(t, "http://"+n.admin.Addr()+"/metrics")
		missing = missing[:0]
		for _, name := range documented {
			if series[name]+series[name+"_count"] == 0 {
				missing = append(missing, name)
			}
		}
		// What counts uploads comes with the first of them.
		if len(missing) == 0 || ctx.Err() != nil {
			break
		}
		<-look.C
	}
	if len(missing) > 0 {
		t.Errorf("these are documented and missing: %v", missing)
	}
	total := 0
	for name, k := range series {
		if total += k; k >= partitions/2 {
			t.Errorf("%s has %d series", name, k)
		}
	}
	if total > most {
		t.Errorf("%d series for %d partitions, want at most %d", total, partitions, most)
	}
	t.Logf("%d series of %d metrics", total, len(series))
}

// scrape counts the series of each metric, and refuses labels that grow with the
// number of partitions.
func scrape(t *testing.T, url string) map[string]int {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	series := map[string]int{}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		end := strings.IndexAny(line, "{ ")
		if end < 0 {
			t.Fatalf("not a sample: %q", line)
		}
		series[line[:end]]++
		if strings.Contains(line, "partition=") {
			t.Fatalf("a series per partition: %q", line)
		}
	}
	return series
}
