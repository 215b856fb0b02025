package metadata

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// formatMajor and formatMinor version every value in the store. An unknown major
// is refused, an unknown minor is read, unknown fields are skipped.
const (
	formatMajor = 1
	formatMinor = 0
)

// header opens every value. Version counts the changes of the key, so that a
// store that went back and grew again shows: a later revision has a later
// version. Request is unique to one attempt to change the key, and is how an
// attempt with an unknown outcome finds out that it was the one.
type header struct {
	Major   int    `json:"major"`
	Minor   int    `json:"minor"`
	Version int64  `json:"ver"`
	Request string `json:"req"`
}

func (h *header) head() *header { return h }

func (h *header) seen(revision uint64) seen { return seen{revision, h.Version, h.Request} }

type record interface{ head() *header }

// decode reads a value into r.
func decode(key string, value []byte, r record) error {
	if err := json.Unmarshal(value, r); err != nil {
		return fmt.Errorf("metadata key %s: %w", key, err)
	}
	if h := r.head(); h.Major != formatMajor {
		return fmt.Errorf("metadata key %s has format %d.%d, this build reads %d.x: %w", key, h.Major, h.Minor, formatMajor, ErrNewerFormat)
	}
	return nil
}

// encode stamps the format, the next version and the request id. Our records
// always marshal.
func encode(r record, request string) []byte {
	*r.head() = header{Major: formatMajor, Minor: formatMinor, Version: r.head().Version + 1, Request: request}
	p, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("BUG: metadata record %T does not marshal: %v", r, err))
	}
	return p
}

// ClusterInfo is the identity of the cluster.
type ClusterInfo struct {
	ID      string    `json:"id"`   // 22 characters, as Kafka's
	Name    string    `json:"name"` // --cluster
	Created time.Time `json:"created"`
}

type clusterRecord struct {
	header
	ClusterInfo
}

// topicRecord is the value of a normalised name.
type topicRecord struct {
	header
	Topic      *topicValue `json:"topic,omitempty"`
	Tombstones []Tombstone `json:"tombstones,omitempty"`
}

type topicValue struct {
	ID         TopicID           `json:"id"`
	Name       string            `json:"name"`
	Internal   bool              `json:"internal,omitempty"`
	Created    time.Time         `json:"created"`
	Assignment [][]int32         `json:"assignment"`
	Configs    map[string]string `json:"configs,omitempty"`
	// Remote is the broker's default for remote.storage.enable when the topic
	// was made, so that a later change of the default touches no existing topic.
	Remote bool `json:"remote,omitempty"`
	// EverCompacted and EverTiered remember what the topic has been: tiering of
	// compacted ranges does not exist, and tiered data stays readable.
	EverCompacted bool `json:"ever_compacted,omitempty"`
	EverTiered    bool `json:"ever_tiered,omitempty"`
}

// Tombstone says that a topic was deleted. It stays for days, and until every
// broker and the bucket have let go of the topic's data.
type Tombstone struct {
	ID         TopicID   `json:"id"`
	Name       string    `json:"name"`
	At         time.Time `json:"at"`
	Partitions int32     `json:"partitions"`
	// Brokers may still hold replicas; Bucket says the bucket may hold objects.
	Brokers []int32 `json:"brokers,omitempty"`
	Bucket  bool    `json:"bucket,omitempty"`
}

func (t *Tombstone) dataGone() bool { return len(t.Brokers) == 0 && !t.Bucket }

// Member is a replica as the ISR names it: not only the broker, but the process
// and the disk whose data earned the place (KIP-903, KIP-858).
type Member struct {
	Node        int32  `json:"node"`
	Incarnation uint64 `json:"inc"`
	DirID       string `json:"dir,omitempty"`
}

// PartitionState is who leads a partition, in which epoch, with which replicas.
// It changes by one compare-and-set. Treat the slices as read-only.
type PartitionState struct {
	Leader      int32    `json:"leader"`       // -1: none
	LeaderEpoch int32    `json:"leader_epoch"` // -1: never led
	ISR         []Member `json:"isr"`
	ELR         []Member `json:"elr,omitempty"` // eligible leader replicas (KIP-966)
	Replicas    []int32  `json:"replicas"`
	Version     int64    `json:"-"` // counts the changes of this key
	Revision    uint64   `json:"-"` // of the store; 0: no key yet
	Request     string   `json:"-"` // id of the change that made this state
}

// InISR says whether a replica on node is in the ISR.
func (s PartitionState) InISR(node int32) bool {
	return slices.ContainsFunc(s.ISR, func(m Member) bool { return m.Node == node })
}

type partitionRecord struct {
	header
	PartitionState
}

// Endpoint is one listener of a broker, as clients or brokers reach it.
type Endpoint struct {
	Name     string `json:"name"`
	Host     string `json:"host"`
	Port     int32  `json:"port"`
	Protocol string `json:"protocol"`
}

// Broker is the registration of one broker process.
type Broker struct {
	Node        int32      `json:"node"`
	Incarnation uint64     `json:"inc"`
	Endpoints   []Endpoint `json:"endpoints"`
	Rack        string     `json:"rack,omitempty"`
	DirIDs      []string   `json:"dirs"`
	// Build is the version of the program, for rolling upgrades.
	Build string `json:"build,omitempty"`

	seen seen
}

// Endpoint returns the listener of that name.
func (b *Broker) Endpoint(listener string) (Endpoint, bool) {
	for _, e := range b.Endpoints {
		if e.Name == listener {
			return e, true
		}
	}
	return Endpoint{}, false
}

type brokerRecord struct {
	header
	Broker
}

type configRecord struct {
	header
	Configs map[string]string `json:"configs"`
}

type producerIDsRecord struct {
	header
	Next int64 `json:"next"`
}
