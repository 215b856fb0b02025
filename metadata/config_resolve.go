package metadata

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

func divide(v string, factor int64) string {
	n, _ := strconv.ParseInt(v, 10, 64)
	return strconv.FormatInt(n/factor, 10)
}

// smallest keeps a rule's answer for the values that mean the same in every
// unit, -1 and 0, and allows the rest.
func smallest(check func(string) error) func(string) error {
	return func(v string) error {
		n, err := strconv.ParseInt(v, 10, 32)
		if err != nil || n < 1 {
			return check(v)
		}
		return nil
	}
}

// layers are the places a broker's configuration comes from, as one node sees
// them. It is immutable.
type layers struct {
	own     map[string]string // dynamic, this broker
	cluster map[string]string // dynamic, cluster-wide default
	static  map[string]string // the process's configuration
}

// value is a broker configuration's value; ok is false when it is null.
func (l layers) value(s *spec) (v string, src ConfigSource, ok bool) {
	for _, at := range [...]struct {
		m   map[string]string
		src ConfigSource
	}{{l.own, SourceDynamicBroker}, {l.cluster, SourceDynamicDefaultBroker}, {l.static, SourceStaticBroker}} {
		if v, ok := at.m[s.name]; ok {
			return v, at.src, true
		}
	}
	if s.null {
		return "", SourceDefault, false
	}
	return s.def, SourceDefault, true
}

// topicValue resolves one topic configuration.
func (l layers) topicValue(s *spec, configs map[string]string) (string, ConfigSource) {
	if v, ok := configs[s.name]; ok {
		return v, SourceDynamicTopic
	}
	for _, syn := range s.synonyms {
		if v, src, ok := l.value(findSpec(brokerSpecs, syn.name)); ok {
			return syn.convert(v), src
		}
	}
	return s.def, SourceDefault
}

// resolve makes the typed configuration of a topic.
func (l layers) resolve(t *topicValue) *TopicConfig {
	return typed(func(name string) (string, ConfigSource) {
		return l.topicValue(findSpec(topicSpecs, name), t.Configs)
	}, t)
}

// collect lists where the values of names are set, by strength of the source and
// then in the order of names.
func (l layers) collect(names []string) []ConfigSynonym {
	var out []ConfigSynonym
	add := func(m map[string]string, src ConfigSource) {
		for _, n := range names {
			if v, ok := m[n]; ok {
				out = append(out, ConfigSynonym{Name: n, Value: v, Source: src})
			}
		}
	}
	add(l.own, SourceDynamicBroker)
	add(l.cluster, SourceDynamicDefaultBroker)
	add(l.static, SourceStaticBroker)
	for _, n := range names {
		if s := findSpec(brokerSpecs, n); s != nil && !s.null {
			out = append(out, ConfigSynonym{Name: n, Value: s.def, Source: SourceDefault})
		}
	}
	return out
}

// describeTopic lists every topic configuration with its source. Like Kafka it
// leaves out the default of a synonym that is not the first one (retention.ms
// does not show log.retention.hours=168).
func (l layers) describeTopic(t *topicValue) []ConfigEntry {
	var out []ConfigEntry
	for i := range topicSpecs {
		s := &topicSpecs[i]
		own, set := t.Configs[s.name]
		if s.hidden && !set {
			continue
		}
		v, src := l.topicValue(s, t.Configs)
		e := ConfigEntry{Name: s.name, Value: v, Source: src, Type: s.typ, Doc: s.doc}
		if set {
			e.Synonyms = append(e.Synonyms, ConfigSynonym{Name: s.name, Value: own, Source: SourceDynamicTopic})
		}
		names := make([]string, len(s.synonyms))
		for i, syn := range s.synonyms {
			names[i] = syn.name
		}
		for _, syn := range l.collect(names) {
			if syn.Source != SourceDefault || syn.Name == names[0] {
				e.Synonyms = append(e.Synonyms, syn)
			}
		}
		if s.name == "remote.storage.enable" && !set {
			e.Value = strconv.FormatBool(l.resolve(t).RemoteEnabled)
			if e.Value != v {
				// Fixed when the topic was made, or switched off by compaction:
				// no layer of today says so.
				e.Source, e.Synonyms = SourceDefault, nil
			}
		}
		out = append(out, e)
	}
	return out
}

// describeBroker lists the broker configurations of one broker, or with own and
// static nil only what the cluster-wide default sets.
func (l layers) describeBroker(onlySet bool) []ConfigEntry {
	var out []ConfigEntry
	for i := range brokerSpecs {
		s := &brokerSpecs[i]
		v, src, ok := l.value(s)
		if onlySet && (!ok || src == SourceDefault) {
			continue
		}
		e := ConfigEntry{Name: s.name, Value: v, Null: !ok, Source: src, Type: s.typ, ReadOnly: !s.dynamic, Doc: s.doc}
		e.Synonyms = l.collect([]string{s.name})
		out = append(out, e)
	}
	return out
}

// BrokerConfig is a broker's configuration, resolved.
type BrokerConfig struct{ l layers }

// String is the value of a broker configuration, "" when it is null or unknown.
func (b BrokerConfig) String(name string) string {
	s := findSpec(brokerSpecs, name)
	if s == nil {
		return ""
	}
	v, _, _ := b.l.value(s)
	return v
}

// Int is String as a number, 0 when it is none.
func (b BrokerConfig) Int(name string) int64 {
	n, _ := strconv.ParseInt(b.String(name), 10, 64)
	return n
}

// Duration returns a broker configuration that counts units, or the longest
// Duration where that overflows: the greatest value means never.
func (b BrokerConfig) Duration(name string, unit time.Duration) time.Duration {
	return times(b.Int(name), unit)
}

// Bool is String as a truth value.
func (b BrokerConfig) Bool(name string) bool { return b.String(name) == "true" }

// ValidateStatic checks a process's own broker configuration and reports every
// fault at once. The result is canonical.
func ValidateStatic(configs map[string]string) (map[string]string, error) {
	out := make(map[string]string, len(configs))
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(configs)) {
		s := findSpec(brokerSpecs, name)
		if s == nil {
			errs = append(errs, fmt.Errorf("unknown broker configuration %q%s", name, nearest(name)))
			continue
		}
		if err := s.validate(configs[name]); err != nil {
			errs = append(errs, err)
			continue
		}
		out[name] = s.canonical(configs[name])
	}
	return out, errors.Join(errs...)
}

// nearest is a hint at a known broker configuration, or nothing.
func nearest(name string) string {
	if s := findSpec(topicSpecs, name); s != nil && len(s.synonyms) > 0 {
		return fmt.Sprintf(" (that is a topic configuration; the broker's is %q)", s.synonyms[0].name)
	}
	for _, s := range brokerSpecs {
		if strings.Contains(s.name, name) || strings.Contains(name, s.name) {
			return fmt.Sprintf(" (did you mean %q?)", s.name)
		}
	}
	return ""
}

// checkTopic validates a topic's own configurations, and the rules between them,
// against what they were before (nil for a new topic). It returns a canonical
// copy.
func (l layers) checkTopic(next *topicValue, before *topicValue) error {
	for _, name := range slices.Sorted(maps.Keys(next.Configs)) {
		s := findSpec(topicSpecs, name)
		if s == nil {
			return refuse(ErrInvalidConfig, "Unknown topic config name: %s", name)
		}
		if err := s.validate(next.Configs[name]); err != nil {
			return refuse(ErrInvalidConfig, "%v", err)
		}
		next.Configs[name] = s.canonical(next.Configs[name])
	}
	c := l.resolve(next)
	if remote, set := next.Configs["remote.storage.enable"]; set && remote == "true" && (c.Compact || next.EverCompacted) {
		return refuse(ErrInvalidConfig, "remote.storage.enable=true is refused for a topic that is or was compacted: compacted ranges do not tier")
	}
	if before != nil && l.resolve(before).RemoteEnabled {
		if remote, set := next.Configs["remote.storage.enable"]; set && remote == "false" && next.Configs["remote.log.delete.on.disable"] != "true" {
			return refuse(ErrInvalidConfig, "It is invalid to disable remote storage without deleting remote data. If you want to keep the remote data and turn to read only, please set `remote.storage.enable=true,remote.log.copy.disable=true`. If you want to disable remote storage and delete all remote data, please set `remote.storage.enable=false,remote.log.delete.on.disable=true`")
		}
	}
	for _, r := range [...]struct {
		local, total string
		bound        int64
	}{{"local.retention.ms", "retention.ms", c.RetentionMs}, {"local.retention.bytes", "retention.bytes", c.RetentionBytes}} {
		v, set := next.Configs[r.local]
		if !set || r.bound == -1 {
			continue
		}
		n, _ := strconv.ParseInt(v, 10, 64)
		if n == -1 || n > r.bound {
			return refuse(ErrInvalidConfig, "Invalid value %s for configuration %s: Value must not be more than %s property value", v, r.local, r.total)
		}
	}
	if c.MinCompactionLagMs > c.MaxCompactionLagMs {
		return refuse(ErrInvalidConfig, "conflict topic config setting min.compaction.lag.ms (%d) > max.compaction.lag.ms (%d)", c.MinCompactionLagMs, c.MaxCompactionLagMs)
	}
	if c.SegmentBytes > math.MaxInt32 {
		return refuse(ErrInvalidConfig, "segment.bytes %d is too large", c.SegmentBytes)
	}
	return nil
}
