package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"slices"
	"sort"
	"sync"

	"github.com/firnlog/firn/internal/disk"
)

// EpochStart says that a leader epoch began at offset Start.
type EpochStart struct {
	Epoch int32
	Start int64
}

// epochCache is the log's lineage: epochs and starts both rise.
type epochCache struct {
	mu   sync.RWMutex
	list []EpochStart
}

// Epochs is the log's lineage, oldest first.
func (l *Log) Epochs() []EpochStart {
	l.epochs.mu.RLock()
	defer l.epochs.mu.RUnlock()
	return slices.Clone(l.epochs.list)
}

func (c *epochCache) latest() int32 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if len(c.list) == 0 {
		return -1
	}
	return c.list[len(c.list)-1].Epoch
}

// EpochEnd returns the largest epoch at or below epoch that this log has, and the
// offset where it ends: the start of the next one, or the log end. For an epoch
// older than all it is that epoch itself and the start of the first one: its
// records are gone, and a replica or a consumer that knows only them goes on there
// (KIP-101, KIP-279, KIP-320; LeaderEpochFileCache.endOffsetFor). -1, -1 when epoch
// is negative or no epoch is known.
//
// Kafka's cache knows nothing of an epoch above its latest, which is the leader's
// own. Ours begins with the first record, so the epochs between the two have ended
// where the latest one ends; an epoch above the leader's is for the caller to refuse.
func (l *Log) EpochEnd(epoch int32) (int32, int64) {
	l.epochs.mu.RLock()
	defer l.epochs.mu.RUnlock()
	list := l.epochs.list
	if epoch < 0 || len(list) == 0 {
		return -1, -1
	}
	i := sort.Search(len(list), func(i int) bool { return list[i].Epoch > epoch })
	end := l.end.Load()
	if i < len(list) {
		end = list[i].Start
	}
	if i == 0 {
		return epoch, end
	}
	return list[i-1].Epoch, end
}

// EpochAt is the leader epoch of the record at offset, -1 when unknown.
func (l *Log) EpochAt(offset int64) int32 {
	l.epochs.mu.RLock()
	defer l.epochs.mu.RUnlock()
	e := int32(-1)
	for _, s := range l.epochs.list {
		if s.Start > offset {
			break
		}
		e = s.Epoch
	}
	return e
}

// assignEpochLocked notes that epoch begins at start and makes it durable before any
// record carries it: a leader that forgets its epoch could hand it out again.
// Log.appending is held.
func (l *Log) assignEpochLocked(epoch int32, start int64) error {
	l.epochs.mu.Lock()
	list := l.epochs.list
	// An epoch that never wrote leaves no trace: the next one takes its start.
	for len(list) > 0 && list[len(list)-1].Start >= start {
		list = list[:len(list)-1]
	}
	list = append(slices.Clone(list), EpochStart{epoch, start})
	l.epochs.mu.Unlock()
	if err := l.writeEpochs(list); err != nil {
		return err
	}
	l.epochs.mu.Lock()
	l.epochs.list = list
	l.epochs.mu.Unlock()
	return nil
}

const (
	epochsName  = "leader-epochs"
	epochsMagic = "FEPO"
	epochsMajor = 1
	maxEpochs   = 16 << 20
)

func encodeEpochs(list []EpochStart) []byte {
	b := append([]byte(nil), epochsMagic...)
	b = binary.BigEndian.AppendUint16(b, epochsMajor)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(list)))
	for _, e := range list {
		b = binary.BigEndian.AppendUint32(b, uint32(e.Epoch))
		b = binary.BigEndian.AppendUint64(b, uint64(e.Start))
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// errEpochs means the file is no use and is made again from the batches.
var errEpochs = errors.New("leader-epochs file is missing or torn")

func decodeEpochs(b []byte) ([]EpochStart, error) {
	if len(b) < 16 || string(b[:4]) != epochsMagic || crc32.Checksum(b[:len(b)-4], castagnoli) != binary.BigEndian.Uint32(b[len(b)-4:]) {
		return nil, errEpochs
	}
	if major := binary.BigEndian.Uint16(b[4:]); major != epochsMajor {
		return nil, fmt.Errorf("leader-epochs format %d is not one this build reads (%d): start a newer firn", major, epochsMajor)
	}
	n := int(binary.BigEndian.Uint32(b[8:]))
	if len(b) != 12+12*n+4 {
		return nil, errEpochs
	}
	list := make([]EpochStart, n)
	for i := range list {
		p := b[12+12*i:]
		list[i] = EpochStart{int32(binary.BigEndian.Uint32(p)), int64(binary.BigEndian.Uint64(p[4:]))}
		if i > 0 && (list[i].Epoch <= list[i-1].Epoch || list[i].Start <= list[i-1].Start) {
			return nil, errEpochs
		}
	}
	return list, nil
}

func (l *Log) writeEpochs(list []EpochStart) error {
	if err := disk.WriteFileAtomic(l.cfg.FS, filepath.Join(l.cfg.Dir, epochsName), encodeEpochs(list)); err != nil {
		return fmt.Errorf("write leader epochs: %w", err)
	}
	return nil
}

func readEpochs(fsys disk.FS, dir string) ([]EpochStart, error) {
	raw, err := disk.ReadFile(fsys, filepath.Join(dir, epochsName), maxEpochs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errEpochs
	}
	if err != nil {
		return nil, err
	}
	return decodeEpochs(raw)
}
