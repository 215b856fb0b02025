package metadata

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
)

// history is a plausible life of a store, in order.
func history(r *rand.Rand) []Entry {
	var out []Entry
	rev := uint64(0)
	vers := map[string]int64{}
	put := func(key string, rec record) {
		rev += 1 + uint64(r.IntN(3))
		rec.head().Version = vers[key]
		p := encode(rec, fmt.Sprintf("r%d", rev))
		vers[key]++
		out = append(out, Entry{Key: key, Value: p, Revision: rev})
	}
	topics := map[string]*topicRecord{}
	for range 80 {
		switch r.IntN(6) {
		case 0:
			put(keyConfigCluster, &configRecord{Configs: map[string]string{"log.retention.ms": fmt.Sprint(r.IntN(50) + 1)}})
		case 1:
			n := int32(r.IntN(3))
			put(keyBroker(n), &brokerRecord{Broker: Broker{Node: n, Incarnation: rev}})
		default:
			name := fmt.Sprintf("t.%d", r.IntN(4))
			rec := topics[name]
			if rec == nil {
				rec = &topicRecord{}
				topics[name] = rec
			}
			switch {
			case rec.Topic == nil:
				var id TopicID
				id[0], id[1], id[2] = byte(len(out)), byte(r.IntN(256)), 1
				rec.Topic = &topicValue{ID: id, Name: name, Assignment: [][]int32{{0}, {1}}, Created: time.Unix(int64(rev), 0).UTC(), Configs: map[string]string{}}
			case r.IntN(3) == 0:
				rec.Tombstones = append(slices.Clone(rec.Tombstones), Tombstone{ID: rec.Topic.ID, Name: name, Partitions: 2})
				rec.Topic = nil
			default:
				put(keyPartition(rec.Topic.ID, int32(r.IntN(2))), &partitionRecord{PartitionState: PartitionState{Leader: 1, LeaderEpoch: int32(rev), Replicas: []int32{1}}})
				continue
			}
			put(keyTopic(name), rec)
		}
	}
	return out
}

func dump(im *Image) map[string]string {
	out := map[string]string{}
	im.eachKey(func(key string, s seen) { out[key] = fmt.Sprint(s) })
	for _, t := range im.Topics() {
		out["topic "+t.Name] = fmt.Sprint(t.ID, t.Partitions, t.Configs, *t.Config())
		if byID, ok := im.TopicByID(t.ID); !ok || byID != t {
			out["index broken at "+t.Name] = ""
		}
		for n := range t.Partitions {
			st, _ := im.Partition(t.ID, n)
			out[fmt.Sprint("partition ", t.Name, n)] = fmt.Sprint(st)
		}
	}
	for _, d := range im.Tombstones() {
		out["tombstone "+d.ID.Hex()] = d.Name
	}
	return out
}

// TestTheFoldDependsOnTheLastEntryOfEachKeyAlone folds a history in one go, one
// by one, with repeats, and from the last values only; all end in one image, and
// no earlier image changes under its readers.
func TestTheFoldDependsOnTheLastEntryOfEachKeyAlone(t *testing.T) {
	for seed := range uint64(25) {
		r := rand.New(rand.NewPCG(seed, 7))
		h := history(r)
		fold := func(im *Image, entries []Entry) *Image {
			f := newFolder(im)
			for _, e := range entries {
				if err := f.add(e); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			return f.image()
		}
		want := dump(fold(emptyImage(1, nil), h))
		im := emptyImage(1, nil)
		var images []*Image
		var dumps []map[string]string
		for i := range h {
			step := h[i : i+1]
			if r.IntN(3) == 0 {
				step = h[r.IntN(i+1) : i+1] // again from somewhere earlier
			}
			im = fold(im, step)
			images, dumps = append(images, im), append(dumps, dump(im))
		}
		if got := dump(im); !maps.Equal(got, want) {
			t.Fatalf("seed %d: one by one differs:\n%v\n%v", seed, got, want)
		}
		for i, im := range images {
			if !maps.Equal(dump(im), dumps[i]) {
				t.Fatalf("seed %d: image %d changed after it was published", seed, i)
			}
		}
		last := map[string]Entry{}
		for _, e := range h {
			last[e.Key] = e
		}
		list := slices.SortedFunc(maps.Values(last), func(a, b Entry) int { return int(a.Revision) - int(b.Revision) })
		if got := dump(fold(emptyImage(1, nil), list)); !maps.Equal(got, want) {
			t.Fatalf("seed %d: the last values alone differ:\n%v\n%v", seed, got, want)
		}
	}
}

// TestAVersionThatGoesBackIsALoss: a store that lost a write and grew beyond it
// offers a higher revision with a lower, or the same, version.
func TestAVersionThatGoesBackIsALoss(t *testing.T) {
	at := func(rev uint64, version int64) Entry {
		rec := &configRecord{}
		rec.Version = version - 1
		return Entry{Key: keyConfigCluster, Value: encode(rec, fmt.Sprint(rev)), Revision: rev}
	}
	f := newFolder(emptyImage(1, nil))
	if err := f.add(at(5, 3)); err != nil {
		t.Fatal(err)
	}
	var lost *lostError
	for _, e := range []Entry{at(9, 2), at(9, 3), {Key: keyConfigCluster, Revision: 9, Deleted: true}} {
		if err := f.add(e); !errors.As(err, &lost) {
			t.Errorf("%+v: %v", e, err)
		}
	}
	if err := f.add(at(9, 4)); err != nil {
		t.Error(err)
	}
}

// TestOnlyADeletedTopicsPartitionsMayBeDeleted: any other deletion of an
// authority key is a loss.
func TestOnlyADeletedTopicsPartitionsMayBeDeleted(t *testing.T) {
	f := newFolder(emptyImage(1, nil))
	id := TopicID{1}
	rec := &topicRecord{Topic: &topicValue{ID: id, Name: "t", Assignment: [][]int32{{1}}}}
	add := func(e Entry) error { return f.add(e) }
	if err := errors.Join(
		add(Entry{Key: keyTopic("t"), Value: encode(rec, "a"), Revision: 1}),
		add(Entry{Key: keyPartition(id, 0), Value: encode(&partitionRecord{}, "b"), Revision: 2}),
	); err != nil {
		t.Fatal(err)
	}
	var lost *lostError
	for _, key := range []string{keyPartition(id, 0), keyTopic("t")} {
		if err := add(Entry{Key: key, Revision: 3, Deleted: true}); !errors.As(err, &lost) {
			t.Errorf("deletion of %s: %v", key, err)
		}
	}
	rec.Tombstones, rec.Topic = []Tombstone{{ID: id, Name: "t"}}, nil
	if err := errors.Join(
		add(Entry{Key: keyTopic("t"), Value: encode(rec, "c"), Revision: 4}),
		add(Entry{Key: keyPartition(id, 0), Revision: 5, Deleted: true}),
	); err != nil {
		t.Fatal(err)
	}
}

func TestANewerFormatIsRefused(t *testing.T) {
	f := newFolder(emptyImage(1, nil))
	if err := f.add(Entry{Key: keyCluster, Value: []byte(`{"major":2}`), Revision: 1}); !errors.Is(err, ErrNewerFormat) {
		t.Fatal(err)
	}
	if err := f.add(Entry{Key: keyCluster, Value: []byte(`{"major":1,"minor":9,"ver":1,"id":"x","surprise":[1]}`), Revision: 1}); err != nil || f.im.ClusterID() != "x" {
		t.Fatalf("an unknown field of a later minor: %v", err)
	}
}

func TestOneOfTenThousandPartitionsIsCheapToChange(t *testing.T) {
	im := emptyImage(1, nil)
	f := newFolder(im)
	id := TopicID{1}
	v := &topicRecord{Topic: &topicValue{ID: id, Name: "t", Assignment: make([][]int32, 10_000)}}
	f.add(Entry{Key: keyTopic("t"), Value: encode(v, "x"), Revision: 1})
	state := func(n int32, rev uint64) Entry {
		return Entry{Key: keyPartition(id, n), Value: encode(&partitionRecord{PartitionState: PartitionState{LeaderEpoch: int32(rev)}}, "x"), Revision: rev}
	}
	for n := range int32(10_000) {
		f.add(state(n, uint64(n)+2))
	}
	im = f.image()
	e := state(77, 20_000)
	e.Value = encode(&partitionRecord{header: header{Version: 5}, PartitionState: PartitionState{LeaderEpoch: 9}}, "y")
	bytes := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f := newFolder(im)
			f.add(e)
			f.image()
		}
	}).AllocedBytesPerOp()
	if bytes > 16<<10 {
		t.Fatalf("one change allocates %d bytes", bytes)
	}
}

// FuzzFold feeds the fold keys and values from nowhere: errors, never a panic,
// and never a broken index.
func FuzzFold(f *testing.F) {
	for _, e := range history(rand.New(rand.NewPCG(1, 1))) {
		f.Add(e.Key, e.Value, e.Deleted)
	}
	f.Add("partitions.00.1", []byte(`{"major":1}`), false)
	f.Add("partitions.00000000000000000000000000000000.2147483647", []byte(`{"major":1,"ver":1}`), false)
	f.Add("topics.x", []byte(`{"major":1,"topic":{"name":"y","assignment":[null]}}`), true)
	base := newFolder(emptyImage(1, nil))
	for _, e := range history(rand.New(rand.NewPCG(2, 2))) {
		if err := base.add(e); err != nil {
			f.Fatal(err)
		}
	}
	im := base.image()
	f.Fuzz(func(t *testing.T, key string, value []byte, deleted bool) {
		fo := newFolder(im)
		fo.add(Entry{Key: key, Value: value, Revision: im.revision + 1, Deleted: deleted})
		for k := range dump(fo.image()) {
			if len(k) > 5 && k[:5] == "index" {
				t.Fatal(k)
			}
		}
	})
}

func FuzzGuard(f *testing.F) {
	good := encodeGuard(guardState{ClusterID: "c", Created: time.Unix(1, 0).UTC(), Revision: 7, Keys: map[string]guardKey{"a": {Revision: 1, Version: 2, Request: "r"}}})
	f.Add(good)
	f.Add([]byte(`{"magic":"firn-metadata-guard","major":1,"crc32c":0}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := decodeGuard(raw)
		if err != nil {
			return
		}
		again, err := decodeGuard(encodeGuard(s))
		s.Checksum, again.Checksum = 0, 0
		if err != nil || !reflect.DeepEqual(s, again) {
			t.Fatalf("%+v became %+v, %v", s, again, err)
		}
	})
}

func TestEveryBitOfTheGuardIsCovered(t *testing.T) {
	good := encodeGuard(guardState{ClusterID: "c", Revision: 7, Keys: map[string]guardKey{"a": {Revision: 1, Version: 2, Request: "r"}}})
	want, err := decodeGuard(good)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for bit := range 8 {
			bad := slices.Clone(good)
			bad[i] ^= 1 << bit
			if got, err := decodeGuard(bad); err == nil && !reflect.DeepEqual(got, want) {
				t.Fatalf("bit %d of byte %d went unnoticed", bit, i)
			}
		}
	}
}

func TestTopicIDsLookLikeKafkas(t *testing.T) {
	id := TopicID{1, 2, 3, 250, 251, 252, 253, 254, 255, 9, 8, 7, 6, 5, 4, 3}
	for _, s := range []string{id.String(), id.Hex()} {
		if got, err := ParseTopicID(s); err != nil || got != id {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	if len(id.String()) != 22 {
		t.Errorf("%s has %d characters", id, len(id.String()))
	}
	for _, bad := range []string{"", "x", "!!!!!!!!!!!!!!!!!!!!!!", "zz000000000000000000000000000000"} {
		if _, err := ParseTopicID(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestReplicasAreSpreadOverBrokersAndRacks(t *testing.T) {
	im := emptyImage(0, nil)
	for n := range int32(6) {
		im.brokers = append(im.brokers, &Broker{Node: n, Rack: string(rune('a' + n/2))})
	}
	got, err := place(im, 60, 3, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	leaders, all := map[int32]int{}, map[int32]int{}
	for p, replicas := range got {
		leaders[replicas[0]]++
		for i, r := range replicas {
			all[r]++
			if slices.Contains(replicas[:i], r) {
				t.Fatalf("partition %d: %v", p, replicas)
			}
		}
	}
	for n := range int32(6) {
		if leaders[n] != 10 || all[n] < 25 || all[n] > 35 {
			t.Fatalf("broker %d leads %d of 60 and has %d replicas of 180", n, leaders[n], all[n])
		}
	}
	if _, err := place(im, 1, 7, 0, 0); !errors.Is(err, ErrInvalidReplicationFactor) {
		t.Fatal(err)
	}
}
