package broker

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/objectstore/faulty"
	"github.com/firnlog/firn/objectstore/file"
	"github.com/firnlog/firn/replication"
	"github.com/firnlog/firn/tiering"
)

// TestTieredOffsetsAreAskedOfTheBucket restarts what knows the bucket, again and
// again, and asks for the ends of the tiers before anybody has read a cold record.
// The answer is what the bucket has; while it does not answer, KAFKA_STORAGE_ERROR,
// which clients ask again after, and no offset that would be a guess. All partitions
// of a request together wait no longer than it says (KIP-1075).
func TestTieredOffsetsAreAskedOfTheBucket(t *testing.T) {
	var manager *replication.Manager
	addr, meta := wireServer(t, func(cfg *Config) { manager = cfg.Replication })
	a := dialAsker(t, addr)
	topic := led(t, a, meta, "t")
	raw, err := file.Open(file.Config{Root: filepath.Join(t.TempDir(), "bucket")})
	if err != nil {
		t.Fatal(err)
	}
	bucket := faulty.Wrap(raw)
	memory, err := tiering.OpenMemory(disk.OS(), filepath.Join(t.TempDir(), "memory"))
	if err != nil {
		t.Fatal(err)
	}
	start := func(works bool) *tiering.Archiver {
		archiver, err := tiering.New(tiering.Config{
			Bucket: bucket, Cluster: "c", ClusterID: meta.Image().ClusterID(), ClusterGeneration: func() uint64 { return 1 }, NodeID: 1, Memory: memory, Now: time.Now,
			Topic: func(metadata.TopicID) (tiering.TopicInfo, bool) {
				return tiering.TopicInfo{Name: "t", Partitions: 3}, true
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if works {
			t.Cleanup(func() { archiver.Close() })
		} else {
			archiver.Close() // still answers, and no pass reads the head before the question
		}
		for n := range topic.Partitions {
			p, err := manager.ByName("t", n)
			if err != nil {
				t.Fatal(err)
			}
			p.SetTier(archiver.Lead(p))
		}
		return archiver
	}
	archiver := start(true)
	for n, batches := range []int{3, 1, 0} { // partition 0: two tiered, one not
		p, err := manager.ByName("t", int32(n))
		if err != nil {
			t.Fatal(err)
		}
		for i := range batches {
			if _, p := produceTo(a, 9, "t", topic.ID, int32(n), -1, batchOf(time.Now().UnixMilli())); p.ErrorCode != 0 {
				t.Fatal(codeName(p.ErrorCode))
			}
			if i < 2 {
				if err := p.Roll(); err != nil {
					t.Fatal(err)
				}
			}
			if i == min(batches, 2)-1 {
				if err := archiver.RunOnce(t.Context(), p.TopicPartition()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	st, _ := meta.Image().Partition(topic.ID, 0)
	expect := func(what string, want map[int64][]int64) {
		t.Helper()
		for at, offsets := range want {
			start(false)
			for n, offset := range offsets {
				epoch := st.LeaderEpoch
				if offset < 0 {
					epoch = -1
				}
				if p := offsetsFor(a, 11, "t", int32(n), at, -1); p.ErrorCode != 0 || p.Offset != offset || p.LeaderEpoch != epoch {
					t.Errorf("%s: %d of partition %d: %s, offset %d, epoch %d; want offset %d, epoch %d", what, at, n, codeName(p.ErrorCode), p.Offset, p.LeaderEpoch, offset, epoch)
				}
			}
		}
	}
	ends := map[int64][]int64{latestTiered: {1, 0, -1}, earliestPending: {2, 1, 0}, earliestLocal: {0, 0, 0}}
	expect("after a start", ends)

	bucket.Down(faulty.ErrServer)
	start(false)
	for _, at := range []int64{latestTiered, earliestPending} {
		if p := offsetsFor(a, 11, "t", 0, at, -1); codeName(p.ErrorCode) != "KAFKA_STORAGE_ERROR" || p.Offset != -1 || p.LeaderEpoch != -1 {
			t.Errorf("the bucket is down: %d answers %s, offset %d, epoch %d", at, codeName(p.ErrorCode), p.Offset, p.LeaderEpoch)
		}
	}
	if p := offsetsFor(a, 11, "t", 0, latest, -1); p.ErrorCode != 0 || p.Offset != 3 {
		t.Errorf("what is on disk needs no bucket: %+v", p)
	}
	bucket.Heal()
	expect("after an outage", ends)

	start(false)
	bucket.Inject(faulty.Fault{Kind: faulty.Slow, Op: objectstore.OpGet, Times: -1, Delay: time.Hour})
	r := kmsg.NewPtrListOffsetsRequest()
	r.ReplicaID, r.TimeoutMillis = -1, 300
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = "t"
	for n := range topic.Partitions {
		rp := kmsg.NewListOffsetsRequestTopicPartition()
		rp.Partition, rp.Timestamp, rp.CurrentLeaderEpoch = n, latestTiered, -1
		rt.Partitions = append(rt.Partitions, rp)
	}
	r.Topics = append(r.Topics, rt)
	begun := time.Now()
	resp := ask(a, 11, r, kmsg.NewPtrListOffsetsResponse())
	if took := time.Since(begun); took < 300*time.Millisecond || took > 3*time.Second {
		t.Errorf("a bucket that says nothing: answered after %v, the request allows 300ms", took)
	}
	for _, p := range resp.Topics[0].Partitions {
		if codeName(p.ErrorCode) != "KAFKA_STORAGE_ERROR" || p.Offset != -1 {
			t.Errorf("a bucket that says nothing: partition %d answers %s, offset %d", p.Partition, codeName(p.ErrorCode), p.Offset)
		}
	}
}
