package tiering

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/objectstore/faulty"
	"github.com/firnlog/firn/tiering/format"
)

func (w *world) topicKey() string {
	return format.TopicFolder("c", w.tp.TopicID.String()) + format.TopicName
}

func (w *world) topic() format.Topic {
	w.t.Helper()
	data, _, err := w.raw.Get(context.Background(), w.topicKey())
	if err != nil {
		w.t.Fatal(err)
	}
	t, err := format.DecodeTopic(data)
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

// TestNoHeadWithoutTopicJSON: a head that topic.json does not announce could
// never be deleted.
func TestNoHeadWithoutTopicJSON(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		known := false
		w.tune = func(c *Config) {
			c.Topic = func(metadata.TopicID) (TopicInfo, bool) { return TopicInfo{Name: "t", Partitions: 1}, known }
		}
		l := w.lead()
		w.fill(20)
		if err := l.pass(); err == nil || len(w.names()) > 0 {
			t.Fatalf("a topic that the metadata has not: %v, %v", err, w.names())
		}
		known = true
		l.settle()
		if w.head() == nil {
			t.Fatal("no head")
		}
	})
}

// TestADeletedTopicIsNotClaimed: a broker that has not heard of the deletion
// writes nothing into the topic's folder (SAFETY 11).
func TestADeletedTopicIsNotClaimed(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := w.lead()
		w.fill(20)
		l.settle()
		l.a.Resign(w.tp)
		if _, err := l.a.DeleteTopic(context.Background(), w.tp.TopicID); err != nil {
			t.Fatal(err)
		}
		w.fill(20)
		names := len(w.names())
		if err := w.lead().run(); !errors.Is(err, ErrFenced) || len(w.names()) != names {
			t.Fatalf("%v, %d objects of %d", err, len(w.names()), names)
		}
	})
}

// TestPartitionsNeverBecomeFewer: a broker with old metadata does not make
// topic.json forget partitions, and those that it forgot are deleted all the same.
func TestPartitionsNeverBecomeFewer(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		n := int32(4)
		w.tune = func(c *Config) {
			c.Topic = func(metadata.TopicID) (TopicInfo, bool) { return TopicInfo{Name: "t", Partitions: n}, true }
		}
		l := w.lead()
		w.fill(20)
		l.settle()
		n = 2
		l = w.lead()
		w.fill(20)
		l.settle()
		if got := w.topic().Partitions; got != 4 {
			t.Fatalf("topic.json says %d partitions", got)
		}
		l.a.Resign(w.tp)
		for p := range int32(8) {
			key := format.PartitionFolder("c", w.tp.TopicID.String(), p) + format.SegmentName(0, 5, 1, format.Nonce{1})
			w.raw.Put(context.Background(), key, strings.NewReader("x"), 1, objectstore.Cond{})
		}
		for range 3 {
			if _, err := l.a.DeleteTopic(context.Background(), w.tp.TopicID); err != nil {
				t.Fatal(err)
			}
			time.Sleep(l.a.cfg.Grace + time.Second)
		}
		for info := range w.raw.List(context.Background(), "") {
			t.Errorf("left: %s", info.Key)
		}
	})
}

// TestDamagedTopicJSON: it only repeats what the metadata knows, and stops nobody.
func TestDamagedTopicJSON(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.lead().settle()
		w.raw.Put(context.Background(), w.topicKey(), strings.NewReader("{"), 1, objectstore.Cond{})
		w.fill(20)
		w.lead().settle()
		if w.head() == nil || w.topic().Name != "t" {
			t.Fatal("nothing was uploaded")
		}
		// Damage on the way is not damage.
		before := w.topic()
		w.bucket.Inject(faulty.Fault{Kind: faulty.Corrupt, Op: objectstore.OpGet, Match: format.TopicName})
		w.fill(20)
		w.lead().settle()
		if after := w.topic(); after.Sum != before.Sum {
			t.Fatal("topic.json was written anew")
		}
	})
}

// TestAnotherTopicOfTheSameName shares nothing with the deleted one.
func TestAnotherTopicOfTheSameName(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l := w.lead()
		w.fill(20)
		l.settle()
		w.log.Close(false)
		w.tp.TopicID, w.epoch = metadata.TopicID{9}, 0
		w.log = w.open(t.TempDir())
		again := w.lead()
		if _, err := again.archive.Locate(context.Background(), 0); !errors.Is(err, ErrNotTiered) {
			t.Fatalf("offset 0 of the new topic: %v", err)
		}
		if _, ok, err := again.a.Recover(context.Background(), w.tp); ok || err != nil {
			t.Fatalf("the new topic is recovered: %v, %v", ok, err)
		}
		w.fill(20)
		again.settle()
		if got := again.archive.Usage().Objects; got == 0 || got > 5 {
			t.Fatalf("%d objects", got)
		}
	})
}

// TestTimeLookupsSeeARepairedObject: the head that a reader knows names an object
// that was replaced; it looks once more.
func TestTimeLookupsSeeARepairedObject(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		old := w.lead()
		w.fill(20)
		old.settle()
		reader := w.lead()
		if err := reader.archive.Load(context.Background()); err != nil {
			t.Fatal(err)
		}
		e := w.head().Entries[0]
		w.raw.Delete(context.Background(), []string{w.folder() + e.Name()})
		if err := old.run(); err != nil {
			t.Fatal(err)
		}
		if o, _, ok, err := reader.archive.OffsetForTime(context.Background(), 0); o != 0 || !ok || err != nil {
			t.Fatalf("offset %d, %v, %v", o, ok, err)
		}
		if _, _, ok, err := reader.archive.MaxTimestamp(context.Background()); !ok || err != nil {
			t.Fatalf("%v, %v", ok, err)
		}
	})
}

// TestLineageEndsAtTheLogStart: a head does not grow with every leadership that
// ever was.
func TestLineageEndsAtTheLogStart(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.cfg.MaxUnuploaded = time.Millisecond
		for range 30 {
			l := w.lead()
			l.sink(1)
			w.log.SetStart(w.log.End() - 2)
			l.settle()
		}
		h := w.head()
		if len(h.Lineage) > 4 || h.Lineage[0].Start > h.Start() {
			t.Fatalf("from %d on: lineage %v", h.Start(), h.Lineage)
		}
		r, ok, err := w.lead().a.Recover(context.Background(), w.tp)
		if err != nil || !ok || r.End != 30 || r.Lineage[len(r.Lineage)-1].Epoch != 30 {
			t.Fatalf("%+v %v %v", r, ok, err)
		}
	})
}
