package tiering

import (
	"bytes"
	"context"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// within fails unless bytes at rate took as long as they should: no less, but for
// the quarter of a second that may go at once, and hardly more.
func within(t *testing.T, took time.Duration, bytes, rate int64) {
	t.Helper()
	want := time.Duration(float64(bytes) / float64(rate) * float64(time.Second))
	if took < want-250*time.Millisecond-time.Millisecond || took > want+10*time.Millisecond {
		t.Errorf("%d bytes at %d a second took %v, want %v and at most a quarter of a second less", bytes, rate, took, want)
	}
}

// TestUploadsKeepTheirRate: BytesPerSecond is kept and reached, and hours in which
// nothing was uploaded earn nothing.
func TestUploadsKeepTheirRate(t *testing.T) {
	const rate = 10_000
	in(t, func(t *testing.T, w *world) {
		w.tune = func(c *Config) { c.BytesPerSecond = rate }
		l := w.lead()
		var before int64
		for range 3 {
			w.fill(60)
			start := time.Now()
			l.settle()
			took, stored := time.Since(start), l.archive.Usage().Stored
			if stored-before < 3*rate {
				t.Fatalf("only %d bytes were uploaded", stored-before)
			}
			within(t, took, stored-before, rate)
			before = stored
			time.Sleep(10 * time.Hour)
		}
	})
}

// TestPartitionsShareTheRate: it is that of the broker, whatever is uploaded at once.
func TestPartitionsShareTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, rate := range []int64{1000, 1 << 20, 100 << 20} {
			const uploads, seconds = 4, 20
			p := newPacer(rate)
			start := time.Now()
			var wg sync.WaitGroup
			for range uploads {
				wg.Go(func() {
					r := &paced{body: blank{bytes.NewReader(make([]byte, seconds*rate/uploads))}, ctx: context.Background(), p: p, now: time.Now, moved: func() {}}
					if n, err := io.Copy(io.Discard, r); n != seconds*rate/uploads || err != nil {
						t.Errorf("%d bytes, %v", n, err)
					}
				})
			}
			wg.Wait()
			within(t, time.Since(start), seconds*rate, rate)
		}
	})
}

// blank is a body whose sum nobody asks for.
type blank struct{ *bytes.Reader }

func (blank) CRC32C() uint32 { return 0 }
