package s3

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/minio/minio-go/v7"
	mcredentials "github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/firnlog/firn/objectstore"
)

// minioAPI speaks through minio-go.
type minioAPI struct {
	core     minio.Core
	bucket   string
	unsigned bool
}

func newMinIO(cfg Config, ac aws.Config, endpoint *url.URL, rt http.RoundTripper) (*minioAPI, error) {
	host, secure := "s3."+cfg.Region+".amazonaws.com", true
	if endpoint != nil {
		host, secure = endpoint.Host, endpoint.Scheme == "https"
		if endpoint.Path != "" && endpoint.Path != "/" {
			return nil, errors.New("driver minio cannot speak to an endpoint with a path; use driver=aws")
		}
	}
	lookup := minio.BucketLookupDNS
	if cfg.PathStyle {
		lookup = minio.BucketLookupPath
	}
	core, err := minio.NewCore(host, &minio.Options{
		Creds:        mcredentials.New(&borrowed{from: ac.Credentials}),
		Secure:       secure,
		Transport:    rt,
		Region:       cfg.Region,
		BucketLookup: lookup,
		MaxRetries:   1, // that is: one attempt
	})
	if err != nil {
		return nil, err
	}
	return &minioAPI{core: *core, bucket: cfg.Bucket, unsigned: !cfg.NoChecksum}, nil
}

// borrowed lends the credentials of AWS's chain, which caches and renews them,
// to minio-go.
type borrowed struct {
	from aws.CredentialsProvider
	mu   sync.Mutex
	last aws.Credentials
}

func (p *borrowed) RetrieveWithCredContext(*mcredentials.CredContext) (mcredentials.Value, error) {
	ctx, cancel := context.WithTimeout(context.Background(), credentialTime)
	defer cancel()
	c, err := p.from.Retrieve(ctx)
	if err != nil {
		return mcredentials.Value{}, err
	}
	p.mu.Lock()
	p.last = c
	p.mu.Unlock()
	return mcredentials.Value{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken, SignerType: mcredentials.SignatureV4}, nil
}

func (p *borrowed) Retrieve() (mcredentials.Value, error) { return p.RetrieveWithCredContext(nil) }

func (p *borrowed) IsExpired() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.last.HasKeys() || p.last.CanExpire && time.Now().After(p.last.Expires.Add(-time.Minute))
}

func (m *minioAPI) put(ctx context.Context, key string, body io.ReadSeeker, size int64, crc *uint32, c objectstore.Cond) error {
	// DisableContentSha256: without it a body over http is cut into signed
	// chunks of 64 KiB, at 49,000 allocations for 64 MiB.
	opts := minio.PutObjectOptions{DisableContentSha256: m.unsigned}
	if crc != nil {
		opts.UserMetadata = map[string]string{crcHeaderName: encodeCRC(*crc)}
	}
	if c.IfNoneMatch {
		opts.SetMatchETagExcept("*")
	}
	if c.IfMatch != "" {
		opts.SetMatchETag(c.IfMatch)
	}
	_, err := m.core.PutObject(ctx, m.bucket, key, body, size, "", "", opts)
	return err
}

func (m *minioAPI) get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	var opts minio.GetObjectOptions
	if n < 0 {
		opts.Set("X-Amz-Checksum-Mode", "ENABLED")
	} else if err := opts.SetRange(off, off+n-1); err != nil {
		return nil, err
	}
	body, _, _, err := m.core.GetObject(ctx, m.bucket, key, opts)
	return body, err
}

func (m *minioAPI) head(ctx context.Context, key string) error {
	_, err := m.core.StatObject(ctx, m.bucket, key, minio.StatObjectOptions{Checksum: true})
	return err
}

func (m *minioAPI) list(ctx context.Context, prefix string, page int32) iter.Seq2[objectstore.Info, error] {
	return func(yield func(objectstore.Info, error) bool) {
		for o := range m.core.ListObjectsIter(ctx, m.bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true, MaxKeys: int(page)}) {
			if o.Err != nil {
				yield(objectstore.Info{}, o.Err)
				return
			}
			if !yield(objectstore.Info{Key: o.Key, Size: o.Size, ETag: o.ETag, LastModified: o.LastModified}, nil) {
				return
			}
		}
	}
}

func (m *minioAPI) delete(ctx context.Context, keys []string) error {
	if err := ctx.Err(); err != nil {
		return err // the library would say nothing
	}
	objects := func(yield func(minio.ObjectInfo) bool) {
		for _, k := range keys {
			if !yield(minio.ObjectInfo{Key: k}) {
				return
			}
		}
	}
	results, err := m.core.RemoveObjectsWithIter(ctx, m.bucket, objects, minio.RemoveObjectsOptions{})
	if err != nil {
		return err
	}
	var errs []error
	done := map[string]bool{}
	for r := range results {
		done[r.ObjectName] = true
		if r.Err == nil {
			continue
		}
		e, ok := errors.AsType[minio.ErrorResponse](r.Err)
		if !ok || e.StatusCode != 0 {
			return r.Err // the request failed, and with it every key
		}
		errs = append(errs, perKey(r.ObjectName, e.Code, e.Message))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// The library swallows some refusals of single keys.
	if i := slices.IndexFunc(keys, func(k string) bool { return !done[k] }); i >= 0 {
		errs = append(errs, perKey(keys[i], "", "the store did not say that it is gone"))
	}
	return errors.Join(errs...)
}

func (m *minioAPI) headBucket(ctx context.Context) error {
	ok, err := m.core.BucketExists(ctx, m.bucket)
	if err == nil && !ok {
		return minio.ErrorResponse{Code: "NoSuchBucket", StatusCode: http.StatusNotFound, Message: "the bucket does not exist"}
	}
	return err
}

func (m *minioAPI) createBucket(ctx context.Context) error {
	return m.core.MakeBucket(ctx, m.bucket, minio.MakeBucketOptions{})
}

func (m *minioAPI) explain(err error) (code, message string) {
	if e, ok := errors.AsType[minio.ErrorResponse](err); ok {
		return e.Code, e.Message
	}
	return "", ""
}
