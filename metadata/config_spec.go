package metadata

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// ConfigType is a configuration's type, with Kafka's numbers (DescribeConfigs v3).
type ConfigType int8

// The types that occur.
const (
	TypeBoolean ConfigType = 1
	TypeString  ConfigType = 2
	TypeInt     ConfigType = 3
	TypeShort   ConfigType = 4
	TypeLong    ConfigType = 5
	TypeDouble  ConfigType = 6
	TypeList    ConfigType = 7
)

// ConfigSource says where a value came from, with Kafka's numbers.
type ConfigSource int8

// The sources, strongest first except that dynamic topic values beat all.
const (
	SourceDynamicTopic         ConfigSource = 1
	SourceDynamicBroker        ConfigSource = 2
	SourceDynamicDefaultBroker ConfigSource = 3
	SourceStaticBroker         ConfigSource = 4
	SourceDefault              ConfigSource = 5
)

// String is Kafka's name.
func (s ConfigSource) String() string {
	switch s {
	case SourceDynamicTopic:
		return "DYNAMIC_TOPIC_CONFIG"
	case SourceDynamicBroker:
		return "DYNAMIC_BROKER_CONFIG"
	case SourceDynamicDefaultBroker:
		return "DYNAMIC_DEFAULT_BROKER_CONFIG"
	case SourceStaticBroker:
		return "STATIC_BROKER_CONFIG"
	case SourceDefault:
		return "DEFAULT_CONFIG"
	}
	return "UNKNOWN"
}

// ConfigSynonym is one place where a value was looked for and found.
type ConfigSynonym struct {
	Name   string
	Value  string
	Source ConfigSource
}

// ConfigEntry is one configuration as DescribeConfigs shows it.
type ConfigEntry struct {
	Name     string
	Value    string
	Null     bool // no value and no default
	Source   ConfigSource
	Type     ConfigType
	ReadOnly bool
	Synonyms []ConfigSynonym
	Doc      string
}

// spec is one configuration: its type, default and rule.
type spec struct {
	name   string
	typ    ConfigType
	def    string
	null   bool // has no default
	check  func(string) error
	doc    string
	hidden bool // not shown unless set, as Kafka's internal ones
	// synonyms are the broker configurations a topic configuration falls back
	// to, first match wins.
	synonyms []synonym
	// dynamic marks broker configurations that may change while running.
	dynamic bool
}

// synonym is a broker configuration and its unit, relative to the topic's.
type synonym struct {
	name   string
	factor int64 // 0: the value as it is
}

func (s synonym) convert(v string) string {
	if s.factor == 0 {
		return v
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 {
		return v
	}
	if n > math.MaxInt64/s.factor {
		return strconv.FormatInt(math.MaxInt64, 10)
	}
	return strconv.FormatInt(n*s.factor, 10)
}

// validate parses v as the type and applies the rule.
func (s *spec) validate(v string) error {
	fail := func(err error) error {
		return refuse(ErrInvalidConfig, "Invalid value %s for configuration %s: %v", v, s.name, err)
	}
	v = strings.TrimSpace(v)
	switch s.typ {
	case TypeBoolean:
		if !strings.EqualFold(v, "true") && !strings.EqualFold(v, "false") {
			return fail(refuse(ErrInvalidConfig, "Expected value to be either true or false"))
		}
	case TypeInt:
		if _, err := strconv.ParseInt(v, 10, 32); err != nil {
			return fail(refuse(ErrInvalidConfig, "Not a number of type INT"))
		}
	case TypeShort:
		if _, err := strconv.ParseInt(v, 10, 16); err != nil {
			return fail(refuse(ErrInvalidConfig, "Not a number of type SHORT"))
		}
	case TypeLong:
		if _, err := strconv.ParseInt(v, 10, 64); err != nil {
			return fail(refuse(ErrInvalidConfig, "Not a number of type LONG"))
		}
	case TypeDouble:
		if f, err := strconv.ParseFloat(v, 64); err != nil || math.IsNaN(f) {
			return fail(refuse(ErrInvalidConfig, "Not a number of type DOUBLE"))
		}
	}
	if s.check != nil {
		if err := s.check(v); err != nil {
			return fail(err)
		}
	}
	return nil
}

// canonical is the value as Kafka would print it back.
func (s *spec) canonical(v string) string {
	v = strings.TrimSpace(v)
	switch s.typ {
	case TypeBoolean:
		return strings.ToLower(v)
	case TypeList:
		return strings.Join(splitList(v), ",")
	}
	return v
}

func splitList(v string) []string {
	var out []string
	for f := range strings.SplitSeq(v, ",") {
		if f = strings.TrimSpace(f); f != "" {
			out = append(out, f)
		}
	}
	return out
}

func atLeast(low int64) func(string) error { return between(low, math.MaxInt64) }

func between(low, high int64) func(string) error {
	return func(v string) error {
		n, err := strconv.ParseInt(v, 10, 64)
		switch {
		case err != nil:
			return err
		case n < low:
			return refuse(ErrInvalidConfig, "Value must be at least %d", low)
		case n > high:
			return refuse(ErrInvalidConfig, "Value must be no more than %d", high)
		}
		return nil
	}
}

func fraction(v string) error {
	if f, err := strconv.ParseFloat(v, 64); err != nil || f < 0 || f > 1 {
		return refuse(ErrInvalidConfig, "Value must be between 0 and 1")
	}
	return nil
}

func oneOf(values ...string) func(string) error {
	return func(v string) error {
		if !slices.Contains(values, v) {
			return refuse(ErrInvalidConfig, "String must be one of: %s", strings.Join(values, ", "))
		}
		return nil
	}
}

// listOf allows the values, each at most once; empty says whether none is fine.
func listOf(empty bool, values ...string) func(string) error {
	return func(v string) error {
		seen := map[string]bool{}
		for _, f := range splitList(v) {
			if len(values) > 0 && !slices.Contains(values, f) {
				return refuse(ErrInvalidConfig, "String must be one of: %s", strings.Join(values, ", "))
			}
			if seen[f] {
				return fmt.Errorf("%s is listed twice", f)
			}
			seen[f] = true
		}
		if len(seen) == 0 && !empty {
			return refuse(ErrInvalidConfig, "List must not be empty")
		}
		return nil
	}
}

// throttled is the form of the replication throttles' lists.
func throttled(v string) error {
	fields := splitList(v)
	if len(fields) == 1 && fields[0] == "*" {
		return nil
	}
	for _, f := range fields {
		p, b, ok := strings.Cut(f, ":")
		if _, err := parseNode(p); !ok || err != nil {
			return refuse(ErrInvalidConfig, "Must be * or a list of partition:broker pairs")
		}
		if _, err := parseNode(b); err != nil {
			return refuse(ErrInvalidConfig, "Must be * or a list of partition:broker pairs")
		}
	}
	return nil
}
