package tiering

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
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
			if errors.Is(err, format.ErrCorrupt) {
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
// nothing is left of it. It follows the graveyard's rules (SAFETY 11): topic.json
// says unlinked, and only after the grace time, irrevocably, deleting; then the
// objects go, each partition's head after all of them, topic.json last. Call it
// again until it is done. The topic must be tombstoned: nobody leads its partitions
// any more, here or elsewhere.
//
// What is damaged holds nothing up, for the metadata has decided: a topic.json that
// cannot be read begins anew as unlinked, a head gives way to one that says deleted.
// What an entry names outside of the topic's folder (Entry.Key) is not this topic's,
// and stays.
func (a *Archiver) DeleteTopic(ctx context.Context, id metadata.TopicID) (done bool, err error) {
	folder := format.TopicFolder(a.cfg.Cluster, id.String())
	date, err := a.bucket.Date(ctx)
	if err != nil {
		return false, fmt.Errorf("read the store's clock: %w", err)
	}
	var t format.Topic
	err = a.changeTopic(ctx, id, false, func(now *format.Topic) bool {
		live := now.State != format.StateUnlinked && now.State != format.StateDeleting
		if live {
			now.State, now.SinceMs = format.StateUnlinked, date.UnixMilli()
		}
		t = *now
		return live
	})
	if isGone(err) {
		// Heads are only ever written after topic.json: nothing of ours may be here.
		left, err := a.leftOf(ctx, folder)
		if err != nil {
			return false, err
		}
		if len(left) > 0 {
			return false, fmt.Errorf("%w: %s has objects in %d partitions and no %s", ErrSafeMode, folder, len(left), format.TopicName)
		}
		return true, a.cfg.Memory.Forget(id)
	}
	if err != nil {
		return false, err
	}
	now := a.cfg.Now()
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
		err := a.changeTopic(ctx, id, false, func(now *format.Topic) bool {
			unlinked := now.State == format.StateUnlinked
			if unlinked {
				now.State = format.StateDeleting
			}
			t = *now
			return unlinked
		})
		if err != nil || t.State != format.StateDeleting {
			return false, err // somebody revived it
		}
	}
	if err := a.emptyTopic(ctx, id, t); err != nil {
		return false, err
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

// leftOf lists the partitions below a topic's folder that have objects of ours.
func (a *Archiver) leftOf(ctx context.Context, folder string) (map[int32]bool, error) {
	left := map[int32]bool{}
	for info, err := range a.bucket.List(ctx, folder) {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", folder, err)
		}
		number, name, _ := strings.Cut(strings.TrimPrefix(info.Key, folder), "/")
		p, err := strconv.ParseInt(number, 10, 32)
		if _, named := format.ParseName(name); err == nil && (named || name == format.HeadName) {
			left[int32(p)] = true
		}
	}
	return left, nil
}

// emptyTopic deletes the objects of all partitions. One that fails does not keep the
// others; a store that does not answer does.
func (a *Archiver) emptyTopic(ctx context.Context, id metadata.TopicID, t format.Topic) error {
	var errs []error
	empty := func(p int32) (more bool) {
		err := a.emptyPartition(ctx, metadata.TopicPartition{TopicID: id, Topic: t.Name, Partition: p})
		if err != nil {
			errs = append(errs, err)
		}
		return len(errs) < 16 && ctx.Err() == nil && !errors.Is(err, objectstore.ErrUnreachable)
	}
	for p := range t.Partitions {
		if !empty(p) {
			return errors.Join(errs...)
		}
	}
	// Those that topic.json does not know, and what a writer put that had not heard
	// of the deletion, must not be left without topic.json.
	for range rounds {
		left, err := a.leftOf(ctx, format.TopicFolder(a.cfg.Cluster, id.String()))
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		for _, p := range slices.Sorted(maps.Keys(left)) {
			// One that failed was tried just now.
			if (len(errs) == 0 || p >= t.Partitions) && !empty(p) {
				break
			}
		}
		if len(left) == 0 || len(errs) > 0 {
			return errors.Join(errs...)
		}
	}
	return fmt.Errorf("somebody still writes to topic %s (%s), which is deleted", t.Name, id)
}

// rounds is how often one call looks for what appeared while it deleted. A writer is
// fenced by its next commit, so that hardly anything does.
const rounds = 4

// emptyPartition deletes the objects of one partition of a topic that is
// irrevocably deleted. The head is marked first, which fences a writer that has
// not heard of the deletion; with the log at its end nothing below is needed, so
// objects that no manifest names go as well.
func (a *Archiver) emptyPartition(ctx context.Context, tp metadata.TopicPartition) error {
	if err := a.markDeleted(ctx, tp); err != nil {
		return err
	}
	for range rounds {
		found, err := a.deleteObjects(ctx, tp)
		if err != nil {
			return err // the head stays until all that it names is gone
		}
		if found == 0 {
			return a.bucket.Delete(ctx, []string{a.folder(tp) + format.HeadName})
		}
	}
	return fmt.Errorf("somebody still writes to %s-%d, which is deleted", tp.Topic, tp.Partition)
}

// deleteObjects deletes what a listing of tp's folder shows, but for the head, and
// says how much that was.
func (a *Archiver) deleteObjects(ctx context.Context, tp metadata.TopicPartition) (found int, err error) {
	folder := a.folder(tp)
	var errs []error
	var keys []string
	flush := func() {
		if err := a.bucket.Delete(ctx, keys); err != nil {
			a.metrics.deleteErrors.Inc()
			errs = append(errs, fmt.Errorf("delete the objects of %s-%d: %w", tp.Topic, tp.Partition, err))
		}
		found += len(keys)
		keys = keys[:0]
	}
	for info, err := range a.bucket.List(ctx, folder) {
		if err != nil {
			return found, errors.Join(append(errs, fmt.Errorf("list %s: %w", folder, err))...)
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
			if flush(); len(errs) >= 16 || ctx.Err() != nil {
				return found, errors.Join(errs...)
			}
		}
	}
	if len(keys) > 0 {
		flush()
	}
	return found, errors.Join(errs...)
}

// markDeleted makes the head of tp say that its topic is deleted, when there is one.
func (a *Archiver) markDeleted(ctx context.Context, tp metadata.TopicPartition) error {
	key := a.folder(tp) + format.HeadName
	var h *format.Head
	var etag string
	for range 2 { // it may have been damaged on its way
		data, tag, err := a.bucket.Get(ctx, key)
		if isGone(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", key, err)
		}
		if h, err = format.DecodeHead(data); err == nil && h.Deleted {
			return nil
		}
		if err != nil && !errors.Is(err, format.ErrCorrupt) {
			return fmt.Errorf("%s: %w", key, err)
		}
		if etag = tag; err == nil {
			break
		}
		a.logger.Error("the manifest of a deleted topic is damaged", "event", "head_damaged", "key", key, "err", err)
		h = &format.Head{
			ClusterID: a.cfg.ClusterID, ClusterGeneration: a.cfg.ClusterGeneration(), TopicID: tp.TopicID, Topic: tp.Topic, Partition: tp.Partition,
			Generation: a.cfg.Memory.Generation(tp), Epoch: math.MaxInt32, // later than any writer's
		}
	}
	h.Deleted, h.Nonce = true, newNonce()
	h.Generation++
	data := format.EncodeHead(h)
	if _, err := a.bucket.Put(ctx, key, bytes.NewReader(data), int64(len(data)), objectstore.Cond{IfMatch: etag}); err != nil {
		return fmt.Errorf("mark %s as deleted: %w", key, err) // the next call looks again
	}
	return nil
}
