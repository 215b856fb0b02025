package broker

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"

	"github.com/firnlog/firn/record"
)

// zeros is a batch of one record with a key and n zeros.
func zeros(codec record.Codec, n int) []byte {
	opts := record.NewBatchOptions()
	opts.Codec = codec
	b := record.NewBuilder(opts)
	b.Append(record.Record{Key: []byte("k"), Value: make([]byte, n)})
	return b.Build()
}

func tooLarge(err error) bool {
	var v *record.ValidationError
	return errors.As(err, &v) && v.Kind == record.KindTooLarge
}

// TestOpenedBatchesShareTheirPart: a batch that has to be opened waits until others
// that are open leave room, what need not be opened passes it, and nothing is charged
// when it is over, or when it is given up.
func TestOpenedBatchesShareTheirPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(64 * mib)
		plain := record.Limits{BeforeMaxMs: math.MaxInt64, AfterMaxMs: math.MaxInt64, Codec: record.ProducerCodec}
		compacted, strict, recoded := plain, plain, plain
		compacted.RequireKeys, strict.Strict, recoded.Codec = true, true, record.Snappy
		others, err := m.open(t.Context(), 100*mib)
		if err != nil || m.inUse() != m.openedEnd {
			t.Fatalf("%v, %d bytes are charged, want %d", err, m.inUse(), m.openedEnd)
		}
		for _, c := range []struct {
			codec record.Codec
			l     record.Limits
			waits bool
		}{
			{record.None, plain, false}, {record.None, compacted, false}, {record.Gzip, plain, false},
			{record.Gzip, compacted, true}, {record.Gzip, strict, true}, {record.Gzip, recoded, true}, {record.None, recoded, true},
		} {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				_, err := m.validate(ctx, zeros(c.codec, 1000), c.l)
				done <- err
			}()
			synctest.Wait()
			if waits := len(done) == 0; waits != c.waits {
				t.Errorf("a batch of %v, %+v: waits %v", c.codec, c.l, waits)
			}
			cancel()
			if err := <-done; c.waits != errors.Is(err, context.Canceled) {
				t.Errorf("a batch of %v, %+v: %v", c.codec, c.l, err)
			}
		}
		done := make(chan error)
		go func() {
			_, err := m.validate(t.Context(), zeros(record.Gzip, 1000), strict)
			done <- err
		}()
		synctest.Wait()
		others()
		if err := <-done; err != nil || m.inUse() != 0 {
			t.Errorf("%v, %d bytes are still charged", err, m.inUse())
		}
	})
}

// TestABatchOpensToAShareOfTheMemory: how well a batch is compressed does not matter
// as long as it opens to less than its share of the account, and what opens to more
// is too large, whatever the account.
func TestABatchOpensToAShareOfTheMemory(t *testing.T) {
	l := record.Limits{BeforeMaxMs: math.MaxInt64, AfterMaxMs: math.MaxInt64, Codec: record.ProducerCodec, Strict: true}
	for _, total := range []int64{16 * mib, 64 * mib, 256 * mib} {
		m := newMemory(total)
		share := max(total/8, 4*mib)
		for codec := record.Gzip; codec <= record.Zstd; codec++ {
			if _, err := m.validate(t.Context(), zeros(codec, int(share)-100), l); err != nil {
				t.Errorf("%v that opens to %d MiB of %d: %v", codec, share/mib, total/mib, err)
			}
			if _, err := m.validate(t.Context(), zeros(codec, int(share)+100), l); !tooLarge(err) {
				t.Errorf("%v that opens to more than %d MiB of %d: %v", codec, share/mib, total/mib, err)
			}
		}
		if n := m.inUse(); n != 0 {
			t.Errorf("%d bytes are still charged", n)
		}
	}
	// Without an account there is a bound still.
	var none *Memory
	if _, err := none.validate(t.Context(), zeros(record.Zstd, maxDecodedProduce), l); !tooLarge(err) {
		t.Errorf("zstd that opens to 256 MiB: %v", err)
	}
}
