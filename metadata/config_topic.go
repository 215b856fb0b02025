package metadata

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Defaults that differ from Kafka's, because every topic tiers by default.
const (
	defaultSegmentBytes     = 128 << 20
	defaultLocalRetentionMs = 24 * 60 * 60 * 1000
	defaultMaxUnuploadedMs  = 10 * 60 * 1000
	maxLong                 = "9223372036854775807"
)

// topicSpecs are the topic configurations, sorted by name.
var topicSpecs = sortSpecs([]spec{
	{name: "cleanup.policy", typ: TypeList, def: "delete", check: listOf(true, "delete", "compact"),
		doc:      "What happens to old records: delete by retention, compact by key, or both.",
		synonyms: as("log.cleanup.policy")},
	{name: "compression.gzip.level", typ: TypeInt, def: "-1", check: gzipLevel, doc: "Level used when compression.type is gzip.", synonyms: as("compression.gzip.level")},
	{name: "compression.lz4.level", typ: TypeInt, def: "9", check: between(1, 17), doc: "Level used when compression.type is lz4.", synonyms: as("compression.lz4.level")},
	{name: "compression.zstd.level", typ: TypeInt, def: "3", check: between(-131072, 22), doc: "Level used when compression.type is zstd.", synonyms: as("compression.zstd.level")},
	{name: "compression.type", typ: TypeString, def: "producer", check: oneOf("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"),
		doc: "Codec of stored batches; producer keeps the batch as it was sent.", synonyms: as("compression.type")},
	{name: "delete.retention.ms", typ: TypeLong, def: "86400000", check: atLeast(0), doc: "How long tombstones of compacted topics stay.", synonyms: as("log.cleaner.delete.retention.ms")},
	{name: "file.delete.delay.ms", typ: TypeLong, def: "60000", check: atLeast(0), doc: "Time between unlinking a segment and removing its file.", synonyms: as("log.segment.delete.delay.ms")},
	{name: "flush.messages", typ: TypeLong, def: maxLong, check: atLeast(1), doc: "Records between forced syncs; see firn.durability.", synonyms: as("log.flush.interval.messages")},
	{name: "flush.ms", typ: TypeLong, def: maxLong, check: atLeast(0), doc: "Time between forced syncs; see firn.durability.",
		synonyms: as("log.flush.interval.ms", "log.flush.scheduler.interval.ms")},
	{name: "follower.replication.throttled.replicas", typ: TypeList, def: "", check: throttled, doc: "Replicas whose fetching is throttled, as partition:broker pairs."},
	{name: "index.interval.bytes", typ: TypeInt, def: "4096", check: atLeast(0), doc: "Bytes between entries of the offset index.", synonyms: as("log.index.interval.bytes")},
	{name: "leader.replication.throttled.replicas", typ: TypeList, def: "", check: throttled, doc: "Replicas whose leading side is throttled, as partition:broker pairs."},
	{name: "local.retention.bytes", typ: TypeLong, def: "-2", check: atLeast(-2), doc: "Bytes kept on local disk once tiered; -2 is retention.bytes.", synonyms: as("log.local.retention.bytes")},
	{name: "local.retention.ms", typ: TypeLong, def: strconv.Itoa(defaultLocalRetentionMs), check: atLeast(-2),
		doc:      "Time kept on local disk once tiered; -2 is retention.ms. The default is 24 h or retention.ms, whichever is less.",
		synonyms: as("log.local.retention.ms")},
	{name: "max.compaction.lag.ms", typ: TypeLong, def: maxLong, check: atLeast(1), doc: "Longest time a record stays uncompacted.", synonyms: as("log.cleaner.max.compaction.lag.ms")},
	{name: "max.message.bytes", typ: TypeInt, def: "1048588", check: atLeast(0), doc: "Largest record batch, compressed, with its header.", synonyms: as("message.max.bytes")},
	{name: "message.timestamp.after.max.ms", typ: TypeLong, def: "3600000", check: atLeast(0), doc: "How far a create time may lie after the broker's clock.", synonyms: as("log.message.timestamp.after.max.ms")},
	{name: "message.timestamp.before.max.ms", typ: TypeLong, def: maxLong, check: atLeast(0), doc: "How far a create time may lie before the broker's clock.", synonyms: as("log.message.timestamp.before.max.ms")},
	{name: "message.timestamp.type", typ: TypeString, def: "CreateTime", check: oneOf("CreateTime", "LogAppendTime"), doc: "Whose clock stamps records.", synonyms: as("log.message.timestamp.type")},
	{name: "min.cleanable.dirty.ratio", typ: TypeDouble, def: "0.5", check: fraction, doc: "Share of uncompacted bytes that starts compaction.", synonyms: as("log.cleaner.min.cleanable.ratio")},
	{name: "min.compaction.lag.ms", typ: TypeLong, def: "0", check: atLeast(0), doc: "Shortest time a record stays uncompacted.", synonyms: as("log.cleaner.min.compaction.lag.ms")},
	{name: "min.insync.replicas", typ: TypeInt, def: "1", check: atLeast(1), doc: "In-sync replicas that acks=all needs, capped by the replication factor.", synonyms: as("min.insync.replicas")},
	{name: "preallocate", typ: TypeBoolean, def: "false", doc: "Allocate segment files ahead.", synonyms: as("log.preallocate")},
	{name: "remote.copy.lag.bytes", typ: TypeLong, def: "-1", check: atLeast(-1), doc: "Bytes a sealed segment may wait before upload; -1 is no bound.", synonyms: as("log.remote.copy.lag.bytes")},
	{name: "remote.copy.lag.ms", typ: TypeLong, def: "0", check: atLeast(-1), doc: "Time a sealed segment may wait before upload; 0 uploads at once.", synonyms: as("log.remote.copy.lag.ms")},
	{name: "remote.log.copy.disable", typ: TypeBoolean, def: "false", doc: "Stop uploading; what is in the bucket stays readable."},
	{name: "remote.log.delete.on.disable", typ: TypeBoolean, def: "false", doc: "Delete what is in the bucket when remote.storage.enable becomes false."},
	{name: "remote.storage.enable", typ: TypeBoolean, def: "true",
		doc:      "Move sealed data to the bucket. The default is the broker's firn.remote.storage.enable when the topic is made, and false for topics that are or were compacted.",
		synonyms: as("firn.remote.storage.enable")},
	{name: "retention.bytes", typ: TypeLong, def: "-1", check: atLeast(-1), doc: "Bytes of a partition kept in total; -1 is no bound.", synonyms: as("log.retention.bytes")},
	{name: "retention.ms", typ: TypeLong, def: "604800000", check: atLeast(-1), doc: "Time records are kept in total; -1 is for ever.",
		synonyms: []synonym{{"log.retention.ms", 0}, {"log.retention.minutes", 60_000}, {"log.retention.hours", 3_600_000}}},
	{name: "segment.bytes", typ: TypeInt, def: strconv.Itoa(defaultSegmentBytes), check: atLeast(1 << 20), doc: "Size at which a segment is sealed.", synonyms: as("log.segment.bytes")},
	{name: "internal.segment.bytes", typ: TypeInt, null: true, hidden: true, check: atLeast(1), doc: "segment.bytes without its floor, for tests."},
	{name: "segment.index.bytes", typ: TypeInt, def: "10485760", check: atLeast(4), doc: "Largest index of a segment.", synonyms: as("log.index.size.max.bytes")},
	{name: "segment.jitter.ms", typ: TypeLong, def: "0", check: atLeast(0), doc: "Largest random part taken from segment.ms.",
		synonyms: []synonym{{"log.roll.jitter.ms", 0}, {"log.roll.jitter.hours", 3_600_000}}},
	{name: "segment.ms", typ: TypeLong, def: "604800000", check: atLeast(1),
		doc:      "Age at which a segment is sealed. Where it is not set and the topic tiers, firn.remote.max.unuploaded.ms applies.",
		synonyms: []synonym{{"log.roll.ms", 0}, {"log.roll.hours", 3_600_000}}},
	{name: "unclean.leader.election.enable", typ: TypeBoolean, def: "false", doc: "Allow a replica outside the ISR to lead, losing records.", synonyms: as("unclean.leader.election.enable")},
	{name: "firn.durability", typ: TypeString, def: "fsync", check: oneOf("fsync", "replicated"),
		doc: "fsync: acks wait for the disk. replicated: acks wait for the replicas' memory, as in Kafka.", synonyms: as("firn.durability")},
	{name: "firn.record.validation", typ: TypeString, def: "header", check: oneOf("header", "strict"),
		doc: "header: compressed records stay unopened. strict: every record is opened and checked.", synonyms: as("firn.record.validation")},
	{name: "firn.remote.max.unuploaded.ms", typ: TypeLong, def: strconv.Itoa(defaultMaxUnuploadedMs), check: atLeast(1000),
		doc: "Age at which a slow partition's newest records are uploaded too: the recovery point of a lost cluster.", synonyms: as("firn.remote.max.unuploaded.ms")},
})

func as(names ...string) []synonym {
	out := make([]synonym, len(names))
	for i, n := range names {
		out[i].name = n
	}
	return out
}

func sortSpecs(s []spec) []spec {
	slices.SortFunc(s, func(a, b spec) int { return strings.Compare(a.name, b.name) })
	return s
}

func findSpec(specs []spec, name string) *spec {
	i, ok := slices.BinarySearchFunc(specs, name, func(s spec, n string) int { return strings.Compare(s.name, n) })
	if !ok {
		return nil
	}
	return &specs[i]
}

func gzipLevel(v string) error {
	if v == "-1" {
		return nil
	}
	return between(1, 9)(v)
}

// Durability is when an acknowledged record counts as safe.
type Durability int8

// The two modes of firn.durability.
const (
	DurabilityFsync Durability = iota
	DurabilityReplicated
)

// TopicConfig is a topic's configuration, resolved and typed. It is immutable,
// and an Image returns the same pointer until a value in it changes.
type TopicConfig struct {
	// RetentionMs and RetentionBytes bound the whole log, both tiers; -1 is no
	// bound.
	RetentionMs, RetentionBytes int64
	// LocalRetentionMs and LocalRetentionBytes bound what stays on local disk
	// once it is in the bucket. They are effective values: never -2, never above
	// the total; -1 is no bound.
	LocalRetentionMs, LocalRetentionBytes int64

	SegmentBytes  int64         // seal at this size
	SegmentAge    time.Duration // seal at this age of the oldest record
	SegmentJitter time.Duration // largest random part taken from SegmentAge
	IndexInterval int           // bytes

	MaxMessageBytes int  // largest batch, with its header
	Compact         bool // cleanup.policy has compact
	Delete          bool // cleanup.policy has delete

	// RemoteEnabled says that data moves to the bucket. RemoteCopy is false
	// while uploading is switched off (remote.log.copy.disable). RemoteRead says
	// that the bucket may hold data of this topic, now or from earlier.
	// RemoteDeleteOnDisable asks to delete it when tiering is switched off.
	RemoteEnabled, RemoteCopy, RemoteRead, RemoteDeleteOnDisable bool
	// MaxUnuploaded bounds how old the newest record outside the bucket may
	// get: the recovery point.
	MaxUnuploaded time.Duration
	// RemoteCopyLagMs and RemoteCopyLagBytes delay the upload of sealed
	// segments; 0 at once, -1 no bound.
	RemoteCopyLagMs, RemoteCopyLagBytes int64

	Durability       Durability
	StrictValidation bool // firn.record.validation=strict, or a compacted topic
	// Compression is compression.type: "producer" keeps what was sent.
	Compression         string
	LogAppendTime       bool  // message.timestamp.type
	TimestampBeforeMax  int64 // ms
	TimestampAfterMax   int64 // ms
	MinISR              int
	UncleanElection     bool
	DeleteRetentionMs   int64
	MinCleanableRatio   float64
	MinCompactionLagMs  int64
	MaxCompactionLagMs  int64
	FileDeleteDelay     time.Duration
	FlushMessages       int64
	FlushMs             int64
	CompressionLevelGz  int
	CompressionLevelLz4 int
	CompressionLevelZst int
}

// CleanupDelete says that retention applies to the topic.
func (c *TopicConfig) CleanupDelete() bool { return c.Delete }

// CompactOnly says that nothing but compaction removes records of the topic:
// neither retention nor DeleteRecords.
func (c *TopicConfig) CompactOnly() bool { return c.Compact && !c.Delete }

// typed turns resolved values into the struct. get returns a configuration's
// value and where it came from; all values have passed validate.
func typed(get func(name string) (string, ConfigSource), t *topicValue) *TopicConfig {
	str := func(name string) string { v, _ := get(name); return v }
	num := func(name string) int64 { n, _ := strconv.ParseInt(str(name), 10, 64); return n }
	boolean := func(name string) bool { return str(name) == "true" }
	policy := splitList(str("cleanup.policy"))
	c := &TopicConfig{
		RetentionMs:           num("retention.ms"),
		RetentionBytes:        num("retention.bytes"),
		SegmentBytes:          num("segment.bytes"),
		SegmentJitter:         ms(num("segment.jitter.ms")),
		IndexInterval:         int(num("index.interval.bytes")),
		MaxMessageBytes:       int(num("max.message.bytes")),
		Compact:               slices.Contains(policy, "compact"),
		Delete:                slices.Contains(policy, "delete"),
		MaxUnuploaded:         ms(num("firn.remote.max.unuploaded.ms")),
		RemoteCopyLagMs:       num("remote.copy.lag.ms"),
		RemoteCopyLagBytes:    num("remote.copy.lag.bytes"),
		RemoteDeleteOnDisable: boolean("remote.log.delete.on.disable"),
		Compression:           str("compression.type"),
		LogAppendTime:         str("message.timestamp.type") == "LogAppendTime",
		TimestampBeforeMax:    num("message.timestamp.before.max.ms"),
		TimestampAfterMax:     num("message.timestamp.after.max.ms"),
		MinISR:                int(num("min.insync.replicas")),
		UncleanElection:       boolean("unclean.leader.election.enable"),
		DeleteRetentionMs:     num("delete.retention.ms"),
		MinCompactionLagMs:    num("min.compaction.lag.ms"),
		MaxCompactionLagMs:    num("max.compaction.lag.ms"),
		FileDeleteDelay:       ms(num("file.delete.delay.ms")),
		FlushMessages:         num("flush.messages"),
		FlushMs:               num("flush.ms"),
		CompressionLevelGz:    int(num("compression.gzip.level")),
		CompressionLevelLz4:   int(num("compression.lz4.level")),
		CompressionLevelZst:   int(num("compression.zstd.level")),
	}
	c.MinCleanableRatio, _ = strconv.ParseFloat(str("min.cleanable.dirty.ratio"), 64)
	if v, src := get("internal.segment.bytes"); src == SourceDynamicTopic {
		c.SegmentBytes, _ = strconv.ParseInt(v, 10, 64)
	}
	if str("firn.durability") == "replicated" {
		c.Durability = DurabilityReplicated
	}
	c.StrictValidation = c.Compact || str("firn.record.validation") == "strict"

	// A broker's default can make a topic compacted behind the back of its own
	// remote.storage.enable, which nothing has refused then (SAFETY 15).
	c.RemoteEnabled = remoteEnabled(get, t) && !c.Compact
	c.RemoteCopy = c.RemoteEnabled && !boolean("remote.log.copy.disable")
	c.RemoteRead = c.RemoteEnabled || t.EverTiered
	age, src := get("segment.ms")
	n, _ := strconv.ParseInt(age, 10, 64)
	c.SegmentAge = ms(n)
	if src == SourceDefault && c.RemoteEnabled {
		c.SegmentAge = min(c.SegmentAge, c.MaxUnuploaded)
	}

	c.LocalRetentionMs = localRetention(num("local.retention.ms"), c.RetentionMs)
	c.LocalRetentionBytes = localRetention(num("local.retention.bytes"), c.RetentionBytes)
	if !c.RemoteEnabled {
		c.LocalRetentionMs, c.LocalRetentionBytes = c.RetentionMs, c.RetentionBytes
	}
	return c
}

// remoteEnabled resolves remote.storage.enable. The default was fixed when the
// topic was made, and never applies to what was compacted (SAFETY 15).
func remoteEnabled(get func(string) (string, ConfigSource), t *topicValue) bool {
	v, src := get("remote.storage.enable")
	if src == SourceDynamicTopic {
		return v == "true"
	}
	return t.Remote && !t.EverCompacted
}

// localRetention is the lesser of the two where -1 is no bound; -2 is the total.
func localRetention(local, total int64) int64 {
	switch {
	case local == -2 || local == -1:
		return total
	case total == -1:
		return local
	}
	return min(local, total)
}

// ms is n milliseconds, or the longest Duration where that overflows.
func ms(n int64) time.Duration { return times(n, time.Millisecond) }

func times(n int64, unit time.Duration) time.Duration {
	if n > math.MaxInt64/int64(unit) {
		return math.MaxInt64
	}
	return time.Duration(n) * unit
}
