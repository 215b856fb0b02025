package metadata

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/firnlog/firn/internal/disk"
)

// The guard file is what this broker remembers of the store, so that a store
// that lost something while the broker was down is noticed (SAFETY 17). It is
// written after changes, a few seconds late: what it protects against is the
// store coming back hours or a whole life younger. What safe mode was entered for
// it has at once.
const (
	guardMagic = "firn-metadata-guard"
	guardMajor = 1
	guardMinor = 1
	guardLimit = 256 << 20
)

// guardState is the content of the guard file.
type guardState struct {
	Magic string `json:"magic"`
	Major int    `json:"major"`
	Minor int    `json:"minor"`
	// ClusterID is the cluster this broker belongs to.
	ClusterID string `json:"cluster_id"`
	// Created is when the store's bucket was made, Revision the newest one seen.
	Created  time.Time `json:"created"`
	Revision uint64    `json:"revision"`
	// Keys are the versions of the authority keys.
	Keys map[string]guardKey `json:"keys"`
	// Unsafe says that there was safe mode since producer ids were reserved last, in
	// this life or an earlier one: the next ones leave a gap (SAFETY 18).
	Unsafe bool `json:"unsafe,omitempty"`
	// Checksum is the CRC-32C of the file with this field zero.
	Checksum uint32 `json:"crc32c"`
}

// guardKey is one key as it was last seen. Of a partition it also has the leader
// and its epoch, from which a lost store can be repaired.
type guardKey struct {
	Revision uint64 `json:"rev"`
	Version  int64  `json:"ver"`
	Request  string `json:"req"`
	Leader   *int32 `json:"leader,omitempty"`
	Epoch    *int32 `json:"epoch,omitempty"`
}

type guardFile struct {
	fs   disk.FS
	path string

	mu     sync.Mutex
	state  guardState // as in the file
	made   time.Time  // creation time of the bucket in use
	unsafe bool       // what the file is to say of safe mode
}

// openGuard reads the guard file; a missing one is an empty guard.
func openGuard(fsys disk.FS, path string) (*guardFile, error) {
	g := &guardFile{fs: fsys, path: path}
	if path == "" {
		return g, nil
	}
	raw, err := disk.ReadFile(fsys, path, guardLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return g, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read metadata guard: %w", err)
	}
	if g.state, err = decodeGuard(raw); err != nil {
		return nil, fmt.Errorf("metadata guard %s: %w", path, err)
	}
	g.unsafe = g.state.Unsafe
	return g, nil
}

func decodeGuard(raw []byte) (s guardState, err error) {
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, fmt.Errorf("not a guard file: %w", err)
	}
	if s.Magic != guardMagic {
		return s, errors.New("not a guard file: wrong magic")
	}
	if s.Major != guardMajor {
		return s, fmt.Errorf("format %d.%d, this build reads %d.x: %w", s.Major, s.Minor, guardMajor, ErrNewerFormat)
	}
	// The checksum is over the bytes as they are, so that fields of a later
	// minor version stay covered.
	at := strings.LastIndex(string(raw), `"crc32c":`)
	if at < 0 || crc32.Checksum(raw[:at], castagnoli) != s.Checksum {
		return s, errors.New("checksum does not match")
	}
	return s, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encodeGuard(s guardState) []byte {
	s.Magic, s.Major, s.Minor, s.Checksum = guardMagic, guardMajor, guardMinor, 0
	raw, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("BUG: guard does not marshal: %v", err))
	}
	at := strings.LastIndex(string(raw), `"crc32c":`)
	return fmt.Appendf(raw[:at], `"crc32c":%d}`, crc32.Checksum(raw[:at], castagnoli))
}

// setCreated notes which bucket is in use.
func (g *guardFile) setCreated(t time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.made = t
}

// compare says what is wrong with the store's own description, or nothing.
func (g *guardFile) compare(st Status) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch s := &g.state; {
	case s.ClusterID != "" && !s.Created.Equal(st.Created):
		return fmt.Sprintf("the store's bucket was made at %s, the known one at %s", st.Created.Format(time.RFC3339), s.Created.Format(time.RFC3339))
	case !g.made.IsZero() && !g.made.Equal(st.Created):
		return fmt.Sprintf("the store's bucket was made again at %s", st.Created.Format(time.RFC3339))
	case st.LastRevision < s.Revision:
		return fmt.Sprintf("the store is at revision %d, %d was seen", st.LastRevision, s.Revision)
	}
	return ""
}

// compareImage checks a freshly read image against the remembered keys.
func (g *guardFile) compareImage(im *Image) string {
	return g.compareKeys(func(key string) (seen, bool) {
		s := im.known(key)
		return s, s.revision > 0
	})
}

// compareEntries is compareImage for a list of the store.
func (g *guardFile) compareEntries(entries []Entry) string {
	got := make(map[string]seen, len(entries))
	for _, e := range entries {
		var h header
		if !e.Deleted && json.Unmarshal(e.Value, &h) != nil {
			continue
		}
		got[e.Key] = h.seen(e.Revision)
	}
	return g.compareKeys(func(key string) (seen, bool) { s, ok := got[key]; return s, ok })
}

func (g *guardFile) compareKeys(now func(key string) (seen, bool)) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, was := range g.state.Keys {
		is, ok := now(key)
		switch {
		case !ok:
			return "the store lost key " + key
		case is.version == 0: // deleted, in order: the fold has checked it
		case is.revision < was.Revision || is.version < was.Version:
			return fmt.Sprintf("key %s went back from version %d to %d", key, was.Version, is.version)
		case is.version == was.Version && is.request != was.Request:
			return fmt.Sprintf("version %d of key %s is another one than was seen", is.version, key)
		}
	}
	return ""
}

// save makes the file remember im, unless it does already.
func (g *guardFile) save(im *Image) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.path == "":
		return nil
	case g.state.ClusterID == "" || g.state.Revision < im.revision:
	case g.state.Unsafe == g.unsafe:
		return nil
	default:
		return g.writeLocked(g.state)
	}
	next := guardState{ClusterID: im.ClusterID(), Created: g.made, Revision: im.revision, Keys: map[string]guardKey{}}
	im.eachKey(func(key string, s seen) {
		k := guardKey{Revision: s.revision, Version: s.version, Request: s.request}
		if rest, ok := strings.CutPrefix(key, prefixPartitions); ok {
			if id, n, err := parseKeyPartition(rest); err == nil {
				set, _ := im.partitions.get(id)
				st := set.get(n)
				k.Leader, k.Epoch = &st.Leader, &st.LeaderEpoch
			}
		}
		next.Keys[key] = k
	})
	return g.writeLocked(next)
}

// mark makes the file remember that there is safe mode, and nothing else anew.
func (g *guardFile) mark() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.unsafe = true; g.path == "" || g.state.Unsafe {
		return nil
	}
	return g.writeLocked(g.state)
}

// jumped notes that producer ids left their gap, unless again says that there was
// safe mode meanwhile. The file has it with the next change.
func (g *guardFile) jumped(again func() bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unsafe = g.unsafe && again()
}

// lost says that there was no guard file.
func (g *guardFile) lost() bool { return g.path != "" && g.state.ClusterID == "" }

func (g *guardFile) writeLocked(next guardState) error {
	next.Unsafe = g.unsafe
	if err := g.fs.MkdirAll(filepath.Dir(g.path), 0o755); err != nil {
		return fmt.Errorf("save metadata guard: %w", err)
	}
	if err := disk.WriteFileAtomic(g.fs, g.path, encodeGuard(next)); err != nil {
		return fmt.Errorf("save metadata guard: %w", err)
	}
	g.state = next
	return nil
}

func (c *Client) saveGuard() error { return c.guard.save(c.Image()) }
