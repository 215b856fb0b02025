// Package replay tests the whole way down and up: flights are produced, sealed,
// uploaded, gone from local disk, and replayed from offset 0 out of the bucket,
// byte for byte as their acknowledgements said, by a client of its own.
package replay

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/firnlog/firn/integration/ledger"
	"github.com/firnlog/firn/integration/node"
	"github.com/firnlog/firn/integration/s3"
	"github.com/firnlog/firn/integration/s3/proxy"
	"github.com/firnlog/firn/objectstore/open"
)

const topic = "flights"

// volume is how many bytes of flights go in; FIRN_TEST_BYTES asks for more.
func volume(t *testing.T) int64 {
	s := os.Getenv("FIRN_TEST_BYTES")
	if s == "" {
		return 256 << 20
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// flights calls fn for every row, without the header, again from the start when
// they end, until fn says stop. The key is the tail number, null where it is NA.
func flights(t *testing.T, fn func(key, row []byte) bool) {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "testdata", "flights.csv.zst"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	var rows [][]byte
	column := -1
	in := bufio.NewScanner(z)
	for in.Scan() {
		row := bytes.Clone(in.Bytes())
		if column < 0 {
			for i, name := range strings.Split(string(row), ",") {
				if strings.Trim(name, `"`) == "tailnum" {
					column = i
				}
			}
			if column < 0 {
				t.Fatalf("no tailnum in %s", row)
			}
			continue
		}
		rows = append(rows, row)
	}
	if err := in.Err(); err != nil || len(rows) != 336_776 {
		t.Fatalf("%d flights: %v", len(rows), err)
	}
	for {
		for _, row := range rows {
			key := bytes.Trim(bytes.Split(row, []byte(","))[column], `"`)
			if string(key) == "NA" {
				key = nil
			}
			if !fn(key, row) {
				return
			}
		}
	}
}

func client(t *testing.T, n *node.Node, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(n.Addr)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func produce(t *testing.T, n *node.Node, l *ledger.Ledger, total int64) {
	t.Helper()
	cl := client(t, n, kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(5*time.Millisecond), kgo.MaxBufferedRecords(100_000))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	var sent int64
	flights(t, func(key, row []byte) bool {
		r := &kgo.Record{Topic: topic, Key: key, Value: row, Headers: []kgo.RecordHeader{{Key: "n", Value: strconv.AppendInt(nil, sent, 10)}}}
		cl.Produce(ctx, r, func(r *kgo.Record, err error) {
			if err != nil {
				t.Errorf("produce: %v", err)
			}
			l.Ack(r, err)
		})
		sent += int64(len(key) + len(row))
		return sent < total && ctx.Err() == nil
	})
	if err := cl.Flush(ctx); err != nil || t.Failed() {
		t.Fatalf("flush: %v", err)
	}
}

// storage is `firn topic storage describe -o json`.
type storage struct {
	HotBytes   int64 `json:"hot_bytes"`
	ColdBytes  int64 `json:"cold_bytes"`
	Partitions []struct {
		Partition  int32 `json:"partition"`
		LocalStart int64 `json:"local_start_offset"`
		End        int64 `json:"end_offset"`
	} `json:"partitions"`
}

func (s storage) cold() (cold, all int64) {
	for _, p := range s.Partitions {
		cold += p.LocalStart
		all += p.End
	}
	return cold, all
}

// sink waits until nothing but a sliver of the log is on local disk, and returns where
// it is.
func sink(t *testing.T, n *node.Node) storage {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		out, stderr, err := n.CLI(t.Context(), nil, "topic", "storage", "describe", topic, "-o", "json")
		if err != nil {
			t.Fatalf("%v: %s", err, stderr)
		}
		var all storage
		if err := json.Unmarshal([]byte(out), &all); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		cold, total := all.cold()
		if total > 0 && cold*100 >= total*99 {
			return all
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d records left the local disk: %s", cold, total, out)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// coldStart restarts the node with an empty cache.
func coldStart(t *testing.T, n *node.Node) {
	t.Helper()
	n.Stop()
	if err := os.RemoveAll(filepath.Join(n.DataDir, "cache")); err != nil {
		t.Fatal(err)
	}
	n.Up()
}

// place is where a bucket is and how its traffic is counted at the store's side.
type place struct {
	url string // as --bucket takes it
	raw string // the same store, not through the proxy
	env []string
	// got is how many bytes of objects the store has given since its last start.
	got func(t *testing.T, n *node.Node) int64
}

// driverBytes is what the driver counted: for a folder nobody else can.
func driverBytes(t *testing.T, n *node.Node) int64 {
	t.Helper()
	resp, err := http.Get("http://" + n.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	for line := range strings.Lines(string(body)) {
		if v, ok := strings.CutPrefix(line, `firn_s3_bytes_total{dir="read"} `); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
			if err != nil {
				t.Fatal(err)
			}
			return int64(f)
		}
	}
	return 0 // the series begins with the first byte
}

func through(t *testing.T, e s3.Endpoint) place {
	p := proxy.Start(t, e.URL)
	bucket := e.NewBucket(t)
	return place{
		url: e.Through(p.URL).URLOf(bucket, "logs", ""), raw: e.URLOf(bucket, "logs", ""), env: e.Env(),
		got: func(*testing.T, *node.Node) int64 { return p.Counts().GetBytes },
	}
}

// TestFlightsComeBackFromTheBucket is the product in one test, over a folder and
// over both S3 servers.
func TestFlightsComeBackFromTheBucket(t *testing.T) {
	for name, where := range map[string]func(t *testing.T) place{
		"file": func(t *testing.T) place {
			url := "file://" + filepath.Join(t.TempDir(), "bucket")
			return place{url: url, raw: url, got: driverBytes}
		},
		"versitygw": func(t *testing.T) place { return through(t, s3.StartVersityGW(t)) },
		"minio":     func(t *testing.T) place { return through(t, s3.StartMinIO(t)) },
	} {
		t.Run(name, func(t *testing.T) { downAndUp(t, where(t)) })
	}
}

func downAndUp(t *testing.T, where place) {
	n := node.New(t, "--bucket", where.url)
	n.Env = where.env
	n.Up()
	configs := map[string]*string{}
	for k, v := range map[string]string{"segment.bytes": "8388608", "local.retention.ms": "1", "firn.remote.max.unuploaded.ms": "3000"} {
		configs[k] = &v
	}
	adm := kadm.NewClient(client(t, n))
	if _, err := adm.CreateTopic(t.Context(), 4, 1, configs, topic); err != nil {
		t.Fatal(err)
	}
	l := ledger.New()
	began := time.Now()
	produce(t, n, l, volume(t))
	t.Logf("verify: %d records, %d MiB acknowledged in %v", l.Count(), l.Bytes()>>20, time.Since(began).Round(time.Millisecond))
	lies := sink(t, n)
	coldStart(t, n)

	before := where.got(t, n)
	began = time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	if err := l.Verify(ctx, topic, kgo.SeedBrokers(n.Addr)); err != nil {
		t.Fatal(err)
	}
	got := where.got(t, n) - before
	t.Logf("verify: replayed in %v, %d MiB out of the bucket", time.Since(began).Round(time.Millisecond), got>>20)
	// Of the log's own bytes, batch and record headers and all.
	if all := lies.HotBytes + lies.ColdBytes; got*100 <= all*95 {
		t.Errorf("%d bytes came out of the bucket, the log has %d", got, all)
	}

	// Without the bucket the replay fails: nothing else holds these records.
	n.Stop()
	empty(t, where)
	if err := os.RemoveAll(filepath.Join(n.DataDir, "cache")); err != nil {
		t.Fatal(err)
	}
	n.Up()
	nothingComesBack(t, n, lies)
}

// nothingComesBack asks for the first records of each partition until the answer is a
// storage error. No answer has a record below the local start.
func nothingComesBack(t *testing.T, n *node.Node, lies storage) {
	t.Helper()
	for _, p := range lies.Partitions {
		cl := client(t, n, kgo.KeepRetryableFetchErrors(), kgo.FetchMaxWait(250*time.Millisecond),
			kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {p.Partition: kgo.NewOffset().At(0)}}))
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		for failed := false; !failed; {
			fs := cl.PollFetches(ctx)
			if ctx.Err() != nil {
				t.Fatalf("partition %d: no error within 90 s", p.Partition)
			}
			fs.EachRecord(func(r *kgo.Record) {
				if r.Offset < p.LocalStart {
					t.Fatalf("partition %d: offset %d came back without the bucket", p.Partition, r.Offset)
				}
			})
			fs.EachError(func(_ string, _ int32, err error) {
				if !errors.Is(err, kerr.KafkaStorageError) {
					t.Fatalf("partition %d: %v, want a storage error", p.Partition, err)
				}
				failed = true
			})
		}
		cancel()
		cl.Close()
	}
}

// empty deletes the topics' objects from the bucket.
func empty(t *testing.T, where place) {
	t.Helper()
	for _, kv := range where.env {
		k, v, _ := strings.Cut(kv, "=")
		t.Setenv(k, v)
	}
	b, err := open.Open(t.Context(), where.raw, open.Options{SkipProbe: true})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var keys []string
	for info, err := range b.List(t.Context(), "firn/topics/") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	if len(keys) == 0 {
		t.Fatal("the bucket is empty")
	}
	if err := b.Delete(t.Context(), keys); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d objects deleted", len(keys))
}
