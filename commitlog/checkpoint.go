package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/internal/failpoint"
)

// The checkpoint file has two slots that are written by turns, in place, in a
// file that has had its size since the log was made: a full disk cannot keep a
// checkpoint from being written (SAFETY 22), and a torn write leaves the other
// slot.
const (
	checkpointName  = "checkpoint"
	checkpointMagic = "FCKP"
	checkpointMajor = 1
	slotSize        = 4096
	slotBytes       = 108
	slotBytesMinor0 = 84 // without the three fields of the active segment
	flagClean       = 1
	flagFold1       = 2
	flagsUsed       = 8 // bits; the incarnation that closed the log comes above
)

// noSnapshot in checkpoint.snapshot says that there were no producers.
const noSnapshot = -1

// checkpoint is one slot.
type checkpoint struct {
	seq        uint64
	clean      bool   // written by Close, after everything else
	closedBy   uint64 // the incarnation that did, when clean
	synced     int64  // everything below is synced
	segment    int64  // base of the segment that holds synced
	pos        int64  // its size at synced
	snapshot   int64  // offset of the fold, or noSnapshot
	fold       int    // which of the two files it is in
	hw         int64
	start      int64
	localStart int64
	// Of the segment that holds synced, below synced.
	maxTs, maxTsOffset, firstAppend int64
}

// position is where a flush found the end of the log.
type position struct {
	synced, segment, pos            int64
	maxTs, maxTsOffset, firstAppend int64
}

func (c checkpoint) encode() []byte {
	b := make([]byte, 0, slotBytes)
	b = append(b, checkpointMagic...)
	b = binary.BigEndian.AppendUint16(b, checkpointMajor)
	b = binary.BigEndian.AppendUint16(b, 1)
	b = binary.BigEndian.AppendUint64(b, c.seq)
	flags := uint64(0)
	if c.clean {
		flags |= flagClean | c.closedBy<<flagsUsed
	}
	if c.fold == 1 {
		flags |= flagFold1
	}
	b = binary.BigEndian.AppendUint64(b, flags)
	for _, v := range []int64{c.synced, c.segment, c.pos, c.snapshot, c.hw, c.start, c.localStart, c.maxTs, c.maxTsOffset, c.firstAppend} {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

var errCheckpoint = errors.New("no readable checkpoint")

func decodeCheckpoint(b []byte) (c checkpoint, err error) {
	if len(b) < slotBytes || string(b[:4]) != checkpointMagic {
		return c, errCheckpoint
	}
	size := slotBytes
	if binary.BigEndian.Uint16(b[6:]) == 0 {
		size = slotBytesMinor0
	}
	if crc32.Checksum(b[:size-4], castagnoli) != binary.BigEndian.Uint32(b[size-4:]) {
		return c, errCheckpoint
	}
	if major := binary.BigEndian.Uint16(b[4:]); major != checkpointMajor {
		return c, fmt.Errorf("checkpoint format %d is not one this build reads (%d): start a newer firn", major, checkpointMajor)
	}
	c.seq = binary.BigEndian.Uint64(b[8:])
	flags := binary.BigEndian.Uint64(b[16:])
	c.clean, c.closedBy = flags&flagClean != 0, flags>>flagsUsed
	if flags&flagFold1 != 0 {
		c.fold = 1
	}
	for i, p := range []*int64{&c.synced, &c.segment, &c.pos, &c.snapshot, &c.hw, &c.start, &c.localStart, &c.maxTs, &c.maxTsOffset, &c.firstAppend} {
		if 24+8*i >= size-4 {
			*p = -1 // what minor 0 did not say is folded again
			continue
		}
		*p = int64(binary.BigEndian.Uint64(b[24+8*i:]))
	}
	if c.synced < c.segment || c.segment < c.localStart || c.pos < 0 || c.localStart < 0 || c.start < 0 || c.snapshot < noSnapshot {
		return c, errCheckpoint
	}
	return c, nil
}

// checkpointer owns the file.
type checkpointer struct {
	mu   sync.Mutex
	f    disk.File
	last checkpoint
	// covered is last.synced, for those who must not wait for a slot's sync.
	covered atomic.Int64
}

// open reads the newer valid slot, or makes the file. found is false when there
// was none.
func (k *checkpointer) open(fsys disk.FS, dir string) (found bool, err error) {
	name := filepath.Join(dir, checkpointName)
	_, err = fsys.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		// The log's first flush syncs the folder and, with the first slot, the file.
		f, err := fsys.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
		if err == nil {
			_, err = f.WriteAt(make([]byte, 2*slotSize), 0)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return false, fmt.Errorf("make checkpoint: %w", err)
		}
	} else if err != nil {
		return false, err
	}
	if k.f, err = fsys.OpenFile(name, os.O_RDWR, 0); err != nil {
		return false, err
	}
	for slot := range int64(2) {
		b := make([]byte, slotBytes)
		if _, err := k.f.ReadAt(b, slot*slotSize); err != nil && !errors.Is(err, io.EOF) {
			return false, fmt.Errorf("read checkpoint: %w", err)
		}
		c, err := decodeCheckpoint(b)
		if errors.Is(err, errCheckpoint) {
			continue
		}
		if err != nil {
			return false, err
		}
		if !found || c.seq > k.last.seq {
			k.last, found = c, true
			k.covered.Store(c.synced)
		}
	}
	return found, nil
}

// update writes the next slot with what change makes of the last one, durably.
// ErrClosed when the log was closed meanwhile: a topic is deleted while its
// retention or a DeleteRecords runs.
func (k *checkpointer) update(change func(*checkpoint)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.f == nil {
		return ErrClosed
	}
	c := k.last
	c.clean = false
	change(&c)
	c.seq++
	if _, err := k.f.WriteAt(c.encode(), int64(c.seq%2)*slotSize); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	if err := k.f.Datasync(); err != nil {
		return fmt.Errorf("sync checkpoint: %w", err)
	}
	k.last = c
	k.covered.Store(c.synced)
	return nil
}

// updateCheckpoint is update for the log: a slot that cannot be written takes it
// offline.
func (l *Log) updateCheckpoint(change func(*checkpoint)) error {
	err := l.ckpt.update(change)
	if err == nil || errors.Is(err, ErrClosed) {
		return err
	}
	return l.fail(err)
}

func (k *checkpointer) get() checkpoint {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.last
}

func (k *checkpointer) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.f == nil {
		return nil
	}
	err := k.f.Close()
	k.f = nil
	return err
}

// checkpoint records that everything below at.synced is synced. Producers for which
// a full disk has no room only keep the old checkpoint: the next start scans more,
// and DeleteLocal stops at its segment. A failed sync takes the log offline.
func (l *Log) checkpoint(at position, states []ProducerState, aborted []AbortedTxn) error {
	failpoint.Hit(failpoint.Checkpoint)
	snapshot, fold := int64(noSnapshot), l.ckpt.get().fold
	if len(states) > 0 || len(aborted) > 0 {
		snapshot = at.synced
		fold = 1 - fold
		if err := l.writeFold(fold, snapshot, states, aborted); errors.Is(err, ErrNoSpace) {
			l.logger.Warn("checkpoint was not written", "event", "checkpoint_failed", "err", err)
			return nil
		} else if err != nil {
			return err
		}
	}
	return l.updateCheckpoint(func(c *checkpoint) {
		c.synced, c.segment, c.pos, c.snapshot, c.fold = at.synced, at.segment, at.pos, snapshot, fold
		c.maxTs, c.maxTsOffset, c.firstAppend = at.maxTs, at.maxTsOffset, at.firstAppend
		c.hw = l.hw.Load()
	})
}

// writeSnapshot stores the fold at a segment's base, for ProducersAt. It is synced
// with the segment that ends there, before any checkpoint passes it.
func (l *Log) writeSnapshot(offset int64, states []ProducerState) error {
	f, err := l.cfg.FS.OpenFile(filepath.Join(l.cfg.Dir, snapshotName(offset)), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(encodeSnapshot(offset, states, nil), 0)
	return errors.Join(err, f.Close())
}

func readSnapshot(fsys disk.FS, dir, name string) (int64, []ProducerState, []AbortedTxn, error) {
	raw, err := disk.ReadFile(fsys, filepath.Join(dir, name), maxSnapshot)
	if err != nil {
		return 0, nil, nil, err
	}
	return decodeSnapshot(raw)
}

// closeClean syncs everything and leaves a checkpoint that the next Open can
// trust without a scan.
func (l *Log) closeClean() error {
	l.flushing.Lock()
	defer l.flushing.Unlock()
	if err := l.flushHeld(true); err != nil {
		return err
	}
	l.appending.Lock()
	defer l.appending.Unlock()
	s := l.active()
	// Only a whole index saves the next start its walk.
	if s.idx.prefix == 0 && s.size.Load() > 0 {
		if err := s.writeIndex(l.aborted.decidedIn(s.base, s.end.Load())); err != nil {
			l.cfg.FS.Remove(filepath.Join(s.dir, indexName(s.base)))
		}
	}
	if l.ckpt.get().synced != l.end.Load() {
		return errors.New("log changed while it was closed")
	}
	return l.updateCheckpoint(func(c *checkpoint) { c.clean, c.closedBy, c.hw = true, l.cfg.Incarnation, l.hw.Load() })
}

// partition.meta names the partition and versions the folder.
const (
	metaName  = "partition.meta"
	metaMagic = "FPAR"
	metaMajor = 1
	metaMax   = 1 << 16
)

func encodeMeta(id [16]byte, topic string, partition int32) []byte {
	b := append([]byte(nil), metaMagic...)
	b = binary.BigEndian.AppendUint16(b, metaMajor)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = append(b, id[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(partition))
	b = binary.BigEndian.AppendUint16(b, uint16(len(topic)))
	b = append(b, topic...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// checkMeta reads or makes partition.meta.
func checkMeta(cfg *Config) error {
	name := filepath.Join(cfg.Dir, metaName)
	raw, err := disk.ReadFile(cfg.FS, name, metaMax)
	if errors.Is(err, fs.ErrNotExist) {
		return disk.WriteFileAtomic(cfg.FS, name, encodeMeta(cfg.TopicID, cfg.Topic, cfg.Partition))
	}
	if err != nil {
		return err
	}
	if len(raw) < 34 || string(raw[:4]) != metaMagic {
		return fmt.Errorf("%w: %s is not readable", ErrDamaged, name)
	}
	if major := binary.BigEndian.Uint16(raw[4:]); major != metaMajor {
		return fmt.Errorf("%s: folder format %d is not one this build reads (%d): start a newer firn", cfg.Dir, major, metaMajor)
	}
	if crc32.Checksum(raw[:len(raw)-4], castagnoli) != binary.BigEndian.Uint32(raw[len(raw)-4:]) {
		return fmt.Errorf("%w: %s does not match its checksum", ErrDamaged, name)
	}
	if [16]byte(raw[8:24]) != cfg.TopicID || int32(binary.BigEndian.Uint32(raw[24:])) != cfg.Partition {
		return fmt.Errorf("%s belongs to another partition (topic %s)", cfg.Dir, strings.ToValidUTF8(string(raw[30:len(raw)-4]), "?"))
	}
	return nil
}
