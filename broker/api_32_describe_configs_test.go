package broker

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func describeOne(t *testing.T, a *Admin, kind kmsg.ConfigResourceType, resource string, names ...string) kmsg.DescribeConfigsResponseResource {
	t.Helper()
	r := kmsg.NewPtrDescribeConfigsRequest()
	r.IncludeSynonyms = true
	x := kmsg.NewDescribeConfigsRequestResource()
	x.ResourceType, x.ResourceName, x.ConfigNames = kind, resource, names
	r.Resources = append(r.Resources, x)
	return askAdmin[*kmsg.DescribeConfigsResponse](t, a, everyone{}, 4, r).Resources[0]
}

// kafkaDefaults are the topic configurations of Kafka 4.3.1 with value, source
// and type, where we do not differ on purpose (segment.bytes, local.retention.ms,
// remote.storage.enable).
const kafkaDefaults = `
cleanup.policy = delete DEFAULT_CONFIG LIST
compression.gzip.level = -1 DEFAULT_CONFIG INT
compression.lz4.level = 9 DEFAULT_CONFIG INT
compression.type = producer DEFAULT_CONFIG STRING
compression.zstd.level = 3 DEFAULT_CONFIG INT
delete.retention.ms = 86400000 DEFAULT_CONFIG LONG
file.delete.delay.ms = 60000 DEFAULT_CONFIG LONG
flush.messages = 9223372036854775807 DEFAULT_CONFIG LONG
flush.ms = 9223372036854775807 DEFAULT_CONFIG LONG
follower.replication.throttled.replicas =  DEFAULT_CONFIG LIST
index.interval.bytes = 4096 DEFAULT_CONFIG INT
leader.replication.throttled.replicas =  DEFAULT_CONFIG LIST
local.retention.bytes = -2 DEFAULT_CONFIG LONG
max.compaction.lag.ms = 9223372036854775807 DEFAULT_CONFIG LONG
max.message.bytes = 1048588 DEFAULT_CONFIG INT
message.timestamp.after.max.ms = 3600000 DEFAULT_CONFIG LONG
message.timestamp.before.max.ms = 9223372036854775807 DEFAULT_CONFIG LONG
message.timestamp.type = CreateTime DEFAULT_CONFIG STRING
min.cleanable.dirty.ratio = 0.5 DEFAULT_CONFIG DOUBLE
min.compaction.lag.ms = 0 DEFAULT_CONFIG LONG
min.insync.replicas = 1 DEFAULT_CONFIG INT
preallocate = false DEFAULT_CONFIG BOOLEAN
remote.log.copy.disable = false DEFAULT_CONFIG BOOLEAN
remote.log.delete.on.disable = false DEFAULT_CONFIG BOOLEAN
retention.bytes = -1 DEFAULT_CONFIG LONG
retention.ms = 123000 DYNAMIC_TOPIC_CONFIG LONG
segment.index.bytes = 10485760 DEFAULT_CONFIG INT
segment.jitter.ms = 0 DEFAULT_CONFIG LONG
segment.ms = 604800000 DEFAULT_CONFIG LONG
unclean.leader.election.enable = false DEFAULT_CONFIG BOOLEAN`

func TestTopicConfigurationsAreKafkas(t *testing.T) {
	a := newAdmin(t)
	mustCreate(t, a, "configs", 1, "retention.ms", "123000")
	got := map[string]string{}
	for _, c := range describeOne(t, a, kmsg.ConfigResourceTypeTopic, "configs").Configs {
		if c.ReadOnly || c.IsSensitive {
			t.Errorf("%s: read-only %v, sensitive %v", c.Name, c.ReadOnly, c.IsSensitive)
		}
		got[c.Name] = fmt.Sprintf("%s = %s %s %s", c.Name, *c.Value, c.Source, c.ConfigType)
	}
	for line := range strings.Lines(strings.TrimSpace(kafkaDefaults)) {
		line = strings.TrimRight(line, "\n")
		key, _, _ := strings.Cut(line, " ")
		if got[key] != line {
			t.Errorf("%q, want %q", got[key], line)
		}
	}
}

func TestDescribeConfigsAnswersAsKafka(t *testing.T) {
	a := newAdmin(t)
	mustCreate(t, a, "configs", 1, "retention.ms", "123000")
	x := describeOne(t, a, kmsg.ConfigResourceTypeTopic, "configs", "retention.ms", "no.such")
	s := codeName(x.ErrorCode)
	for _, c := range x.Configs {
		s += fmt.Sprintf(" %s=%s %s", c.Name, *c.Value, c.Source)
		for _, y := range c.ConfigSynonyms {
			s += fmt.Sprintf(" (%s=%s %s)", y.Name, *y.Value, y.Source)
		}
	}
	if want := "NONE retention.ms=123000 DYNAMIC_TOPIC_CONFIG (retention.ms=123000 DYNAMIC_TOPIC_CONFIG)"; s != want {
		t.Errorf("asked by name: %s, want %s", s, want)
	}
	for _, tc := range []struct {
		kind kmsg.ConfigResourceType
		name string
		want string
	}{
		{kmsg.ConfigResourceTypeTopic, "none", "UNKNOWN_TOPIC_OR_PARTITION"},
		{kmsg.ConfigResourceTypeTopic, "a b", "INVALID_TOPIC_EXCEPTION"},
		{kmsg.ConfigResourceTypeBroker, "9999", "INVALID_REQUEST"},
		{kmsg.ConfigResourceTypeBroker, "one", "INVALID_REQUEST"},
		{kmsg.ConfigResourceTypeBroker, "", "NONE"},
		{kmsg.ConfigResourceTypeBroker, "1", "NONE"},
		{99, "x", "INVALID_REQUEST"},
	} {
		if got := codeName(describeOne(t, a, tc.kind, tc.name).ErrorCode); got != tc.want {
			t.Errorf("%s %q: %s, want %s", tc.kind, tc.name, got, tc.want)
		}
	}
}

func configValue(t *testing.T, a *Admin, topic, config string) string {
	t.Helper()
	return *describeOne(t, a, kmsg.ConfigResourceTypeTopic, topic, config).Configs[0].Value
}

func TestIncrementalAlterConfigsAnswersAsKafka(t *testing.T) {
	a := newAdmin(t)
	mustCreate(t, a, "t", 1, "retention.ms", "123000")
	p := func(s string) *string { return &s }
	for _, tc := range []struct {
		name, topic, config string
		value               *string
		op                  kmsg.IncrementalAlterConfigOp
		want                string
	}{
		{"set", "t", "retention.ms", p("5000"), 0, "NONE 5000"},
		{"set bad value", "t", "retention.ms", p("x"), 0, "INVALID_CONFIG 5000"},
		{"set unknown", "t", "no.such", p("x"), 0, "INVALID_CONFIG"},
		{"set null", "t", "retention.ms", nil, 0, "INVALID_REQUEST 5000"},
		{"delete", "t", "retention.ms", nil, 1, "NONE 604800000"},
		{"append to a list", "t", "cleanup.policy", p("compact"), 2, "NONE delete,compact"},
		{"append the same again", "t", "cleanup.policy", p("compact"), 2, "NONE delete,compact"},
		{"subtract from a list", "t", "cleanup.policy", p("delete"), 3, "NONE compact"},
		{"append to a number", "t", "retention.ms", p("1"), 2, "INVALID_CONFIG"},
		{"unknown topic", "none", "retention.ms", p("1"), 0, "UNKNOWN_TOPIC_OR_PARTITION"},
		{"empty topic name", "", "retention.ms", p("1"), 0, "INVALID_REQUEST"},
		{"unknown operation", "t", "retention.ms", p("1"), 7, "INVALID_REQUEST"},
	} {
		r := kmsg.NewPtrIncrementalAlterConfigsRequest()
		x := kmsg.NewIncrementalAlterConfigsRequestResource()
		x.ResourceType, x.ResourceName = kmsg.ConfigResourceTypeTopic, tc.topic
		x.Configs = append(x.Configs, kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: tc.config, Value: tc.value, Op: tc.op})
		r.Resources = append(r.Resources, x)
		got := codeName(askAdmin[*kmsg.IncrementalAlterConfigsResponse](t, a, everyone{}, 1, r).Resources[0].ErrorCode)
		if strings.Contains(tc.want, " ") {
			got += " " + configValue(t, a, tc.topic, tc.config)
		}
		if got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

// TestBrokerConfigurationsChange: one broker, and the default of all.
func TestBrokerConfigurationsChange(t *testing.T) {
	a := newAdmin(t)
	mustCreate(t, a, "t", 1)
	alter := func(broker, config, v string) string {
		t.Helper()
		r := kmsg.NewPtrIncrementalAlterConfigsRequest()
		x := kmsg.NewIncrementalAlterConfigsRequestResource()
		x.ResourceType, x.ResourceName = kmsg.ConfigResourceTypeBroker, broker
		x.Configs = append(x.Configs, kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: config, Value: &v})
		r.Resources = append(r.Resources, x)
		return codeName(askAdmin[*kmsg.IncrementalAlterConfigsResponse](t, a, everyone{}, 1, r).Resources[0].ErrorCode)
	}
	for _, tc := range [][4]string{
		{"", "log.retention.ms", "5000", "NONE"}, {"1", "log.retention.ms", "6000", "NONE"},
		{"9", "log.retention.ms", "1", "INVALID_REQUEST"}, {"x", "log.retention.ms", "1", "INVALID_REQUEST"},
		{"1", "num.partitions", "3", "INVALID_REQUEST"}, {"1", "no.such", "3", "INVALID_CONFIG"}, {"1", "log.retention.ms", "soon", "INVALID_CONFIG"},
	} {
		if got := alter(tc[0], tc[1], tc[2]); got != tc[3] {
			t.Errorf("broker %q %s=%s: %s, want %s", tc[0], tc[1], tc[2], got, tc[3])
		}
	}
	if got := configValue(t, a, "t", "retention.ms"); got != "6000" {
		t.Errorf("the topic's retention.ms is %s", got)
	}
	cluster := describeOne(t, a, kmsg.ConfigResourceTypeBroker, "").Configs
	if len(cluster) != 1 || *cluster[0].Value != "5000" || cluster[0].Source != kmsg.ConfigSourceDynamicDefaultBrokerConfig {
		t.Errorf("cluster-wide: %+v", cluster)
	}
	own := describeOne(t, a, kmsg.ConfigResourceTypeBroker, "1", "log.retention.ms").Configs
	if len(own) != 1 || *own[0].Value != "6000" || len(own[0].ConfigSynonyms) != 2 {
		t.Errorf("broker 1: %+v", own)
	}
}

func TestAlterConfigsReplacesEverything(t *testing.T) {
	a := newAdmin(t)
	mustCreate(t, a, "t", 1, "retention.ms", "5", "retention.bytes", "6")
	r := kmsg.NewPtrAlterConfigsRequest()
	v := "7"
	x := kmsg.AlterConfigsRequestResource{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "t", Configs: []kmsg.AlterConfigsRequestResourceConfig{{Name: "retention.ms", Value: &v}}}
	r.Resources = append(r.Resources, x)
	r.ValidateOnly = true
	if res := askAdmin[*kmsg.AlterConfigsResponse](t, a, everyone{}, 2, r); res.Resources[0].ErrorCode != 0 || configValue(t, a, "t", "retention.ms") != "5" {
		t.Fatalf("validation changed something, or refused: %+v", res.Resources)
	}
	r.ValidateOnly = false
	if res := askAdmin[*kmsg.AlterConfigsResponse](t, a, everyone{}, 2, r); res.Resources[0].ErrorCode != 0 || configValue(t, a, "t", "retention.ms") != "7" || configValue(t, a, "t", "retention.bytes") != "-1" {
		t.Fatalf("%+v", res.Resources)
	}
	r.Resources = append(r.Resources, x)
	for _, out := range askAdmin[*kmsg.AlterConfigsResponse](t, a, everyone{}, 2, r).Resources {
		if codeName(out.ErrorCode) != "INVALID_REQUEST" {
			t.Errorf("a resource named twice: %s", codeName(out.ErrorCode))
		}
	}
}

// TestSettingsWithoutEffectExist holds the table of docs/operations.md to names that
// are served: what is not known is refused, and needs no excuse.
func TestSettingsWithoutEffectExist(t *testing.T) {
	doc, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(doc), "## Settings that are accepted and change nothing")
	if !ok {
		t.Fatal("the section is gone")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	a := newAdmin(t)
	mustCreate(t, a, "t", 1)
	known := map[string]bool{}
	for _, c := range describeOne(t, a, kmsg.ConfigResourceTypeTopic, "t").Configs {
		known[c.Name] = true
	}
	for _, c := range describeOne(t, a, kmsg.ConfigResourceTypeBroker, "1").Configs {
		known[c.Name] = true
	}
	named := 0
	for row := range strings.Lines(section) {
		cells := strings.Split(row, "|")
		if len(cells) < 3 {
			continue
		}
		for i, name := range strings.Split(cells[1], "`") {
			if i%2 == 0 || strings.HasSuffix(name, "*") {
				continue
			}
			if named++; !known[name] {
				t.Errorf("%s is no setting", name)
			}
		}
	}
	if named < 30 {
		t.Errorf("only %d settings are named", named)
	}
}
