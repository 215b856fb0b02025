package replication

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/firnlog/firn/internal/disk"
)

// dirFormatMajor and dirFormatMinor version meta.json: an unknown major is
// refused before anything is written, an unknown minor is read.
const (
	dirFormatMajor = 1
	dirFormatMinor = 0
	metaFile       = "meta.json"
	cleanFile      = "clean.json"
	lockFile       = "lock"
	logFolder      = "log"
)

// ErrDirInUse means another process holds the data dir's lock.
var ErrDirInUse = errors.New("data dir is in use by another process")

// ErrForeignDir means the data dir belongs to another cluster or node.
var ErrForeignDir = errors.New("data dir belongs to another cluster or node")

// DirMeta is what a data dir knows about itself, kept in meta.json.
type DirMeta struct {
	Magic       string `json:"magic"`
	Major       int    `json:"major"`
	Minor       int    `json:"minor"`
	ClusterID   string `json:"cluster_id"`
	ClusterName string `json:"cluster_name"`
	NodeID      int32  `json:"node_id"`
	DirID       string `json:"dir_id"`
	// Incarnation counts the processes that ever opened this dir. Together with
	// DirID it names one run over one disk (KIP-903, KIP-858, SAFETY 2).
	Incarnation uint64 `json:"incarnation"`
	Checksum    uint32 `json:"crc32c"`
}

// DataDir is one data directory, locked by this process.
type DataDir struct {
	FS   disk.FS
	Path string
	Meta DirMeta
	// Clean says that the previous process closed every log in this dir and
	// that nothing has opened it since. Open consumes the marker, so a crash
	// leaves none.
	Clean bool
	// Fresh says that the dir had no meta.json before this open.
	Fresh bool

	lock   io.Closer
	health health
}

// OpenDataDir locks path and reads or creates its identity. clusterName and
// nodeID must match what the dir was made for (ErrForeignDir); the cluster id is
// empty in a fresh dir until Adopt. A second process gets ErrDirInUse, and
// neither failure writes anything.
func OpenDataDir(fsys disk.FS, path, clusterName string, nodeID int32) (*DataDir, error) {
	if err := fsys.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("create data dir %s: %w", path, err)
	}
	lock, err := lockDir(fsys, path)
	if err != nil {
		return nil, err
	}
	d := &DataDir{FS: fsys, Path: path, lock: lock}
	if err := d.load(clusterName, nodeID); err != nil {
		lock.Close()
		return nil, err
	}
	return d, nil
}

func (d *DataDir) load(clusterName string, nodeID int32) error {
	raw, err := readFile(d.FS, filepath.Join(d.Path, metaFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if entries, err := d.FS.ReadDir(filepath.Join(d.Path, logFolder)); err == nil && len(entries) > 0 {
			return fmt.Errorf("%s holds logs but no %s: restore that file or move the folder away", d.Path, metaFile)
		}
		d.Fresh = true
		d.Meta = DirMeta{ClusterName: clusterName, NodeID: nodeID, DirID: randomID()}
		if err := d.syncWay(); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("read %s: %w", metaFile, err)
	default:
		if err := decodeMeta(raw, &d.Meta); err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(d.Path, metaFile), err)
		}
		if err := d.Meta.check(d.Path, clusterName, nodeID); err != nil {
			return err
		}
	}
	clean, err := readFile(d.FS, filepath.Join(d.Path, cleanFile))
	if err == nil {
		var c DirMeta
		d.Clean = decodeMeta(clean, &c) == nil && c.DirID == d.Meta.DirID && c.Incarnation == d.Meta.Incarnation
		// Saving the next incarnation makes this durable, too, before the first
		// append: a marker that came back would vouch for a log it never saw.
		if err := d.FS.Remove(filepath.Join(d.Path, cleanFile)); err != nil {
			return fmt.Errorf("remove %s: %w", cleanFile, err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w", cleanFile, err)
	}
	d.Meta.Incarnation++
	if err := d.save(); err != nil || d.Clean {
		return err
	}
	// The process before may have been killed between making a topic's folder and
	// syncing the one that it is in.
	if err := d.FS.SyncDir(filepath.Join(d.Path, logFolder)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sync %s: %w", logFolder, err)
	}
	return nil
}

// syncWay makes the folders above a fresh dir durable: this process, or one that was
// killed, may have made any of them. Those that we may not read are not ours, and a
// file system that takes no writes, or syncs no folders, holds none that is new.
func (d *DataDir) syncWay() error {
	for dir := filepath.Clean(d.Path); dir != filepath.Dir(dir); {
		dir = filepath.Dir(dir)
		if err := d.FS.SyncDir(dir); err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.EINVAL) {
			return fmt.Errorf("sync %s: %w", dir, err)
		}
	}
	return nil
}

// Adopt ties a fresh dir to a cluster id, or checks that an older one belongs
// to it (ErrForeignDir).
func (d *DataDir) Adopt(clusterID string) error {
	if d.Meta.ClusterID == clusterID {
		return nil
	}
	if d.Meta.ClusterID != "" {
		return fmt.Errorf("%s: %w: it holds cluster id %s, the metadata says %s", d.Path, ErrForeignDir, d.Meta.ClusterID, clusterID)
	}
	d.Meta.ClusterID = clusterID
	return d.save()
}

func (d *DataDir) save() error {
	raw, err := encodeMeta(d.Meta)
	if err != nil {
		return err
	}
	if err := disk.WriteFileAtomic(d.FS, filepath.Join(d.Path, metaFile), raw); err != nil {
		return fmt.Errorf("write %s: %w", metaFile, err)
	}
	return nil
}

// Close releases the dir. clean says that every log in it was closed cleanly,
// which the next open may rely on; a dir that went offline is never clean.
func (d *DataDir) Close(clean bool) error {
	var err error
	if clean && d.Err() == nil {
		var raw []byte
		if raw, err = encodeMeta(d.Meta); err == nil {
			err = disk.WriteFileAtomic(d.FS, filepath.Join(d.Path, cleanFile), raw)
		}
	}
	return errors.Join(err, d.lock.Close())
}

func encodeMeta(m DirMeta) ([]byte, error) {
	m.Magic, m.Major, m.Minor, m.Checksum = "firn-data-dir", dirFormatMajor, dirFormatMinor, 0
	sum, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	m.Checksum = crc32.Checksum(sum, crc32.MakeTable(crc32.Castagnoli))
	return json.MarshalIndent(m, "", "  ")
}

func decodeMeta(raw []byte, m *DirMeta) error {
	var v DirMeta
	if err := json.Unmarshal(raw, &v); err != nil {
		return fmt.Errorf("not readable: %w", err)
	}
	if v.Magic != "firn-data-dir" {
		return fmt.Errorf("not a firn data dir (magic %q)", v.Magic)
	}
	if v.Major != dirFormatMajor {
		return fmt.Errorf("format %d.%d is newer than this build reads (%d.x): start a newer firn", v.Major, v.Minor, dirFormatMajor)
	}
	want := v.Checksum
	v.Checksum = 0
	// The sum covers the fields this build knows. A later minor that adds
	// fields also covers them, so it is only checked for our own minor.
	if v.Minor == dirFormatMinor {
		sum, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if got := crc32.Checksum(sum, crc32.MakeTable(crc32.Castagnoli)); got != want {
			return fmt.Errorf("checksum %08x does not match %08x: the file is damaged", got, want)
		}
	}
	v.Checksum = want
	*m = v
	return nil
}

func randomID() string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(fmt.Sprintf("BUG: crypto/rand failed: %v", err))
	}
	return hex.EncodeToString(b[:])
}

func readFile(fsys disk.FS, name string) ([]byte, error) {
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > 1<<20 {
		return nil, fmt.Errorf("%s has %d bytes, expected a small file", name, size)
	}
	p := make([]byte, size)
	if _, err := f.ReadAt(p, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return p, nil
}

// Peek finds out whether OpenDataDir would refuse path, and which cluster it
// belongs to ("" for a dir that is fresh or not there), without changing anything.
// Nothing stays locked: it lets a start that must fail do so before it has written
// anywhere else, and OpenDataDir decides.
func Peek(fsys disk.FS, path, clusterName string, nodeID int32) (clusterID string, err error) {
	if _, err := fsys.Stat(filepath.Join(path, lockFile)); err == nil {
		lock, err := lockDir(fsys, path)
		if err != nil {
			return "", err
		}
		defer lock.Close()
	}
	raw, err := readFile(fsys, filepath.Join(path, metaFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read %s: %w", metaFile, err)
	}
	var m DirMeta
	if err := decodeMeta(raw, &m); err != nil {
		return "", fmt.Errorf("%s: %w", filepath.Join(path, metaFile), err)
	}
	return m.ClusterID, m.check(path, clusterName, nodeID)
}

func lockDir(fsys disk.FS, path string) (io.Closer, error) {
	lock, err := fsys.Lock(filepath.Join(path, lockFile))
	if errors.Is(err, disk.ErrLocked) {
		return nil, fmt.Errorf("%s: %w; stop that process or choose another --data-dir", path, ErrDirInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("lock data dir %s: %w", path, err)
	}
	return lock, nil
}

// check says whether the dir was made for this cluster and node.
func (m *DirMeta) check(path, clusterName string, nodeID int32) error {
	if m.ClusterName != clusterName || m.NodeID != nodeID {
		return fmt.Errorf("%s: %w: it was made for --cluster %s, node %d; start with those or choose another --data-dir",
			path, ErrForeignDir, m.ClusterName, m.NodeID)
	}
	return nil
}
