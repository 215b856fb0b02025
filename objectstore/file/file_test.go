package file

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/objectstore/contract"
)

func open(t testing.TB, root string) *Bucket {
	t.Helper()
	b, err := Open(Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func write(t testing.TB, b *Bucket, key, data string, c objectstore.Cond) string {
	t.Helper()
	etag, err := b.Put(t.Context(), key, strings.NewReader(data), int64(len(data)), c)
	if err != nil {
		t.Fatal(err)
	}
	return etag
}

func TestContract(t *testing.T) {
	contract.Run(t, func(t *testing.T) objectstore.Bucket { return open(t, t.TempDir()) })
}

// TestWritersInOtherProcessesAreExcluded races processes, not goroutines: each
// adds its lines to one object by compare-and-set, and none may be lost.
func TestWritersInOtherProcessesAreExcluded(t *testing.T) {
	const processes, lines = 4, 25
	if root := os.Getenv("FIRN_TEST_FILE_WRITER"); root != "" {
		b := open(t, root)
		for i := 0; i < lines; {
			data, etag, err := b.Get(t.Context(), "shared")
			if err != nil {
				t.Fatal(err)
			}
			data = fmt.Appendf(data, "%d %d\n", os.Getpid(), i)
			_, err = b.Put(t.Context(), "shared", bytes.NewReader(data), int64(len(data)), objectstore.Cond{IfMatch: etag})
			switch {
			case err == nil:
				i++
			case !errors.Is(err, objectstore.ErrPrecondition):
				t.Fatal(err)
			}
		}
		return
	}
	root := t.TempDir()
	b := open(t, root)
	write(t, b, "shared", "", objectstore.Cond{IfNoneMatch: true})
	var running []*exec.Cmd
	for range processes {
		cmd := exec.Command(os.Args[0], "-test.run=^TestWritersInOtherProcessesAreExcluded$")
		cmd.Env = append(os.Environ(), "FIRN_TEST_FILE_WRITER="+root)
		out := new(bytes.Buffer)
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		running = append(running, cmd)
	}
	for _, cmd := range running {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, cmd.Stdout)
		}
	}
	data, _, err := b.Get(t.Context(), "shared")
	if err != nil {
		t.Fatal(err)
	}
	if got := bytes.Count(data, []byte("\n")); got != processes*lines {
		t.Fatalf("%d lines survived, %d were acknowledged", got, processes*lines)
	}
}

// TestETagsSurviveARestart reopens the bucket in the way another process would.
func TestETagsSurviveARestart(t *testing.T) {
	root := t.TempDir()
	b := open(t, root)
	created := write(t, b, "t/0/a.seg", strings.Repeat("x", 3<<20), objectstore.Cond{IfNoneMatch: true})
	head := write(t, b, "t/0/manifest", "v1", objectstore.Cond{IfNoneMatch: true})
	replaced := write(t, b, "t/0/manifest", "v2", objectstore.Cond{IfMatch: head})
	twin := write(t, b, "t/0/twin.seg", strings.Repeat("x", 3<<20), objectstore.Cond{IfNoneMatch: true})
	if created == twin {
		t.Error("two created objects share an id")
	}
	if replaced != hashTag([]byte("v2")) {
		t.Error("a replaced object's ETag is not the hash of its bytes")
	}
	again := open(t, root)
	for key, want := range map[string]string{"t/0/a.seg": created, "t/0/manifest": replaced, "t/0/twin.seg": twin} {
		info, err := again.Head(t.Context(), key)
		if err != nil || info.ETag != want || info.CRC32C == nil {
			t.Errorf("%s after a restart: %+v, %v; want ETag %s and a checksum", key, info, err, want)
		}
	}
}

// TestAnIDNeverComesBack: who read the first version of an object replaces nothing
// after it, not even what has the same bytes, and not after a restart.
func TestAnIDNeverComesBack(t *testing.T) {
	root := t.TempDir()
	b := open(t, root)
	first := write(t, b, "head", "v1", objectstore.Cond{IfNoneMatch: true})
	now := first
	for _, data := range []string{"v1", "v2", "v1"} {
		now = write(t, b, "head", data, objectstore.Cond{IfMatch: now})
		if now != hashTag([]byte(data)) {
			t.Errorf("the ETag of a replaced object is %s", now)
		}
		b = open(t, root)
		_, err := b.Put(t.Context(), "head", strings.NewReader("late"), 4, objectstore.Cond{IfMatch: first})
		if !errors.Is(err, objectstore.ErrPrecondition) {
			t.Errorf("over %q a write that names the first version: %v", data, err)
		}
	}
	// Nor does a new object of that name get it.
	if err := b.Delete(t.Context(), []string{"head"}); err != nil {
		t.Fatal(err)
	}
	if again := write(t, b, "head", "v1", objectstore.Cond{IfNoneMatch: true}); again == first {
		t.Error("another object has the id of one that was deleted")
	}
}

// TestTheETagOfACreateUnderWay: a reader that comes after the object and before its
// note knows the hash. Later that replaces nothing, and what is read again does.
func TestTheETagOfACreateUnderWay(t *testing.T) {
	root := t.TempDir()
	l := newLedger(root)
	b, err := Open(Config{FS: l, Root: root})
	if err != nil {
		t.Fatal(err)
	}
	var early string
	l.fail = func(op, name string) error {
		if op == "rename" && strings.Contains(name, "meta") {
			var err error
			if _, early, err = b.Get(t.Context(), "head"); err != nil {
				t.Error(err)
			}
		}
		return nil
	}
	id := write(t, b, "head", "v1", objectstore.Cond{IfNoneMatch: true})
	l.fail = nil
	if early != hashTag([]byte("v1")) || early == id {
		t.Fatalf("in between the ETag is %q, then %q", early, id)
	}
	if _, err := b.Put(t.Context(), "head", strings.NewReader("v2"), 2, objectstore.Cond{IfMatch: early}); !errors.Is(err, objectstore.ErrPrecondition) {
		t.Fatalf("a write that names the ETag of before: %v", err)
	}
	data, now, err := b.Get(t.Context(), "head")
	if err != nil || string(data) != "v1" || now != id {
		t.Fatalf("%q, %s, %v", data, now, err)
	}
	write(t, b, "head", "v2", objectstore.Cond{IfMatch: now})
}

// TestANoteNeverSpeaksForOtherBytes walks the crash points of a replacement: a
// note left beside bytes of another size, a damaged one, one of another key.
func TestANoteNeverSpeaksForOtherBytes(t *testing.T) {
	root := t.TempDir()
	b := open(t, root)
	const key, other = "k", "other"
	etag := write(t, b, key, "0123456789", objectstore.Cond{IfNoneMatch: true})
	good, err := os.ReadFile(b.notePath(key))
	if err != nil {
		t.Fatal(err)
	}
	now := func() string {
		info, err := b.Head(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		return info.ETag
	}
	if now() != etag {
		t.Fatal("the note does not say the ETag")
	}
	hash := hashTag([]byte("0123456789"))
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		os.WriteFile(b.notePath(key), bad, 0o644)
		if got := now(); got != hash {
			t.Fatalf("with byte %d of the note damaged the ETag is %s, want the hash %s", i, got, hash)
		}
		os.WriteFile(b.notePath(key), good[:i], 0o644)
		if got := now(); got != hash {
			t.Fatalf("with a note of %d bytes the ETag is %s, want the hash %s", i, got, hash)
		}
	}
	foreign := note{size: 10, etag: "rforeign"}
	os.WriteFile(b.notePath(key), foreign.encode(other), 0o644)
	if got := now(); got != hash {
		t.Fatalf("another key's note says the ETag: %s", got)
	}
	// A note from before the replacement, as if its removal had been lost.
	etag = write(t, b, key, "another", objectstore.Cond{IfMatch: hash})
	os.WriteFile(b.notePath(key), good, 0o644)
	if got := now(); got != etag {
		t.Fatalf("an older note says the ETag: %s, want %s", got, etag)
	}
}

func TestLeftoversAreInvisibleAndSwept(t *testing.T) {
	root := t.TempDir()
	b := open(t, root)
	write(t, b, "a/b", "x", objectstore.Cond{})
	tmp := filepath.Join(root, hidden, "tmp")
	old, young, owned := filepath.Join(tmp, "old"), filepath.Join(tmp, "young"), filepath.Join(tmp, "owned")
	for _, p := range []string{old, young, owned} {
		if err := os.WriteFile(p, []byte("half a body"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-2 * tempAge)
	os.Chtimes(old, past, past)
	os.Chtimes(owned, past, past)
	lock, err := b.fs.Lock(owned)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	for info, err := range b.List(t.Context(), "") {
		if err != nil || info.Key != "a/b" {
			t.Fatalf("list shows %+v, %v", info, err)
		}
	}
	open(t, root)
	for p, want := range map[string]bool{old: false, young: true, owned: true} {
		if _, err := os.Stat(p); (err == nil) != want {
			t.Errorf("after a sweep %s: %v, want it there: %v", filepath.Base(p), err, want)
		}
	}
	// A Put that fails leaves nothing at all.
	before, _ := os.ReadDir(tmp)
	b.Put(t.Context(), "a/b", strings.NewReader("x"), 1, objectstore.Cond{IfNoneMatch: true})
	b.Put(t.Context(), "z", &failing{}, 10, objectstore.Cond{})
	if after, _ := os.ReadDir(tmp); len(after) != len(before) {
		t.Errorf("%d temp files, %d before the failed puts", len(after), len(before))
	}
}

type failing struct{}

func (*failing) Read([]byte) (int, error)       { return 0, errors.New("broken source") }
func (*failing) Seek(int64, int) (int64, error) { return 10, nil }

// TestAVanishedBucketIsNotAnEmptyOne: an unmounted disk must look like a missing
// bucket, not like deleted objects, and must not be written anew.
func TestAVanishedBucketIsNotAnEmptyOne(t *testing.T) {
	root := filepath.Join(t.TempDir(), "bucket")
	b := open(t, root)
	etag := write(t, b, "head", "v1", objectstore.Cond{IfNoneMatch: true})
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	check := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, objectstore.ErrNoBucket) || errors.Is(err, objectstore.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, _, err := b.Get(t.Context(), "head")
	check("get", err)
	_, err = b.Head(t.Context(), "head")
	check("head", err)
	check("range", b.GetRange(t.Context(), "head", make([]byte, 1), 0))
	check("delete", b.Delete(t.Context(), []string{"head"}))
	for _, c := range []objectstore.Cond{{}, {IfNoneMatch: true}, {IfMatch: etag}} {
		_, err = b.Put(t.Context(), "head", strings.NewReader("v2"), 2, c)
		check("put", err)
	}
	for _, err = range b.List(t.Context(), "") {
	}
	check("list", err)
	if _, err := os.Stat(root); err == nil {
		t.Error("the bucket grew again")
	}
	if _, err := Open(Config{Root: filepath.Join(root, "deeper")}); !errors.Is(err, objectstore.ErrNoBucket) {
		t.Errorf("open below a missing folder: %v", err)
	}
}

// TestEmptyFoldersGo: S3 has no folders, so an emptied one must not stay.
func TestEmptyFoldersGo(t *testing.T) {
	root := t.TempDir()
	b := open(t, root)
	write(t, b, "x/y/z/1", "x", objectstore.Cond{IfNoneMatch: true})
	write(t, b, "x/y/2", "x", objectstore.Cond{IfNoneMatch: true})
	if err := b.Delete(t.Context(), []string{"x/y/z/1", "x/y"}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "x/y/z")); err == nil {
		t.Error("x/y/z is empty and still there")
	}
	if err := b.Delete(t.Context(), []string{"x/y/2"}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "x")); err == nil {
		t.Error("x is empty and still there")
	}
	if notes, _ := filepath.Glob(filepath.Join(root, hidden, "meta", "*", "*")); len(notes) > 0 {
		t.Errorf("notes of deleted objects: %q", notes)
	}
}

func FuzzNote(f *testing.F) {
	f.Add(note{size: 10, crc: 1, etag: "r00"}.encode("a/b"), "a/b")
	f.Add([]byte("firn-note 1.0 1 00000000 x a 00000000\n"), "a")
	f.Fuzz(func(t *testing.T, p []byte, key string) {
		n, ok := decodeNote(p, key)
		if !ok {
			return
		}
		if n.size < 0 || n.etag == "" {
			t.Fatalf("accepted %+v", n)
		}
	})
}
