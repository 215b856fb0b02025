package localcache

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// Key names the bytes of one chunk. Two chunks with different bytes never have
// equal keys: an object that was written again has another ETag, and a chunk
// that differs has another checksum.
type Key struct {
	Object string // the object's key in the bucket
	ETag   string // the object's ETag when it was committed
	Chunk  uint32 // position in the object's chunk table
	CRC    uint32 // the chunk's checksum in that table
}

// id is a Key in 16 bytes; it is also the file's name.
type id [16]byte

func (k Key) id() id {
	h := sha256.New()
	var n [8]byte
	for _, s := range []string{k.Object, k.ETag} {
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	binary.BigEndian.PutUint32(n[:4], k.Chunk)
	binary.BigEndian.PutUint32(n[4:], k.CRC)
	h.Write(n[:])
	var d [sha256.Size]byte
	return id(h.Sum(d[:0])[:16])
}

// fileName names one write of a chunk. The nonce differs from write to write, so
// removing an old file never meets a new one of the same chunk.
type fileName struct {
	id    id
	nonce uint32
}

// path is folder and file name below the cache's folder.
func (n fileName) path() (folder, name string) {
	h := hex.EncodeToString(n.id[:])
	return h[:2], fmt.Sprintf("%s-%08x%s", h[2:], n.nonce, fileSuffix)
}

func parseName(folder, name string) (n fileName, ok bool) {
	const length = 30 + 1 + 8
	if len(folder) != 2 || len(name) != length+len(fileSuffix) || name[30] != '-' || name[length:] != fileSuffix {
		return fileName{}, false
	}
	if _, err := hex.Decode(n.id[:], []byte(folder+name[:30])); err != nil {
		return fileName{}, false
	}
	var nonce [4]byte
	if _, err := hex.Decode(nonce[:], []byte(name[31:length])); err != nil {
		return fileName{}, false
	}
	n.nonce = binary.BigEndian.Uint32(nonce[:])
	return n, true
}
