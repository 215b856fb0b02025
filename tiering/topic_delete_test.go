package tiering

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/objectstore/faulty"
	"github.com/firnlog/firn/tiering/format"
)

// solemn is a store that sees a topic go in the right order (SAFETY 11): topic.json
// says deleting before anything does, a head says deleted before its objects go and
// goes after them, topic.json goes last.
type solemn struct {
	objectstore.Bucket
	w       *world
	deletes func()         // called before each deletion
	gone    func([]string) // and after
	deleted int
}

func (b *solemn) Delete(ctx context.Context, keys []string) error {
	if b.deletes != nil {
		b.deletes()
	}
	b.deleted += len(keys)
	t, raw := b.w.t, b.w.raw
	data, _, err := raw.Get(ctx, b.w.topicKey())
	if err != nil {
		t.Errorf("%v go, and topic.json: %v", keys, err)
	} else if topic, err := format.DecodeTopic(data); err != nil || topic.State != format.StateDeleting {
		t.Errorf("%v go, and topic.json says %s, %v", keys, topic.State, err)
	}
	for _, k := range keys {
		folder := k[:strings.LastIndexByte(k, '/')+1]
		if name := k[len(folder):]; name == format.HeadName || name == format.TopicName {
			for info := range raw.List(ctx, folder) {
				if n := info.Key[strings.LastIndexByte(info.Key, '/')+1:]; info.Key != k && n != "readme.txt" {
					t.Errorf("%s goes before %s", k, info.Key)
				}
			}
			continue
		}
		data, _, err := raw.Get(ctx, folder+format.HeadName)
		if errors.Is(err, objectstore.ErrNotFound) {
			continue
		}
		if h, err := format.DecodeHead(data); err != nil || !h.Deleted {
			t.Errorf("%s goes before its head says so: %v", k, err)
		}
	}
	if b.gone != nil {
		defer b.gone(keys)
	}
	return b.Bucket.Delete(ctx, keys)
}

// doomed is a topic of three partitions with objects, whose leader has resigned. The
// third one is not in topic.json.
func doomed(w *world) (*leader, *solemn) {
	l := w.lead()
	w.fill(40)
	l.settle()
	l.a.Resign(w.tp)
	for p := int32(1); p < 3; p++ {
		folder := format.PartitionFolder("c", w.tp.TopicID.String(), p)
		for i := range int64(3) {
			w.put(folder+format.SegmentName(5*i, 5*i+5, 1, format.Nonce{1}), "x")
		}
		w.put(folder+format.HeadName, string(format.EncodeHead(&format.Head{ClusterID: "id", TopicID: w.tp.TopicID, Partition: p, Generation: 1})))
	}
	b := &solemn{Bucket: l.a.bucket, w: w}
	l.a.bucket = b
	return l, b
}

// put writes an object behind everybody's back.
func (w *world) put(key, data string) {
	w.t.Helper()
	if _, err := w.raw.Put(context.Background(), key, strings.NewReader(data), int64(len(data)), objectstore.Cond{}); err != nil {
		w.t.Fatal(err)
	}
}

// left are the keys in the store.
func (w *world) left() (keys []string) {
	for info, err := range w.raw.List(context.Background(), "") {
		if err != nil {
			w.t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// bury takes steps until the topic is gone.
func (l *leader) bury() error {
	var last error
	for range 6 {
		done, err := l.a.DeleteTopic(context.Background(), l.tp.TopicID)
		if done && err == nil {
			return nil
		}
		last = err
		time.Sleep(l.a.cfg.Grace + time.Second)
	}
	return errors.Join(errors.New("the topic is not gone"), last)
}

// TestATopicGoesInOrder: also one with partitions that topic.json does not know, and
// what is not ours is left and in nobody's way.
func TestATopicGoesInOrder(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l, b := doomed(w)
		stranger := w.folder() + "readme.txt"
		w.put(stranger, "x")
		for range 2 {
			if err := l.bury(); err != nil {
				t.Fatal(err)
			}
		}
		if left := w.left(); !slices.Equal(left, []string{stranger}) || b.deleted == 0 {
			t.Fatalf("left: %v", left)
		}
	})
}

// TestADamagedHeadDoesNotKeepItsTopic: nor does a topic.json that cannot be read. A
// writer that has not heard of the deletion is fenced all the same.
func TestADamagedHeadDoesNotKeepItsTopic(t *testing.T) {
	for _, name := range []string{"head", "topic.json"} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				zombie := w.lead()
				w.fill(40)
				zombie.settle()
				w.fill(40)
				l, b := doomed(w)
				if name == "head" {
					w.put(w.folder()+format.HeadName, "damaged")
				} else {
					w.put(w.topicKey(), "damaged")
				}
				b.deletes = func() {
					head, _, _ := w.raw.Get(context.Background(), w.folder()+format.HeadName)
					if len(head) == 0 {
						return // it is gone already
					}
					for range 3 {
						if zombie.pass() == nil {
							t.Error("a leader writes to a topic that is being deleted")
						}
					}
					after, _, _ := w.raw.Get(context.Background(), w.folder()+format.HeadName)
					if string(after) != string(head) {
						t.Error("a leader wrote the head of a topic that is being deleted")
					}
				}
				if err := l.bury(); err != nil {
					t.Fatal(err)
				}
				if left := w.left(); len(left) > 0 {
					t.Fatalf("left: %v", left)
				}
			})
		})
	}
}

// TestWhatAppearsDuringADeletionGoesToo: an object of a writer that was very slow
// lands in a partition that is empty already, and another one after that.
func TestWhatAppearsDuringADeletionGoesToo(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l, b := doomed(w)
		late := 0
		b.gone = func(keys []string) {
			for _, k := range keys {
				if strings.HasSuffix(k, "/0/"+format.HeadName) || strings.HasSuffix(k, "/2/"+format.HeadName) {
					if late++; late < 4 {
						w.put(w.folder()+format.SegmentName(500, 600, 1, format.Nonce{byte(late)}), "x")
					}
				}
			}
		}
		if err := l.bury(); err != nil {
			t.Fatal(err)
		}
		if left := w.left(); len(left) > 0 || late < 4 {
			t.Fatalf("left: %v", left)
		}
	})
}

// TestDamageOnTheWayIsLookedAtTwice: a head that arrives damaged once is not
// replaced by one that says nothing.
func TestDamageOnTheWayIsLookedAtTwice(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l, b := doomed(w)
		before := w.head()
		w.bucket.Inject(faulty.Fault{Kind: faulty.Corrupt, Op: objectstore.OpGet, Match: w.folder() + format.HeadName})
		looked := false
		b.deletes = func() {
			if h := w.head(); h != nil {
				looked = true
				if h.End != before.End || h.Generation != before.Generation+1 || !h.Deleted {
					t.Errorf("the head that says deleted ends at %d, generation %d", h.End, h.Generation)
				}
			}
		}
		if err := l.bury(); err != nil || !looked {
			t.Fatal(looked, err)
		}
	})
}

// TestOneObjectKeepsItsPartitionOnly: an object that cannot be deleted keeps its
// head and topic.json, and nothing else.
func TestOneObjectKeepsItsPartitionOnly(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l, b := doomed(w)
		locked := w.folder() + w.head().Entries[0].Name()
		lock := &stuck{Bucket: b.Bucket, key: locked}
		b.Bucket = lock
		if l.bury() == nil {
			t.Fatal("the topic is gone")
		}
		if left, want := w.left(), []string{locked, w.folder() + format.HeadName, w.topicKey()}; !slices.Equal(left, want) {
			t.Fatalf("left: %v, want %v", left, want)
		}
		lock.key = ""
		if err := l.bury(); err != nil || len(w.left()) > 0 {
			t.Fatalf("left: %v, %v", w.left(), err)
		}
	})
}

// TestWhatLiesElsewhereStays: an entry may name an object outside of the topic's
// folder, which is another's.
func TestWhatLiesElsewhereStays(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		l, _ := doomed(w)
		elsewhere := "c/topics/another/0/" + format.SegmentName(0, 5, 1, format.Nonce{1})
		w.put(elsewhere, "x")
		h := w.head()
		h.Entries[0].Key = elsewhere
		w.put(w.folder()+format.HeadName, string(format.EncodeHead(h)))
		if err := l.bury(); err != nil {
			t.Fatal(err)
		}
		if left := w.left(); !slices.Equal(left, []string{elsewhere}) {
			t.Fatalf("left: %v", left)
		}
	})
}

// TestDeletingIsIrrevocable: topic.json changes between the look and the write.
// Deleting never becomes unlinked again, and what was revived does not go.
func TestDeletingIsIrrevocable(t *testing.T) {
	for _, tt := range []struct{ from, to, want string }{
		{format.StateLive, format.StateDeleting, format.StateDeleting},
		{format.StateUnlinked, format.StateLive, format.StateLive},
	} {
		t.Run(tt.from+" "+tt.to, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				l, b := doomed(w)
				if tt.from == format.StateUnlinked {
					if _, err := l.a.DeleteTopic(context.Background(), w.tp.TopicID); err != nil {
						t.Fatal(err)
					}
					time.Sleep(l.a.cfg.Grace + time.Second)
				}
				was := w.topic()
				objects := len(w.left())
				race := &racing{Bucket: b, put: func(key string) {
					if strings.HasSuffix(key, format.TopicName) && was.State == w.topic().State {
						next := was
						next.State = tt.to
						w.put(w.topicKey(), string(format.EncodeTopic(next)))
					}
				}}
				l.a.bucket = race
				if _, err := l.a.DeleteTopic(context.Background(), w.tp.TopicID); err != nil {
					t.Fatal(err)
				}
				if tt.want == format.StateLive {
					if got := w.topic().State; got != tt.want || len(w.left()) != objects {
						t.Fatalf("topic.json says %s, %d objects of %d", got, len(w.left()), objects)
					}
					return
				}
				if slices.Contains(w.left(), w.topicKey()) {
					t.Fatalf("topic.json says %s", w.topic().State)
				}
			})
		})
	}
}

// racing calls a function before each Put.
type racing struct {
	objectstore.Bucket
	put func(key string)
}

func (b *racing) Put(ctx context.Context, key string, body io.ReadSeeker, size int64, c objectstore.Cond) (string, error) {
	b.put(key)
	return b.Bucket.Put(ctx, key, body, size, c)
}
