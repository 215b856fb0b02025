// Package groups tests consumer groups from outside: real consumers of one firn
// process, which join, leave, die and commit, and a server that dies too.
package groups

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/firnlog/firn/integration/node"
)

const partitions = 6

// fast makes a new group begin at once instead of after 3 s, and lets a session be
// short.
var fast = []string{"--set", "group.initial.rebalance.delay.ms=100", "--set", "group.min.session.timeout.ms=1000"}

func client(t *testing.T, n *node.Node, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(n.Addr), kgo.MetadataMinAge(50 * time.Millisecond)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// consumer is one member; it says what it is assigned.
type consumer struct {
	cl *kgo.Client

	mu    sync.Mutex
	owned map[int32]bool
	moved chan<- struct{}
	net   *network
}

// network is a client's way to the server, which can be cut.
type network struct {
	mu    sync.Mutex
	conns []net.Conn
	gone  bool
}

func (w *network) dial(ctx context.Context, proto, addr string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gone {
		return nil, errors.New("the network is gone")
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, proto, addr)
	if err == nil {
		w.conns = append(w.conns, c)
	}
	return c, err
}

// cut takes the client off the network: it cannot even say that it leaves.
func (w *network) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = true
	for _, c := range w.conns {
		c.Close()
	}
}

func consume(t *testing.T, n *node.Node, group, topic string, moved chan<- struct{}, opts ...kgo.Opt) *consumer {
	t.Helper()
	c := &consumer{owned: map[int32]bool{}, moved: moved, net: &network{}}
	take := func(now bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, m map[string][]int32) {
			c.mu.Lock()
			for _, p := range m[topic] {
				if now {
					c.owned[p] = true
				} else {
					delete(c.owned, p)
				}
			}
			c.mu.Unlock()
			select {
			case moved <- struct{}{}:
			default:
			}
		}
	}
	c.cl = client(t, n, append([]kgo.Opt{
		kgo.Dialer(c.net.dial), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(3 * time.Second), kgo.HeartbeatInterval(200 * time.Millisecond),
		kgo.RebalanceTimeout(10 * time.Second), kgo.OnPartitionsAssigned(take(true)), kgo.OnPartitionsRevoked(take(false)), kgo.OnPartitionsLost(take(false)),
	}, opts...)...)
	return c
}

func (c *consumer) has() []int32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []int32
	for p := range c.owned {
		all = append(all, p)
	}
	slices.Sort(all)
	return all
}

// spread waits until the members together own each partition once, and each of
// them owns an even share.
func spread(t *testing.T, moved <-chan struct{}, all ...*consumer) {
	t.Helper()
	ctx := within(t)
	for {
		owners := map[int32]int{}
		even := true
		for _, c := range all {
			have := c.has()
			even = even && len(have) == partitions/len(all)
			for _, p := range have {
				owners[p]++
			}
		}
		if even && len(owners) == partitions {
			return
		}
		select {
		case <-moved:
		case <-ctx.Done():
			t.Fatalf("the partitions never were spread over %d members: %v", len(all), owners)
		}
	}
}

func produce(t *testing.T, n *node.Node, topic string, from, to int) {
	t.Helper()
	cl := client(t, n, kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	var records []*kgo.Record
	for i := from; i < to; i++ {
		records = append(records, &kgo.Record{Partition: int32(i % partitions), Value: fmt.Appendf(nil, "%d", i)})
	}
	if err := cl.ProduceSync(within(t), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func newTopic(t *testing.T, n *node.Node, topic string) *kadm.Client {
	t.Helper()
	adm := kadm.NewClient(client(t, n))
	if _, err := adm.CreateTopic(within(t), partitions, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
	return adm
}

// read polls until the members have read n records, and commits what it read.
func read(t *testing.T, n int, all ...*consumer) (values []string) {
	t.Helper()
	ctx := within(t)
	var mu sync.Mutex
	var wg sync.WaitGroup
	ctx, done := context.WithCancel(ctx)
	defer done()
	for _, c := range all {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for ctx.Err() == nil {
				fs := c.cl.PollFetches(ctx)
				var got []*kgo.Record
				fs.EachRecord(func(r *kgo.Record) { got = append(got, r) })
				if len(got) == 0 {
					continue
				}
				if err := c.cl.CommitRecords(context.WithoutCancel(ctx), got...); err != nil {
					t.Errorf("commit: %v", err)
					return
				}
				mu.Lock()
				for _, r := range got {
					values = append(values, string(r.Value))
				}
				if len(values) >= n {
					done()
				}
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	if len(values) != n {
		t.Fatalf("read %d records, want %d", len(values), n)
	}
	return values
}

func committedAt(t *testing.T, adm *kadm.Client, group, topic string) map[int32]int64 {
	t.Helper()
	got, err := adm.FetchOffsets(within(t), group)
	if err != nil {
		t.Fatal(err)
	}
	out := map[int32]int64{}
	for p, o := range got[topic] {
		out[p] = o.At
	}
	return out
}

func wantExactly(t *testing.T, values []string, from, to int) {
	t.Helper()
	seen := map[string]int{}
	for _, v := range values {
		seen[v]++
	}
	for i := from; i < to; i++ {
		if seen[fmt.Sprint(i)] != 1 {
			t.Fatalf("record %d was read %d times", i, seen[fmt.Sprint(i)])
		}
	}
	if len(values) != to-from {
		t.Fatalf("%d records were read, want %d", len(values), to-from)
	}
}

// TestGroupResumesExactlyAfterAKill lets three members share a topic, one leave and
// one die; then the server is killed. Whoever comes after that reads on exactly at
// the committed offsets: no record twice, none never.
func TestGroupResumesExactlyAfterAKill(t *testing.T) {
	n := node.Start(t, fast...)
	adm := newTopic(t, n, "work")
	produce(t, n, "work", 0, 600)
	moved := make(chan struct{}, 1)
	a := consume(t, n, "crew", "work", moved)
	b := consume(t, n, "crew", "work", moved)
	c := consume(t, n, "crew", "work", moved)
	spread(t, moved, a, b, c)
	values := read(t, 600, a, b, c)
	wantExactly(t, values, 0, 600)

	// One leaves: the others take over at once, well before any session ends.
	a.cl.Close()
	spread(t, moved, b, c)
	// One dies without a word: its session has to end first.
	c.net.cut()
	spread(t, moved, b)
	produce(t, n, "work", 600, 900)
	wantExactly(t, read(t, 300, b), 600, 900)

	before := committedAt(t, adm, "crew", "work")
	if len(before) != partitions {
		t.Fatalf("offsets of %d partitions are committed: %v", len(before), before)
	}
	n.Kill()
	n.Up()
	if after := committedAt(t, adm, "crew", "work"); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Fatalf("committed before the kill %v, after it %v", before, after)
	}
	produce(t, n, "work", 900, 1200)
	// The member of before is still one; a new one joins it.
	d := consume(t, n, "crew", "work", moved)
	spread(t, moved, b, d)
	wantExactly(t, read(t, 300, b, d), 900, 1200)
}

// TestStaticMemberReturnsWithoutARebalance restarts a member that has an instance
// id: the other one notices nothing.
func TestStaticMemberReturnsWithoutARebalance(t *testing.T) {
	n := node.Start(t, fast...)
	adm := newTopic(t, n, "static")
	moved := make(chan struct{}, 1)
	a := consume(t, n, "fixed", "static", moved, kgo.InstanceID("a"), kgo.SessionTimeout(30*time.Second))
	b := consume(t, n, "fixed", "static", moved, kgo.InstanceID("b"), kgo.SessionTimeout(30*time.Second))
	spread(t, moved, a, b)
	was := describe(t, adm, "fixed")
	a.cl.Close() // a static member does not leave
	again := consume(t, n, "fixed", "static", moved, kgo.InstanceID("a"), kgo.SessionTimeout(30*time.Second))
	spread(t, moved, again, b)
	if got, want := again.has(), a.has(); len(want) > 0 && !slices.Equal(got, want) {
		t.Fatalf("it owned %v and now %v", want, got)
	}
	is := describe(t, adm, "fixed")
	if was.State != "Stable" || is.State != "Stable" || len(is.Members) != 2 {
		t.Fatalf("the group was %s and is %s with %d members", was.State, is.State, len(is.Members))
	}
}

func describe(t *testing.T, adm *kadm.Client, group string) kadm.DescribedGroup {
	t.Helper()
	all, err := adm.DescribeGroups(within(t), group)
	if err != nil || all[group].Err != nil {
		t.Fatalf("describe: %v, %v", err, all[group].Err)
	}
	return all[group]
}

// TestAdminOfGroups takes the tools' way through a group's life: commit from
// outside, list, describe, delete offsets, refuse to delete what has members,
// delete, and a topic's deletion taking its offsets with it.
func TestAdminOfGroups(t *testing.T) {
	n := node.Start(t, fast...)
	adm := newTopic(t, n, "t")
	ctx := within(t)
	var offsets kadm.Offsets
	for p := range int32(partitions) {
		offsets.Add(kadm.Offset{Topic: "t", Partition: p, At: int64(p) * 10, LeaderEpoch: -1, Metadata: "note"})
	}
	if err := adm.CommitAllOffsets(ctx, "tools", offsets); err != nil {
		t.Fatal(err)
	}
	if err := adm.CommitAllOffsets(ctx, "other", offsets); err != nil {
		t.Fatal(err)
	}
	listed, err := adm.ListGroups(ctx)
	if err != nil || len(listed) != 2 || listed["tools"].State != "Empty" {
		t.Fatalf("listed: %+v %v", listed, err)
	}
	if listed, err = adm.ListGroups(ctx, "Stable"); err != nil || len(listed) != 0 {
		t.Fatalf("stable ones: %+v %v", listed, err)
	}
	out, _, err := n.CLI(ctx, nil, "group", "list")
	if err != nil || !strings.Contains(out, "tools") {
		t.Fatalf("firn group list: %v\n%s", err, out)
	}
	out, errText, err := n.CLI(ctx, nil, "group", "describe", "tools", "-o", "json")
	var described []struct {
		State      string
		Lag        int64
		Partitions []struct {
			Committed int64 `json:"committed_offset"`
		}
	}
	if err != nil || json.Unmarshal([]byte(out), &described) != nil || len(described) != 1 || len(described[0].Partitions) != partitions || described[0].State != "Empty" {
		t.Fatalf("firn group describe: %v %s\n%s", err, errText, out)
	}
	if _, _, err := n.CLI(ctx, nil, "group", "describe", "nobody"); err == nil {
		t.Error("a group that does not exist was described")
	}
	moved := make(chan struct{}, 1)
	m := consume(t, n, "tools", "t", moved)
	spread(t, moved, m)
	if res, err := adm.DeleteGroups(ctx, "tools"); err != nil || res["tools"].Err != kerr.NonEmptyGroup {
		t.Fatalf("a group with a member: %v %+v", err, res)
	}
	if res, err := adm.DeleteOffsets(ctx, "tools", kadm.TopicsSet{"t": {0: {}}}); err != nil || res["t"][0] != kerr.GroupSubscribedToTopic {
		t.Fatalf("offsets of a topic that is read: %v %+v", err, res)
	}
	m.cl.Close()
	if res, err := adm.DeleteOffsets(ctx, "tools", kadm.TopicsSet{"t": {0: {}}}); err != nil || res["t"][0] != nil {
		t.Fatalf("delete offsets: %v %+v", err, res)
	}
	if got := committedAt(t, adm, "tools", "t"); len(got) != partitions-1 {
		t.Fatalf("after the deletion of one: %v", got)
	}
	if res, err := adm.DeleteGroups(ctx, "tools"); err != nil || res["tools"].Err != nil {
		t.Fatalf("delete: %v %+v", err, res)
	}
	if res, err := adm.DeleteGroups(ctx, "tools"); err != nil || res["tools"].Err != kerr.GroupIDNotFound {
		t.Fatalf("delete again: %v %+v", err, res)
	}
	if _, err := adm.DeleteTopics(ctx, "t"); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for len(committedAt(t, adm, "other", "t")) > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the offsets of a deleted topic stay")
		}
	}
	n.Kill()
	n.Up()
	if got := committedAt(t, adm, "other", "t"); len(got) > 0 {
		t.Fatalf("after a kill they are back: %v", got)
	}
}

// TestKillKeepsAcknowledgedCommits kills the server while many groups commit, again
// and again: each group's offset is the last one acknowledged, or the one that was
// on its way.
func TestKillKeepsAcknowledgedCommits(t *testing.T) {
	const workers, kills, between = 8, 4, 400
	n := node.Start(t, fast...)
	newTopic(t, n, "t")
	type worker struct{ acked, asked int64 }
	all := make([]worker, workers)
	for round := range kills {
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(within(t))
		var acks atomic.Int64
		enough := make(chan struct{})
		for i := range all {
			w := &all[i]
			adm := kadm.NewClient(client(t, n))
			wg.Add(1)
			go func() {
				defer wg.Done()
				for ctx.Err() == nil {
					w.asked++
					var o kadm.Offsets
					o.Add(kadm.Offset{Topic: "t", Partition: 1, At: w.asked, LeaderEpoch: -1})
					if err := adm.CommitAllOffsets(ctx, fmt.Sprint("w", i), o); err != nil {
						return // what became of it is not known
					}
					w.acked = w.asked
					if acks.Add(1) == between {
						close(enough)
					}
				}
			}()
		}
		select {
		case <-enough:
		case <-ctx.Done():
			t.Fatal("the groups do not commit")
		}
		n.Kill()
		cancel()
		wg.Wait()
		n.Up()
		adm := kadm.NewClient(client(t, n))
		for i := range all {
			got := committedAt(t, adm, fmt.Sprint("w", i), "t")[1]
			if got != all[i].acked && got != all[i].asked {
				t.Fatalf("round %d: group %d is at %d; %d was acknowledged and %d asked", round, i, got, all[i].acked, all[i].asked)
			}
			all[i] = worker{got, got}
		}
	}
}
