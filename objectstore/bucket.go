// Package objectstore is what firn needs from object storage, and no more.
//
// A Bucket holds immutable objects and a few small mutable ones (heads). Two
// conditions on Put carry the safety of everything above: create only when
// absent, and replace only what I read. A store that cannot keep them under
// concurrency is no Bucket (Probe finds out).
//
// Nothing here retries. One call is one request, so that the caller, who knows
// what a repetition would mean, sees each unknown outcome as ErrInDoubt.
//
// Reading order: bucket.go (the contract), key.go, probe.go, then a driver:
// file (a folder of a local file system), s3 (aws-sdk-go-v2 and minio-go).
// metered.go counts requests for metrics and tests, faulty injects faults,
// contract is the suite each implementation passes, open makes one from a URL.
package objectstore

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// Errors that callers branch on. Drivers wrap them; use errors.Is. An error that
// is none of these means the request failed and had no effect, and may be tried
// again.
var (
	// ErrNotFound means there is no object of that key. Put answers it when
	// IfMatch names an object that does not exist any more: for a head that is
	// an alarm, never a reason to create one.
	ErrNotFound = errors.New("object not found")
	// ErrPrecondition means the store compared and refused: IfNoneMatch found an
	// object, or IfMatch found another ETag. This request changed nothing (an
	// earlier one of ours, whose answer was lost, may have).
	ErrPrecondition = errors.New("precondition failed")
	// ErrInDoubt means a Put may have taken effect, may not have, or may yet:
	// a timeout, a 5xx, a 409, a connection that broke after sending.
	ErrInDoubt = errors.New("outcome unknown")
	// ErrRange means a GetRange reached past the end of the object.
	ErrRange = errors.New("range past the end of the object")
	// ErrDenied means the credentials are wrong or do not allow the operation.
	ErrDenied = errors.New("access denied")
	// ErrNoBucket means the bucket itself does not exist. It never wraps
	// ErrNotFound: a missing bucket says nothing about its objects.
	ErrNoBucket = errors.New("bucket not found")
	// ErrNoConditional means the store ignores a condition or loses races.
	ErrNoConditional = errors.New("store lacks safe conditional writes")
	// ErrUnreachable means that no connection was made: nothing was sent.
	ErrUnreachable = errors.New("store unreachable")
	// ErrTooLarge means Get met an object above MaxGet.
	ErrTooLarge = errors.New("object too large to be read whole")
	// ErrCorrupt means the store refused a body, or delivered one, that does not
	// match its checksum or length. Nothing was written.
	ErrCorrupt = errors.New("body does not match its checksum")
)

// MaxGet is the size above which Get fails with ErrTooLarge: heads and their
// parts are read whole, data is read by range.
const MaxGet = 64 << 20

// MaxDelete is how many keys one request of Delete carries.
const MaxDelete = 1000

// Cond is the condition of a Put. The zero value has none: last writer wins,
// which only objects without meaning may use.
type Cond struct {
	// IfNoneMatch asks for creation: ErrPrecondition when the key exists.
	IfNoneMatch bool
	// IfMatch, when not empty, asks for replacement of exactly the object with
	// this ETag: ErrPrecondition when it has another, ErrNotFound when it is
	// gone. Not together with IfNoneMatch.
	IfMatch string
}

// Info describes an object.
type Info struct {
	Key  string
	Size int64
	// ETag is opaque, without quotes: equal means same bytes within the life of
	// the key, unequal means nothing. Never an MD5 to us.
	ETag string
	// LastModified is by the store's clock; S3 keeps whole seconds.
	LastModified time.Time
	// CRC32C (Castagnoli) of the whole object as the store recorded it, nil
	// where it keeps none. List never fills it.
	CRC32C *uint32
}

// Bucket is a bucket, or a prefix in one, or a folder. Keys are relative to it
// and obey CheckKey. All methods are safe for concurrent use, honour ctx, and
// never retry. A ctx without a deadline waits as long as bytes move and a
// bounded time (about a minute on S3) when they do not.
type Bucket interface {
	// Put writes body, which is exactly size bytes from its start (its position
	// does not matter and is undefined afterwards; body is the caller's again
	// when Put returns, and is never closed). It is atomic: readers see the old
	// object or the new, and after a nil error the object survives whatever the
	// store survives. On success etag is the new object's. Of writers racing
	// with the same condition at most one gets nil.
	//
	// ErrPrecondition, ErrNotFound (with IfMatch), ErrDenied, ErrNoBucket,
	// ErrCorrupt, ErrUnreachable and any other error: no effect, now or later.
	// ErrInDoubt: unknown, and it may still land after Put returned; it wraps
	// the cause, context.DeadlineExceeded included.
	Put(ctx context.Context, key string, body io.ReadSeeker, size int64, c Cond) (etag string, err error)

	// Get returns a whole object with the ETag of exactly these bytes.
	// ErrNotFound, ErrTooLarge above MaxGet. A body cut short is an error.
	Get(ctx context.Context, key string) (data []byte, etag string, err error)

	// GetRange fills p with the len(p) bytes of key that start at byte off.
	// It never returns a short read: past the end of the object, or with a
	// negative off, it fails with ErrRange, and a missing object fails with
	// ErrNotFound. A body longer or shorter than asked is an error. An empty p
	// returns nil without asking the store. p is the caller's again when it
	// returns; after an error its content is undefined.
	GetRange(ctx context.Context, key string, p []byte, off int64) error

	// Head describes an object, or fails with ErrNotFound.
	Head(ctx context.Context, key string) (Info, error)

	// List yields the objects whose key starts with prefix (any string, not only
	// whole folders), in the byte order of their keys, with Key, Size, ETag and
	// LastModified. It reads page by page: an object present during the whole
	// walk is yielded, one written or deleted meanwhile may be. An error is
	// yielded once, last. Stopping early is fine.
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]

	// Delete removes objects, in requests of MaxDelete. A missing key is
	// success. The error joins one per key that failed; the others are gone.
	Delete(ctx context.Context, keys []string) error

	// Date is the store's clock now, with S3 to the second.
	Date(ctx context.Context) (time.Time, error)

	// Name is how DescribeLogDirs shows the place, after "remote://":
	// BUCKET or BUCKET/PREFIX, or a path.
	Name() string

	// Close frees connections. Calls under way may fail. Closing twice is fine.
	Close() error
}

// Summed is a body that already knows the CRC-32C of all its bytes; drivers that
// send or keep one then need no pass of their own.
type Summed interface {
	CRC32C() uint32
}
