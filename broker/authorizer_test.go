package broker

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/fetch"
)

// denier refuses what its function says.
type denier func(op kmsg.ACLOperation, kind kmsg.ACLResourceType, name string) bool

func (d denier) Allowed(principal string, op kmsg.ACLOperation, kind kmsg.ACLResourceType, name string) bool {
	return principal == anonymous && !d(op, kind, name)
}

func withFetch(t *testing.T) func(*Config) {
	return func(cfg *Config) {
		r, err := fetch.New(fetch.Config{Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		cfg.Fetch, cfg.Sessions = r, fetch.NewSessions(fetch.SessionsConfig{Slots: 10, Now: time.Now})
		cfg.AutoCreate = func() bool { return true }
	}
}

// codesIn collects the error codes of an answer, of whatever depth.
func codesIn(v reflect.Value, into map[int16]bool) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			codesIn(v.Elem(), into)
		}
	case reflect.Slice:
		for i := range v.Len() {
			codesIn(v.Index(i), into)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Name == "ErrorCode" {
				into[int16(v.Field(i).Int())] = true
			} else if v.Type().Field(i).IsExported() {
				codesIn(v.Field(i), into)
			}
		}
	}
}

// Whoever may do nothing is told so by every request of the data path, and learns
// not even whether a topic exists.
func TestEveryRequestAsksTheAuthorizer(t *testing.T) {
	addr, meta := groupServer(t, withFetch(t), func(cfg *Config) {
		cfg.Authorizer = denier(func(kmsg.ACLOperation, kmsg.ACLResourceType, string) bool { return true })
	})
	a := dialAsker(t, addr)
	for _, topic := range []string{"t", "missing"} {
		id := [16]byte{}
		if found, ok := meta.Image().TopicByName(topic); ok {
			id = found.ID
		}
		produce := func() *kmsg.ProduceRequest {
			r := kmsg.NewPtrProduceRequest()
			r.Acks, r.TimeoutMillis = -1, 1000
			rt := kmsg.NewProduceRequestTopic()
			rt.Topic, rt.TopicID = topic, id
			rt.Partitions = append(rt.Partitions, kmsg.NewProduceRequestTopicPartition())
			r.Topics = append(r.Topics, rt)
			return r
		}
		fetching := func() *kmsg.FetchRequest {
			r := kmsg.NewPtrFetchRequest()
			r.ReplicaID, r.SessionEpoch, r.MaxBytes = -1, -1, 1<<20
			rt := kmsg.NewFetchRequestTopic()
			rt.Topic, rt.TopicID = topic, id
			rt.Partitions = append(rt.Partitions, kmsg.NewFetchRequestTopicPartition())
			r.Topics = append(r.Topics, rt)
			return r
		}
		offsets := kmsg.NewPtrListOffsetsRequest()
		ot := kmsg.NewListOffsetsRequestTopic()
		ot.Topic = topic
		ot.Partitions = append(ot.Partitions, kmsg.NewListOffsetsRequestTopicPartition())
		offsets.Topics = append(offsets.Topics, ot)
		epoch := kmsg.NewPtrOffsetForLeaderEpochRequest()
		et := kmsg.NewOffsetForLeaderEpochRequestTopic()
		et.Topic = topic
		et.Partitions = append(et.Partitions, kmsg.NewOffsetForLeaderEpochRequestTopicPartition())
		epoch.Topics = append(epoch.Topics, et)
		named := kmsg.NewPtrMetadataRequest()
		named.AllowAutoTopicCreation = true
		mt := kmsg.NewMetadataRequestTopic()
		mt.Topic = &topic
		named.Topics = append(named.Topics, mt)
		byID := int16(29)
		if topic == "missing" {
			byID = codeUnknownTopicID
		}
		for _, c := range []struct {
			req     kmsg.Request
			version int16
			want    int16
		}{
			{produce(), 9, 29}, {produce(), 13, byID}, {fetching(), 12, 29}, {fetching(), 13, byID},
			{offsets, 7, 29}, {epoch, 4, 29}, {named, 9, 29}, {kmsg.NewPtrInitProducerIDRequest(), 4, 31},
		} {
			resp := c.req.ResponseKind()
			resp = ask(a, c.version, c.req, resp)
			codes := map[int16]bool{}
			codesIn(reflect.ValueOf(resp), codes)
			delete(codes, 0) // the answer's own, above its partitions
			if len(codes) != 1 || !codes[c.want] {
				t.Errorf("%s v%d of topic %s: codes %v, want %d", strings.TrimPrefix(reflect.TypeOf(c.req).String(), "*kmsg."), c.version, topic, codes, c.want)
			}
		}
	}
	all := kmsg.NewPtrMetadataRequest()
	all.Topics = nil
	if resp := ask(a, 9, all, kmsg.NewPtrMetadataResponse()); len(resp.Topics) != 0 {
		t.Errorf("%d topics are shown to somebody who may see none", len(resp.Topics))
	}
	if _, ok := meta.Image().TopicByName("missing"); ok {
		t.Error("a topic was made for somebody who may not make any")
	}
}

// nobody may do nothing.
type nobody struct{ everyone }

func (nobody) Allowed(kmsg.ACLOperation, kmsg.ACLResourceType, string) bool { return false }

// TestEveryAdministrativeRequestAsksTheAuthorizer, in every version, with a request
// that has one element.
func TestEveryAdministrativeRequestAsksTheAuthorizer(t *testing.T) {
	a := newAdmin(t)
	mustCreate(t, a, "t", 2)
	denied := map[string]bool{"TOPIC_AUTHORIZATION_FAILED": true, "CLUSTER_AUTHORIZATION_FAILED": true}
	for key, versions := range AdminVersions {
		for v := versions[0]; v <= versions[1]; v++ {
			r := kmsg.RequestForKey(key)
			fillRequest(r)
			codes := map[int16]bool{}
			codesIn(reflect.ValueOf(askAdmin[kmsg.Response](t, a, nobody{}, v, r)), codes)
			delete(codes, 0) // the answer's own, above its parts
			switch {
			case key == 60 && len(codes) == 0: // which brokers there are, anybody may know
				continue
			case key == 35 && v < 3 && len(codes) == 0: // an empty list: there was no code yet
				continue
			case key == 29 && codes[54]: // there are no rules, and so no right to see them
				continue
			case key == 20 && v == 6 && codes[codeUnknownTopicID]: // whoever asks, no topic has that id
				continue
			}
			for code := range codes {
				if !denied[codeName(code)] {
					t.Errorf("%s v%d: %s", kmsg.NameForKey(key), v, codeName(code))
				}
			}
			if len(codes) == 0 {
				t.Errorf("%s v%d was answered", kmsg.NameForKey(key), v)
			}
		}
	}
}

// TestATopicIsMadeByTheWayOnlyWithTheRight: whoever may see a topic may not make it.
func TestATopicIsMadeByTheWayOnlyWithTheRight(t *testing.T) {
	for _, may := range []bool{true, false} {
		addr, meta := groupServer(t, withFetch(t), func(cfg *Config) {
			cfg.Authorizer = denier(func(op kmsg.ACLOperation, _ kmsg.ACLResourceType, _ string) bool {
				return op == kmsg.ACLOperationCreate && !may
			})
		})
		a := dialAsker(t, addr)
		r, name := kmsg.NewPtrMetadataRequest(), "new"
		r.AllowAutoTopicCreation = true
		r.Topics = append(r.Topics, kmsg.MetadataRequestTopic{Topic: &name})
		got := ask(a, 9, r, kmsg.NewPtrMetadataResponse()).Topics[0]
		if _, made := meta.Image().TopicByName(name); made != may || !may && codeName(got.ErrorCode) != "TOPIC_AUTHORIZATION_FAILED" {
			t.Errorf("may create: %v; made: %v (%s)", may, made, codeName(got.ErrorCode))
		}
	}
}

func TestOneGrantIsEnoughForWhatItCovers(t *testing.T) {
	addr, _ := groupServer(t, func(cfg *Config) {
		cfg.Authorizer = denier(func(op kmsg.ACLOperation, kind kmsg.ACLResourceType, name string) bool {
			return !(kind == kmsg.ACLResourceTypeTopic && name == "u" && (op == kmsg.ACLOperationWrite || op == kmsg.ACLOperationDescribe))
		})
	})
	a := dialAsker(t, addr)
	if resp := ask(a, 4, kmsg.NewPtrInitProducerIDRequest(), kmsg.NewPtrInitProducerIDResponse()); resp.ErrorCode != 0 {
		t.Errorf("a producer that may write to one topic gets %d for its id", resp.ErrorCode)
	}
	all := kmsg.NewPtrMetadataRequest()
	all.Topics = nil
	if resp := ask(a, 9, all, kmsg.NewPtrMetadataResponse()); len(resp.Topics) != 1 || *resp.Topics[0].Topic != "u" {
		t.Errorf("%+v", resp.Topics)
	}
}

// A client above its quota is told how long to wait, and not read until then; one
// that reconnects finds the same account, and another client its own.
func TestAQuotaThrottlesAClientByItsName(t *testing.T) {
	const rate = 100_000
	addr, _ := groupServer(t, func(cfg *Config) {
		cfg.Quotas = func(principal, clientID string) Quota {
			if principal != anonymous {
				t.Errorf("principal %q", principal)
			}
			if clientID == "greedy" {
				return Quota{ProduceRate: rate}
			}
			return Quota{}
		}
	})
	send := func(a *asker, client string, size int) *kmsg.ProduceResponse {
		req := kmsg.NewPtrProduceRequest()
		req.Version, req.Acks, req.TimeoutMillis = 9, -1, 1000
		rt := kmsg.NewProduceRequestTopic()
		rt.Topic = "t"
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Records = make([]byte, size) // no batch, but it came all the way
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		f := kmsg.NewRequestFormatter(kmsg.FormatterClientID(client))
		if _, err := a.nc.Write(f.AppendRequest(nil, req, 1)); err != nil {
			t.Fatal(err)
		}
		return receive(a, 9, kmsg.NewPtrProduceResponse())
	}
	a := dialAsker(t, addr)
	if r := send(a, "greedy", rate/2); r.ThrottleMillis != 0 {
		t.Fatalf("half a second's worth is throttled for %d ms", r.ThrottleMillis)
	}
	r := send(a, "greedy", rate)
	if r.ThrottleMillis < 300 || r.ThrottleMillis > 510 {
		t.Fatalf("throttled for %d ms, want about 500", r.ThrottleMillis)
	}
	began := time.Now()
	other := dialAsker(t, addr)
	if r := send(other, "modest", 10*rate); r.ThrottleMillis != 0 {
		t.Fatal("another client pays too")
	}
	again := dialAsker(t, addr)
	if r := send(again, "greedy", 1); r.ThrottleMillis == 0 {
		t.Fatal("a new connection is a new account")
	}
	send(a, "greedy", 1)
	if waited := time.Since(began); waited < time.Duration(r.ThrottleMillis-50)*time.Millisecond {
		t.Fatalf("the client was read again after %v, throttled for %d ms", waited, r.ThrottleMillis)
	}
}

func TestAnAccountFillsAndForgets(t *testing.T) {
	now := time.Unix(1000, 0)
	q := quotas{of: func(string, string) Quota { return Quota{ProduceRate: 10, FetchRate: 1000} }, now: func() time.Time { return now }}
	steps := []struct {
		after             time.Duration
		produced, fetched int
		want              time.Duration
	}{
		{0, 10, 0, 0},
		{0, 5, 0, 500 * time.Millisecond},
		{time.Second, 5, 0, 0},
		{0, 0, 1500, 500 * time.Millisecond},
		{time.Hour, 1 << 40, 0, maxThrottle},
		{maxThrottle, 0, 0, 0},
		{time.Second, 10, 0, 0},
		{-time.Hour, 1, 0, 100 * time.Millisecond}, // a clock that goes back gives nothing
	}
	for i, s := range steps {
		now = now.Add(s.after)
		if got := q.charge("p", "c", usage{produced: s.produced, fetched: s.fetched}); got != s.want {
			t.Fatalf("step %d: %v, want %v", i, got, s.want)
		}
	}
	for i := range 1000 {
		now = now.Add(time.Second)
		q.charge("p", string(rune('a'+i)), usage{produced: 1})
	}
	if len(q.m) > 200 {
		t.Fatalf("%d accounts are kept", len(q.m))
	}
}
