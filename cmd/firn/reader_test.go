package main

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/record"
)

// batch is one batch of records with these timestamps.
func batch(base int64, change func(*record.BatchOptions), timestamps ...int64) record.Batch {
	o := record.NewBatchOptions()
	o.BaseOffset = base
	if change != nil {
		change(&o)
	}
	b := record.NewBuilder(o)
	for i, ts := range timestamps {
		b.Append(record.Record{TimestampDelta: ts, Value: fmt.Appendf(nil, "%d", base+int64(i))})
	}
	return b.Build()
}

// abort is the marker that aborts a producer's transaction.
func abort(base, producer int64) record.Batch {
	b := record.ControlMarker(record.Marker{Type: record.Abort, ProducerID: producer})
	b.SetBaseOffset(base)
	return b
}

func answer(batches ...record.Batch) *kmsg.FetchResponseTopicPartition {
	rp := kmsg.NewFetchResponseTopicPartition()
	for _, b := range batches {
		rp.RecordBatches = append(rp.RecordBatches, b...)
	}
	return &rp
}

func offsets(records []*kgo.Record) (out []int64) {
	for _, r := range records {
		out = append(out, r.Offset)
	}
	return out
}

// TestTimestampsAreExact: a record is shown with the timestamp that its producer
// gave it, over all 64 bits and whatever else is in its batch.
func TestTimestampsAreExact(t *testing.T) {
	want := []int64{-1, 0, math.MaxInt64, 1 << 57, 1<<58 + 1, math.MinInt64, 1_700_000_000_000}
	for _, codec := range []record.Codec{record.None, record.Zstd} {
		rp := answer(batch(5, func(o *record.BatchOptions) { o.Codec = codec }, want...))
		records, next, err := decode("t", rp, 5)
		if err != nil || next != 12 {
			t.Fatal(next, err)
		}
		fmtr, err := kgo.NewRecordFormatter("%d")
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range records {
			if got := toJSON(r).Timestamp; got != want[i] {
				t.Errorf("%v: JSON says %d, want %d", codec, got, want[i])
			}
			if got := string(fmtr.AppendRecord(nil, r)); got != fmt.Sprint(want[i]) {
				t.Errorf("%v: %%d says %s, want %d", codec, got, want[i])
			}
		}
	}
}

// TestDecodeBegins behind the records before the offset that was asked for, and
// ends before a batch that was cut.
func TestDecodeBegins(t *testing.T) {
	rp := answer(batch(0, nil, 1, 2), batch(2, nil, 3, 4, 5), batch(5, nil, 6))
	rp.RecordBatches = append(rp.RecordBatches, batch(6, nil, 7)[:50]...)
	records, next, err := decode("t", rp, 3)
	if want := []int64{3, 4, 5}; err != nil || next != 6 || !slices.Equal(offsets(records), want) {
		t.Errorf("%v, next %d, %v; want %v", offsets(records), next, err, want)
	}
	rp.RecordBatches = rp.RecordBatches[:30]
	if _, next, err := decode("t", rp, 0); err == nil || next != 0 {
		t.Errorf("less than a batch: next %d, %v", next, err)
	}
	damaged := answer(batch(0, nil, 1))
	damaged.RecordBatches[len(damaged.RecordBatches)-2] ^= 1
	if _, _, err := decode("t", damaged, 0); err == nil {
		t.Error("a batch with a flipped bit was taken")
	}
}

// TestAbortedTransactionsAreLeftOut when the broker names them, up to their own
// marker, and markers always.
func TestAbortedTransactionsAreLeftOut(t *testing.T) {
	of := func(producer int64) func(*record.BatchOptions) {
		return func(o *record.BatchOptions) { o.ProducerID, o.Transactional = producer, true }
	}
	rp := answer(batch(0, of(7), 1), batch(1, of(8), 1), batch(2, nil, 1), abort(3, 7), batch(4, of(7), 1), abort(5, 8), batch(6, of(8), 1))
	if records, next, err := decode("t", rp, 0); err != nil || next != 7 || !slices.Equal(offsets(records), []int64{0, 1, 2, 4, 6}) {
		t.Errorf("uncommitted: %v, next %d, %v", offsets(records), next, err)
	}
	for _, a := range [][2]int64{{8, 1}, {7, 0}} {
		x := kmsg.NewFetchResponseTopicPartitionAbortedTransaction()
		x.ProducerID, x.FirstOffset = a[0], a[1]
		rp.AbortedTransactions = append(rp.AbortedTransactions, x)
	}
	if records, next, err := decode("t", rp, 0); err != nil || next != 7 || !slices.Equal(offsets(records), []int64{2, 4, 6}) {
		t.Errorf("committed: %v, next %d, %v", offsets(records), next, err)
	}
}

// TestRecordJSON: what is text is shown as text, what is not as base64, and null is
// null, in headers as in keys and values.
func TestRecordJSON(t *testing.T) {
	binary := []byte{0xff, 0x00}
	for _, c := range []struct {
		r    kgo.Record
		want string
	}{
		{kgo.Record{Topic: "t", Key: []byte("k"), Value: []byte("<v>")}, `"key":"k","value":"\u003cv\u003e"}`},
		{kgo.Record{Topic: "t", Value: []byte{}}, `"key":null,"value":""}`},
		{kgo.Record{Topic: "t", Key: binary, Value: binary}, `"key":null,"key_base64":"/wA=","value":null,"value_base64":"/wA="}`},
		{
			kgo.Record{Topic: "t", Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("x")}, {Key: "a", Value: []byte{}}, {Key: "b"}, {Key: "c", Value: binary}, {Key: "\xff"}}},
			`"key":null,"value":null,"headers":[{"key":"a","value":"x"},{"key":"a","value":""},{"key":"b","value":null},{"key":"c","value":null,"value_base64":"/wA="},{"key":null,"key_base64":"/w==","value":null}]}`,
		},
	} {
		c.r.Offset, c.r.Partition = math.MaxInt64, 3
		raw, err := json.Marshal(toJSON(&c.r))
		if got, want := string(raw), fmt.Sprintf(`{"topic":"t","partition":3,"offset":9223372036854775807,"timestamp":%d,`, c.r.Timestamp.UnixMilli())+c.want; err != nil || got != want {
			t.Errorf("%s, %v\nwant %s", got, err, want)
		}
	}
}
