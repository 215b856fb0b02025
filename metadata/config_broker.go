package metadata

// brokerSpecs are the broker configurations we know, sorted by name. Those that
// topics fall back to can change while running; so can the few marked dynamic.
// The rest come from the process's own configuration and are read-only.
var brokerSpecs = sortSpecs(append(topicFallbacks(), []spec{
	{name: "advertised.listeners", typ: TypeString, null: true, doc: "Where clients reach this broker."},
	{name: "auto.create.topics.enable", typ: TypeBoolean, def: "true", doc: "Create a missing topic when a client asks for it."},
	{name: "broker.id", typ: TypeInt, def: "-1", doc: "This broker's id."},
	{name: "broker.rack", typ: TypeString, null: true, doc: "Rack of this broker."},
	{name: "connections.max.idle.ms", typ: TypeLong, def: "600000", check: atLeast(1), doc: "Idle connections are closed after this time."},
	{name: "default.replication.factor", typ: TypeInt, def: "1", check: between(1, 32767), doc: "Replication factor of topics that do not say."},
	{name: "delete.topic.enable", typ: TypeBoolean, def: "true", doc: "Allow topics to be deleted."},
	{name: "firn.remote.delete.grace.ms", typ: TypeLong, def: "600000", check: atLeast(0), doc: "How long an object that no manifest names any more stays in the bucket for readers."},
	{name: "firn.remote.orphan.age.ms", typ: TypeLong, def: "86400000", check: atLeast(0), doc: "The same for an object that no manifest ever named."},
	{name: "firn.remote.scrub.interval.ms", typ: TypeLong, def: "21600000", check: atLeast(1), doc: "Time between two looks for orphans and damage in the bucket."},
	{name: "fetch.max.bytes", typ: TypeInt, def: "57671680", check: atLeast(1024), doc: "Most bytes of one fetch answer."},
	{name: "group.initial.rebalance.delay.ms", typ: TypeInt, def: "3000", check: atLeast(0), doc: "How long a new group waits for more members."},
	{name: "group.max.session.timeout.ms", typ: TypeInt, def: "1800000", check: atLeast(1), doc: "Longest session timeout a member may ask for."},
	{name: "group.max.size", typ: TypeInt, def: "2147483647", check: atLeast(1), doc: "Most members of a group."},
	{name: "group.min.session.timeout.ms", typ: TypeInt, def: "6000", check: atLeast(1), doc: "Shortest session timeout a member may ask for."},
	{name: "listeners", typ: TypeString, null: true, doc: "Where this broker listens."},
	{name: "log.dirs", typ: TypeString, null: true, doc: "Data directories."},
	{name: "log.retention.check.interval.ms", typ: TypeLong, def: "300000", check: atLeast(1), doc: "Time between two passes of retention."},
	{name: "max.connection.creation.rate", typ: TypeInt, def: "2147483647", check: atLeast(0), dynamic: true, doc: "Most new connections a second."},
	{name: "max.connections", typ: TypeInt, def: "2147483647", check: atLeast(0), dynamic: true, doc: "Most connections."},
	{name: "max.connections.per.ip", typ: TypeInt, def: "2147483647", check: atLeast(0), dynamic: true, doc: "Most connections from one address."},
	{name: "max.incremental.fetch.session.cache.slots", typ: TypeInt, def: "1000", check: atLeast(0), doc: "Fetch sessions kept."},
	{name: "max.request.partition.size.limit", typ: TypeInt, def: "2000", check: atLeast(1), doc: "Most partitions of one DescribeTopicPartitions answer."},
	{name: "node.id", typ: TypeInt, def: "-1", doc: "This broker's id."},
	{name: "num.partitions", typ: TypeInt, def: "1", check: between(1, maxPartitions), doc: "Partitions of topics that do not say."},
	{name: "offset.metadata.max.bytes", typ: TypeInt, def: "4096", check: atLeast(0), doc: "Longest note on a committed offset."},
	{name: "offsets.retention.check.interval.ms", typ: TypeLong, def: "600000", check: atLeast(1), doc: "Time between two passes over old offsets."},
	{name: "offsets.retention.minutes", typ: TypeInt, def: "10080", check: atLeast(1), doc: "How long offsets of an empty group stay."},
	// Not Kafka's 50. A partition of this topic is a journal with a sync of its own,
	// so on one node more of them only split what one sync could carry, and the
	// number cannot grow later without moving groups away from their offsets. Eight
	// leave room to spread groups over the brokers of a small cluster
	// (docs/decisions/0004-group-journal.md).
	{name: "offsets.topic.num.partitions", typ: TypeInt, def: "8", check: atLeast(1), doc: "Partitions of __consumer_offsets."},
	{name: "offsets.topic.replication.factor", typ: TypeShort, def: "3", check: atLeast(1), doc: "Replication factor of __consumer_offsets, at most the brokers there are."},
	{name: "offsets.topic.segment.bytes", typ: TypeInt, def: "104857600", check: atLeast(1), doc: "Segment size of __consumer_offsets."},
	{name: "producer.id.expiration.ms", typ: TypeInt, def: "86400000", check: atLeast(1), dynamic: true, doc: "Idle producer ids are forgotten after this time."},
	{name: "queued.max.requests", typ: TypeInt, def: "500", check: atLeast(1), doc: "Unanswered requests of one connection."},
	{name: "remote.fetch.max.wait.ms", typ: TypeInt, def: "500", check: atLeast(1), dynamic: true, doc: "How long a fetch waits for the bucket before it answers without."},
	{name: "remote.log.manager.copy.max.bytes.per.second", typ: TypeLong, def: maxLong, check: atLeast(1), dynamic: true, doc: "Upload rate."},
	{name: "remote.log.manager.fetch.max.bytes.per.second", typ: TypeLong, def: maxLong, check: atLeast(1), dynamic: true, doc: "Rate of reading back from the bucket."},
	{name: "remote.log.storage.system.enable", typ: TypeBoolean, def: "true", doc: "Tiered storage is part of this broker."},
	{name: "replica.fetch.max.bytes", typ: TypeInt, def: "1048576", check: atLeast(0), doc: "Bytes a follower asks of one partition."},
	{name: "replica.lag.time.max.ms", typ: TypeLong, def: "30000", check: atLeast(1), doc: "A follower that has not caught up for this long leaves the ISR."},
	{name: "replica.selector.class", typ: TypeString, null: true, doc: "Which replica serves a consumer."},
	{name: "socket.request.max.bytes", typ: TypeInt, def: "104857600", check: atLeast(1), doc: "Largest request."},
	{name: "transaction.max.timeout.ms", typ: TypeInt, def: "900000", check: atLeast(1), doc: "Longest transaction a producer may ask for."},
	{name: "transaction.state.log.min.isr", typ: TypeInt, def: "2", check: atLeast(1), doc: "min.insync.replicas of __transaction_state, at most the brokers there are."},
	{name: "transaction.state.log.num.partitions", typ: TypeInt, def: "50", check: atLeast(1), doc: "Partitions of __transaction_state."},
	{name: "transaction.state.log.replication.factor", typ: TypeShort, def: "3", check: atLeast(1), doc: "Replication factor of __transaction_state, at most the brokers there are."},
	{name: "transactional.id.expiration.ms", typ: TypeInt, def: "604800000", check: atLeast(1), doc: "Idle transactional ids are forgotten after this time."},
}...))

// topicFallbacks derives the broker configurations behind the topic ones: same
// type, default and rule, in the broker's unit. Of several for one topic
// configuration, the one in the largest unit has the default, as in Kafka
// (log.retention.hours is 168, log.retention.ms is null).
func topicFallbacks() []spec {
	seen := map[string]bool{}
	var out []spec
	for _, t := range topicSpecs {
		for i, syn := range t.synonyms {
			if seen[syn.name] {
				continue
			}
			seen[syn.name] = true
			b := spec{name: syn.name, typ: t.typ, def: t.def, check: t.check, doc: t.doc, dynamic: syn.factor == 0}
			switch {
			case i < len(t.synonyms)-1:
				b.null, b.def = true, ""
			case syn.factor > 0:
				b.typ, b.def, b.check = TypeInt, divide(t.def, syn.factor), smallest(t.check)
			}
			if i < len(t.synonyms)-1 && syn.factor > 0 {
				b.typ, b.check = TypeInt, smallest(t.check)
			}
			if t.name == "unclean.leader.election.enable" || t.name == "compression.type" {
				b.dynamic = true
			}
			out = append(out, b)
		}
	}
	return out
}

// SynonymsOf returns the broker configurations that a topic configuration falls
// back to, strongest first.
func SynonymsOf(topicConfig string) []string {
	s := findSpec(topicSpecs, topicConfig)
	if s == nil {
		return nil
	}
	var out []string
	for _, syn := range s.synonyms {
		out = append(out, syn.name)
	}
	return out
}
