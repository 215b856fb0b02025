package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/metadata/contract"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// TestEmbeddedKeepsTheContract runs the suite on the server inside the process;
// further clients share it.
func TestEmbeddedKeepsTheContract(t *testing.T) {
	contract.Run(t, func(t *testing.T) func() metadata.Store {
		first, err := Open(t.Context(), Config{Dir: t.TempDir(), Cluster: "c", Logger: testLog(t)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { first.Close() })
		opened := false
		return func() metadata.Store {
			if !opened {
				opened = true
				return first
			}
			s := &Store{cfg: first.cfg, bucket: first.bucket, stream: first.stream, prefix: first.prefix}
			return attach(t, s, first.server.s)
		}
	})
}

// attach connects another client to an embedded server.
func attach(t *testing.T, s *Store, srv *server.Server) *Store {
	t.Helper()
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.lost.ch = make(chan struct{})
	if err := s.connect(t.Context(), "", []nats.Option{nats.InProcessServer(srv)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// external starts a NATS server with a port, as one that is shared by clusters.
func external(t *testing.T, dir string, port int) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		ServerName: "external", Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: dir, SyncAlways: true, JetStreamMaxMemory: 16 << 20, JetStreamMaxStore: 1 << 30,
	})
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("external server is not ready")
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s
}

func TestExternalKeepsTheContract(t *testing.T) {
	srv := external(t, t.TempDir(), -1)
	n := 0
	contract.Run(t, func(t *testing.T) func() metadata.Store {
		n++ // a cluster of its own on the shared server
		name := fmt.Sprintf("c%d", n)
		return func() metadata.Store {
			s, err := Open(t.Context(), Config{URL: srv.ClientURL(), Cluster: name, Logger: testLog(t)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			return s
		}
	})
}

// TestRestartKeepsEverything closes the embedded server and opens it again.
func TestRestartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	open := func() *Store {
		began := time.Now()
		s, err := Open(t.Context(), Config{Dir: dir, Cluster: "c", Logger: testLog(t)})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("opened in %v", time.Since(began))
		return s
	}
	s := open()
	if err := s.Bootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	var rev uint64
	for i := range 100 {
		var err error
		if rev, err = s.Update(t.Context(), "a", fmt.Append(nil, i), rev); err != nil {
			t.Fatal(err)
		}
	}
	before, err := s.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	s.Close()
	s = open()
	defer s.Close()
	after, err := s.Status(t.Context())
	if err != nil || !after.Created.Equal(before.Created) || after.LastRevision != rev || after.Keys != 1 {
		t.Fatalf("status %+v became %+v, %v", before, after, err)
	}
	if e, err := s.Get(t.Context(), "a"); err != nil || string(e.Value) != "99" || e.Revision != rev {
		t.Fatalf("got %+v, %v", e, err)
	}
}

// TestWatchEndsWithItsConnection restarts the server under a watch.
func TestWatchEndsWithItsConnection(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	srv := external(t, dir, port)
	s, err := Open(t.Context(), Config{URL: srv.ClientURL(), Cluster: "c", Logger: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Bootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	caught, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- s.Watch(t.Context(), 0, func(e metadata.Event) {
			if e.CaughtUp {
				close(caught)
			}
		})
	}()
	<-caught
	srv.Shutdown()
	srv.WaitForShutdown()
	if err := <-ended; err == nil || errors.Is(err, context.Canceled) {
		t.Fatalf("the watch ended with %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	if _, err := s.Update(ctx, "a", []byte("x"), 0); !errors.Is(err, metadata.ErrInDoubt) {
		t.Fatalf("an update without a server: %v, want in doubt", err)
	}
	cancel()
	external(t, dir, port)
	for deadline := time.Now().Add(20 * time.Second); ; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := s.Status(ctx)
		cancel()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("never reached the server again: %v", err)
		}
	}
	if _, err := metadata.List(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// TestOnlyAnAnswerCanBeARefusal sorts what a write can fail with.
func TestOnlyAnAnswerCanBeARefusal(t *testing.T) {
	api := func(code int, err jetstream.ErrorCode, text string) error {
		return fmt.Errorf("nats: %w", &jetstream.APIError{Code: code, ErrorCode: err, Description: text})
	}
	for _, tc := range []struct {
		err      error
		conflict uint64
		is       error
	}{
		{api(400, 10071, "wrong last sequence: 17"), 17, metadata.ErrConflict},
		{api(400, 10164, "wrong last sequence"), 0, metadata.ErrInDoubt},
		{api(503, 10008, "JetStream system temporarily unavailable"), 0, metadata.ErrInDoubt},
		{context.DeadlineExceeded, 0, metadata.ErrInDoubt},
		{nats.ErrConnectionClosed, 0, metadata.ErrInDoubt},
		{nats.ErrNoResponders, 0, metadata.ErrInDoubt},
		{api(500, 10047, "insufficient storage resources available"), 0, nil},
		{nats.ErrMaxPayload, 0, nil},
	} {
		got := classify("k", tc.err)
		for _, kind := range []error{metadata.ErrConflict, metadata.ErrInDoubt} {
			if errors.Is(got, kind) != (tc.is == kind) {
				t.Errorf("%v became %v", tc.err, got)
			}
		}
		var c *metadata.ConflictError
		if errors.As(got, &c) && c.Current != tc.conflict {
			t.Errorf("%v: current %d", tc.err, c.Current)
		}
	}
}

// TestCurrentSequenceIsRead knows the server's wording.
func TestCurrentSequenceIsRead(t *testing.T) {
	for in, want := range map[string]uint64{"wrong last sequence: 17": 17, "wrong last sequence": 0, "": 0} {
		if got := currentSequence(in); got != want {
			t.Errorf("%q: %d, want %d", in, got, want)
		}
	}
}

// TestABatchHasOneAnswer: its revisions end at the one that is acknowledged, and an
// answer that is about another number of writes, or about none, decides nothing.
func TestABatchHasOneAnswer(t *testing.T) {
	revs, err := batchRevisions([]byte(`{"stream":"KV_x","seq":12,"count":3}`), 3)
	if err != nil || !slices.Equal(revs, []uint64{10, 11, 12}) {
		t.Fatalf("revisions %v, %v", revs, err)
	}
	for answer, want := range map[string]error{
		`{"stream":"KV_x","seq":12,"count":2}`:    metadata.ErrInDoubt,
		`{"stream":"KV_x","seq":12}`:              metadata.ErrInDoubt,
		`{"stream":"KV_x","seq":2,"count":3}`:     metadata.ErrInDoubt,
		``:                                        metadata.ErrInDoubt,
		`{"error":{"code":503,"err_code":10008}}`: metadata.ErrInDoubt,
		`{"error":{"code":400,"err_code":10164}}`: metadata.ErrInDoubt,
		`{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 17"}}`: metadata.ErrConflict,
	} {
		if revs, err := batchRevisions([]byte(answer), 3); !errors.Is(err, want) {
			t.Errorf("%s: revisions %v, %v", answer, revs, err)
		}
	}
}

// TestAnUnreachableStoreIsNotALostOne: only an answer can say that there is no
// bucket, and nobody makes another one because of a silence.
func TestAnUnreachableStoreIsNotALostOne(t *testing.T) {
	srv := external(t, t.TempDir(), -1)
	s, err := Open(t.Context(), Config{URL: srv.ClientURL(), Cluster: "c", Logger: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Bootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	srv.Shutdown()
	srv.WaitForShutdown()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := s.Status(ctx); !errors.Is(err, metadata.ErrUnavailable) || errors.Is(err, metadata.ErrNoBucket) {
		t.Errorf("status without a server: %v", err)
	}
	if _, err := s.Get(ctx, "a"); !errors.Is(err, metadata.ErrUnavailable) || errors.Is(err, metadata.ErrNotFound) {
		t.Errorf("get without a server: %v", err)
	}
	if err := s.Watch(ctx, 0, func(metadata.Event) {}); err == nil || errors.Is(err, metadata.ErrNoBucket) {
		t.Errorf("watch without a server: %v", err)
	}
}
