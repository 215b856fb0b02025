package commitlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/record"
)

// model is what a log was told, and what it must still know.
type model struct {
	rng     *rand.Rand
	now     atomic.Int64
	epoch   int32
	batches []record.Batch // in order, without gaps; some may be lost in a crash
	synced  int64          // every record below was reported as synced
	start   int64          // log start that SetStart confirmed
	tried   int64          // and the highest it was asked for
	deleted int64          // DeleteLocal was asked up to here
	reset   int64          // the last Reset's end: below it the bucket may have records
	doubt   int64          // the end of one that the power cut, 0 for none
	nextPID int64
	seqs    map[int64]int32 // next sequence of a producer that still writes
	maybe   record.Batch    // was being appended when the power went
	wrote   int             // batches over all lives, for their contents
}

func newModel(seed uint64) *model {
	m := &model{rng: rand.New(rand.NewPCG(seed, 0xc07)), nextPID: 1, seqs: map[int64]int32{}}
	m.now.Store(1_000_000)
	return m
}

func (m *model) end() int64 {
	if n := len(m.batches); n > 0 {
		return max(m.reset, m.batches[n-1].NextOffset())
	}
	return m.reset
}

// open starts the log again on s. The error is nil or the power's.
func (m *model) open(s *disk.Sim, clean bool) (*Log, *Flusher, error) {
	f := NewFlusher(1)
	l, rec, err := Open(context.Background(), Config{
		FS: s, Dir: "/data/p", TopicID: [16]byte{1}, Topic: "t", Flusher: f, Clean: clean,
		Now:          func() time.Time { return time.UnixMilli(m.now.Add(7)) },
		SegmentBytes: 1500, IndexInterval: 200, CheckpointBytes: 700, CheckpointEvery: time.Hour, ProducerExpiry: time.Hour,
	})
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	if rec.Refolded {
		l.Close(false)
		f.Close()
		return nil, nil, errors.New("the power cut took files that were synced")
	}
	return l, f, nil
}

// next is a random batch: plain, of a producer with sequences, of a transaction,
// or a marker that ends one.
func (m *model) next() record.Batch {
	m.wrote++
	o := record.NewBatchOptions()
	kind := m.rng.IntN(5)
	pids := openTxns(m.batches)
	if kind == 0 && len(pids) > 0 {
		ids := sortedKeys(pids)
		return record.ControlMarker(record.Marker{Type: record.ControlType(m.rng.IntN(2)), ProducerID: ids[m.rng.IntN(len(ids))], Timestamp: m.now.Load()})
	}
	if kind < 4 && len(m.seqs) > 0 && m.rng.IntN(3) > 0 {
		ids := sortedKeys(m.seqs)
		id := ids[m.rng.IntN(len(ids))]
		o.ProducerID, o.ProducerEpoch, o.BaseSequence = id, 0, m.seqs[id]
		o.Transactional = id%2 == 0
	} else if kind < 4 {
		o.ProducerID, o.ProducerEpoch, o.BaseSequence = m.nextPID, 0, 0
		o.Transactional = m.nextPID%2 == 0
		m.seqs[m.nextPID] = 0
		m.nextPID++
	}
	b := record.NewBuilder(o)
	for i := range 1 + m.rng.IntN(3) {
		b.Append(record.Record{TimestampDelta: m.now.Load(), Value: fmt.Appendf(nil, "%d/%d %s", m.wrote, i, strings.Repeat("x", m.rng.IntN(150)))})
	}
	return b.Build()
}

func sortedKeys[V any](m map[int64]V) []int64 {
	var ids []int64
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// openTxns are the transactions that are open after batches: producer to first offset.
func openTxns(batches []record.Batch) map[int64]int64 {
	txns := map[int64]int64{}
	for _, b := range batches {
		switch {
		case b.IsControl():
			delete(txns, b.ProducerID())
		case b.IsTransactional():
			if _, ok := txns[b.ProducerID()]; !ok {
				txns[b.ProducerID()] = b.BaseOffset()
			}
		}
	}
	return txns
}

// step does something random. An error is the power's.
func (m *model) step(l *Log) error {
	m.now.Add(int64(m.rng.IntN(50)))
	defer func() { m.synced = max(m.synced, l.SyncedEnd()) }()
	switch m.rng.IntN(17) {
	default:
		b := m.next()
		a, err := l.Append(m.epoch, b)
		if err != nil {
			m.maybe = b // its bytes may have reached the disk before the power went
			return err
		}
		if a.Base != m.end() {
			return fmt.Errorf("appended at %d, the end was %d", a.Base, m.end())
		}
		m.batches = append(m.batches, slices.Clone(b))
		if b.ProducerID() >= 0 && !b.IsControl() {
			m.seqs[b.ProducerID()] = b.BaseSequence() + b.Count()
		}
		l.SetHighWatermark(l.SyncedEnd())
		if m.rng.IntN(3) == 0 {
			l.SyncAsync()
		}
		return nil
	case 0, 1, 2:
		return l.Sync(context.Background())
	case 3:
		return l.Roll()
	case 4:
		if m.end() == 0 {
			return nil
		}
		to := m.start + m.rng.Int64N(m.end()-m.start+1)
		m.tried = max(m.tried, to)
		if err := l.SetStart(to); err != nil {
			return err
		}
		m.start = max(m.start, to)
		return nil
	case 5:
		to := m.rng.Int64N(m.end() + 1)
		m.deleted = max(m.deleted, to)
		_, err := l.DeleteLocal(to)
		return err
	case 6:
		m.epoch += int32(m.rng.IntN(3))
		return nil
	case 7:
		return m.resetLog(l)
	}
}

// resetLog makes the log go on at the end of a bucket that is level with it or has
// more, perhaps of a later epoch.
func (m *model) resetLog(l *Log) error {
	end := m.end() + m.rng.Int64N(4)
	start := m.start + m.rng.Int64N(end-m.start+1)
	producers, err := l.ProducersAt(m.end())
	if err != nil {
		return err
	}
	lineage := l.Epochs()
	for n := len(lineage); n > 0 && lineage[n-1].Start >= m.end(); n-- {
		lineage = lineage[:n-1]
	}
	if end > m.end() && (len(lineage) == 0 || m.epoch > lineage[len(lineage)-1].Epoch) {
		lineage = append(lineage, EpochStart{m.epoch, m.end()})
	}
	m.tried, m.deleted, m.doubt = max(m.tried, start), max(m.deleted, end), end
	if err := l.Reset(start, end, lineage, producers); err != nil {
		return err
	}
	if l.Start() < start || l.LocalStart() != end || l.End() != end || l.SyncedEnd() != end {
		return fmt.Errorf("reset to [%d, %d) gave start %d, local start %d, end %d, synced to %d", start, end, l.Start(), l.LocalStart(), l.End(), l.SyncedEnd())
	}
	m.start, m.reset, m.doubt = max(m.start, start), end, 0
	return nil
}

// check compares a log that was just opened with the model, and tells the model
// what the crash took.
func (m *model) check(l *Log) error {
	end, local := l.End(), l.LocalStart()
	if end < m.synced {
		return fmt.Errorf("the log ends at %d, synced was %d", end, m.synced)
	}
	if m.maybe != nil && m.maybe.BaseOffset() == m.end() && end == m.maybe.NextOffset() {
		m.batches = append(m.batches, m.maybe)
	}
	m.maybe = nil
	if m.doubt > 0 && end == m.doubt && local == m.doubt {
		m.reset = m.doubt
	}
	m.doubt = 0
	if end > m.end() {
		return fmt.Errorf("the log ends at %d, only %d was written", end, m.end())
	}
	if s := l.Start(); s < m.start || s > m.tried {
		return fmt.Errorf("log start %d, confirmed was %d and asked for %d", s, m.start, m.tried)
	}
	if local > max(m.deleted, 0) {
		return fmt.Errorf("local start %d, deletions were asked for up to %d", local, m.deleted)
	}
	n := len(m.batches)
	for n > 0 && m.batches[n-1].NextOffset() > end {
		n--
	}
	m.batches = m.batches[:n]
	if m.end() != end {
		return fmt.Errorf("the log ends at %d, in the middle of a batch", end)
	}
	for _, b := range m.batches {
		if o := b.BaseOffset(); o >= l.Start() && l.EpochAt(o) != b.LeaderEpoch() {
			return fmt.Errorf("offset %d has epoch %d, the log says %d", o, b.LeaderEpoch(), l.EpochAt(o))
		}
	}
	m.synced = end // a recovery makes what it found durable before anybody reads
	at := local
	for at < end {
		s, err := l.Read(at, end, 1<<20, true)
		if err != nil {
			return fmt.Errorf("read %d: %w", at, err)
		}
		p, err := s.Bytes()
		s.Release()
		if err != nil {
			return fmt.Errorf("read %d: %w", at, err)
		}
		for len(p) > 0 {
			b, rest, err := record.Parse(p)
			if err != nil {
				return fmt.Errorf("read %d: %w", at, err)
			}
			i, ok := slices.BinarySearchFunc(m.batches, b.BaseOffset(), func(x record.Batch, o int64) int { return int(x.BaseOffset() - o) })
			if !ok || !bytes.Equal(m.batches[i], b) {
				return fmt.Errorf("other bytes at %d", b.BaseOffset())
			}
			at, p = b.NextOffset(), rest
		}
	}
	return m.checkFolds(l, end, local)
}

// checkFolds compares what the log derived from its batches.
func (m *model) checkFolds(l *Log, end, local int64) error {
	first := int64(-1)
	for _, o := range openTxns(m.batches) {
		if first < 0 || o < first {
			first = o
		}
	}
	if got := l.FirstUnstable(end); got != first {
		return fmt.Errorf("first unstable offset %d, the batches say %d", got, first)
	}
	readable := max(local, l.Start()) // nobody asks for what lies below
	var want []AbortedTxn
	for i, b := range m.batches {
		if b.IsControl() && b.BaseOffset() >= readable {
			began, ok := openTxns(m.batches[:i])[b.ProducerID()]
			mk, _, err := record.ParseMarker(b)
			if err != nil {
				return err
			}
			if ok && mk.Type == record.Abort {
				want = append(want, AbortedTxn{ProducerID: b.ProducerID(), First: began, Last: b.BaseOffset()})
			}
		}
	}
	got := l.Aborted(readable, end)
	for i := range got {
		got[i].LastStable = 0
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("aborted transactions from %d on: %+v, the batches say %+v", readable, got, want)
	}
	last := map[int64]record.Batch{}
	for _, b := range m.batches {
		if b.ProducerID() >= 0 && !b.IsControl() {
			last[b.ProducerID()] = b
		}
	}
	if err := m.checkBases(l); err != nil {
		return err
	}
	clear(m.seqs)
	states, err := l.ProducersAt(end)
	if err != nil {
		return fmt.Errorf("producers: %w", err)
	}
	for id, b := range last {
		i := slices.IndexFunc(states, func(s ProducerState) bool { return s.ID == id })
		if i < 0 {
			return fmt.Errorf("producer %d is forgotten, its last batch is at %d", id, b.BaseOffset())
		}
		if n := len(states[i].Batches); n == 0 || states[i].Batches[n-1].LastOffset != b.LastOffset() || states[i].Batches[n-1].LastSeq != b.BaseSequence()+b.Count()-1 {
			return fmt.Errorf("producer %d: %+v, its last batch is [%d, %d]", id, states[i], b.BaseOffset(), b.LastOffset())
		}
		a, err := l.Append(max(m.epoch, l.EpochAt(end)), slices.Clone(b))
		if err != nil || !a.Duplicate || a.Base != b.BaseOffset() {
			return fmt.Errorf("producer %d sends its last batch again: %+v %w", id, a, err)
		}
		m.seqs[id] = b.BaseSequence() + b.Count()
	}
	return nil
}

// checkBases asks for the producers at the base of every local segment, as tiering
// does.
func (m *model) checkBases(l *Log) error {
	for _, s := range l.Segments() {
		last := map[int64]record.Batch{}
		for _, b := range m.batches {
			if b.BaseOffset() < s.Base && b.ProducerID() >= 0 && !b.IsControl() {
				last[b.ProducerID()] = b
			}
		}
		states, err := l.ProducersAt(s.Base)
		if err != nil {
			return fmt.Errorf("producers at %d: %w", s.Base, err)
		}
		for id, b := range last {
			i := slices.IndexFunc(states, func(s ProducerState) bool { return s.ID == id })
			if i < 0 || len(states[i].Batches) == 0 || states[i].Batches[len(states[i].Batches)-1].LastOffset != b.LastOffset() {
				return fmt.Errorf("producers at %d: %+v, the last batch of %d is [%d, %d]", s.Base, states, id, b.BaseOffset(), b.LastOffset())
			}
		}
	}
	return nil
}

// lives runs a log through several power cuts, some in the middle of a call, some
// in the middle of the recovery from the one before, and closes in between.
func lives(seed uint64, mutate string) (sites []string, err error) {
	m := newModel(seed)
	s := disk.NewSim(seed)
	s.Skip(mutate)
	for _, d := range []string{"/data", "/data/p"} {
		s.MkdirAll(d, 0o755)
	}
	s.SyncDir("/")
	s.SyncDir("/data")
	clean := false
	for life := range 6 {
		if m.rng.IntN(2) == 0 {
			s.CutAfter(m.rng.IntN(120))
		}
		l, f, err := m.open(s, clean)
		if err == nil {
			if err := m.check(l); err != nil && !errors.Is(err, disk.ErrPowerLost) && !s.Dead() {
				l.Close(false)
				f.Close()
				return s.Sites(), fmt.Errorf("life %d: %w", life, err)
			}
			m.epoch++
			for range m.rng.IntN(60) {
				before := m.end()
				if err = m.step(l); err != nil {
					if !s.Dead() {
						l.Close(false)
						f.Close()
						return s.Sites(), fmt.Errorf("life %d: at end %d: %w", life, before, err)
					}
					break
				}
			}
			clean = err == nil && m.rng.IntN(4) == 0
			cerr := l.Close(clean)
			f.Close()
			if clean && cerr == nil && !s.Dead() {
				m.synced = m.end()
				if m.rng.IntN(2) == 0 {
					continue // no power cut: the next process starts on the same disk
				}
			}
			clean = clean && cerr == nil
		} else if !s.Dead() {
			return s.Sites(), fmt.Errorf("life %d: open: %w", life, err)
		}
		s = s.Crash()
		s.CutAfter(-1)
		if life == 5 {
			l, f, err := m.open(s, clean)
			if err != nil {
				return s.Sites(), fmt.Errorf("the last open: %w", err)
			}
			err = m.check(l)
			l.Close(false)
			f.Close()
			if err != nil {
				return s.Sites(), fmt.Errorf("the last check: %w", err)
			}
		}
	}
	return s.Sites(), nil
}

// TestPowerCuts: whatever was reported as synced is there, byte for byte, after
// any power cut; what survives beyond it is a prefix of what was written; and
// everything that is derived from it says the same (SAFETY 1). FIRN_TEST_SEEDS
// runs more.
func TestPowerCuts(t *testing.T) {
	seeds := uint64(1000)
	if s := os.Getenv("FIRN_TEST_SEEDS"); s != "" {
		seeds, _ = strconv.ParseUint(s, 10, 64)
	}
	failed := 0
	for seed := range seeds {
		if _, err := lives(seed, ""); err != nil {
			t.Errorf("seed %d: %v", seed, err)
			if failed++; failed > 10 {
				t.FailNow()
			}
		}
	}
}

// TestEverySyncMatters takes the syncs of one call site away at a time: some power
// cut must show it.
func TestEverySyncMatters(t *testing.T) {
	all := map[string]bool{}
	for seed := range uint64(60) {
		sites, _ := lives(seed, "")
		for _, s := range sites {
			all[s] = true
		}
	}
	if len(all) < 5 {
		t.Fatalf("only %d syncs are seen: %v", len(all), all)
	}
	var sites []string
	for s := range all {
		switch {
		case strings.Contains(s, "commitlog.lives"), strings.Contains(s, "commitlog.Test"):
			// the test's own folder
		case strings.HasPrefix(s, "syncdir by") && strings.Contains(s, "commitlog.checkMeta"):
			// The first flush, before Open returns, syncs the same folder.
		default:
			sites = append(sites, s)
		}
	}
	slices.Sort(sites)
	for _, site := range sites {
		t.Run(site, func(t *testing.T) {
			for seed := range uint64(2000) {
				if _, err := lives(seed, site); err != nil {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Error("nothing notices when this sync does nothing")
		})
	}
}
