package broker

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/metadata"
)

// withAdmin serves the administrative requests too.
func withAdmin(cfg *Config) {
	cfg.Admin = &Admin{
		Metadata: cfg.Metadata, NodeID: 1, Replicas: fakeReplicas{cfg.Metadata}, BucketName: "b",
		Dirs:       []LogDir{{Path: "/data", Space: func() (int64, int64, error) { return 10, 20, nil }}},
		Controller: func(*metadata.Image) int32 { return 1 },
	}
}

// hasThrottle says whether an answer of this version has the field.
func hasThrottle(resp kmsg.Response) bool {
	t, ok := resp.(kmsg.SetThrottleResponse)
	if !ok {
		return false
	}
	t.SetThrottle(12345)
	p := resp.AppendTo(nil)
	back := kmsg.ResponseForKey(resp.Key())
	back.SetVersion(resp.GetVersion())
	if err := back.ReadFrom(p); err != nil {
		return false
	}
	ms, _ := back.(kmsg.ThrottleResponse).Throttle()
	return ms == 12345
}

// TestEveryAnswerCarriesTheThrottle asks every API in every version as a client
// that may take up next to no time: each answer that has the field tells it how
// long to be quiet, and the same client without a bound is told nothing.
func TestEveryAnswerCarriesTheThrottle(t *testing.T) {
	addr, _ := groupServer(t, withFetch(t), withAdmin, func(cfg *Config) {
		cfg.Quotas = func(_, clientID string) Quota {
			if clientID == "free" {
				return Quota{}
			}
			return Quota{RequestShare: 1e-9}
		}
	})
	answers, told := 0, 0
	for key, a := range apis {
		if a == nil {
			continue
		}
		for v := a.min; v <= a.max; v++ {
			for _, client := range []string{"busy", "free"} {
				req := kmsg.RequestForKey(int16(key))
				req.SetVersion(v)
				switch r := req.(type) {
				case *kmsg.ProduceRequest:
					r.Acks = -1
				case *kmsg.FetchRequest:
					r.ReplicaID, r.SessionEpoch = -1, -1
				case *kmsg.ApiVersionsRequest:
					r.ClientSoftwareName, r.ClientSoftwareVersion = "a", "1"
				}
				c := dialAsker(t, addr)
				f := kmsg.NewRequestFormatter(kmsg.FormatterClientID(client))
				if _, err := c.nc.Write(f.AppendRequest(nil, req, 1)); err != nil {
					t.Fatal(err)
				}
				resp := receive(c, v, req.ResponseKind())
				c.nc.Close()
				ms := int32(0)
				if th, ok := resp.(kmsg.ThrottleResponse); ok {
					ms, _ = th.Throttle()
				}
				want := int32(0)
				if client == "busy" && hasThrottle(resp) {
					want = int32(maxThrottle.Milliseconds())
					told++
				}
				if answers++; ms != want {
					t.Errorf("%s v%d to the %s client: throttled for %d ms, want %d", a.name, v, client, ms, want)
				}
			}
		}
	}
	if told < 100 {
		t.Errorf("only %d of %d answers have the field", told, answers)
	}
}

// TestBytesDoNotSilenceHeartbeats: a client that is deep in debt for what it
// produced may go on to keep its place in a group.
func TestBytesDoNotSilenceHeartbeats(t *testing.T) {
	now := time.Unix(1000, 0)
	q := quotas{of: func(string, string) Quota { return Quota{ProduceRate: 10, RequestShare: 0.5} }, now: func() time.Time { return now }}
	if d := q.charge("p", "c", usage{produced: 1 << 20}); d != maxThrottle {
		t.Errorf("%v for a megabyte", d)
	}
	if d := q.charge("p", "c", usage{worked: time.Millisecond}); d != 0 {
		t.Errorf("%v for a heartbeat", d)
	}
	// Half of the time is its share; whoever works for longer waits for the rest.
	if d := q.charge("p", "c", usage{worked: time.Second}); d < 1000*time.Millisecond || d > 1010*time.Millisecond {
		t.Errorf("%v for a second of work", d)
	}
}

// TestFetchedBytesAreCharged: what a consumer gets counts, and the next of its
// fetches, on another connection, is told so.
func TestFetchedBytesAreCharged(t *testing.T) {
	addr, meta := wireServer(t, func(cfg *Config) {
		cfg.Quotas = func(string, string) Quota { return Quota{FetchRate: 100} }
	})
	a := dialAsker(t, addr)
	topic := led(t, a, meta, "t")
	now := time.Now().UnixMilli()
	if _, p := produceTo(a, 9, "t", topic.ID, 0, -1, batchOf(now, now, now, now, now, now)); p.ErrorCode != 0 {
		t.Fatal(codeName(p.ErrorCode))
	}
	resp, p := fetchFrom(a, 12, "t", topic.ID, 0, 0, nil)
	if want := int32(len(p.RecordBatches)-100) * 10; resp.ThrottleMillis < want-500 || resp.ThrottleMillis > want {
		t.Errorf("throttled for %d ms for %d bytes, want %d", resp.ThrottleMillis, len(p.RecordBatches), want)
	}
	if again, _ := fetchFrom(dialAsker(t, addr), 12, "t", topic.ID, 0, 0, nil); again.ThrottleMillis <= resp.ThrottleMillis {
		t.Errorf("a second fetch is throttled for %d ms, the first was for %d", again.ThrottleMillis, resp.ThrottleMillis)
	}
}
