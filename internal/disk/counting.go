package disk

import (
	"io/fs"
	"sync/atomic"
)

// Counted is an FS that counts the bytes that pass through its files, and the
// syncs of files and folders.
type Counted struct {
	FS
	read, written, syncs atomic.Int64
}

// Counting wraps fsys.
func Counting(fsys FS) *Counted { return &Counted{FS: fsys} }

// ReadBytes is how many bytes were read through it, WrittenBytes how many were
// written.
func (c *Counted) ReadBytes() int64    { return c.read.Load() }
func (c *Counted) WrittenBytes() int64 { return c.written.Load() }

// Syncs is how many files and folders were synced.
func (c *Counted) Syncs() int64 { return c.syncs.Load() }

// SyncDir syncs through the wrapped FS.
func (c *Counted) SyncDir(name string) error {
	c.syncs.Add(1)
	return c.FS.SyncDir(name)
}

// OpenFile opens through the wrapped FS.
func (c *Counted) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := c.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &countedFile{File: f, c: c}, nil
}

type countedFile struct {
	File
	c *Counted
}

func (f *countedFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	f.c.read.Add(int64(n))
	return n, err
}

func (f *countedFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	f.c.written.Add(int64(n))
	return n, err
}

func (f *countedFile) Sync() error {
	f.c.syncs.Add(1)
	return f.File.Sync()
}

func (f *countedFile) Datasync() error {
	f.c.syncs.Add(1)
	return f.File.Datasync()
}
