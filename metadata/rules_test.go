package metadata_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/metadata/memory"
)

// TestALossOfTheLastMomentOutlivesARestart (SAFETY 17): the guard is written now and
// then, but what safe mode was entered for is in it.
func TestALossOfTheLastMomentOutlivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dir := memory.NewServer(1, time.Now), t.TempDir()
		c := open(t, s, 1, guarded(dir))
		old := s.Backup()
		topic := newTopic(t, c, "t", 1)
		s.Restore(old)
		awaitSafeMode(t, c, true)
		c.Close()
		c = open(t, s, 1, guarded(dir))
		if _, on := c.SafeMode(); !on {
			t.Fatalf("topic %v was created, lost, and forgotten", topic.ID)
		}
	})
}

// TestARefusalIsNotMadeOnAStaleRead (SAFETY 4): a read that is older than what this
// broker has done itself refuses nothing.
func TestARefusalIsNotMadeOnAStaleRead(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			s := memory.NewServer(seed, time.Now)
			c := open(t, s, 1)
			s.Behave(memory.Manners{StaleRead: 0.7})
			for range 10 {
				topic, err := c.CreateTopic(t.Context(), metadata.NewTopic{Name: "t", Partitions: 1, ReplicationFactor: 1})
				if err != nil {
					t.Fatalf("seed %d: create after a deletion: %v", seed, err)
				}
				if err := c.CreatePartitions(t.Context(), "t", 2, nil, false); err != nil {
					t.Fatalf("seed %d: more partitions: %v", seed, err)
				}
				if err := c.DeleteTopic(t.Context(), "t", topic.ID); err != nil {
					t.Fatalf("seed %d: delete after a creation: %v", seed, err)
				}
			}
			c.Close()
		})
	}
}

// TestAnAnswerOlderThanTheConflictDecidesNothing (SAFETY 4): a write in doubt met a
// conflict. A stale read shows neither whose value won nor that ours was lost.
func TestAnAnswerOlderThanTheConflictDecidesNothing(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			s := memory.NewServer(seed, time.Now)
			c := open(t, s, 1)
			topic := newTopic(t, c, "t", 1)
			s.Behave(memory.Manners{LostAck: 0.7, StaleRead: 0.8})
			for round := range int64(10) {
				if st := lead(t, c, topic, 0, 1, -1); st.Version != round+1 {
					t.Fatalf("seed %d: leadership %d made version %d", seed, round, st.Version)
				}
			}
			c.Close()
		})
	}
}

// TestWhatALaterVersionWroteStays: a value of a later format is not read, and nothing
// is written over it.
func TestWhatALaterVersionWroteStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		c := open(t, s, 1)
		st := s.Open()
		defer st.Close()
		later := `{"major":2,"ver":1,"req":"later","next":5}`
		must[uint64](t)(st.Update(t.Context(), "ids.producer", []byte(later), 0))
		// At once: before the watch has seen it.
		if _, err := c.NextProducerIDs(t.Context(), 10, nil); !errors.Is(err, metadata.ErrNewerFormat) && !errors.Is(err, metadata.ErrSafeMode) {
			t.Fatalf("ids: %v", err)
		}
		reason := awaitSafeMode(t, c, true)
		if _, err := c.NextProducerIDs(t.Context(), 10, nil); err == nil {
			t.Fatal("ids were handed out")
		}
		for range 60 {
			time.Sleep(time.Second)
			if _, on := c.SafeMode(); !on {
				t.Fatal("safe mode ended by itself")
			}
		}
		if e := must[metadata.Entry](t)(st.Get(t.Context(), "ids.producer")); string(e.Value) != later {
			t.Fatalf("it became %s (%s)", e.Value, reason)
		}
	})
}

// TestAGuardOfALaterVersionIsRefused: so is the file of a later version, which may
// know of losses that this one cannot read.
func TestAGuardOfALaterVersionIsRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "data", "guard.json")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(`{"magic":"firn-metadata-guard","major":2,"crc32c":0}`), 0o644); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		if _, err := tryOpen(t, s, 1, guarded(dir)); !errors.Is(err, metadata.ErrNewerFormat) {
			t.Fatal(err)
		}
		if len(s.Keys()) != 0 {
			t.Fatalf("a cluster was made: %v", s.Keys())
		}
	})
}

// TestNoClusterIsMadeOverAnother (SAFETY 16): a store that has lost the cluster's own
// record is no beginning, also for a node that has never seen it.
func TestNoClusterIsMadeOverAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		c := open(t, s, 1)
		newTopic(t, c, "t", 1)
		c.Close()
		s.LoseKey("cluster")
		fresh, err := tryOpen(t, s, 2)
		if err != nil {
			t.Fatal(err)
		}
		defer fresh.Close()
		if _, on := fresh.SafeMode(); !on || slices.Contains(s.Keys(), "cluster") {
			t.Fatalf("safe mode %v, keys %v", on, s.Keys())
		}
	})
}

// TestATombstoneOutlivesItsPartitionsKeys (SAFETY 16): a leadership whose topic nobody
// knows any more could not be told from one whose topic was lost.
func TestATombstoneOutlivesItsPartitionsKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		c := open(t, s, 1, func(c *metadata.Config) { c.ReconcileEvery = time.Hour })
		topic := newTopic(t, c, "t", 1)
		lead(t, c, topic, 0, 1, -1)
		if err := errors.Join(c.DeleteTopic(t.Context(), "t", topic.ID), c.MarkReplicasGone(t.Context(), topic.ID, 1), c.MarkBucketGone(t.Context(), topic.ID)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(8 * 24 * time.Hour)
		newTopic(t, c, "t", 1) // sweeps the key that it writes
		if !c.Image().Tombstoned(topic.ID) {
			t.Fatal("the tombstone went first")
		}
		if err := c.SweepTombstones(t.Context()); err != nil {
			t.Fatal(err)
		}
		if c.Image().Tombstoned(topic.ID) || slices.Contains(s.Keys(), fmt.Sprintf("partitions.%s.0", topic.ID.Hex())) {
			t.Fatalf("tombstoned %v, keys %v", c.Image().Tombstoned(topic.ID), s.Keys())
		}
	})
}

// TestADeletionInDoubtIsNotRefused (SAFETY 4): the topic went by our own attempt, of
// which no answer came.
func TestADeletionInDoubtIsNotRefused(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			s := memory.NewServer(seed, time.Now)
			c, other := open(t, s, 1), open(t, s, 2)
			topic := newTopic(t, c, "a.b", 1)
			awaitImage(t, other, "the topic", func(im *metadata.Image) bool { _, ok := im.TopicByID(topic.ID); return ok })
			s.Behave(memory.Manners{LostAck: 0.8, SilentConflict: 0.5})
			done := make(chan error, 1)
			go func() { done <- c.DeleteTopic(t.Context(), "a.b", topic.ID) }()
			// Somebody builds on it before our second attempt.
			for range 50 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				_, err := other.CreateTopic(ctx, metadata.NewTopic{Name: "a_b", Partitions: 1, ReplicationFactor: 1})
				cancel()
				if err == nil || !errors.Is(err, metadata.ErrInvalidTopicName) {
					break
				}
			}
			if err := <-done; err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			closeAll([]*metadata.Client{c, other})
		})
	}
}

// TestSafeModeSweepsNothing (SAFETY 16): what looks old and done with is not deleted by
// what a store says that is not to be trusted.
func TestSafeModeSweepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		c := open(t, s, 1)
		topic := newTopic(t, c, "t", 1)
		newTopic(t, c, "u", 1)
		lead(t, c, topic, 0, 1, -1)
		putHints(t, c, headHint(topic.ID, 0))
		if err := errors.Join(c.DeleteTopic(t.Context(), "t", topic.ID), c.MarkReplicasGone(t.Context(), topic.ID, 1), c.MarkBucketGone(t.Context(), topic.ID)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(8 * 24 * time.Hour)
		s.LoseKey("topics.u")
		awaitSafeMode(t, c, true)
		before := s.Keys()
		if err := c.SweepTombstones(t.Context()); !errors.Is(err, metadata.ErrSafeMode) {
			t.Fatal(err)
		}
		if after := s.Keys(); len(after) != len(before) {
			t.Fatalf("%v became %v", before, after)
		}
	})
}
