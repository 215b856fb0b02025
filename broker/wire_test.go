package broker

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/fetch"
	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/metadata/memory"
	"github.com/firnlog/firn/record"
)

// The tests of this file send every advertised version of the APIs of the data path
// over a socket, encoded and decoded by kmsg, and look at what a client acts upon.

// eachVersion runs f for every version that is served of an API, and insists that
// the codec knows them all.
func eachVersion(t *testing.T, key int16, f func(t *testing.T, v int16)) {
	t.Helper()
	a := apis[key]
	if most := kmsg.RequestForKey(key).MaxVersion(); a.max > most {
		t.Fatalf("%s is served up to v%d, the codec knows v%d", a.name, a.max, most)
	}
	for v := a.min; v <= a.max; v++ {
		t.Run(fmt.Sprintf("v%d", v), func(t *testing.T) { f(t, v) })
	}
}

// wireServer has the topics t and u, each led in its second epoch, so that there is
// one before.
func wireServer(t *testing.T, more ...func(*Config)) (addr string, meta *metadata.Client) {
	t.Helper()
	path, store := t.TempDir(), memory.NewServer(1, time.Now)
	addr, meta, stop := serveAt(t, path, store, withFetch(t))
	for _, topic := range []string{"t", "u"} {
		if _, err := meta.EnsureTopic(t.Context(), metadata.NewTopic{Name: topic, Partitions: 3, ReplicationFactor: 1}); err != nil {
			t.Fatal(err)
		}
		led(t, dialAsker(t, addr), meta, topic)
	}
	stop()
	sessions := func(cfg *Config) {
		cfg.Sessions = fetch.NewSessions(fetch.SessionsConfig{Slots: 100, Now: time.Now})
	}
	addr, meta, stop = serveAt(t, path, store, append([]func(*Config){withFetch(t), sessions}, more...)...)
	t.Cleanup(stop)
	return addr, meta
}

// led waits until a topic's partitions are served, and is the topic.
func led(t *testing.T, a *asker, meta *metadata.Client, name string) *metadata.Topic {
	t.Helper()
	topic, ok := meta.Image().TopicByName(name)
	if !ok {
		t.Fatalf("there is no topic %s", name)
	}
	for n := range topic.Partitions {
		for until := time.Now().Add(20 * time.Second); ; {
			resp := offsetsFor(a, 1, name, n, latest, -1)
			if resp.ErrorCode == 0 {
				break
			}
			if time.Now().After(until) {
				t.Fatalf("%s-%d answers %s", name, n, codeName(resp.ErrorCode))
			}
		}
	}
	return topic
}

func offsetsFor(a *asker, v int16, topic string, partition int32, at int64, current int32) kmsg.ListOffsetsResponseTopicPartition {
	a.t.Helper()
	r := kmsg.NewPtrListOffsetsRequest()
	r.ReplicaID, r.TimeoutMillis = -1, 5000
	rt, rp := kmsg.NewListOffsetsRequestTopic(), kmsg.NewListOffsetsRequestTopicPartition()
	rt.Topic, rp.Partition, rp.Timestamp, rp.CurrentLeaderEpoch = topic, partition, at, current
	rt.Partitions = append(rt.Partitions, rp)
	r.Topics = append(r.Topics, rt)
	resp := ask(a, v, r, kmsg.NewPtrListOffsetsResponse())
	if len(resp.Topics) != 1 || resp.Topics[0].Topic != topic || len(resp.Topics[0].Partitions) != 1 || resp.Topics[0].Partitions[0].Partition != partition {
		a.t.Fatalf("ListOffsets v%d answers %+v", v, resp)
	}
	return resp.Topics[0].Partitions[0]
}

// batchOf is a batch of records with the given timestamps.
func batchOf(stamps ...int64) []byte {
	b := record.NewBuilder(record.NewBatchOptions())
	for i, ts := range stamps {
		b.Append(record.Record{TimestampDelta: ts, Key: []byte{'k'}, Value: fmt.Append(nil, "value ", i)})
	}
	return b.Build()
}

// produceTo sends one batch to one partition, by name before v13 and by id from it.
func produceTo(a *asker, v int16, topic string, id [16]byte, partition int32, acks int16, records []byte) (*kmsg.ProduceResponse, kmsg.ProduceResponseTopicPartition) {
	a.t.Helper()
	r := kmsg.NewPtrProduceRequest()
	r.Acks, r.TimeoutMillis = acks, 5000
	rt, rp := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
	rt.Topic, rt.TopicID, rp.Partition, rp.Records = topic, id, partition, records
	rt.Partitions = append(rt.Partitions, rp)
	r.Topics = append(r.Topics, rt)
	resp := ask(a, v, r, kmsg.NewPtrProduceResponse())
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 || resp.Topics[0].Partitions[0].Partition != partition {
		a.t.Fatalf("Produce v%d answers %+v", v, resp)
	}
	if got := resp.Topics[0]; v < 13 && got.Topic != topic || v >= 13 && got.TopicID != id {
		a.t.Fatalf("Produce v%d answers for topic %q, id %x", v, got.Topic, got.TopicID)
	}
	return resp, resp.Topics[0].Partitions[0]
}

func TestProduceInEveryVersion(t *testing.T) {
	addr, meta := wireServer(t)
	a := dialAsker(t, addr)
	topic := led(t, a, meta, "t")
	end := int64(0)
	eachVersion(t, 0, func(t *testing.T, v int16) {
		a := dialAsker(t, addr)
		now := time.Now().UnixMilli()
		for _, acks := range []int16{-1, 1} {
			resp, p := produceTo(a, v, "t", topic.ID, 0, acks, batchOf(now, now, now))
			if p.ErrorCode != 0 || p.BaseOffset != end || p.LogAppendTime != -1 {
				t.Fatalf("acks %d: %+v, want offset %d", acks, p, end)
			}
			if want := map[bool]int64{false: -1, true: 0}[v >= 5]; p.LogStartOffset != want {
				t.Errorf("log start %d, want %d", p.LogStartOffset, want)
			}
			if len(resp.Brokers) != 0 || p.CurrentLeader.LeaderID != -1 || p.CurrentLeader.LeaderEpoch != -1 || p.ErrorMessage != nil || len(p.ErrorRecords) != 0 {
				t.Errorf("a success hints at another leader, or explains itself: %+v", resp)
			}
			end += 3
		}
		refused := func(what string, p kmsg.ProduceResponseTopicPartition, want string) {
			t.Helper()
			if codeName(p.ErrorCode) != want || p.BaseOffset != -1 || p.LogAppendTime != -1 {
				t.Errorf("%s: %s at offset %d, want %s", what, codeName(p.ErrorCode), p.BaseOffset, want)
			}
			if (p.ErrorMessage != nil) != (v >= 8) {
				t.Errorf("%s: the message is %v", what, p.ErrorMessage)
			}
		}
		unknown := map[bool]string{false: "UNKNOWN_TOPIC_OR_PARTITION", true: "UNKNOWN_TOPIC_ID"}[v >= 13]
		_, p := produceTo(a, v, "none", [16]byte{1, 2, 3}, 0, -1, batchOf(now))
		refused("an unknown topic", p, unknown)
		_, p = produceTo(a, v, "t", topic.ID, 99, -1, batchOf(now))
		refused("an unknown partition", p, "UNKNOWN_TOPIC_OR_PARTITION")
		_, p = produceTo(a, v, "t", topic.ID, 0, 2, batchOf(now))
		refused("acks=2", p, "INVALID_REQUIRED_ACKS")
		// Bad records are named from v8.
		_, p = produceTo(a, v, "t", topic.ID, 0, -1, batchOf(now, now+48*3600_000))
		refused("a timestamp of the day after tomorrow", p, "INVALID_TIMESTAMP")
		if v >= 8 && (len(p.ErrorRecords) != 1 || p.ErrorRecords[0].RelativeOffset != 1 || p.ErrorRecords[0].ErrorMessage == nil) {
			t.Errorf("bad records %+v, want record 1", p.ErrorRecords)
		}
		// zstd came with v7 (KIP-110).
		opts := record.NewBatchOptions()
		opts.Codec = record.Zstd
		b := record.NewBuilder(opts)
		b.Append(record.Record{TimestampDelta: now})
		if _, p = produceTo(a, v, "t", topic.ID, 0, -1, b.Build()); v < 7 {
			refused("zstd", p, "UNSUPPORTED_COMPRESSION_TYPE")
		} else if end++; p.ErrorCode != 0 {
			t.Errorf("zstd: %s", codeName(p.ErrorCode))
		}
	})
	if got := offsetsFor(a, 1, "t", 0, latest, -1).Offset; got != end {
		t.Errorf("the log ends at %d, want %d: what was refused is not there, what was accepted is", got, end)
	}
}

// fetchFrom asks for one partition.
func fetchFrom(a *asker, v int16, topic string, id [16]byte, partition int32, offset int64, change func(*kmsg.FetchRequest, *kmsg.FetchRequestTopicPartition)) (*kmsg.FetchResponse, kmsg.FetchResponseTopicPartition) {
	a.t.Helper()
	r := kmsg.NewPtrFetchRequest()
	r.ReplicaID, r.SessionEpoch, r.MaxBytes, r.MinBytes, r.MaxWaitMillis, r.Rack = -1, -1, 1<<20, 1, 5000, "here"
	rt, rp := kmsg.NewFetchRequestTopic(), kmsg.NewFetchRequestTopicPartition()
	rt.Topic, rt.TopicID, rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = topic, id, partition, offset, 1<<20
	if change != nil {
		change(r, &rp)
	}
	rt.Partitions = append(rt.Partitions, rp)
	r.Topics = append(r.Topics, rt)
	resp := ask(a, v, r, kmsg.NewPtrFetchResponse())
	if resp.ErrorCode != 0 {
		return resp, kmsg.NewFetchResponseTopicPartition()
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 || resp.Topics[0].Partitions[0].Partition != partition {
		a.t.Fatalf("Fetch v%d answers %+v", v, resp)
	}
	if got := resp.Topics[0]; v < 13 && got.Topic != topic || v >= 13 && got.TopicID != id {
		a.t.Fatalf("Fetch v%d answers for topic %q, id %x", v, got.Topic, got.TopicID)
	}
	return resp, resp.Topics[0].Partitions[0]
}

func TestFetchInEveryVersion(t *testing.T) {
	addr, meta := wireServer(t)
	first := dialAsker(t, addr)
	topic := led(t, first, meta, "t")
	sent := batchOf(time.Now().UnixMilli(), time.Now().UnixMilli())
	if _, p := produceTo(first, 9, "t", topic.ID, 1, -1, sent); p.ErrorCode != 0 {
		t.Fatal(codeName(p.ErrorCode))
	}
	st, _ := meta.Image().Partition(topic.ID, 1)
	epoch := st.LeaderEpoch
	type request = kmsg.FetchRequest
	type part = kmsg.FetchRequestTopicPartition
	eachVersion(t, 1, func(t *testing.T, v int16) {
		a := dialAsker(t, addr)
		resp, p := fetchFrom(a, v, "t", topic.ID, 1, 0, func(r *request, p *part) { p.CurrentLeaderEpoch, r.IsolationLevel = epoch, int8(v%2) })
		if p.ErrorCode != 0 || p.HighWatermark != 2 || p.LastStableOffset != 2 {
			t.Fatalf("%s, high watermark %d, last stable %d", codeName(p.ErrorCode), p.HighWatermark, p.LastStableOffset)
		}
		b, rest, err := record.Parse(p.RecordBatches)
		if err != nil || len(rest) != 0 || b.CheckCRC() != nil || b.BaseOffset() != 0 || b.Count() != 2 || b.LeaderEpoch() != epoch || string(b.Payload()) != string(record.Batch(sent).Payload()) {
			t.Errorf("the batch came back as something else: %v, %d bytes behind it", err, len(rest))
		}
		if want := map[bool]int64{false: -1, true: 0}[v >= 5]; p.LogStartOffset != want {
			t.Errorf("log start %d, want %d", p.LogStartOffset, want)
		}
		if (p.AbortedTransactions != nil) != (v%2 == 1) {
			t.Errorf("isolation level %d: aborted transactions %v", v%2, p.AbortedTransactions)
		}
		if p.PreferredReadReplica != -1 || len(resp.Brokers) != 0 || p.CurrentLeader.LeaderID != -1 || p.CurrentLeader.LeaderEpoch != -1 || p.DivergingEpoch.Epoch != -1 || p.SnapshotID.Epoch != -1 || resp.SessionID != 0 {
			t.Errorf("a success sends the client elsewhere: %+v", resp)
		}
		failing := func(what string, p kmsg.FetchResponseTopicPartition, want string) {
			t.Helper()
			if codeName(p.ErrorCode) != want || p.HighWatermark != -1 || p.LastStableOffset != -1 || p.LogStartOffset != -1 || len(p.RecordBatches) != 0 {
				t.Errorf("%s: %s (%+v), want %s", what, codeName(p.ErrorCode), p, want)
			}
		}
		_, p = fetchFrom(a, v, "none", [16]byte{1, 2, 3}, 0, 0, nil)
		failing("an unknown topic", p, map[bool]string{false: "UNKNOWN_TOPIC_OR_PARTITION", true: "UNKNOWN_TOPIC_ID"}[v >= 13])
		_, p = fetchFrom(a, v, "t", topic.ID, 99, 0, nil)
		failing("an unknown partition", p, "UNKNOWN_TOPIC_OR_PARTITION")
		_, p = fetchFrom(a, v, "t", topic.ID, 1, 3, nil)
		failing("beyond the end", p, "OFFSET_OUT_OF_RANGE")
		if v >= 9 {
			_, p = fetchFrom(a, v, "t", topic.ID, 1, 0, func(_ *request, p *part) { p.CurrentLeaderEpoch = epoch - 1 })
			failing("an older leader epoch", p, "FENCED_LEADER_EPOCH")
			_, p = fetchFrom(a, v, "t", topic.ID, 1, 0, func(_ *request, p *part) { p.CurrentLeaderEpoch = epoch + 1 })
			failing("a newer leader epoch", p, "UNKNOWN_LEADER_EPOCH")
		}
		if v >= 12 {
			// Of the history that the client tells of, this log shares nothing, or
			// what the tag says.
			_, p = fetchFrom(a, v, "t", topic.ID, 1, 2, func(_ *request, p *part) { p.LastFetchedEpoch = epoch + 5 })
			failing("an epoch that nobody knows", p, "OFFSET_OUT_OF_RANGE")
			_, p = fetchFrom(a, v, "t", topic.ID, 1, 9, func(_ *request, p *part) { p.LastFetchedEpoch = epoch })
			if p.ErrorCode != 0 || p.DivergingEpoch.Epoch != epoch || p.DivergingEpoch.EndOffset != 2 || len(p.RecordBatches) != 0 {
				t.Errorf("the epoch ended before the client's offset: %+v", p)
			}
		}
		if v < 7 {
			return
		}
		// A session begins, and then needs no topics.
		resp, p = fetchFrom(a, v, "t", topic.ID, 1, 0, func(r *request, _ *part) { r.SessionEpoch = 0 })
		if resp.SessionID == 0 || p.ErrorCode != 0 {
			t.Fatalf("no session: %+v", resp)
		}
		more := kmsg.NewPtrFetchRequest()
		more.ReplicaID, more.SessionID, more.SessionEpoch, more.MaxBytes, more.MaxWaitMillis = -1, resp.SessionID, 1, 1<<20, 10
		next := ask(a, v, more, kmsg.NewPtrFetchResponse())
		if next.ErrorCode != 0 || next.SessionID != resp.SessionID || len(next.Topics) != 1 || len(next.Topics[0].Partitions[0].RecordBatches) == 0 {
			t.Errorf("the session goes on with %+v", next)
		}
		more.SessionEpoch = 9
		if next = ask(a, v, more, kmsg.NewPtrFetchResponse()); codeName(next.ErrorCode) != "INVALID_FETCH_SESSION_EPOCH" {
			t.Errorf("a wrong epoch of a session: %s", codeName(next.ErrorCode))
		}
		more.SessionID++
		more.SessionEpoch = 1
		if next = ask(a, v, more, kmsg.NewPtrFetchResponse()); codeName(next.ErrorCode) != "FETCH_SESSION_ID_NOT_FOUND" {
			t.Errorf("an unknown session: %s", codeName(next.ErrorCode))
		}
		// A follower has no business here, whichever field it says so in.
		follower := kmsg.NewPtrFetchRequest()
		follower.ReplicaID, follower.ReplicaState.ID, follower.SessionEpoch = 2, 2, -1
		if resp := ask(a, v, follower, kmsg.NewPtrFetchResponse()); codeName(resp.ErrorCode) != "INVALID_REQUEST" {
			t.Errorf("a follower gets %s", codeName(resp.ErrorCode))
		}
	})
}

func TestListOffsetsInEveryVersion(t *testing.T) {
	addr, meta := wireServer(t)
	first := dialAsker(t, addr)
	topic := led(t, first, meta, "t")
	base := time.Now().UnixMilli() - 10_000
	if _, p := produceTo(first, 9, "t", topic.ID, 2, -1, batchOf(base, base+20, base+10)); p.ErrorCode != 0 {
		t.Fatal(codeName(p.ErrorCode))
	}
	st, _ := meta.Image().Partition(topic.ID, 2)
	eachVersion(t, 2, func(t *testing.T, v int16) {
		a := dialAsker(t, addr)
		epoch := st.LeaderEpoch
		if v < 4 {
			epoch = -1
		}
		for _, c := range []struct {
			what       string
			at         int64
			since      int16
			offset, ts int64
			epoch      int32
		}{
			{"latest", latest, 1, 3, -1, epoch},
			{"earliest", earliest, 1, 0, -1, epoch},
			{"by time", base + 5, 1, 1, base + 20, epoch},
			{"by a time of the future", base + 1_000_000, 1, -1, -1, -1},
			{"greatest timestamp", maxTimestamp, 7, 1, base + 20, epoch},
			{"earliest local", earliestLocal, 8, 0, -1, epoch},
			{"latest tiered", latestTiered, 9, -1, -1, -1},
		} {
			p := offsetsFor(a, v, "t", 2, c.at, st.LeaderEpoch)
			if v < c.since {
				if codeName(p.ErrorCode) != "UNSUPPORTED_VERSION" || p.Offset != -1 || p.Timestamp != -1 || p.LeaderEpoch != -1 {
					t.Errorf("%s: %+v, want UNSUPPORTED_VERSION", c.what, p)
				}
			} else if p.ErrorCode != 0 || p.Offset != c.offset || p.Timestamp != c.ts || p.LeaderEpoch != c.epoch {
				t.Errorf("%s: %+v, want offset %d, timestamp %d, epoch %d", c.what, p, c.offset, c.ts, c.epoch)
			}
		}
		for _, c := range []struct {
			what, topic string
			partition   int32
			at          int64
			current     int32
			since       int16
			want        string
		}{
			{"no such timestamp", "t", 2, -9, -1, 1, "UNSUPPORTED_VERSION"},
			{"unknown topic", "none", 0, latest, -1, 1, "UNKNOWN_TOPIC_OR_PARTITION"},
			{"unknown partition", "t", 99, latest, -1, 1, "UNKNOWN_TOPIC_OR_PARTITION"},
			{"older epoch", "t", 2, latest, st.LeaderEpoch - 1, 4, "FENCED_LEADER_EPOCH"},
			{"newer epoch", "t", 2, latest, st.LeaderEpoch + 1, 4, "UNKNOWN_LEADER_EPOCH"},
		} {
			p := offsetsFor(a, v, c.topic, c.partition, c.at, c.current)
			if v >= c.since && (codeName(p.ErrorCode) != c.want || p.Offset != -1) {
				t.Errorf("%s: %s at %d, want %s", c.what, codeName(p.ErrorCode), p.Offset, c.want)
			}
		}
	})
}

func TestMetadataInEveryVersion(t *testing.T) {
	addr, meta := wireServer(t, func(cfg *Config) { cfg.AutoCreate = func() bool { return false } })
	topic := led(t, dialAsker(t, addr), meta, "t")
	named := func(names ...string) (out []kmsg.MetadataRequestTopic) {
		for _, n := range names {
			rt := kmsg.NewMetadataRequestTopic()
			rt.Topic = &n
			out = append(out, rt)
		}
		return out
	}
	eachVersion(t, 3, func(t *testing.T, v int16) {
		a := dialAsker(t, addr)
		r := kmsg.NewPtrMetadataRequest()
		r.Topics, r.AllowAutoTopicCreation = named("t", "none", "no/name"), true
		r.IncludeTopicAuthorizedOperations, r.IncludeClusterAuthorizedOperations = true, true
		resp := ask(a, v, r, kmsg.NewPtrMetadataResponse())
		if len(resp.Brokers) != 1 || resp.Brokers[0].NodeID != 1 || fmt.Sprintf("%s:%d", resp.Brokers[0].Host, resp.Brokers[0].Port) != addr {
			t.Errorf("brokers %+v, want the address that the client came to", resp.Brokers)
		}
		if v >= 1 && resp.ControllerID != 1 || v >= 2 && (resp.ClusterID == nil || *resp.ClusterID != meta.Image().ClusterID()) {
			t.Errorf("controller %d, cluster %v", resp.ControllerID, resp.ClusterID)
		}
		if (resp.AuthorizedOperations != math.MinInt32) != (v >= 8 && v <= 10) {
			t.Errorf("the cluster's operations are %d", resp.AuthorizedOperations)
		}
		if len(resp.Topics) != 3 {
			t.Fatalf("%d topics", len(resp.Topics))
		}
		got := resp.Topics[0]
		if got.ErrorCode != 0 || *got.Topic != "t" || got.IsInternal || len(got.Partitions) != 3 || (got.AuthorizedOperations != math.MinInt32) != (v >= 8) {
			t.Errorf("topic t: %+v", got)
		}
		if v >= 10 && got.TopicID != topic.ID {
			t.Errorf("topic t has id %x, want %x", got.TopicID, topic.ID)
		}
		for n, p := range got.Partitions {
			st, _ := meta.Image().Partition(topic.ID, int32(n))
			epoch := st.LeaderEpoch
			if v < 7 {
				epoch = -1
			}
			if p.ErrorCode != 0 || p.Partition != int32(n) || p.Leader != 1 || p.LeaderEpoch != epoch || fmt.Sprint(p.Replicas, p.ISR, p.OfflineReplicas) != "[1] [1] []" {
				t.Errorf("partition %d: %+v, want epoch %d", n, p, epoch)
			}
		}
		for i, want := range []string{"UNKNOWN_TOPIC_OR_PARTITION", "INVALID_TOPIC_EXCEPTION"} {
			if got := resp.Topics[i+1]; codeName(got.ErrorCode) != want || *got.Topic != *r.Topics[i+1].Topic || len(got.Partitions) != 0 {
				t.Errorf("topic %s: %s, want %s", *got.Topic, codeName(got.ErrorCode), want)
			}
		}
		// All topics: no list, which v0 says with an empty one; an empty list is none.
		r.Topics = nil
		if resp = ask(a, v, r, kmsg.NewPtrMetadataResponse()); len(resp.Topics) != 2 {
			t.Errorf("%d topics in all, want 2", len(resp.Topics))
		}
		if r.Topics = []kmsg.MetadataRequestTopic{}; v >= 1 {
			if resp = ask(a, v, r, kmsg.NewPtrMetadataResponse()); len(resp.Topics) != 0 || len(resp.Brokers) != 1 {
				t.Errorf("%d topics when none were asked for", len(resp.Topics))
			}
		}
		if v < 10 {
			return
		}
		// By id. Before v12 the name beside it may not be null.
		byID := func(id [16]byte) kmsg.MetadataRequestTopic {
			rt := kmsg.NewMetadataRequestTopic()
			rt.TopicID = id
			return rt
		}
		r.Topics = []kmsg.MetadataRequestTopic{byID(topic.ID), byID([16]byte{1, 2, 3})}
		resp = ask(a, v, r, kmsg.NewPtrMetadataResponse())
		if len(resp.Topics) != 2 || *resp.Topics[0].Topic != "t" || len(resp.Topics[0].Partitions) != 3 {
			t.Fatalf("by id: %+v", resp.Topics)
		}
		missing := resp.Topics[1]
		if codeName(missing.ErrorCode) != "UNKNOWN_TOPIC_ID" || missing.TopicID != [16]byte{1, 2, 3} || (missing.Topic == nil) != (v >= 12) {
			t.Errorf("an unknown id: %+v", missing)
		}
	})
}

func TestInitProducerIDInEveryVersion(t *testing.T) {
	addr, _ := wireServer(t)
	seen := map[int64]bool{}
	eachVersion(t, 22, func(t *testing.T, v int16) {
		a := dialAsker(t, addr)
		r := kmsg.NewPtrInitProducerIDRequest()
		for _, old := range []int64{-1, 7} { // who has an id and no transactional id gets a new one
			r.ProducerID, r.ProducerEpoch = old, -1
			resp := ask(a, v, r, kmsg.NewPtrInitProducerIDResponse())
			if resp.ErrorCode != 0 || resp.ProducerID < 0 || resp.ProducerEpoch != 0 || seen[resp.ProducerID] {
				t.Errorf("with id %d: %+v, which is new: %v", old, resp, !seen[resp.ProducerID])
			}
			seen[resp.ProducerID] = true
		}
		for id, want := range map[string]string{"": "INVALID_REQUEST", "mine": "COORDINATOR_NOT_AVAILABLE"} {
			r.TransactionalID, r.TransactionTimeoutMillis = &id, 60_000
			resp := ask(a, v, r, kmsg.NewPtrInitProducerIDResponse())
			if codeName(resp.ErrorCode) != want || resp.ProducerID != -1 || resp.ProducerEpoch != -1 {
				t.Errorf("transactional id %q: %+v, want %s", id, resp, want)
			}
		}
	})
}
