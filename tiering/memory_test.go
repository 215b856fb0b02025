package tiering

import (
	"strings"
	"testing"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/metadata"
)

// TestMemorySurvivesPowerCuts: a generation that Remember has returned for is never
// forgotten, nor is one that was never given remembered, whatever moment the power
// goes in; and each of the memory's syncs matters to that (SAFETY 10).
func TestMemorySurvivesPowerCuts(t *testing.T) {
	tp := metadata.TopicPartition{TopicID: metadata.TopicID{7}, Partition: 3}
	// life returns whether the memory held what it had said.
	life := func(seed uint64, skip string) (sites []string, ok bool) {
		s := disk.NewSim(seed)
		s.MkdirAll("/data", 0o755)
		s.SyncDir("/")
		s.Skip(skip)
		kept, tried := uint64(0), uint64(0)
		s.CutAfter(int(seed % 40))
		if m, err := OpenMemory(s, "/data/bucket-memory"); err == nil {
			for g := uint64(1); ; g++ {
				tried = g
				if m.Remember(tp, g, int64(g)) != nil {
					break
				}
				kept = g
			}
		}
		sites = s.Sites()
		s = s.Crash()
		m, err := OpenMemory(s, "/data/bucket-memory")
		if err != nil {
			return sites, false
		}
		got := m.Generation(tp)
		return sites, got >= kept && got <= tried
	}
	all := map[string]bool{}
	for seed := range uint64(1000) {
		sites, ok := life(seed, "")
		if !ok {
			t.Fatalf("seed %d: the memory is not what it said", seed)
		}
		for _, s := range sites {
			all[s] = true
		}
	}
	if len(all) < 3 {
		t.Fatalf("only the syncs %v are seen", all)
	}
	for site := range all {
		if strings.Contains(site, "tiering.Test") {
			continue // the test's own folder
		}
		noticed := false
		for seed := uint64(0); seed < 2000 && !noticed; seed++ {
			_, ok := life(seed, site)
			noticed = !ok
		}
		if !noticed {
			t.Errorf("nothing notices when %s does nothing", site)
		}
	}
}

// FuzzMemory: a file that is not what was written is an error, and never a panic.
func FuzzMemory(f *testing.F) {
	s := disk.NewSim(1)
	s.MkdirAll("/m", 0o755)
	m, err := OpenMemory(s, "/m")
	if err != nil {
		f.Fatal(err)
	}
	tp := metadata.TopicPartition{TopicID: metadata.TopicID{1}}
	if err := m.Remember(tp, 5, 6); err != nil {
		f.Fatal(err)
	}
	name := "/m/" + memoryName(tp.TopicID, 0)
	good, err := disk.ReadFile(s, name, 4096)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:27])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		s := disk.NewSim(1)
		s.MkdirAll("/m", 0o755)
		if err := disk.WriteFileAtomic(s, name, b); err != nil {
			t.Fatal(err)
		}
		m, err := OpenMemory(s, "/m")
		if err == nil && len(b) != 28 {
			t.Fatalf("%d bytes are believed: generation %d", len(b), m.Generation(tp))
		}
	})
}
