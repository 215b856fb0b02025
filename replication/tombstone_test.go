package replication

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/metadata"
)

// TestAbsenceIsNeverDeletion: metadata that lost a topic, as one that was restored
// from before it did, leaves its logs alone, open or not, and a later image finds
// them as they were. Only a tombstone removes them (SAFETY 16).
func TestAbsenceIsNeverDeletion(t *testing.T) {
	sim := disk.NewSim(1)
	c := &cluster{epochs: map[metadata.TopicID]int32{}}
	b := newBroker(t, sim)
	b.tune = func(cfg *Config) { cfg.Cluster = c }
	c.show(images()[2])
	b.start()
	id := images()[2].Topics()[1].ID
	p := b.part(id, 0)
	b.produce(p, 3)
	c.show(images()[1]) // without it
	b.reconcile()
	b.produce(p, 1)
	if gone, err := b.Gone(id); gone || err != nil {
		t.Fatalf("gone %v: %v", gone, err)
	}
	b.stop(false)
	// The next start does not know the topic at all.
	b.start()
	if n := b.said.count("stray_log"); n != 1 {
		t.Fatalf("said %d times", n)
	}
	b.reconcile()
	if gone, err := b.Gone(id); gone || err != nil {
		t.Fatalf("gone %v: %v", gone, err)
	}
	c.show(images()[2])
	if p = b.part(id, 0); p.log.End() != 4 {
		t.Fatalf("the log ends at %d", p.log.End())
	}
	b.produce(p, 1)
	b.stop(false)
}

// TestATombstoneRemoves a topic that is open, and the folder of one that was deleted
// while this broker was away; its neighbour stays.
func TestATombstoneRemoves(t *testing.T) {
	b := newBroker(t, disk.NewSim(1))
	b.start()
	away, open, stays := b.topic("away", 1, nil), b.topic("open", 2, nil), b.topic("stays", 1, nil)
	for _, id := range []metadata.TopicID{away, open, stays} {
		b.produce(b.part(id, 0), 2)
	}
	has := func(id metadata.TopicID) bool {
		_, err := b.fs.Stat(topicDir(b.dir, id))
		return err == nil
	}
	remove := func(name string, id metadata.TopicID) {
		t.Helper()
		if err := b.meta.DeleteTopic(t.Context(), name, id); err != nil {
			t.Fatal(err)
		}
	}
	remove("open", open)
	for ctx := soon(t); ; {
		if gone, err := b.Gone(open); err != nil || ctx.Err() != nil {
			t.Fatalf("the topic stays: %v", err)
		} else if gone {
			break
		}
	}
	if has(open) || !has(away) || !has(stays) {
		t.Fatalf("open %v, away %v, stays %v", has(open), has(away), has(stays))
	}
	if _, err := b.Partition(open, 0); err == nil {
		t.Fatal("a deleted partition is served")
	}
	b.Manager.Close() // it hears of nothing any more
	remove("away", away)
	b.stop(false)
	b.start()
	if has(away) || !has(stays) {
		t.Fatalf("away %v, stays %v", has(away), has(stays))
	}
	if p := b.part(stays, 0); p.log.End() != 2 {
		t.Fatalf("the neighbour ends at %d", p.log.End())
	}
	b.stop(false)
}

// unsafe is a cluster that may be in safe mode.
type unsafe struct {
	*cluster
	on atomic.Bool
}

func (u *unsafe) SafeMode() (string, bool) { return "it went back", u.on.Load() }

// TestSafeModeElectsNothing: metadata that went back elects nobody, until it is in
// order again (SAFETY 16, 17).
func TestSafeModeElectsNothing(t *testing.T) {
	c := &unsafe{cluster: &cluster{epochs: map[metadata.TopicID]int32{}}}
	c.show(images()[1])
	c.on.Store(true)
	b := newBroker(t, disk.NewSim(1))
	b.tune = func(cfg *Config) { cfg.Cluster = c }
	b.start()
	id := images()[1].Topics()[0].ID
	if _, err := b.Partition(id, 0); err == nil {
		t.Fatal("a partition is led in safe mode")
	}
	c.on.Store(false)
	b.produce(b.part(id, 0), 1)
	b.stop(false)
}

// TestSafeModeDeletesNothing: what retention would take stays until the metadata is
// believed again (SAFETY 17).
func TestSafeModeDeletesNothing(t *testing.T) {
	c := &unsafe{cluster: &cluster{epochs: map[metadata.TopicID]int32{}}}
	c.show(images()[1])
	b := newBroker(t, disk.NewSim(1))
	b.tune = func(cfg *Config) { cfg.Cluster = c }
	b.start()
	p := b.part(images()[1].Topics()[0].ID, 0)
	for range 3 {
		b.produce(p, 1)
		if err := p.log.Roll(); err != nil {
			t.Fatal(err)
		}
	}
	expires := *p.Config()
	expires.Delete, expires.RetentionBytes = true, 0
	p.setConfig(&expires)
	c.on.Store(true)
	b.Manager.keepHouse(time.Now())
	if p.log.Start() != 0 || p.log.LocalStart() != 0 {
		t.Fatalf("log start %d, local start %d in safe mode", p.log.Start(), p.log.LocalStart())
	}
	c.on.Store(false)
	b.Manager.keepHouse(time.Now())
	if p.log.LocalStart() == 0 {
		t.Fatal("nothing went after it")
	}
	b.stop(false)
}

// vanishing is a cluster whose topics are gone after the first look.
type vanishing struct {
	*cluster
	looked atomic.Bool
}

func (v *vanishing) Image() *metadata.Image {
	if v.looked.Swap(true) {
		return images()[0]
	}
	return images()[1]
}

// TestATopicMayVanishWhileItIsOpened, as one that is deleted as soon as it was made.
// It is opened with what was known of it.
func TestATopicMayVanishWhileItIsOpened(t *testing.T) {
	c := &vanishing{cluster: &cluster{epochs: map[metadata.TopicID]int32{}}}
	b := newBroker(t, disk.NewSim(1))
	b.tune = func(cfg *Config) { cfg.Cluster = c }
	b.start()
	b.produce(b.part(images()[1].Topics()[0].ID, 0), 1)
	if !b.stop(false) {
		t.Fatal("not closed cleanly")
	}
}
