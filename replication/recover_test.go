package replication

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/metadata"
)

var tieredTopic = map[string]string{"remote.storage.enable": "true"}

// cutShort is a broker with a tiered partition of ten records that was killed. The
// bucket says that it has twenty: the tail was lost here after its upload.
func cutShort(t *testing.T) (*broker, metadata.TopicPartition) {
	t.Helper()
	b := newBroker(t, disk.NewSim(1))
	b.arch = newBucket()
	b.start()
	id := b.topic("t", 1, tieredTopic)
	p := b.part(id, 0)
	b.produce(p, 10)
	epoch, _ := p.Leadership()
	b.stop(true)
	b.arch.tiered[p.tp] = Tiered{End: 20, MaxEpoch: epoch, Epochs: []commitlog.EpochStart{{Epoch: epoch}}}
	return b, p.tp
}

// refuses fails when the partition leads, or nothing was said of why it does not.
func (b *broker) refuses(tp metadata.TopicPartition) {
	b.t.Helper()
	if p, err := b.Partition(tp.TopicID, tp.Partition); err == nil {
		_, leading := p.Leadership()
		b.t.Fatalf("the partition is there, leading %v, with [%d, %d)", leading, p.log.LocalStart(), p.log.End())
	}
	if b.said.count("leadership_delayed") == 0 {
		b.t.Fatal("nothing was said")
	}
}

// TestALogBelowTheBucketMayBeTheLastCopy: the bucket names objects for what is here
// and goes further, so the log would begin anew at the bucket's end. It keeps its
// records, and does not lead, until the objects are proved to be there (SAFETY 13).
func TestALogBelowTheBucketMayBeTheLastCopy(t *testing.T) {
	b, tp := cutShort(t)
	b.arch.proof = errors.New("object [3, 8) is lost")
	b.start()
	b.refuses(tp)
	b.stop(true)
	b.arch.proof = nil
	b.arch.tiered[tp] = Tiered{} // as if the head were of another time: the log is what counts
	b.start()
	if p := b.part(tp.TopicID, 0); p.log.LocalStart() != 0 || p.log.End() != 10 {
		t.Fatalf("the log is [%d, %d)", p.log.LocalStart(), p.log.End())
	}
	b.stop(true)
}

// TestNobodyWritesBelowTheBucketsEnd: with the proof the log goes on at the bucket's
// end, in an epoch above all that wrote there; what is below is read from the bucket
// (SAFETY 4). The proof is asked for what is dropped, and comes late.
func TestNobodyWritesBelowTheBucketsEnd(t *testing.T) {
	b, tp := cutShort(t)
	b.arch.set(func() {
		x := b.arch.tiered[tp]
		x.MaxEpoch += 7
		b.arch.tiered[tp] = x
		b.arch.proof = errors.New("no answer")
	})
	b.start()
	b.refuses(tp)
	b.arch.set(func() { b.arch.proof = nil })
	p := b.part(tp.TopicID, 0)
	if got := b.arch.asked[0]; got != [2]int64{0, 10} {
		t.Fatalf("asked for the proof of %v", got)
	}
	if epoch, _ := p.Leadership(); epoch <= b.arch.tiered[tp].MaxEpoch {
		t.Fatalf("epoch %d, the head has %d", epoch, b.arch.tiered[tp].MaxEpoch)
	}
	a, err := p.Append(one(0), all)
	if err != nil || a.Base != 20 {
		t.Fatalf("the next record is at %d: %v", a.Base, err)
	}
	if err := p.WaitCommitted(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Read(5, 1<<20, true, false); !errors.Is(err, commitlog.ErrBelowLocal) {
		t.Fatalf("what the bucket has: %v", err)
	}
	if s := p.State(); s.LogStart != 0 || s.HighWatermark != 21 {
		t.Fatalf("%+v", s)
	}
	b.stop(true)
}

// TestTwoHistoriesAreNotJoined: the bucket was written in another epoch at the last
// offset that is here, so what is here is not in the bucket, whatever it names.
func TestTwoHistoriesAreNotJoined(t *testing.T) {
	b, tp := cutShort(t)
	x := b.arch.tiered[tp]
	x.Epochs = append(x.Epochs, commitlog.EpochStart{Epoch: x.Epochs[0].Epoch + 1, Start: 9})
	b.arch.tiered[tp] = x
	b.start()
	b.refuses(tp)
	if len(b.arch.asked) != 0 {
		t.Fatal("the store was asked about another history")
	}
	b.stop(true)
	delete(b.arch.tiered, tp)
	b.start()
	if p := b.part(tp.TopicID, 0); p.log.End() != 10 {
		t.Fatalf("the log ends at %d", p.log.End())
	}
	b.stop(true)
}

// files are what a folder holds.
func (b *broker) files(dir string) map[string][]byte {
	b.t.Helper()
	entries, err := b.fs.ReadDir(dir)
	if err != nil {
		b.t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if all[name], err = disk.ReadFile(b.fs, name, 1<<20); err != nil {
			b.t.Fatal(err)
		}
	}
	return all
}

// TestAFolderOfAnOlderTimeIsNotBelieved: between two clean ends a partition's folder is
// put back as it was at an earlier clean end. It is whole, and its own mark is clean,
// but not of the process just before: the bucket is asked, and the next record does
// not get an offset that it names (SAFETY 2, 4).
func TestAFolderOfAnOlderTimeIsNotBelieved(t *testing.T) {
	b := newBroker(t, disk.NewSim(1))
	b.arch = newBucket()
	b.start()
	id := b.topic("t", 1, tieredTopic)
	p := b.part(id, 0)
	b.produce(p, 3)
	if !b.stop(false) {
		t.Fatal("not clean")
	}
	dir := partitionDir(b.dir, p.tp)
	older := b.files(dir)
	b.start()
	p = b.part(id, 0)
	b.produce(p, 5)
	epoch, _ := p.Leadership()
	b.stop(false)
	b.arch.tiered[p.tp] = Tiered{End: 8, MaxEpoch: epoch, Epochs: p.log.Epochs()}

	if err := b.fs.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := b.fs.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range older {
		if err := disk.WriteFileAtomic(b.fs, name, data); err != nil {
			t.Fatal(err)
		}
	}
	b.start()
	p = b.part(id, 0)
	if a, err := p.Append(one(0), all); err != nil || a.Base != 8 {
		t.Fatalf("the next record is at %d: %v", a.Base, err)
	}
	b.stop(true)
}

// TestAnEmptyLogTakesTheBucketsPlace: nothing is dropped, so nothing is to prove.
func TestAnEmptyLogTakesTheBucketsPlace(t *testing.T) {
	b, tp := cutShort(t)
	b.arch.proof = errors.New("not asked for")
	if err := b.fs.RemoveAll(partitionDir(b.dir, tp)); err != nil {
		t.Fatal(err)
	}
	b.start()
	p := b.part(tp.TopicID, 0)
	if p.log.End() != 20 || p.State().LogStart != 0 {
		t.Fatalf("%+v", p.State())
	}
	if b.said.count("log_missing") != 1 {
		t.Fatal("it was not said that the log is gone")
	}
	b.stop(true)
}

// TestEveryStartIsANewEpoch, above the metadata's and above the log's own, also after
// a clean end, where the bucket is not asked (SAFETY 4).
func TestEveryStartIsANewEpoch(t *testing.T) {
	b := newBroker(t, disk.NewSim(1))
	b.arch = newBucket()
	b.start()
	id := b.topic("t", 1, tieredTopic)
	p := b.part(id, 0)
	b.produce(p, 1)
	last, _ := p.Leadership()
	for _, killed := range []bool{true, false, false} {
		b.stop(killed)
		before := b.arch.recovers
		b.start()
		p = b.part(id, 0)
		epoch, leading := p.Leadership()
		if !leading || epoch <= last {
			t.Fatalf("killed %v: epoch %d after %d", killed, epoch, last)
		}
		if asked := b.arch.recovers > before; asked != killed {
			t.Fatalf("killed %v: the head was read %v", killed, asked)
		}
		b.produce(p, 1)
		last = epoch
	}
	// The metadata went back, as a restored copy does: the log knows better.
	if _, err := p.log.Append(last+40, one(0)); err != nil {
		t.Fatal(err)
	}
	b.stop(false)
	b.start()
	if epoch, _ := b.part(id, 0).Leadership(); epoch <= last+40 {
		t.Fatalf("epoch %d, the log has %d", epoch, last+40)
	}
	b.stop(false)
}

// TestAHeadThatCannotBeReadDelaysTheLead: an unclean replica does not lead before it
// has read the head; that is tried until it works (SAFETY 4).
func TestAHeadThatCannotBeReadDelaysTheLead(t *testing.T) {
	b, tp := cutShort(t)
	b.arch.tiered[tp] = Tiered{}
	b.arch.err = errors.New("no answer")
	b.start()
	b.refuses(tp)
	b.arch.set(func() { b.arch.err = nil })
	if p := b.part(tp.TopicID, 0); p.log.End() != 10 {
		t.Fatalf("%+v", p.State())
	}
	b.stop(true)
}

// TestASoleReplicaSaysWhatItLost: with firn.durability=replicated the watermark, and
// a checkpoint that knows it, run ahead of the sync. When the power cut takes records
// below it, the sole replica leads again and says how many are gone (SAFETY 3).
func TestASoleReplicaSaysWhatItLost(t *testing.T) {
	losses := 0
	for seed := range uint64(20) {
		sim := disk.NewSim(seed)
		g := &gateFS{FS: sim}
		b := newBroker(t, g)
		b.tune = func(c *Config) { c.CheckpointBytes = 1 } // after each append
		b.start()
		id := b.topic("t", 1, map[string]string{"firn.durability": "replicated"})
		p := b.part(id, 0)
		written, cut := make(chan struct{}), make(chan struct{})
		syncs := 0
		// Five more are acknowledged between the first record's sync and the checkpoint
		// that tells of it, which is there when the next sync begins.
		g.after = func() { b.produce(p, 5) }
		g.set(func(string) error {
			if syncs++; syncs == 1 {
				return nil
			}
			close(written)
			<-cut
			return disk.ErrPowerLost
		})
		b.produce(p, 1)
		<-written
		b.fs = sim.Crash()
		close(cut)
		b.stop(true)
		b.tune = nil
		b.start()
		p = b.part(id, 0)
		lost := 6 - p.log.End()
		if said := b.said.count("acknowledged_records_lost"); (lost > 0) != (said == 1) {
			t.Fatalf("seed %d: %d records are gone, said %d times", seed, lost, said)
		}
		if lost > 0 {
			losses++
		} else if b.said.count("unclean_restart") != 1 {
			t.Fatalf("seed %d: nothing is said of an unclean restart", seed)
		}
		b.produce(p, 1)
		b.stop(false)
	}
	if losses == 0 {
		t.Fatal("no power cut took anything")
	}
}

// TestAMissingLogIsSaid: a partition that was led comes back without its folder, on
// a disk without a bucket. The sole replica leads again, and that is not silent
// (SAFETY 2, 3). A topic that is new, or was never written, makes no noise.
func TestAMissingLogIsSaid(t *testing.T) {
	b := newBroker(t, disk.NewSim(1))
	b.start()
	id, quiet := b.topic("t", 1, nil), b.topic("quiet", 1, nil)
	p := b.part(id, 0)
	b.part(quiet, 0)
	b.produce(p, 3)
	if n := b.said.count("log_missing"); n != 0 {
		t.Fatalf("new topics: said %d times", n)
	}
	b.stop(false)
	if err := b.fs.RemoveAll(partitionDir(b.dir, p.tp)); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.produce(b.part(id, 0), 1)
	b.part(quiet, 0)
	if n := b.said.count("log_missing"); n != 1 {
		t.Fatalf("said %d times", n)
	}
	b.stop(false)
}

// TestADamagedLogSaysWhatToDo, and doing it works: with its folder out of the way a
// tiered partition goes on at the bucket's end. Nothing of it is done unasked.
func TestADamagedLogSaysWhatToDo(t *testing.T) {
	b, tp := cutShort(t)
	dir := partitionDir(b.dir, tp)
	if err := b.fs.Remove(dir + "/00000000000000000000.log"); err != nil {
		t.Fatal(err)
	}
	before, err := b.fs.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	b.start()
	if _, err := b.Partition(tp.TopicID, 0); !errors.Is(err, ErrOffline) || !errors.Is(err, commitlog.ErrDamaged) {
		t.Fatalf("a log without its first segment: %v", err)
	}
	if b.said.count("log_damaged") != 1 || !strings.Contains(b.said.String(), "dir="+dir) || !strings.Contains(b.said.String(), "bucket's end") {
		t.Fatal("it was not said what to do")
	}
	if b.dir.Err() != nil {
		t.Fatal("one damaged log took the dir offline")
	}
	b.stop(true)
	if after, err := b.fs.ReadDir(dir); err != nil || len(after) != len(before) {
		t.Fatalf("%d files of %d are left: %v", len(after), len(before), err)
	}
	if err := b.fs.Rename(dir, "/aside"); err != nil {
		t.Fatal(err)
	}
	b.start()
	p := b.part(tp.TopicID, 0)
	b.produce(p, 1)
	if s := p.State(); s.LogStart != 0 || s.End != 21 {
		t.Fatalf("%+v", s)
	}
	b.stop(false)
}
