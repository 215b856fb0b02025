package commitlog

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/record"
)

// fastFS syncs nothing: damage is what is wrong with the files as they are.
type fastFS struct{ disk.FS }

type fastFile struct{ disk.File }

func (f fastFS) OpenFile(name string, flag int, perm fs.FileMode) (disk.File, error) {
	file, err := f.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return fastFile{file}, nil
}

func (fastFS) SyncDir(string) error { return nil }
func (fastFile) Sync() error        { return nil }
func (fastFile) Datasync() error    { return nil }

// folder lists dir with the size of each file.
func folder(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		st, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%s %d", e.Name(), st.Size()))
	}
	return all
}

// refuses opens dir, wants ErrDamaged and looks that no file went or changed its size.
func refuses(t *testing.T, what, dir string) {
	t.Helper()
	before := folder(t, dir)
	for _, c := range [][]func(*Config){nil, {clean}} {
		if _, _, err := tryOpen(t, fastFS{disk.OS()}, dir, c...); !errors.Is(err, ErrDamaged) {
			t.Fatalf("%s: %v, want ErrDamaged", what, err)
		}
	}
	if after := folder(t, dir); !slices.Equal(before, after) {
		t.Fatalf("%s: the refused open changed the folder from\n%q to\n%q", what, before, after)
	}
}

// TestALostSegmentIsDamage removes each segment in turn that the checkpoint vouches
// for, or what begins with it: the first, one in the middle, the empty one that the
// checkpoint points to with others behind it, all of them. None may be taken for a
// log that is shorter, and no good segment may go because another did.
func TestALostSegmentIsDamage(t *testing.T) {
	// write leaves sealed segments at 0, 5 and 10, a checkpoint at the beginning of
	// the segment at 15, and behind that records in segments at 15 and 20.
	write := func(t *testing.T) string {
		dir := t.TempDir()
		l, _ := open(t, fastFS{disk.OS()}, dir, func(c *Config) { c.SegmentBytes = 1 << 20 })
		for i := range 5 {
			if i == 3 {
				if err := l.flush(true); err != nil {
					t.Fatal(err)
				}
				if k := l.ckpt.get(); k.segment != 15 || k.pos != 0 {
					t.Fatalf("checkpoint %+v", k)
				}
				l.flushing.Lock() // no checkpoint from here on
			}
			mustAppend(t, l, 1, batch(i, 5))
			if err := l.Roll(); err != nil {
				t.Fatal(err)
			}
		}
		l.flushing.Unlock()
		settle(l)
		if k := l.ckpt.get(); k.segment != 15 {
			t.Fatalf("checkpoint %+v", k)
		}
		l.Close(false)
		return dir
	}
	for _, lost := range [][]int64{{0}, {5}, {10}, {15}, {0, 5, 10}, {0, 5, 10, 15}, {0, 5, 10, 15, 20, 25}} {
		dir := write(t)
		for _, base := range lost {
			if err := os.Remove(filepath.Join(dir, logName(base))); err != nil {
				t.Fatal(err)
			}
		}
		refuses(t, fmt.Sprintf("without %v", lost), dir)
	}
	// What is behind the checkpoint a power cut may take.
	dir := write(t)
	if err := os.Remove(filepath.Join(dir, logName(20))); err != nil {
		t.Fatal(err)
	}
	l, rec := open(t, fastFS{disk.OS()}, dir)
	if l.End() != 20 || rec.CutAt != 20 {
		t.Fatalf("the log ends at %d: %+v", l.End(), rec)
	}
}

// facts is everything that a log says of its local records, one fact a line, each
// with where it belongs.
func facts(t *testing.T, l *Log) (all []string) {
	t.Helper()
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	local, end := l.LocalStart(), l.End()
	add("local start %d, end %d, synced to %d", local, end, l.SyncedEnd())
	add("log start %d", l.Start())
	add("bytes %x", crc32.ChecksumIEEE(dump(t, l, 1<<20)))
	add("first unstable %d", l.FirstUnstable(end))
	for at := local; at < end; at++ {
		add("offset %d is of epoch %d", at, l.EpochAt(at))
	}
	add("aborted %v", l.Aborted(local, end))
	for _, s := range l.Segments() {
		add("segment [%d, %d) has %d bytes, newest %d", s.Base, s.End, s.Bytes, s.MaxTs)
		states, err := l.ProducersAt(s.Base)
		for i := range states {
			states[i].LastTimestamp = 0 // of a fold it is when it was made
		}
		add("producers at %d: %+v %v", s.Base, states, err)
	}
	for ts := int64(0); ts < 40; ts += 3 {
		o, at, ok, err := l.OffsetForTime(ts)
		add("time %d: %d %d %v %v", ts, o, at, ok, err)
	}
	return all
}

// writeDerived fills dir with a log that has every kind of derived file: segments
// with producers, transactions (some aborted, one open), several epochs, a log start,
// a checkpoint in the middle of its segment and, unless it is closed cleanly, records
// behind it. trimmed deletes the first segments.
func writeDerived(t *testing.T, dir string, trimmed, cleanly bool) (want []string) {
	t.Helper()
	l, _ := open(t, fastFS{disk.OS()}, dir, func(c *Config) { c.SegmentBytes = 1 << 20 })
	seqs := map[int64]int32{}
	ts := int64(0)
	add := func(epoch int32, id int64, txn bool) {
		o := record.NewBatchOptions()
		o.ProducerID, o.ProducerEpoch, o.BaseSequence, o.Transactional = id, 0, seqs[id], txn
		b := record.NewBuilder(o)
		b.Append(record.Record{TimestampDelta: ts, Value: fmt.Appendf(nil, "%d of %d", seqs[id], id)})
		seqs[id]++
		ts++
		mustAppend(t, l, epoch, b.Build())
	}
	end := func(epoch int32, id int64, how record.ControlType) {
		mustAppend(t, l, epoch, record.ControlMarker(record.Marker{Type: how, ProducerID: id, Timestamp: ts}))
	}
	group := func(epoch int32, id int64) {
		add(epoch, id, false)
		add(epoch, id+1, true)
		add(epoch, id+2, true)
		add(epoch, 1, false) // in every segment
		end(epoch, id+1, record.Abort)
		end(epoch, id+2, record.Commit)
	}
	for i := range int32(5) {
		group(1+i/2, int64(100+10*i))
		if err := errors.Join(l.Roll(), l.Sync(context.Background())); err != nil {
			t.Fatal(err)
		}
	}
	group(4, 200)
	add(4, 300, true) // stays open
	if err := errors.Join(l.flush(true), l.SetStart(13), l.flush(true), l.flush(true)); err != nil {
		t.Fatal(err)
	}
	if trimmed {
		if _, err := l.DeleteLocal(13); err != nil || l.LocalStart() != 12 {
			t.Fatalf("local start %d: %v", l.LocalStart(), err)
		}
	}
	add(4, 1, false)
	group(5, 210)
	if err := l.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	want = facts(t, l)
	if err := l.Close(cleanly); err != nil {
		t.Fatal(err)
	}
	return want
}

// hurts are the ways in which a disk takes a file.
var hurts = map[string]func(name string, raw []byte) error{
	"removed": func(name string, _ []byte) error { return os.Remove(name) },
	"empty":   func(name string, _ []byte) error { return os.Truncate(name, 0) },
	"halved":  func(name string, raw []byte) error { return os.Truncate(name, int64(len(raw)/2)) },
	"zeroed":  func(name string, raw []byte) error { return os.WriteFile(name, make([]byte, len(raw)), 0o600) },
	"bits": func(name string, raw []byte) error {
		for i := 5; i < len(raw); i += 16 {
			raw[i] ^= 0x10
		}
		return os.WriteFile(name, raw, 0o600)
	},
}

// TestDerivedFilesAreMadeAgain damages each file that is derived from the batches, in
// every way, after a kill and after a clean close, with and without the first
// segments: what the log says of its records stays the same, and the next start finds
// nothing missing any more.
func TestDerivedFilesAreMadeAgain(t *testing.T) {
	for _, trimmed := range []bool{false, true} {
		for _, cleanly := range []bool{false, true} {
			master := t.TempDir()
			want := writeDerived(t, master, trimmed, cleanly)
			seen := map[string]bool{}
			for _, entry := range folder(t, master) {
				file, _, _ := strings.Cut(entry, " ")
				kind := filepath.Ext(file)
				if file == epochsName {
					kind = epochsName
				}
				if !slices.Contains([]string{".index", ".snapshot", foldSuffix, epochsName}, kind) {
					continue
				}
				seen[kind] = true
				for how, hurt := range hurts {
					t.Run(fmt.Sprintf("trimmed=%v/clean=%v/%s/%s", trimmed, cleanly, file, how), func(t *testing.T) {
						t.Parallel()
						dir := t.TempDir()
						if err := os.CopyFS(dir, os.DirFS(master)); err != nil {
							t.Fatal(err)
						}
						name := filepath.Join(dir, file)
						raw, err := os.ReadFile(name)
						if err != nil {
							t.Fatal(err)
						}
						if err := hurt(name, raw); err != nil {
							t.Fatal(err)
						}
						want := slices.Clone(want)
						if trimmed && file == snapshotName(12) {
							// The batches that told are gone: nobody may guess.
							for i := range want {
								if strings.HasPrefix(want[i], "producers at 12:") {
									want[i] = fmt.Sprintf("producers at 12: [] %v: the producers at 12 are lost", ErrDamaged)
								}
							}
						}
						for i := range 2 {
							l, rec := open(t, fastFS{disk.OS()}, dir, func(c *Config) { c.Clean = cleanly })
							if got := facts(t, l); !slices.Equal(got, want) || rec.CutAt >= 0 || i > 0 && rec.Refolded {
								t.Fatalf("%+v\n%s\nwant\n%s", rec, strings.Join(got, "\n"), strings.Join(want, "\n"))
							}
							if err := l.Close(cleanly); err != nil {
								t.Fatal(err)
							}
						}
					})
				}
			}
			if len(seen) != 4 {
				t.Fatalf("the log has only %v", seen)
			}
		}
	}
}

// TestDamagedCheckpoints: one slot is enough, whichever it is. Without both, a log
// whose first segment is there is scanned whole, and its start goes back; one that
// was trimmed does not know where it starts, and one with a bad batch does not know
// whether that was synced: both are damage.
func TestDamagedCheckpoints(t *testing.T) {
	hurt := func(t *testing.T, dir string, from, to int64) {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(dir, checkpointName), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		raw := make([]byte, to-from)
		if _, err := f.ReadAt(raw, from); err != nil {
			t.Fatal(err)
		}
		for i := range raw {
			raw[i] ^= 0x55
		}
		if _, err := f.WriteAt(raw, from); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	one := []struct {
		name     string
		from, to int64
	}{
		{"first slot", 0, slotBytes}, {"second slot", slotSize, slotSize + slotBytes},
		{"first slot's checksum", slotBytes - 4, slotBytes}, {"second slot's checksum", slotSize + slotBytes - 4, slotSize + slotBytes},
		{"all but the slots", slotBytes, slotSize}, {"the end", slotSize + slotBytes, 2 * slotSize},
	}
	for _, trimmed := range []bool{false, true} {
		for _, cleanly := range []bool{false, true} {
			for _, c := range one {
				dir := t.TempDir()
				want := writeDerived(t, dir, trimmed, cleanly)
				hurt(t, dir, c.from, c.to)
				l, rec := open(t, fastFS{disk.OS()}, dir, func(c *Config) { c.Clean = cleanly })
				if got := facts(t, l); !slices.Equal(got, want) || rec.CutAt >= 0 {
					t.Fatalf("%s: %+v\n%s\nwant\n%s", c.name, rec, strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				l.Close(false)
			}
		}
	}
	both := func(t *testing.T, dir string) {
		hurt(t, dir, slotBytes-4, slotBytes)
		hurt(t, dir, slotSize+slotBytes-4, slotSize+slotBytes)
	}
	dir := t.TempDir()
	want := writeDerived(t, dir, false, true)
	for i := range want {
		want[i] = strings.Replace(want[i], "log start 13", "log start 0", 1)
	}
	both(t, dir)
	l, rec := open(t, fastFS{disk.OS()}, dir, clean)
	got := facts(t, l)
	for i := range got { // times before the lost log start are found again
		if strings.HasPrefix(got[i], "time ") {
			got[i], want[i] = "", ""
		}
	}
	if !slices.Equal(got, want) || rec.Clean || !rec.Refolded || rec.CutAt >= 0 {
		t.Fatalf("without a checkpoint: %+v\n%s\nwant\n%s", rec, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	l.Close(false)

	dir = t.TempDir()
	writeDerived(t, dir, true, true)
	both(t, dir)
	refuses(t, "a trimmed log without a checkpoint", dir)

	for _, base := range []int64{12, 30} { // a sealed segment and the active one
		dir = t.TempDir()
		writeDerived(t, dir, false, true)
		both(t, dir)
		name := filepath.Join(dir, logName(base))
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		raw[len(raw)-1] ^= 1
		if err := os.WriteFile(name, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		before := folder(t, dir)
		if _, _, err := tryOpen(t, fastFS{disk.OS()}, dir); !errors.Is(err, ErrDamaged) {
			t.Fatalf("a bad batch in segment %d and no checkpoint: %v, want ErrDamaged", base, err)
		}
		for _, f := range before {
			if strings.Contains(f, ".log ") && !slices.Contains(folder(t, dir), f) {
				t.Fatalf("%s is gone or has another size", f)
			}
		}
	}
}

// TestAShorterSegmentIsDamage takes one byte from each segment that the checkpoint
// vouches for.
func TestAShorterSegmentIsDamage(t *testing.T) {
	for base := int64(0); base <= 30; base += 6 {
		dir := t.TempDir()
		writeDerived(t, dir, false, true)
		name := filepath.Join(dir, logName(base))
		st, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(name, st.Size()-1); err != nil {
			t.Fatal(err)
		}
		refuses(t, fmt.Sprintf("segment %d is one byte shorter", base), dir)
	}
}
