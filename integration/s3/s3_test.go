package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firnlog/firn/integration/s3/proxy"
	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/objectstore/contract"
	"github.com/firnlog/firn/objectstore/open"
	drivers "github.com/firnlog/firn/objectstore/s3"
)

func TestMain(m *testing.M) {
	Environment()
	os.Exit(m.Run())
}

// stores runs a test on every store we promise to work with.
func stores(t *testing.T, test func(t *testing.T, store Endpoint)) {
	t.Run("versitygw", func(t *testing.T) { test(t, StartVersityGW(t)) })
	t.Run("minio", func(t *testing.T) { test(t, StartMinIO(t)) })
}

func bucket(t testing.TB, cfg drivers.Config) *drivers.Bucket {
	t.Helper()
	b, err := drivers.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// TestContract is the whole suite on each driver with each store, over pages of
// a size that makes listings turn them.
func TestContract(t *testing.T) {
	stores(t, func(t *testing.T, store Endpoint) {
		name := store.NewBucket(t)
		for _, driver := range []string{drivers.AWS, drivers.MinIO} {
			t.Run(driver, func(t *testing.T) {
				contract.Run(t, func(t *testing.T) objectstore.Bucket {
					cfg := store.Config(name, "some/prefix", driver)
					cfg.ListPage = 100
					return bucket(t, cfg)
				})
			})
		}
	})
}

// TestDriversShareObjects: what one driver wrote the other continues, with the
// same ETags and the checksum that the store keeps.
func TestDriversShareObjects(t *testing.T) {
	stores(t, func(t *testing.T, store Endpoint) {
		name := store.NewBucket(t)
		a, m := bucket(t, store.Config(name, "p", drivers.AWS)), bucket(t, store.Config(name, "p", drivers.MinIO))
		body := bytes.Repeat([]byte("firn"), 3<<20)
		tag, err := a.Put(t.Context(), "k", bytes.NewReader(body), int64(len(body)), objectstore.Cond{IfNoneMatch: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range []*drivers.Bucket{a, m} {
			info, err := b.Head(t.Context(), "k")
			if err != nil || info.ETag != tag || info.Size != int64(len(body)) || info.CRC32C == nil {
				t.Errorf("head says %+v, %v; want ETag %s and a checksum", info, err, tag)
			}
		}
		next, err := m.Put(t.Context(), "k", strings.NewReader("v2"), 2, objectstore.Cond{IfMatch: tag})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Put(t.Context(), "k", strings.NewReader("v3"), 2, objectstore.Cond{IfMatch: next}); err != nil {
			t.Fatal(err)
		}
	})
}

// TestADamagedBodyIsRefusedByTheStore: the CRC-32C goes with the body, so what is
// damaged on the way is not stored.
func TestADamagedBodyIsRefusedByTheStore(t *testing.T) {
	stores(t, func(t *testing.T, store Endpoint) {
		name := store.NewBucket(t)
		for _, driver := range []string{drivers.AWS, drivers.MinIO} {
			b := bucket(t, store.Config(name, driver, driver))
			_, err := b.Put(t.Context(), "k", lying{bytes.NewReader(make([]byte, 1<<20))}, 1<<20, objectstore.Cond{IfNoneMatch: true})
			if !errors.Is(err, objectstore.ErrCorrupt) || errors.Is(err, objectstore.ErrInDoubt) {
				t.Errorf("%s: %v", driver, err)
			}
			if _, err := b.Head(t.Context(), "k"); !errors.Is(err, objectstore.ErrNotFound) {
				t.Errorf("%s: head after a refused put: %v", driver, err)
			}
		}
	})
}

// lying announces the checksum of other bytes.
type lying struct{ *bytes.Reader }

func (lying) CRC32C() uint32 { return 0xdeadbeef }

// TestOpenRefusesInOneLine asks real stores for what is not there.
func TestOpenRefusesInOneLine(t *testing.T) {
	stores(t, func(t *testing.T, store Endpoint) {
		good := store.NewBucket(t)
		for _, driver := range []string{drivers.AWS, drivers.MinIO} {
			for _, tt := range []struct {
				what, url, secret string
				is                error
			}{
				{"a missing bucket", store.URLOf("firn-absent", "p", driver), SecretKey, objectstore.ErrNoBucket},
				{"a wrong secret", store.URLOf(good, "p", driver), "wrong", objectstore.ErrDenied},
				{"nothing wrong", store.URLOf(good, "p", driver), SecretKey, nil},
			} {
				t.Setenv("AWS_ACCESS_KEY_ID", AccessKey)
				t.Setenv("AWS_SECRET_ACCESS_KEY", tt.secret)
				b, err := open.Open(t.Context(), tt.url, open.Options{})
				if !errors.Is(err, tt.is) || err != nil && strings.Contains(err.Error(), "\n") {
					t.Errorf("%s, %s: %v, want %v", driver, tt.what, err, tt.is)
				}
				if err != nil {
					t.Log(err)
					continue
				}
				for info := range b.List(t.Context(), "") {
					t.Errorf("%s: opening left %s", driver, info.Key)
				}
				b.Close()
			}
		}
	})
}

// TestNoConditionalPutIsNoticed drops the conditions, as old stores do.
func TestNoConditionalPutIsNoticed(t *testing.T) {
	store := StartVersityGW(t)
	name := store.NewBucket(t)
	for _, driver := range []string{drivers.AWS, drivers.MinIO} {
		b := bucket(t, store.Config(name, driver, driver))
		if err := objectstore.Probe(t.Context(), unconditional{b}, "p"); !errors.Is(err, objectstore.ErrNoConditional) {
			t.Errorf("%s: %v", driver, err)
		}
	}
}

// unconditional forgets the conditions before they are signed and sent.
type unconditional struct{ objectstore.Bucket }

func (u unconditional) Put(ctx context.Context, key string, body io.ReadSeeker, size int64, _ objectstore.Cond) (string, error) {
	return u.Bucket.Put(ctx, key, body, size, objectstore.Cond{})
}

// TestALostAnswerIsInDoubtAndSentOnce: the store has the object, the client an
// error that says it does not know, and there was exactly one request. A retry
// inside a library would have turned the success into a refusal.
func TestALostAnswerIsInDoubtAndSentOnce(t *testing.T) {
	stores(t, func(t *testing.T, store Endpoint) {
		name := store.NewBucket(t)
		for _, driver := range []string{drivers.AWS, drivers.MinIO} {
			p := proxy.Start(t, store.URL)
			b := bucket(t, store.Through(p.URL).Config(name, driver, driver))
			for i, action := range []proxy.Action{proxy.Lose, proxy.Drop, proxy.Refuse} {
				key := fmt.Sprint("k", i)
				p.Reset()
				p.Inject(proxy.Rule{Action: action, Method: http.MethodPut})
				_, err := b.Put(t.Context(), key, strings.NewReader("data"), 4, objectstore.Cond{IfNoneMatch: true})
				if !errors.Is(err, objectstore.ErrInDoubt) || errors.Is(err, objectstore.ErrPrecondition) {
					t.Errorf("%s, action %d: %v", driver, action, err)
				}
				want := int64(0)
				if action == proxy.Lose {
					want = 1
				}
				if n := p.Counts().Requests[http.MethodPut]; n != want {
					t.Errorf("%s, action %d: %d PUTs reached the store, want %d", driver, action, n, want)
				}
				_, _, err = b.Get(t.Context(), key)
				if landed := err == nil; landed != (action == proxy.Lose) {
					t.Errorf("%s, action %d: landed: %v, %v", driver, action, landed, err)
				}
			}
		}
	})
}

// TestACutBodyIsAnError: the connection ends inside a ranged body.
func TestACutBodyIsAnError(t *testing.T) {
	store := StartVersityGW(t)
	name := store.NewBucket(t)
	body := bytes.Repeat([]byte("0123456789"), 1<<18)
	for _, driver := range []string{drivers.AWS, drivers.MinIO} {
		p := proxy.Start(t, store.URL)
		b := bucket(t, store.Through(p.URL).Config(name, driver, driver))
		if _, err := b.Put(t.Context(), "k", bytes.NewReader(body), int64(len(body)), objectstore.Cond{}); err != nil {
			t.Fatal(err)
		}
		p.Reset()
		p.Inject(proxy.Rule{Action: proxy.Cut, Method: http.MethodGet, Bytes: 100_000})
		q := make([]byte, 1<<20)
		if err := b.GetRange(t.Context(), "k", q, 10); err == nil {
			t.Errorf("%s: a cut body is accepted", driver)
		}
		if err := b.GetRange(t.Context(), "k", q, 10); err != nil || !bytes.Equal(q, body[10:10+1<<20]) {
			t.Errorf("%s: afterwards: %v", driver, err)
		}
		if c := p.Counts(); c.Gets != 2 || c.GetBytes < 100_000+1<<20 || c.GetBytes > 110_000+1<<20 {
			t.Errorf("%s: the store side counted %+v", driver, c)
		}
	}
}

// TestAHungStoreEndsWithTheDeadline: connections are accepted, no byte comes.
func TestAHungStoreEndsWithTheDeadline(t *testing.T) {
	p := StartVersityGW(t)
	name := p.NewBucket(t)
	hung := proxy.Start(t, p.URL)
	for _, driver := range []string{drivers.AWS, drivers.MinIO} {
		b := bucket(t, p.Through(hung.URL).Config(name, driver, driver))
		if _, err := b.Put(t.Context(), "k", strings.NewReader("x"), 1, objectstore.Cond{}); err != nil {
			t.Fatal(err)
		}
		hung.Inject(proxy.Rule{Action: proxy.Hang, Times: -1})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				defer cancel()
				began := time.Now()
				_, err := b.Put(ctx, "k", strings.NewReader("y"), 1, objectstore.Cond{})
				if !errors.Is(err, objectstore.ErrInDoubt) || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s: put: %v", driver, err)
				}
				if err := b.GetRange(ctx, "k", make([]byte, 1), 0); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s: range: %v", driver, err)
				}
				if d := time.Since(began); d > 5*time.Second {
					t.Errorf("%s: gave up after %v", driver, d)
				}
			})
		}
		wg.Wait()
		hung.Heal()
	}
}
