package record

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"
)

// collect walks a batch to its end or its first error.
func collect(b Batch, maxDecoded int) ([]Record, error) {
	var rs []Record
	for r, err := range b.Records(maxDecoded) {
		if err != nil {
			return rs, err
		}
		rs = append(rs, r)
	}
	return rs, nil
}

// same tells null from empty.
func same(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

func equalRecords(a, b []Record) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		if x.OffsetDelta != y.OffsetDelta || x.TimestampDelta != y.TimestampDelta ||
			!same(x.Key, y.Key) || !same(x.Value, y.Value) || len(x.Headers) != len(y.Headers) {
			return false
		}
		for j := range x.Headers {
			if x.Headers[j].Key != y.Headers[j].Key || !same(x.Headers[j].Value, y.Headers[j].Value) {
				return false
			}
		}
	}
	return true
}

// randomBytes is null, empty, short or long.
func randomBytes(r *rand.Rand) []byte {
	switch r.IntN(5) {
	case 0:
		return nil
	case 1:
		return []byte{}
	}
	p := make([]byte, 1+r.IntN(1<<r.IntN(15)))
	for i := range p {
		p[i] = byte('a' + r.IntN(1+r.IntN(26)))
	}
	return p
}

// randomRecords have absolute timestamps in TimestampDelta, as Builder wants them.
func randomRecords(r *rand.Rand) []Record {
	stamps := []int64{-1, 0, 1, math.MaxInt64, math.MinInt64, 1_700_000_000_000, 1_700_000_000_123}
	rs := make([]Record, 1+r.IntN(40))
	for i := range rs {
		rs[i] = Record{TimestampDelta: stamps[r.IntN(len(stamps))], Key: randomBytes(r), Value: randomBytes(r)}
		for range r.IntN(4) {
			rs[i].Headers = append(rs[i].Headers, Header{Key: string(randomBytes(r)), Value: randomBytes(r)})
		}
	}
	return rs
}

// TestRecordsComeBackAsTheyWereBuilt goes through Builder, validation and
// iteration with nulls, empties, repeated headers and extreme timestamps.
func TestRecordsComeBackAsTheyWereBuilt(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 0))
		want := randomRecords(r)
		opts := NewBatchOptions()
		opts.Codec, opts.BaseOffset = Codec(r.IntN(5)), r.Int64()>>1
		builder := NewBuilder(opts)
		for _, rec := range want {
			builder.Append(rec)
		}
		b := builder.Build()
		parsed, rest, err := Parse(b)
		if err != nil || len(rest) != 0 || b.CheckCRC() != nil || int(b.Count()) != len(want) {
			t.Fatalf("seed %d: Parse: %v, rest %d, CRC %v", seed, err, len(rest), b.CheckCRC())
		}
		i := 0
		for got, err := range parsed.Records(64 << 20) {
			if err != nil {
				t.Fatalf("seed %d: record %d: %v", seed, i, err)
			}
			if parsed.Timestamp(got) != want[i].TimestampDelta || parsed.Offset(got) != opts.BaseOffset+int64(i) {
				t.Fatalf("seed %d: record %d at offset %d, timestamp %d", seed, i, parsed.Offset(got), parsed.Timestamp(got))
			}
			got.TimestampDelta, want[i].OffsetDelta = want[i].TimestampDelta, int32(i)
			if !equalRecords([]Record{got}, want[i:i+1]) {
				t.Fatalf("seed %d: record %d differs: %+v, want %+v", seed, i, got, want[i])
			}
			i++
		}
		if i != len(want) {
			t.Fatalf("seed %d: %d of %d records", seed, i, len(want))
		}
		b.SetBaseOffset(0)
		l := producerLimits()
		l.AfterMaxMs, l.Strict = math.MaxInt64, true
		if out, err := ValidateProduced(bytes.Clone(b), l); err != nil || !bytes.Equal(out, b) {
			t.Fatalf("seed %d: our own batch is refused or changed: %v", seed, err)
		}
		if builder.Build() != nil || builder.Count() != 0 {
			t.Fatalf("seed %d: Build does not empty the builder", seed)
		}
	}
}

// TestLookupByTimeMatchesAWalk compares FindTimestamp and OffsetOfMaxTimestamp
// with the obvious loop.
func TestLookupByTimeMatchesAWalk(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		opts := NewBatchOptions()
		opts.Codec, opts.BaseOffset = Codec(r.IntN(5)), 1<<53+1
		builder := NewBuilder(opts)
		stamps := make([]int64, 1+r.IntN(10))
		for i := range stamps {
			stamps[i] = r.Int64N(10) - 1
			builder.Append(Record{TimestampDelta: stamps[i]})
		}
		b := builder.Build()
		if r.IntN(4) == 0 {
			b.SetMaxTimestampLogAppend(5)
			for i := range stamps {
				stamps[i] = 5
			}
		}
		ts, from := r.Int64N(12)-1, opts.BaseOffset+int64(r.IntN(len(stamps)+1))
		wantOK, wantOffset, wantAt := false, int64(0), int64(0)
		best, bestAt := opts.BaseOffset, stamps[0]
		for i, s := range stamps {
			o := opts.BaseOffset + int64(i)
			if !wantOK && s >= ts && o >= from {
				wantOK, wantOffset, wantAt = true, o, s
			}
			if s > bestAt {
				best, bestAt = o, s
			}
		}
		offset, at, ok, err := b.FindTimestamp(ts, from, 1<<20)
		if err != nil || ok != wantOK || offset != wantOffset || at != wantAt {
			t.Fatalf("seed %d: find %d from %d in %v: %d at %d, %v, %v; want %d at %d, %v", seed, ts, from, stamps, offset, at, ok, err, wantOffset, wantAt, wantOK)
		}
		offset, at, ok, err = b.OffsetOfMaxTimestamp(1 << 20)
		if err != nil || !ok || offset != best || at != bestAt {
			t.Fatalf("seed %d: max of %v: %d at %d, %v", seed, stamps, offset, at, err)
		}
	}
}

// TestIterationStopsWhenAsked checks that a consumer may leave the loop early.
func TestIterationStopsWhenAsked(t *testing.T) {
	n := 0
	for range manyRecords(10, 10, Gzip).Records(1 << 20) {
		if n++; n == 3 {
			break
		}
	}
	if n != 3 {
		t.Fatal(n)
	}
}

// TestLyingCountsAllocateNothing claims 2^31-1 records and headers over a few bytes.
func TestLyingCountsAllocateNothing(t *testing.T) {
	headers := append(appendVarint(nil, 10), 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f)
	for _, payload := range [][]byte{headers, {}, {12, 0, 0, 0, 1, 1, 0}} {
		b := produced([]int32{0}, nil).withRecords(None, payload)
		put32(posCount, math.MaxInt32)(b)
		used := allocated(func() {
			if _, err := collect(b, 1<<20); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%x: %v", payload, err)
			}
		})
		if used > 64<<10 {
			t.Errorf("%x: a lying count allocated %d bytes", payload, used)
		}
	}
}

// allocated returns the bytes that f allocates, as measured over the process.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestVarintsAreKafkas checks round trips at every width, and refusals.
func TestVarintsAreKafkas(t *testing.T) {
	for shift := range 64 {
		for _, v := range []int64{1<<shift - 1, 1 << shift, -1 << shift, -1<<shift - 1, int64(math.MaxInt64) >> shift, math.MinInt64 >> shift} {
			p := appendVarint(nil, v)
			if len(p) != varintLen(v) {
				t.Fatalf("%d: %d bytes, varintLen says %d", v, len(p), varintLen(v))
			}
			if got, n := varint64(p, 0); got != v || n != len(p) {
				t.Fatalf("%d reads as %d, %d of %d bytes", v, got, n, len(p))
			}
			got, n := varint32(p, 0)
			if fits := v == int64(int32(v)); fits != (n == len(p)) || fits && int64(got) != v {
				t.Fatalf("%d reads as %d in 32 bits, %d of %d bytes", v, got, n, len(p))
			}
			for cut := range p {
				if _, n := varint64(p[:cut], 0); n >= 0 {
					t.Fatalf("%d cut to %d bytes reads", v, cut)
				}
				if _, n := varint32(p[:cut], 0); n >= 0 {
					t.Fatalf("%d cut to %d bytes reads in 32 bits", v, cut)
				}
			}
		}
	}
	for _, p := range [][]byte{{0x80, 0x00}, {0x81, 0x80, 0x00}, {0x80, 0x80, 0x80, 0x00}, {0x80, 0x80, 0x80, 0x80, 0x00}} { // overlong
		if _, n := varint32(p, 0); n != len(p) {
			t.Errorf("overlong %x is refused", p)
		}
	}
}

// TestMarkersRoundTrip checks the bytes of both markers and their reading.
func TestMarkersRoundTrip(t *testing.T) {
	for _, typ := range []ControlType{Abort, Commit} {
		want := Marker{Type: typ, ProducerID: 1 << 40, ProducerEpoch: 7, CoordinatorEpoch: 12, Timestamp: 1_700_000_000_000}
		b := ControlMarker(want)
		if !b.IsControl() || !b.IsTransactional() || b.BaseSequence() != -1 || b.Count() != 1 || b.LastOffsetDelta() != 0 || b.CheckCRC() != nil || len(b) != HeaderSize+17 {
			t.Fatalf("%v: %x", typ, []byte(b))
		}
		if got, ok, err := ParseMarker(b); err != nil || !ok || got != want {
			t.Fatalf("%v: read back as %+v, %v, %v", typ, got, ok, err)
		}
		rs, err := collect(b, 0)
		if err != nil || string(rs[0].Key) != string([]byte{0, 0, 0, byte(typ)}) || string(rs[0].Value) != string([]byte{0, 0, 0, 0, 0, 12}) {
			t.Fatalf("%v: %x %x, %v", typ, rs[0].Key, rs[0].Value, err)
		}
		if version, got, err := ParseControl(rs[0]); version != 0 || got != typ || err != nil {
			t.Fatalf("%v: %d %v %v", typ, version, got, err)
		}
	}
}

// TestForeignControlBatchesAreToldApart covers other types, later versions and damage.
func TestForeignControlBatchesAreToldApart(t *testing.T) {
	control := func(key, value []byte) Batch {
		opts := NewBatchOptions()
		opts.Control = true
		b := NewBuilder(opts)
		b.Append(Record{Key: key, Value: value})
		return b.Build()
	}
	if _, ok, err := ParseMarker(control([]byte{0, 0, 0, 2}, nil)); ok || err != nil {
		t.Errorf("leader change: %v %v", ok, err)
	}
	if m, ok, err := ParseMarker(control([]byte{0, 1, 0, 1, 9, 9}, []byte{0, 1, 0, 0, 0, 3, 9})); !ok || err != nil || m.CoordinatorEpoch != 3 || m.Type != Commit {
		t.Errorf("later version: %+v %v %v", m, ok, err)
	}
	for name, b := range map[string]Batch{
		"null key":         control(nil, nil),
		"short key":        control([]byte{0, 0, 0}, nil),
		"negative version": control([]byte{0xff, 0xff, 0, 1}, nil),
		"short value":      control([]byte{0, 0, 0, 1}, []byte{0, 0, 0, 0, 0}),
		"not control":      manyRecords(1, 1, None),
	} {
		if _, ok, err := ParseMarker(b); ok || !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v %v", name, ok, err)
		}
	}
	if fmt.Sprint(Commit, Abort, ControlType(5)) != "COMMIT ABORT control(5)" {
		t.Error("names of control types")
	}
}
