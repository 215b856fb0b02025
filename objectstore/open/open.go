// Package open makes a bucket from a URL, as `--bucket` takes it:
//
//	file:///var/lib/firn/bucket      a folder, absolute
//	file://data/bucket               a folder, relative to where firn started
//	s3://BUCKET/PREFIX?endpoint=http://127.0.0.1:9000&region=us-east-1&path-style=true&driver=aws
//
// Credentials never stand in the URL: the AWS_* variables, the shared files or an
// instance role have them. AWS_ENDPOINT_URL_S3 and AWS_ENDPOINT_URL name the
// endpoint when the URL does not. Every error is one line that says what is wrong
// and what to do next.
package open

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/objectstore/file"
	"github.com/firnlog/firn/objectstore/s3"
)

// Options are what a URL does not say.
type Options struct {
	// SkipProbe leaves out the check for conditional writes, which writes a few
	// small objects and deletes them. For readers that never write.
	SkipProbe bool
	// SkipCheck leaves out the question whether an S3 bucket answers; Check asks it.
	SkipCheck bool
	// Existing refuses a folder that is no bucket yet instead of making it one.
	Existing bool
	// Getenv is the environment; nil means os.Getenv.
	Getenv func(string) string
	// CheckTime bounds the checks; 0 means 30 s.
	CheckTime time.Duration
}

// parameters are those of an s3 URL.
var parameters = []string{"endpoint", "region", "path-style", "driver", "checksum"}

// Open returns the bucket at rawURL after it answered, with the credentials at
// hand, and proved that it keeps conditional writes (objectstore.Probe). Nothing
// stays written. errors.Is finds the sentinels of objectstore.
func Open(ctx context.Context, rawURL string, o Options) (objectstore.Bucket, error) {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.CheckTime == 0 {
		o.CheckTime = 30 * time.Second
	}
	scheme, rest, ok := strings.Cut(rawURL, "://")
	if !ok {
		return nil, fmt.Errorf("bucket %q: not a URL; use file:///PATH or s3://BUCKET/PREFIX", rawURL)
	}
	var b objectstore.Bucket
	var err error
	switch scheme {
	case "file":
		b, err = openFile(rest, o)
	case "s3":
		b, err = openS3(ctx, rest, o)
	default:
		err = fmt.Errorf("unknown scheme %q; use file:///PATH or s3://BUCKET/PREFIX", scheme)
	}
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", rawURL, oneLine{err})
	}
	if !o.SkipProbe {
		if err := Probe(ctx, rawURL, b, o); err != nil {
			b.Close()
			return nil, err
		}
	}
	return b, nil
}

// Probe is the check that Options.SkipProbe left out, for those who first look
// whether the bucket is theirs to write to.
func Probe(ctx context.Context, rawURL string, b objectstore.Bucket, o Options) error {
	if o.CheckTime == 0 {
		o.CheckTime = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, o.CheckTime)
	defer cancel()
	if err := objectstore.Probe(ctx, b, ""); err != nil {
		return Explain(rawURL, err)
	}
	return nil
}

// Explain makes one line of an error that the bucket at rawURL gave, with the
// bucket's name and what to do next.
func Explain(rawURL string, err error) error {
	if strings.HasPrefix(rawURL, "file:") {
		err = adviseFile(err)
	} else {
		err = advise(err)
	}
	return fmt.Errorf("bucket %s: %w", rawURL, oneLine{err})
}

// oneLine is an error printed without its line breaks.
type oneLine struct{ error }

func (e oneLine) Error() string { return strings.Join(strings.Fields(e.error.Error()), " ") }
func (e oneLine) Unwrap() error { return e.error }

func openFile(rest string, o Options) (objectstore.Bucket, error) {
	path, query, _ := strings.Cut(rest, "?")
	if query != "" {
		return nil, fmt.Errorf("a file bucket takes no parameters, but %q is there", query)
	}
	path, err := url.PathUnescape(path)
	if err != nil {
		return nil, err
	}
	if path == "" {
		return nil, errors.New("no path; use file:///PATH")
	}
	b, err := file.Open(file.Config{Root: path, Existing: o.Existing})
	if o.Existing && errors.Is(err, objectstore.ErrNoBucket) {
		return nil, fmt.Errorf("%w; mount it, or name the folder that is one", err)
	}
	if err != nil {
		return nil, adviseFile(err)
	}
	return b, nil
}

func adviseFile(err error) error {
	switch {
	case errors.Is(err, objectstore.ErrNoBucket):
		return fmt.Errorf("%w; create it first", err)
	case errors.Is(err, objectstore.ErrDenied):
		return fmt.Errorf("%w; check the folder's owner and mode", err)
	case errors.Is(err, objectstore.ErrNoConditional):
		return fmt.Errorf("%w; use a local file system, or a store that has conditional writes", err)
	}
	return err
}

func openS3(ctx context.Context, rest string, o Options) (objectstore.Bucket, error) {
	cfg, err := parseS3(rest, o.Getenv)
	if err != nil {
		return nil, err
	}
	b, err := s3.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if o.SkipCheck {
		return b, nil
	}
	cctx, cancel := context.WithTimeout(ctx, o.CheckTime)
	defer cancel()
	if err := b.Check(cctx); err != nil {
		b.Close()
		return nil, advise(err)
	}
	return b, nil
}

// Check is the question that Options.SkipCheck left out: whether the bucket answers
// with the credentials at hand.
func Check(ctx context.Context, rawURL string, b objectstore.Bucket) error {
	c, ok := b.(interface{ Check(context.Context) error })
	if !ok {
		return nil // a folder was there when it was opened
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := c.Check(ctx); err != nil {
		return Explain(rawURL, err)
	}
	return nil
}

// parseS3 reads BUCKET/PREFIX?PARAMETERS.
func parseS3(rest string, getenv func(string) string) (s3.Config, error) {
	place, query, _ := strings.Cut(rest, "?")
	bucket, prefix, _ := strings.Cut(place, "/")
	if bucket == "" {
		return s3.Config{}, errors.New("no bucket is named; use s3://BUCKET/PREFIX")
	}
	if strings.ContainsAny(bucket, "@:") {
		return s3.Config{}, errors.New("the first part is the bucket's name alone; endpoints go to ?endpoint=, credentials to AWS_* variables")
	}
	cfg := s3.Config{Bucket: bucket, Prefix: strings.Trim(prefix, "/")}
	values, err := url.ParseQuery(query)
	if err != nil {
		return s3.Config{}, fmt.Errorf("parameters: %w", err)
	}
	var faults []error
	var names []string
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if !slices.Contains(parameters, name) {
			faults = append(faults, fmt.Errorf("unknown parameter %q; did you mean %q?", name, nearest(name, parameters)))
		} else if len(values[name]) > 1 {
			faults = append(faults, fmt.Errorf("parameter %q is there twice", name))
		}
	}
	cfg.Endpoint = firstOf(values.Get("endpoint"), getenv("AWS_ENDPOINT_URL_S3"), getenv("AWS_ENDPOINT_URL"))
	cfg.Region = values.Get("region")
	// Hardly any store but Amazon's has a host name per bucket.
	cfg.PathStyle = cfg.Endpoint != ""
	if v := values.Get("path-style"); v != "" {
		if cfg.PathStyle, err = strconv.ParseBool(v); err != nil {
			faults = append(faults, fmt.Errorf("path-style=%s is neither true nor false", v))
		}
	}
	switch cfg.Driver = values.Get("driver"); cfg.Driver {
	case "", s3.AWS, s3.MinIO:
	default:
		faults = append(faults, fmt.Errorf("unknown driver %q; did you mean %q?", cfg.Driver, nearest(cfg.Driver, []string{s3.AWS, s3.MinIO})))
	}
	switch v := values.Get("checksum"); v {
	case "", "crc32c":
	case "none":
		cfg.NoChecksum = true
	default:
		faults = append(faults, fmt.Errorf("checksum=%s is neither crc32c nor none", v))
	}
	return cfg, errors.Join(faults...)
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// advise adds the next step to an error of a store.
func advise(err error) error {
	next := ""
	switch {
	case errors.Is(err, objectstore.ErrNoConditional):
		next = "firn needs If-Match and If-None-Match on PUT; use a store that has them, such as Amazon S3, versitygw or MinIO"
	case errors.Is(err, objectstore.ErrDenied):
		next = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy"
	case errors.Is(err, objectstore.ErrNoBucket):
		next = "create it first"
	case errors.Is(err, objectstore.ErrUnreachable):
		next = "check endpoint= and that the store runs"
	default:
		next = "check endpoint= and region=, and that the store is well"
	}
	return fmt.Errorf("%w; %s", err, next)
}

// nearest is the candidate with the least edit distance.
func nearest(word string, candidates []string) string {
	return slices.MinFunc(candidates, func(a, b string) int { return distance(word, a) - distance(word, b) })
}

func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
