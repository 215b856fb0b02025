package file

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/objectstore"
)

// ledger is a disk that knows what a power cut could take: files written since
// their sync, folders changed since theirs.
type ledger struct {
	disk.FS
	hidden string // .firn, whose tmp and locks may go
	mu     sync.Mutex
	files  map[string]bool
	dirs   map[string]bool
	faults []string
	fail   func(op, name string) error
}

func newLedger(root string) *ledger {
	return &ledger{FS: disk.OS(), hidden: filepath.Join(root, hidden), files: map[string]bool{}, dirs: map[string]bool{}}
}

func (l *ledger) note(do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	do()
}

func (l *ledger) check(op, name string) error {
	if l.fail == nil {
		return nil
	}
	return l.fail(op, name)
}

func (l *ledger) changed(name string) {
	dir := filepath.Dir(name)
	if dir == filepath.Join(l.hidden, "tmp") || dir == filepath.Join(l.hidden, "locks") {
		return
	}
	l.dirs[dir] = true
}

func (l *ledger) OpenFile(name string, flag int, perm fs.FileMode) (disk.File, error) {
	_, serr := os.Stat(name)
	f, err := l.FS.OpenFile(name, flag, perm)
	if err == nil && flag&os.O_CREATE != 0 && serr != nil {
		l.note(func() { l.changed(name) })
	}
	return ledgerFile{f, l}, err
}

func (l *ledger) MkdirAll(name string, perm fs.FileMode) error {
	var made []string
	for d := name; ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); err == nil {
			break
		}
		made = append(made, d)
	}
	err := l.FS.MkdirAll(name, perm)
	l.note(func() {
		for _, d := range made {
			l.changed(d)
		}
	})
	return err
}

func (l *ledger) Remove(name string) error {
	if err := l.check("remove", name); err != nil {
		return err
	}
	err := l.FS.Remove(name)
	if err == nil {
		l.note(func() {
			l.changed(name)
			delete(l.files, name)
			delete(l.dirs, name)
		})
	}
	return err
}

func (l *ledger) Rename(from, to string) error {
	if err := l.check("rename", to); err != nil {
		return err
	}
	l.note(func() {
		if l.files[from] {
			l.faults = append(l.faults, "renamed before it was synced: "+to)
		}
		if !strings.HasPrefix(to, l.hidden) {
			for d := range l.dirs {
				if strings.HasPrefix(d, l.hidden) {
					l.faults = append(l.faults, "published while a removed note may come back: "+to)
				}
			}
		}
		l.changed(to)
	})
	return l.FS.Rename(from, to)
}

func (l *ledger) SyncDir(name string) error {
	if err := l.check("syncdir", name); err != nil {
		return err
	}
	err := l.FS.SyncDir(name)
	if err == nil {
		l.note(func() { delete(l.dirs, name) })
	}
	return err
}

// lost is what a power cut now could take.
func (l *ledger) lost() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := slices.Concat(l.faults, slices.Collect(maps.Keys(l.files)), slices.Collect(maps.Keys(l.dirs)))
	slices.Sort(all)
	return all
}

type ledgerFile struct {
	disk.File
	l *ledger
}

func (f ledgerFile) WriteAt(p []byte, off int64) (int, error) {
	f.l.note(func() { f.l.files[f.Name()] = true })
	return f.File.WriteAt(p, off)
}

func (f ledgerFile) Sync() error {
	if err := f.l.check("sync", f.Name()); err != nil {
		return err
	}
	err := f.File.Sync()
	f.l.note(func() { delete(f.l.files, f.Name()) })
	return err
}

// TestNothingAcknowledgedDependsOnACache: when a call returns, a power cut takes
// nothing of it, and on the way there a note never outlives its object.
func TestNothingAcknowledgedDependsOnACache(t *testing.T) {
	root := filepath.Join(t.TempDir(), "bucket")
	l := newLedger(root)
	b, err := Open(Config{FS: l, Root: root})
	if err != nil {
		t.Fatal(err)
	}
	step := func(what string) {
		t.Helper()
		if lost := l.lost(); len(lost) > 0 {
			t.Fatalf("after %s a power cut could take %q", what, lost)
		}
	}
	step("open")
	etag := write(t, b, "c/topics/x/0/manifest", "v1", objectstore.Cond{IfNoneMatch: true})
	step("a create in new folders")
	etag = write(t, b, "c/topics/x/0/manifest", "v2", objectstore.Cond{IfMatch: etag})
	step("a replacement of a created object")
	write(t, b, "c/topics/x/0/manifest", "v3", objectstore.Cond{IfMatch: etag})
	step("a replacement of a replaced object")
	write(t, b, "c/topics/x/0/a.seg", "data", objectstore.Cond{IfNoneMatch: true})
	step("a create in an old folder")
	write(t, b, "c/topics/x/0/a.seg", "data", objectstore.Cond{})
	step("an unconditional write")
	if err := b.Delete(t.Context(), []string{"c/topics/x/0/a.seg", "c/topics/x/0/manifest"}); err != nil {
		t.Fatal(err)
	}
	step("a delete that prunes folders")
}

// TestAFailureAfterPublishingIsInDoubt: before the rename an error means that
// nothing happened; after it the object is there, durable or not.
func TestAFailureAfterPublishingIsInDoubt(t *testing.T) {
	broken := errors.New("broken disk")
	for _, tt := range []struct {
		op, part string
		doubt    bool
	}{
		{"sync", "tmp", false},
		{"rename", "t/k", false},
		{"syncdir", "bucket/t", true},
		{"rename", "meta", true},
		{"syncdir", "meta", true},
	} {
		root := filepath.Join(t.TempDir(), "bucket")
		l := newLedger(root)
		b, err := Open(Config{FS: l, Root: root})
		if err != nil {
			t.Fatal(err)
		}
		l.fail = func(op, name string) error {
			if op == tt.op && strings.Contains(name, tt.part) {
				return broken
			}
			return nil
		}
		_, err = b.Put(t.Context(), "t/k", strings.NewReader("data"), 4, objectstore.Cond{IfNoneMatch: true})
		if !errors.Is(err, broken) || errors.Is(err, objectstore.ErrInDoubt) != tt.doubt {
			t.Errorf("%s of %s fails: %v; want in doubt: %v", tt.op, tt.part, err, tt.doubt)
		}
		l.fail = nil
		_, _, err = b.Get(t.Context(), "t/k")
		if landed := err == nil; landed != tt.doubt {
			t.Errorf("%s of %s fails: the object is there: %v", tt.op, tt.part, landed)
		}
	}
}
