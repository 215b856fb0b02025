// Package record knows the bytes of a Kafka record batch, message format v2,
// and nothing else: no offsets are assigned here, nothing touches a disk or a
// socket, and no clock is read.
//
// The producer's bytes are the log. A batch is checked once, when it is
// produced, and from then on the same bytes lie on disk, on the followers, in
// the bucket and at the consumer. So the central type, Batch, is not a struct
// but a view: a byte slice that Parse has found to hold exactly one batch. Its
// accessors read the header in place and cannot go out of range, and its few
// setters write the two fields that lie outside the checksum.
//
//	 0  base offset      int64   set by the leader, outside the CRC
//	 8  batch length     int32   bytes that follow this field
//	12  leader epoch     int32   set by the leader, outside the CRC
//	16  magic            int8    2
//	17  CRC-32C          uint32  of everything from the attributes on
//	21  attributes       int16   codec (0-2), log-append time (3), transactional (4), control (5), delete horizon (6)
//	23  last offset delta int32
//	27  base timestamp   int64   milliseconds
//	35  max timestamp    int64
//	43  producer id      int64   -1: none
//	51  producer epoch   int16
//	53  base sequence    int32
//	57  record count     int32
//	61  records                  compressed as one block unless the codec is none
//
// Everything that comes from outside is untrusted. Lengths are checked before
// anything is read or allocated by them, decompression has a cap given by the
// caller, and a record count is never used to size memory.
//
// Read batch.go for the view, records.go for the records inside it, codec.go
// and xerial.go for compression, validate.go for what a produced batch must
// satisfy and walk.go for its inner loop, then build.go and control.go for the
// batches we write ourselves.
package record
