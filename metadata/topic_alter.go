package metadata

import (
	"context"
	"maps"
	"slices"
	"strings"
)

// CreatePartitions grows a topic to count partitions. assignment, when given, has
// the replicas of each new one. With validateOnly nothing is changed.
func (c *Client) CreatePartitions(ctx context.Context, topic string, count int32, assignment [][]int32, validateOnly bool) error {
	t, ok := c.Image().TopicByName(topic)
	if !ok {
		return refuse(ErrUnknownTopic, "The topic '%s' does not exist", topic)
	}
	tried := false
	grow := func(v *topicValue) error {
		im := c.Image()
		have := int32(len(v.Assignment))
		switch {
		case count == have && tried:
			return errUnchanged // our own attempt in doubt, or somebody with the same wish
		case count == have:
			return refuse(ErrInvalidPartitions, "Topic already has %d partition(s)", have)
		case count < have:
			return refuse(ErrInvalidPartitions, "The topic %s currently has %d partition(s); %d would not be an increase", topic, have, count)
		case count > c.cfg.MaxPartitions:
			return refuse(ErrInvalidPartitions, "%d partitions are more than the %d a topic may have", count, c.cfg.MaxPartitions)
		}
		rf := len(v.Assignment[0])
		var added [][]int32
		if assignment == nil {
			var err error
			if added, err = place(im, count-have, rf, int(have), int(v.Assignment[0][0])); err != nil {
				return err
			}
		} else {
			if len(assignment) != int(count-have) {
				return refuse(ErrInvalidAssignment, "Attempted to add %d additional partition(s), but only %d assignment(s) were specified", count-have, len(assignment))
			}
			for _, replicas := range assignment {
				if err := checkReplicas(im, replicas, rf); err != nil {
					return err
				}
				added = append(added, slices.Clone(replicas))
			}
		}
		v.Assignment = append(slices.Clone(v.Assignment), added...)
		tried = true
		return nil
	}
	if validateOnly {
		v := *t.value
		return grow(&v)
	}
	return during(c.changeTopic(ctx, t, grow), "add partitions to topic %s", topic)
}

// changeTopic changes a topic in place; its id must still be that of t.
func (c *Client) changeTopic(ctx context.Context, t *Topic, fn func(*topicValue) error) error {
	return change(ctx, c, keyTopic(t.Name), func(r *topicRecord, exists bool) error {
		if r.Topic == nil || r.Topic.ID != t.ID {
			return refuse(ErrUnknownTopic, "The topic '%s' does not exist", t.Name)
		}
		return fn(r.Topic)
	})
}

// AlterOp is what to do with one configuration, with Kafka's numbers (KIP-339).
type AlterOp int8

// The operations of IncrementalAlterConfigs.
const (
	OpSet      AlterOp = 0
	OpDelete   AlterOp = 1
	OpAppend   AlterOp = 2
	OpSubtract AlterOp = 3
)

// AlterConfig is one change of one configuration. Value is not used by OpDelete.
type AlterConfig struct {
	Name  string
	Op    AlterOp
	Value string
}

// AlterTopicConfigs changes a topic's own configurations, all or none.
func (c *Client) AlterTopicConfigs(ctx context.Context, topic string, changes []AlterConfig, validateOnly bool) error {
	return c.alterTopic(ctx, topic, validateOnly, func(configs map[string]string, l layers, v *topicValue) error {
		return alter(topicSpecs, configs, changes, func(s *spec) string {
			cur, _ := l.topicValue(s, v.Configs)
			return cur
		})
	})
}

// ReplaceTopicConfigs makes configs the topic's only own configurations, as
// AlterConfigs does.
func (c *Client) ReplaceTopicConfigs(ctx context.Context, topic string, configs map[string]string, validateOnly bool) error {
	return c.alterTopic(ctx, topic, validateOnly, func(own map[string]string, _ layers, _ *topicValue) error {
		clear(own)
		maps.Copy(own, configs)
		return nil
	})
}

func (c *Client) alterTopic(ctx context.Context, topic string, validateOnly bool, fn func(map[string]string, layers, *topicValue) error) error {
	t, ok := c.Image().TopicByName(topic)
	if !ok {
		return refuse(ErrUnknownTopic, "The topic '%s' does not exist", topic)
	}
	apply := func(v *topicValue) error {
		l := c.Image().layers
		before := *v
		v.Configs = maps.Clone(v.Configs)
		if v.Configs == nil {
			v.Configs = map[string]string{}
		}
		if err := fn(v.Configs, l, &before); err != nil {
			return err
		}
		if err := l.checkTopic(v, &before); err != nil {
			return err
		}
		cfg := l.resolve(v)
		v.EverCompacted = v.EverCompacted || cfg.Compact
		v.EverTiered = v.EverTiered || cfg.RemoteEnabled
		return nil
	}
	if validateOnly {
		v := *t.value
		return apply(&v)
	}
	return during(c.changeTopic(ctx, t, apply), "configure topic %s", topic)
}

// alter applies changes to configs. effective is a configuration's present value,
// own or inherited: what lists are appended to.
func alter(specs []spec, configs map[string]string, changes []AlterConfig, effective func(*spec) string) error {
	seen := map[string]bool{}
	for _, ch := range changes {
		if seen[ch.Name] {
			return refuse(ErrInvalidRequest, "Error due to duplicate config keys: %s", ch.Name)
		}
		seen[ch.Name] = true
		s := findSpec(specs, ch.Name)
		if s == nil && ch.Op != OpDelete {
			return refuse(ErrInvalidConfig, "Unknown config name: %s", ch.Name)
		}
		switch ch.Op {
		case OpSet:
			configs[ch.Name] = ch.Value
		case OpDelete:
			delete(configs, ch.Name)
		case OpAppend, OpSubtract:
			if s.typ != TypeList {
				return refuse(ErrInvalidConfig, "Can't %s to key %s because its type is not LIST", map[AlterOp]string{OpAppend: "append", OpSubtract: "subtract"}[ch.Op], ch.Name)
			}
			items := splitList(effective(s))
			for _, f := range splitList(ch.Value) {
				i := slices.Index(items, f)
				switch {
				case ch.Op == OpAppend && i < 0:
					items = append(items, f)
				case ch.Op == OpSubtract && i >= 0:
					items = slices.Delete(items, i, i+1)
				}
			}
			configs[ch.Name] = strings.Join(items, ",")
		default:
			return refuse(ErrInvalidRequest, "Unknown operation %d", ch.Op)
		}
	}
	return nil
}

// AlterBrokerConfigs changes the dynamic configuration of one broker, or with
// node -1 the cluster-wide defaults, all or none. Configurations that only a
// restart can change are ErrInvalidRequest.
func (c *Client) AlterBrokerConfigs(ctx context.Context, node int32, changes []AlterConfig, validateOnly bool) error {
	return c.alterBroker(ctx, node, validateOnly, func(configs map[string]string, l layers) error {
		return alter(brokerSpecs, configs, changes, func(s *spec) string {
			v, _, _ := l.value(s)
			return v
		})
	})
}

// ReplaceBrokerConfigs makes configs the only dynamic ones of a broker, or with
// node -1 of the cluster-wide defaults, as AlterConfigs does.
func (c *Client) ReplaceBrokerConfigs(ctx context.Context, node int32, configs map[string]string, validateOnly bool) error {
	return c.alterBroker(ctx, node, validateOnly, func(own map[string]string, _ layers) error {
		clear(own)
		maps.Copy(own, configs)
		return nil
	})
}

func (c *Client) alterBroker(ctx context.Context, node int32, validateOnly bool, fn func(map[string]string, layers) error) error {
	key := keyConfigCluster
	if node >= 0 {
		if _, ok := c.Image().Broker(node); !ok {
			return refuse(ErrUnknownBroker, "broker %d is not registered", node)
		}
		key = keyConfigBroker(node)
	}
	var set, next layers
	apply := func(r *configRecord, exists bool) error {
		im := c.Image()
		before := r.Configs
		r.Configs = maps.Clone(r.Configs)
		if r.Configs == nil {
			r.Configs = map[string]string{}
		}
		l := layers{cluster: im.configs[keyConfigCluster].configs}
		if node >= 0 {
			l.own = before
		} else {
			l.cluster = before
		}
		if node == im.node || node < 0 {
			l.static = im.layers.static
		}
		if err := fn(r.Configs, l); err != nil {
			return err
		}
		if err := checkBroker(r.Configs, before); err != nil {
			return err
		}
		// Other brokers have other layers, so what is set counts by itself, too.
		set, next = layers{own: r.Configs}, l
		if node >= 0 {
			next.own = r.Configs
		} else {
			next.own, next.cluster = im.layers.own, r.Configs
		}
		if r.Configs[configPolicy] == before[configPolicy] {
			return nil
		}
		if err := im.checkPolicy(set); err != nil {
			return err
		}
		return im.checkPolicy(next)
	}
	if validateOnly {
		return apply(&configRecord{Configs: c.Image().configs[key].configs}, true)
	}
	err := change(ctx, c, key, apply)
	for _, l := range []layers{set, next} {
		if err == nil {
			err = c.rememberCompacted(ctx, l)
		}
	}
	return during(err, "change %s", key)
}

// checkBroker validates dynamic broker configurations.
func checkBroker(next, before map[string]string) error {
	var fixed []string
	for _, name := range slices.Sorted(maps.Keys(next)) {
		s := findSpec(brokerSpecs, name)
		if s == nil {
			return refuse(ErrInvalidConfig, "Unknown broker config name: %s", name)
		}
		if old, ok := before[name]; ok && old == next[name] {
			continue
		}
		if !s.dynamic {
			fixed = append(fixed, name)
			continue
		}
		if err := s.validate(next[name]); err != nil {
			return refuse(ErrInvalidConfig, "%v", err)
		}
		next[name] = s.canonical(next[name])
	}
	if len(fixed) > 0 {
		return refuse(ErrInvalidRequest, "Cannot update these configs dynamically: Set(%s)", strings.Join(fixed, ", "))
	}
	return nil
}
