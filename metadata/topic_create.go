package metadata

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxTopicName is Kafka's limit: names become folder names there.
const maxTopicName = 249

// NewTopic asks for a topic.
type NewTopic struct {
	Name string
	// Partitions and ReplicationFactor; -1 is the broker's default.
	Partitions        int32
	ReplicationFactor int16
	// Assignment gives the replicas of each partition; Partitions and
	// ReplicationFactor are -1 then. nil lets the cluster choose.
	Assignment map[int32][]int32
	Configs    map[string]string
	Internal   bool
	// ValidateOnly checks everything and makes nothing.
	ValidateOnly bool
}

// CheckTopicName is Kafka's rule for names: ErrInvalidTopicName with the reason.
func CheckTopicName(name string) error {
	fail := func(why string) error { return refuse(ErrInvalidTopicName, "Topic name is invalid: %s", why) }
	switch {
	case name == "":
		return fail("the empty string is not allowed")
	case name == "." || name == "..":
		return fail(fmt.Sprintf("'%s' is not allowed", name))
	case len(name) > maxTopicName:
		return fail(fmt.Sprintf("the length of '%s' is longer than the max allowed length %d", name, maxTopicName))
	}
	if strings.IndexFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-')
	}) >= 0 {
		return fail(fmt.Sprintf("'%s' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'", name))
	}
	return nil
}

// CreateTopic makes a topic and returns it as it is now. With ValidateOnly the
// topic returned is what would have been made, without an id. Of racing creations
// whose names are equal or collide, one wins and the others get ErrTopicExists or
// ErrInvalidTopicName.
func (c *Client) CreateTopic(ctx context.Context, n NewTopic) (*Topic, error) {
	if err := CheckTopicName(n.Name); err != nil {
		return nil, err
	}
	// Existing topics are named before anything else is found wrong, as in
	// Kafka. The image may be behind a deletion that another broker has
	// answered, so the key itself is asked; the compare-and-set below decides.
	if err := c.collides(c.Image(), n.Name); err != nil {
		e, gerr := c.get(ctx, keyTopic(n.Name))
		if gerr != nil || c.absorb([]Entry{e}) != nil {
			return nil, err
		}
		if err := c.collides(c.Image(), n.Name); err != nil {
			return nil, err
		}
	}
	v, err := c.planTopic(n)
	if err != nil {
		return nil, err
	}
	if n.ValidateOnly {
		return c.topicOf(v), nil
	}
	if v.ID, err = c.newTopicID(); err != nil {
		return nil, err
	}
	v.Created = c.cfg.Now().UTC()
	err = change(ctx, c, keyTopic(n.Name), func(r *topicRecord, exists bool) error {
		if r.Topic != nil && r.Topic.ID == v.ID {
			return errUnchanged // an attempt in doubt was ours, and somebody built on it
		}
		if r.Topic != nil {
			return nameTaken(r.Topic.Name, n.Name)
		}
		r.Topic = v
		c.sweep(r)
		return nil
	})
	if err != nil {
		return nil, during(err, "create topic %s", n.Name)
	}
	if t, ok := c.Image().TopicByID(v.ID); ok {
		return t, nil
	}
	return c.topicOf(v), nil // made, and deleted again by somebody
}

// nameTaken says why the name cannot be had.
func nameTaken(existing, name string) error {
	if existing == name {
		return refuse(ErrTopicExists, "Topic '%s' already exists", name)
	}
	return refuse(ErrInvalidTopicName, "Topic '%s' collides with existing topic: %s", name, existing)
}

func (c *Client) collides(im *Image, name string) error {
	if k, ok := im.topicKeys.get(normalise(name)); ok {
		if t, ok := im.TopicByID(k.id); ok {
			return nameTaken(t.Name, name)
		}
	}
	return nil
}

// topicOf is a topic that is not in the image.
func (c *Client) topicOf(v *topicValue) *Topic {
	return &Topic{ID: v.ID, Name: v.Name, Internal: v.Internal, Created: v.Created, Partitions: int32(len(v.Assignment)),
		Configs: v.Configs, value: v, config: c.Image().layers.resolve(v)}
}

// Describe lists the topic's configurations as im's layers resolve them; for a
// topic of CreateTopic with ValidateOnly too.
func (im *Image) Describe(t *Topic) []ConfigEntry { return im.layers.describeTopic(t.value) }

// planTopic checks a request and completes it with defaults.
func (c *Client) planTopic(n NewTopic) (*topicValue, error) {
	im := c.Image()
	v := &topicValue{Name: n.Name, Internal: n.Internal, Configs: maps.Clone(n.Configs), Remote: im.BrokerConfig().Bool("firn.remote.storage.enable")}
	if v.Configs == nil {
		v.Configs = map[string]string{}
	}
	var err error
	if n.Assignment != nil {
		if n.Partitions != -1 || n.ReplicationFactor != -1 {
			return nil, refuse(ErrInvalidRequest, "A manual partition assignment was specified, but the number of partitions or the replication factor was not set to -1")
		}
		v.Assignment, err = checkAssignment(im, n.Assignment, c.cfg.MaxPartitions)
	} else {
		v.Assignment, err = c.choose(im, n)
	}
	if err != nil {
		return nil, err
	}
	if err := im.layers.checkTopic(v, nil); err != nil {
		return nil, err
	}
	cfg := im.layers.resolve(v)
	v.EverCompacted, v.EverTiered = cfg.Compact, cfg.RemoteEnabled
	return v, nil
}

// choose places a topic's replicas.
func (c *Client) choose(im *Image, n NewTopic) ([][]int32, error) {
	partitions, rf := n.Partitions, int(n.ReplicationFactor)
	if partitions == -1 {
		partitions = int32(im.BrokerConfig().Int("num.partitions"))
	}
	if rf == -1 {
		rf = int(im.BrokerConfig().Int("default.replication.factor"))
		if n.Internal {
			rf = min(rf, len(im.Brokers()))
		}
	}
	switch {
	case partitions < 1:
		return nil, refuse(ErrInvalidPartitions, "Number of partitions must be larger than 0, or -1 to use the default value")
	case rf < 1:
		return nil, refuse(ErrInvalidReplicationFactor, "Replication factor must be larger than 0, or -1 to use the default value")
	case partitions > c.cfg.MaxPartitions:
		return nil, refuse(ErrInvalidPartitions, "%d partitions are more than the %d a topic may have", partitions, c.cfg.MaxPartitions)
	}
	return place(im, partitions, rf, 0, c.placeFrom(im))
}

// placeFrom turns the starting broker from topic to topic, so that small topics
// do not all land on the first one.
func (c *Client) placeFrom(im *Image) int { return len(im.topics) }

// place gives each of n partitions rf brokers in a row, beginning one further
// with each partition and a shift with each round, so that leaders and the pairs
// of leader and follower are spread. Racks take turns.
func place(im *Image, n int32, rf, first, start int) ([][]int32, error) {
	brokers := byRack(im.Brokers())
	if rf > len(brokers) {
		return nil, refuse(ErrInvalidReplicationFactor, "Unable to replicate the partition %d time(s): only %d broker(s) are registered", rf, len(brokers))
	}
	out := make([][]int32, n)
	for p := range out {
		at := first + p
		shift := at / len(brokers)
		replicas := make([]int32, rf)
		for i := range replicas {
			j := start + at
			if i > 0 && len(brokers) > 1 {
				j += 1 + (shift+i-1)%(len(brokers)-1)
			}
			replicas[i] = brokers[j%len(brokers)]
		}
		out[p] = replicas
	}
	return out, nil
}

// byRack orders brokers so that neighbours are in different racks where
// possible.
func byRack(brokers []*Broker) []int32 {
	racks := map[string][]int32{}
	var names []string
	for _, b := range brokers {
		if _, ok := racks[b.Rack]; !ok {
			names = append(names, b.Rack)
		}
		racks[b.Rack] = append(racks[b.Rack], b.Node)
	}
	slices.Sort(names)
	var out []int32
	for len(out) < len(brokers) {
		for _, r := range names {
			if q := racks[r]; len(q) > 0 {
				out, racks[r] = append(out, q[0]), q[1:]
			}
		}
	}
	return out
}

// checkAssignment checks a manual assignment: partitions 0 to n-1, each with the
// same number of distinct, registered brokers.
func checkAssignment(im *Image, a map[int32][]int32, limit int32) ([][]int32, error) {
	if len(a) == 0 {
		return nil, refuse(ErrInvalidAssignment, "no partitions are assigned")
	}
	if len(a) > int(limit) {
		return nil, refuse(ErrInvalidPartitions, "%d partitions are more than the %d a topic may have", len(a), limit)
	}
	out := make([][]int32, len(a))
	for p, replicas := range a {
		if p < 0 || int(p) >= len(out) {
			return nil, refuse(ErrInvalidAssignment, "partitions should be a consecutive 0-based integer sequence")
		}
		if err := checkReplicas(im, replicas, len(a[0])); err != nil {
			return nil, err
		}
		out[p] = slices.Clone(replicas)
	}
	return out, nil
}

func checkReplicas(im *Image, replicas []int32, rf int) error {
	if len(replicas) == 0 {
		return refuse(ErrInvalidAssignment, "The manual partition assignment includes an empty replica list")
	}
	if len(replicas) != rf {
		return refuse(ErrInvalidAssignment, "The manual partition assignment includes a partition with %d replica(s), but this is not consistent with previous partitions, which have %d replica(s)", len(replicas), rf)
	}
	for i, r := range replicas {
		if _, ok := im.Broker(r); !ok {
			return refuse(ErrInvalidAssignment, "The manual partition assignment includes broker %d, but no such broker is registered", r)
		}
		if slices.Contains(replicas[:i], r) {
			return refuse(ErrInvalidAssignment, "The manual partition assignment includes the broker %d more than once", r)
		}
	}
	return nil
}

// EnsureTopic is CreateTopic where an existing topic of exactly that name is as
// good as a new one.
func (c *Client) EnsureTopic(ctx context.Context, n NewTopic) (*Topic, error) {
	if t, ok := c.Image().TopicByName(n.Name); ok {
		return t, nil
	}
	t, err := c.CreateTopic(ctx, n)
	if errors.Is(err, ErrTopicExists) {
		// The winner may be newer than the image: the key says who it is.
		e, gerr := c.get(ctx, keyTopic(n.Name))
		if gerr != nil {
			return nil, gerr
		}
		if err := c.absorb([]Entry{e}); err != nil {
			return nil, err
		}
		if t, ok := c.Image().TopicByName(n.Name); ok {
			return t, nil
		}
	}
	return t, err
}
