package golden

import (
	"archive/tar"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/firnlog/firn/integration/node"
)

const (
	stateFile  = "state.tar.zst"
	expectFile = "expect.txt"
)

// forever keeps the broker from letting go of what is years old when it is opened.
var forever = []string{"--set", "offsets.retention.minutes=2147483647", "--set", "log.retention.ms=-1"}

// fact is one line of expect.txt.
type fact = string

// read writes down everything that clients can see of the topics and groups, in
// an order of its own.
func read(t *testing.T, n *node.Node, topics, groups []string) []fact {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(n.Addr))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	var facts []fact
	starts, err := adm.ListStartOffsets(ctx, topics...)
	if err != nil {
		t.Fatal(err)
	}
	ends, err := adm.ListEndOffsets(ctx, topics...)
	if err = errors.Join(err, starts.Error(), ends.Error()); err != nil {
		t.Fatal(err)
	}
	starts.Each(func(o kadm.ListedOffset) {
		end, _ := ends.Lookup(o.Topic, o.Partition)
		facts = append(facts, fmt.Sprintf("log %s %d from %d to %d", o.Topic, o.Partition, o.Offset, end.Offset))
	})
	for isolation, level := range map[string]kgo.IsolationLevel{"all": kgo.ReadUncommitted(), "committed": kgo.ReadCommitted()} {
		facts = append(facts, records(t, ctx, n, isolation, level, starts, ends)...)
	}
	configs, err := adm.DescribeTopicConfigs(ctx, topics...)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range configs {
		for _, kv := range c.Configs {
			if kv.Source.String() == "DYNAMIC_TOPIC_CONFIG" {
				facts = append(facts, fmt.Sprintf("config %s %s=%s", c.Name, kv.Key, kv.MaybeValue()))
			}
		}
	}
	all, err := adm.ListTopics(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all.Names() {
		facts = append(facts, fmt.Sprintf("topic %s %s", name, all[name].ID))
	}
	for _, g := range groups {
		offsets, err := adm.FetchOffsets(ctx, g)
		if err = errors.Join(err, offsets.Error()); err != nil {
			t.Fatal(err)
		}
		offsets.Each(func(o kadm.OffsetResponse) {
			facts = append(facts, fmt.Sprintf("group %s has %s %d at %d, metadata %q", g, o.Topic, o.Partition, o.At, o.Metadata))
		})
	}
	slices.Sort(facts)
	return facts
}

// records reads every partition from its start to its end. A record's fact has a
// checksum for each of its parts, so that a difference says where.
func records(t *testing.T, ctx context.Context, n *node.Node, isolation string, level kgo.IsolationLevel, starts, ends kadm.ListedOffsets) (facts []fact) {
	t.Helper()
	from := map[string]map[int32]kgo.Offset{}
	left := 0
	ends.Each(func(end kadm.ListedOffset) {
		start, _ := starts.Lookup(end.Topic, end.Partition)
		if end.Offset > start.Offset {
			if from[end.Topic] == nil {
				from[end.Topic] = map[int32]kgo.Offset{}
			}
			from[end.Topic][end.Partition] = kgo.NewOffset().At(start.Offset)
			left++
		}
	})
	// Control records are kept so that the last offset of each partition comes.
	cl, err := kgo.NewClient(kgo.SeedBrokers(n.Addr), kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(level), kgo.KeepControlRecords(), kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	last := map[string]fact{}
	for left > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("reading with %d partitions to go: %v", left, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			headers := make([]byte, 0, 64)
			for _, h := range r.Headers {
				headers = part(part(headers, []byte(h.Key)), h.Value)
			}
			kind := "record"
			if r.Attrs.IsControl() {
				kind = "marker"
			}
			f := fmt.Sprintf("%s %s %s %d %08d time %d key %08x value %08x headers %08x codec %d",
				isolation, kind, r.Topic, r.Partition, r.Offset, r.Timestamp.UnixMilli(), sum(r.Key), sum(r.Value), crc32.Checksum(headers, castagnoli), r.Attrs.CompressionType())
			if r.Topic == "compacted" { // a later build may have removed all but the last of a key
				last[string(r.Key)] = f
			} else {
				facts = append(facts, f)
			}
			if end, _ := ends.Lookup(r.Topic, r.Partition); r.Offset == end.Offset-1 {
				left--
			}
		})
	}
	return slices.AppendSeq(facts, maps.Values(last))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// part appends p with its length; a null one differs from an empty one.
func part(b, p []byte) []byte {
	n := int64(len(p))
	if p == nil {
		n = -1
	}
	return append(binary.BigEndian.AppendUint64(b, uint64(n)), p...)
}

func sum(p []byte) uint32 { return crc32.Checksum(part(nil, p), castagnoli) }

// compare fails the test with the lines that differ.
func compare(t *testing.T, want, got []fact) {
	t.Helper()
	var d []string
	for _, f := range want {
		if _, ok := slices.BinarySearch(got, f); !ok {
			d = append(d, "- "+f)
		}
	}
	for _, f := range got {
		if _, ok := slices.BinarySearch(want, f); !ok {
			d = append(d, "+ "+f)
		}
	}
	if len(d) > 0 || len(want) != len(got) {
		t.Errorf("%d facts, want %d; %d differ:\n%s", len(got), len(want), len(d), strings.Join(d[:min(len(d), 20)], "\n"))
	}
}

// pack writes root's folders into a tar, without owners.
func pack(t *testing.T, root, file string, folders ...string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	for _, folder := range folders {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			name, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			h := &tar.Header{Name: filepath.ToSlash(name), Mode: int64(info.Mode().Perm()), ModTime: info.ModTime().Truncate(time.Second), Typeflag: tar.TypeDir}
			if d.Type().IsRegular() {
				h.Typeflag, h.Size = tar.TypeReg, info.Size()
			} else if !d.IsDir() {
				return fmt.Errorf("%s is neither file nor folder", path)
			}
			if err := w.WriteHeader(h); err != nil || d.IsDir() {
				return err
			}
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			_, err = w.Write(raw)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// unpack is pack's reverse.
func unpack(t *testing.T, file, root string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if !filepath.IsLocal(h.Name) {
			t.Fatalf("%s has %s", file, h.Name)
		}
		path := filepath.Join(root, h.Name)
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, 0o755)
		} else {
			var raw []byte
			if raw, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, raw, fs.FileMode(h.Mode))
			}
			err = errors.Join(err, os.Chtimes(path, h.ModTime, h.ModTime))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
