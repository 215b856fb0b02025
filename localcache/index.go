package localcache

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"

	"github.com/firnlog/firn/internal/disk"
)

// The index file remembers which chunks there are and how hot, so that a start
// reads a few hundred kilobytes instead of every file. It is a hint: files it
// does not name are found by listing the folders, and what it says of a file is
// believed only after the first use has verified the file.
//
//	magic  8 "FIRNCIX\n" | major 2 | minor 2 | entrySize 2 | count 4
//	count times: id 16 | nonce 4 | file size 8 | queue 1 | freq 1   (entrySize bytes)
//	crc    4 CRC-32C of all before it
const (
	indexName      = "index"
	indexMagic     = "FIRNCIX\n"
	indexMajor     = 1
	indexMinor     = 0
	indexEntrySize = 30
	indexHead      = 8 + 2 + 2 + 2 + 4
	indexMax       = 256 << 20
)

type indexEntry struct {
	name  fileName
	size  int64
	queue uint8
	freq  uint8
}

func encodeIndex(entries []indexEntry) []byte {
	p := make([]byte, 0, indexHead+len(entries)*indexEntrySize+4)
	p = append(p, indexMagic...)
	p = binary.BigEndian.AppendUint16(p, indexMajor)
	p = binary.BigEndian.AppendUint16(p, indexMinor)
	p = binary.BigEndian.AppendUint16(p, indexEntrySize)
	p = binary.BigEndian.AppendUint32(p, uint32(len(entries)))
	for _, e := range entries {
		p = append(p, e.name.id[:]...)
		p = binary.BigEndian.AppendUint32(p, e.name.nonce)
		p = binary.BigEndian.AppendUint64(p, uint64(e.size))
		p = append(p, e.queue, e.freq)
	}
	return binary.BigEndian.AppendUint32(p, crc32.Checksum(p, castagnoli))
}

func decodeIndex(p []byte) ([]indexEntry, error) {
	if len(p) < indexHead+4 || string(p[:8]) != indexMagic {
		return nil, fmt.Errorf("%w: index", errCorrupt)
	}
	if m := binary.BigEndian.Uint16(p[8:]); m != indexMajor {
		return nil, fmt.Errorf("cache index has major version %d, this build reads %d", m, indexMajor)
	}
	step := int(binary.BigEndian.Uint16(p[12:]))
	count := int64(binary.BigEndian.Uint32(p[14:]))
	if step < indexEntrySize || int64(len(p)) != indexHead+count*int64(step)+4 {
		return nil, fmt.Errorf("%w: index length", errCorrupt)
	}
	body := p[:len(p)-4]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(p[len(p)-4:]) {
		return nil, fmt.Errorf("%w: index checksum", errCorrupt)
	}
	entries := make([]indexEntry, 0, count)
	for q := body[indexHead:]; len(q) >= step; q = q[step:] {
		e := indexEntry{
			name: fileName{id(q[:16]), binary.BigEndian.Uint32(q[16:])}, size: int64(binary.BigEndian.Uint64(q[20:])),
			queue: q[28], freq: min(q[29], maxFreq),
		}
		if e.size <= 0 || e.size > maxPayload+headerMax {
			return nil, fmt.Errorf("%w: index entry", errCorrupt)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// load finds out what is on disk. Nothing it finds is trusted before its first
// use, and nothing it cannot read is an error.
func (c *Cache) load() {
	var known []indexEntry
	p, err := disk.ReadFile(c.cfg.FS, filepath.Join(c.cfg.Dir, indexName), indexMax)
	if err == nil {
		known, err = decodeIndex(p)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		c.log.Warn("cache index unreadable: looking at the files instead", "event", "cache_index_unreadable", "error", err)
	}
	there := make(map[id]uint32)
	var double []fileName // an older write of a chunk that a crash left behind
	folders, err := c.cfg.FS.ReadDir(c.cfg.Dir)
	if err != nil {
		c.log.Warn("cannot list the cache's folder", "event", "cache_unreadable", "error", err)
		return
	}
	for _, folder := range folders {
		if !folder.IsDir() || len(folder.Name()) != 2 {
			continue
		}
		files, err := c.cfg.FS.ReadDir(filepath.Join(c.cfg.Dir, folder.Name()))
		if err != nil {
			continue
		}
		for _, f := range files {
			n, ok := parseName(folder.Name(), f.Name())
			if !ok {
				continue
			}
			c.nonce.Store(max(c.nonce.Load(), n.nonce))
			if old, ok := there[n.id]; ok {
				double = append(double, fileName{n.id, min(old, n.nonce)})
				n.nonce = max(old, n.nonce)
			}
			there[n.id] = n.nonce
		}
	}
	for _, n := range double {
		c.unlink(n)
	}
	var unnamed []*entry // written after the index was saved
	for _, k := range known {
		if nonce, ok := there[k.name.id]; ok && nonce == k.name.nonce {
			delete(there, k.name.id)
			c.adopt(&entry{name: k.name, size: k.size, freq: k.freq, read: true}, k.queue)
		}
	}
	for i, nonce := range there {
		n := fileName{i, nonce}
		folder, name := n.path()
		if st, err := c.cfg.FS.Stat(filepath.Join(c.cfg.Dir, folder, name)); err == nil {
			unnamed = append(unnamed, &entry{name: n, size: max(st.Size(), 1), read: true})
		}
	}
	slices.SortFunc(unnamed, func(a, b *entry) int { return cmp.Compare(a.name.nonce, b.name.nonce) })
	for _, e := range unnamed {
		c.adopt(e, inSmall)
	}
}

// adopt takes in a file found at the start.
func (c *Cache) adopt(e *entry, queue uint8) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[e.name.id] != nil {
		return
	}
	c.entries[e.name.id] = e
	if queue == inMain {
		c.queue.pushMain(e)
	} else {
		c.queue.pushSmall(e)
	}
}

// save writes the index. It is only a hint, so an error is only logged.
func (c *Cache) save() {
	c.mu.Lock()
	entries := make([]indexEntry, 0, c.queue.len())
	for el := c.queue.small.Front(); el != nil; el = el.Next() {
		e := el.Value.(*entry)
		entries = append(entries, indexEntry{e.name, e.size, inSmall, e.freq})
	}
	for el := c.queue.main.Front(); el != nil; el = el.Next() {
		e := el.Value.(*entry)
		entries = append(entries, indexEntry{e.name, e.size, inMain, e.freq})
	}
	c.changed = false
	c.mu.Unlock()
	if err := disk.WriteFileAtomic(c.cfg.FS, filepath.Join(c.cfg.Dir, indexName), encodeIndex(entries)); err != nil {
		c.log.Debug("cannot save the cache index", "event", "cache_index_unsaved", "error", err)
	}
}
