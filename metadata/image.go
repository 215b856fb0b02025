package metadata

import (
	"slices"
	"strings"
	"time"
)

// Topic is one topic of an Image. It is immutable.
type Topic struct {
	ID       TopicID
	Name     string
	Internal bool
	Created  time.Time
	// Partitions is how many there are: [0, Partitions).
	Partitions int32
	// Configs are the topic's own settings, as they were given.
	Configs map[string]string

	value  *topicValue
	config *TopicConfig
}

// InitialReplicas are the brokers the partition was assigned to when it was
// made; PartitionState.Replicas is what it has now.
func (t *Topic) InitialReplicas(partition int32) []int32 {
	if partition < 0 || partition >= t.Partitions {
		return nil
	}
	return t.value.Assignment[partition]
}

// AssignedTo says whether the partition was made with a replica on node.
func (t *Topic) AssignedTo(partition, node int32) bool {
	return slices.Contains(t.InitialReplicas(partition), node)
}

// ReplicationFactor is that of partition 0, as Kafka reports it.
func (t *Topic) ReplicationFactor() int16 {
	if t.Partitions == 0 {
		return 0
	}
	return int16(len(t.value.Assignment[0]))
}

// topicKey is what a key under topics. holds.
type topicKey struct {
	seen
	id         TopicID // zero: no topic
	tombstones []Tombstone
}

// seen identifies one version of one key.
type seen struct {
	revision uint64
	version  int64
	request  string
}

// pageSize is how many partition states are copied when one changes.
const pageSize = 64

// partitionSet holds the states of one topic id's partitions; nil where there is
// no key yet.
type partitionSet struct{ pages []*[pageSize]*PartitionState }

func (s *partitionSet) get(n int32) *PartitionState {
	if s == nil || n < 0 || int(n)/pageSize >= len(s.pages) || s.pages[n/pageSize] == nil {
		return nil
	}
	return s.pages[n/pageSize][n%pageSize]
}

// with returns a copy in which partition n is st.
func (s *partitionSet) with(n int32, st *PartitionState) *partitionSet {
	c := &partitionSet{}
	if s != nil {
		c.pages = s.pages
	}
	c.pages = append(make([]*[pageSize]*PartitionState, 0, max(len(c.pages), int(n)/pageSize+1)), c.pages...)
	for int(n)/pageSize >= len(c.pages) {
		c.pages = append(c.pages, nil)
	}
	page := new([pageSize]*PartitionState)
	if old := c.pages[n/pageSize]; old != nil {
		*page = *old
	}
	page[n%pageSize] = st
	c.pages[n/pageSize] = page
	return c
}

func (s *partitionSet) empty() bool {
	empty := true
	s.each(func(int32, *PartitionState) { empty = false })
	return empty
}

func (s *partitionSet) each(fn func(n int32, st *PartitionState)) {
	for i, p := range s.pages {
		if p == nil {
			continue
		}
		for j, st := range p {
			if st != nil {
				fn(int32(i*pageSize+j), st)
			}
		}
	}
}

// Image is the cluster's state as folded from the store. It is immutable: a
// caller that takes one sees one state for as long as it likes. What it returns
// is shared and read-only.
type Image struct {
	revision uint64
	node     int32

	cluster     ClusterInfo
	clusterSeen seen
	topics      []*Topic // sorted by name
	byID        *shards[TopicID, *Topic]
	topicKeys   *shards[string, *topicKey]
	tombstones  *shards[TopicID, *Tombstone]
	partitions  *shards[TopicID, *partitionSet]
	brokers     []*Broker // sorted by node
	configs     map[string]configEntry
	hints       *shards[string, hint]
	others      map[string]seen // keys that only their owner reads
	deleted     *shards[string, seen]

	layers layers // as this node sees them
}

type configEntry struct {
	seen
	configs map[string]string
}

type hint struct {
	seen
	value []byte
}

// Revision is the newest revision of the store that was folded.
func (im *Image) Revision() uint64 { return im.revision }

// Cluster is the cluster's identity; zero until it is known.
func (im *Image) Cluster() ClusterInfo { return im.cluster }

// ClusterID is Cluster().ID.
func (im *Image) ClusterID() string { return im.cluster.ID }

// Topics lists all topics, sorted by name.
func (im *Image) Topics() []*Topic { return im.topics }

// TopicByName finds a topic by its exact name.
func (im *Image) TopicByName(name string) (*Topic, bool) {
	i, ok := im.findTopic(name)
	if !ok {
		return nil, false
	}
	return im.topics[i], true
}

func (im *Image) findTopic(name string) (int, bool) {
	return slices.BinarySearchFunc(im.topics, name, func(t *Topic, n string) int { return strings.Compare(t.Name, n) })
}

// TopicByID finds a topic by its id.
func (im *Image) TopicByID(id TopicID) (*Topic, bool) { return im.byID.get(id) }

// TopicConfig is the topic's resolved configuration, nil for an unknown topic.
// The pointer stays the same until a value changes.
func (im *Image) TopicConfig(name string) *TopicConfig {
	if t, ok := im.TopicByName(name); ok {
		return t.config
	}
	return nil
}

// Config is Image.TopicConfig of this topic.
func (t *Topic) Config() *TopicConfig { return t.config }

// Tombstoned says that the topic was deleted, explicitly. An id that is neither
// here nor a topic is unknown, which is no reason to delete anything.
func (im *Image) Tombstoned(id TopicID) bool {
	_, ok := im.tombstones.get(id)
	return ok
}

// Tombstones lists the deleted topics that are still remembered.
func (im *Image) Tombstones() []Tombstone {
	var out []Tombstone
	im.tombstones.each(func(_ TopicID, t *Tombstone) bool {
		out = append(out, *t)
		return true
	})
	slices.SortFunc(out, func(a, b Tombstone) int { return a.At.Compare(b.At) })
	return out
}

// Partition is the state of a partition; ok is false when there is none of that
// number. Before its first leadership it has Leader and LeaderEpoch -1 and the
// replicas it was made with.
func (im *Image) Partition(id TopicID, partition int32) (st PartitionState, ok bool) {
	t, ok := im.byID.get(id)
	if !ok || partition < 0 || partition >= t.Partitions {
		return PartitionState{}, false
	}
	return im.partition(t, partition), true
}

func (im *Image) partition(t *Topic, n int32) PartitionState {
	set, _ := im.partitions.get(t.ID)
	if st := set.get(n); st != nil {
		return *st
	}
	return PartitionState{Leader: -1, LeaderEpoch: -1, Replicas: t.value.Assignment[n]}
}

// Brokers lists the registered brokers, sorted by id.
func (im *Image) Brokers() []*Broker { return im.brokers }

// Broker finds a registered broker.
func (im *Image) Broker(node int32) (*Broker, bool) {
	i, ok := slices.BinarySearchFunc(im.brokers, node, func(b *Broker, n int32) int { return int(b.Node - n) })
	if !ok {
		return nil, false
	}
	return im.brokers[i], true
}

// BrokerConfig is this node's own configuration, resolved.
func (im *Image) BrokerConfig() BrokerConfig { return BrokerConfig{im.layers} }

// DescribeTopic lists a topic's configurations with sources and synonyms, nil
// for an unknown topic.
func (im *Image) DescribeTopic(name string) []ConfigEntry {
	t, ok := im.TopicByName(name)
	if !ok {
		return nil
	}
	return im.layers.describeTopic(t.value)
}

// DescribeBroker lists a broker's configurations. Another node's static ones are
// not known here; ask that node. With node -1 it lists the dynamic cluster-wide
// defaults only.
func (im *Image) DescribeBroker(node int32) []ConfigEntry {
	l := layers{cluster: im.configs[keyConfigCluster].configs}
	if node < 0 {
		return l.describeBroker(true)
	}
	l.own = im.configs[keyConfigBroker(node)].configs
	if node == im.node {
		l.static = im.layers.static
	}
	return l.describeBroker(false)
}

// Hint is the last value put under a hint's name, nil when there is none.
func (im *Image) Hint(name string) []byte {
	h, _ := im.hints.get(name)
	return h.value
}

// eachKey calls fn for every authority key the image has folded.
func (im *Image) eachKey(fn func(key string, s seen)) {
	if im.clusterSeen.revision > 0 {
		fn(keyCluster, im.clusterSeen)
	}
	im.topicKeys.each(func(k string, t *topicKey) bool { fn(prefixTopics+k, t.seen); return true })
	im.partitions.each(func(id TopicID, set *partitionSet) bool {
		set.each(func(n int32, st *PartitionState) { fn(keyPartition(id, n), seen{st.Revision, st.Version, st.Request}) })
		return true
	})
	for _, b := range im.brokers {
		fn(keyBroker(b.Node), b.seen)
	}
	for k, c := range im.configs {
		fn(k, c.seen)
	}
	for k, s := range im.others {
		fn(k, s)
	}
}

// countKeys is how many keys of the store the image knows, deleted ones and hints
// included.
func (im *Image) countKeys() int {
	n := im.deleted.len() + im.hints.len()
	im.eachKey(func(string, seen) { n++ })
	return n
}

// kept is the newest revision of a key that may not be lost: every authority key,
// and the marks of deleted ones.
func (im *Image) kept() (newest uint64) {
	im.eachKey(func(_ string, s seen) { newest = max(newest, s.revision) })
	im.deleted.each(func(key string, s seen) bool {
		if !strings.HasPrefix(key, prefixHints) {
			newest = max(newest, s.revision)
		}
		return true
	})
	return newest
}

// known returns the version of key that the image has folded.
func (im *Image) known(key string) seen {
	if s, ok := im.deleted.get(key); ok {
		return s
	}
	switch {
	case key == keyCluster:
		return im.clusterSeen
	case strings.HasPrefix(key, prefixTopics):
		if t, ok := im.topicKeys.get(key[len(prefixTopics):]); ok {
			return t.seen
		}
	case strings.HasPrefix(key, prefixPartitions):
		if id, n, err := parseKeyPartition(key[len(prefixPartitions):]); err == nil {
			set, _ := im.partitions.get(id)
			if st := set.get(n); st != nil {
				return seen{st.Revision, st.Version, st.Request}
			}
		}
	case strings.HasPrefix(key, prefixBrokers):
		if n, err := parseNode(key[len(prefixBrokers):]); err == nil {
			if b, ok := im.Broker(n); ok {
				return b.seen
			}
		}
	case strings.HasPrefix(key, prefixHints):
		h, _ := im.hints.get(key[len(prefixHints):])
		return h.seen
	case strings.HasPrefix(key, "config."):
		return im.configs[key].seen
	default:
		return im.others[key]
	}
	return seen{}
}
