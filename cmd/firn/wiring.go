package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/firnlog/firn/admin"
	"github.com/firnlog/firn/broker"
	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/fetch"
	"github.com/firnlog/firn/group"
	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/internal/space"
	"github.com/firnlog/firn/localcache"
	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/metadata/jetstream"
	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/replication"
	"github.com/firnlog/firn/tiering"
)

// nodeID is this node's broker id: `firn up` is a cluster of one.
const nodeID = 1

// node is a running broker. Its parts are started bottom-up and closed top-down.
type node struct {
	logger     *slog.Logger
	dir        *replication.DataDir
	meta       *metadata.Client
	flusher    *commitlog.Flusher
	manager    *replication.Manager
	bucket     objectstore.Bucket // behind gate
	gate       *objectstore.Gate
	looked     bool // the bucket has answered and is ours, or nobody's
	generation atomic.Uint64
	// look says whether the bucket may be used by the cluster of an id; identify
	// then makes it that cluster's, and opens the gate.
	look, identify func(ctx context.Context, clusterID string) error
	archiver       *tiering.Archiver
	cache          *localcache.Cache
	guard          *space.Guard
	stopGuard      func()
	reader         *fetch.Reader
	groups         *group.Coordinator
	server         *broker.Server
	bound          []*broker.Bound
	admin          *admin.Server
	stopAwait      func() // ends the wait for a bucket that was not there at the start
	stopJanitor    context.CancelFunc
	janitorDone    chan struct{}
	ready          atomic.Pointer[string] // why not; nil when ready
}

func (n *node) kafkaAddrs() string {
	var s []string
	for _, b := range n.bound {
		s = append(s, b.Addr().String())
	}
	return strings.Join(s, ",")
}

// startNode starts everything, or nothing.
func startNode(ctx context.Context, cfg Config, plan memoryPlan, logger *slog.Logger) (_ *node, err error) {
	n := &node{logger: logger}
	n.notReady("starting")
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	static, err := staticConfig(cfg)
	if err != nil {
		return nil, &codedError{exitUsage, err}
	}
	listeners, err := parseListeners(cfg)
	if err != nil {
		return nil, &codedError{exitUsage, err}
	}
	fsys := disk.OS()
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	// First what may refuse without a trace, in the order of what it would cost to
	// find out later: the data dir as it is, ports, the bucket.
	id, err := replication.Peek(fsys, cfg.DataDir, cfg.Cluster, nodeID)
	if err != nil {
		return nil, err
	}
	if n.admin, err = admin.Start(admin.Config{Addr: cfg.AdminAddr, Listen: net.Listen, Ready: n.readiness, Gatherer: reg, Logger: logger}); err != nil {
		return nil, err
	}
	// Bound before the recovery, served after it: a port in use is known at once.
	for _, l := range listeners {
		b, err := broker.Listen(l, net.Listen)
		if err != nil {
			return nil, fmt.Errorf("%w; choose another --kafka-addr", err)
		}
		n.bound = append(n.bound, b)
	}
	if err := n.openBucket(ctx, cfg, id, fsys, reg); err != nil {
		return nil, err
	}
	if n.dir, err = replication.OpenDataDir(fsys, cfg.DataDir, cfg.Cluster, nodeID); err != nil {
		return nil, err
	}
	if cfg.Bucket == "" {
		n.logger.Warn("the bucket is a folder of the data dir: losing this disk loses both; --bucket names another place", "event", "bucket_shares_disk", "bucket", n.bucket.Name())
	}
	if err := n.openMetadata(ctx, cfg, static, fsys, reg); err != nil {
		return nil, err
	}
	if err := n.openTiering(ctx, cfg, plan, fsys, reg); err != nil {
		return nil, err
	}
	n.flusher = commitlog.NewFlusher(4)
	n.notReady("partitions are being opened")
	if n.manager, err = replication.NewManager(replication.Config{
		Dirs: []*replication.DataDir{n.dir}, Cluster: n.meta, Archive: archive{n.archiver}, NodeID: nodeID, Now: time.Now, Logger: logger, Flusher: n.flusher,
		ProducerExpiry: n.meta.Image().BrokerConfig().Duration("producer.id.expiration.ms", time.Millisecond),
		Room:           n.guard.Take, Pressed: n.guard.Pressed, Registerer: reg,
	}); err != nil {
		return nil, err
	}
	if err := n.manager.Start(ctx); err != nil {
		return nil, fmt.Errorf("open partitions: %w", err)
	}
	if n.reader, err = fetch.New(fetch.Config{
		Cache: n.cache, Bucket: n.bucket, CoalesceBytes: plan.coalesce, DecodeBytes: plan.decoding, Now: time.Now, Logger: logger, Registerer: reg,
	}); err != nil {
		return nil, err
	}
	if n.groups, err = group.New(group.Config{
		Cluster: n.meta, Partition: n.groupPartition, Position: n.position, NodeID: nodeID, Now: time.Now, Logger: logger, Registerer: reg,
		Limits: group.LimitsOf(n.meta.Image().BrokerConfig()),
	}); err != nil {
		return nil, err
	}
	n.serve(cfg, plan, reg)
	jctx, stop := context.WithCancel(context.Background())
	n.stopJanitor, n.janitorDone = stop, make(chan struct{})
	go func() {
		defer close(n.janitorDone)
		n.janitor(jctx)
	}()
	n.ready.Store(nil)
	return n, nil
}

func (n *node) notReady(why string) { n.ready.Store(&why) }

func (n *node) readiness() error {
	if why := n.ready.Load(); why != nil {
		return errors.New(*why)
	}
	if reason, on := n.meta.SafeMode(); on {
		return fmt.Errorf("metadata safe mode: %s", reason)
	}
	return n.dir.Err() // a disk that failed a sync takes nothing more
}

// openMetadata starts the embedded store, folds it, and registers this broker.
func (n *node) openMetadata(ctx context.Context, cfg Config, static map[string]string, fsys disk.FS, reg prometheus.Registerer) error {
	ctx, cancel := ctxTimeout(ctx)
	defer cancel()
	store, err := jetstream.Open(ctx, jetstream.Config{Dir: filepath.Join(cfg.DataDir, "nats"), Cluster: cfg.Cluster, Logger: n.logger})
	if err != nil {
		return fmt.Errorf("metadata store: %w", err)
	}
	n.meta, err = metadata.Open(ctx, metadata.Config{
		Store: store, Cluster: cfg.Cluster, NodeID: nodeID, ClusterID: n.dir.Meta.ClusterID, Static: static,
		FS: fsys, GuardPath: filepath.Join(cfg.DataDir, "metadata-guard.json"), Now: time.Now, Logger: n.logger, Registerer: reg,
	})
	if err != nil {
		store.Close()
		return fmt.Errorf("metadata: %w", err)
	}
	if reason, on := n.meta.SafeMode(); on {
		n.logger.Error("metadata safe mode: nothing is elected and nothing deleted", "event", "metadata_safe_mode", "reason", reason)
		return nil
	}
	if err := n.dir.Adopt(n.meta.Image().ClusterID()); err != nil {
		return err
	}
	b := metadata.Broker{Node: nodeID, Incarnation: n.dir.Meta.Incarnation, DirIDs: []string{n.dir.Meta.DirID}, Build: version}
	for _, l := range n.bound {
		b.Endpoints = append(b.Endpoints, metadata.Endpoint{Name: l.Name, Host: l.AdvertiseHost, Port: l.AdvertisePort, Protocol: l.Protocol})
	}
	return n.meta.RegisterBroker(ctx, b)
}

// groupPartition is a partition of the groups' journal.
func (n *node) groupPartition(partition int32) (group.Log, error) {
	p, err := n.manager.ByName(group.Topic, partition)
	if err != nil {
		return nil, err
	}
	return group.PartitionLog{P: p}, nil
}

// position is where the log of a partition that is led here lies.
func (n *node) position(tp metadata.TopicPartition) (group.Position, bool) {
	p, err := n.manager.Partition(tp.TopicID, tp.Partition)
	if err != nil {
		return group.Position{}, false
	}
	if _, leading := p.Leadership(); !leading {
		return group.Position{}, false
	}
	s := p.State()
	return group.Position{LogStart: s.LogStart, LocalStart: s.LocalStart, HighWatermark: s.HighWatermark}, true
}

// serve answers clients.
func (n *node) serve(cfg Config, plan memoryPlan, reg prometheus.Registerer) {
	bc := func() metadata.BrokerConfig { return n.meta.Image().BrokerConfig() }
	n.server = broker.New(broker.Config{
		Admin: &broker.Admin{
			Metadata: n.meta, NodeID: nodeID, Replicas: replicas{n.manager, cfg.DataDir},
			Dirs:       []broker.LogDir{{Path: cfg.DataDir, Space: func() (int64, int64, error) { return n.dir.FS.Space(cfg.DataDir) }}},
			BucketName: n.bucket.Name(), RemoteBytes: n.remoteBytes,
			Controller:  func(*metadata.Image) int32 { return nodeID },
			LeadersWait: time.Second,
		},
		Metadata: n.meta, Replication: n.manager, Fetch: n.reader, Groups: n.groups,
		Sessions: fetch.NewSessions(fetch.SessionsConfig{Slots: int(bc().Int("max.incremental.fetch.session.cache.slots")), Now: time.Now, Registerer: reg}),
		NodeID:   nodeID, Now: time.Now, Logger: n.logger, Registerer: reg,
		AutoCreate:      func() bool { return bc().Bool("auto.create.topics.enable") },
		MaxRequestBytes: int32(bc().Int("socket.request.max.bytes")),
		Memory: broker.NewMemory(broker.MemoryConfig{
			Total: plan.requests, MaxRequest: bc().Int("socket.request.max.bytes"), Mapped: plan.setHeap, Now: time.Now, Registerer: reg,
		}),
		MaxConnections: plan.connections,
		Limits: func() (connections, perIP int) {
			return int(bc().Int("max.connections")), int(bc().Int("max.connections.per.ip"))
		},
		MaxIdle:       bc().Duration("connections.max.idle.ms", time.Millisecond),
		FetchMaxBytes: int32(bc().Int("fetch.max.bytes")),
	})
	for _, b := range n.bound {
		n.server.Serve(b)
	}
}

// close stops from the top down and says whether every log closed cleanly.
func (n *node) close() (clean bool) {
	n.notReady("stopping")
	if n.server != nil {
		n.server.Close()
	}
	for _, b := range n.bound {
		b.Close()
	}
	if n.stopAwait != nil {
		n.stopAwait()
	}
	if n.stopJanitor != nil {
		n.stopJanitor()
		<-n.janitorDone
	}
	if n.groups != nil {
		n.groups.Close()
	}
	if n.reader != nil {
		n.reader.Close()
	}
	if n.stopGuard != nil {
		n.stopGuard()
	}
	if n.cache != nil {
		if err := n.cache.Close(); err != nil {
			n.logger.Warn("cache did not close cleanly", "event", "cache_close_failed", "err", err)
		}
	}
	if n.manager != nil {
		clean = n.manager.Close()
	}
	if n.archiver != nil {
		n.archiver.Close()
	}
	if n.bucket != nil {
		n.bucket.Close()
	}
	if n.flusher != nil {
		n.flusher.Close()
	}
	if n.meta != nil {
		if err := n.meta.Close(); err != nil {
			n.logger.Warn("metadata did not close cleanly", "event", "metadata_close_failed", "err", err)
		}
	}
	if n.admin != nil {
		n.admin.Close()
	}
	if n.dir != nil {
		if err := n.dir.Close(clean); err != nil {
			n.logger.Warn("data dir did not close cleanly", "event", "data_dir_close_failed", "err", err)
			clean = false
		}
	}
	return clean
}

// replicas adapts replication.Manager to what the admin requests need.
type replicas struct {
	m   *replication.Manager
	dir string
}

func (r replicas) DeleteRecords(ctx context.Context, topic string, partition int32, offset int64) (int64, error) {
	p, err := r.m.ByName(topic, partition)
	if err != nil {
		return -1, err
	}
	low, err := p.DeleteRecords(offset)
	if err != nil {
		return low, err
	}
	// Acknowledged once it is durable here and in the bucket: deleted records must
	// not come back with a cluster that is raised from there.
	if a, ok := p.Tier().(*tiering.Archive); ok && a != nil {
		if err := a.CommitLogStart(ctx, low); err != nil {
			return -1, errors.Join(context.DeadlineExceeded, err)
		}
	}
	return low, nil
}

func (r replicas) Each(visit func(tp metadata.TopicPartition, dir string, bytes int64)) {
	r.m.Each(func(p *replication.Partition) { visit(p.TopicPartition(), r.dir, p.Log().LocalBytes()) })
}

// staticConfig is the process's own broker configuration by Kafka's names.
func staticConfig(cfg Config) (map[string]string, error) {
	given := map[string]string{}
	for _, kv := range cfg.Set {
		k, v, _ := strings.Cut(kv, "=")
		given[k] = v
	}
	static := map[string]string{
		"broker.id": strconv.Itoa(nodeID), "node.id": strconv.Itoa(nodeID), "log.dirs": cfg.DataDir,
	}
	maps.Copy(static, given)
	return metadata.ValidateStatic(static)
}

func parseListeners(cfg Config) ([]broker.Listener, error) {
	specs := cfg.Listener
	if len(specs) == 0 {
		specs = []string{"PLAINTEXT=" + cfg.KafkaAddr}
	}
	var out []broker.Listener
	for _, s := range specs {
		l, err := broker.ParseListener(s)
		if err != nil {
			return nil, err
		}
		if host, _, _ := net.SplitHostPort(l.Address); host == "" {
			return nil, fmt.Errorf("listener %q: name the host to listen at, 0.0.0.0 for all", s)
		}
		for _, o := range out {
			if strings.EqualFold(o.Name, l.Name) {
				return nil, fmt.Errorf("listener %q: the name %s is taken by %s; each listener needs its own", s, l.Name, o.Address)
			}
		}
		out = append(out, l)
	}
	return out, nil
}
