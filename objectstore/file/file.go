// Package file is the bucket on a local file system: a folder whose files are
// the objects, byte for byte, under the names of their keys.
//
//	ROOT/<key>                        an object
//	ROOT/.firn/locks/<00..ff>         one file per slot of keys, flock'ed by writers
//	ROOT/.firn/tmp/<random>           a body being written, flock'ed by its writer
//	ROOT/.firn/meta/<xx>/<hash>       what is known about an object that was created
//
// Keys have no part that starts with a dot, so nothing below .firn is ever an
// object and List does not show it. Writers of one key, in any process of the
// machine, exclude each other by flock; a network file system whose flock is not
// shared between machines is no place for a bucket.
//
// # ETags
//
// An object created with IfNoneMatch gets a random id. It lies, with size and
// CRC-32C, in a note below .firn/meta named by a hash of the key, written after
// the object and before Put returns. Every other object, above all a head that
// was replaced, has no note, and its ETag is a hash of its bytes. So one rule
// holds for all processes and restarts: a valid note says the ETag, and without
// one the bytes do. The order of writes keeps it true through a power cut: a
// note is removed, durably, before its object is replaced, and the new one comes
// after the new object; a note never stands beside bytes it was not made for.
// A Put that did not return may leave its object with the hash as ETag.
//
// The condition decides, because no key means anything here: the first version of
// a head has an id as well, until it is replaced. That is as safe. An id never
// comes back, so a compare-and-set that names the first version is refused from its
// first replacement on, by the same bytes too; and a hash comes back only with its
// bytes, which heads never do (each has a nonce). A reader that came between the
// object and its note knows the hash and is refused once; it reads again. A hash
// for all small objects would make heads alike, and each Head and List read whole
// what now takes a note.
//
// Copy the folder with .firn, or the recorded ETags of created objects are gone
// (nothing is lost, but whoever compares ETags will see other objects).
//
// # Durability
//
// Put returns after fsync of the file, of its folder and of every folder above
// up to the root, which may be new too. A temp file that outlived its process
// holds no lock; Open removes it once it is an hour old.
//
// Being files, an object and a folder cannot share a name: with "a/b" there is
// no "a".
//
// Read file.go, then put.go, note.go, list.go, lock.go.
package file

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/objectstore"
)

const hidden = ".firn"

// tempAge is how old a temp file without an owner must be to be removed.
const tempAge = time.Hour

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Config says where a bucket is.
type Config struct {
	// FS is the disk; nil means disk.OS().
	FS disk.FS
	// Root is the folder. Its parent must exist; the folder itself is created.
	Root string
	// Existing refuses a folder that no Open has made a bucket yet with
	// ErrNoBucket, as when the disk it should be on is not mounted.
	Existing bool
	// Now is the store's clock; nil means time.Now.
	Now func() time.Time
}

// Bucket is a folder. It implements objectstore.Bucket.
type Bucket struct {
	fs    disk.FS
	root  string
	now   func() time.Time
	slots [slotCount]chan struct{} // held by writers of this process, capacity 1
}

var _ objectstore.Bucket = (*Bucket)(nil)

// Open opens the bucket at cfg.Root, creating the folder when only it is
// missing, and removes what writers that died left behind. ErrNoBucket when the
// parent folder does not exist.
func Open(cfg Config) (*Bucket, error) {
	b := &Bucket{fs: cfg.FS, root: cfg.Root, now: cfg.Now}
	if b.fs == nil {
		b.fs = disk.OS()
	}
	if b.now == nil {
		b.now = time.Now
	}
	abs, err := filepath.Abs(cfg.Root)
	if err != nil {
		return nil, err
	}
	b.root = abs
	for i := range b.slots {
		b.slots[i] = make(chan struct{}, 1)
	}
	if cfg.Existing {
		if _, err := b.fs.Stat(filepath.Join(b.root, hidden)); err != nil {
			if isNotExist(err) || isNotDir(err) {
				return nil, fmt.Errorf("%w: %s holds none", objectstore.ErrNoBucket, b.root)
			}
			return nil, mapError(err)
		}
	}
	st, err := b.fs.Stat(b.root)
	switch {
	case err == nil && !st.IsDir():
		return nil, fmt.Errorf("%w: %s is not a folder", objectstore.ErrNoBucket, b.root)
	case errors.Is(err, fs.ErrNotExist):
		parent := filepath.Dir(b.root)
		if _, perr := b.fs.Stat(parent); perr != nil {
			return nil, fmt.Errorf("%w: neither %s nor the folder above it exists", objectstore.ErrNoBucket, b.root)
		}
		if err := b.fs.MkdirAll(b.root, 0o755); err != nil {
			return nil, err
		}
		if err := b.fs.SyncDir(parent); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, mapError(err)
	}
	for _, dir := range []string{"locks", "tmp", "meta"} {
		if err := b.fs.MkdirAll(filepath.Join(b.root, hidden, dir), 0o755); err != nil {
			return nil, mapError(err)
		}
	}
	for _, dir := range []string{filepath.Join(b.root, hidden), b.root} {
		if err := b.fs.SyncDir(dir); err != nil {
			return nil, err
		}
	}
	return b, b.sweep()
}

// Name is the absolute path of the folder.
func (b *Bucket) Name() string { return b.root }

// Date is this machine's clock.
func (b *Bucket) Date(ctx context.Context) (time.Time, error) {
	return b.now(), ctx.Err()
}

// Close does nothing: no file stays open between calls.
func (b *Bucket) Close() error { return nil }

func (b *Bucket) path(key string) string { return filepath.Join(b.root, filepath.FromSlash(key)) }

// open opens an object for reading and returns its size.
func (b *Bucket) open(key string) (disk.File, int64, error) {
	if err := objectstore.CheckKey(key); err != nil {
		return nil, 0, err
	}
	st, err := b.fs.Stat(b.path(key))
	if err != nil {
		return nil, 0, b.missing(key, err)
	}
	if st.IsDir() {
		return nil, 0, fmt.Errorf("%s: %w", key, objectstore.ErrNotFound)
	}
	f, err := b.fs.OpenFile(b.path(key), os.O_RDONLY, 0)
	if err != nil {
		return nil, 0, b.missing(key, err)
	}
	size, err := f.Size()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, size, nil
}

// missing tells a missing object from a missing bucket: after an unmount every
// object looks deleted.
func (b *Bucket) missing(key string, err error) error {
	if isNotExist(err) {
		if _, rerr := b.fs.Stat(filepath.Join(b.root, hidden)); isNotExist(rerr) {
			return fmt.Errorf("%w: %s is gone", objectstore.ErrNoBucket, b.root)
		}
		return fmt.Errorf("%s: %w", key, objectstore.ErrNotFound)
	}
	return fmt.Errorf("%s: %w", key, mapError(err))
}

// Get reads a whole object.
func (b *Bucket) Get(ctx context.Context, key string) ([]byte, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	for {
		data, etag, err := b.getOnce(key)
		if !errors.Is(err, errReplaced) {
			return data, etag, err
		}
		if err := ctx.Err(); err != nil {
			return nil, "", err
		}
	}
}

func (b *Bucket) getOnce(key string) ([]byte, string, error) {
	f, size, err := b.open(key)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	if size > objectstore.MaxGet {
		return nil, "", fmt.Errorf("%s has %d bytes: %w", key, size, objectstore.ErrTooLarge)
	}
	data := make([]byte, size)
	if err := readFull(f, data, 0); err != nil {
		return nil, "", fmt.Errorf("read %s: %w", key, err)
	}
	etag, _, err := b.identify(key, f, size, func() (string, uint32, error) {
		return hashTag(data), crc32.Checksum(data, castagnoli), nil
	})
	return data, etag, err
}

// GetRange reads by pread.
func (b *Bucket) GetRange(ctx context.Context, key string, p []byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(p) == 0 {
		return nil
	}
	if off < 0 {
		return fmt.Errorf("%s at %d: %w", key, off, objectstore.ErrRange)
	}
	f, size, err := b.open(key)
	if err != nil {
		return err
	}
	defer f.Close()
	if off > math.MaxInt64-int64(len(p)) || off+int64(len(p)) > size {
		return fmt.Errorf("%s has %d bytes, asked for %d at %d: %w", key, size, len(p), off, objectstore.ErrRange)
	}
	if err := readFull(f, p, off); err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	return nil
}

// Head describes an object. Without a note it reads the whole file for its hash.
func (b *Bucket) Head(ctx context.Context, key string) (objectstore.Info, error) {
	if err := ctx.Err(); err != nil {
		return objectstore.Info{}, err
	}
	for {
		info, err := b.headOnce(ctx, key)
		if !errors.Is(err, errReplaced) {
			return info, err
		}
		if err := ctx.Err(); err != nil {
			return objectstore.Info{}, err
		}
	}
}

func (b *Bucket) headOnce(ctx context.Context, key string) (objectstore.Info, error) {
	f, size, err := b.open(key)
	if err != nil {
		return objectstore.Info{}, err
	}
	defer f.Close()
	st, err := b.fs.Stat(b.path(key))
	if err != nil {
		return objectstore.Info{}, b.missing(key, err)
	}
	etag, crc, err := b.identify(key, f, size, func() (string, uint32, error) { return hashFile(ctx, f, size) })
	if err != nil {
		return objectstore.Info{}, err
	}
	return objectstore.Info{Key: key, Size: size, ETag: etag, LastModified: st.ModTime(), CRC32C: &crc}, nil
}

// errReplaced means that the object changed between reading it and its note.
var errReplaced = errors.New("replaced meanwhile")

// identify returns the ETag and checksum of the open file f: those of the note
// when there is one, else what hash computes. Readers take no lock, so a note
// read while the object is being replaced could belong to the other bytes; it
// counts only if the path still names the same file, and the same is asked when
// there was none (it may have been removed for a replacement under way).
func (b *Bucket) identify(key string, f disk.File, size int64, hash func() (string, uint32, error)) (string, uint32, error) {
	n, ok, err := b.readNote(key, size)
	if err != nil {
		return "", 0, err
	}
	if ok {
		same, err := b.sameFile(key, f)
		if err != nil {
			return "", 0, err
		}
		if !same {
			return "", 0, errReplaced
		}
		return n.etag, n.crc, nil
	}
	return hash()
}

// sameFile says whether key still names the open file f.
func (b *Bucket) sameFile(key string, f disk.File) (bool, error) {
	st, err := b.fs.Stat(b.path(key))
	if err != nil {
		return false, b.missing(key, err)
	}
	of, ok := f.(interface{ Stat() (os.FileInfo, error) })
	if !ok {
		return true, nil
	}
	fst, err := of.Stat()
	if err != nil {
		return false, err
	}
	return os.SameFile(st, fst), nil
}

// hashTag is the ETag of bytes without a note.
func hashTag(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}

func hashFile(ctx context.Context, f io.ReaderAt, size int64) (string, uint32, error) {
	h := sha256.New()
	crc := crc32.New(castagnoli)
	r := io.NewSectionReader(f, 0, size)
	buf := make([]byte, min(size, 1<<20))
	for done := int64(0); done < size; {
		if err := ctx.Err(); err != nil {
			return "", 0, err
		}
		n, err := io.ReadFull(r, buf[:min(int64(len(buf)), size-done)])
		if err != nil {
			return "", 0, err
		}
		h.Write(buf[:n])
		crc.Write(buf[:n])
		done += int64(n)
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), crc.Sum32(), nil
}

func readFull(f io.ReaderAt, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
