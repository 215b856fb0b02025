package metadata

import (
	"fmt"
	"strconv"
	"strings"
)

// The keys. A cluster has a bucket of its own, so they carry no cluster name.
//
//	cluster                    who this is: cluster id, format, created
//	topics.<normalised name>   the topic of that name, if any, and tombstones
//	partitions.<id hex>.<n>    leader, epoch, ISR; absent before first leadership
//	brokers.<node>             registration
//	config.cluster             dynamic cluster-wide broker defaults
//	config.broker.<node>       dynamic configuration of one broker
//	ids.producer               next producer id
//	hints.<...>                caches of what others know better; may be lost,
//	                           and go with the topic whose id they name
//
// All but the hints are authority keys: they never expire.
const (
	keyCluster       = "cluster"
	keyProducerIDs   = "ids.producer"
	keyConfigCluster = "config.cluster"

	prefixTopics       = "topics."
	prefixPartitions   = "partitions."
	prefixBrokers      = "brokers."
	prefixConfigBroker = "config.broker."
	prefixHints        = "hints."
)

// normalise maps the names that Kafka calls colliding to one: its metric names
// replace '.' by '_'.
func normalise(topic string) string { return strings.ReplaceAll(topic, ".", "_") }

func keyTopic(topic string) string { return prefixTopics + normalise(topic) }

func keyPartition(id TopicID, n int32) string {
	return prefixPartitions + id.Hex() + "." + strconv.Itoa(int(n))
}

func keyBroker(node int32) string { return prefixBrokers + strconv.Itoa(int(node)) }

func keyConfigBroker(node int32) string { return prefixConfigBroker + strconv.Itoa(int(node)) }

// parseKeyPartition reads what follows prefixPartitions.
func parseKeyPartition(rest string) (id TopicID, n int32, err error) {
	h, num, ok := strings.Cut(rest, ".")
	if !ok {
		return id, 0, fmt.Errorf("partition key %q: no number", rest)
	}
	if err := id.UnmarshalText([]byte(h)); err != nil {
		return id, 0, err
	}
	n, err = parseNode(num)
	if err == nil && n >= maxPartitionNumber {
		err = fmt.Errorf("partition key %q: number too large", rest)
	}
	return id, n, err
}

// maxPartitionNumber bounds what a damaged key can make us allocate; it is far
// above any limit on a topic's partitions.
const maxPartitionNumber = 1 << 20

func parseNode(s string) (int32, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("key number %q", s)
	}
	return int32(n), nil
}
