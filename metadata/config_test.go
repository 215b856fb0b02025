package metadata

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

// resolveTopic resolves configs of a new topic over layers, or says why not.
func resolveTopic(l layers, configs map[string]string) (*TopicConfig, error) {
	v := &topicValue{Name: "t", Configs: configs, Remote: BrokerConfig{l}.Bool("firn.remote.storage.enable")}
	if v.Configs == nil {
		v.Configs = map[string]string{}
	}
	if err := l.checkTopic(v, nil); err != nil {
		return nil, err
	}
	return l.resolve(v), nil
}

func TestDefaultsOfANewTopic(t *testing.T) {
	c, err := resolveTopic(layers{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.RetentionMs != 604800000 || c.RetentionBytes != -1 || c.LocalRetentionMs != 86400000 || c.LocalRetentionBytes != -1 ||
		c.SegmentBytes != 128<<20 || c.SegmentAge != 10*time.Minute || c.MaxUnuploaded != 10*time.Minute || c.MaxMessageBytes != 1048588 ||
		!c.Delete || c.Compact || !c.RemoteEnabled || !c.RemoteCopy || !c.RemoteRead || c.Durability != DurabilityFsync || c.StrictValidation ||
		c.Compression != "producer" || c.LogAppendTime || c.MinISR != 1 || c.TimestampAfterMax != 3600000 || c.TimestampBeforeMax != math.MaxInt64 {
		t.Fatalf("%+v", c)
	}
}

func TestTopicConfigurationsResolve(t *testing.T) {
	for _, tc := range []struct {
		name    string
		l       layers
		configs map[string]string
		ok      func(c *TopicConfig) bool
	}{
		{"local retention is at most the topic's", layers{}, map[string]string{"retention.ms": "1000"}, func(c *TopicConfig) bool { return c.LocalRetentionMs == 1000 }},
		{"local retention of an endless topic is the default", layers{}, map[string]string{"retention.ms": "-1"}, func(c *TopicConfig) bool { return c.RetentionMs == -1 && c.LocalRetentionMs == 86400000 }},
		{"retention 2^63-1", layers{}, map[string]string{"retention.ms": "9223372036854775807", "retention.bytes": "9223372036854775807"}, func(c *TopicConfig) bool {
			return c.RetentionMs == math.MaxInt64 && c.RetentionBytes == math.MaxInt64 && c.LocalRetentionBytes == math.MaxInt64
		}},
		{"-2 is the topic's retention", layers{}, map[string]string{"local.retention.ms": "-2"}, func(c *TopicConfig) bool { return c.LocalRetentionMs == 604800000 }},
		{"-2 of an endless topic", layers{}, map[string]string{"local.retention.ms": "-2", "retention.ms": "-1"}, func(c *TopicConfig) bool { return c.LocalRetentionMs == -1 }},
		{"local bytes", layers{}, map[string]string{"local.retention.bytes": "5", "retention.bytes": "9"}, func(c *TopicConfig) bool { return c.LocalRetentionBytes == 5 }},
		{"without tiering everything is local", layers{}, map[string]string{"remote.storage.enable": "false"}, func(c *TopicConfig) bool {
			return !c.RemoteEnabled && c.LocalRetentionMs == 604800000 && c.SegmentAge == 7*24*time.Hour
		}},
		{"segment.ms counts when set", layers{}, map[string]string{"segment.ms": "3600000"}, func(c *TopicConfig) bool { return c.SegmentAge == time.Hour }},
		{"log.roll.hours counts when set", layers{static: map[string]string{"log.roll.hours": "2"}}, nil, func(c *TopicConfig) bool { return c.SegmentAge == 2*time.Hour }},
		{"segment.ms 2^63-1", layers{}, map[string]string{"segment.ms": "9223372036854775807"}, func(c *TopicConfig) bool { return c.SegmentAge == math.MaxInt64 }},
		{"the recovery point moves the segment's age", layers{}, map[string]string{"firn.remote.max.unuploaded.ms": "60000"}, func(c *TopicConfig) bool { return c.SegmentAge == time.Minute && c.MaxUnuploaded == time.Minute }},
		{"compacted topics stay and are strict", layers{}, map[string]string{"cleanup.policy": "compact"}, func(c *TopicConfig) bool { return c.Compact && !c.Delete && !c.RemoteEnabled && c.StrictValidation }},
		{"both policies", layers{}, map[string]string{"cleanup.policy": " delete , compact"}, func(c *TopicConfig) bool { return c.Compact && c.Delete && !c.RemoteEnabled }},
		{"the broker's default switches tiering off", layers{static: map[string]string{"firn.remote.storage.enable": "false"}}, nil, func(c *TopicConfig) bool { return !c.RemoteEnabled }},
		{"a topic switches it on", layers{static: map[string]string{"firn.remote.storage.enable": "false"}}, map[string]string{"remote.storage.enable": "TRUE"}, func(c *TopicConfig) bool { return c.RemoteEnabled }},
		{"copying can be paused", layers{}, map[string]string{"remote.log.copy.disable": "true"}, func(c *TopicConfig) bool { return c.RemoteEnabled && !c.RemoteCopy && c.RemoteRead }},
		{"minutes", layers{static: map[string]string{"log.retention.minutes": "3"}}, nil, func(c *TopicConfig) bool { return c.RetentionMs == 180000 }},
		{"ms beat minutes beat hours", layers{static: map[string]string{"log.retention.hours": "9", "log.retention.minutes": "3"}, cluster: map[string]string{"log.retention.ms": "7"}}, nil, func(c *TopicConfig) bool { return c.RetentionMs == 7 }},
		{"hours -1 is for ever", layers{static: map[string]string{"log.retention.hours": "-1"}}, nil, func(c *TopicConfig) bool { return c.RetentionMs == -1 }},
		{"hours that overflow are the longest", layers{static: map[string]string{"log.retention.hours": "2147483647"}}, nil, func(c *TopicConfig) bool { return c.RetentionMs == 2147483647*3600000 }},
		{"this broker's beat the cluster's beat static", layers{static: map[string]string{"message.max.bytes": "1"}, cluster: map[string]string{"message.max.bytes": "2"}, own: map[string]string{"message.max.bytes": "3"}}, nil, func(c *TopicConfig) bool { return c.MaxMessageBytes == 3 }},
		{"a test's segment size has no floor", layers{}, map[string]string{"internal.segment.bytes": "100"}, func(c *TopicConfig) bool { return c.SegmentBytes == 100 }},
		{"durability and validation", layers{own: map[string]string{"firn.durability": "replicated"}}, map[string]string{"firn.record.validation": "strict"}, func(c *TopicConfig) bool { return c.Durability == DurabilityReplicated && c.StrictValidation }},
	} {
		c, err := resolveTopic(tc.l, tc.configs)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
		} else if !tc.ok(c) {
			t.Errorf("%s: %+v", tc.name, c)
		}
	}
}

func TestBadTopicConfigurationsAreRefused(t *testing.T) {
	for _, kv := range [][]string{
		{"no.such.config", "1"}, {"retention.ms", "soon"}, {"retention.ms", "-2"}, {"retention.ms", "9223372036854775808"}, {"cleanup.policy", "shred"},
		{"compression.type", "brotli"}, {"segment.bytes", "1"}, {"segment.bytes", "1048575"}, {"segment.bytes", "2147483648"}, {"min.insync.replicas", "0"}, {"max.message.bytes", "-1"},
		{"message.timestamp.type", "Never"}, {"segment.ms", "0"}, {"unclean.leader.election.enable", "maybe"}, {"min.cleanable.dirty.ratio", "1.5"}, {"min.cleanable.dirty.ratio", "NaN"},
		{"local.retention.ms", "604800001"}, {"local.retention.ms", "-1"}, {"local.retention.ms", "-3"}, {"local.retention.bytes", "6", "retention.bytes", "5"},
		{"remote.storage.enable", "true", "cleanup.policy", "compact"}, {"remote.storage.enable", "true", "cleanup.policy", "delete,compact"},
		{"min.compaction.lag.ms", "10", "max.compaction.lag.ms", "9"}, {"firn.durability", "hope"}, {"firn.remote.max.unuploaded.ms", "0"},
		{"follower.replication.throttled.replicas", "x"}, {"compression.gzip.level", "0"}, {"compression.zstd.level", "23"}, {"cleanup.policy", "delete,delete"},
	} {
		configs := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			configs[kv[i]] = kv[i+1]
		}
		if _, err := resolveTopic(layers{}, configs); !errors.Is(err, ErrInvalidConfig) {
			t.Errorf("%v: %v", configs, err)
		}
	}
}

// TestOnceCompactedNeverTiers: SAFETY 15, through changes of the policy.
func TestOnceCompactedNeverTiers(t *testing.T) {
	l := layers{}
	v := &topicValue{Configs: map[string]string{}, Remote: true, EverCompacted: true, EverTiered: true}
	if c := l.resolve(v); c.RemoteEnabled || !c.RemoteRead {
		t.Fatalf("a topic that was compacted tiers by default: %+v", c)
	}
	v.Configs["remote.storage.enable"] = "true"
	if err := l.checkTopic(v, nil); !errors.Is(err, ErrInvalidConfig) {
		t.Fatalf("tiering switched on for a topic that was compacted: %v", err)
	}
}

// TestWhatIsCompactNeverTiers: SAFETY 15, where a broker's default made the topic
// compact and nobody could refuse it.
func TestWhatIsCompactNeverTiers(t *testing.T) {
	l := layers{static: map[string]string{"log.cleanup.policy": "compact"}}
	v := &topicValue{Configs: map[string]string{"remote.storage.enable": "true"}, Remote: true, EverTiered: true}
	if c := l.resolve(v); !c.Compact || c.RemoteEnabled || c.RemoteCopy || !c.RemoteRead {
		t.Fatalf("%+v", c)
	}
}

func TestTieringIsNotSwitchedOffByAccident(t *testing.T) {
	l := layers{}
	before := &topicValue{Configs: map[string]string{}, Remote: true, EverTiered: true}
	next := func(kv ...string) *topicValue {
		v := *before
		v.Configs = map[string]string{"remote.storage.enable": "false"}
		for i := 0; i < len(kv); i += 2 {
			v.Configs[kv[i]] = kv[i+1]
		}
		return &v
	}
	if err := l.checkTopic(next(), before); !errors.Is(err, ErrInvalidConfig) {
		t.Fatalf("switched off without saying what becomes of the data: %v", err)
	}
	v := next("remote.log.delete.on.disable", "true")
	if err := l.checkTopic(v, before); err != nil {
		t.Fatal(err)
	}
	if c := l.resolve(v); c.RemoteEnabled || !c.RemoteRead || !c.RemoteDeleteOnDisable {
		t.Fatalf("%+v", c)
	}
}

func TestDescribeShowsSourcesAsKafkaDoes(t *testing.T) {
	l := layers{static: map[string]string{"log.cleanup.policy": "compact"}, cluster: map[string]string{"log.segment.bytes": "2000000"}}
	v := &topicValue{Configs: map[string]string{"retention.ms": "123000"}, Remote: true}
	got := map[string]ConfigEntry{}
	for _, e := range l.describeTopic(v) {
		got[e.Name] = e
	}
	if _, ok := got["internal.segment.bytes"]; ok {
		t.Error("an internal configuration is shown unset")
	}
	for name, want := range map[string]string{
		"retention.ms":    "123000 DYNAMIC_TOPIC_CONFIG [{retention.ms 123000 DYNAMIC_TOPIC_CONFIG}]",
		"cleanup.policy":  "compact STATIC_BROKER_CONFIG [{log.cleanup.policy compact STATIC_BROKER_CONFIG} {log.cleanup.policy delete DEFAULT_CONFIG}]",
		"segment.bytes":   "2000000 DYNAMIC_DEFAULT_BROKER_CONFIG [{log.segment.bytes 2000000 DYNAMIC_DEFAULT_BROKER_CONFIG} {log.segment.bytes 134217728 DEFAULT_CONFIG}]",
		"segment.ms":      "604800000 DEFAULT_CONFIG []",
		"flush.ms":        "9223372036854775807 DEFAULT_CONFIG []",
		"preallocate":     "false DEFAULT_CONFIG [{log.preallocate false DEFAULT_CONFIG}]",
		"firn.durability": "fsync DEFAULT_CONFIG [{firn.durability fsync DEFAULT_CONFIG}]",
		// Switched off by compaction, whatever the broker's default says.
		"remote.storage.enable": "false DEFAULT_CONFIG []",
	} {
		e := got[name]
		if s := fmt.Sprintf("%s %v %v", e.Value, e.Source, e.Synonyms); s != want {
			t.Errorf("%s: %s\n want %s", name, s, want)
		}
	}
}

// TestEverySpecHolds: defaults pass their own rules, synonyms exist, names are
// sorted for the search.
func TestEverySpecHolds(t *testing.T) {
	for _, specs := range [][]spec{topicSpecs, brokerSpecs} {
		for i := range specs {
			s := &specs[i]
			if i > 0 && specs[i-1].name >= s.name {
				t.Errorf("%s after %s", s.name, specs[i-1].name)
			}
			if s.doc == "" {
				t.Errorf("%s has no documentation", s.name)
			}
			if !s.null {
				if err := s.validate(s.def); err != nil {
					t.Errorf("default of %s: %v", s.name, err)
				}
			}
			for _, syn := range s.synonyms {
				b := findSpec(brokerSpecs, syn.name)
				if b == nil {
					t.Errorf("%s falls back to unknown %s", s.name, syn.name)
				} else if !b.null && syn.convert(b.def) != s.def {
					t.Errorf("%s is %s by default, %s is %s", s.name, s.def, b.name, b.def)
				}
			}
		}
	}
	for _, name := range []string{"log.retention.hours", "log.retention.minutes", "log.roll.hours", "unclean.leader.election.enable"} {
		s := findSpec(brokerSpecs, name)
		if hours := name != "unclean.leader.election.enable"; s.dynamic == hours {
			t.Errorf("%s: dynamic %v", name, s.dynamic)
		}
	}
	if !slices.Equal(SynonymsOf("retention.ms"), []string{"log.retention.ms", "log.retention.minutes", "log.retention.hours"}) {
		t.Error("synonyms of retention.ms")
	}
}

func TestStaticConfigurationFaultsAreAllReported(t *testing.T) {
	got, err := ValidateStatic(map[string]string{"log.retention.hours": " 24 ", "auto.create.topics.enable": "FALSE"})
	if err != nil || got["auto.create.topics.enable"] != "false" || got["log.retention.hours"] != "24" {
		t.Fatalf("%v, %v", got, err)
	}
	_, err = ValidateStatic(map[string]string{"log.retention.hour": "24", "retention.ms": "1", "num.partitions": "x"})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{`did you mean "log.retention.hours"`, `the broker's is "log.retention.ms"`, "num.partitions"} {
		if !contains(err.Error(), want) {
			t.Errorf("%v: does not say %s", err, want)
		}
	}
}

func contains(s, sub string) bool {
	for i := 0; i+len(sub) <= len(s); i++ {
		if s[i:i+len(sub)] == sub {
			return true
		}
	}
	return false
}
