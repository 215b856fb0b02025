package file

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/objectstore"
)

// Put writes the body beside the objects, then publishes it under key's lock:
// compare, rename, fsync. Until the rename nothing happened; an error after it
// is ErrInDoubt, since the object is there but perhaps not durable.
func (b *Bucket) Put(ctx context.Context, key string, body io.ReadSeeker, size int64, c objectstore.Cond) (string, error) {
	if err := objectstore.CheckKey(key); err != nil {
		return "", err
	}
	if c.IfNoneMatch && c.IfMatch != "" {
		return "", errors.New("IfNoneMatch and IfMatch exclude each other")
	}
	if err := objectstore.CheckBody(body, size); err != nil {
		return "", err
	}
	if c.IfNoneMatch || c.IfMatch != "" {
		// A cheap look before the body is copied; the answer that counts comes
		// under the lock.
		if err := b.compare(ctx, key, c); err != nil {
			return "", err
		}
	}
	tmp, sum, err := b.writeTemp(ctx, body, size)
	if err != nil {
		return "", fmt.Errorf("write %s: %w", key, b.missingRoot(err))
	}
	defer tmp.discard()
	unlock, err := b.lock(ctx, key)
	if err != nil {
		return "", fmt.Errorf("lock %s: %w", key, b.missingRoot(err))
	}
	defer unlock()
	if err := b.compare(ctx, key, c); err != nil {
		return "", err
	}
	etag, err := b.publish(key, tmp, sum, c)
	if err != nil {
		return "", fmt.Errorf("publish %s: %w", key, err)
	}
	return etag, nil
}

// compare checks c against the object as it is.
func (b *Bucket) compare(ctx context.Context, key string, c objectstore.Cond) error {
	switch {
	case c.IfNoneMatch:
		st, err := b.fs.Stat(b.path(key))
		if err == nil && st.IsDir() {
			return fmt.Errorf("%s is a folder here: an object and a folder cannot share a name on a file system", key)
		}
		if err == nil {
			return fmt.Errorf("create %s: it exists: %w", key, objectstore.ErrPrecondition)
		}
		if err := b.missing(key, err); !errors.Is(err, objectstore.ErrNotFound) {
			return err
		}
		return nil
	case c.IfMatch != "":
		info, err := b.Head(ctx, key)
		if err != nil {
			return err
		}
		if info.ETag != c.IfMatch {
			return fmt.Errorf("replace %s: ETag is %s, not %s: %w", key, info.ETag, c.IfMatch, objectstore.ErrPrecondition)
		}
		return nil
	}
	return nil
}

// publish gives the temp file its name. The caller holds key's lock.
func (b *Bucket) publish(key string, tmp *temp, sum uint32, c objectstore.Cond) (string, error) {
	path := b.path(key)
	dir := filepath.Dir(path)
	if err := b.dropNote(key); err != nil {
		return "", err
	}
	for {
		if err := b.makeFolder(dir); err != nil {
			return "", mapError(err)
		}
		err := b.fs.Rename(tmp.path, path)
		if err == nil {
			break
		}
		// A Delete may have pruned the folder meanwhile; a rename without a
		// source means that our temp file is gone, and that is final.
		if _, serr := b.fs.Stat(tmp.path); isNotExist(err) && serr == nil {
			continue
		}
		return "", mapError(err)
	}
	tmp.published = true
	if err := b.syncUp(dir); err != nil {
		return "", errors.Join(objectstore.ErrInDoubt, err)
	}
	if !c.IfNoneMatch {
		return tmp.hash()
	}
	n := note{size: tmp.size, crc: sum, etag: newID()}
	if err := b.writeNote(key, n); err != nil {
		return "", errors.Join(objectstore.ErrInDoubt, err)
	}
	return n.etag, nil
}

// makeFolder creates dir below the root, but never the root: a bucket that was
// unmounted must not grow again on the disk below.
func (b *Bucket) makeFolder(dir string) error {
	if _, err := b.fs.Stat(filepath.Join(b.root, hidden)); isNotExist(err) {
		return fmt.Errorf("%w: %s is gone", objectstore.ErrNoBucket, b.root)
	}
	return b.fs.MkdirAll(dir, 0o755)
}

// syncUp makes dir and each folder above it up to the root durable. Always all
// of them: another process may have made one and not come to its fsync.
func (b *Bucket) syncUp(dir string) error {
	for {
		if err := b.fs.SyncDir(dir); err != nil {
			return err
		}
		if dir == b.root {
			return nil
		}
		dir = filepath.Dir(dir)
	}
}

// temp is a body on its way. Its writer holds an flock on it, which tells the
// sweep of another process that it has an owner.
type temp struct {
	b         *Bucket
	path      string
	f         disk.File
	size      int64
	published bool
}

// writeTemp copies body into a synced temp file and returns its CRC-32C.
func (b *Bucket) writeTemp(ctx context.Context, body io.Reader, size int64) (*temp, uint32, error) {
	name := make([]byte, 12)
	rand.Read(name)
	t := &temp{b: b, path: filepath.Join(b.root, hidden, "tmp", hex.EncodeToString(name)), size: size}
	f, err := b.fs.OpenFile(t.path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	if err != nil {
		return nil, 0, err
	}
	t.f = f
	if err := flockFile(f); err != nil {
		t.discard()
		return nil, 0, err
	}
	sum, err := copyBody(ctx, f, body, size)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		t.discard()
		return nil, 0, err
	}
	return t, sum, nil
}

func copyBody(ctx context.Context, dst io.WriterAt, body io.Reader, size int64) (uint32, error) {
	buf := make([]byte, min(max(size, 1), 1<<20))
	var sum uint32
	var off int64
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := io.ReadFull(body, buf)
		if off+int64(n) > size {
			return 0, fmt.Errorf("body is longer than the %d bytes that were announced", size)
		}
		if n > 0 {
			sum = crc32.Update(sum, castagnoli, buf[:n])
			if _, werr := dst.WriteAt(buf[:n], off); werr != nil {
				return 0, werr
			}
			off += int64(n)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			if off != size {
				return 0, fmt.Errorf("body has %d bytes, not the %d that were announced", off, size)
			}
			return sum, nil
		}
		if err != nil {
			return 0, fmt.Errorf("read the body: %w", err)
		}
	}
}

// hash is the ETag of the body, for objects without a note.
func (t *temp) hash() (string, error) {
	etag, _, err := hashFile(context.Background(), t.f, t.size)
	if err != nil {
		return "", errors.Join(objectstore.ErrInDoubt, err)
	}
	return etag, nil
}

// discard closes the file and, unless it was published, removes it.
func (t *temp) discard() {
	if !t.published {
		t.b.fs.Remove(t.path)
	}
	t.f.Close()
}

// Delete removes objects and the folders that became empty.
func (b *Bucket) Delete(ctx context.Context, keys []string) error {
	var errs []error
	touched := map[string]bool{}
	for _, key := range keys {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if err := b.deleteOne(ctx, key); err != nil {
			errs = append(errs, fmt.Errorf("delete %s: %w", key, err))
			continue
		}
		touched[filepath.Dir(b.path(key))] = true
	}
	for dir := range touched {
		// The folder may be pruned, by us or by somebody else: then the removal
		// is recorded in the nearest one above that is left.
		for {
			err := b.fs.SyncDir(dir)
			if err == nil {
				break
			}
			if !isNotExist(err) || dir == b.root {
				errs = append(errs, err)
				break
			}
			dir = filepath.Dir(dir)
		}
	}
	return errors.Join(errs...)
}

func (b *Bucket) deleteOne(ctx context.Context, key string) error {
	if err := objectstore.CheckKey(key); err != nil {
		return err
	}
	unlock, err := b.lock(ctx, key)
	if err != nil {
		return b.missingRoot(err)
	}
	defer unlock()
	path := b.path(key)
	// A folder is no object, and Remove would take an empty one.
	if st, err := b.fs.Stat(path); err == nil && st.IsDir() {
		return nil
	}
	if err := b.fs.Remove(path); err != nil && !isNotExist(err) {
		return mapError(err)
	}
	if err := b.dropNote(key); err != nil {
		return err
	}
	for dir := filepath.Dir(path); dir != b.root; dir = filepath.Dir(dir) {
		if b.fs.Remove(dir) != nil { // not empty, or already gone
			break
		}
	}
	return nil
}

func (b *Bucket) missingRoot(err error) error {
	if isNotExist(err) {
		if _, rerr := b.fs.Stat(filepath.Join(b.root, hidden)); isNotExist(rerr) {
			return fmt.Errorf("%w: %s is gone", objectstore.ErrNoBucket, b.root)
		}
	}
	return mapError(err)
}

// mapError gives errors of the file system the names of the contract.
func mapError(err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("%w: %w", objectstore.ErrDenied, err)
	}
	return err
}

func isNotDir(err error) bool { return errors.Is(err, syscall.ENOTDIR) }
