package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

// Version is how JSON objects say their format.
var Version = strconv.Itoa(Major) + "." + strconv.Itoa(Minor)

// Cluster says what lies below a prefix. It is the first object of a cluster.
type Cluster struct {
	Magic  string `json:"magic"` // "firn-cluster"
	Format string `json:"format"`
	Name   string `json:"cluster"`
	ID     string `json:"cluster_id"`
	// Generation is raised by a restore: writers of an older one are fenced
	// (SAFETY 19).
	Generation uint64 `json:"generation"`
	CreatedMs  int64  `json:"created_ms"`
	Sum        string `json:"crc32c"` // of the object with this field empty
}

// Topic says what a topic's folder holds.
type Topic struct {
	Magic      string            `json:"magic"` // "firn-topic"
	Format     string            `json:"format"`
	ClusterID  string            `json:"cluster_id"`
	Name       string            `json:"topic"`
	ID         string            `json:"topic_id"`
	Partitions int32             `json:"partitions"`
	Configs    map[string]string `json:"configs"` // those that differ from the defaults
	State      string            `json:"state"`   // StateLive, StateUnlinked, StateDeleting
	SinceMs    int64             `json:"since_ms,omitempty"`
	Sum        string            `json:"crc32c"`
}

// States of a topic in the bucket.
const (
	StateLive     = "live"
	StateUnlinked = "unlinked" // deleted, may still be revived
	StateDeleting = "deleting" // irrevocable
)

const (
	clusterMagic = "firn-cluster"
	topicMagic   = "firn-topic"
)

// EncodeCluster writes cluster.json.
func EncodeCluster(c Cluster) []byte {
	c.Magic, c.Format, c.Sum = clusterMagic, Version, ""
	c.Sum = jsonSum(c)
	return marshal(c)
}

// EncodeTopic writes topic.json.
func EncodeTopic(t Topic) []byte {
	t.Magic, t.Format, t.Sum = topicMagic, Version, ""
	t.Sum = jsonSum(t)
	return marshal(t)
}

// DecodeCluster reads cluster.json.
func DecodeCluster(b []byte) (c Cluster, err error) {
	if err := decodeJSON(b, clusterMagic, "cluster.json", &c); err != nil {
		return Cluster{}, err
	}
	return c, nil
}

// DecodeTopic reads topic.json.
func DecodeTopic(b []byte) (t Topic, err error) {
	if err := decodeJSON(b, topicMagic, "topic.json", &t); err != nil {
		return Topic{}, err
	}
	return t, nil
}

// The sum is over the canonical form of all fields but the sum itself, those
// included that this build does not know: keys sorted, no spaces.
func decodeJSON(b []byte, magic, what string, v any) error {
	var all map[string]any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&all); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, what, err)
	}
	if all["magic"] != magic {
		return fmt.Errorf("%w: %s has magic %v, not %q", ErrCorrupt, what, all["magic"], magic)
	}
	version, _ := all["format"].(string)
	if major, _, _ := strings.Cut(version, "."); major != strconv.Itoa(Major) {
		return fmt.Errorf("%w: %s has format %q, this build reads %s: start a newer firn", ErrVersion, what, version, Version)
	}
	sum, _ := all["crc32c"].(string)
	if want := sumOf(all); sum != want {
		return fmt.Errorf("%w: %s has checksum %q, its fields say %q", ErrCorrupt, what, sum, want)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, what, err)
	}
	return nil
}

func jsonSum(v any) string {
	var all map[string]any
	d := json.NewDecoder(bytes.NewReader(marshal(v)))
	d.UseNumber()
	if err := d.Decode(&all); err != nil {
		panic("BUG: " + err.Error())
	}
	return sumOf(all)
}

func sumOf(all map[string]any) string {
	delete(all, "crc32c")
	b, err := json.Marshal(all) // sorts keys
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return fmt.Sprintf("%08x", crc32.Checksum(b, castagnoli))
}

func marshal(v any) []byte {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return append(b, '\n')
}
