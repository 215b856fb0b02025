package broker

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/group"
	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/metadata/memory"
	"github.com/firnlog/firn/record"
	"github.com/firnlog/firn/replication"
)

// groupServer serves groups on a real disk, with the topics t and u.
func groupServer(t *testing.T, more ...func(*Config)) (addr string, meta *metadata.Client) {
	t.Helper()
	addr, meta, stop := serveAt(t, t.TempDir(), memory.NewServer(1, time.Now), more...)
	t.Cleanup(stop)
	for _, topic := range []string{"t", "u"} {
		if _, err := meta.EnsureTopic(t.Context(), metadata.NewTopic{Name: topic, Partitions: 3, ReplicationFactor: 1}); err != nil {
			t.Fatal(err)
		}
	}
	return addr, meta
}

// serveAt serves what lies in a folder and a metadata store. Once stopped it may be
// started again from them.
func serveAt(t *testing.T, path string, store *memory.Server, more ...func(*Config)) (addr string, meta *metadata.Client, stop func()) {
	t.Helper()
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	logger := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	dir, err := replication.OpenDataDir(disk.OS(), path, "c", 1)
	must(err)
	meta, err = metadata.Open(ctx, metadata.Config{Store: store.Open(), Cluster: "c", NodeID: 1, Now: time.Now})
	must(err)
	must(dir.Adopt(meta.Image().ClusterID()))
	must(meta.RegisterBroker(ctx, metadata.Broker{Node: 1, Incarnation: dir.Meta.Incarnation, DirIDs: []string{dir.Meta.DirID}}))
	flusher := commitlog.NewFlusher(1)
	manager, err := replication.NewManager(replication.Config{Dirs: []*replication.DataDir{dir}, Cluster: meta, NodeID: 1, Now: time.Now, Logger: logger, Flusher: flusher})
	must(err)
	must(manager.Start(ctx))
	limits := group.LimitsOf(meta.Image().BrokerConfig())
	limits.InitialDelay, limits.Partitions = 0, 2
	groups, err := group.New(group.Config{
		Cluster: meta, NodeID: 1, Now: time.Now, Logger: logger, Limits: limits,
		Partition: func(n int32) (group.Log, error) {
			p, err := manager.ByName(group.Topic, n)
			if err != nil {
				return nil, err
			}
			return group.PartitionLog{P: p}, nil
		},
	})
	must(err)
	cfg := Config{Metadata: meta, Replication: manager, Groups: groups, NodeID: 1, Now: time.Now, Logger: logger}
	for _, f := range more {
		f(&cfg)
	}
	s := New(cfg)
	b, err := Listen(Listener{Name: "T", Address: "127.0.0.1:0"}, net.Listen)
	must(err)
	s.Serve(b)
	return b.Addr().String(), meta, func() {
		s.Close()
		groups.Close()
		clean := manager.Close()
		flusher.Close()
		meta.Close()
		dir.Close(clean)
	}
}

// asker is a client that sends one request at a time, or several at once.
type asker struct {
	t  *testing.T
	nc net.Conn
	n  int32
}

func dialAsker(t *testing.T, addr string) *asker {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &asker{t: t, nc: nc}
}

func (a *asker) send(version int16, req kmsg.Request) {
	a.t.Helper()
	a.n++
	req.SetVersion(version)
	if _, err := a.nc.Write(rawFrame(req.Key(), version, a.n, req.AppendTo(nil), req.IsFlexible())); err != nil {
		a.t.Fatal(err)
	}
}

// receive reads the answer to the oldest request that has none.
func receive[R kmsg.Response](a *asker, version int16, resp R) R {
	a.t.Helper()
	a.nc.SetReadDeadline(time.Now().Add(20 * time.Second))
	var size [4]byte
	if _, err := io.ReadFull(a.nc, size[:]); err != nil {
		a.t.Fatalf("%T v%d: %v", resp, version, err)
	}
	p := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(a.nc, p); err != nil {
		a.t.Fatal(err)
	}
	resp.SetVersion(version)
	p = p[4:]
	if resp.IsFlexible() && resp.Key() != 18 {
		p = p[1:]
	}
	if err := resp.ReadFrom(p); err != nil {
		a.t.Fatalf("%T v%d: %v", resp, version, err)
	}
	return resp
}

func ask[R kmsg.Response](a *asker, version int16, req kmsg.Request, resp R) R {
	a.t.Helper()
	a.send(version, req)
	return receive(a, version, resp)
}

func find(a *asker, group string) {
	a.t.Helper()
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorKey = group
	if r := ask(a, 2, req, kmsg.NewPtrFindCoordinatorResponse()); r.ErrorCode != 0 {
		a.t.Fatalf("find: %d %s", r.ErrorCode, text(r.ErrorMessage))
	}
}

func str(s string) *string { return &s }

// TestCoordinatorIsFound asks in every version, for groups and transactions.
func TestCoordinatorIsFound(t *testing.T) {
	addr, meta := groupServer(t)
	a := dialAsker(t, addr)
	for v := int16(0); v <= 6; v++ {
		for kind := int8(0); kind <= 2; kind++ {
			if v == 0 && kind > 0 {
				continue
			}
			req := kmsg.NewPtrFindCoordinatorRequest()
			req.CoordinatorKey, req.CoordinatorType, req.CoordinatorKeys = "g", kind, []string{"g", "", "h"}
			r := ask(a, v, req, kmsg.NewPtrFindCoordinatorResponse())
			got := r.Coordinators
			if v < 4 {
				got = []kmsg.FindCoordinatorResponseCoordinator{{ErrorCode: r.ErrorCode, NodeID: r.NodeID, Host: r.Host, Port: r.Port}}
			} else if len(got) != 3 || got[2].Key != "h" {
				t.Fatalf("v%d: %+v", v, got)
			}
			for _, c := range got {
				if kind == 2 && (c.ErrorCode != codeInvalidRequest || c.NodeID != -1) {
					t.Errorf("v%d, share group: %+v", v, c)
				}
				if kind < 2 && (c.ErrorCode != 0 || c.NodeID != 1 || c.Host != "127.0.0.1" || c.Port == 0) {
					t.Errorf("v%d, type %d: %+v", v, kind, c)
				}
			}
		}
	}
	if topic, ok := meta.Image().TopicByName(group.Topic); !ok || !topic.Internal {
		t.Errorf("the topic is %+v", topic)
	}
}

// TestGroupsLifeInEveryVersion takes one member through a group in each version of
// each API: join, sync, heartbeat, commit, fetch, describe, list, leave, delete.
func TestGroupsLifeInEveryVersion(t *testing.T) {
	addr, meta := groupServer(t)
	topic, _ := meta.Image().TopicByName("t")
	a := dialAsker(t, addr)
	find(a, "nobody") // the other partition
	for v := int16(0); v <= 10; v++ {
		id := fmt.Sprint("group-", v)
		find(a, id)

		join := kmsg.NewPtrJoinGroupRequest()
		join.Group, join.SessionTimeoutMillis, join.RebalanceTimeoutMillis, join.ProtocolType = id, 10_000, 10_000, "consumer"
		join.Reason = str("to see")
		p := kmsg.NewJoinGroupRequestProtocol()
		sub := kmsg.NewConsumerMemberMetadata()
		sub.Topics = []string{"t"}
		p.Name, p.Metadata = "range", sub.AppendTo(nil)
		join.Protocols = append(join.Protocols, p)
		jv := min(v, 9)
		j := ask(a, jv, join, kmsg.NewPtrJoinGroupResponse())
		if jv >= 4 {
			if j.ErrorCode != 79 || j.MemberID == "" || j.Generation != -1 {
				t.Fatalf("v%d: the first join: %+v", jv, j)
			}
			join.MemberID = j.MemberID
			j = ask(a, jv, join, kmsg.NewPtrJoinGroupResponse())
		}
		if j.ErrorCode != 0 || j.Generation != 1 || j.LeaderID != j.MemberID || len(j.Members) != 1 || text(j.Protocol) != "range" || jv >= 7 && text(j.ProtocolType) != "consumer" {
			t.Fatalf("v%d: join: %+v", jv, j)
		}

		sync := kmsg.NewPtrSyncGroupRequest()
		sync.Group, sync.MemberID, sync.Generation, sync.ProtocolType, sync.Protocol = id, j.MemberID, 1, str("consumer"), str("range")
		ga := kmsg.NewSyncGroupRequestGroupAssignment()
		ga.MemberID, ga.MemberAssignment = j.MemberID, []byte("mine")
		sync.GroupAssignment = append(sync.GroupAssignment, ga)
		if r := ask(a, min(v, 5), sync, kmsg.NewPtrSyncGroupResponse()); r.ErrorCode != 0 || string(r.MemberAssignment) != "mine" || v >= 5 && text(r.Protocol) != "range" {
			t.Fatalf("v%d: sync: %+v", v, r)
		}

		beat := kmsg.NewPtrHeartbeatRequest()
		beat.Group, beat.MemberID, beat.Generation = id, j.MemberID, 1
		if r := ask(a, min(v, 4), beat, kmsg.NewPtrHeartbeatResponse()); r.ErrorCode != 0 {
			t.Fatalf("v%d: heartbeat: %+v", v, r)
		}

		commit := kmsg.NewPtrOffsetCommitRequest()
		commit.Group, commit.MemberID, commit.Generation = id, j.MemberID, 1
		ct := kmsg.NewOffsetCommitRequestTopic()
		ct.Topic, ct.TopicID = "t", topic.ID
		for n := range int32(4) {
			cp := kmsg.NewOffsetCommitRequestTopicPartition()
			cp.Partition, cp.Offset, cp.LeaderEpoch, cp.Metadata = n, 100+int64(n), 5, str("note")
			ct.Partitions = append(ct.Partitions, cp)
		}
		nt := kmsg.NewOffsetCommitRequestTopic()
		nt.Topic, nt.TopicID, nt.Partitions = "none", [16]byte{9}, ct.Partitions[:1]
		commit.Topics = append(commit.Topics, ct, nt)
		cv := max(v, 2)
		c := ask(a, cv, commit, kmsg.NewPtrOffsetCommitResponse())
		unknown := codeUnknownTopic
		if cv >= 10 {
			unknown = codeUnknownTopicID
		}
		if got := c.Topics[0].Partitions; len(got) != 4 || got[0].ErrorCode != 0 || got[2].ErrorCode != 0 || got[3].ErrorCode != codeUnknownTopic || c.Topics[1].Partitions[0].ErrorCode != unknown {
			t.Fatalf("v%d: commit: %+v", cv, c)
		}
		if cv >= 10 && c.Topics[0].TopicID != topic.ID {
			t.Fatalf("v%d: commit: %+v", cv, c)
		}

		fv := max(v, 1)
		for _, all := range []bool{false, true} {
			if all && fv < 2 {
				continue
			}
			fetch := kmsg.NewPtrOffsetFetchRequest()
			fetch.Group, fetch.RequireStable = id, true
			g := kmsg.NewOffsetFetchRequestGroup()
			g.Group = id
			if !all {
				ft := kmsg.NewOffsetFetchRequestTopic()
				ft.Topic, ft.Partitions = "t", []int32{2, 9}
				fetch.Topics = append(fetch.Topics, ft)
				gt := kmsg.NewOffsetFetchRequestGroupTopic()
				gt.Topic, gt.TopicID, gt.Partitions = "t", topic.ID, []int32{2, 9}
				g.Topics = append(g.Topics, gt)
			}
			other := kmsg.NewOffsetFetchRequestGroup()
			other.Group, other.Topics = "nobody", g.Topics
			fetch.Groups = append(fetch.Groups, g, other)
			f := ask(a, fv, fetch, kmsg.NewPtrOffsetFetchResponse())
			if fv < 8 {
				got := f.Topics[0].Partitions
				if f.ErrorCode != 0 || !all && (got[0].Offset != 102 || text(got[0].Metadata) != "note" || got[1].Offset != -1) || all && len(got) != 3 {
					t.Fatalf("v%d: fetch, all %v: %+v", fv, all, f)
				}
				continue
			}
			got := f.Groups[0].Topics[0]
			if len(f.Groups) != 2 || f.Groups[0].ErrorCode != 0 || !all && (got.Partitions[0].Offset != 102 || got.Partitions[0].LeaderEpoch != 5 || got.Partitions[1].Offset != -1) ||
				all && (len(got.Partitions) != 3 || len(f.Groups[1].Topics) != 0) || fv >= 10 && got.TopicID != topic.ID {
				t.Fatalf("v%d: fetch, all %v: %+v", fv, all, f)
			}
		}

		dv := min(v, 6)
		describe := kmsg.NewPtrDescribeGroupsRequest()
		describe.Groups, describe.IncludeAuthorizedOperations = []string{id, "nobody"}, true
		d := ask(a, dv, describe, kmsg.NewPtrDescribeGroupsResponse())
		if g := d.Groups[0]; g.ErrorCode != 0 || g.State != "Stable" || g.Protocol != "range" || len(g.Members) != 1 || string(g.Members[0].MemberAssignment) != "mine" || g.Members[0].ClientHost != "/127.0.0.1" || dv >= 3 && g.AuthorizedOperations == 0 {
			t.Fatalf("v%d: describe: %+v", dv, g)
		}
		if g := d.Groups[1]; g.State != "Dead" || dv < 6 && g.ErrorCode != 0 || dv >= 6 && g.ErrorCode != codeGroupIDNotFound {
			t.Fatalf("v%d: describe nobody: %+v", dv, g)
		}

		lv := min(v, 5)
		for filter, want := range map[string]int{"": int(v) + 1, "stable": 1, "Dead": 0} {
			list := kmsg.NewPtrListGroupsRequest()
			if filter != "" {
				if lv < 4 {
					continue
				}
				list.StatesFilter = []string{filter}
			}
			if l := ask(a, lv, list, kmsg.NewPtrListGroupsResponse()); l.ErrorCode != 0 || len(l.Groups) != want || want > 0 && lv >= 5 && l.Groups[0].GroupType != "classic" {
				t.Fatalf("v%d: list %q: %+v, want %d", lv, filter, l, want)
			}
		}
		if lv >= 5 {
			list := kmsg.NewPtrListGroupsRequest()
			list.TypesFilter = []string{"consumer"}
			if l := ask(a, lv, list, kmsg.NewPtrListGroupsResponse()); len(l.Groups) != 0 {
				t.Fatalf("consumer groups: %+v", l)
			}
		}

		leave := kmsg.NewPtrLeaveGroupRequest()
		leave.Group, leave.MemberID = id, j.MemberID
		lm := kmsg.NewLeaveGroupRequestMember()
		lm.MemberID = j.MemberID
		who := kmsg.NewLeaveGroupRequestMember()
		who.MemberID = "who"
		leave.Members = append(leave.Members, lm, who)
		l := ask(a, min(v, 5), leave, kmsg.NewPtrLeaveGroupResponse())
		if l.ErrorCode != 0 || v >= 3 && (len(l.Members) != 2 || l.Members[0].ErrorCode != 0 || l.Members[1].ErrorCode != 25) {
			t.Fatalf("v%d: leave: %+v", v, l)
		}

		del := kmsg.NewPtrDeleteGroupsRequest()
		del.Groups = []string{"nobody"}
		dg := ask(a, min(v, 3), del, kmsg.NewPtrDeleteGroupsResponse())
		if len(dg.Groups) != 1 || dg.Groups[0].ErrorCode != codeGroupIDNotFound || v >= 3 && dg.Groups[0].ErrorMessage == nil {
			t.Fatalf("v%d: delete nobody: %+v", v, dg)
		}
	}
	del := kmsg.NewPtrDeleteGroupsRequest()
	del.Groups = []string{"group-1", "group-2", "group-1"}
	if r := ask(a, 2, del, kmsg.NewPtrDeleteGroupsResponse()); len(r.Groups) != 2 || r.Groups[0].ErrorCode != 0 || r.Groups[1].ErrorCode != 0 {
		t.Fatalf("delete: %+v", r)
	}
}

// TestGroupRefusals checks Kafka's codes for what is wrong.
func TestGroupRefusals(t *testing.T) {
	addr, _ := groupServer(t)
	a := dialAsker(t, addr)
	joinOf := func() *kmsg.JoinGroupRequest {
		r := kmsg.NewPtrJoinGroupRequest()
		r.Group, r.SessionTimeoutMillis, r.RebalanceTimeoutMillis, r.ProtocolType = "g", 10_000, 10_000, "consumer"
		p := kmsg.NewJoinGroupRequestProtocol()
		p.Name, p.Metadata = "range", []byte{}
		r.Protocols = append(r.Protocols, p)
		return r
	}
	commitOf := func(generation int32) *kmsg.OffsetCommitRequest {
		r := kmsg.NewPtrOffsetCommitRequest()
		r.Group, r.Generation, r.MemberID = "g", generation, "m"
		ct := kmsg.NewOffsetCommitRequestTopic()
		cp := kmsg.NewOffsetCommitRequestTopicPartition()
		cp.Offset = -1
		ct.Topic, ct.Partitions = "t", append(ct.Partitions, cp)
		r.Topics = append(r.Topics, ct)
		return r
	}
	join := func(v int16, want int16, change func(*kmsg.JoinGroupRequest)) {
		t.Helper()
		r := joinOf()
		change(r)
		if got := ask(a, v, r, kmsg.NewPtrJoinGroupResponse()); got.ErrorCode != want || got.Generation != -1 {
			t.Errorf("join: %+v, want code %d", got, want)
		}
	}
	heartbeat := kmsg.NewPtrHeartbeatRequest()
	heartbeat.Group = "g"
	if got := ask(a, 4, heartbeat, kmsg.NewPtrHeartbeatResponse()); got.ErrorCode != 16 {
		t.Errorf("before there is a coordinator: %d", got.ErrorCode)
	}
	find(a, "g")
	join(9, 24, func(r *kmsg.JoinGroupRequest) { r.Group = "" })
	join(9, 26, func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 1 })
	join(9, 26, func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 1 << 30 })
	join(9, 25, func(r *kmsg.JoinGroupRequest) { r.MemberID = "who" })
	join(9, 23, func(r *kmsg.JoinGroupRequest) { r.Protocols = nil })
	for v, want := range map[int16]int16{5: 25, 4: 25} {
		r := kmsg.NewPtrSyncGroupRequest()
		r.Group, r.MemberID, r.ProtocolType, r.Protocol = "g", "m", str("consumer"), str("range")
		if got := ask(a, v, r, kmsg.NewPtrSyncGroupResponse()); got.ErrorCode != want {
			t.Errorf("sync v%d of an unknown group: %d", v, got.ErrorCode)
		}
	}
	r := kmsg.NewPtrSyncGroupRequest()
	r.Group = "g"
	if got := ask(a, 5, r, kmsg.NewPtrSyncGroupResponse()); got.ErrorCode != codeInconsistentProtocol {
		t.Errorf("sync without a protocol: %d", got.ErrorCode)
	}
	for v, want := range map[int16]int16{8: codeIllegalGeneration, 9: codeGroupIDNotFound} {
		if got := ask(a, v, commitOf(3), kmsg.NewPtrOffsetCommitResponse()); got.Topics[0].Partitions[0].ErrorCode != want {
			t.Errorf("commit v%d to an unknown group: %+v", v, got)
		}
	}
	if got := ask(a, 8, commitOf(-1), kmsg.NewPtrOffsetCommitResponse()); got.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Errorf("commit from outside, of -1: %+v", got)
	}
	od := kmsg.NewPtrOffsetDeleteRequest()
	od.Group = "nobody"
	ot := kmsg.NewOffsetDeleteRequestTopic()
	op := kmsg.NewOffsetDeleteRequestTopicPartition()
	ot.Topic, ot.Partitions = "t", append(ot.Partitions, op)
	od.Topics = append(od.Topics, ot)
	if got := ask(a, 0, od, kmsg.NewPtrOffsetDeleteResponse()); got.ErrorCode != codeGroupIDNotFound {
		t.Errorf("delete offsets of nobody: %+v", got)
	}
	od.Group = "g"
	if got := ask(a, 0, od, kmsg.NewPtrOffsetDeleteResponse()); got.ErrorCode != 0 || got.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Errorf("delete offsets: %+v", got)
	}
}

// TestParkedJoinBlocksOnlyItsConnection parks a join and asks on another
// connection; on its own, later answers come behind it.
func TestParkedJoinBlocksOnlyItsConnection(t *testing.T) {
	addr, _ := groupServer(t)
	a, b := dialAsker(t, addr), dialAsker(t, addr)
	find(a, "g")
	join := func(member string) *kmsg.JoinGroupRequest {
		r := kmsg.NewPtrJoinGroupRequest()
		r.Group, r.SessionTimeoutMillis, r.RebalanceTimeoutMillis, r.ProtocolType, r.MemberID = "g", 10_000, 10_000, "consumer", member
		p := kmsg.NewJoinGroupRequestProtocol()
		p.Name, p.Metadata = "range", []byte{}
		r.Protocols = append(r.Protocols, p)
		return r
	}
	first := ask(a, 3, join(""), kmsg.NewPtrJoinGroupResponse())
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Group, sync.MemberID, sync.Generation = "g", first.MemberID, 1
	ask(a, 3, sync, kmsg.NewPtrSyncGroupResponse())

	b.send(3, join("")) // parked until the first member joins again
	b.send(0, kmsg.NewPtrListGroupsRequest())
	// A crowd joins too: parked requests take no goroutines.
	before := runtime.NumGoroutine()
	const crowd = 60
	for range crowd {
		b.send(3, join(""))
	}
	describe := kmsg.NewPtrDescribeGroupsRequest()
	describe.Groups = []string{"g"}
	for members := 0; members != crowd+2; {
		members = len(ask(a, 1, describe, kmsg.NewPtrDescribeGroupsResponse()).Groups[0].Members)
	}
	if more := runtime.NumGoroutine() - before; more > crowd/2 {
		t.Errorf("%d parked joins took %d goroutines", crowd, more)
	}
	beat := kmsg.NewPtrHeartbeatRequest()
	beat.Group, beat.MemberID, beat.Generation = "g", first.MemberID, 1
	deadline := time.Now().Add(10 * time.Second)
	for ask(a, 3, beat, kmsg.NewPtrHeartbeatResponse()).ErrorCode != 27 {
		if time.Now().After(deadline) {
			t.Fatal("the first member never hears of the second")
		}
	}
	if r := ask(a, 3, join(first.MemberID), kmsg.NewPtrJoinGroupResponse()); r.ErrorCode != 0 || r.Generation != 2 || len(r.Members) != crowd+2 {
		t.Fatalf("%+v", r)
	}
	if r := receive(b, 3, kmsg.NewPtrJoinGroupResponse()); r.ErrorCode != 0 || r.Generation != 2 {
		t.Fatalf("%+v", r)
	}
	if r := receive(b, 0, kmsg.NewPtrListGroupsResponse()); len(r.Groups) != 1 {
		t.Fatalf("%+v", r)
	}
}

// TestGroupsTopicIsTheBrokersOwn makes the topic by asking for its metadata, before
// any group did, and then writes to it.
func TestGroupsTopicIsTheBrokersOwn(t *testing.T) {
	addr, meta := groupServer(t, func(c *Config) { c.AutoCreate = func() bool { return true } })
	a := dialAsker(t, addr)
	md := kmsg.NewPtrMetadataRequest()
	mt := kmsg.NewMetadataRequestTopic()
	mt.Topic = str(group.Topic)
	md.Topics, md.AllowAutoTopicCreation = append(md.Topics, mt), true
	if r := ask(a, 12, md, kmsg.NewPtrMetadataResponse()); r.Topics[0].ErrorCode != 0 || !r.Topics[0].IsInternal {
		t.Fatalf("%+v", r)
	}
	topic, _ := meta.Image().TopicByName(group.Topic)
	if !topic.Config().CompactOnly() || topic.Config().RemoteEnabled {
		t.Fatalf("made as %+v", topic.Config())
	}
	find(a, "g")
	ask(a, 4, kmsg.NewPtrListGroupsRequest(), kmsg.NewPtrListGroupsResponse()) // every partition is led now
	b := record.NewBuilder(record.NewBatchOptions())
	b.Append(record.Record{Key: []byte("k"), Value: []byte("v")})
	p := kmsg.NewPtrProduceRequest()
	pt := kmsg.NewProduceRequestTopic()
	pp := kmsg.NewProduceRequestTopicPartition()
	pp.Records = b.Build()
	pt.Topic, pt.Partitions = group.Topic, append(pt.Partitions, pp)
	p.Acks, p.TimeoutMillis, p.Topics = -1, 1000, append(p.Topics, pt)
	if r := ask(a, 9, p, kmsg.NewPtrProduceResponse()); r.Topics[0].Partitions[0].ErrorCode != codeInvalidTopic {
		t.Fatalf("%+v", r)
	}
}
