package tiering

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/metadata"
)

// DiskMemory is a Memory in a folder of the data dir: one small file a partition,
// replaced atomically.
type DiskMemory struct {
	fs  disk.FS
	dir string

	mu    sync.Mutex
	known map[string]uint64 // file name to generation
}

const memoryMagic = "FIRNMEM1"

// OpenMemory reads what was remembered in dir, which is made when missing. A file
// that cannot be read is an error: forgetting is what the memory is there to
// prevent.
func OpenMemory(fsys disk.FS, dir string) (*DiskMemory, error) {
	m := &DiskMemory{fs: fsys, dir: dir, known: map[string]uint64{}}
	if err := fsys.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := fsys.SyncDir(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".head") {
			continue
		}
		b, err := disk.ReadFile(fsys, filepath.Join(dir, e.Name()), 4096)
		if err != nil {
			return nil, err
		}
		if len(b) != 28 || string(b[:8]) != memoryMagic || crc32.Checksum(b[:24], castagnoli) != binary.BigEndian.Uint32(b[24:]) {
			return nil, fmt.Errorf("%s is damaged; it remembers the newest manifest seen of one partition: compare the bucket's with a backup, then remove the file", filepath.Join(dir, e.Name()))
		}
		m.known[e.Name()] = binary.BigEndian.Uint64(b[8:])
	}
	return m, nil
}

func memoryName(id metadata.TopicID, partition int32) string {
	return id.String() + "." + strconv.Itoa(int(partition)) + ".head"
}

// Generation implements Memory.
func (m *DiskMemory) Generation(tp metadata.TopicPartition) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[memoryName(tp.TopicID, tp.Partition)]
}

// Remember implements Memory.
func (m *DiskMemory) Remember(tp metadata.TopicPartition, generation uint64, end int64) error {
	name := memoryName(tp.TopicID, tp.Partition)
	m.mu.Lock()
	defer m.mu.Unlock()
	if generation <= m.known[name] {
		return nil
	}
	b := make([]byte, 0, 28)
	b = append(b, memoryMagic...)
	b = binary.BigEndian.AppendUint64(b, generation)
	b = binary.BigEndian.AppendUint64(b, uint64(end))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if err := disk.WriteFileAtomic(m.fs, filepath.Join(m.dir, name), b); err != nil {
		return err
	}
	m.known[name] = generation
	return nil
}

// Forget implements Memory.
func (m *DiskMemory) Forget(id metadata.TopicID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.known {
		if !strings.HasPrefix(name, id.String()+".") {
			continue
		}
		if err := m.fs.Remove(filepath.Join(m.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		delete(m.known, name)
	}
	return nil
}
