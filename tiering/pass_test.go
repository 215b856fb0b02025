package tiering

import (
	"context"
	"errors"
	"iter"
	"testing"
	"time"

	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/objectstore/faulty"
)

// ticks is what the scheduler does for d: a look every second, a pass when one is
// due. each comes before a look.
func (l *leader) ticks(d time.Duration, each func()) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
		if each != nil {
			each()
		}
		if l.archive.due(time.Now()) {
			l.archive.run(context.Background())
		}
	}
}

// TestUploadsKeepTheirPace: an object that cannot be deleted fails the purge of
// every pass; what is appended reaches the bucket in the next pass all the same,
// and the purge is tried at a pace of its own.
func TestUploadsKeepTheirPace(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := small(w)
		l.a.shape.inline = 1000
		l.sink(12)
		b := &stuck{Bucket: l.a.bucket, key: w.folder() + w.head().Entries[3].Name()}
		l.a.bucket = b
		w.log.SetStart(8)
		l.ticks(l.a.cfg.Grace+2*time.Minute, nil)
		if len(w.head().Graves) != 1 || l.archive.Err() == nil {
			t.Fatalf("%d graves, error %v", len(w.head().Graves), l.archive.Err())
		}
		asked, most := b.asked, int64(0)
		l.ticks(5*time.Minute, func() {
			w.fill(1)
			most = max(most, w.log.End()-w.head().End)
		})
		if most > 2 {
			t.Errorf("with a batch a second the bucket is up to %d batches behind", most)
		}
		if n := b.asked - asked; n < 5 || n > 100 {
			t.Errorf("%d deletions in five minutes", n)
		}
		b.key = ""
		l.ticks(2*time.Minute, nil)
		if len(w.head().Graves) != 0 || l.archive.Err() != nil {
			t.Errorf("%d graves, error %v", len(w.head().Graves), l.archive.Err())
		}
	})
}

// TestGravesEmptyBesideFailingUploads: no object can be put, and what is buried
// goes in time; uploads are tried now and then.
func TestGravesEmptyBesideFailingUploads(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := small(w)
		l.sink(7)
		w.bucket.Inject(faulty.Fault{Kind: faulty.Before, Op: objectstore.OpPut, Match: ".seg", Times: -1, Err: objectstore.ErrDenied})
		w.fill(1)
		w.log.SetStart(4)
		met := w.bucket.Met(faulty.Before)
		l.ticks(l.a.cfg.Grace+time.Minute, nil)
		if h := w.head(); len(h.Graves) != 0 || h.Start() != 4 {
			t.Errorf("the head starts at %d, %d graves", h.Start(), len(h.Graves))
		}
		if n := w.bucket.Met(faulty.Before) - met; n < 10 || n > 100 {
			t.Errorf("%d uploads tried in %v", n, l.a.cfg.Grace)
		}
		w.bucket.Heal()
		l.ticks(time.Minute, nil)
		if h := w.head(); h.End != w.log.End() {
			t.Errorf("uploads do not resume: %v", l.archive.Err())
		}
	})
}

// TestAStoreThatIsAwayIsAskedNowAndThen: all kinds of work wait together, longer
// from time to time, and resume soon after it is back.
func TestAStoreThatIsAwayIsAskedNowAndThen(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := small(w)
		l.sink(7)
		w.log.SetStart(4)
		w.cfg.LocalRetentionMs = 0
		w.log.Roll()
		w.fill(20)
		w.bucket.Down(objectstore.ErrUnreachable)
		met := w.bucket.Met(faulty.Before)
		l.ticks(20*time.Minute, nil)
		if n := w.bucket.Met(faulty.Before) - met; n < 20 || n > 200 {
			t.Errorf("%d requests in 20 minutes", n)
		}
		w.bucket.Heal()
		l.ticks(2*time.Minute, nil)
		if h := w.head(); h.End != w.log.End() || w.log.LocalStart() < 7 {
			t.Errorf("the bucket ends at %d of %d, local start %d: %v", h.End, w.log.End(), w.log.LocalStart(), l.archive.Err())
		}
	})
}

// TestALostObjectIsSaidUntilItIsBack: passes that succeed at something else do not
// hide that the bucket lacks an object.
func TestALostObjectIsSaidUntilItIsBack(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.tune = func(c *Config) { c.ScrubEvery = time.Hour }
		l := small(w)
		l.sink(5)
		w.log.Roll()
		w.cfg.LocalRetentionMs = 0
		l.ticks(time.Minute, nil)
		key := w.folder() + w.head().Entries[0].Name()
		data, _, err := w.raw.Get(context.Background(), key)
		if err != nil || w.log.LocalStart() == 0 {
			t.Fatalf("local start %d: %v", w.log.LocalStart(), err)
		}
		w.cfg.LocalRetentionMs = -1
		l.a.bucket = &absent{Bucket: l.a.bucket, key: key}
		l.ticks(2*time.Hour, nil)
		for range 60 {
			l.ticks(10*time.Second, func() { w.fill(1) })
			if !errors.Is(l.archive.Err(), ErrSafeMode) {
				t.Fatalf("an object of %d bytes is lost, and the error is %v", len(data), l.archive.Err())
			}
		}
		l.a.bucket = w.bucket
		l.ticks(2*time.Hour, nil)
		if l.archive.Err() != nil {
			t.Fatalf("it is back: %v", l.archive.Err())
		}
	})
}

// absent is a store that lacks an object.
type absent struct {
	objectstore.Bucket
	key string
}

func (b *absent) Head(ctx context.Context, key string) (objectstore.Info, error) {
	if key == b.key {
		return objectstore.Info{}, objectstore.ErrNotFound
	}
	return b.Bucket.Head(ctx, key)
}

func (b *absent) List(ctx context.Context, prefix string) iter.Seq2[objectstore.Info, error] {
	return func(yield func(objectstore.Info, error) bool) {
		for info, err := range b.Bucket.List(ctx, prefix) {
			if info.Key != b.key && !yield(info, err) {
				return
			}
		}
	}
}

// TestTopicJSONFollowsTheTopic: a config or a number of partitions that changes
// reaches topic.json in the leadership that is, also while nothing else happens,
// and costs no request when nothing changed.
func TestTopicJSONFollowsTheTopic(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		info := TopicInfo{Name: "t", Partitions: 4}
		w.tune = func(c *Config) { c.Topic = func(metadata.TopicID) (TopicInfo, bool) { return info, true } }
		w.fill(20)
		w.lead().ticks(time.Minute, nil)
		requests := func() (n int64) {
			for _, o := range objectstore.Ops {
				n += w.bucket.Count(o).Requests
			}
			return n
		}
		for _, l := range []*leader{w.lead(), w.lead()} { // the second one has nothing to claim the head for
			l.ticks(time.Minute, nil)
			for _, next := range []TopicInfo{
				{Name: "t", Partitions: 6},
				{Name: "t", Partitions: 6, Configs: map[string]string{"retention.ms": "1000"}},
				{Name: "t", Partitions: 4, Configs: map[string]string{"retention.ms": "2000"}}, // a broker with old metadata
			} {
				info = next
				l.ticks(2*time.Second, nil)
				got := w.topic()
				if got.Partitions != 6 || got.Configs["retention.ms"] != next.Configs["retention.ms"] {
					t.Fatalf("topic.json says %d partitions, %v; want %+v", got.Partitions, got.Configs, next)
				}
				before := requests()
				if l.ticks(time.Minute, nil); requests() != before {
					t.Fatalf("%d requests while nothing changes", requests()-before)
				}
			}
			w.fill(20)
		}
	})
}
