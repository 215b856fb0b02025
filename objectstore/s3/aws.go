package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/firnlog/firn/objectstore"
)

// awsAPI speaks through aws-sdk-go-v2.
type awsAPI struct {
	client   *awss3.Client
	bucket   *string
	unsigned bool // bodies are guarded by their CRC-32C (or TLS), not by SHA-256
}

func newAWS(cfg Config, ac aws.Config, rt http.RoundTripper) *awsAPI {
	client := awss3.NewFromConfig(ac, func(o *awss3.Options) {
		o.HTTPClient = &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		o.Retryer = aws.NopRetryer{}
		o.UsePathStyle = cfg.PathStyle
		// The SDK's own checksums come as aws-chunked trailers, which many other
		// stores refuse; ours are plain headers.
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		o.DisableLogOutputChecksumValidationSkipped = true
		if cfg.Endpoint != "" {
			o.BaseEndpoint = aws.String(cfg.Endpoint)
		}
	})
	return &awsAPI{client: client, bucket: aws.String(cfg.Bucket), unsigned: !cfg.NoChecksum}
}

func unsignedPayload(o *awss3.Options) {
	o.APIOptions = append(o.APIOptions, v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware)
}

func (a *awsAPI) put(ctx context.Context, key string, body io.ReadSeeker, size int64, crc *uint32, c objectstore.Cond) error {
	in := &awss3.PutObjectInput{Bucket: a.bucket, Key: &key, Body: body, ContentLength: &size}
	if crc != nil {
		in.ChecksumCRC32C = aws.String(encodeCRC(*crc))
	}
	if c.IfNoneMatch {
		in.IfNoneMatch = aws.String("*")
	}
	if c.IfMatch != "" {
		in.IfMatch = aws.String(quote(c.IfMatch))
	}
	var opts []func(*awss3.Options)
	if a.unsigned {
		opts = append(opts, unsignedPayload)
	}
	_, err := a.client.PutObject(ctx, in, opts...)
	return err
}

func (a *awsAPI) get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	in := &awss3.GetObjectInput{Bucket: a.bucket, Key: &key}
	if n < 0 {
		in.ChecksumMode = types.ChecksumModeEnabled
	} else {
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	}
	out, err := a.client.GetObject(ctx, in)
	if err != nil {
		return nil, err
	}
	return out.Body, nil
}

func (a *awsAPI) head(ctx context.Context, key string) error {
	_, err := a.client.HeadObject(ctx, &awss3.HeadObjectInput{Bucket: a.bucket, Key: &key, ChecksumMode: types.ChecksumModeEnabled})
	return err
}

func (a *awsAPI) list(ctx context.Context, prefix string, page int32) iter.Seq2[objectstore.Info, error] {
	return func(yield func(objectstore.Info, error) bool) {
		in := &awss3.ListObjectsV2Input{Bucket: a.bucket, Prefix: &prefix}
		if page > 0 {
			in.MaxKeys = &page
		}
		pages := awss3.NewListObjectsV2Paginator(a.client, in, func(o *awss3.ListObjectsV2PaginatorOptions) { o.StopOnDuplicateToken = true })
		for pages.HasMorePages() {
			out, err := pages.NextPage(ctx)
			if err != nil {
				yield(objectstore.Info{}, err)
				return
			}
			for _, o := range out.Contents {
				info := objectstore.Info{Key: aws.ToString(o.Key), Size: aws.ToInt64(o.Size), ETag: aws.ToString(o.ETag), LastModified: aws.ToTime(o.LastModified)}
				if !yield(info, nil) {
					return
				}
			}
		}
	}
}

func (a *awsAPI) delete(ctx context.Context, keys []string) error {
	ids := make([]types.ObjectIdentifier, len(keys))
	for i := range keys {
		ids[i].Key = &keys[i]
	}
	out, err := a.client.DeleteObjects(ctx, &awss3.DeleteObjectsInput{Bucket: a.bucket, Delete: &types.Delete{Objects: ids, Quiet: aws.Bool(true)}})
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range out.Errors {
		errs = append(errs, perKey(aws.ToString(e.Key), aws.ToString(e.Code), aws.ToString(e.Message)))
	}
	return errors.Join(errs...)
}

// perKey is the fate of one key of a bulk delete.
func perKey(key, code, message string) error {
	e := &Error{Op: "delete", Key: key, Code: code, Message: message}
	if code == "AccessDenied" {
		e.Kind = objectstore.ErrDenied
	}
	return e
}

func (a *awsAPI) headBucket(ctx context.Context) error {
	_, err := a.client.HeadBucket(ctx, &awss3.HeadBucketInput{Bucket: a.bucket})
	return err
}

func (a *awsAPI) createBucket(ctx context.Context) error {
	in := &awss3.CreateBucketInput{Bucket: a.bucket}
	// us-east-1 is the one region that must not be named.
	if r := a.client.Options().Region; r != "us-east-1" {
		in.CreateBucketConfiguration = &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(r)}
	}
	_, err := a.client.CreateBucket(ctx, in)
	return err
}

func (a *awsAPI) explain(err error) (code, message string) {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode(), e.ErrorMessage()
	}
	return "", ""
}
