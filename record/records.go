package record

// Header is one header of a record. A nil Value is a null value; keys are
// never null. Keys may repeat, and their order counts.
type Header struct {
	Key   string
	Value []byte
}

// Record is one record of a batch. A nil Key or Value is null, which differs
// from an empty one. Its offset is the batch's base offset plus OffsetDelta,
// and its timestamp the batch's base timestamp plus TimestampDelta, unless the
// batch has log-append time.
type Record struct {
	OffsetDelta    int32
	TimestampDelta int64
	Key, Value     []byte
	Headers        []Header
}
