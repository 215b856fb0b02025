package replication

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"time"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/metadata"
)

func topicDir(d *DataDir, id metadata.TopicID) string {
	return filepath.Join(d.Path, logFolder, hex.EncodeToString(id[:]))
}

func partitionDir(d *DataDir, tp metadata.TopicPartition) string {
	return filepath.Join(topicDir(d, tp.TopicID), strconv.Itoa(int(tp.Partition)))
}

// open brings one replica from its folder to leadership and closes r.done. A
// failure that may pass (the bucket or the metadata does not answer) is tried
// again until it works or the replica is stopped; damage is final until a
// restart.
func (m *Manager) open(ctx context.Context, r *replica) {
	m.opening <- struct{}{}
	l, rec, err := m.openLog(ctx, r)
	<-m.opening
	if err != nil {
		r.dir.failWith(err, m.logger)
		m.giveUp(r, err)
		return
	}
	r.err = ErrOffline
	p := newPartition(r.tp, r.dir, l, m.topicConfig(r), m.logger)
	p.room = m.cfg.Room
	for attempt := 0; ; attempt++ {
		err := m.lead(ctx, r, p, rec)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			// Stopped before it led: the log is closed by whoever stops us.
			r.part = p
			close(r.done)
			return
		}
		if r.dir.Err() != nil {
			r.dir.leave(p)
			_ = l.Close(false)
			m.giveUp(r, err)
			return
		}
		m.logger.Warn("partition cannot lead yet", "event", "leadership_delayed", "topic", r.tp.Topic, "partition", r.tp.Partition, "attempt", attempt, "err", err)
		if attempt == 0 {
			close(r.told)
		}
		wait := min(100*time.Millisecond<<min(attempt, 6), 5*time.Second)
		select {
		case <-ctx.Done():
		case <-time.After(wait/2 + rand.N(wait/2)): // full jitter above half: thousands of partitions must not retry as one
		}
	}
	r.part = p
	close(r.done)
	// It may have changed since, while nobody could tell the partition.
	if cfg := m.topicConfig(r); cfg != p.Config() {
		p.setConfig(cfg)
	}
}

// topicConfig is the newest configuration of the replica's topic; of one that is gone
// from the metadata, the one that it was opened for.
func (m *Manager) topicConfig(r *replica) *metadata.TopicConfig {
	if t, ok := m.cfg.Cluster.Image().TopicByID(r.tp.TopicID); ok {
		return t.Config()
	}
	return r.config
}

// giveUp says why a replica stays offline until a restart.
func (m *Manager) giveUp(r *replica, err error) {
	r.err = fmt.Errorf("%w: %w", ErrOffline, err)
	logger := m.logger.With("topic", r.tp.Topic, "partition", r.tp.Partition)
	switch failed := r.dir.Err(); {
	case failed != nil:
		r.err = failed // which has been said, once for the whole dir
	case errors.Is(err, commitlog.ErrDamaged):
		logger.Error(m.wayOut(r), "event", "log_damaged", "dir", partitionDir(r.dir, r.tp), "err", err)
	default:
		logger.Error("partition is offline", "event", "partition_offline", "err", err)
	}
	close(r.done)
}

// wayOut is what an operator can do about a damaged log. It is not done unasked: what
// was acknowledged after the last checkpoint may be in that log and nowhere else, and
// a damaged log cannot say how far that went.
func (m *Manager) wayOut(r *replica) string {
	const moving = "the log is damaged and the partition offline: restore its folder from a copy; or stop the broker, move the folder out of the data dir (do not delete it), and start again: "
	if m.cfg.Archive != nil && m.topicConfig(r).RemoteRead {
		return moving + "the partition goes on at the bucket's end, without what was produced after the last upload"
	}
	return moving + "the partition begins anew, empty"
}

func (m *Manager) openLog(ctx context.Context, r *replica) (*commitlog.Log, commitlog.Recovery, error) {
	if err := r.dir.Err(); err != nil {
		return nil, commitlog.Recovery{}, err
	}
	dir := partitionDir(r.dir, r.tp)
	cfg := m.topicConfig(r)
	if err := m.makeDirs(r); err != nil {
		return nil, commitlog.Recovery{}, err
	}
	l, rec, err := commitlog.Open(ctx, commitlog.Config{
		FS: r.dir.FS, Dir: dir, TopicID: r.tp.TopicID, Topic: r.tp.Topic, Partition: r.tp.Partition,
		Now: m.cfg.Now, Logger: m.logger, Flusher: m.cfg.Flusher, Clean: r.dir.Clean, Incarnation: r.dir.Meta.Incarnation,
		SegmentBytes: cfg.SegmentBytes, SegmentAge: cfg.SegmentAge,
		CheckpointBytes: m.cfg.CheckpointBytes, ProducerExpiry: m.cfg.ProducerExpiry,
	})
	if err != nil {
		return nil, rec, fmt.Errorf("open log %s: %w", dir, err)
	}
	if rec.CutAt >= 0 {
		m.logger.Warn("recovery cut the log's tail", "event", "recovery_cut", "topic", r.tp.Topic, "partition", r.tp.Partition,
			"offset", rec.CutAt, "bytes", rec.CutBytes, "high_watermark", l.HighWatermark())
	}
	return l, rec, nil
}

// makeDirs makes the partition's folder durable from the data dir down, and notes
// whether it had to be made.
func (m *Manager) makeDirs(r *replica) error {
	dir := partitionDir(r.dir, r.tp)
	_, err := r.dir.FS.Stat(dir)
	if err == nil && r.dir.Clean {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		r.made = true
		err = r.dir.FS.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return err
	}
	// Also a folder that is there: the process before may have been killed between
	// making it and syncing it.
	above := []string{topicDir(r.dir, r.tp.TopicID)}
	if r.made {
		above = append(above, filepath.Join(r.dir.Path, logFolder), r.dir.Path)
	}
	for _, d := range above {
		if err := r.dir.FS.SyncDir(d); err != nil {
			r.dir.fail(err, m.logger)
			return err
		}
	}
	return nil
}

// lead takes a new epoch for the replica and starts leading in it.
//
// A replica that was not closed cleanly may end below what the bucket holds of
// its own lineage; writing on from there would give offsets that the bucket
// already names to other records. It reads the head first and starts above it:
// the records in between are served from the bucket (SAFETY 4). Nothing at or
// above the bucket's end is touched.
func (m *Manager) lead(ctx context.Context, r *replica, p *Partition, rec commitlog.Recovery) error {
	if err := r.dir.Err(); err != nil {
		return err
	}
	if reason, on := m.cfg.Cluster.SafeMode(); on {
		return fmt.Errorf("metadata safe mode: %s", reason)
	}
	state, known := m.cfg.Cluster.Image().Partition(r.tp.TopicID, r.tp.Partition)
	minEpoch := lastEpoch(p.log)
	everLed := known && state.LeaderEpoch >= 0
	if m.cfg.Archive != nil && p.Config().RemoteRead && everLed && (!rec.Clean || p.log.End() == p.log.Start()) {
		t, ok, err := m.cfg.Archive.Recover(ctx, r.tp)
		if err != nil {
			return fmt.Errorf("read the head in the bucket: %w", err)
		}
		if ok {
			minEpoch = max(minEpoch, t.MaxEpoch)
			if err := m.adopt(ctx, r, p, t); err != nil {
				return err
			}
		}
	}
	res := m.cfg.Cluster.Lead(ctx, []metadata.LeadRequest{{
		TopicPartition: r.tp, Node: m.cfg.NodeID, MinEpoch: minEpoch,
		Incarnation: r.dir.Meta.Incarnation, DirID: r.dir.Meta.DirID,
	}})[0]
	if res.Err != nil {
		return fmt.Errorf("take leadership: %w", res.Err)
	}
	if everLed {
		m.sayLoss(r, p, rec)
	}
	p.startLeading(res.State.LeaderEpoch, len(res.State.ISR), len(res.State.Replicas))
	if m.cfg.Archive != nil {
		m.cfg.Archive.Lead(p)
	}
	return nil
}

// sayLoss is what a sole replica owes before it leads again (SAFETY 3): which
// acknowledged records it does not have, as far as it can know.
func (m *Manager) sayLoss(r *replica, p *Partition, rec commitlog.Recovery) {
	logger := p.logger.With("offset", p.log.End())
	switch lost := p.log.HighWatermark() - p.log.End(); {
	case r.made:
		logger.Error("the log of a partition that was led before is missing: what the bucket does not have of it is lost, and it goes on without",
			"event", "log_missing", "dir", p.log.Dir())
	case lost > 0:
		logger.Error("acknowledged records were lost with the unsynced page cache", "event", "acknowledged_records_lost", "records", lost)
	case !rec.Clean && !p.fsync.Load():
		logger.Warn("not closed cleanly and firn.durability is replicated: if the power failed, records acknowledged after the last sync are lost",
			"event", "unclean_restart")
	}
}

// adopt makes the log continue the bucket's lineage when it ends below it. What is
// here goes only when the bucket has been proved to have it: it may be the last copy
// of something that the bucket has lost (SAFETY 13). Without the proof the log stays
// as it is and nobody leads.
func (m *Manager) adopt(ctx context.Context, r *replica, p *Partition, t Tiered) error {
	if end := p.log.End(); end < t.End {
		if from := max(p.log.LocalStart(), p.log.Start(), t.LogStart); from < end {
			if here, there := p.log.EpochAt(end-1), epochAt(t.Epochs, end-1); here != there {
				return fmt.Errorf("the log ends at %d, below the bucket's %d, and is of another history: offset %d is of leader epoch %d here and of %d there; to go on with the bucket's, stop the broker and move %s away",
					end, t.End, end-1, here, there, p.log.Dir())
			}
			if err := m.cfg.Archive.Prove(ctx, r.tp, from, end); err != nil {
				return fmt.Errorf("the log ends at %d, below the bucket's %d, and its records from %d on may be the last copy: %w", end, t.End, from, err)
			}
		}
		m.logger.Warn("log ends below the bucket; the bucket serves what is missing", "event", "recovered_from_bucket",
			"topic", r.tp.Topic, "partition", r.tp.Partition, "offset", p.log.End(), "tiered_end", t.End)
		if err := p.log.Reset(t.LogStart, t.End, t.Epochs, t.Producers); err != nil {
			return fmt.Errorf("continue at the bucket's end %d: %w", t.End, err)
		}
	}
	if err := p.RaiseLogStart(min(t.LogStart, p.log.End())); err != nil {
		return err
	}
	p.hw.Store(p.log.Start())
	p.lso.Store(p.log.Start())
	return nil
}

// epochAt is the leader epoch of offset in a lineage, -1 when it begins above.
func epochAt(lineage []commitlog.EpochStart, offset int64) int32 {
	epoch := int32(-1)
	for _, e := range lineage {
		if e.Start > offset {
			break
		}
		epoch = e.Epoch
	}
	return epoch
}

func lastEpoch(l *commitlog.Log) int32 {
	if e := l.Epochs(); len(e) > 0 {
		return e[len(e)-1].Epoch
	}
	return -1
}

// reportStrays names the folders that no topic of the metadata owns and no
// tombstone explains. They are left alone: absence is never deletion (SAFETY 16).
func (m *Manager) reportStrays() {
	im := m.cfg.Cluster.Image()
	_, keep := m.cfg.Cluster.SafeMode()
	for _, d := range m.cfg.Dirs {
		entries, err := d.FS.ReadDir(filepath.Join(d.Path, logFolder))
		if err != nil {
			continue // no log was ever made here
		}
		for _, e := range entries {
			raw, err := hex.DecodeString(e.Name())
			if err != nil || len(raw) != 16 {
				continue
			}
			id := metadata.TopicID(raw)
			if _, ok := im.TopicByID(id); ok {
				continue
			}
			dir := filepath.Join(d.Path, logFolder, e.Name())
			if im.Tombstoned(id) && !keep {
				if err := d.FS.RemoveAll(dir); err != nil {
					m.logger.Error("deleted topic's folder stays", "event", "partition_remove_failed", "dir", dir, "err", err)
				}
				continue
			}
			m.logger.Warn("folder belongs to no known topic and is left alone", "event", "stray_log", "dir", dir)
		}
	}
}
