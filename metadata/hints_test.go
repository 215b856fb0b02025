package metadata_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/metadata/memory"
)

func headHint(id metadata.TopicID, n int) string { return fmt.Sprintf("head.%s.%d", id.Hex(), n) }

func hintKeys(s *memory.Server) (out []string) {
	for _, k := range s.Keys() {
		if strings.HasPrefix(k, "hints.") {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

func putHints(t *testing.T, c *metadata.Client, names ...string) {
	t.Helper()
	for _, n := range names {
		if err := c.PutHint(t.Context(), n, []byte("7 100")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHintsGoWithTheirTopic: what was remembered of a topic's heads is deleted when
// its data is gone, and not before; what a late writer adds goes with the next
// sweep. Hints of other topics, and of none, stay.
func TestHintsGoWithTheirTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		c, other := open(t, s, 1), open(t, s, 2)
		gone := must[*metadata.Topic](t)(c.CreateTopic(t.Context(), metadata.NewTopic{Name: "gone", Assignment: map[int32][]int32{0: {1}, 1: {1}}, Partitions: -1, ReplicationFactor: -1}))
		stays := must[*metadata.Topic](t)(c.CreateTopic(t.Context(), metadata.NewTopic{Name: "stays", Partitions: 1, ReplicationFactor: 1}))
		putHints(t, c, headHint(gone.ID, 0), headHint(gone.ID, 1), headHint(stays.ID, 0), "load.1")
		all := hintKeys(s)
		if err := c.DeleteTopic(t.Context(), "gone", gone.ID); err != nil {
			t.Fatal(err)
		}
		step := func(what string, want []string) {
			t.Helper()
			if err := c.SweepTombstones(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := hintKeys(s); !slices.Equal(got, want) {
				t.Fatalf("%s: hints are %v, want %v", what, got, want)
			}
		}
		step("while a broker and the bucket have data", all)
		if err := c.MarkReplicasGone(t.Context(), gone.ID, 1); err != nil {
			t.Fatal(err)
		}
		step("while the bucket has data", all)
		if err := c.MarkBucketGone(t.Context(), gone.ID); err != nil {
			t.Fatal(err)
		}
		left := []string{"hints." + headHint(stays.ID, 0), "hints.load.1"}
		slices.Sort(left)
		step("data gone", left)
		awaitImage(t, other, "the other broker forgets them", func(im *metadata.Image) bool { return im.Hint(headHint(gone.ID, 1)) == nil })
		putHints(t, other, headHint(gone.ID, 1))
		awaitImage(t, c, "the late hint", func(im *metadata.Image) bool { return im.Hint(headHint(gone.ID, 1)) != nil })
		// The deletion is remembered as long as there is such a hint, however old.
		s.Behave(memory.Manners{LostRequest: 1})
		time.Sleep(8 * 24 * time.Hour)
		short, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := c.SweepTombstones(short); err == nil {
			t.Fatal("a sweep that reached nobody")
		}
		s.Behave(memory.Manners{})
		must[*metadata.Topic](t)(c.CreateTopic(t.Context(), metadata.NewTopic{Name: "gone", Partitions: 1, ReplicationFactor: 1}))
		if !c.Image().Tombstoned(gone.ID) {
			t.Fatal("the tombstone went before the hint")
		}
		step("a hint written late", left)
		if c.Image().Tombstoned(gone.ID) {
			t.Fatal("the tombstone stays without a reason")
		}
		time.Sleep(time.Hour)
		for _, c := range []*metadata.Client{c, other} {
			if reason, on := c.SafeMode(); on {
				t.Fatalf("deleting hints looked like a loss: %s", reason)
			}
		}
	})
}

// TestALostHintIsNoLoss: hints may be lost, the newest key of the store among them,
// or the marks of deleted ones. A key that may not be lost is still missed at once,
// however many hints there are.
func TestALostHintIsNoLoss(t *testing.T) {
	for _, also := range []string{"", "topics.t", "brokers.1", "cluster"} {
		t.Run("and "+also, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := memory.NewServer(1, time.Now)
				c := open(t, s, 1)
				topic := must[*metadata.Topic](t)(c.CreateTopic(t.Context(), metadata.NewTopic{Name: "t", Partitions: 1, ReplicationFactor: 1}))
				old := must[*metadata.Topic](t)(c.CreateTopic(t.Context(), metadata.NewTopic{Name: "old", Partitions: 1, ReplicationFactor: 1}))
				lead(t, c, topic, 0, 1, -1)
				putHints(t, c, "load.1", headHint(old.ID, 0), headHint(topic.ID, 0), "load.2")
				if err := c.DeleteTopic(t.Context(), "old", old.ID); err != nil {
					t.Fatal(err)
				}
				if err := c.MarkReplicasGone(t.Context(), old.ID, 1); err != nil {
					t.Fatal(err)
				}
				if err := c.MarkBucketGone(t.Context(), old.ID); err != nil {
					t.Fatal(err)
				}
				if err := c.SweepTombstones(t.Context()); err != nil {
					t.Fatal(err)
				}
				putHints(t, c, headHint(topic.ID, 0)) // the newest key of all
				time.Sleep(time.Minute)
				for _, name := range []string{"load.1", headHint(old.ID, 0), headHint(topic.ID, 0)} {
					s.LoseKey("hints." + name)
				}
				if also != "" {
					s.LoseKey(also)
					began := time.Now()
					awaitSafeMode(t, c, true)
					if took := time.Since(began); took > 6*time.Second {
						t.Fatalf("noticed after %v", took)
					}
					return
				}
				for range 600 {
					time.Sleep(time.Second)
					if reason, on := c.SafeMode(); on {
						t.Fatalf("a lost hint is safe mode: %s", reason)
					}
				}
				putHints(t, c, headHint(topic.ID, 0), "load.3")
				s.LoseKey("topics.t")
				began := time.Now()
				awaitSafeMode(t, c, true)
				if took := time.Since(began); took > 6*time.Second {
					t.Fatalf("after hints were lost, a lost topic is noticed after %v", took)
				}
			})
		})
	}
}
