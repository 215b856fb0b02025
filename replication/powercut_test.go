package replication

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/metadata/memory"
	"github.com/firnlog/firn/record"
)

// cluster is metadata that loses nothing: images made before, one topic longer each.
type cluster struct {
	image atomic.Pointer[metadata.Image]

	mu     sync.Mutex
	epochs map[metadata.TopicID]int32
	subs   []chan<- struct{}
}

func (c *cluster) Image() *metadata.Image   { return c.image.Load() }
func (c *cluster) SafeMode() (string, bool) { return "", false }

func (c *cluster) Subscribe(ch chan<- struct{}) (cancel func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subs = append(c.subs, ch)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.subs = slices.DeleteFunc(c.subs, func(s chan<- struct{}) bool { return s == ch })
	}
}

func (c *cluster) show(im *metadata.Image) {
	c.image.Store(im)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ch := range c.subs {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

func (c *cluster) Lead(_ context.Context, reqs []metadata.LeadRequest) []metadata.LeadResult {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]metadata.LeadResult, len(reqs))
	for i, r := range reqs {
		c.epochs[r.TopicID] = max(c.epochs[r.TopicID], r.MinEpoch) + 1
		out[i].State = metadata.PartitionState{Leader: 1, LeaderEpoch: c.epochs[r.TopicID], ISR: []metadata.Member{{Node: 1}}, Replicas: []int32{1}}
	}
	return out
}

// images are those of a cluster that gets four topics, one after the other.
var images = sync.OnceValue(func() (all []*metadata.Image) {
	ctx := context.Background()
	c, err := metadata.Open(ctx, metadata.Config{Store: memory.NewServer(1, time.Now).Open(), Cluster: "c", NodeID: 1, Now: time.Now})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	if err := c.RegisterBroker(ctx, metadata.Broker{Node: 1, Incarnation: 1, DirIDs: []string{"d"}, Endpoints: []metadata.Endpoint{{Name: "P", Host: "h", Port: 9092, Protocol: "PLAINTEXT"}}}); err != nil {
		panic(err)
	}
	all = append(all, c.Image())
	for i := range 4 {
		if _, err := c.CreateTopic(ctx, metadata.NewTopic{Name: fmt.Sprint("t", i), Partitions: 1, ReplicationFactor: 1}); err != nil {
			panic(err)
		}
		all = append(all, c.Image())
	}
	return all
})

// marker says whether the dir has a clean marker that nothing was opened behind.
type marker int

const (
	none marker = iota
	maybe
	surely
)

// promises are what a data dir and its partitions have said, over all lives.
type promises struct {
	rng         *rand.Rand
	cluster     *cluster
	topics      int
	dirID       string
	incarnation uint64 // the last that OpenDataDir returned
	adopted     bool
	marker      marker
	acked       map[string][][]byte
	wrote       int
}

var errKilled = errors.New("killed")

const cutDir = "/srv/firn/data"

// opened compares a data dir with what was promised.
func (n *promises) opened(d *DataDir) error {
	switch {
	case n.incarnation > 0 && (d.Fresh || d.Meta.DirID != n.dirID):
		return fmt.Errorf("the identity %s of incarnation %d is forgotten: %+v", n.dirID, n.incarnation, d.Meta)
	case d.Meta.Incarnation <= n.incarnation:
		return fmt.Errorf("incarnation %d after %d", d.Meta.Incarnation, n.incarnation)
	case n.adopted && d.Meta.ClusterID != "id":
		return fmt.Errorf("cluster id %q", d.Meta.ClusterID)
	case d.Clean && n.marker == none:
		return errors.New("a clean marker vouches for logs that it did not see")
	case !d.Clean && n.marker == surely:
		return errors.New("the clean marker is lost")
	}
	n.dirID, n.incarnation, n.marker = d.Meta.DirID, d.Meta.Incarnation, none
	return nil
}

// found compares every partition that acknowledged something with what it said.
func (n *promises) found(m *Manager) error {
	for name, values := range n.acked {
		p, err := m.ByName(name, 0)
		if err != nil {
			return err
		}
		if p.log.End() < int64(len(values)) {
			return fmt.Errorf("%s ends at %d, %d were acknowledged", name, p.log.End(), len(values))
		}
		for at := int64(0); at < int64(len(values)); {
			s, err := p.log.Read(at, p.log.End(), 1<<20, true)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			raw, err := s.Bytes()
			s.Release()
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			for len(raw) > 0 {
				b, rest, err := record.Parse(raw)
				if err != nil {
					return fmt.Errorf("%s at %d: %w", name, at, err)
				}
				if at < int64(len(values)) && !bytes.Equal(b, values[at]) {
					return fmt.Errorf("%s has other bytes at %d", name, at)
				}
				at, raw = b.NextOffset(), rest
			}
		}
	}
	return nil
}

// step adds a topic or produces to one; an error is that of a disk that is gone.
func (n *promises) step(m *Manager) error {
	if n.topics == 0 || n.topics < len(images())-1 && n.rng.IntN(6) == 0 {
		n.topics++
		n.cluster.show(images()[n.topics])
		return nil
	}
	name := fmt.Sprint("t", n.rng.IntN(n.topics))
	var p *Partition
	for p == nil {
		var err error
		if p, err = m.ByName(name, 0); errors.Is(err, ErrOffline) {
			return err
		}
	}
	n.wrote++
	b := one(n.wrote)
	a, err := p.Append(b, all)
	if err == nil {
		err = p.WaitCommitted(context.Background(), a)
	}
	if err != nil {
		return err
	}
	// What a life before wrote, and nobody acknowledged, may be there as well.
	for int64(len(n.acked[name])) < a.Base {
		s, err := p.log.Read(int64(len(n.acked[name])), a.Base, 1, true)
		if err != nil {
			return err
		}
		raw, err := s.Bytes()
		s.Release()
		if err != nil {
			return err
		}
		n.acked[name] = append(n.acked[name], raw)
	}
	n.acked[name] = append(n.acked[name], slices.Clone(b))
	return nil
}

// live is one process on s, up to clean end, a power cut or a kill. gone says that
// one of the latter has come; an error breaks a promise.
func (n *promises) live(s *disk.Sim, gone func() bool) error {
	d, err := OpenDataDir(s, cutDir, "c", 1)
	if err != nil {
		if !gone() {
			return fmt.Errorf("open the data dir: %w", err)
		}
		n.marker = min(n.marker, maybe)
		return nil
	}
	clean := false
	defer func() {
		if err := d.Close(clean); clean && err == nil && !gone() {
			n.marker = surely
		} else if clean {
			n.marker = maybe
		}
	}()
	if err := n.opened(d); err != nil {
		return err
	}
	if err := d.Adopt("id"); err != nil {
		if !gone() {
			return err
		}
		return nil
	}
	n.adopted = true
	f := commitlog.NewFlusher(1)
	defer f.Close()
	m, err := NewManager(Config{
		Dirs: []*DataDir{d}, Cluster: n.cluster, NodeID: 1, Now: time.Now, Logger: slog.New(slog.DiscardHandler), Flusher: f, HousekeepingEvery: time.Hour,
	})
	if err != nil {
		return err
	}
	err = m.Start(context.Background())
	if err == nil {
		err = n.found(m)
	}
	for range n.rng.IntN(25) {
		if err == nil {
			err = n.step(m)
		}
	}
	clean = m.Close() && n.rng.IntN(3) > 0
	if err != nil && !gone() {
		return err
	}
	return nil
}

// lives runs a data dir through several power cuts and kills, some in the middle of
// a call, and clean ends between them. The syncs of site mutate do nothing.
func lives(seed uint64, mutate string) (sites []string, err error) {
	n := &promises{rng: rand.New(rand.NewPCG(seed, 0xda7a)), cluster: &cluster{epochs: map[metadata.TopicID]int32{}}, acked: map[string][][]byte{}}
	n.cluster.show(images()[0])
	s := disk.NewSim(seed)
	s.Skip(mutate)
	for life := range 8 {
		var killed atomic.Bool
		switch n.rng.IntN(3) {
		case 0:
			s.CutAfter(n.rng.IntN(80))
		case 1:
			// Anywhere, or where a folder is about to be synced, or a certain one.
			var left atomic.Int64
			at, folder, most := "", "", 160
			switch n.rng.IntN(3) {
			case 0:
				at, most = "syncdir", 16
			case 1:
				at, folder, most = "syncdir", cutDir+"/"+logFolder, 4
			}
			left.Store(int64(n.rng.IntN(most)))
			s.FailOn(func(op, name string) error {
				if killed.Load() || (at == "" || op == at) && (folder == "" || name == folder) && left.Add(-1) < 0 {
					killed.Store(true)
					return errKilled
				}
				return nil
			})
		}
		if err := n.live(s, func() bool { return killed.Load() || s.Dead() }); err != nil {
			return s.Sites(), fmt.Errorf("life %d: %w", life, err)
		}
		s.FailOn(nil)
		if s.Dead() || n.rng.IntN(2) == 0 {
			s = s.Crash()
		}
		s.CutAfter(-1)
	}
	return s.Sites(), nil
}

// TestPowerCuts: after any power cut or kill a data dir knows who it is and in which
// incarnation, no clean marker vouches for a log that it did not see, and every
// partition that acknowledged records is found again with them (SAFETY 1, 2).
func TestPowerCuts(t *testing.T) {
	seeds := uint64(400)
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
// cut must show it. Those of commitlog have a test of their own there.
func TestEverySyncMatters(t *testing.T) {
	all := map[string]bool{}
	for seed := range uint64(40) {
		sites, _ := lives(seed, "")
		for _, s := range sites {
			if strings.Contains(s, "replication.") {
				all[s] = true
			}
		}
	}
	if len(all) < 5 {
		t.Fatalf("only %d syncs are seen: %v", len(all), all)
	}
	for site := range all {
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
