package disk

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestSimBehavesLikeTheRealOne runs the same random calls on both and compares
// every answer.
func TestSimBehavesLikeTheRealOne(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		real, sim := OS(), FS(NewSim(seed))
		dirs := map[FS]string{real: t.TempDir(), sim: "/d"}
		if err := sim.MkdirAll("/d", 0o755); err != nil {
			t.Fatal(err)
		}
		names := []string{"a", "b", "sub/a", "sub/b"}
		for step := range 200 {
			op, name, other := rng.IntN(9), names[rng.IntN(len(names))], names[rng.IntN(2)]
			off, data := int64(rng.IntN(3000)), bytes.Repeat([]byte{byte(step)}, rng.IntN(2000))
			flag := []int{os.O_RDWR, os.O_RDWR | os.O_CREATE, os.O_RDWR | os.O_CREATE | os.O_TRUNC, os.O_RDWR | os.O_CREATE | os.O_EXCL}[rng.IntN(4)]
			do := func(fsys FS) string {
				p := filepath.Join(dirs[fsys], name)
				file := func(fn func(File) error) error {
					f, err := fsys.OpenFile(p, flag, 0o644)
					if err != nil {
						return err
					}
					defer f.Close()
					return fn(f)
				}
				var err error
				out := ""
				switch op {
				case 0, 1:
					err = file(func(f File) error { _, err := f.WriteAt(data, off); return errors.Join(err, f.Datasync()) })
				case 2:
					err = file(func(f File) error {
						b := make([]byte, 500)
						n, err := f.ReadAt(b, off)
						out = fmt.Sprintf("%x %v", b[:n], err)
						return nil
					})
				case 3:
					err = file(func(f File) error { return f.Truncate(off) })
				case 4:
					err = fsys.Remove(p)
				case 5:
					err = fsys.Rename(filepath.Join(dirs[fsys], other), filepath.Join(dirs[fsys], names[step%2]))
				case 6:
					err = errors.Join(fsys.MkdirAll(filepath.Join(dirs[fsys], "sub"), 0o755), fsys.SyncDir(dirs[fsys]))
				case 7:
					if rng.IntN(4) == 0 {
						err = fsys.RemoveAll(filepath.Join(dirs[fsys], "sub"))
					}
				case 8:
					es, rerr := fsys.ReadDir(dirs[fsys])
					for _, e := range es {
						i, _ := e.Info()
						size := i.Size()
						if e.IsDir() {
							size = 0
						}
						out += fmt.Sprintf("%s %v %d;", e.Name(), e.IsDir(), size)
					}
					err = rerr
				}
				kind := "nil"
				for _, k := range []error{os.ErrNotExist, os.ErrExist, syscall.EISDIR, syscall.ENOTEMPTY, syscall.ENOTDIR} {
					if errors.Is(err, k) {
						kind = k.Error()
						break
					}
				}
				if kind == "nil" && err != nil {
					kind = err.Error()
				}
				return kind + " " + out
			}
			a := do(real)
			b := do(sim)
			if op != 7 && a != b {
				t.Fatalf("seed %d step %d, op %d on %s: %q, simulated %q", seed, step, op, name, a, b)
			}
			if op == 7 {
				// The two draws may differ: bring them to the same state.
				real.RemoveAll(filepath.Join(dirs[real], "sub"))
				sim.RemoveAll(filepath.Join(dirs[sim], "sub"))
			}
		}
	}
}

// TestCrashKeepsWhatWasSynced and may keep or lose the rest, each of which must
// happen under some seed.
func TestCrashKeepsWhatWasSynced(t *testing.T) {
	var lost, kept, torn, undone, named int
	for seed := range uint64(300) {
		s := NewSim(seed)
		s.MkdirAll("/d", 0o755)
		s.SyncDir("/")
		f, _ := s.OpenFile("/d/a", os.O_CREATE|os.O_RDWR, 0o644)
		f.WriteAt(bytes.Repeat([]byte{1}, 2000), 0)
		f.Sync()
		s.SyncDir("/d")
		f.WriteAt(bytes.Repeat([]byte{2}, 2000), 2000)
		g, _ := s.OpenFile("/d/b", os.O_CREATE|os.O_RDWR, 0o644)
		g.Sync()
		c := s.Crash()
		if _, err := f.WriteAt([]byte{1}, 0); !errors.Is(err, ErrPowerLost) {
			t.Fatal("an old handle works")
		}
		b, err := ReadFile(c, "/d/a", 1<<20)
		if err != nil || len(b) < 2000 || !bytes.Equal(b[:2000], bytes.Repeat([]byte{1}, 2000)) {
			t.Fatalf("seed %d: synced bytes are lost: %d %v", seed, len(b), err)
		}
		switch {
		case len(b) == 2000:
			lost++
		case bytes.Equal(b[2000:], bytes.Repeat([]byte{2}, 2000)):
			kept++
		default:
			torn++
		}
		if _, err := c.Stat("/d/b"); err == nil {
			named++
		} else {
			undone++
		}
		// What is there after a crash stays there.
		if again, err := ReadFile(c.Crash(), "/d/a", 1<<20); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("seed %d: a second crash changes what the first left", seed)
		}
	}
	for what, n := range map[string]int{"lost": lost, "kept": kept, "torn": torn, "undone": undone, "named": named} {
		if n < 10 {
			t.Errorf("%s only %d times", what, n)
		}
	}
}

// TestWriteFileAtomicIsAtomic at every moment of a power cut.
func TestWriteFileAtomicIsAtomic(t *testing.T) {
	for seed := range uint64(200) {
		s := NewSim(seed)
		if err := errors.Join(s.MkdirAll("/d", 0o755), s.SyncDir("/"), WriteFileAtomic(s, "/d/a", []byte("old"))); err != nil {
			t.Fatal(err)
		}
		s.CutAfter(int(seed % 8))
		fresh := bytes.Repeat([]byte("new"), 400)
		err := WriteFileAtomic(s, "/d/a", fresh)
		b, rerr := ReadFile(s.Crash(), "/d/a", 1<<20)
		if rerr != nil || string(b) != "old" && !bytes.Equal(b, fresh) || err == nil && string(b) == "old" {
			t.Fatalf("seed %d: write said %v, then there is %q, %v", seed, err, b, rerr)
		}
	}
}

func TestSimFills(t *testing.T) {
	s := NewSim(1)
	s.SetCapacity(100)
	f, _ := s.OpenFile("/a", os.O_CREATE|os.O_RDWR, 0o644)
	n, err := f.WriteAt(make([]byte, 150), 0)
	if n != 100 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(n, err)
	}
	if free, _, _ := s.Space("/"); free != 0 {
		t.Fatal(free)
	}
	f.Truncate(10)
	if n, err := f.WriteAt(make([]byte, 90), 10); n != 90 || err != nil {
		t.Fatal(n, err)
	}
}
