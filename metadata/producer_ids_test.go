package metadata_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/metadata/memory"
)

// holding are logs that hold the producer ids given.
func holding(ids ...int64) func(below int64) int64 {
	return func(below int64) int64 {
		greatest := int64(-1)
		for _, id := range ids {
			if id < below {
				greatest = max(greatest, id)
			}
		}
		return greatest
	}
}

// TestProducerIDsAreAboveTheLogs (SAFETY 18): metadata that went back hands out no id
// that a log still knows.
func TestProducerIDsAreAboveTheLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		c := open(t, s, 1)
		must[int64](t)(c.NextProducerIDs(t.Context(), 10, nil))
		old := s.Backup()
		last := must[int64](t)(c.NextProducerIDs(t.Context(), 1000, nil)) + 999
		c.Close()
		s.Restore(old)
		c = open(t, s, 1)
		if first := must[int64](t)(c.NextProducerIDs(t.Context(), 10, holding(3, last))); first != last+1 {
			t.Fatalf("after metadata that went back ids begin at %d, a log has %d", first, last)
		}
		if first := must[int64](t)(c.NextProducerIDs(t.Context(), 10, holding(3, last))); first != last+11 {
			t.Fatalf("the next ones begin at %d", first)
		}
	})
}

// TestOneProducerUsesUpNoIDs (SAFETY 18): a client may write any producer id, also
// the last one, and there are ids for everybody else.
func TestOneProducerUsesUpNoIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, memory.NewServer(1, time.Now), 1)
		for i, hostile := range []int64{math.MaxInt64, math.MaxInt64 - 1, 1 << 62, 1<<40 + 38} {
			if first := must[int64](t)(c.NextProducerIDs(t.Context(), 10, holding(7, hostile))); first != int64(8+10*i) {
				t.Errorf("with id %d in a log ids begin at %d", hostile, first)
			}
		}
		if first := must[int64](t)(c.NextProducerIDs(t.Context(), 10, func(int64) int64 { return math.MaxInt64 - 1 })); first != 48 {
			t.Errorf("an id above the bound was taken: %d", first)
		}
		// One inside the window costs a window, no more.
		if first := must[int64](t)(c.NextProducerIDs(t.Context(), 10, holding(1<<40))); first != 1<<40+1 {
			t.Errorf("ids begin at %d", first)
		}
	})
}

// TestTheLastProducerIDsAreNotPassed: behind the last id there is none.
func TestTheLastProducerIDsAreNotPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		st := s.Open()
		defer st.Close()
		if err := st.Bootstrap(t.Context()); err != nil {
			t.Fatal(err)
		}
		c := open(t, s, 1)
		if _, err := st.Update(t.Context(), "ids.producer", fmt.Appendf(nil, `{"major":1,"ver":1,"req":"x","next":%d}`, int64(math.MaxInt64-20)), 0); err != nil {
			t.Fatal(err)
		}
		if first := must[int64](t)(c.NextProducerIDs(t.Context(), 10, holding(math.MaxInt64-15))); first != math.MaxInt64-14 {
			t.Fatalf("ids begin at %d", first)
		}
		for range 2 {
			if _, err := c.NextProducerIDs(t.Context(), 10, nil); !errors.Is(err, metadata.ErrProducerIDsExhausted) {
				t.Fatalf("ids beyond the last one: %v", err)
			}
		}
	})
}

// TestSafeModeLeavesAGapInTheProducerIDs (SAFETY 18): ids that were handed out, and
// are in no log yet, are above what the metadata knows after it went back.
func TestSafeModeLeavesAGapInTheProducerIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		c := open(t, s, 1)
		must[int64](t)(c.NextProducerIDs(t.Context(), 10, nil))
		old := s.Backup()
		must[*metadata.Topic](t)(c.CreateTopic(t.Context(), metadata.NewTopic{Name: "t", Partitions: 1, ReplicationFactor: 1}))
		whole := s.Backup()
		for i := range int64(2) {
			s.Restore(old)
			awaitSafeMode(t, c, true)
			if _, err := c.NextProducerIDs(t.Context(), 10, nil); !errors.Is(err, metadata.ErrSafeMode) {
				t.Fatalf("ids in safe mode: %v", err)
			}
			s.Restore(whole)
			awaitSafeMode(t, c, false)
			want := 10 + i*20 + (i+1)*1_000_000
			if first := must[int64](t)(c.NextProducerIDs(t.Context(), 10, holding(4))); first != want {
				t.Fatalf("after safe mode %d ids begin at %d, want %d", i+1, first, want)
			}
			if first := must[int64](t)(c.NextProducerIDs(t.Context(), 10, nil)); first != want+10 {
				t.Fatalf("the gap was left twice: %d", first)
			}
			whole = s.Backup()
		}
	})
}

// TestTheGapOutlivesARestart (SAFETY 18): the store is repaired while the broker is
// down, so that its next life sees nothing wrong. Ids that were handed out in the
// last moments before may be in no log, and in no copy of the metadata.
func TestTheGapOutlivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dir := memory.NewServer(1, time.Now), t.TempDir()
		c := open(t, s, 1, guarded(dir))
		must[int64](t)(c.NextProducerIDs(t.Context(), 10, nil))
		old := s.Backup()
		newTopic(t, c, "t", 1)
		whole := s.Backup()
		s.Restore(old)
		awaitSafeMode(t, c, true)
		c.Close()
		for range 2 {
			c = open(t, s, 1, guarded(dir)) // and again: it is still wrong
			if _, on := c.SafeMode(); !on {
				t.Fatal("no safe mode")
			}
			c.Close()
		}
		s.Restore(whole)
		for range 2 {
			c = open(t, s, 1, guarded(dir)) // nobody asks for ids in the first life
			if reason, on := c.SafeMode(); on {
				t.Fatal(reason)
			}
			time.Sleep(time.Minute)
			if len(c.Image().Topics()) < 2 {
				newTopic(t, c, "u", 1)
				time.Sleep(time.Minute)
				c.Close()
			}
		}
		if first := must[int64](t)(c.NextProducerIDs(t.Context(), 10, nil)); first != 1_000_010 {
			t.Fatalf("ids begin at %d", first)
		}
		c.Close()
		c = open(t, s, 1, guarded(dir))
		if first := must[int64](t)(c.NextProducerIDs(t.Context(), 10, nil)); first != 1_000_020 {
			t.Fatalf("the gap was left twice: %d", first)
		}
	})
}

// TestALostGuardLeavesAGapInTheProducerIDs (SAFETY 18): a broker that knows its
// cluster and has lost what it remembered of the metadata cannot see that it went
// back.
func TestALostGuardLeavesAGapInTheProducerIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dir := memory.NewServer(1, time.Now), t.TempDir()
		c := open(t, s, 1, guarded(dir))
		must[int64](t)(c.NextProducerIDs(t.Context(), 10, nil))
		id := c.Image().ClusterID()
		c.Close()
		known := func(c *metadata.Config) { c.ClusterID = id }
		c = open(t, s, 1, guarded(dir), known)
		if first := must[int64](t)(c.NextProducerIDs(t.Context(), 10, nil)); first != 10 {
			t.Fatalf("a gap without a reason: %d", first)
		}
		c.Close()
		if err := os.Remove(filepath.Join(dir, "data", "guard.json")); err != nil {
			t.Fatal(err)
		}
		for range 2 { // nobody asks for ids in the first life
			c = open(t, s, 1, guarded(dir), known)
			time.Sleep(time.Minute)
			if len(c.Image().Topics()) == 0 {
				newTopic(t, c, "t", 1)
				c.Close()
			}
		}
		if first := must[int64](t)(c.NextProducerIDs(t.Context(), 10, nil)); first != 1_000_020 {
			t.Fatalf("ids begin at %d", first)
		}
	})
}
