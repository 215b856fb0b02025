package metadata

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// emptyImage is the state before anything was folded.
func emptyImage(node int32, static map[string]string) *Image {
	return &Image{node: node, layers: layers{static: static}}
}

// folder builds the next image out of the last one. It copies a part the first
// time it changes it, so folding many entries costs what they touch.
type folder struct {
	im         *Image
	byID       shardsEdit[TopicID, *Topic]
	topicKeys  shardsEdit[string, *topicKey]
	tombstones shardsEdit[TopicID, *Tombstone]
	partitions shardsEdit[TopicID, *partitionSet]
	hints      shardsEdit[string, hint]
	deleted    shardsEdit[string, seen]
	ownTopics  bool // topics is a copy
	changed    bool
	layers     bool // the broker configuration changed
}

func newFolder(old *Image) *folder {
	c := *old
	f := &folder{im: &c}
	f.byID, f.topicKeys, f.tombstones = edit(&c.byID), edit(&c.topicKeys), edit(&c.tombstones)
	f.partitions, f.hints, f.deleted = edit(&c.partitions), edit(&c.hints), edit(&c.deleted)
	return f
}

// image ends the folding. The folder must not be used afterwards.
func (f *folder) image() *Image {
	im := f.im
	if f.layers {
		im.layers.own = im.configs[keyConfigBroker(im.node)].configs
		im.layers.cluster = im.configs[keyConfigCluster].configs
		for i, t := range im.topics {
			if cfg := im.layers.resolve(t.value); *cfg != *t.config {
				c := *t
				c.config = cfg
				f.copyTopics()
				im.topics[i] = &c
				f.byID.set(t.ID, &c)
			}
		}
	}
	return im
}

func (f *folder) copyTopics() {
	if !f.ownTopics {
		f.im.topics, f.ownTopics = slices.Clone(f.im.topics), true
	}
}

// add folds one entry. An entry that is not newer than what is known of its key
// changes nothing, so entries may come twice and in any order: the result
// depends on the newest entry of each key alone. It fails for a value this build
// cannot read, and for an entry that contradicts what is known; neither is
// folded.
func (f *folder) add(e Entry) error {
	old := f.im.known(e.Key)
	if e.Revision <= old.revision {
		f.im.revision = max(f.im.revision, e.Revision)
		return nil
	}
	if !e.Deleted && old.version > 0 {
		// Versions grow with revisions, or the store went back in between.
		var r struct{ header }
		if err := decode(e.Key, e.Value, &r); err != nil {
			return err
		}
		if r.Version <= old.version {
			return &lostError{key: e.Key, what: fmt.Sprintf("went back from version %d to %d", old.version, r.Version)}
		}
	}
	if err := f.put(e); err != nil {
		return err
	}
	if !e.Deleted && f.im.deleted.len() > 0 {
		f.deleted.remove(e.Key)
	}
	f.changed = true
	f.im.revision = max(f.im.revision, e.Revision)
	return nil
}

func (f *folder) put(e Entry) error {
	if e.Deleted {
		return f.remove(e)
	}
	im := f.im
	switch {
	case e.Key == keyCluster:
		var r clusterRecord
		if err := decode(e.Key, e.Value, &r); err != nil {
			return err
		}
		im.cluster, im.clusterSeen = r.ClusterInfo, r.header.seen(e.Revision)
	case strings.HasPrefix(e.Key, prefixTopics):
		return f.putTopic(e)
	case strings.HasPrefix(e.Key, prefixPartitions):
		id, n, err := parseKeyPartition(e.Key[len(prefixPartitions):])
		if err != nil {
			return err
		}
		st, err := decodePartition(e)
		if err != nil {
			return err
		}
		set, _ := f.im.partitions.get(id)
		f.partitions.set(id, set.with(n, st))
	case strings.HasPrefix(e.Key, prefixBrokers):
		var r brokerRecord
		if err := decode(e.Key, e.Value, &r); err != nil {
			return err
		}
		b := r.Broker
		b.seen = r.header.seen(e.Revision)
		i, found := slices.BinarySearchFunc(im.brokers, b.Node, func(b *Broker, n int32) int { return int(b.Node - n) })
		im.brokers = slices.Clone(im.brokers)
		if found {
			im.brokers[i] = &b
		} else {
			im.brokers = slices.Insert(im.brokers, i, &b)
		}
	case strings.HasPrefix(e.Key, "config."):
		var r configRecord
		if err := decode(e.Key, e.Value, &r); err != nil {
			return err
		}
		im.configs = maps.Clone(im.configs)
		if im.configs == nil {
			im.configs = map[string]configEntry{}
		}
		im.configs[e.Key] = configEntry{r.header.seen(e.Revision), r.Configs}
		f.layers = true
	case strings.HasPrefix(e.Key, prefixHints):
		f.hints.set(e.Key[len(prefixHints):], hint{seen{revision: e.Revision}, e.Value})
	default:
		var r struct{ header }
		if err := decode(e.Key, e.Value, &r); err != nil {
			return err
		}
		im.others = maps.Clone(im.others)
		if im.others == nil {
			im.others = map[string]seen{}
		}
		im.others[e.Key] = r.header.seen(e.Revision)
	}
	return nil
}

func decodePartition(e Entry) (*PartitionState, error) {
	var r partitionRecord
	if err := decode(e.Key, e.Value, &r); err != nil {
		return nil, err
	}
	st := r.PartitionState
	st.Revision, st.Version, st.Request = e.Revision, r.header.Version, r.header.Request
	return &st, nil
}

func (f *folder) putTopic(e Entry) error {
	var r topicRecord
	if err := decode(e.Key, e.Value, &r); err != nil {
		return err
	}
	name := e.Key[len(prefixTopics):]
	if v := r.Topic; v != nil && (normalise(v.Name) != name || len(v.Assignment) == 0 || len(v.Assignment) > maxPartitionNumber) {
		return fmt.Errorf("metadata key %s holds topic %q with %d partitions", e.Key, v.Name, len(v.Assignment))
	}
	old, _ := f.im.topicKeys.get(name)
	next := &topicKey{seen: r.header.seen(e.Revision), tombstones: r.Tombstones}
	if old != nil {
		if t, ok := f.im.byID.get(old.id); ok && (r.Topic == nil || r.Topic.ID != old.id) {
			f.dropTopic(t)
		}
		for _, t := range old.tombstones {
			f.tombstones.remove(t.ID)
		}
	}
	for i := range r.Tombstones {
		f.tombstones.set(r.Tombstones[i].ID, &r.Tombstones[i])
	}
	if v := r.Topic; v != nil {
		next.id = v.ID
		t := &Topic{ID: v.ID, Name: v.Name, Internal: v.Internal, Created: v.Created, Partitions: int32(len(v.Assignment)), Configs: v.Configs, value: v}
		t.config = f.im.layers.resolve(v)
		i, found := f.im.findTopic(v.Name)
		f.copyTopics()
		if found {
			if was := f.im.topics[i]; *was.config == *t.config {
				t.config = was.config
			}
			f.im.topics[i] = t
		} else {
			f.im.topics = slices.Insert(f.im.topics, i, t)
		}
		f.byID.set(v.ID, t)
	}
	f.topicKeys.set(name, next)
	return nil
}

func (f *folder) dropTopic(t *Topic) {
	f.byID.remove(t.ID)
	if i, ok := f.im.findTopic(t.Name); ok {
		f.copyTopics()
		f.im.topics = slices.Delete(f.im.topics, i, i+1)
	}
}

// remove folds the deletion of a key. Of the authority keys only those of a
// tombstoned topic's partitions are ever deleted: any other deletion is a loss.
func (f *folder) remove(e Entry) error {
	switch {
	case strings.HasPrefix(e.Key, prefixHints):
		f.hints.remove(e.Key[len(prefixHints):])
	case strings.HasPrefix(e.Key, prefixPartitions):
		id, n, err := parseKeyPartition(e.Key[len(prefixPartitions):])
		if err != nil {
			return err
		}
		if _, alive := f.im.byID.get(id); alive {
			return &lostError{key: e.Key, what: "was deleted though its topic exists"}
		}
		if set, _ := f.im.partitions.get(id); set.get(n) != nil {
			if next := set.with(n, nil); next.empty() {
				f.partitions.remove(id)
			} else {
				f.partitions.set(id, next)
			}
		}
	case f.im.known(e.Key).revision > 0:
		return &lostError{key: e.Key, what: "was deleted"}
	}
	f.deleted.set(e.Key, seen{revision: e.Revision})
	return nil
}

// lostError says that an authority key is gone or went back.
type lostError struct{ key, what string }

func (e *lostError) Error() string { return "metadata key " + e.key + " " + e.what }
