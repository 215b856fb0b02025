package localcache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/firnlog/firn/internal/disk"
)

// A chunk's file is a header and the payload. All numbers are big endian.
//
//	magic      8  "FIRNCHK\n"
//	major      2  a reader refuses another one
//	minor      2
//	headerLen  4  of the whole header; a longer one has fields we do not know
//	payload    8  length
//	payloadCRC 4  CRC-32C of the payload
//	chunk      4  Key.Chunk
//	chunkCRC   4  Key.CRC
//	object     2  length, then its bytes
//	etag       2  length, then its bytes
//	headerCRC  4  CRC-32C of all before it; the last bytes of the header
const (
	fileMagic  = "FIRNCHK\n"
	fileSuffix = ".chunk"
	fileMajor  = 1
	fileMinor  = 0

	headerFixed = 8 + 2 + 2 + 4 + 8 + 4 + 4 + 4
	headerMax   = headerFixed + 2 + 2048 + 2 + 1024 + 4 + 256

	// maxPayload is far above any chunk; a larger length is damage.
	maxPayload = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errCorrupt = errors.New("damaged cache file")

type header struct {
	key     Key
	payload int64
	crc     uint32
	size    int64 // of the header itself
}

func encodeHeader(h header) ([]byte, error) {
	if len(h.key.Object) > 2048 || len(h.key.ETag) > 1024 {
		return nil, fmt.Errorf("key of %d+%d bytes is too long to cache", len(h.key.Object), len(h.key.ETag))
	}
	n := headerFixed + 2 + len(h.key.Object) + 2 + len(h.key.ETag) + 4
	p := make([]byte, 0, n)
	p = append(p, fileMagic...)
	p = binary.BigEndian.AppendUint16(p, fileMajor)
	p = binary.BigEndian.AppendUint16(p, fileMinor)
	p = binary.BigEndian.AppendUint32(p, uint32(n))
	p = binary.BigEndian.AppendUint64(p, uint64(h.payload))
	p = binary.BigEndian.AppendUint32(p, h.crc)
	p = binary.BigEndian.AppendUint32(p, h.key.Chunk)
	p = binary.BigEndian.AppendUint32(p, h.key.CRC)
	p = binary.BigEndian.AppendUint16(p, uint16(len(h.key.Object)))
	p = append(p, h.key.Object...)
	p = binary.BigEndian.AppendUint16(p, uint16(len(h.key.ETag)))
	p = append(p, h.key.ETag...)
	p = binary.BigEndian.AppendUint32(p, crc32.Checksum(p, castagnoli))
	return p, nil
}

// decodeHeader reads a header from the start of p, which holds at least the
// header or the whole file.
func decodeHeader(p []byte) (header, error) {
	if len(p) < headerFixed+8 || string(p[:8]) != fileMagic {
		return header{}, errCorrupt
	}
	if binary.BigEndian.Uint16(p[8:]) != fileMajor {
		return header{}, fmt.Errorf("%w: written by another major version", errCorrupt)
	}
	n := int(binary.BigEndian.Uint32(p[12:]))
	if n < headerFixed+8 || n > len(p) || n > headerMax {
		return header{}, errCorrupt
	}
	body := p[:n-4]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(p[n-4:n]) {
		return header{}, errCorrupt
	}
	h := header{size: int64(n), crc: binary.BigEndian.Uint32(p[24:])}
	length := binary.BigEndian.Uint64(p[16:])
	if length > maxPayload {
		return header{}, errCorrupt
	}
	h.payload = int64(length)
	h.key.Chunk = binary.BigEndian.Uint32(p[28:])
	h.key.CRC = binary.BigEndian.Uint32(p[32:])
	rest := body[headerFixed:]
	for _, s := range []*string{&h.key.Object, &h.key.ETag} {
		if len(rest) < 2 {
			return header{}, errCorrupt
		}
		l := int(binary.BigEndian.Uint16(rest))
		if len(rest) < 2+l {
			return header{}, errCorrupt
		}
		*s, rest = string(rest[2:2+l]), rest[2+l:]
	}
	return h, nil
}

// writeFile stores a chunk and returns its open file. It syncs nothing: what a
// power cut leaves is found out by the first use after it.
func (c *Cache) writeFile(n fileName, head, payload []byte) (_ disk.File, err error) {
	folder, name := n.path()
	dir := filepath.Join(c.cfg.Dir, folder)
	f, err := c.cfg.FS.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o644)
	if errors.Is(err, os.ErrNotExist) {
		if err = c.cfg.FS.MkdirAll(dir, 0o755); err == nil {
			f, err = c.cfg.FS.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o644)
		}
	}
	if err != nil {
		return nil, err
	}
	if _, err = f.WriteAt(head, 0); err == nil {
		_, err = f.WriteAt(payload, int64(len(head)))
	}
	if err != nil {
		f.Close()
		c.unlink(n)
		return nil, err
	}
	return f, nil
}

func (c *Cache) openFile(n fileName) (disk.File, error) {
	folder, name := n.path()
	return c.cfg.FS.OpenFile(filepath.Join(c.cfg.Dir, folder, name), os.O_RDONLY, 0)
}

// unlink removes a chunk's file. A failure is only logged: the file is found
// again at the next start.
func (c *Cache) unlink(n fileName) {
	folder, name := n.path()
	if err := c.cfg.FS.Remove(filepath.Join(c.cfg.Dir, folder, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		c.log.Debug("cannot remove a cache file", "event", "cache_remove_failed", "file", name, "error", err)
	}
}

// readHeader reads and checks the header of f, and that the file is as long as
// it says.
func readHeader(f disk.File) (header, error) {
	size, err := f.Size()
	if err != nil {
		return header{}, err
	}
	p := make([]byte, min(size, headerMax))
	if n, err := f.ReadAt(p, 0); n < len(p) {
		return header{}, err
	}
	h, err := decodeHeader(p)
	if err != nil {
		return header{}, err
	}
	if h.size+h.payload != size {
		return header{}, fmt.Errorf("%w: %d bytes instead of %d", errCorrupt, size, h.size+h.payload)
	}
	return h, nil
}

// verifyFile reads the whole file and checks every byte of it.
func verifyFile(f disk.File, want Key, buf []byte) (header, error) {
	h, err := readHeader(f)
	if err != nil {
		return header{}, err
	}
	if h.key != want {
		return header{}, fmt.Errorf("%w: holds another chunk", errCorrupt)
	}
	var sum uint32
	r := io.NewSectionReader(f, h.size, h.payload)
	for left := h.payload; left > 0; {
		n, err := io.ReadFull(r, buf[:min(left, int64(len(buf)))])
		if err != nil {
			return header{}, err
		}
		sum = crc32.Update(sum, castagnoli, buf[:n])
		left -= int64(n)
	}
	if sum != h.crc {
		return header{}, fmt.Errorf("%w: checksum", errCorrupt)
	}
	return h, nil
}
