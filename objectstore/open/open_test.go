package open

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/objectstore/s3"
)

func none(string) string { return "" }

func TestURLsAreRead(t *testing.T) {
	env := func(name string) string {
		return map[string]string{"AWS_ENDPOINT_URL_S3": "http://s3.test", "AWS_ENDPOINT_URL": "http://all.test"}[name]
	}
	for _, tt := range []struct {
		rest string
		env  func(string) string
		want s3.Config
	}{
		{"b", none, s3.Config{Bucket: "b"}},
		{"b/p/q/", none, s3.Config{Bucket: "b", Prefix: "p/q"}},
		{"b/p?endpoint=http://127.0.0.1:9000&region=us-east-1&path-style=true&driver=minio", none,
			s3.Config{Bucket: "b", Prefix: "p", Endpoint: "http://127.0.0.1:9000", Region: "us-east-1", PathStyle: true, Driver: "minio"}},
		{"b?endpoint=https://s3.test&path-style=false&checksum=none", none, s3.Config{Bucket: "b", Endpoint: "https://s3.test", NoChecksum: true}},
		{"b", env, s3.Config{Bucket: "b", Endpoint: "http://s3.test", PathStyle: true}},
		{"b?endpoint=http://url.test", env, s3.Config{Bucket: "b", Endpoint: "http://url.test", PathStyle: true}},
	} {
		got, err := parseS3(tt.rest, tt.env)
		if err != nil || got != tt.want {
			t.Errorf("%s: %+v, %v; want %+v", tt.rest, got, err, tt.want)
		}
	}
}

func TestWrongURLsSayWhatToDo(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "a")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "s")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	os.WriteFile(plain, nil, 0o644)
	for _, tt := range []struct {
		url, want string
		is        error
	}{
		{"/var/bucket", "file:///PATH", nil},
		{"gs://b", "unknown scheme", nil},
		{"file://", "no path", nil},
		{"file:///tmp/x?a=b", "no parameters", nil},
		{"file://" + dir + "/not/there", "create it first", objectstore.ErrNoBucket},
		{"file://" + plain, "not a folder", objectstore.ErrNoBucket},
		{"s3://", "no bucket", nil},
		{"s3://key:secret@host/b", "the bucket's name alone", nil},
		{"s3://b?endpont=http://x", `did you mean "endpoint"`, nil},
		{"s3://b?pathstyle=true", `did you mean "path-style"`, nil},
		{"s3://b?driver=aw", `did you mean "aws"`, nil},
		{"s3://b?path-style=maybe", "neither true nor false", nil},
		{"s3://b?endpoint=127.0.0.1:9000", "not an http or https URL", nil},
		{"s3://bucket?region=us-east-1&endpoint=http://" + silent, "check endpoint=", objectstore.ErrUnreachable},
		{"s3://bucket?driver=minio&endpoint=http://" + silent, "check endpoint=", objectstore.ErrUnreachable},
	} {
		b, err := Open(t.Context(), tt.url, Options{Getenv: none})
		if err == nil {
			b.Close()
			t.Errorf("%s opens", tt.url)
			continue
		}
		if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") || tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%s: %v; want %q in one line, and %v", tt.url, err, tt.want, tt.is)
		}
	}
}

func TestAFolderOpens(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, u := range []string{"file://" + dir + "/absolute", "file://relative", "file://with%20space"} {
		b, err := Open(t.Context(), u, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for info, err := range b.List(t.Context(), "") {
			t.Errorf("%s: after opening there is %+v, %v", u, info, err)
		}
		if !strings.HasPrefix(b.Name(), dir) {
			t.Errorf("%s is %s", u, b.Name())
		}
		b.Close()
	}
	for _, name := range []string{"absolute", "relative", "with space"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}
