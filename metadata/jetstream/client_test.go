package jetstream

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/metadata"
)

func openClient(t *testing.T, data string) *metadata.Client {
	t.Helper()
	s, err := Open(t.Context(), Config{Dir: filepath.Join(data, "nats"), Cluster: "c", Logger: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	c, err := metadata.Open(t.Context(), metadata.Config{
		Store: s, Cluster: "c", NodeID: 1, Now: time.Now, Logger: testLog(t),
		FS: disk.OS(), GuardPath: filepath.Join(data, "metadata-guard.json"), ReconcileEvery: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func register(t *testing.T, c *metadata.Client, incarnation uint64) {
	t.Helper()
	if err := c.RegisterBroker(t.Context(), metadata.Broker{Node: 1, Incarnation: incarnation, DirIDs: []string{"d"}}); err != nil {
		t.Fatal(err)
	}
}

func lead(t *testing.T, c *metadata.Client, topic *metadata.Topic, incarnation uint64) time.Duration {
	t.Helper()
	var reqs []metadata.LeadRequest
	for n := range topic.Partitions {
		reqs = append(reqs, metadata.LeadRequest{TopicPartition: metadata.TopicPartition{TopicID: topic.ID, Topic: topic.Name, Partition: n}, Node: 1, Incarnation: incarnation, MinEpoch: -1})
	}
	began := time.Now()
	for _, r := range c.Lead(t.Context(), reqs) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	return time.Since(began)
}

// TestABrokerRestartsOverItsMetadata: topics, epochs, configuration and producer
// ids survive, and every start is a new epoch.
func TestABrokerRestartsOverItsMetadata(t *testing.T) {
	data := t.TempDir()
	c := openClient(t, data)
	register(t, c, 1)
	topic, err := c.CreateTopic(t.Context(), metadata.NewTopic{Name: "t", Partitions: 200, ReplicationFactor: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("200 leaderships in %v", lead(t, c, topic, 1))
	if err := c.AlterBrokerConfigs(t.Context(), -1, []metadata.AlterConfig{{Name: "log.retention.ms", Value: "77"}}, false); err != nil {
		t.Fatal(err)
	}
	ids, err := c.NextProducerIDs(t.Context(), 1000, nil)
	if err != nil {
		t.Fatal(err)
	}
	cluster := c.Image().ClusterID()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	c = openClient(t, data)
	defer c.Close()
	t.Logf("reopened in %v", time.Since(began))
	if reason, on := c.SafeMode(); on {
		t.Fatal(reason)
	}
	register(t, c, 2)
	im := c.Image()
	again, ok := im.TopicByName("t")
	if !ok || again.ID != topic.ID || im.ClusterID() != cluster || im.TopicConfig("t").RetentionMs != 77 {
		t.Fatalf("after a restart: %+v, cluster %s", again, im.ClusterID())
	}
	lead(t, c, again, 2)
	if st, _ := c.Image().Partition(topic.ID, 199); st.LeaderEpoch != 1 || st.ISR[0].Incarnation != 2 {
		t.Fatalf("second leadership: %+v", st)
	}
	if next, err := c.NextProducerIDs(t.Context(), 1000, nil); err != nil || next != ids+1000 {
		t.Fatalf("producer ids %d then %d, %v", ids, next, err)
	}
}

// TestAWipedMetadataFolderIsSafeMode: the broker's own files say that there was a
// cluster, so none is made.
func TestAWipedMetadataFolderIsSafeMode(t *testing.T) {
	data := t.TempDir()
	c := openClient(t, data)
	register(t, c, 1)
	c.Close()
	if err := os.RemoveAll(filepath.Join(data, "nats")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c = openClient(t, data)
		if _, on := c.SafeMode(); !on {
			t.Fatal("an empty store was taken for a beginning")
		}
		if _, err := c.CreateTopic(t.Context(), metadata.NewTopic{Name: "t", Partitions: 1, ReplicationFactor: 1}); err == nil {
			t.Fatal("a topic was created in safe mode")
		}
		c.Close()
	}
}

// TestABackupOfTheMetadataFolderIsNoticed: an older copy of the folder is put
// back while the broker is down.
func TestABackupOfTheMetadataFolderIsNoticed(t *testing.T) {
	data := t.TempDir()
	c := openClient(t, data)
	register(t, c, 1)
	c.Close()
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(filepath.Join(data, "nats"))); err != nil {
		t.Fatal(err)
	}
	c = openClient(t, data)
	topic, err := c.CreateTopic(t.Context(), metadata.NewTopic{Name: "t", Partitions: 1, ReplicationFactor: 1})
	if err != nil {
		t.Fatal(err)
	}
	lead(t, c, topic, 1)
	c.Close()
	if err := os.RemoveAll(filepath.Join(data, "nats")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(data, "nats"), os.DirFS(backup)); err != nil {
		t.Fatal(err)
	}
	c = openClient(t, data)
	defer c.Close()
	reason, on := c.SafeMode()
	if !on {
		t.Fatal("the rollback went unnoticed")
	}
	t.Log(reason)
}
