package tiering

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/tiering/format"
)

// TopicInfo is what topic.json says of a live topic.
type TopicInfo struct {
	Name       string
	Partitions int32
	Configs    map[string]string
}

func (t TopicInfo) same(o TopicInfo) bool {
	return t.Name == o.Name && t.Partitions == o.Partitions && maps.Equal(t.Configs, o.Configs)
}

// describeTopic makes topic.json say what the metadata says, before the first
// object of the topic and after each change that this broker notices. A topic
// that is deleted is left as it is: its deletion has its own way.
func (a *Archiver) describeTopic(ctx context.Context, tp metadata.TopicPartition) error {
	info, ok := a.cfg.Topic(tp.TopicID)
	if !ok {
		// A head without topic.json could never be deleted.
		return fmt.Errorf("the metadata has no topic %s (%s) now: nothing of it goes to the bucket", tp.Topic, tp.TopicID)
	}
	a.mu.Lock()
	known, described := a.mu.described[tp.TopicID]
	a.mu.Unlock()
	if described && known.same(info) {
		return nil
	}
	deleted, said := false, info
	err := a.changeTopic(ctx, tp.TopicID, true, func(t *format.Topic) bool {
		if deleted = t.State == format.StateDeleting || t.State == format.StateUnlinked; deleted {
			return false
		}
		was := TopicInfo{t.Name, t.Partitions, t.Configs}
		// Partitions never become fewer; a broker with old metadata must not say so.
		info.Partitions = max(info.Partitions, t.Partitions)
		t.Name, t.Partitions, t.Configs, t.State = info.Name, info.Partitions, info.Configs, format.StateLive
		return !was.same(info)
	})
	if err != nil {
		return err
	}
	if deleted {
		return fmt.Errorf("%w: topic %s (%s) is deleted in the bucket", ErrFenced, tp.Topic, tp.TopicID)
	}
	a.mu.Lock()
	a.mu.described[tp.TopicID] = said // not what a broker with newer metadata wrote
	a.mu.Unlock()
	return nil
}

// undescribed says, from memory alone, whether topic.json may say something else
// than the metadata.
func (a *Archiver) undescribed(tp metadata.TopicPartition) bool {
	info, ok := a.cfg.Topic(tp.TopicID)
	if !ok {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	known, described := a.mu.described[tp.TopicID]
	return !described || !known.same(info)
}

// changeTopic reads topic.json, changes it, and replaces it by compare-and-set.
// change says whether there is anything to write. With create a missing one is
// made; without, it is objectstore.ErrNotFound.
func (a *Archiver) changeTopic(ctx context.Context, id metadata.TopicID, create bool, change func(*format.Topic) bool) error {
	key := format.TopicFolder(a.cfg.Cluster, id.String()) + format.TopicName
	var last error
	damaged := false
	for range 5 {
		t := format.Topic{ClusterID: a.cfg.ClusterID, ID: id.String()}
		cond := objectstore.Cond{IfNoneMatch: true}
		data, etag, err := a.bucket.Get(ctx, key)
		switch {
		case err == nil:
			cond = objectstore.Cond{IfMatch: etag}
			t, err = format.DecodeTopic(data)
			if create && errors.Is(err, format.ErrCorrupt) {
				if last = fmt.Errorf("%s: %w", key, err); !damaged {
					damaged = true
					continue // it may have been damaged on its way
				}
				// It only repeats what the metadata knows: write it again.
				a.logger.Error("topic.json is damaged and is written again", "event", "topic_json_damaged", "key", key, "err", err)
				t, err = format.Topic{ClusterID: a.cfg.ClusterID, ID: id.String()}, nil
			}
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			if t.ID != id.String() || t.ClusterID != a.cfg.ClusterID {
				return fmt.Errorf("%w: %s describes topic %s of cluster %s", ErrSafeMode, key, t.ID, t.ClusterID)
			}
		case !isGone(err) || !create:
			return fmt.Errorf("read %s: %w", key, err)
		}
		if !change(&t) {
			return nil
		}
		data = format.EncodeTopic(t)
		_, err = a.bucket.Put(ctx, key, bytes.NewReader(data), int64(len(data)), cond)
		if err == nil {
			return nil
		}
		// A lost race or an unknown outcome: whoever won, what counts is whether
		// topic.json says the right thing now.
		if !errors.Is(err, objectstore.ErrPrecondition) && !errors.Is(err, objectstore.ErrInDoubt) && !isGone(err) {
			return fmt.Errorf("write %s: %w", key, err)
		}
		last = err
	}
	return fmt.Errorf("write %s: %w", key, last)
}

// DeleteTopic takes the next step of deleting a topic's objects and says whether
// nothing is left of it. It follows the graveyard's rules (SAFETY 11): unlinked,
// and only after the grace time irrevocably deleting; heads go after all objects
// that they name, topic.json last. Call it again until it is done. The topic must
// be tombstoned: nobody leads its partitions any more, here or elsewhere.
func (a *Archiver) DeleteTopic(ctx context.Context, id metadata.TopicID) (done bool, err error) {
	folder := format.TopicFolder(a.cfg.Cluster, id.String())
	data, _, err := a.bucket.Get(ctx, folder+format.TopicName)
	if isGone(err) {
		// Heads are only ever written after topic.json: nothing may be here.
		for info, err := range a.bucket.List(ctx, folder) {
			if err != nil {
				return false, fmt.Errorf("list %s: %w", folder, err)
			}
			return false, fmt.Errorf("%w: %s without %s", ErrSafeMode, info.Key, format.TopicName)
		}
		return true, a.cfg.Memory.Forget(id)
	}
	if err != nil {
		return false, fmt.Errorf("read %s: %w", folder+format.TopicName, err)
	}
	t, err := format.DecodeTopic(data)
	if err != nil {
		return false, fmt.Errorf("%s: %w", folder+format.TopicName, err)
	}
	now := a.cfg.Now()
	date, err := a.bucket.Date(ctx)
	if err != nil {
		return false, fmt.Errorf("read the store's clock: %w", err)
	}
	if t.State != format.StateUnlinked && t.State != format.StateDeleting {
		err := a.changeTopic(ctx, id, false, func(t *format.Topic) bool {
			t.State, t.SinceMs = format.StateUnlinked, date.UnixMilli()
			return true
		})
		if err != nil {
			return false, err
		}
		t.State, t.SinceMs = format.StateUnlinked, date.UnixMilli()
	}
	a.mu.Lock()
	seen, ok := a.mu.doomed[id]
	if !ok {
		seen = now
		a.mu.doomed[id] = now
	}
	delete(a.mu.described, id)
	a.mu.Unlock()
	if t.State == format.StateUnlinked {
		if now.Sub(seen) < a.cfg.Grace || date.UnixMilli()-t.SinceMs < a.cfg.Grace.Milliseconds() {
			return false, nil
		}
		err := a.changeTopic(ctx, id, false, func(t *format.Topic) bool {
			t.State = format.StateDeleting
			return true
		})
		if err != nil {
			return false, err
		}
	}
	for p := range t.Partitions {
		if err := a.emptyPartition(ctx, metadata.TopicPartition{TopicID: id, Topic: t.Name, Partition: p}); err != nil {
			return false, err
		}
	}
	// Partitions that topic.json does not know must not be left without it.
	more := map[int32]bool{}
	for info, err := range a.bucket.List(ctx, folder) {
		if err != nil {
			return false, fmt.Errorf("list %s: %w", folder, err)
		}
		number, _, ok := strings.Cut(strings.TrimPrefix(info.Key, folder), "/")
		if p, err := strconv.ParseInt(number, 10, 32); ok && err == nil && int32(p) >= t.Partitions {
			more[int32(p)] = true
		}
	}
	for p := range more {
		if err := a.emptyPartition(ctx, metadata.TopicPartition{TopicID: id, Topic: t.Name, Partition: p}); err != nil {
			return false, err
		}
	}
	if err := a.bucket.Delete(ctx, []string{folder + format.TopicName}); err != nil {
		return false, err
	}
	a.mu.Lock()
	delete(a.mu.doomed, id)
	a.mu.Unlock()
	a.metrics.forget(t.Name)
	a.logger.Info("a deleted topic is gone from the bucket", "event", "topic_deleted", "topic", t.Name, "topic_id", id.String())
	return true, a.cfg.Memory.Forget(id)
}

// emptyPartition deletes the objects of one partition of a topic that is
// irrevocably deleted. The head is marked first, which fences a writer that has
// not heard of the deletion; with the log at its end nothing below is needed, so
// objects that no manifest names go as well.
func (a *Archiver) emptyPartition(ctx context.Context, tp metadata.TopicPartition) error {
	folder := a.folder(tp)
	data, etag, err := a.bucket.Get(ctx, folder+format.HeadName)
	if err == nil {
		h, err := format.DecodeHead(data)
		if err != nil {
			return fmt.Errorf("%s: %w", folder+format.HeadName, err)
		}
		if !h.Deleted {
			h.Deleted, h.Nonce = true, newNonce()
			h.Generation++
			data = format.EncodeHead(h)
			if _, err := a.bucket.Put(ctx, folder+format.HeadName, bytes.NewReader(data), int64(len(data)), objectstore.Cond{IfMatch: etag}); err != nil {
				return fmt.Errorf("mark %s as deleted: %w", folder+format.HeadName, err) // the next call looks again
			}
		}
	} else if !isGone(err) {
		return fmt.Errorf("read %s: %w", folder+format.HeadName, err)
	}
	var keys []string
	for info, err := range a.bucket.List(ctx, folder) {
		if err != nil {
			return fmt.Errorf("list %s: %w", folder, err)
		}
		name := strings.TrimPrefix(info.Key, folder)
		if name == format.HeadName {
			continue
		}
		if _, ours := format.ParseName(name); !ours {
			a.logger.Warn("the bucket has an object that is not ours", "event", "stranger", "key", info.Key)
			continue
		}
		if keys = append(keys, info.Key); len(keys) == objectstore.MaxDelete {
			if err := a.deleteOf(ctx, tp, keys); err != nil {
				return err
			}
			keys = keys[:0]
		}
	}
	if err := a.deleteOf(ctx, tp, keys); err != nil {
		return err
	}
	return a.bucket.Delete(ctx, []string{folder + format.HeadName})
}

func (a *Archiver) deleteOf(ctx context.Context, tp metadata.TopicPartition, keys []string) error {
	if err := a.bucket.Delete(ctx, keys); err != nil {
		a.metrics.deleteErrors.Inc()
		return fmt.Errorf("delete the objects of %s-%d: %w", tp.Topic, tp.Partition, err)
	}
	return nil
}
