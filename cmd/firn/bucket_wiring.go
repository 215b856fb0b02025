package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/localcache"
	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/objectstore/open"
	"github.com/firnlog/firn/replication"
	"github.com/firnlog/firn/tiering"
	"github.com/firnlog/firn/tiering/format"
)

// openBucket opens the bucket and refuses one that is another cluster's, or that
// does not have what the data dir of cluster id has uploaded, before anything is
// written to it or to the data dir.
func (n *node) openBucket(ctx context.Context, cfg Config, id string, fsys disk.FS, reg prometheus.Registerer) error {
	ctx, cancel := ctxTimeout(ctx)
	defer cancel()
	url := cfg.Bucket
	if url == "" {
		abs, err := filepath.Abs(cfg.DataDir)
		if err != nil {
			return err
		}
		if err := fsys.MkdirAll(abs, 0o755); err != nil {
			return fmt.Errorf("create data dir %s: %w", cfg.DataDir, err)
		}
		url = "file://" + filepath.Join(abs, "bucket")
	}
	memory := filepath.Join(cfg.DataDir, memoryFolder)
	known, err := fsys.ReadDir(memory)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	used := len(known) > 0 // this data dir has uploaded to it
	b, err := open.Open(ctx, url, open.Options{SkipProbe: true, SkipCheck: true, Existing: used})
	if err != nil {
		return err
	}
	metered := objectstore.Meter(b, time.Now, reg)
	n.gate = objectstore.NewGate(metered)
	n.bucket = n.gate
	n.look = func(ctx context.Context, id string) error {
		if err := open.Check(ctx, url, b); err != nil {
			return err
		}
		_, found, err := tiering.Inspect(ctx, metered, cfg.Cluster, id)
		switch {
		case errors.Is(err, tiering.ErrForeign):
			return err
		case errors.Is(err, format.ErrVersion):
			return fmt.Errorf("bucket %s: %w", url, err)
		case err != nil:
			return open.Explain(url, err)
		}
		if !found && used {
			return fmt.Errorf("%w: bucket %s has no %s, but this data dir has uploaded to one that has; name that bucket or prefix in --bucket; if it is lost for good, remove %s to start without it",
				errOtherBucket, url, format.ClusterKey(cfg.Cluster), memory)
		}
		return open.Probe(ctx, url, metered, open.Options{})
	}
	n.identify = func(ctx context.Context, id string) error {
		generation, err := tiering.Identify(ctx, metered, cfg.Cluster, id, time.Now())
		if err != nil {
			return err
		}
		n.generation.Store(generation)
		n.gate.Open()
		return nil
	}
	err = n.look(ctx, id)
	if err == nil || !used || !passing(err) {
		n.looked = err == nil
		return err
	}
	// What was produced must not wait for a store that is down. Nothing touches the
	// bucket before it has been seen to be the right one (awaitBucket).
	n.gate.Shut("it did not answer at the start")
	n.logger.Warn("the bucket does not answer: serving what is on local disk, and looking again", "event", "bucket_absent", "err", err)
	return nil
}

// errOtherBucket is a bucket that is not the one this data dir has used.
var errOtherBucket = errors.New("another bucket")

// passing says whether an error of a bucket may pass by itself. The others say that
// something is set up wrong, or is another's.
func passing(err error) bool {
	for _, final := range []error{tiering.ErrForeign, format.ErrVersion, errOtherBucket, objectstore.ErrDenied, objectstore.ErrNoBucket, objectstore.ErrNoConditional} {
		if errors.Is(err, final) {
			return false
		}
	}
	return true
}

// awaitBucket looks again at a bucket that did not answer at the start, until it is
// there and is ours.
func (n *node) awaitBucket(ctx context.Context) {
	id, said := n.dir.Meta.ClusterID, ""
	for attempt := 0; ; attempt++ {
		wait := min(time.Second<<min(attempt, 5), 30*time.Second)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait/2 + rand.N(wait/2)):
		}
		err := n.look(ctx, id)
		if err == nil {
			err = n.identify(ctx, id)
		}
		if err == nil {
			n.logger.Info("the bucket answers again", "event", "bucket_back", "bucket", n.bucket.Name())
			return
		}
		if ctx.Err() != nil {
			return
		}
		n.gate.Shut(err.Error())
		if err.Error() != said {
			said = err.Error()
			log := n.logger.Warn
			if !passing(err) {
				log = n.logger.Error
			}
			log("the bucket cannot be used yet", "event", "bucket_absent", "err", err)
		}
	}
}

// memoryFolder is the folder of the data dir that remembers the bucket's heads.
const memoryFolder = "bucket-memory"

// openTiering starts what works with the bucket, the cache and the archiver, and
// what watches the disk for them.
func (n *node) openTiering(ctx context.Context, cfg Config, plan memoryPlan, fsys disk.FS, reg prometheus.Registerer) error {
	ictx, cancel := ctxTimeout(ctx)
	defer cancel()
	if n.looked {
		if err := n.identify(ictx, n.dir.Meta.ClusterID); err != nil {
			return err
		}
	} else {
		actx, stop := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			n.awaitBucket(actx)
		}()
		n.stopAwait = func() { stop(); <-done }
	}
	memory, err := tiering.OpenMemory(fsys, filepath.Join(cfg.DataDir, memoryFolder))
	if err != nil {
		return err
	}
	rate, err := optionalSize(cfg.UploadRate)
	if err != nil {
		return err
	}
	size, err := parseSize(cfg.CacheSize)
	if err != nil {
		return err
	}
	if n.cache, err = localcache.New(localcache.Config{FS: fsys, Dir: filepath.Join(cfg.DataDir, "cache"), MaxBytes: size, MemoryBytes: plan.cache, Now: time.Now, Logger: n.logger, Registerer: reg}); err != nil {
		return err
	}
	if n.guard, n.stopGuard, err = guardDisk(cfg, n.cache, size, fsys, n.logger, reg); err != nil {
		return err
	}
	if most := n.meta.Image().BrokerConfig().Int("remote.log.manager.copy.max.bytes.per.second"); rate == 0 && most < math.MaxInt64 {
		rate = most
	}
	// Zero takes tiering's default, so the least that can be asked for is a moment.
	ms := func(name string) time.Duration {
		return max(n.meta.Image().BrokerConfig().Duration(name, time.Millisecond), time.Nanosecond)
	}
	n.archiver, err = tiering.New(tiering.Config{
		Bucket: n.bucket, Cluster: cfg.Cluster, ClusterID: n.dir.Meta.ClusterID, ClusterGeneration: n.generation.Load, NodeID: nodeID, Build: version,
		Memory: headMemory{memory, n.meta}, Topic: n.topicInfo, Now: time.Now, Logger: n.logger, Registerer: reg, BytesPerSecond: rate, Pressed: n.guard.Pressed,
		KeepAll: func() bool { _, on := n.meta.SafeMode(); return on },
		Grace:   ms("firn.remote.delete.grace.ms"), OrphanAge: ms("firn.remote.orphan.age.ms"), ScrubEvery: ms("firn.remote.scrub.interval.ms"),
	})
	return err
}

func optionalSize(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	return parseSize(s)
}

func (n *node) topicInfo(id metadata.TopicID) (tiering.TopicInfo, bool) {
	t, ok := n.meta.Image().TopicByID(id)
	if !ok {
		return tiering.TopicInfo{}, false
	}
	return tiering.TopicInfo{Name: t.Name, Partitions: t.Partitions, Configs: t.Configs}, true
}

// remoteBytes is what the bucket holds of a partition led here.
func (n *node) remoteBytes(tp metadata.TopicPartition) int64 {
	p, err := n.manager.Partition(tp.TopicID, tp.Partition)
	if err != nil {
		return 0
	}
	if a, ok := p.Tier().(*tiering.Archive); ok && a != nil {
		return a.Usage().Bytes
	}
	return 0
}

// archive adapts tiering.Archiver to replication.Archive.
type archive struct{ a *tiering.Archiver }

func (a archive) Recover(ctx context.Context, tp metadata.TopicPartition) (replication.Tiered, bool, error) {
	ctx, cancel := ctxTimeout(ctx)
	defer cancel()
	r, ok, err := a.a.Recover(ctx, tp)
	return replication.Tiered{LogStart: r.LogStart, End: r.End, MaxEpoch: r.Epoch, Epochs: r.Lineage, Producers: r.Producers}, ok, err
}

func (a archive) Prove(ctx context.Context, tp metadata.TopicPartition, from, to int64) error {
	return a.a.ProveRange(ctx, tp, from, to)
}

func (a archive) Lead(p *replication.Partition) { p.SetTier(a.a.Lead(p)) }

func (a archive) Resign(tp metadata.TopicPartition) { a.a.Resign(tp) }

var _ tiering.Source = (*replication.Partition)(nil)

// headMemory remembers heads on disk, and tells the metadata as a hint.
type headMemory struct {
	*tiering.DiskMemory
	meta *metadata.Client
}

func hintName(tp metadata.TopicPartition) string {
	return fmt.Sprintf("head.%x.%d", tp.TopicID, tp.Partition)
}

func (m headMemory) Generation(tp metadata.TopicPartition) uint64 {
	var hint uint64
	_, _ = fmt.Sscanf(string(m.meta.Image().Hint(hintName(tp))), "%d", &hint)
	return max(hint, m.DiskMemory.Generation(tp))
}

func (m headMemory) Remember(tp metadata.TopicPartition, generation uint64, end int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err := m.meta.PutHint(ctx, hintName(tp), fmt.Appendf(nil, "%d %d", generation, end))
	return errors.Join(m.DiskMemory.Remember(tp, generation, end), err)
}

// janitor finishes deletions that metadata only announced: local logs, then the
// bucket, then the tombstones.
func (n *node) janitor(ctx context.Context) {
	t := time.NewTicker(5 * time.Second)
	defer t.Stop()
	for sweep := 1; ; sweep++ {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if _, on := n.meta.SafeMode(); on {
			continue
		}
		for _, dead := range n.meta.Image().Tombstones() {
			if err := n.bury(ctx, dead); err != nil && ctx.Err() == nil {
				n.logger.Warn("a deleted topic is not gone yet, trying again", "event", "topic_delete_delayed", "topic", dead.Name, "topic_id", dead.ID.String(), "err", err)
			}
		}
		if sweep%720 == 0 { // once an hour
			if err := n.meta.SweepTombstones(ctx); err != nil && ctx.Err() == nil {
				n.logger.Warn("old tombstones stay", "event", "tombstones_stay", "err", err)
			}
		}
	}
}

func (n *node) bury(ctx context.Context, dead metadata.Tombstone) error {
	gone, err := n.manager.Gone(dead.ID)
	if err != nil || !gone {
		return err
	}
	if err := n.meta.MarkReplicasGone(ctx, dead.ID, nodeID); err != nil {
		return err
	}
	if !dead.Bucket {
		return nil
	}
	if done, err := n.archiver.DeleteTopic(ctx, dead.ID); err != nil || !done {
		return err
	}
	return n.meta.MarkBucketGone(ctx, dead.ID)
}
