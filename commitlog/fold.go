package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/firnlog/firn/internal/disk"
)

// The producers at a checkpoint, its fold, are in one of two files that are written
// in place by turns: a torn write hits the one that no slot needs. Both have had
// their blocks since the log was made, and keep at least half as much again as they
// use while there is room. So a full disk does not keep a checkpoint from being
// written (SAFETY 22): so many more producers take appends, and those need room too.
const (
	foldMagic  = "FFLD"
	foldMajor  = 1
	foldHeader = 12
	foldBlock  = 4096
	foldSuffix = ".fold"
)

func foldName(i int) string { return fmt.Sprintf("producers-%d%s", i, foldSuffix) }

// oldFoldName is what a fold was called while each was a file of its own.
func oldFoldName(offset int64) string { return fmt.Sprintf("%020d%s", offset, foldSuffix) }

// makeFolds gives both files their first block, also one whose name a power cut left
// without it. made says that the folder has to be synced before a slot may point to
// them. A full disk does not keep the log from being opened: the first checkpoint
// that needs a file makes it.
func (l *Log) makeFolds() (made bool) {
	for i := range 2 {
		name := filepath.Join(l.cfg.Dir, foldName(i))
		has := int64(0)
		if st, err := l.cfg.FS.Stat(name); err == nil {
			has = st.Size()
		}
		if has >= foldBlock {
			continue
		}
		f, err := l.cfg.FS.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
		if err == nil {
			made = true
			_, err = f.WriteAt(make([]byte, foldBlock-has), has)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			l.logger.Warn("no room was set aside for checkpoints", "event", "checkpoint_room_failed", "err", err)
		}
	}
	return made
}

// writeFold stores the producers at offset, durably, in file i, which must not be the
// one that the last slot points to.
func (l *Log) writeFold(i int, offset int64, states []ProducerState, aborted []AbortedTxn) error {
	body := encodeSnapshot(offset, states, aborted)
	raw := append(make([]byte, 0, foldHeader+len(body)), foldMagic...)
	raw = binary.BigEndian.AppendUint16(raw, foldMajor)
	raw = binary.BigEndian.AppendUint16(raw, 0)
	raw = binary.BigEndian.AppendUint32(raw, uint32(len(body)))
	raw = append(raw, body...)
	f, err := l.cfg.FS.OpenFile(filepath.Join(l.cfg.Dir, foldName(i)), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return l.writeFailure(err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return l.fail(err)
	}
	if _, err := f.WriteAt(raw, 0); err != nil {
		return l.writeFailure(err)
	}
	if used := int64(len(raw)); size < used*3/2 {
		from, to := max(size, used), (2*used/foldBlock+1)*foldBlock
		if _, err := f.WriteAt(make([]byte, to-from), from); err != nil && !noSpace(err) {
			return l.fail(err)
		}
	}
	if err := f.Datasync(); err != nil {
		return l.fail(err)
	}
	if size == 0 { // the disk was full when the log was opened
		if err := l.cfg.FS.SyncDir(l.cfg.Dir); err != nil {
			return l.fail(err)
		}
	}
	return nil
}

// readFold reads the producers that slot k points to, which older builds put in a
// file of their own.
func (l *Log) readFold(k checkpoint) ([]ProducerState, []AbortedTxn, error) {
	raw, err := disk.ReadFile(l.cfg.FS, filepath.Join(l.cfg.Dir, foldName(k.fold)), 3*maxSnapshot)
	if err == nil {
		raw, err = foldBody(raw)
	}
	if err == nil {
		at, list, aborted, err := decodeSnapshot(raw)
		if err == nil && at == k.snapshot {
			return list, aborted, nil
		}
	}
	at, list, aborted, err := readSnapshot(l.cfg.FS, l.cfg.Dir, oldFoldName(k.snapshot))
	if err == nil && at == k.snapshot {
		return list, aborted, nil
	}
	return nil, nil, fmt.Errorf("no file has the producers at %d", k.snapshot)
}

// foldBody is the snapshot in a fold file; behind it is room.
func foldBody(raw []byte) ([]byte, error) {
	if len(raw) < foldHeader || string(raw[:4]) != foldMagic {
		return nil, errors.New("fold is torn or was never written")
	}
	if major := binary.BigEndian.Uint16(raw[4:]); major != foldMajor {
		return nil, fmt.Errorf("fold format %d is not one this build reads (%d): start a newer firn", major, foldMajor)
	}
	n := int64(binary.BigEndian.Uint32(raw[8:]))
	if n > int64(len(raw)-foldHeader) {
		return nil, errors.New("fold is torn")
	}
	return raw[foldHeader : foldHeader+n], nil
}

// staleFold says that name is a fold of an older build that the last slot does not
// need.
func (l *Log) staleFold(name string) bool {
	return strings.HasSuffix(name, foldSuffix) && name != foldName(0) && name != foldName(1) && name != oldFoldName(l.ckpt.get().snapshot)
}
