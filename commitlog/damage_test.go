package commitlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/firnlog/firn/internal/disk"
)

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
		if _, _, err := tryOpen(t, disk.OS(), dir, c...); !errors.Is(err, ErrDamaged) {
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
		l, _ := open(t, disk.OS(), dir, func(c *Config) { c.SegmentBytes = 1 << 20 })
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
	l, rec := open(t, disk.OS(), dir)
	if l.End() != 20 || rec.CutAt != 20 {
		t.Fatalf("the log ends at %d: %+v", l.End(), rec)
	}
}
