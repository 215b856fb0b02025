package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firnlog/firn/objectstore"
)

var drivers = []string{AWS, MinIO}

// both runs a test with each driver against a server that answers as h says, and
// counts the requests.
func both(t *testing.T, h http.HandlerFunc, test func(t *testing.T, b *Bucket, requests *atomic.Int64)) {
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			var requests atomic.Int64
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				h(w, r)
			}))
			defer srv.Close()
			defer srv.CloseClientConnections()
			b, err := Open(t.Context(), Config{Bucket: "bucket", Prefix: "p", Endpoint: srv.URL, PathStyle: true, Driver: driver, AccessKey: "a", SecretKey: "s", Stall: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			test(t, b, &requests)
		})
	}
}

func refuse(status int, code string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		if code != "" {
			fmt.Fprintf(w, "<?xml version=\"1.0\"?><Error><Code>%s</Code><Message>a message\nin two lines</Message></Error>", code)
		}
	}
}

var sentinels = []error{objectstore.ErrNotFound, objectstore.ErrPrecondition, objectstore.ErrInDoubt, objectstore.ErrRange, objectstore.ErrDenied,
	objectstore.ErrNoBucket, objectstore.ErrNoConditional, objectstore.ErrUnreachable, objectstore.ErrCorrupt}

// only fails unless err is want and no other sentinel (nil: none at all).
func only(t *testing.T, what string, err, want error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error, want %v", what, want)
		return
	}
	for _, s := range sentinels {
		if errors.Is(err, s) != (s == want) {
			t.Errorf("%s: %v: is %q: %v, want %v", what, err, s, errors.Is(err, s), want)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: more than one line: %q", what, err)
	}
}

// TestAnswersToPutMeanWhatTheyProve is SAFETY's rule on unknown outcomes at the
// wire: what is not a clear refusal is in doubt, and nothing is sent twice.
func TestAnswersToPutMeanWhatTheyProve(t *testing.T) {
	create, replace := objectstore.Cond{IfNoneMatch: true}, objectstore.Cond{IfMatch: "etag"}
	for _, tt := range []struct {
		status int
		code   string
		cond   objectstore.Cond
		want   error
	}{
		{412, "PreconditionFailed", create, objectstore.ErrPrecondition},
		{412, "PreconditionFailed", replace, objectstore.ErrPrecondition},
		{412, "", replace, objectstore.ErrPrecondition},
		{404, "NoSuchKey", replace, objectstore.ErrNotFound},
		{404, "NoSuchBucket", replace, objectstore.ErrNoBucket},
		{404, "NoSuchBucket", create, objectstore.ErrNoBucket},
		{404, "", create, nil},
		{409, "ConditionalRequestConflict", create, objectstore.ErrInDoubt},
		{409, "OperationAborted", replace, objectstore.ErrInDoubt},
		{409, "", create, objectstore.ErrInDoubt},
		{500, "InternalError", create, objectstore.ErrInDoubt},
		{502, "", create, objectstore.ErrInDoubt},
		{503, "SlowDown", replace, objectstore.ErrInDoubt},
		{504, "", objectstore.Cond{}, objectstore.ErrInDoubt},
		{408, "", create, objectstore.ErrInDoubt},
		{400, "RequestTimeout", create, objectstore.ErrInDoubt},
		{429, "TooManyRequests", create, objectstore.ErrInDoubt},
		{403, "AccessDenied", create, objectstore.ErrDenied},
		{403, "SignatureDoesNotMatch", create, objectstore.ErrDenied},
		{403, "", create, objectstore.ErrDenied},
		{400, "ExpiredToken", create, objectstore.ErrDenied},
		{400, "BadDigest", create, objectstore.ErrCorrupt},
		{400, "InvalidRequest", create, nil},
		{501, "NotImplemented", create, objectstore.ErrNoConditional},
		{307, "TemporaryRedirect", create, nil},
	} {
		t.Run(fmt.Sprintf("%d%s", tt.status, tt.code), func(t *testing.T) {
			both(t, refuse(tt.status, tt.code), func(t *testing.T, b *Bucket, requests *atomic.Int64) {
				_, err := b.Put(t.Context(), "k", strings.NewReader("hello"), 5, tt.cond)
				only(t, "put", err, tt.want)
				if n := requests.Load(); n != 1 {
					t.Errorf("%d requests, want one", n)
				}
			})
		})
	}
}

func TestAnswersToReads(t *testing.T) {
	for _, tt := range []struct {
		status int
		code   string
		want   error
	}{
		{404, "NoSuchKey", objectstore.ErrNotFound},
		{404, "NoSuchBucket", objectstore.ErrNoBucket},
		{403, "AccessDenied", objectstore.ErrDenied},
		{416, "InvalidRange", objectstore.ErrRange},
		{503, "SlowDown", nil},
		{500, "InternalError", nil},
	} {
		t.Run(fmt.Sprintf("%d%s", tt.status, tt.code), func(t *testing.T) {
			both(t, refuse(tt.status, tt.code), func(t *testing.T, b *Bucket, requests *atomic.Int64) {
				only(t, "range", b.GetRange(t.Context(), "k", make([]byte, 4), 0), tt.want)
				if n := requests.Load(); n != 1 {
					t.Errorf("%d requests, want one", n)
				}
				_, _, err := b.Get(t.Context(), "k")
				only(t, "get", err, tt.want)
			})
		})
	}
}

// TestBrokenPutsAreInDoubt: the connection breaks, or goes silent, after the
// store had the request.
func TestBrokenPutsAreInDoubt(t *testing.T) {
	reset := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		c, _, _ := w.(http.Hijacker).Hijack()
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	half := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		c, buf, _ := w.(http.Hijacker).Hijack()
		buf.WriteString("HTTP/1.1 20")
		buf.Flush()
		c.Close()
	}
	early := func(w http.ResponseWriter, r *http.Request) {
		c, _, _ := w.(http.Hijacker).Hijack()
		c.Close()
	}
	silent := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}
	bare := func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) } // 200 without an ETag
	for name, h := range map[string]http.HandlerFunc{"reset": reset, "half": half, "early": early, "silent": silent, "bare": bare} {
		t.Run(name, func(t *testing.T) {
			both(t, h, func(t *testing.T, b *Bucket, requests *atomic.Int64) {
				_, err := b.Put(t.Context(), "k", bytes.NewReader(make([]byte, 1<<20)), 1<<20, objectstore.Cond{IfNoneMatch: true})
				only(t, "put", err, objectstore.ErrInDoubt)
				if n := requests.Load(); n != 1 {
					t.Errorf("%d requests, want one", n)
				}
			})
		})
	}
	t.Run("deadline", func(t *testing.T) {
		both(t, silent, func(t *testing.T, b *Bucket, _ *atomic.Int64) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, err := b.Put(ctx, "k", strings.NewReader("x"), 1, objectstore.Cond{})
			only(t, "put", err, objectstore.ErrInDoubt)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v does not wrap the deadline", err)
			}
		})
	})
}

func TestNothingSentIsNotInDoubt(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	for _, driver := range drivers {
		b, err := Open(t.Context(), Config{Bucket: "bucket", Endpoint: "http://" + addr, PathStyle: true, Driver: driver, AccessKey: "a", SecretKey: "s"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.Put(t.Context(), "k", strings.NewReader("x"), 1, objectstore.Cond{IfNoneMatch: true})
		only(t, driver+" put", err, objectstore.ErrUnreachable)
		only(t, driver+" range", b.GetRange(t.Context(), "k", make([]byte, 1), 0), objectstore.ErrUnreachable)
	}
}

// TestBodiesAreTheRangeOrAnError lets the store lie about ranges in every way.
func TestBodiesAreTheRangeOrAnError(t *testing.T) {
	object := []byte("0123456789abcdef")
	answer := func(status int, contentRange string, length int, body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			c, buf, _ := w.(http.Hijacker).Hijack()
			defer c.Close()
			fmt.Fprintf(buf, "HTTP/1.1 %d X\r\nETag: \"e\"\r\nLast-Modified: Mon, 02 Jan 2006 15:04:05 GMT\r\nConnection: close\r\n", status)
			if contentRange != "" {
				fmt.Fprintf(buf, "Content-Range: %s\r\n", contentRange)
			}
			if length >= 0 {
				fmt.Fprintf(buf, "Content-Length: %d\r\n", length)
			}
			buf.WriteString("\r\n")
			buf.Write(body)
			buf.Flush()
		}
	}
	for _, tt := range []struct {
		name string
		h    http.HandlerFunc
		want error // any error when nil
	}{
		{"cut short", answer(206, "bytes 4-11/16", 8, object[4:9]), nil},
		{"shorter than asked, at the end", answer(206, "bytes 4-9/10", 6, object[4:10]), objectstore.ErrRange},
		{"shorter than asked, in the middle", answer(206, "bytes 4-9/16", 6, object[4:10]), nil},
		{"longer than asked", answer(206, "bytes 4-12/16", 9, object[4:13]), nil},
		{"longer than announced range", answer(206, "bytes 4-11/16", 10, object[4:14]), nil},
		{"longer without a length", answer(206, "bytes 4-11/16", -1, object[4:14]), objectstore.ErrCorrupt},
		{"another range", answer(206, "bytes 0-7/16", 8, object[:8]), nil},
		{"the whole object", answer(200, "", 16, object), nil},
		{"the whole object, too short", answer(200, "", 10, object[:10]), objectstore.ErrRange},
		{"no range at all", answer(206, "", 8, object[4:12]), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			both(t, tt.h, func(t *testing.T, b *Bucket, _ *atomic.Int64) {
				only(t, "range", b.GetRange(t.Context(), "k", make([]byte, 8), 4), tt.want)
			})
		})
	}
	for _, tt := range []struct {
		name string
		h    http.HandlerFunc
	}{
		{"cut short", answer(200, "", 16, object[:9])},
		{"reset in the body", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "16")
			w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
			w.Write(object[:9])
			w.(http.Flusher).Flush()
			c, _, _ := w.(http.Hijacker).Hijack()
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}},
		{"corrupt", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(crcHeaderName, encodeCRC(crcOf(object)+1))
			w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
			w.Write(object)
		}},
	} {
		t.Run("whole/"+tt.name, func(t *testing.T) {
			both(t, tt.h, func(t *testing.T, b *Bucket, _ *atomic.Int64) {
				if data, _, err := b.Get(t.Context(), "k"); err == nil {
					t.Errorf("got %q", data)
				}
			})
		})
	}
}

// TestWhatIsSent looks at the request: path, conditions, checksum, no signed
// chunks, an exact length.
func TestWhatIsSent(t *testing.T) {
	body := []byte("the body")
	both(t, func(w http.ResponseWriter, r *http.Request) {
		got, _ := io.ReadAll(r.Body)
		var faults []string
		want := map[string]string{crcHeaderName: encodeCRC(crcOf(body)), "X-Amz-Content-Sha256": "UNSIGNED-PAYLOAD", "If-Match": `"etag"`, "If-None-Match": "", "Transfer-Encoding": ""}
		for k, v := range want {
			if r.Header.Get(k) != v {
				faults = append(faults, fmt.Sprintf("%s is %q", k, r.Header.Get(k)))
			}
		}
		if r.URL.Path != "/bucket/p/a/b.seg" || r.ContentLength != int64(len(body)) || !bytes.Equal(got, body) {
			faults = append(faults, fmt.Sprintf("%s with %d bytes", r.URL.Path, r.ContentLength))
		}
		if len(faults) > 0 {
			refuse(400, strings.Join(faults, " and "))(w, r)
			return
		}
		w.Header().Set("ETag", `"next"`)
	}, func(t *testing.T, b *Bucket, _ *atomic.Int64) {
		etag, err := b.Put(t.Context(), "a/b.seg", bytes.NewReader(body), int64(len(body)), objectstore.Cond{IfMatch: "etag"})
		if err != nil || etag != "next" {
			t.Errorf("%q, %v", etag, err)
		}
	})
}

// TestAMissingBucketIsNotAMissingObject: the answer to HEAD has no body, so the
// driver asks once more.
func TestAMissingBucketIsNotAMissingObject(t *testing.T) {
	both(t, refuse(404, ""), func(t *testing.T, b *Bucket, _ *atomic.Int64) {
		_, err := b.Head(t.Context(), "k")
		only(t, "head", err, objectstore.ErrNoBucket)
	})
	both(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/k") {
			w.WriteHeader(404)
		}
	}, func(t *testing.T, b *Bucket, _ *atomic.Int64) {
		_, err := b.Head(t.Context(), "k")
		only(t, "head", err, objectstore.ErrNotFound)
	})
}

// TestASilentStoreDoesNotHoldACallForEver: half a body, then nothing, without a
// deadline in ctx. Config.Stall is a second here.
func TestASilentStoreDoesNotHoldACallForEver(t *testing.T) {
	both(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Range", "bytes 0-9/10")
		w.Header().Set("Content-Length", "10")
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		w.WriteHeader(206)
		w.Write([]byte("01234"))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}, func(t *testing.T, b *Bucket, _ *atomic.Int64) {
		only(t, "range", b.GetRange(t.Context(), "k", make([]byte, 10), 0), nil)
	})
}
