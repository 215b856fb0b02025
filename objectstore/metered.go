package objectstore

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Op is an operation of a Bucket, as a metric label and an index of counters.
type Op int

// The operations of Bucket that reach a store.
const (
	OpPut Op = iota
	OpGet
	OpGetRange
	OpHead
	OpList
	OpDelete
	OpDate
	opCount
)

// Ops are all operations.
var Ops = []Op{OpPut, OpGet, OpGetRange, OpHead, OpList, OpDelete, OpDate}

func (o Op) String() string {
	return [...]string{"put", "get", "get_range", "head", "list", "delete", "date"}[o]
}

// Count is what one operation did so far. A List counts as one request though
// it may read several pages; bytes are bodies of objects, in either direction.
type Count struct {
	Requests, Errors, Bytes int64
}

// Metered counts and times what passes through a Bucket.
type Metered struct {
	bucket Bucket
	now    func() time.Time
	counts [opCount]struct{ requests, errors, bytes atomic.Int64 }

	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	bytes    *prometheus.CounterVec
}

// Meter wraps b. With a registerer it also keeps firn_s3_requests_total{op,code},
// firn_s3_request_duration_seconds{op} and firn_s3_bytes_total{dir}, under these
// names whatever the driver. now is the clock of the durations.
func Meter(b Bucket, now func() time.Time, reg prometheus.Registerer) *Metered {
	m := &Metered{bucket: b, now: now}
	if reg == nil {
		return m
	}
	m.requests = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "firn_s3_requests_total", Help: "Requests to the bucket by operation and outcome."}, []string{"op", "code"})
	m.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "firn_s3_request_duration_seconds", Help: "Time of requests to the bucket.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 16)}, []string{"op"})
	m.bytes = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "firn_s3_bytes_total", Help: "Bytes of objects to and from the bucket."}, []string{"dir"})
	reg.MustRegister(m.requests, m.seconds, m.bytes)
	return m
}

// Count returns the counters of one operation.
func (m *Metered) Count(o Op) Count {
	c := &m.counts[o]
	return Count{Requests: c.requests.Load(), Errors: c.errors.Load(), Bytes: c.bytes.Load()}
}

// BytesRead is the number of bytes of objects that came out of the bucket.
func (m *Metered) BytesRead() int64 { return m.Count(OpGet).Bytes + m.Count(OpGetRange).Bytes }

// BytesWritten is the number of bytes of objects whose Put succeeded.
func (m *Metered) BytesWritten() int64 { return m.Count(OpPut).Bytes }

func (m *Metered) done(o Op, start time.Time, bytes int64, err error) {
	c := &m.counts[o]
	c.requests.Add(1)
	if err != nil {
		c.errors.Add(1)
		bytes = 0
	}
	c.bytes.Add(bytes)
	if m.requests == nil {
		return
	}
	m.requests.WithLabelValues(o.String(), code(err)).Inc()
	m.seconds.WithLabelValues(o.String()).Observe(m.now().Sub(start).Seconds())
	switch {
	case bytes == 0:
	case o == OpPut:
		m.bytes.WithLabelValues("write").Add(float64(bytes))
	default:
		m.bytes.WithLabelValues("read").Add(float64(bytes))
	}
}

// code is the label of an outcome: few values, none from outside.
func code(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrInDoubt):
		return "in_doubt"
	case errors.Is(err, ErrPrecondition):
		return "precondition"
	case errors.Is(err, ErrNotFound):
		return "not_found"
	case errors.Is(err, ErrRange):
		return "range"
	case errors.Is(err, ErrDenied):
		return "denied"
	case errors.Is(err, ErrNoBucket):
		return "no_bucket"
	case errors.Is(err, ErrUnreachable):
		return "unreachable"
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	return "error"
}

// Put is Bucket's.
func (m *Metered) Put(ctx context.Context, key string, body io.ReadSeeker, size int64, c Cond) (string, error) {
	start := m.now()
	etag, err := m.bucket.Put(ctx, key, body, size, c)
	m.done(OpPut, start, size, err)
	return etag, err
}

// Get is Bucket's.
func (m *Metered) Get(ctx context.Context, key string) ([]byte, string, error) {
	start := m.now()
	data, etag, err := m.bucket.Get(ctx, key)
	m.done(OpGet, start, int64(len(data)), err)
	return data, etag, err
}

// GetRange is Bucket's.
func (m *Metered) GetRange(ctx context.Context, key string, p []byte, off int64) error {
	start := m.now()
	err := m.bucket.GetRange(ctx, key, p, off)
	m.done(OpGetRange, start, int64(len(p)), err)
	return err
}

// Head is Bucket's.
func (m *Metered) Head(ctx context.Context, key string) (Info, error) {
	start := m.now()
	info, err := m.bucket.Head(ctx, key)
	m.done(OpHead, start, 0, err)
	return info, err
}

// List is Bucket's.
func (m *Metered) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		start := m.now()
		var failed error
		defer func() { m.done(OpList, start, 0, failed) }()
		for info, err := range m.bucket.List(ctx, prefix) {
			failed = err
			if !yield(info, err) {
				return
			}
		}
	}
}

// Delete is Bucket's.
func (m *Metered) Delete(ctx context.Context, keys []string) error {
	start := m.now()
	err := m.bucket.Delete(ctx, keys)
	m.done(OpDelete, start, 0, err)
	return err
}

// Date is Bucket's.
func (m *Metered) Date(ctx context.Context) (time.Time, error) {
	start := m.now()
	d, err := m.bucket.Date(ctx)
	m.done(OpDate, start, 0, err)
	return d, err
}

// Name is Bucket's.
func (m *Metered) Name() string { return m.bucket.Name() }

// Close is Bucket's.
func (m *Metered) Close() error { return m.bucket.Close() }
