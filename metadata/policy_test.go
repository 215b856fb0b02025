package metadata_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/metadata/memory"
)

func alterBroker(t *testing.T, c *metadata.Client, node int32, name, value string) error {
	op := metadata.OpSet
	if value == "" {
		op = metadata.OpDelete
	}
	return c.AlterBrokerConfigs(t.Context(), node, []metadata.AlterConfig{{Name: name, Op: op, Value: value}}, false)
}

func alterTopic(t *testing.T, c *metadata.Client, name, value string) error {
	return c.AlterTopicConfigs(t.Context(), "t", []metadata.AlterConfig{{Name: name, Value: value}}, false)
}

// TestABrokersPolicyCompactsNothingTiered (SAFETY 15): no default of a broker makes a
// topic compacted that has been in the bucket, whichever layer it comes from.
func TestABrokersPolicyCompactsNothingTiered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		static := func(value string) option {
			return func(c *metadata.Config) { c.Static = map[string]string{"log.cleanup.policy": value} }
		}
		c := open(t, s, 1)
		must[*metadata.Topic](t)(c.CreateTopic(t.Context(), metadata.NewTopic{Name: "t", Partitions: 1, ReplicationFactor: 1}))
		for _, node := range []int32{-1, 1} {
			for _, value := range []string{"compact", "delete,compact"} {
				err := alterBroker(t, c, node, "log.cleanup.policy", value)
				if !errors.Is(err, metadata.ErrInvalidConfig) || !strings.Contains(err.Error(), "'t'") {
					t.Errorf("broker %d, %s: %v", node, value, err)
				}
				err = c.ReplaceBrokerConfigs(t.Context(), node, map[string]string{"log.cleanup.policy": value}, true)
				if !errors.Is(err, metadata.ErrInvalidConfig) {
					t.Errorf("broker %d, replaced by %s: %v", node, value, err)
				}
			}
		}
		// A broker that hides it does not make it another's.
		if err := alterBroker(t, c, 1, "log.cleanup.policy", "delete"); err != nil {
			t.Fatal(err)
		}
		if err := alterBroker(t, c, -1, "log.cleanup.policy", "compact"); !errors.Is(err, metadata.ErrInvalidConfig) {
			t.Errorf("behind a broker's own: %v", err)
		}
		if err := alterBroker(t, c, 1, "log.cleanup.policy", ""); err != nil {
			t.Fatal(err)
		}
		// Tiering that is switched off leaves the bucket as it is.
		for _, kv := range [][2]string{{"remote.log.delete.on.disable", "true"}, {"remote.storage.enable", "false"}} {
			if err := alterTopic(t, c, kv[0], kv[1]); err != nil {
				t.Fatal(err)
			}
		}
		if err := alterBroker(t, c, -1, "log.cleanup.policy", "compact"); !errors.Is(err, metadata.ErrInvalidConfig) {
			t.Errorf("a topic that tiered once: %v", err)
		}
		// A topic with a policy of its own is in nobody's way, and neither is another
		// change.
		if err := alterBroker(t, c, -1, "max.connections", "7"); err != nil {
			t.Fatal(err)
		}
		if err := alterTopic(t, c, "cleanup.policy", "delete"); err != nil {
			t.Fatal(err)
		}
		if err := alterBroker(t, c, -1, "log.cleanup.policy", "compact"); err != nil {
			t.Fatal(err)
		}
		if err := alterBroker(t, c, -1, "log.cleanup.policy", ""); err != nil {
			t.Fatal(err)
		}
		if err := c.ReplaceTopicConfigs(t.Context(), "t", map[string]string{}, false); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if c, err := tryOpen(t, s, 1, static("compact")); !errors.Is(err, metadata.ErrInvalidConfig) || !strings.Contains(err.Error(), "'t'") {
			if c != nil {
				c.Close()
			}
			t.Errorf("started with a policy that compacts what is in the bucket: %v", err)
		}
		c = open(t, s, 1, static("delete"))
		if err := alterBroker(t, c, 1, "log.cleanup.policy", "delete"); err != nil {
			t.Fatal(err)
		}
		c.Close()
		// The dynamic layer hides the static one, until somebody takes it away.
		c = open(t, s, 1, static("compact"))
		if err := alterBroker(t, c, 1, "log.cleanup.policy", ""); !errors.Is(err, metadata.ErrInvalidConfig) {
			t.Fatalf("a static policy came to light: %v", err)
		}
		c.Close()
		// A dynamic one that got in all the same keeps no broker from starting: how
		// else would it be changed?
		st := s.Open()
		defer st.Close()
		is := must[metadata.Entry](t)(st.Get(t.Context(), "config.broker.1"))
		was := strings.Replace(string(is.Value), `"delete"`, `"compact"`, 1)
		must[uint64](t)(st.Update(t.Context(), is.Key, []byte(strings.Replace(was, `"ver":`, `"ver":9`, 1)), is.Revision))
		c = open(t, s, 1)
		if cfg := c.Image().TopicConfig("t"); !cfg.Compact || cfg.RemoteEnabled || !cfg.RemoteRead {
			t.Fatalf("%+v", cfg)
		}
		if err := alterBroker(t, c, 1, "log.cleanup.policy", ""); err != nil {
			t.Fatal(err)
		}
	})
}

// TestOnceCompactedIsRemembered (SAFETY 15): whatever made a topic compacted, the
// topic or its broker, it does not tier afterwards.
func TestOnceCompactedIsRemembered(t *testing.T) {
	set := func(name, value string) func(*testing.T, *metadata.Client) error {
		return func(t *testing.T, c *metadata.Client) error { return alterTopic(t, c, name, value) }
	}
	broker := func(node int32, value string) func(*testing.T, *metadata.Client) error {
		return func(t *testing.T, c *metadata.Client) error {
			return alterBroker(t, c, node, "log.cleanup.policy", value)
		}
	}
	for name, tc := range map[string]struct {
		configs map[string]string
		static  string // while the steps are made
		steps   []func(*testing.T, *metadata.Client) error
	}{
		"altered":        {configs: map[string]string{}, steps: []func(*testing.T, *metadata.Client) error{set("cleanup.policy", "compact"), set("cleanup.policy", "delete")}},
		"made so":        {configs: map[string]string{"cleanup.policy": "compact"}, steps: []func(*testing.T, *metadata.Client) error{set("cleanup.policy", "delete")}},
		"cluster-wide":   {configs: map[string]string{"remote.storage.enable": "false"}, steps: []func(*testing.T, *metadata.Client) error{broker(-1, "compact"), broker(-1, "delete")}},
		"by others":      {configs: map[string]string{"remote.storage.enable": "false"}, steps: []func(*testing.T, *metadata.Client) error{broker(1, "delete"), broker(-1, "compact"), broker(-1, "delete")}},
		"by one broker":  {configs: map[string]string{"remote.storage.enable": "false"}, steps: []func(*testing.T, *metadata.Client) error{broker(1, "compact"), broker(1, "")}},
		"by its process": {configs: map[string]string{"remote.storage.enable": "false"}, static: "compact"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := memory.NewServer(1, time.Now)
				c := open(t, s, 1)
				must[*metadata.Topic](t)(c.CreateTopic(t.Context(), metadata.NewTopic{Name: "t", Partitions: 1, ReplicationFactor: 1, Configs: tc.configs}))
				if tc.static != "" {
					c.Close()
					c = open(t, s, 1, func(c *metadata.Config) { c.Static = map[string]string{"log.cleanup.policy": tc.static} })
					if !c.Image().TopicConfig("t").Compact {
						t.Fatal("the static policy does not count")
					}
					c.Close()
					c = open(t, s, 1)
				}
				for i, step := range tc.steps {
					if err := step(t, c); err != nil {
						t.Fatalf("step %d: %v", i, err)
					}
				}
				for range 2 {
					if cfg := c.Image().TopicConfig("t"); cfg.Compact || cfg.RemoteEnabled {
						t.Fatalf("%+v", cfg)
					}
					if err := alterTopic(t, c, "remote.storage.enable", "true"); !errors.Is(err, metadata.ErrInvalidConfig) {
						t.Fatalf("it tiers: %v", err)
					}
					c.Close()
					c = open(t, s, 1)
				}
			})
		})
	}
}
