package metadata_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/metadata/memory"
)

func newTopic(t *testing.T, c *metadata.Client, name string, partitions int32) *metadata.Topic {
	t.Helper()
	return must[*metadata.Topic](t)(c.CreateTopic(t.Context(), metadata.NewTopic{Name: name, Partitions: partitions, ReplicationFactor: 1}))
}

// TestALostHintIsARollbackToo (SAFETY 17): a store that went back by a hint alone has
// every key in its place, and gives out revisions for the second time.
func TestALostHintIsARollbackToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dir := memory.NewServer(1, time.Now), t.TempDir()
		c := open(t, s, 1, guarded(dir))
		old := s.Backup()
		if err := c.PutHint(t.Context(), "load", []byte("7")); err != nil {
			t.Fatal(err)
		}
		c.Close()
		s.Restore(old)
		c = open(t, s, 1, guarded(dir))
		if _, on := c.SafeMode(); !on {
			t.Fatal("nobody noticed")
		}
	})
}

// TestAnotherHistoryOfTheSameLength (SAFETY 17): the store went back, and another
// process led the partition under the very revision and version that this one knows.
// Only the request's id tells.
func TestAnotherHistoryOfTheSameLength(t *testing.T) {
	for _, mode := range []string{"running", "down"} {
		t.Run(mode, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := memory.NewServer(1, time.Now)
				guard := func(*metadata.Config) {}
				if mode == "down" {
					guard = guarded(t.TempDir())
				}
				c := open(t, s, 1, guard)
				topic := newTopic(t, c, "t", 1)
				first := lead(t, c, topic, 0, 1, -1)
				old := s.Backup()
				last := lead(t, c, topic, 0, 1, -1)
				st := s.Open()
				defer st.Close()
				key := "partitions." + topic.ID.Hex() + ".0"
				is := must[metadata.Entry](t)(st.Get(t.Context(), key))
				forged := strings.Replace(string(is.Value), `"req":"1-`, `"req":"9-`, 1)
				if forged == string(is.Value) {
					t.Fatalf("no request id in %s", forged)
				}
				if mode == "down" {
					c.Close()
				}
				s.Restore(old)
				if rev := must[uint64](t)(st.Update(t.Context(), key, []byte(forged), first.Revision)); rev != last.Revision {
					t.Fatalf("revision %d became %d", last.Revision, rev)
				}
				if mode == "down" {
					c = open(t, s, 1, guard)
				} else {
					time.Sleep(time.Minute) // a comparison key by key
				}
				if _, on := c.SafeMode(); !on {
					t.Fatal("another history passed for ours")
				}
			})
		})
	}
}

// TestSafeModeRefusesABatch (SAFETY 17): leaderships that are asked for together are
// refused as each alone is, and nothing is written.
func TestSafeModeRefusesABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		c := open(t, s, 1)
		topic := newTopic(t, c, "t", 8)
		newTopic(t, c, "u", 1)
		var reqs []metadata.LeadRequest
		for n := range topic.Partitions {
			lead(t, c, topic, n, 1, -1)
			reqs = append(reqs, metadata.LeadRequest{TopicPartition: metadata.TopicPartition{TopicID: topic.ID, Partition: n}, Node: 1, MinEpoch: -1, Incarnation: 1})
		}
		s.LoseKey("topics.u")
		awaitSafeMode(t, c, true)
		st := s.Open()
		defer st.Close()
		before := must[metadata.Status](t)(st.Status(t.Context()))
		for range 20 {
			for n, r := range c.Lead(t.Context(), reqs) {
				if !errors.Is(r.Err, metadata.ErrSafeMode) {
					t.Fatalf("partition %d leads: %+v", n, r)
				}
			}
		}
		if after := must[metadata.Status](t)(st.Status(t.Context())); after != before {
			t.Fatalf("safe mode wrote: %+v became %+v", before, after)
		}
	})
}

// TestSafeModeOutlivesARestart (SAFETY 17): what this broker knew before is not
// overwritten by what it is offered instead, neither while safe mode lasts nor when
// it stops.
func TestSafeModeOutlivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dir := memory.NewServer(1, time.Now), t.TempDir()
		c := open(t, s, 1, guarded(dir))
		topic := newTopic(t, c, "t", 1)
		lead(t, c, topic, 0, 1, -1)
		old := s.Backup()
		lead(t, c, topic, 0, 1, -1)
		c.Close()
		s.Restore(old)
		st := s.Open()
		for rev, i := uint64(0), 0; i < 100; i++ {
			rev = must[uint64](t)(st.Update(t.Context(), "hints.noise", []byte("x"), rev))
		}
		st.Close()
		for i := range 3 {
			c = open(t, s, 1, guarded(dir))
			if _, on := c.SafeMode(); !on {
				t.Fatalf("start %d: the rollback is forgotten", i+1)
			}
			if i == 1 {
				time.Sleep(2 * time.Minute)
				if _, on := c.SafeMode(); !on {
					t.Fatal("safe mode ended by itself")
				}
			}
			c.Close()
		}
	})
}

// TestNothingIsFoldedInSafeMode (SAFETY 16, 17): the last image that made sense stays,
// whatever a store that lost something says next.
func TestNothingIsFoldedInSafeMode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		c := open(t, s, 1)
		topic := newTopic(t, c, "t", 1)
		newTopic(t, c, "u", 1)
		s.LoseKey("topics.t")
		awaitSafeMode(t, c, true)
		st := s.Open()
		defer st.Close()
		must[uint64](t)(st.Update(t.Context(), "topics.t", fmt.Appendf(nil, `{"major":1,"ver":99,"req":"x","tombstones":[{"id":%q,"name":"t","at":"2026-01-01T00:00:00Z","partitions":1}]}`, topic.ID.Hex()), 0))
		time.Sleep(time.Second) // the watch is at once, a comparison is not due yet
		if _, ok := c.Image().TopicByID(topic.ID); !ok || c.Image().Tombstoned(topic.ID) {
			t.Fatal("a topic of the last good image is gone")
		}
	})
}

// TestASoleReplicaLeadsAgain (SAFETY 3): the only replica of a partition leads as
// another process, too, in a new epoch; nobody else could.
func TestASoleReplicaLeadsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, memory.NewServer(1, time.Now), 1)
		topic := newTopic(t, c, "t", 1)
		before := lead(t, c, topic, 0, 1, -1)
		r := c.Lead(t.Context(), []metadata.LeadRequest{{
			TopicPartition: metadata.TopicPartition{TopicID: topic.ID, Topic: "t"}, Node: 1, MinEpoch: -1, Incarnation: 2, DirID: "d2",
		}})[0]
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		if r.State.LeaderEpoch != before.LeaderEpoch+1 || len(r.State.ISR) != 1 || r.State.ISR[0] != (metadata.Member{Node: 1, Incarnation: 2, DirID: "d2"}) || len(r.State.ELR) != 0 {
			t.Fatalf("%+v", r.State)
		}
	})
}

// TestTombstonesStayForDays (SAFETY 16): also when nobody has data any more, so that
// a broker that was away learns of the deletion.
func TestTombstonesStayForDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		c := open(t, s, 1, func(c *metadata.Config) { c.ReconcileEvery = time.Hour })
		topic := newTopic(t, c, "t", 1)
		if err := errors.Join(c.DeleteTopic(t.Context(), "t", topic.ID), c.MarkReplicasGone(t.Context(), topic.ID, 1), c.MarkBucketGone(t.Context(), topic.ID)); err != nil {
			t.Fatal(err)
		}
		for _, days := range []int{0, 6, 2} {
			time.Sleep(time.Duration(days) * 24 * time.Hour)
			if err := c.SweepTombstones(t.Context()); err != nil {
				t.Fatal(err)
			}
			if stays := days != 2; c.Image().Tombstoned(topic.ID) != stays {
				t.Fatalf("%d days later: tombstoned %v", days, !stays)
			}
		}
	})
}

// TestAnotherKeyMakesUpForNone (SAFETY 16): the store lost a key, and has as many as
// before once another is made. Safe mode goes on.
func TestAnotherKeyMakesUpForNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		c := open(t, s, 1)
		topic := newTopic(t, c, "t", 1)
		newTopic(t, c, "u", 1)
		s.LoseKey("topics.t")
		awaitSafeMode(t, c, true)
		st := s.Open()
		defer st.Close()
		must[uint64](t)(st.Update(t.Context(), "hints.other", nil, 0))
		for range 120 {
			time.Sleep(time.Second)
			if _, on := c.SafeMode(); !on {
				t.Fatal("safe mode ended though a topic is lost")
			}
		}
		if _, ok := c.Image().TopicByID(topic.ID); !ok {
			t.Fatal("absence became deletion")
		}
	})
}
