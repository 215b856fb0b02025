// Package s3 is the bucket in an S3-compatible store. Two drivers speak to it,
// aws-sdk-go-v2 and minio-go, and one Bucket stands in front of both, so that
// what an answer means for us is decided in one place.
//
// Three rules shape it:
//
//   - Nothing retries. Both libraries would by default send a PUT again after a
//     timeout, and the second attempt then meets the first: a landed commit
//     would come back as 412. Here one call is one request.
//   - What was sent decides what is known. Every request is watched at the
//     transport (exchange.go): before a connection was had nothing can have
//     happened; afterwards only a clear 4xx proves that.
//   - CRC-32C is the checksum. It is computed from the body before sending and
//     goes along as a plain header, so the store checks it and keeps it, and the
//     body is neither hashed with SHA-256 nor cut into signed chunks, also over
//     http. Config.NoChecksum is for stores that refuse the header.
//
// Read s3.go, exchange.go, errors.go, transport.go, then aws.go and minio.go.
package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/firnlog/firn/objectstore"
)

// The drivers.
const (
	AWS   = "aws"
	MinIO = "minio"
)

// DefaultDriver was chosen by measurement: docs/decisions/0003-s3-driver.md.
const DefaultDriver = AWS

// Config says where a bucket is and how to speak to it.
type Config struct {
	// Bucket is its name, Prefix the keys below which everything lies ("" for
	// the whole bucket; no slash at either end).
	Bucket, Prefix string
	// Endpoint is a URL such as http://127.0.0.1:9000; "" is Amazon S3.
	Endpoint string
	// Region defaults to that of the environment and shared configuration, then,
	// with an Endpoint, to us-east-1.
	Region string
	// PathStyle puts the bucket into the path instead of the host name, as most
	// stores other than Amazon's want.
	PathStyle bool
	// Driver is AWS or MinIO; "" is DefaultDriver.
	Driver string
	// NoChecksum sends no CRC-32C. Over http bodies are then signed with SHA-256,
	// which costs about a CPU second per GiB.
	NoChecksum bool
	// AccessKey, SecretKey and SessionToken; when empty, the usual chain of AWS
	// finds credentials: environment, shared files, web identity, instance role.
	AccessKey, SecretKey, SessionToken string
	// Stall bounds how long a connection may move no byte; 0 means a minute.
	Stall time.Duration
	// ListPage is how many keys a page of List asks for; 0 means the store's
	// default (1,000).
	ListPage int32
}

// api is what a driver library does for Bucket. Each call sends one request
// (list: one a page). get with n < 0 reads the whole object.
type api interface {
	put(ctx context.Context, key string, body io.ReadSeeker, size int64, crc *uint32, c objectstore.Cond) error
	get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error)
	head(ctx context.Context, key string) error
	list(ctx context.Context, prefix string, page int32) iter.Seq2[objectstore.Info, error]
	delete(ctx context.Context, keys []string) error
	headBucket(ctx context.Context) error
	createBucket(ctx context.Context) error
	// explain takes the store's code and message out of the library's error.
	explain(err error) (code, message string)
}

// Bucket implements objectstore.Bucket.
type Bucket struct {
	cfg       Config
	prefix    string // "" or ending in a slash
	api       api
	transport *http.Transport
}

var _ objectstore.Bucket = (*Bucket)(nil)

// credentialTime bounds the search for credentials, which ends at an address
// that answers only on Amazon's machines.
const credentialTime = 10 * time.Second

// Open prepares a Bucket. It finds credentials but sends nothing to the store;
// Check does.
func Open(ctx context.Context, cfg Config) (*Bucket, error) {
	if cfg.Bucket == "" {
		return nil, errors.New("no bucket is named: s3://BUCKET/PREFIX")
	}
	if cfg.Prefix != "" {
		if err := objectstore.CheckKey(cfg.Prefix); err != nil {
			return nil, fmt.Errorf("prefix: %w", err)
		}
	}
	if cfg.Driver == "" {
		cfg.Driver = DefaultDriver
	}
	if cfg.Stall == 0 {
		cfg.Stall = time.Minute
	}
	var endpoint *url.URL
	if cfg.Endpoint != "" {
		var err error
		endpoint, err = url.Parse(cfg.Endpoint)
		if err != nil || endpoint.Host == "" || endpoint.Scheme != "http" && endpoint.Scheme != "https" {
			return nil, fmt.Errorf("endpoint %q is not an http or https URL", cfg.Endpoint)
		}
	}
	load := []func(*config.LoadOptions) error{}
	if cfg.AccessKey != "" {
		load = append(load, config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(cfg.AccessKey, cfg.SecretKey, cfg.SessionToken)))
	}
	if cfg.Region != "" {
		load = append(load, config.WithRegion(cfg.Region))
	}
	ac, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("read the AWS configuration: %w", err)
	}
	if ac.Region == "" {
		if endpoint == nil {
			return nil, errors.New("no region: add region=... to the URL or set AWS_REGION")
		}
		ac.Region = "us-east-1"
	}
	cfg.Region = ac.Region
	found, cancel := context.WithTimeout(ctx, credentialTime)
	defer cancel()
	if _, err := ac.Credentials.Retrieve(found); err != nil {
		return nil, fmt.Errorf("%w: no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or an instance role", objectstore.ErrDenied)
	}
	transport, err := newTransport(cfg.Stall, os.Getenv("AWS_CA_BUNDLE"))
	if err != nil {
		return nil, err
	}
	b := &Bucket{cfg: cfg, transport: transport}
	if cfg.Prefix != "" {
		b.prefix = cfg.Prefix + "/"
	}
	switch cfg.Driver {
	case AWS:
		b.api = newAWS(cfg, ac, &watched{transport})
	case MinIO:
		b.api, err = newMinIO(cfg, ac, endpoint, &watched{transport})
	default:
		err = fmt.Errorf("no S3 driver %q: %s or %s", cfg.Driver, AWS, MinIO)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Check sends one small request that needs the endpoint, the credentials and the
// bucket to be right.
func (b *Bucket) Check(ctx context.Context) error {
	ctx, ex := watch(ctx)
	for _, err := range b.api.list(ctx, b.prefix, 1) {
		if err != nil {
			return b.failed("list", "", ex, err)
		}
		break
	}
	return nil
}

// Create makes the bucket itself, where the credentials allow it. firn never does
// so by itself; first steps and tests do.
func (b *Bucket) Create(ctx context.Context) error {
	ctx, ex := watch(ctx)
	if err := b.api.createBucket(ctx); err != nil {
		return b.failed("create bucket", b.cfg.Bucket, ex, err)
	}
	return nil
}

// Name is BUCKET or BUCKET/PREFIX.
func (b *Bucket) Name() string {
	return strings.TrimSuffix(b.cfg.Bucket+"/"+b.prefix, "/")
}

// Close closes idle connections; those in use go when their calls end.
func (b *Bucket) Close() error {
	b.transport.CloseIdleConnections()
	return nil
}

// shielded keeps a library from closing the caller's body, and from finding out
// that it is a file.
type shielded struct{ io.ReadSeeker }

// Put is Bucket's.
func (b *Bucket) Put(ctx context.Context, key string, body io.ReadSeeker, size int64, c objectstore.Cond) (string, error) {
	if err := objectstore.CheckKey(key); err != nil {
		return "", err
	}
	if c.IfNoneMatch && c.IfMatch != "" {
		return "", errors.New("IfNoneMatch and IfMatch exclude each other")
	}
	if err := objectstore.CheckBody(body, size); err != nil {
		return "", fmt.Errorf("put %s: %w", key, err)
	}
	var crc *uint32
	if !b.cfg.NoChecksum {
		sum, err := objectstore.Sum(ctx, body)
		if err != nil {
			return "", fmt.Errorf("put %s: checksum of the body: %w", key, err)
		}
		crc = &sum
	}
	ctx, ex := watch(ctx)
	err := b.api.put(ctx, b.prefix+key, shielded{body}, size, crc, c)
	if err != nil {
		return "", b.failedPut(key, ex, err, c)
	}
	etag := unquote(ex.header().Get("ETag"))
	if etag == "" {
		return "", &Error{Op: "put", Key: key, Status: ex.status(), Message: "the answer has no ETag", Kind: objectstore.ErrInDoubt}
	}
	return etag, nil
}

// Get is Bucket's.
func (b *Bucket) Get(ctx context.Context, key string) ([]byte, string, error) {
	if err := objectstore.CheckKey(key); err != nil {
		return nil, "", err
	}
	ctx, ex := watch(ctx)
	body, err := b.api.get(ctx, b.prefix+key, 0, -1)
	if err != nil {
		return nil, "", b.failed("get", key, ex, err)
	}
	defer body.Close()
	size := int64(-1)
	if s := ex.header().Get("Content-Length"); s != "" {
		if size, err = strconv.ParseInt(s, 10, 64); err != nil || size < 0 {
			return nil, "", fmt.Errorf("get %s: the store announces a length of %q", key, s)
		}
	}
	if size > objectstore.MaxGet {
		return nil, "", fmt.Errorf("get %s: %d bytes: %w", key, size, objectstore.ErrTooLarge)
	}
	var data []byte
	if size >= 0 {
		data = make([]byte, size)
		err = readExactly(body, data)
	} else if data, err = io.ReadAll(io.LimitReader(body, objectstore.MaxGet+1)); err == nil && len(data) > objectstore.MaxGet {
		err = objectstore.ErrTooLarge
	}
	if err != nil {
		return nil, "", b.failed("get", key, ex, err)
	}
	if want, ok := crcHeader(ex.header()); ok && want != crcOf(data) {
		return nil, "", fmt.Errorf("get %s: %w: CRC-32C is %08x, the store says %08x", key, objectstore.ErrCorrupt, crcOf(data), want)
	}
	return data, unquote(ex.header().Get("ETag")), nil
}

// GetRange is Bucket's.
func (b *Bucket) GetRange(ctx context.Context, key string, p []byte, off int64) error {
	if err := objectstore.CheckKey(key); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(p) == 0 {
		return nil
	}
	if off < 0 || off > math.MaxInt64-int64(len(p)) {
		return fmt.Errorf("get %s: %d bytes at %d: %w", key, len(p), off, objectstore.ErrRange)
	}
	ctx, ex := watch(ctx)
	body, err := b.api.get(ctx, b.prefix+key, off, int64(len(p)))
	if err != nil {
		return b.failed("get range of", key, ex, err)
	}
	defer body.Close()
	if err := checkRange(ex, off, int64(len(p))); err != nil {
		return fmt.Errorf("get %s: %w", key, err)
	}
	if err := readExactly(body, p); err != nil {
		return b.failed("get range of", key, ex, err)
	}
	return nil
}

// checkRange compares what the store announced with what was asked: a body is
// read only when it will be exactly the range.
func checkRange(ex *exchange, off, n int64) error {
	h := ex.header()
	length := int64(-1)
	if s := h.Get("Content-Length"); s != "" {
		length, _ = strconv.ParseInt(s, 10, 64)
	}
	if ex.status() == http.StatusOK {
		// A store that ignores Range sends the whole object.
		if off == 0 && length == n {
			return nil
		}
		if length >= 0 && length < off+n {
			return fmt.Errorf("%d bytes at %d of %d: %w", n, off, length, objectstore.ErrRange)
		}
		return errors.New("the store ignores the range that was asked for")
	}
	var first, last, total int64
	if _, err := fmt.Sscanf(h.Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &total); err != nil {
		return fmt.Errorf("the store answers with status %d and the range %q", ex.status(), h.Get("Content-Range"))
	}
	if first != off {
		return fmt.Errorf("the store answers from byte %d, not %d", first, off)
	}
	if last < off+n-1 && last == total-1 {
		return fmt.Errorf("%d bytes at %d of %d: %w", n, off, total, objectstore.ErrRange)
	}
	if last != off+n-1 || length >= 0 && length != n {
		return fmt.Errorf("the store answers with bytes %d to %d in a body of %d, not with %d", first, last, length, n)
	}
	return nil
}

// readExactly fills p and makes sure that the body ends there, which also lets
// the connection be used again.
func readExactly(body io.Reader, p []byte) error {
	if _, err := io.ReadFull(body, p); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	var one [1]byte
	n, err := io.ReadFull(body, one[:])
	if n > 0 {
		return fmt.Errorf("the body is longer than the %d bytes asked for: %w", len(p), objectstore.ErrCorrupt)
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// Head is Bucket's.
func (b *Bucket) Head(ctx context.Context, key string) (objectstore.Info, error) {
	if err := objectstore.CheckKey(key); err != nil {
		return objectstore.Info{}, err
	}
	hctx, ex := watch(ctx)
	if err := b.api.head(hctx, b.prefix+key); err != nil {
		err = b.failed("head", key, ex, err)
		if errors.Is(err, objectstore.ErrNotFound) {
			// The answer to HEAD has no body to say what is missing.
			bctx, bex := watch(ctx)
			if berr := b.api.headBucket(bctx); berr != nil && bex.status() == http.StatusNotFound {
				return objectstore.Info{}, &Error{Op: "head", Key: key, Status: 404, Message: "the bucket " + b.cfg.Bucket + " does not exist", Kind: objectstore.ErrNoBucket}
			}
		}
		return objectstore.Info{}, err
	}
	h := ex.header()
	info := objectstore.Info{Key: key, ETag: unquote(h.Get("ETag"))}
	var err error
	if info.Size, err = strconv.ParseInt(h.Get("Content-Length"), 10, 64); err != nil || info.Size < 0 {
		return objectstore.Info{}, fmt.Errorf("head %s: the store announces a length of %q", key, h.Get("Content-Length"))
	}
	if info.LastModified, err = http.ParseTime(h.Get("Last-Modified")); err != nil {
		return objectstore.Info{}, fmt.Errorf("head %s: Last-Modified: %w", key, err)
	}
	if sum, ok := crcHeader(h); ok {
		info.CRC32C = &sum
	}
	return info, nil
}

// List is Bucket's.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[objectstore.Info, error] {
	return func(yield func(objectstore.Info, error) bool) {
		ctx, ex := watch(ctx)
		for info, err := range b.api.list(ctx, b.prefix+prefix, b.cfg.ListPage) {
			if err != nil {
				yield(objectstore.Info{}, b.failed("list", prefix, ex, err))
				return
			}
			key, ok := strings.CutPrefix(info.Key, b.prefix)
			if !ok {
				yield(objectstore.Info{}, fmt.Errorf("list %s: the store answers with the key %q", prefix, info.Key))
				return
			}
			info.Key, info.ETag = key, unquote(info.ETag)
			if !yield(info, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(objectstore.Info{}, err)
		}
	}
}

// Delete is Bucket's.
func (b *Bucket) Delete(ctx context.Context, keys []string) error {
	var errs []error
	full := make([]string, 0, len(keys))
	for _, key := range keys {
		if err := objectstore.CheckKey(key); err != nil {
			errs = append(errs, err)
			continue
		}
		full = append(full, b.prefix+key)
	}
	for len(full) > 0 {
		n := min(len(full), objectstore.MaxDelete)
		dctx, ex := watch(ctx)
		if err := b.api.delete(dctx, full[:n]); err != nil {
			errs = append(errs, b.failed("delete", "", ex, err))
		}
		full = full[n:]
	}
	return errors.Join(errs...)
}

// Date is the Date header of an answer, whatever the answer.
func (b *Bucket) Date(ctx context.Context) (time.Time, error) {
	ctx, ex := watch(ctx)
	err := b.api.headBucket(ctx)
	if d, derr := http.ParseTime(ex.header().Get("Date")); derr == nil {
		return d, nil
	}
	if err == nil {
		err = errors.New("the answer has no Date")
	}
	return time.Time{}, b.failed("date", "", ex, err)
}
