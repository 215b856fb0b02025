package outage

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/firnlog/firn/integration/node"
	"github.com/firnlog/firn/integration/s3"
	"github.com/firnlog/firn/integration/s3/proxy"
)

// A broker that is started while its store is down takes records, and goes on with
// the bucket by itself once the store is back: after a clean stop at once, after a
// kill when it has seen what the bucket holds of its logs.
func TestAStartWhileTheBucketIsDown(t *testing.T) {
	for name, c := range map[string]struct {
		rule proxy.Rule
		kill bool
	}{
		"nobody listens, clean stop": {rule: proxy.Rule{Action: proxy.Drop, Times: -1}},
		"503, clean stop":            {rule: proxy.Rule{Action: proxy.Refuse, Status: 503, Times: -1}},
		"500, kill":                  {rule: proxy.Rule{Action: proxy.Refuse, Status: 500, Times: -1}, kill: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := s3.ServeVersityGW(t, t.TempDir())
			p := proxy.Start(t, store.URL)
			n := node.New(t, "--bucket", store.Through(p.URL).URLOf(store.NewBucket(t), "logs", ""))
			n.Env = store.Env()
			n.Up()
			adm := kadm.NewClient(client(t, n))
			configs := map[string]*string{}
			for k, v := range map[string]string{"segment.bytes": "1048576", "local.retention.ms": "1", "firn.remote.max.unuploaded.ms": "1000"} {
				configs[k] = &v
			}
			if _, err := adm.CreateTopic(t.Context(), partitions, 1, configs, topic); err != nil {
				t.Fatal(err)
			}
			load := produce(t, n)
			defer load.stop()
			until(t, patience, "records are only in the bucket", func() bool {
				local := offsets(t, adm, -4)
				return local[0] > 0 && local[1] > 0
			})
			p.Inject(c.rule)
			if c.kill {
				n.Kill()
			} else {
				n.Stop()
			}
			n.Up()
			if !strings.Contains(n.Log(), `"event":"bucket_absent"`) {
				t.Error("nobody was told that the bucket does not answer")
			}
			if !c.kill {
				acked := load.ledger.Count()
				until(t, patience, "producers go on without the bucket", func() bool { return load.ledger.Count() >= acked+200 })
				tail := read(t, n, kgo.NewOffset().AtEnd())
				until(t, patience, "readers of the tail go on", func() bool { return tail.count() >= 100 })
			}
			p.Heal()
			until(t, patience, "the bucket is used again", func() bool { return strings.Contains(n.Log(), `"event":"bucket_back"`) })
			acked := load.ledger.Count()
			until(t, patience, "producers go on", func() bool { return load.ledger.Count() >= acked+100 })
			load.stop()
			ends := offsets(t, adm, -1)
			until(t, patience, "everything is only in the bucket", func() bool {
				local := offsets(t, adm, -4)
				return local[0] == ends[0] && local[1] == ends[1]
			})
			n.Stop()
			if err := os.RemoveAll(filepath.Join(n.DataDir, "cache")); err != nil {
				t.Fatal(err)
			}
			n.Up()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := load.ledger.Verify(ctx, topic, kgo.SeedBrokers(n.Addr)); err != nil {
				t.Error(err)
			}
		})
	}
}

// While it is down somebody puts another cluster's bucket in its place: nothing is
// uploaded there and nothing deleted here.
func TestAnotherBucketAppearsBehindTheOutage(t *testing.T) {
	t.Parallel()
	store := s3.ServeVersityGW(t, t.TempDir())
	p := proxy.Start(t, store.URL)
	bucket := store.NewBucket(t)
	url := store.Through(p.URL).URLOf(bucket, "logs", "")
	n := node.New(t, "--bucket", url)
	n.Env = store.Env()
	n.Up()
	adm := kadm.NewClient(client(t, n))
	configs := map[string]*string{"segment.bytes": kadm.StringPtr("1048576"), "firn.remote.max.unuploaded.ms": kadm.StringPtr("1000")}
	if _, err := adm.CreateTopic(t.Context(), partitions, 1, configs, topic); err != nil {
		t.Fatal(err)
	}
	load := produce(t, n)
	until(t, patience, "something is in the bucket", func() bool {
		tiered := offsets(t, adm, -5)
		return tiered[0] > 0 && tiered[1] > 0
	})
	n.Stop()
	p.Inject(proxy.Rule{Action: proxy.Refuse, Status: 503, Times: -1})
	n.Up()

	// Another node takes an empty bucket of the same name.
	store2 := s3.ServeVersityGW(t, t.TempDir())
	other := node.New(t, "--bucket", store2.URLOf(store2.MakeBucket(t, bucket), "logs", ""))
	other.Env = store2.Env()
	other.Up()
	other.Stop()
	if err := p.Redirect(store2.URL); err != nil {
		t.Fatal(err)
	}
	p.Heal()
	until(t, patience, "the other bucket is refused", func() bool { return strings.Contains(n.Log(), "is of") && strings.Contains(n.Log(), "bucket_absent") })
	acked := load.ledger.Count()
	until(t, patience, "producers go on", func() bool { return load.ledger.Count() >= acked+200 })
	if strings.Contains(n.Log(), "bucket_back") {
		t.Error("another cluster's bucket is used")
	}

	// The right one comes back.
	if err := p.Redirect(store.URL); err != nil {
		t.Fatal(err)
	}
	until(t, patience+patience, "the right bucket is used again", func() bool { return strings.Contains(n.Log(), "bucket_back") })
	load.stop()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := load.ledger.Verify(ctx, topic, kgo.SeedBrokers(n.Addr)); err != nil {
		t.Error(err)
	}
}
