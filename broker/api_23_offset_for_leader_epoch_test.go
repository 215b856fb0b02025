package broker

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/metadata/memory"
)

func epochEnd(a *asker, v int16, topic string, partition, current, epoch int32) kmsg.OffsetForLeaderEpochResponseTopicPartition {
	a.t.Helper()
	r := kmsg.NewPtrOffsetForLeaderEpochRequest()
	rt, rp := kmsg.NewOffsetForLeaderEpochRequestTopic(), kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
	rt.Topic, rp.Partition, rp.CurrentLeaderEpoch, rp.LeaderEpoch = topic, partition, current, epoch
	rt.Partitions = append(rt.Partitions, rp)
	r.Topics = append(r.Topics, rt)
	resp := ask(a, v, r, kmsg.NewPtrOffsetForLeaderEpochResponse())
	if len(resp.Topics) != 1 || resp.Topics[0].Topic != topic || len(resp.Topics[0].Partitions) != 1 || resp.Topics[0].Partitions[0].Partition != partition {
		a.t.Fatalf("OffsetForLeaderEpoch v%d answers %+v", v, resp)
	}
	return resp.Topics[0].Partitions[0]
}

// TestEpochsEndAsInKafka writes records in the epochs 5 and 12 and none in 21, which
// leads now, and asks where each ends. The answers are those of Kafka's
// LeaderEpochFileCache: the epoch asked for, else the one before it; nothing for one
// that nobody has led in, or for none.
func TestEpochsEndAsInKafka(t *testing.T) {
	path, store := t.TempDir(), memory.NewServer(1, time.Now)
	lead := func(meta *metadata.Client, above int32) {
		topic, _ := meta.Image().TopicByName("t")
		tp := metadata.TopicPartition{TopicID: topic.ID, Topic: "t"}
		if res := meta.Lead(t.Context(), []metadata.LeadRequest{{TopicPartition: tp, Node: 1, MinEpoch: above}}); res[0].Err != nil {
			t.Fatal(res[0].Err)
		}
	}
	var a *asker
	var current int32
	for i, step := range []struct {
		above   int32 // which a restart puts the epoch two above of
		records int
	}{{3, 3}, {10, 2}, {19, 0}} {
		addr, meta, stop := serveAt(t, path, store)
		if i == 0 {
			if _, err := meta.EnsureTopic(t.Context(), metadata.NewTopic{Name: "t", Partitions: 1, ReplicationFactor: 1}); err != nil {
				t.Fatal(err)
			}
			led(t, dialAsker(t, addr), meta, "t")
		}
		lead(meta, step.above)
		stop()
		addr, meta, stop = serveAt(t, path, store)
		a = dialAsker(t, addr)
		topic := led(t, a, meta, "t")
		st, _ := meta.Image().Partition(topic.ID, 0)
		if current = st.LeaderEpoch; current != step.above+2 {
			t.Fatalf("epoch %d, want %d", current, step.above+2)
		}
		for range step.records {
			if _, p := produceTo(a, 9, "t", topic.ID, 0, -1, batchOf(time.Now().UnixMilli())); p.ErrorCode != 0 {
				t.Fatal(codeName(p.ErrorCode))
			}
		}
		if i < 2 {
			stop()
		} else {
			t.Cleanup(stop)
		}
	}
	eachVersion(t, 23, func(t *testing.T, v int16) {
		for _, c := range []struct {
			what           string
			current, epoch int32
			code           string
			wantEpoch      int32
			end            int64
		}{
			{"the epoch that leads", 21, 21, "NONE", 21, 5},
			{"with no epoch of one's own", -1, 21, "NONE", 21, 5},
			{"an epoch before", 21, 12, "NONE", 12, 5},
			{"the first", 21, 5, "NONE", 5, 3},
			{"without records, after an epoch with some", 21, 20, "NONE", 12, 5},
			{"between two", 21, 7, "NONE", 5, 3},
			{"before the first", 21, 4, "NONE", 4, 0},
			{"in which nobody has led yet", 21, 22, "NONE", -1, -1},
			{"of the far future", -1, 1<<31 - 1, "NONE", -1, -1},
			{"none at all", 21, -1, "NONE", -1, -1},
			{"asked with an older epoch", 20, 21, "FENCED_LEADER_EPOCH", -1, -1},
			{"asked with a newer epoch", 22, 5, "UNKNOWN_LEADER_EPOCH", -1, -1},
		} {
			p := epochEnd(a, v, "t", 0, c.current, c.epoch)
			if codeName(p.ErrorCode) != c.code || p.LeaderEpoch != c.wantEpoch || p.EndOffset != c.end {
				t.Errorf("%s (%d): %s, epoch %d to %d, want %s, %d to %d", c.what, c.epoch, codeName(p.ErrorCode), p.LeaderEpoch, p.EndOffset, c.code, c.wantEpoch, c.end)
			}
		}
		for _, topic := range []string{"t", "none"} {
			if p := epochEnd(a, v, topic, 9, -1, 5); codeName(p.ErrorCode) != "UNKNOWN_TOPIC_OR_PARTITION" || p.LeaderEpoch != -1 || p.EndOffset != -1 {
				t.Errorf("partition 9 of %s: %+v", topic, p)
			}
		}
	})
}
