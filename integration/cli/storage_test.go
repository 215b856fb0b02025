package cli

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firnlog/firn/integration/node"
)

// sunk makes a topic whose ten records are in the bucket.
func sunk(t *testing.T, n *node.Node, topic string) {
	t.Helper()
	create(t, n, topic, "-c", "firn.remote.max.unuploaded.ms=1000", "-c", "local.retention.ms=1")
	produce(t, n, topic, strings.Repeat(strings.Repeat("x", 100)+"\n", 10))
	var d struct {
		Partitions []struct {
			LocalStart int64 `json:"local_start_offset"`
		} `json:"partitions"`
	}
	for deadline := time.Now().Add(bound); ; {
		if err := json.Unmarshal([]byte(on(t, n, "topic", "storage", "describe", topic, "-o", "json").ok(t)), &d); err != nil {
			t.Fatal(err)
		}
		if d.Partitions[0].LocalStart == 10 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not sink: %+v", topic, d)
		}
		<-time.After(50 * time.Millisecond)
	}
}

func storageDescribe(t *testing.T, n *node.Node) {
	sunk(t, n, "stored")
	golden(t, "topic-storage-describe", on(t, n, "topic", "storage", "describe", "stored", "-o", "json").ok(t), "bucket", "hot_bytes", "cold_bytes")
	if got := on(t, n, "topic", "storage", "describe", "stored").ok(t); !strings.Contains(got, "topic stored  hot ") || !strings.Contains(got, "TIERED UP TO") {
		t.Errorf("printed %q", got)
	}
	create(t, n, "still-here")
	golden(t, "topic-storage-describe-empty", on(t, n, "topic", "storage", "describe", "still-here", "-o", "json").ok(t), "bucket")
}

func bucketLs(t *testing.T, n *node.Node) {
	sunk(t, n, "cold")
	url := "file://" + filepath.Join(n.DataDir, "bucket")
	ls := func(env []string, args ...string) result {
		t.Helper()
		return firn(t, env, nil, append([]string{"bucket", "ls"}, args...)...)
	}
	vary := []string{"topic_id", "bytes", "stored_bytes", "generation", "leader_epoch", "key", "crc32c", "min_timestamp_ms", "max_timestamp_ms"}
	golden(t, "bucket-ls", ls(nil, "cold", "--bucket", url, "-o", "json").ok(t), vary...)
	golden(t, "bucket-ls-objects", ls(nil, "cold", "--objects", "--bucket", url, "-o", "json").ok(t), vary...)
	for _, env := range [][]string{{"FIRN_BUCKET=" + url}, {"FIRN_BUCKET=" + url, "FIRN_CLUSTER=firn"}} {
		if got := ls(env).ok(t); !strings.HasPrefix(got, "TOPIC") || !strings.Contains(got, "cold") {
			t.Errorf("printed %q", got)
		}
	}
	ls([]string{"FIRN_BUCKET=" + url, "FIRN_CLUSTER=other"}).fails(t, 1, "no cluster named other", "--cluster")
	if got := ls([]string{"FIRN_BUCKET=" + url, "FIRN_CLUSTER=other"}, "--cluster", "firn", "cold", "--objects").ok(t); !strings.Contains(got, "[0, 10)") {
		t.Errorf("printed %q", got)
	}
	ls(nil, "missing", "--bucket", url).fails(t, 1, "no topic missing", "firn bucket ls")
	ls([]string{"FIRN_BUCKET="}).fails(t, 2, "--bucket URL or FIRN_BUCKET")
}

func group(t *testing.T, n *node.Node) {
	create(t, n, "grouped")
	produce(t, n, "grouped", "a\nb\nc\n")
	if got := on(t, n, "topic", "consume", "grouped", "-g", "crew", "-n", "2", "-f", "%v").ok(t); got != "ab" {
		t.Fatalf("consumed %q", got)
	}
	golden(t, "group-describe", on(t, n, "group", "describe", "crew", "-o", "json").ok(t))
	var rows []map[string]any
	if err := json.Unmarshal([]byte(on(t, n, "group", "list", "-o", "json").ok(t)), &rows); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if r["group"] == "crew" {
			raw, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "group-list", string(raw))
		}
	}
	if got := on(t, n, "group", "list").ok(t); !strings.Contains(got, "crew") {
		t.Errorf("printed %q", got)
	}
	if got := on(t, n, "group", "describe", "crew").ok(t); !strings.Contains(got, fmt.Sprintf("group crew  state Empty  members 0  lag %d", 1)) {
		t.Errorf("printed %q", got)
	}
	some := on(t, n, "group", "describe", "crew", "nobody", "-o", "json")
	some.fails(t, 1, "group nobody does not exist", "firn group list")
	golden(t, "group-describe", some.out)
}
