package format

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/firnlog/firn/record"
)

func sampleHead() *Head {
	return &Head{
		ClusterID: "id", ClusterGeneration: 3, TopicID: [16]byte{1, 2}, Topic: "orders", Partition: 7,
		Generation: 9, Nonce: Nonce{5}, Epoch: 4, Writer: 1, LogStart: 10, End: 1 << 53,
		Lineage: []Epoch{{0, 0}, {4, 100}},
		Parts:   []PartRef{{From: 0, To: 50, Count: 5, Nonce: Nonce{1}, Size: 100, Bytes: 1000, Stored: 1100, MinTs: -1, MaxTs: 1<<63 - 1, ETag: "e", CRC: 1}},
		Entries: []Entry{
			{Base: 50, End: 100, Epoch: 4, Nonce: Nonce{2}, Size: 5, Bytes: 4, MinTs: -1, MaxTs: -1, ETag: "x", CRC: 7, Aborted: []Aborted{{1, 50, 60, 55}}, CreatedMs: 12},
			{Base: 100, End: 1 << 53, Epoch: 4, Nonce: Nonce{3}, Key: "elsewhere/a", Size: 5, Bytes: 4, Codec: Zstd, AbortedInFooter: true},
		},
		Graves:  []Grave{{State: Unlinked, Since: 5, Part: true, WithEntries: true, Base: 0, End: 3, Epoch: -1, Nonce: Nonce{4}, Size: 1200, Objects: 5}, {State: Deleting, Orphan: true, Base: 3, End: 4, Epoch: 2, Size: 9, Objects: 1}},
		Deleted: true,
	}
}

func batches(n, size int) (all []record.Batch) {
	for i := range n {
		b := record.NewBuilder(record.NewBatchOptions())
		b.Append(record.Record{TimestampDelta: int64(1000 + i), Value: bytes.Repeat([]byte{byte(i)}, size)})
		x := b.Build()
		x.SetBaseOffset(int64(1<<31 + i))
		all = append(all, x)
	}
	return all
}

func sampleObject(t testing.TB) (object []byte, f *Footer) {
	table := NewTable()
	for _, b := range batches(20, 1<<20) {
		if err := table.Add(b); err != nil {
			t.Fatal(err)
		}
		object = append(object, b...)
	}
	f = table.Footer()
	f.Topic, f.Epoch = "orders", 4
	f.Lineage = []Epoch{{4, 0}}
	f.Aborted = []Aborted{{7, 1, 2, 1}}
	f.Producers = []Producer{{ID: 7, Epoch: 1, CoordinatorEpoch: -1, TxnFirst: -1, LastTimestamp: 5, Batches: []SeqRange{{0, 1, 2, 3, 4}}}}
	tail, sum := table.Finish()
	object = append(object, tail...)
	if sum != crc32.Checksum(object, castagnoli) {
		t.Fatal("the sum is not that of the object")
	}
	return object, f
}

// TestRoundTrips: what is written is read, for every kind.
func TestRoundTrips(t *testing.T) {
	h := sampleHead()
	got, err := DecodeHead(EncodeHead(h))
	if err != nil || !reflect.DeepEqual(got, h) {
		t.Errorf("head: %v\n%+v\n%+v", err, got, h)
	}
	p := &Part{TopicID: h.TopicID, Partition: 7, Entries: h.Entries}
	gotPart, err := DecodePart(EncodePart(p))
	if err != nil || !reflect.DeepEqual(gotPart, p) {
		t.Errorf("part: %v %+v", err, gotPart)
	}
	object, f := sampleObject(t)
	reads := 0
	read := func(p []byte, off int64) error { reads++; copy(p, object[off:]); return nil }
	gotFooter, err := ReadFooter(int64(len(object)), read)
	if err != nil || !reflect.DeepEqual(gotFooter, f) || reads != 1 {
		t.Errorf("footer in %d reads: %v\n%+v\n%+v", reads, err, gotFooter, f)
	}
	if len(f.Chunks) != 7 {
		t.Errorf("%d chunks of 20 MiB", len(f.Chunks))
	}
	for i, c := range f.Chunks {
		if err := f.CheckChunk(i, object[c.Pos:c.Pos+c.Len]); err != nil {
			t.Error(err)
		}
		if f.ChunkAt(c.Base) != i || i > 0 && f.ChunkAt(c.Base-1) != i-1 {
			t.Errorf("chunk at %d", c.Base)
		}
	}
	cl := Cluster{Name: "c", ID: "i", Generation: 2, CreatedMs: 1<<53 + 1}
	gotCluster, err := DecodeCluster(EncodeCluster(cl))
	if err != nil || gotCluster.ID != "i" || gotCluster.CreatedMs != 1<<53+1 {
		t.Errorf("cluster: %v %+v", err, gotCluster)
	}
	tp := Topic{ClusterID: "i", Name: "t", ID: "x", Partitions: 3, Configs: map[string]string{"a": "b"}, State: StateLive}
	gotTopic, err := DecodeTopic(EncodeTopic(tp))
	if err != nil || gotTopic.Partitions != 3 || gotTopic.Configs["a"] != "b" {
		t.Errorf("topic: %v %+v", err, gotTopic)
	}
}

// TestFlippedBitsAreFound: no single damaged byte of any kind is read as data.
func TestFlippedBitsAreFound(t *testing.T) {
	table := NewTable()
	for _, b := range batches(3, 10) {
		table.Add(b)
	}
	tail, _ := table.Finish()
	payload := table.Footer().payload()
	kinds := map[string]struct {
		b      []byte
		decode func([]byte) error
	}{
		"head":    {EncodeHead(sampleHead()), func(b []byte) error { _, err := DecodeHead(b); return err }},
		"part":    {EncodePart(&Part{Entries: sampleHead().Entries}), func(b []byte) error { _, err := DecodePart(b); return err }},
		"cluster": {EncodeCluster(Cluster{Name: "c", ID: "i", Generation: 2}), func(b []byte) error { _, err := DecodeCluster(b); return err }},
		"footer": {tail[:len(tail)-8], func(b []byte) error {
			object := append(make([]byte, payload), b...)
			object = append(object, tail[len(tail)-8:]...)
			_, err := ReadFooter(int64(len(object)), func(p []byte, off int64) error { copy(p, object[off:]); return nil })
			return err
		}},
	}
	for name, k := range kinds {
		if err := k.decode(k.b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i := range k.b {
			if name == "footer" && i >= len(k.b)-4 {
				continue // reserved bytes of the trailer
			}
			if name == "cluster" && strings.ContainsRune(" \n", rune(k.b[i])) {
				continue // white space of JSON
			}
			bad := bytes.Clone(k.b)
			bad[i] ^= 1
			if err := k.decode(bad); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Errorf("%s: byte %d flipped: %v", name, i, err)
			}
		}
		for n := range k.b {
			if err := k.decode(k.b[:n]); err == nil && name != "cluster" {
				t.Errorf("%s: %d bytes of %d are read", name, n, len(k.b))
			}
		}
	}
}

// TestVersions: an unknown major is refused, an unknown minor and unknown fields
// are read.
func TestVersions(t *testing.T) {
	seal := func(b []byte) []byte {
		binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[:len(b)-4], castagnoli))
		return b
	}
	b := EncodeHead(sampleHead())
	binary.BigEndian.PutUint16(b[8:], 2)
	if _, err := DecodeHead(seal(b)); !errors.Is(err, ErrVersion) {
		t.Errorf("major 2: %v", err)
	}
	b = EncodeHead(sampleHead())
	binary.BigEndian.PutUint16(b[10:], 99)
	if _, err := DecodeHead(seal(b)); err != nil {
		t.Errorf("minor 99: %v", err)
	}
	w := writer{b: bytes.Clone(b[frameHeader : len(b)-4])}
	w.string(900, "from the future")
	w.fixed32(901, 5)
	w.int(902, -4)
	h, err := DecodeHead(appendFrame(headMagic, w.b))
	if err != nil || !reflect.DeepEqual(h, sampleHead()) {
		t.Errorf("unknown fields: %v", err)
	}
	j := []byte(`{"magic":"firn-cluster","format":"2.0","cluster":"c"}`)
	if _, err := DecodeCluster(j); !errors.Is(err, ErrVersion) {
		t.Errorf("JSON major 2: %v", err)
	}
}

// TestGapsAreRefused: a manifest with a hole is no manifest.
func TestGapsAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(*Head){
		"gap":        func(h *Head) { h.Entries[1].Base++ },
		"overlap":    func(h *Head) { h.Entries[1].Base-- },
		"end":        func(h *Head) { h.End-- },
		"part":       func(h *Head) { h.Parts[0].To-- },
		"empty":      func(h *Head) { h.Entries[0].End = h.Entries[0].Base },
		"log start":  func(h *Head) { h.LogStart = -1 },
		"lineage":    func(h *Head) { h.Lineage[1].Epoch = 0 },
		"grave":      func(h *Head) { h.Graves[0].State = 9 },
		"no objects": func(h *Head) { h.Entries[0].Size = 0 },
	} {
		h := sampleHead()
		spoil(h)
		if _, err := DecodeHead(EncodeHead(h)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNames round-trips names and refuses what is not one.
func TestNames(t *testing.T) {
	for _, n := range []Name{{Base: 0, End: 1, Epoch: 0, Nonce: Nonce{1}}, {Base: 1<<63 - 1001, End: 1<<63 - 1000, Epoch: 1<<31 - 1}, {Part: true, Base: 5, End: 7, Epoch: -1, Nonce: Nonce{255}}} {
		s := SegmentName(n.Base, n.End, n.Epoch, n.Nonce)
		if n.Part {
			s = PartName(n.Base, n.End, n.Nonce)
		}
		if got, ok := ParseName(s); !ok || got != n {
			t.Errorf("%s: %+v %v", s, got, ok)
		}
	}
	good := SegmentName(1, 2, 3, Nonce{})
	for _, s := range []string{"", HeadName, "manifest.", "x.seg", good[1:], good + "x", strings.Replace(good, "-", "_", 1), strings.ToUpper(good), SegmentName(2, 2, 0, Nonce{}), "manifest.1-2.00"} {
		if n, ok := ParseName(s); ok {
			t.Errorf("%q is read as %+v", s, n)
		}
	}
}

func FuzzDecoders(f *testing.F) {
	object, _ := sampleObject(f)
	f.Add(EncodeHead(sampleHead()))
	f.Add(EncodePart(&Part{Entries: sampleHead().Entries}))
	f.Add(object[len(object)-1000:])
	f.Add(EncodeCluster(Cluster{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := DecodeHead(b); err == nil {
			if again, err := DecodeHead(EncodeHead(h)); err != nil || !reflect.DeepEqual(again, h) {
				t.Fatalf("a head that was read cannot be written: %v", err)
			}
		}
		// The checksum would hide what lies behind it: hand the bodies over, too.
		DecodeHead(appendFrame(headMagic, b))
		DecodePart(appendFrame(partMagic, b))
		DecodeFooter(appendFrame(footerMagic, b), 1<<20)
		DecodeFooter(b, int64(len(b)))
		FooterSize(b, int64(len(b)))
		DecodeCluster(b)
		DecodeTopic(b)
		ParseName(string(b))
	})
}

// BenchmarkDecodePart is the processor's share of a lookup that needs a part.
func BenchmarkDecodePart(b *testing.B) {
	p := &Part{}
	for i := range int64(4096) {
		p.Entries = append(p.Entries, Entry{Base: i * 1000, End: i*1000 + 1000, Epoch: 3, Nonce: Nonce{byte(i)}, Size: 1<<27 + i, Bytes: 1 << 27, Records: 1000, Batches: 50,
			MinTs: 1_700_000_000_000 + i, MaxTs: 1_700_000_060_000 + i, ETag: strings.Repeat("e", 32), CRC: 1<<32 - 1, CreatedMs: 1_700_000_000_000})
	}
	data := EncodePart(p)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodePart(data); err != nil {
			b.Fatal(err)
		}
	}
}

// TestEmptyMessagesAreNoEntries: bytes that announce a great many things of no
// size are refused before there is memory for them.
func TestEmptyMessagesAreNoEntries(t *testing.T) {
	for name, f := range map[string]struct {
		field  protowire.Number
		decode func([]byte) error
	}{
		"part":   {3, func(b []byte) error { _, err := DecodePart(appendFrame(partMagic, b)); return err }},
		"head":   {14, func(b []byte) error { _, err := DecodeHead(appendFrame(headMagic, b)); return err }},
		"refs":   {13, func(b []byte) error { _, err := DecodeHead(appendFrame(headMagic, b)); return err }},
		"graves": {15, func(b []byte) error { _, err := DecodeHead(appendFrame(headMagic, b)); return err }},
		"chunks": {18, func(b []byte) error { _, err := DecodeFooter(appendFrame(footerMagic, b), 1<<20); return err }},
	} {
		var w writer
		for range 1 << 20 {
			w.b = protowire.AppendTag(w.b, f.field, protowire.BytesType)
			w.b = protowire.AppendVarint(w.b, 0)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := f.decode(w.b)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 16<<20 {
			t.Errorf("%s: %d MiB for %d MiB of bytes", name, got>>20, len(w.b)>>20)
		}
	}
}
