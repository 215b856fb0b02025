package replication

import (
	"path/filepath"
	"testing"

	"github.com/firnlog/firn/internal/disk"
)

// TestASealedSegmentThatRotsIsSaid, with its name, at every look; the partition goes
// on (SAFETY 8).
func TestASealedSegmentThatRotsIsSaid(t *testing.T) {
	sim := disk.NewSim(1)
	b := newBroker(t, sim)
	b.tune = func(c *Config) { c.ScrubBytes = 1 << 30 }
	b.start()
	p := b.part(b.topic("t", 1, nil), 0)
	for range 3 {
		b.produce(p, 1)
		if err := p.log.Roll(); err != nil {
			t.Fatal(err)
		}
	}
	if n := b.Manager.scrub(t.Context()); n != 0 {
		t.Fatalf("%d segments of a log that is whole", n)
	}
	if err := sim.FlipBit(filepath.Join(partitionDir(b.dir, p.tp), "00000000000000000001.log"), 70); err != nil {
		t.Fatal(err)
	}
	for look := range 2 {
		if n := b.Manager.scrub(t.Context()); n != 1 || b.said.count("segment_damaged") != look+1 {
			t.Fatalf("%d damaged, said %d times", n, b.said.count("segment_damaged"))
		}
	}
	b.produce(p, 1)
	b.stop(false)
}

// TestTheFirstLookSeesTheLogs: a broker that is restarted often looks, too.
func TestTheFirstLookSeesTheLogs(t *testing.T) {
	sim := disk.NewSim(1)
	b := newBroker(t, sim)
	b.start()
	p := b.part(b.topic("t", 1, nil), 0)
	b.produce(p, 1)
	if err := p.log.Roll(); err != nil {
		t.Fatal(err)
	}
	b.produce(p, 1)
	b.stop(false)
	if err := sim.FlipBit(filepath.Join(partitionDir(b.dir, p.tp), "00000000000000000000.log"), 70); err != nil {
		t.Fatal(err)
	}
	b.start()
	for ctx := soon(t); b.said.count("segment_damaged") == 0; {
		if ctx.Err() != nil {
			t.Fatal("nobody looked")
		}
	}
	b.stop(false)
}
