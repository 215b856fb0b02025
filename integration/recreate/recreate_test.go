// Package recreate deletes a topic and makes it again under its name while its
// objects are on their way to the bucket, or back, and while clients write and
// read. Every value names the incarnation it was written to, so that one old
// record in a new topic is seen.
package recreate

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/firnlog/firn/integration/ledger"
	"github.com/firnlog/firn/integration/node"
	"github.com/firnlog/firn/integration/s3"
	"github.com/firnlog/firn/integration/s3/proxy"
	"github.com/firnlog/firn/record"
)

const topic = "t"

// turn is where readers go back to the start, or they would follow the writers and
// never meet the bucket.
const turn = 200

// soon bounds every wait.
const soon = 20 * time.Second

// incarnation is one life of the topic.
type incarnation struct {
	n       int
	id      [16]byte
	deleted atomic.Bool // set before the deletion is asked for

	mu    sync.Mutex
	acked map[int64]string
}

// name is the id as Kafka prints it.
func (i *incarnation) name() string { return base64.RawURLEncoding.EncodeToString(i.id[:]) }

// folder is part of every key of the incarnation's objects.
func (i *incarnation) folder() string {
	return "/topics/" + i.name() + "/"
}

func (i *incarnation) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.acked)
}

type world struct {
	t     *testing.T
	n     *node.Node
	proxy *proxy.Proxy
	url   string // of the bucket, not through the proxy
	env   []string
	cl    *kgo.Client // speaks topic ids
	named *kgo.Client // speaks topic names
	admin *kgo.Client // tries again, as the others must not
	lives []*incarnation
	now   atomic.Int64 // the newest incarnation whose creation was answered
	wg    sync.WaitGroup
	stop  context.CancelFunc
	ctx   context.Context
	reads atomic.Int64 // records of the topic that were read and checked
}

func newWorld(t *testing.T) *world {
	store := s3.ServeVersityGW(t, t.TempDir())
	p := proxy.Start(t, store.URL)
	bucket := store.NewBucket(t)
	n := node.New(t, "--bucket", store.Through(p.URL).URLOf(bucket, "logs", ""), "--cache-size", "1MiB")
	n.Env = store.Env()
	n.Up()
	w := &world{t: t, n: n, proxy: p, url: store.URLOf(bucket, "logs", ""), env: store.Env()}
	w.connect()
	w.ctx, w.stop = context.WithCancel(context.Background())
	t.Cleanup(func() {
		w.stop()
		w.wg.Wait()
	})
	return w
}

func (w *world) connect() {
	for _, c := range []struct {
		cl   **kgo.Client
		opts []kgo.Opt
	}{{&w.cl, []kgo.Opt{kgo.RequestRetries(0)}}, {&w.named, []kgo.Opt{kgo.RequestRetries(0), kgo.MaxVersions(kversion.V2_8_0())}}, {&w.admin, nil}} {
		cl, err := kgo.NewClient(append(c.opts, kgo.SeedBrokers(w.n.Addr), kgo.MetadataMinAge(50*time.Millisecond))...)
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(cl.Close)
		*c.cl = cl
	}
}

func (w *world) until(what string, cond func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(soon)
	for !cond() {
		if w.t.Failed() {
			w.t.FailNow()
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("not in %v: %s", soon, what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// create begins the next incarnation, with writers and a reader of its own.
func (w *world) create() *incarnation {
	w.t.Helper()
	configs := map[string]*string{}
	for k, v := range map[string]string{"segment.bytes": "1048576", "local.retention.ms": "1", "firn.remote.max.unuploaded.ms": "1000"} {
		configs[k] = &v
	}
	ctx, cancel := context.WithTimeout(w.ctx, soon)
	defer cancel()
	r, err := kadm.NewClient(w.admin).CreateTopic(ctx, 1, 1, configs, topic)
	if err != nil {
		w.t.Fatalf("create: %v", err)
	}
	life := &incarnation{n: len(w.lives), id: r.ID, acked: map[int64]string{}}
	w.lives = append(w.lives, life)
	w.now.Store(int64(life.n))
	for i := range 2 {
		w.wg.Go(func() { w.write(life, i) })
	}
	w.wg.Go(func() { w.read(life) })
	return life
}

func (w *world) delete(life *incarnation) {
	w.t.Helper()
	life.deleted.Store(true)
	ctx, cancel := context.WithTimeout(w.ctx, soon)
	defer cancel()
	r, err := kadm.NewClient(w.admin).DeleteTopics(ctx, topic)
	if err = errors.Join(err, r[topic].Err); err != nil {
		w.t.Fatalf("delete: %v", err)
	}
}

// expected says whether an incarnation that may be gone can answer with code.
func expected(life *incarnation, code int16) bool {
	switch kerr.ErrorForCode(code) {
	case kerr.NotLeaderForPartition: // being opened
		return true
	case kerr.UnknownTopicID, kerr.UnknownTopicOrPartition, kerr.KafkaStorageError, kerr.OffsetOutOfRange:
		return life.deleted.Load()
	}
	return false
}

// write produces to the incarnation, by its id, until it is gone.
func (w *world) write(life *incarnation, writer int) {
	padding := strings.Repeat("x", 20_000)
	for seq := 0; w.ctx.Err() == nil; seq++ {
		value := fmt.Sprintf("%d/%d/%d/%s", life.n, writer, seq, padding)
		b := record.NewBuilder(record.NewBatchOptions())
		b.Append(record.Record{TimestampDelta: time.Now().UnixMilli(), Value: []byte(value)})
		p := kmsg.NewProduceRequestTopicPartition()
		p.Records = b.Build()
		rt := kmsg.NewProduceRequestTopic()
		rt.TopicID, rt.Partitions = life.id, append(rt.Partitions, p)
		req := kmsg.NewProduceRequest()
		req.Acks, req.TimeoutMillis, req.Topics = -1, 10_000, append(req.Topics, rt)
		resp, err := req.RequestWith(w.ctx, w.cl)
		if err != nil || len(resp.Topics) == 0 {
			pause()
			continue // the process was killed, or the test is over
		}
		got := resp.Topics[0].Partitions[0]
		switch {
		case got.ErrorCode == 0:
			life.mu.Lock()
			if old, dup := life.acked[got.BaseOffset]; dup {
				w.t.Errorf("incarnation %d: offset %d was acknowledged for %.20s and %.20s", life.n, got.BaseOffset, old, value)
			}
			life.acked[got.BaseOffset] = value
			life.mu.Unlock()
		case expected(life, got.ErrorCode):
			if life.deleted.Load() && kerr.ErrorForCode(got.ErrorCode) == kerr.UnknownTopicID {
				return
			}
		default:
			w.t.Errorf("incarnation %d: produce: %v", life.n, kerr.ErrorForCode(got.ErrorCode))
			return
		}
		pause()
	}
}

func pause() { <-time.After(time.Millisecond) }

// read reads the incarnation by its id from the start, again and again, until it
// is gone: most of it comes from the bucket.
func (w *world) read(life *incarnation) {
	for next := int64(0); w.ctx.Err() == nil; {
		code, records, err := w.fetch(w.cl, life.id, next)
		if err != nil {
			pause()
			continue
		}
		if code != 0 {
			if !expected(life, code) {
				w.t.Errorf("incarnation %d: fetch at %d: %v", life.n, next, kerr.ErrorForCode(code))
				return
			}
			if life.deleted.Load() && kerr.ErrorForCode(code) == kerr.UnknownTopicID {
				return
			}
			pause()
			continue
		}
		if len(records) == 0 {
			next = 0
			continue
		}
		for _, r := range records {
			w.check(life.n, life, r)
		}
		if next = records[len(records)-1].offset + 1; next > turn {
			next = 0
		}
	}
}

// readByName reads whatever has the name, as an old client does.
func (w *world) readByName() {
	for next := int64(0); w.ctx.Err() == nil; {
		at := int(w.now.Load()) // nothing older may come to a request that is sent from now on
		code, records, err := w.fetch(w.named, [16]byte{}, next)
		if err != nil || code != 0 || len(records) == 0 {
			if err != nil || code != 0 {
				pause()
			}
			next = 0
			continue
		}
		for _, r := range records {
			w.check(at, nil, r)
		}
		if next = records[len(records)-1].offset + 1; next > turn {
			next = 0
		}
	}
}

type row struct {
	offset int64
	value  string
}

// check fails the test for a record older than the incarnation, or, when life is
// given, one of another, or one that is not what was acknowledged.
func (w *world) check(oldest int, life *incarnation, r row) {
	tag, _, _ := strings.Cut(r.value, "/")
	n, err := strconv.Atoi(tag)
	if err != nil || n < oldest || life != nil && n != oldest {
		w.t.Errorf("a record of incarnation %d, offset %d, %.20s, was read where %d was asked for", n, r.offset, r.value, oldest)
		return
	}
	if life != nil {
		life.mu.Lock()
		want, ok := life.acked[r.offset]
		life.mu.Unlock()
		if ok && want != r.value {
			w.t.Errorf("incarnation %d, offset %d: read %.20s, acknowledged was %.20s", n, r.offset, r.value, want)
		}
	}
	w.reads.Add(1)
}

// fetch is one fetch of partition 0, by id, or by name where that is zero.
func (w *world) fetch(cl *kgo.Client, id [16]byte, at int64) (code int16, rows []row, err error) {
	p := kmsg.NewFetchRequestTopicPartition()
	p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch, p.LastFetchedEpoch = at, 200_000, -1, -1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID, rt.Partitions = topic, id, append(rt.Partitions, p)
	req := kmsg.NewFetchRequest()
	req.MaxBytes, req.MinBytes, req.MaxWaitMillis, req.SessionEpoch, req.Topics = 1<<20, 1, 100, -1, append(req.Topics, rt)
	ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
	defer cancel()
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return 0, nil, err
	}
	if len(resp.Topics) == 0 {
		return resp.ErrorCode, nil, nil
	}
	got := resp.Topics[0].Partitions[0]
	for rest := got.RecordBatches; len(rest) > 0; {
		b, more, err := record.Parse(rest)
		if errors.Is(err, record.ErrShort) {
			break
		}
		if err != nil {
			w.t.Errorf("a fetch answer does not parse: %v", err)
			return 0, nil, err
		}
		for r, err := range b.Records(1 << 20) {
			if err != nil {
				w.t.Errorf("a batch does not decode: %v", err)
				return 0, nil, err
			}
			if o := b.Offset(r); o >= at {
				rows = append(rows, row{o, string(r.Value)})
			}
		}
		rest = more
	}
	return got.ErrorCode, rows, nil
}

const group = "followers"

// commit commits the group's offset, committed reads it: -1 for none.
func (w *world) commit(at int64) {
	w.t.Helper()
	var o kadm.Offsets
	o.AddOffset(topic, 0, at, -1)
	ctx, cancel := context.WithTimeout(w.ctx, soon)
	defer cancel()
	if err := kadm.NewClient(w.admin).CommitAllOffsets(ctx, group, o); err != nil {
		w.t.Fatalf("commit: %v", err)
	}
	if got := w.committed(); got != at {
		w.t.Fatalf("the group is at %d, committed was %d", got, at)
	}
}

func (w *world) committed() int64 {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, soon)
	defer cancel()
	all, err := kadm.NewClient(w.admin).FetchOffsets(ctx, group)
	if err != nil {
		w.t.Fatalf("fetch of offsets: %v", err)
	}
	if o, ok := all.Lookup(topic, 0); ok {
		return o.At
	}
	return -1
}

// localStart is ListOffsets -4 of the incarnation that has the name.
func (w *world) localStart() int64 {
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Timestamp = -4
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic, rt.Partitions = topic, append(rt.Partitions, p)
	req := kmsg.NewListOffsetsRequest()
	req.ReplicaID, req.Topics = -1, append(req.Topics, rt)
	resp, err := req.RequestWith(w.ctx, w.admin)
	if err != nil || resp.Topics[0].Partitions[0].ErrorCode != 0 {
		return 0
	}
	return resp.Topics[0].Partitions[0].Offset
}

// hold stops the next request that fits until the returned function is called.
func (w *world) hold(method, match string) (met <-chan struct{}, release func()) {
	until, m := make(chan struct{}), make(chan struct{})
	var once, again sync.Once
	w.proxy.Inject(proxy.Rule{Action: proxy.Late, Method: method, Match: match, Until: until, Met: func(*http.Request) { once.Do(func() { close(m) }) }})
	release = func() { again.Do(func() { close(until) }) }
	w.t.Cleanup(release)
	return m, release
}

// verify reads the incarnation whole: what was acknowledged is there, dense.
func (w *world) verify(life *incarnation) {
	w.t.Helper()
	life.mu.Lock()
	acked := make(map[int64]string, len(life.acked))
	var end int64
	for o, v := range life.acked {
		acked[o] = v
		end = max(end, o+1)
	}
	life.mu.Unlock()
	deadline := time.Now().Add(soon)
	next := int64(0)
	for next < end {
		code, rows, err := w.fetch(w.cl, life.id, next)
		if time.Now().After(deadline) {
			w.t.Fatalf("reading stays at %d of %d: %v, %v", next, end, kerr.ErrorForCode(code), err)
		}
		for _, r := range rows {
			if r.offset != next {
				w.t.Fatalf("read offset %d where %d was due", r.offset, next)
			}
			if want, ok := acked[r.offset]; ok && want != r.value {
				w.t.Fatalf("offset %d: read %.20s, acknowledged was %.20s", r.offset, r.value, want)
			}
			delete(acked, r.offset)
			w.check(life.n, nil, r)
			next++
		}
	}
	if len(acked) > 0 {
		w.t.Fatalf("%d acknowledged records are missing", len(acked))
	}
}

// TestADeletedTopicStaysDeleted goes through the moments at which a deletion can
// meet an upload, a commit or a cold read under way: the request is held at the
// store, the topic deleted and made again, and only when the new one has taken
// records the old request lands.
func TestADeletedTopicStaysDeleted(t *testing.T) {
	w := newWorld(t)
	w.wg.Go(w.readByName)

	// Beside it a topic that nobody touches.
	bystander, err := kgo.NewClient(kgo.SeedBrokers(w.n.Addr), kgo.DefaultProduceTopic("bystander"), kgo.RecordRetries(1<<20), kgo.AllowAutoTopicCreation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bystander.Close)
	steady := ledger.New()
	steadyDone := make(chan struct{})
	steadyCtx, stopSteady := context.WithCancel(context.Background())
	t.Cleanup(stopSteady)
	go func() {
		defer close(steadyDone)
		for i := 0; steadyCtx.Err() == nil; i++ {
			r, err := bystander.ProduceSync(context.Background(), &kgo.Record{Value: fmt.Appendf(nil, "steady %d", i)}).First()
			if steady.Ack(r, err); err != nil {
				t.Errorf("the other topic: %v", err)
				return
			}
			pause()
		}
	}()

	rounds := []struct {
		what   string
		method string
		match  string // behind the incarnation's folder
		kill   bool
	}{
		{"an upload", http.MethodPut, "-", false},
		{"a commit", http.MethodPut, "manifest", false},
		{"a cold read", http.MethodGet, "-", false},
		{"a look at an uploaded object", http.MethodHead, "-", false},
		{"an upload, and a kill", http.MethodPut, "-", true},
		{"a cold read, and a kill", http.MethodGet, "-", true},
		{"nothing", "", "", false},
	}
	life := w.create()
	var wasKilled bool
	for _, round := range rounds {
		w.until("records of "+round.what, func() bool { return life.count() >= 100 })
		release := func() {}
		if round.method != "" {
			if round.method == http.MethodGet {
				w.until("a cold log", func() bool { return w.localStart() > 0 })
			}
			match := life.folder() + "0/"
			if round.match == "-" {
				match += "0" // of an object's name, which is an offset
			} else {
				match += round.match
			}
			var met <-chan struct{}
			met, release = w.hold(round.method, match)
			select {
			case <-met:
			case <-time.After(soon):
				t.Fatalf("%s did not come", round.what)
			}
		}
		w.commit(int64(life.count()))
		began := time.Now()
		w.delete(life)
		old := life
		life = w.create()
		if at := w.committed(); at != -1 {
			t.Errorf("%s: the group begins the new topic at %d, its offset in the old", round.what, at)
		}
		w.until(fmt.Sprintf("the new topic takes records while %s of the old is under way", round.what), func() bool { return life.count() >= 20 })
		t.Logf("%s: the new topic has taken 20 records after %v", round.what, time.Since(began).Round(time.Millisecond))
		if round.kill {
			w.n.Kill()
			release()
			w.n.Up()
			wasKilled = true
		}
		release()
		w.proxy.Heal()
		if old.count() == 0 {
			t.Fatal("BUG: the old topic was empty")
		}
	}
	if !wasKilled {
		t.Fatal("BUG: nothing was killed")
	}
	w.until("records of the last", func() bool { return life.count() >= 300 && w.localStart() > 0 })
	w.verify(life)

	stopSteady()
	<-steadyDone
	w.stop()
	w.wg.Wait()
	w.ctx, w.stop = context.WithCancel(context.Background())

	// Once more after a clean restart, with an empty cache.
	w.n.Stop()
	if err := os.RemoveAll(filepath.Join(w.n.DataDir, "cache")); err != nil {
		t.Fatal(err)
	}
	w.n.Up()
	w.connect()
	w.verify(life)
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if err := steady.Verify(ctx, "bystander", kgo.SeedBrokers(w.n.Addr)); err != nil {
		t.Errorf("the other topic: %v", err)
	}

	// What the old ones had is gone from the disk, and doomed in the bucket.
	var gone []string
	for _, l := range w.lives[:len(w.lives)-1] {
		gone = append(gone, hex.EncodeToString(l.id[:]))
	}
	w.until("the old topics' folders go", func() bool {
		return !slices.ContainsFunc(gone, func(name string) bool {
			_, err := os.Stat(filepath.Join(w.n.DataDir, "log", name))
			return err == nil
		})
	})
	w.until("the old topics are unlinked in the bucket", func() bool {
		states := w.states()
		for id, state := range states {
			if live := id == life.name(); live != (state == "live") {
				return false
			}
		}
		return states[life.name()] == "live"
	})
	t.Logf("%d incarnations, %d records read and checked", len(w.lives), w.reads.Load())
	if w.reads.Load() < 1000 {
		t.Errorf("only %d records were read", w.reads.Load())
	}
}

// states are those of the topics in the bucket that have the name, by id.
func (w *world) states() map[string]string {
	w.t.Helper()
	cmd := w.n.Command()
	cmd.Args = []string{cmd.Args[0], "bucket", "ls", topic, "--bucket", w.url, "-o", "json"}
	raw, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("bucket ls: %v", err)
	}
	var all []struct {
		ID    string `json:"topic_id"`
		State string `json:"state"`
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		w.t.Fatalf("%v in %s", err, raw)
	}
	states := map[string]string{}
	for _, t := range all {
		states[t.ID] = t.State
	}
	return states
}
