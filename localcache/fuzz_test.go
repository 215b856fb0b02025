package localcache

import (
	"bytes"
	"testing"
)

// FuzzHeader: any bytes decode to an error or to a header that encodes to the
// same bytes (of our minor version).
func FuzzHeader(f *testing.F) {
	good, err := encodeHeader(header{key: key(3), payload: 99, crc: 5})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:20])
	f.Add([]byte(fileMagic))
	f.Fuzz(func(t *testing.T, p []byte) {
		h, err := decodeHeader(p)
		if err != nil {
			return
		}
		q, err := encodeHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(q)) == h.size && p[10] == 0 && p[11] == 0 && !bytes.Equal(q, p[:h.size]) {
			t.Fatalf("%x decoded and encoded to %x", p[:h.size], q)
		}
	})
}

// FuzzIndex: any bytes decode to an error or to entries that encode to the same.
func FuzzIndex(f *testing.F) {
	f.Add(encodeIndex(nil))
	f.Add(encodeIndex([]indexEntry{{fileName{key(1).id(), 4}, 1000, inSmall, 0}, {fileName{key(2).id(), 5}, 7, inMain, 3}}))
	f.Add([]byte(indexMagic))
	f.Fuzz(func(t *testing.T, p []byte) {
		entries, err := decodeIndex(p)
		if err != nil {
			return
		}
		again, err := decodeIndex(encodeIndex(entries))
		if err != nil || len(again) != len(entries) {
			t.Fatalf("%d entries became %d, %v", len(entries), len(again), err)
		}
	})
}

// FuzzName: a name that parses is the name we would give.
func FuzzName(f *testing.F) {
	folder, name := fileName{key(1).id(), 77}.path()
	f.Add(folder, name)
	f.Add("ab", "x.chunk")
	f.Fuzz(func(t *testing.T, folder, name string) {
		n, ok := parseName(folder, name)
		if !ok {
			return
		}
		if again, ok := parseName(n.path()); !ok || again != n {
			t.Fatalf("%s/%s parsed to %v", folder, name, n)
		}
	})
}
