package s3

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/firnlog/firn/objectstore"
	drivers "github.com/firnlog/firn/objectstore/s3"
)

// ServeVersityGW runs versitygw as a plain process on the loopback interface,
// with its buckets in dir, until the test ends: no container engine takes part,
// and a test can look at what the store holds on disk. Container is nil.
func ServeVersityGW(t testing.TB, dir string) Endpoint {
	t.Helper()
	var said string
	for range 5 { // a port that was free a moment ago may be somebody's now
		e, out, ok := serve(t, dir)
		if ok {
			return e
		}
		said = out
	}
	t.Fatalf("versitygw ends at once:\n%s", said)
	return Endpoint{}
}

// serve starts versitygw on some port; ok is false when it ended by itself.
func serve(t testing.TB, dir string) (e Endpoint, said string, ok bool) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	var out output
	cmd := exec.Command(Binary(t, "versitygw"), "--access", AccessKey, "--secret", SecretKey, "--port", addr, "--region", Region, "--keep-alive", "--quiet", "posix", dir)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-exited
		if t.Failed() {
			s := out.String()
			t.Logf("the end of versitygw's log:\n%s", s[max(0, len(s)-2000):])
		}
	})
	e = Endpoint{Name: "versitygw", URL: "http://" + addr}
	b, err := drivers.Open(t.Context(), e.Config("firn-absent", "", drivers.AWS))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err = b.Check(ctx)
		cancel()
		select {
		case <-exited: // whoever answered was not ours
			return e, out.String(), false
		default:
		}
		if errors.Is(err, objectstore.ErrNoBucket) { // it knows its buckets
			return e, "", true
		}
		select {
		case <-tick.C:
		case <-exited:
			return e, out.String(), false
		case <-deadline:
			t.Fatalf("versitygw does not answer: %v\n%s", err, out.String())
		}
	}
}

// output collects what a process says.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
