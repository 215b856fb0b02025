package record

import (
	"testing"

	"github.com/firnlog/firn/internal/mutation"
)

// TestMutants takes out, one at a time, what is checked of a produced batch.
func TestMutants(t *testing.T) {
	m := mutation.Of(t)
	m.Catch("21 one batch per partition", "validate.go", `if len(rest) > 0 {`, `if false {`, "TestProduceAnswers")
	m.Catch("21 magic 2 only", "validate.go", `case magic < Magic:`, `case false:`, "TestProduceAnswers")
	m.Catch("21 exact length", "validate.go", `case length+LogOverhead > int64(len(p)):`, `case false:`, "TestProduceAnswers")
	m.Catch("21 the checksum", "validate.go", `if err := b.CheckCRC(); err != nil {`, `if err := b.CheckCRC(); false {`, "TestProduceAnswers")
	m.Catch("21 base offset 0", "validate.go", `if b.BaseOffset() != 0 {`, `if false {`, "TestProduceAnswers")
	m.Catch("21 codec 0 to 4", "validate.go", `case !codec.Valid():`, `case false:`, "TestProduceAnswers")
	m.Catch("21 a stream of its codec", "validate.go", `if !b.Codec().begins(b.Payload()) {`, `if false {`, "TestProduceAnswers")
	m.Catch("21 no control batch of a client", "validate.go", `case b.IsControl():`, `case false:`, "TestProduceAnswers")
	m.Catch("21 no delete horizon", "validate.go", `case b.HasDeleteHorizon():`, `case false:`, "TestProduceAnswers")
	m.Catch("21 no log-append-time bit", "validate.go", `case b.TimestampType() == LogAppendTime:`, `case false:`, "TestProduceAnswers")
	m.Catch("21 there are records", "validate.go", `case count <= 0:`, `case false:`, "TestProduceAnswers")
	m.Catch("21 last offset delta is count-1", "validate.go", `case last != count-1:`, `case false:`, "TestProduceAnswers")
	m.Catch("21 a producer has a sequence", "validate.go", `case id >= 0 && sequence < 0:`, `case false && sequence < 0:`, "TestProduceAnswers")
	m.Catch("21 a producer has an epoch", "validate.go", `case id >= 0 && epoch < 0:`, `case false && epoch < 0:`, "TestProduceAnswers")
	m.Catch("21 timestamps within bounds", "walk.go", `if timestamp != -1 && (timestamp < w.lo || timestamp > w.hi) {`, `if false {`, "TestTimestampBounds")
	m.Catch("21 timestamps within bounds, unopened", "validate.go", `if t != -1 && (t < lo || t == last && t > hi) {`, `if false {`, "TestTimestampBounds")
	m.Catch("21 the greatest timestamp is the records'", "validate.go", `if w.max != b.MaxTimestamp() && !l.LogAppendTime {`, `if false {`, "TestLyingMaxTimestamp")
	m.Catch("21 the topic's size", "validate.go", `if l.MaxBatchBytes > 0 && len(b) > l.MaxBatchBytes {`, `if false {`, "TestSizeLimit")
	m.Catch("21 uncompressed records are walked", "validate.go", `if b.Codec() != None && !l.Strict`, `if !l.Strict`, "TestUncompressedRecords")
	m.Catch("21 records fill the batch", "walk.go", `if len(p) != 0 {`, `if false {`, "TestProduceAnswers|TestUncompressedRecords")
	m.Catch("21 a record's fields fill it", "walk.go", `if i != end {`, `if false {`, "TestUncompressedRecords")
	m.Catch("21 no two records share an offset", "walk.go", `if int(offsetDelta) != index {`, `if false && int(offsetDelta) != index {`, "TestOffsetDeltas")
	m.Catch("21 strict opens", "validate.go", `if b.Codec() != None && !l.Strict && `, `if b.Codec() != None && `, "TestHeaderMode")
	m.Catch("21 strict opens with a cap", "validate.go", `payload, l.MaxDecoded); err != nil {`, `payload, 1<<40); err != nil {`, "TestStrictNeverTrusts")
	m.Catch("21 compacted topics are opened", "validate.go", `!l.Strict && !l.RequireKeys && !recode {`, `!l.Strict && !recode {`, "TestHeaderMode|TestCompactedTopics")
	m.Catch("21 compacted topics require keys", "walk.go", `if keyLen < 0 && w.requireKeys {`, `if false {`, "TestCompactedTopics")
	m.Catch("21 another codec recompresses", "validate.go", `recode := l.Codec >= None && l.Codec != b.Codec()`, `recode := false`, "TestTopicCodec")
	m.Catch("21 what grew by that is measured again", "validate.go", `		b = b.withRecords(codec, packed)
		if err := l.checkSize(b); err != nil {`, `		b = b.withRecords(codec, packed)
		if err := l.checkSize(b); false {`, "TestTopicCodec")
	m.Catch("21 zstd has its version", "validate.go", `case codec == Zstd && noZstd:`, `case false:`, "TestZstdNeeds")
	m.Catch("record errors have a bound", "walk.go", `if len(w.bad.Records) < maxRecordErrors {`, `if true {`, "TestRecordErrors")
	m.Catch("a decoder's memory follows what comes", "codec.go", `grown := min(maxBytes+1, 2*len(dst)+4*srcLen+512)`, `grown := maxBytes + 1`, "TestLyingStreams")
}
