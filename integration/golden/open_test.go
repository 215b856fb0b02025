package golden

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/firnlog/firn/integration/node"
)

// TestEveryVersionOpens opens what each version wrote: as it is, with the local
// segments dropped as far as the bucket has them, and with the logs lost.
func TestEveryVersionOpens(t *testing.T) {
	if *writing {
		return
	}
	found, err := filepath.Glob(filepath.Join("..", "testdata", "golden", "*", stateFile))
	if err != nil || len(found) == 0 {
		t.Fatalf("no stored version: %v", err)
	}
	for _, file := range found {
		version := filepath.Base(filepath.Dir(file))
		raw, err := os.ReadFile(filepath.Join("..", "testdata", "golden", version, expectFile))
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
		if !slices.IsSorted(want) || len(want) < 100 {
			t.Fatalf("%s: %d facts, or out of order", version, len(want))
		}
		for name, prepare := range map[string]func(t *testing.T, n *node.Node){
			"hot": hot, "cold": cold, "logs lost": lost,
		} {
			t.Run(version+", "+name, func(t *testing.T) {
				t.Parallel()
				root := t.TempDir()
				unpack(t, file, root)
				n := node.New(t, append([]string{"--bucket", "file://" + filepath.Join(root, "bucket")}, forever...)...)
				n.DataDir = filepath.Join(root, "data")
				prepare(t, n)
				expected := want
				if name != "hot" { // these change a configuration to get there
					expected = slices.DeleteFunc(slices.Clone(want), func(f fact) bool { return strings.HasPrefix(f, "config ") })
				}
				got := read(t, n, topicsOf(want), groupsOf(want))
				if name != "hot" {
					got = slices.DeleteFunc(got, func(f fact) bool { return strings.HasPrefix(f, "config ") })
				}
				compare(t, expected, got)
				commandLine(t, n, want)
				goesOn(t, n)
				// And what was opened, changed and stopped opens again.
				n.Stop()
				n.Up()
				goesOn(t, n)
			})
		}
	}
}

// commandLine reads each topic to its end with `firn topic consume`, which must
// come to one by itself where a marker or aborted records are last.
func commandLine(t *testing.T, n *node.Node, facts []fact) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for isolation, args := range map[string][]string{"all": nil, "committed": {"--read-committed"}} {
		for _, topic := range topicsOf(facts) {
			out, stderr, err := n.CLI(ctx, nil, append([]string{"topic", "consume", topic, "-O", ":end", "-f", "%p %o\n"}, args...)...)
			if err != nil {
				t.Fatalf("consume %s %v: %v: %s", topic, args, err, stderr)
			}
			var want []string
			for _, f := range facts {
				if rest, ok := strings.CutPrefix(f, isolation+" record "+topic+" "); ok {
					partition, rest, _ := strings.Cut(rest, " ")
					offset, _, _ := strings.Cut(rest, " ")
					want = append(want, partition+" "+cmp.Or(strings.TrimLeft(offset, "0"), "0"))
				}
			}
			got := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
			for _, w := range want {
				if !slices.Contains(got, w) {
					t.Errorf("consume %s %v does not print %q", topic, args, w)
				}
			}
			if topic != "compacted" && out != "" && len(got) != len(want) {
				t.Errorf("consume %s %v prints %d records, want %d", topic, args, len(got), len(want))
			}
		}
	}
}

// topicsOf and groupsOf are those that a version's facts are about.
func topicsOf(facts []fact) []string { return second(facts, "log ") }
func groupsOf(facts []fact) []string { return second(facts, "group ") }

func second(facts []fact, prefix string) (names []string) {
	for _, f := range facts {
		if rest, ok := strings.CutPrefix(f, prefix); ok {
			name, _, _ := strings.Cut(rest, " ")
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// hot has everything on local disk.
func hot(t *testing.T, n *node.Node) {
	n.Up()
	for _, topic := range []string{"plain", "keyed", "codecs", "txn"} {
		if !storage(t, n, topic, func(r row) bool { return r.Local == 0 }) {
			t.Errorf("%s is not whole on local disk", topic)
		}
	}
}

// cold lets the broker drop what the bucket has, and forgets the chunks that it
// kept of it.
func cold(t *testing.T, n *node.Node) {
	n.Up()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(n.Addr))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	none := "0"
	names := slices.DeleteFunc(slices.Clone(topics), func(s string) bool { return !tiered(s) })
	changed, err := kadm.NewClient(cl).AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "local.retention.bytes", Value: &none}}, names...)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range changed {
		if r.Err != nil {
			t.Fatalf("%s: %v", r.Name, r.Err)
		}
	}
	for _, topic := range names {
		wait(t, topic+" leaves the local disk", func() bool { return storage(t, n, topic, func(r row) bool { return r.Local == r.End }) })
	}
	n.Stop()
	if err := os.RemoveAll(filepath.Join(n.DataDir, "cache")); err != nil {
		t.Fatal(err)
	}
	n.Up()
}

// lost removes the logs of all topics that tier, and the mark of the clean stop:
// what the bucket has is all there is.
func lost(t *testing.T, n *node.Node) {
	metas, err := filepath.Glob(filepath.Join(n.DataDir, "log", "*", "*", "partition.meta"))
	if err != nil || len(metas) == 0 {
		t.Fatalf("%d logs: %v", len(metas), err)
	}
	removed := 0
	for _, path := range metas {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// Magic, versions, topic id, partition, then the name with its length.
		name := string(raw[30 : len(raw)-4])
		if !slices.Contains(topics, name) || !tiered(name) {
			continue
		}
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
		removed++
	}
	if removed < len(topics)-1 {
		t.Fatalf("%d logs removed", removed)
	}
	if err := os.Remove(filepath.Join(n.DataDir, "clean.json")); err != nil {
		t.Fatal(err)
	}
	n.Up()
}

// goesOn writes to an old topic, moves an old group, and reads the record back.
func goesOn(t *testing.T, n *node.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(n.Addr))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	r, err := cl.ProduceSync(ctx, &kgo.Record{Topic: "plain", Value: []byte("new")}).First()
	if err != nil {
		t.Fatal(err)
	}
	if r.Offset < 20 {
		t.Errorf("the new record has offset %d, which an old one had", r.Offset)
	}
	adm := kadm.NewClient(cl)
	next := kadm.Offsets{}
	next.AddOffset("plain", 0, r.Offset+1, -1)
	if err := adm.CommitAllOffsets(ctx, "crew", next); err != nil {
		t.Fatal(err)
	}
	got, err := adm.FetchOffsets(ctx, "crew")
	if o, _ := got.Lookup("plain", 0); err != nil || o.At != r.Offset+1 {
		t.Errorf("the group is at %+v, %v", o, err)
	}
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{"plain": {0: kgo.NewOffset().At(r.Offset)}})
	fetches := cl.PollRecords(ctx, 1)
	if rs := fetches.Records(); len(rs) != 1 || string(rs[0].Value) != "new" || rs[0].Offset != r.Offset {
		t.Errorf("read back %v, %v", rs, fetches.Err())
	}
}
