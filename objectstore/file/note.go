package file

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/firnlog/firn/internal/disk"
)

// A note is one line of text:
//
//	firn-note 1.0 SIZE CRC32C ETAG KEY CHECK\n
//
// SIZE in decimal, CRC32C of the object in 8 hex digits, CHECK the CRC-32C of
// all before it (without the space) in 8 hex digits. An unknown major, a wrong
// check, size or key makes it no note, and the bytes say the ETag.
const noteMagic = "firn-note"

const noteLimit = 4096

type note struct {
	size int64
	crc  uint32
	etag string
}

// newID is a random ETag; the prefix keeps it apart from every hash.
func newID() string {
	id := make([]byte, 16)
	rand.Read(id)
	return "r" + hex.EncodeToString(id)
}

func (n note) encode(key string) []byte {
	line := fmt.Sprintf("%s 1.0 %d %08x %s %s", noteMagic, n.size, n.crc, n.etag, key)
	return fmt.Appendf(nil, "%s %08x\n", line, crc32.Checksum([]byte(line), castagnoli))
}

// decodeNote returns false for anything that is not a note about key.
func decodeNote(p []byte, key string) (note, bool) {
	text, ok := strings.CutSuffix(string(p), "\n")
	if !ok {
		return note{}, false
	}
	cut := strings.LastIndexByte(text, ' ')
	if cut < 0 || text[cut+1:] != fmt.Sprintf("%08x", crc32.Checksum([]byte(text[:cut]), castagnoli)) {
		return note{}, false
	}
	f := strings.Split(text[:cut], " ")
	if len(f) < 6 || f[0] != noteMagic || !strings.HasPrefix(f[1], "1.") || f[4] == "" || f[5] != key {
		return note{}, false
	}
	size, err := strconv.ParseInt(f[2], 10, 64)
	if err != nil || size < 0 {
		return note{}, false
	}
	crc, err := strconv.ParseUint(f[3], 16, 32)
	if err != nil {
		return note{}, false
	}
	return note{size: size, crc: uint32(crc), etag: f[4]}, true
}

func (b *Bucket) notePath(key string) string {
	sum := sha256.Sum256([]byte(key))
	name := hex.EncodeToString(sum[:16])
	return filepath.Join(b.root, hidden, "meta", name[:2], name)
}

// readNote returns the note of an object of that size; ok is false without one.
func (b *Bucket) readNote(key string, size int64) (n note, ok bool, err error) {
	p, err := disk.ReadFile(b.fs, b.notePath(key), noteLimit)
	if isNotExist(err) {
		return note{}, false, nil
	}
	if err != nil {
		return note{}, false, fmt.Errorf("note of %s: %w", key, err)
	}
	n, ok = decodeNote(p, key)
	return n, ok && n.size == size, nil
}

// writeNote makes n durable. The caller holds key's lock.
func (b *Bucket) writeNote(key string, n note) error {
	path := b.notePath(key)
	dir := filepath.Dir(path)
	if err := b.fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := disk.WriteFileAtomic(b.fs, path, n.encode(key)); err != nil {
		return err
	}
	return b.fs.SyncDir(filepath.Dir(dir))
}

// dropNote removes key's note, durably, if there is one. The caller holds key's
// lock.
func (b *Bucket) dropNote(key string) error {
	path := b.notePath(key)
	err := b.fs.Remove(path)
	if isNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return b.fs.SyncDir(filepath.Dir(path))
}

func isNotExist(err error) bool {
	return os.IsNotExist(err) || isNotDir(err)
}
