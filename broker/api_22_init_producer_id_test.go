package broker

import (
	"math"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/metadata/memory"
	"github.com/firnlog/firn/record"
)

// TestProducerIDsAreAboveTheLogs (SAFETY 18): an id that a log of this broker knows is
// not handed out, and a client that writes the last one does not use them up.
func TestProducerIDsAreAboveTheLogs(t *testing.T) {
	addr, meta, stop := serveAt(t, t.TempDir(), memory.NewServer(1, time.Now))
	defer stop()
	a := dialAsker(t, addr)
	if _, err := meta.CreateTopic(t.Context(), metadata.NewTopic{Name: "t", Partitions: 1, ReplicationFactor: 1}); err != nil {
		t.Fatal(err)
	}
	topic := led(t, a, meta, "t")
	for _, id := range []int64{5000, math.MaxInt64} {
		opts := record.NewBatchOptions()
		opts.ProducerID, opts.ProducerEpoch, opts.BaseSequence = id, 0, 0
		b := record.NewBuilder(opts)
		b.Append(record.Record{TimestampDelta: time.Now().UnixMilli()})
		if _, p := produceTo(a, 13, "", topic.ID, 0, -1, b.Build()); p.ErrorCode != 0 {
			t.Fatalf("producer %d: %s", id, codeName(p.ErrorCode))
		}
	}
	resp := ask(a, 4, kmsg.NewPtrInitProducerIDRequest(), kmsg.NewPtrInitProducerIDResponse())
	if resp.ErrorCode != 0 || resp.ProducerID != 5001 {
		t.Errorf("got producer id %d, %s; a log has 5000", resp.ProducerID, codeName(resp.ErrorCode))
	}
}
