package jetstream

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// TestTheEmbeddedServerIsWhatWeRelyOn asks the running server and its stream: every
// write is synced before it is acknowledged, the last value of each key is kept for
// ever in files, once, and nobody gets in from outside of the process.
func TestTheEmbeddedServerIsWhatWeRelyOn(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), Config{Dir: dir, Cluster: "c", Logger: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Bootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	v, err := s.server.s.Varz(&server.VarzOptions{})
	if err != nil {
		t.Fatal(err)
	}
	js := v.JetStream.Config
	if js == nil || !js.SyncAlways || js.MaxStore != 1<<30 || js.MaxMemory != 16<<20 {
		t.Errorf("JetStream is %+v; want every write synced, 1 GiB of files at most", js)
	}
	if got := s.server.s.StoreDir(); got != filepath.Join(dir, "jetstream") {
		t.Errorf("the server writes to %s, not to %s", got, dir)
	}
	if a := s.server.s.Addr(); a != nil {
		t.Errorf("the server listens at %v", a)
	}
	// Those that are nil pointers would not be nil in an interface.
	if m, c, p := s.server.s.MonitorAddr(), s.server.s.ClusterAddr(), s.server.s.ProfilerAddr(); m != nil || c != nil || p != nil {
		t.Errorf("listeners: monitor %v, routes %v, profiler %v", m, c, p)
	}
	for name, port := range map[string]int{
		"http": v.HTTPPort, "https": v.HTTPSPort, "routes": v.Cluster.Port, "gateway": v.Gateway.Port, "leaf nodes": v.LeafNode.Port, "mqtt": v.MQTT.Port, "websocket": v.Websocket.Port,
	} {
		if port != 0 {
			t.Errorf("%s has port %d", name, port)
		}
	}

	st, err := s.js.Stream(t.Context(), s.stream)
	if err != nil {
		t.Fatal(err)
	}
	info, err := st.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	switch c := info.Config; {
	case c.MaxMsgsPerSubject != 1:
		t.Errorf("history of %d", c.MaxMsgsPerSubject)
	case c.Storage != jetstream.FileStorage:
		t.Errorf("storage %v", c.Storage)
	case c.Replicas != 1:
		t.Errorf("%d replicas", c.Replicas)
	case c.MaxAge != 0 || c.SubjectDeleteMarkerTTL != 0 || c.Retention != jetstream.LimitsPolicy:
		t.Errorf("keys expire: %+v", c)
	case c.MaxMsgs != -1 || c.MaxBytes != -1 || c.Discard != jetstream.DiscardNew:
		t.Errorf("old keys make room for new ones: %+v", c)
	case !c.AllowAtomicPublish:
		t.Error("no batches")
	}
}

// TestASilentServerIsAskedTwiceASecond: a client stays connected to a server that
// has stopped until two pings in a row are unanswered.
func TestASilentServerIsAskedTwiceASecond(t *testing.T) {
	s, err := Open(t.Context(), Config{Dir: t.TempDir(), Cluster: "c", Logger: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, most := s.nc.Opts.PingInterval, s.nc.Opts.MaxPingsOut; got != 500*time.Millisecond || most != 2 {
		t.Fatalf("a ping every %v, %d may be unanswered", got, most)
	}
}
