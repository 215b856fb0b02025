package s3

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/firnlog/firn/objectstore"
	drivers "github.com/firnlog/firn/objectstore/s3"
)

// cpu is what this process has used so far; the store is another process.
func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDriver compares the drivers where firn spends its requests: an object
// of a sealed segment going up, chunks coming down eight at a time, and the
// compare-and-set of a head. cpu-s/GiB is the client's alone.
//
//	go test -run '^$' -bench Driver -benchtime 8x ./integration/s3
func BenchmarkDriver(b *testing.B) {
	store := StartVersityGW(b)
	name := store.NewBucket(b)
	const size = 128 << 20
	body := make([]byte, size)
	r := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < len(body); i += 8 {
		v := r.Uint64()
		for j := range 8 {
			body[i+j] = byte(v >> (8 * j))
		}
	}
	const chunk, parallel = 4 << 20, 8
	bufs := make([][]byte, parallel)
	for i := range bufs {
		bufs[i] = make([]byte, chunk)
	}
	var etag string
	works := []struct {
		name  string
		bytes int64
		do    func(b *testing.B, bkt *drivers.Bucket, i int) error
	}{
		{"put-128MiB", size, func(b *testing.B, bkt *drivers.Bucket, i int) error {
			_, err := bkt.Put(b.Context(), fmt.Sprintf("k-%d", i%2), bytes.NewReader(body), size, objectstore.Cond{})
			return err
		}},
		{"get-range-4MiB-x8", chunk * parallel, func(b *testing.B, bkt *drivers.Bucket, i int) error {
			var wg sync.WaitGroup
			errs := make([]error, parallel)
			for w := range parallel {
				wg.Go(func() { errs[w] = bkt.GetRange(b.Context(), "k-0", bufs[w], int64((i*parallel+w)*chunk)%size) })
			}
			wg.Wait()
			return errors.Join(errs...)
		}},
		{"cas-64KiB", 64 << 10, func(b *testing.B, bkt *drivers.Bucket, i int) error {
			var err error
			etag, err = bkt.Put(b.Context(), "head", bytes.NewReader(body[i:i+64<<10]), 64<<10, objectstore.Cond{IfMatch: etag})
			return err
		}},
	}
	buckets := map[string]*drivers.Bucket{}
	order := []string{drivers.AWS, drivers.MinIO}
	for _, driver := range order {
		buckets[driver] = bucket(b, store.Config(name, driver, driver))
	}
	for _, work := range works {
		// Alternating rounds, so that a busy moment of the machine meets both.
		for round := range 5 {
			for _, driver := range order {
				etag = ""
				b.Run(fmt.Sprintf("%s/%s/%d", work.name, driver, round), func(b *testing.B) {
					measure(b, work.bytes, func(i int) error { return work.do(b, buckets[driver], i) })
				})
			}
			slices.Reverse(order)
		}
	}
}

func measure(b *testing.B, bytes int64, do func(i int) error) {
	b.Helper()
	if err := do(0); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(bytes)
	b.ReportAllocs()
	before := cpu()
	i := 1
	for b.Loop() {
		if err := do(i); err != nil {
			b.Fatal(err)
		}
		i++
	}
	b.ReportMetric((cpu()-before).Seconds()/(float64(bytes)*float64(b.N)/(1<<30)), "cpu-s/GiB")
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-us/op")
}
