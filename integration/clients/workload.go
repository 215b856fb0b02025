package clients

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
)

const (
	partitions = 3
	bigRecord  = 900 << 10

	// longAgo is when the records say they were made: in 2023, so that a lookup
	// by time has to go by the records and not by when they were appended.
	longAgo = int64(1_700_000_000_123)
)

// workload returns n records over all partitions: every tenth key and every
// tenth value is null, and the record in the middle has a value of 900 KiB that
// does not compress. Partition 0 has no headers, partition 1 the same ones in
// each record. Partition 2 has others in each record, and bytes that are no
// text, empty keys and empty values. What a client lacks is left out.
func workload(n int, less lacks) []record {
	random := rand.New(rand.NewPCG(uint64(n), 7))
	records := make([]record, n)
	for i := range records {
		r := record{
			Partition: int32(i % partitions),
			Timestamp: longAgo + int64(i),
			Key:       fmt.Appendf(nil, "k%d", i%20),
			Value:     bytes.Repeat(fmt.Appendf(nil, "v%d-", i), 1+i%20),
		}
		switch {
		case r.Partition == 1:
			r.Headers = []header{{"a", []byte("one")}, {"n", nil}}
		case r.Partition == 2 && less.binary:
			r.Headers = []header{{"h", []byte("two")}}
		case r.Partition == 2:
			r.Headers = []header{{"h", []byte{byte(i), 0, 0xff, '\n'}}, {"empty", []byte{}}, {"n", nil}}
			r.Value = append(r.Value, 0, 0xff, 0xfe, '\t', '\n')
		}
		if less.nullHeaders {
			r.Headers = slices.DeleteFunc(r.Headers, func(h header) bool { return h.Value == nil })
		}
		switch {
		case i%10 == 3:
			r.Key = nil
		case i%10 == 5:
			r.Value = nil
		case i%10 == 7 && !less.binary:
			r.Key = []byte{}
		case i%10 == 9 && !less.binary:
			r.Value = []byte{}
		}
		if i == n/2 {
			r.Value = make([]byte, bigRecord)
			for j := range r.Value {
				if r.Value[j] = byte(random.Uint32()); less.binary {
					r.Value[j] = 'A' + r.Value[j]%58 // letters and a few signs
				}
			}
		}
		records[i] = r
	}
	return records
}
