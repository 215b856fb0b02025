// Package disk is the file system as the rest of firn sees it: a small seam with
// a real implementation (OS), one that lives in memory and can lose power (Sim),
// and one that counts bytes and syncs (Counting).
//
// Two facts of POSIX shape it. Data is durable only after Sync or Datasync of
// its file returned nil, and once one of them failed the pages may be gone while
// a second call says nil ("fsyncgate"): a failed sync is final for the file. And
// a create, rename or remove is durable only after SyncDir of its folder.
//
// Read disk.go for the seam, then os.go and counting.go.
package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrLocked means another process, or another holder in this one, has the lock.
var ErrLocked = errors.New("locked by another holder")

// FS is a file system. Names are paths as in package os. All methods are safe
// for concurrent use.
type FS interface {
	// OpenFile opens or creates as os.OpenFile does. A created file has no
	// durable name until SyncDir of its folder.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	// MkdirAll creates name and its parents; SyncDir of each parent makes them
	// durable.
	MkdirAll(name string, perm fs.FileMode) error
	// Remove deletes a file or an empty folder. Open files stay readable.
	Remove(name string) error
	// RemoveAll deletes a tree; a missing one is no error.
	RemoveAll(name string) error
	// Rename replaces newname atomically.
	Rename(oldname, newname string) error
	// ReadDir lists a folder sorted by name.
	ReadDir(name string) ([]fs.DirEntry, error)
	Stat(name string) (fs.FileInfo, error)
	// SyncDir makes the creates, renames and removes in a folder durable.
	SyncDir(name string) error
	// Space says how many bytes of the volume that holds name are free for us
	// and how many there are.
	Space(name string) (free, total int64, err error)
	// Lock takes an exclusive lock on name, creating it, without waiting:
	// ErrLocked when somebody has it. Closing releases it, and so does the end
	// of the process.
	Lock(name string) (io.Closer, error)
}

// File is an open file. ReadAt and WriteAt are as in package io and safe for
// concurrent use; WriteAt past the end leaves zeroes between.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Name() string
	Size() (int64, error)
	Truncate(size int64) error
	// Sync makes data and metadata durable; Datasync the data and the size. An
	// error is final: pages may be lost, and a later call may say nil.
	Sync() error
	Datasync() error
	// Fd is the descriptor, for sendfile; ok is false for simulated files. The
	// caller keeps the file open while it uses the descriptor.
	Fd() (fd uintptr, ok bool)
}

// WriteFileAtomic makes name hold data, durably: after a power cut at any moment
// name has its old content or the new one, never a part.
func WriteFileAtomic(fsys FS, name string, data []byte) (err error) {
	tmp := name + ".tmp"
	f, err := fsys.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			fsys.Remove(tmp)
		}
	}()
	if _, err = f.WriteAt(data, 0); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err = fsys.Rename(tmp, name); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Dir(name))
}

// ReadFile returns the content of name, which may have at most limit bytes.
func ReadFile(fsys FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than the %d that make sense", name, size, limit)
	}
	p := make([]byte, size)
	n, err := f.ReadAt(p, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return p[:n], nil
}
