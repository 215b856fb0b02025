package broker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/fetch"
	"github.com/firnlog/firn/internal/disk"
)

// somewhere are Records in a few regions of a file or of memory.
type somewhere struct {
	regions  []fetch.Region
	released int
	err      error
}

func (r *somewhere) Len() (n int) {
	for _, g := range r.regions {
		n += int(g.Len)
	}
	return n
}
func (r *somewhere) Regions() []fetch.Region        { return r.regions }
func (r *somewhere) File() (disk.File, int64, bool) { return nil, 0, false }
func (r *somewhere) Release()                       { r.released++ }
func (r *somewhere) WriteTo(w io.Writer) (total int64, err error) {
	if r.err != nil {
		return 0, r.err
	}
	for _, g := range r.regions {
		p := g.Bytes
		if g.File != nil {
			p = make([]byte, g.Len)
			if _, err := g.File.ReadAt(p, g.Pos); err != nil {
				return total, err
			}
		}
		n, err := w.Write(p)
		if total += int64(n); err != nil {
			return total, err
		}
	}
	return total, nil
}

func randomBytes(rng *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return p
}

func fileOf(t *testing.T, data []byte) disk.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "records")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := disk.OS().OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// randomAnswer is an answer and the same answer with its records in memory.
func randomAnswer(rng *rand.Rand, f disk.File, data []byte, version int16) (*fetchAnswer, *kmsg.FetchResponse) {
	plain := kmsg.NewPtrFetchResponse()
	plain.Version = version
	plain.ThrottleMillis, plain.ErrorCode, plain.SessionID = rng.Int32(), int16(rng.IntN(100)), rng.Int32()
	a := &fetchAnswer{}
	for range rng.IntN(4) {
		topic := kmsg.NewFetchResponseTopic()
		topic.Topic = string(randomBytes(rng, rng.IntN(200)))
		copy(topic.TopicID[:], randomBytes(rng, 16))
		var records []fetch.Records
		for range rng.IntN(4) {
			p := kmsg.NewFetchResponseTopicPartition()
			p.Partition, p.ErrorCode, p.PreferredReadReplica = rng.Int32(), int16(rng.IntN(100)), -1
			p.HighWatermark, p.LastStableOffset, p.LogStartOffset = rng.Int64(), -1, rng.Int64()
			if rng.IntN(2) == 0 {
				p.AbortedTransactions = []kmsg.FetchResponseTopicPartitionAbortedTransaction{}
				for range rng.IntN(3) {
					x := kmsg.NewFetchResponseTopicPartitionAbortedTransaction()
					x.ProducerID, x.FirstOffset = rng.Int64(), rng.Int64()
					p.AbortedTransactions = append(p.AbortedTransactions, x)
				}
			}
			if version >= 12 && rng.IntN(4) == 0 {
				p.DivergingEpoch.Epoch, p.DivergingEpoch.EndOffset = rng.Int32(), rng.Int64()
			}
			r := &somewhere{}
			p.RecordBatches = []byte{}
			for range rng.IntN(3) {
				n := []int{1, 200, inlineRecords, inlineRecords + 1, 100_000, 3<<20 + 5}[rng.IntN(6)]
				at := rng.IntN(len(data) - n)
				g := fetch.Region{Len: int64(n)}
				if rng.IntN(3) == 0 {
					g.Bytes = data[at : at+n]
				} else {
					g.File, g.Pos = f, int64(at)
				}
				r.regions = append(r.regions, g)
				p.RecordBatches = append(p.RecordBatches, data[at:at+n]...)
			}
			topic.Partitions = append(topic.Partitions, p)
			records = append(records, r)
		}
		plain.Topics = append(plain.Topics, topic)
		a.records = append(a.records, records)
	}
	bare := *plain
	bare.Topics = nil
	for _, t := range plain.Topics {
		t.Partitions = append([]kmsg.FetchResponseTopicPartition(nil), t.Partitions...)
		for i := range t.Partitions {
			t.Partitions[i].RecordBatches = nil
		}
		bare.Topics = append(bare.Topics, t)
	}
	a.FetchResponse = &bare
	return a, plain
}

// pair is a connected pair of sockets.
func pair(t *testing.T) (server, client net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(); client.Close() })
	return server, client
}

func bareConn(nc net.Conn, raw bool) *Conn {
	s := &Server{logger: slog.New(slog.DiscardHandler)}
	s.cfg.Now = time.Now
	c := &Conn{s: s, nc: nc}
	if raw {
		c.raw = rawConn(nc)
	}
	return c
}

// What leaves the socket is what the generated encoder makes of the same answer,
// in every version, wherever the records lie.
func TestFetchAnswersAreEncodedAsKmsgEncodesThem(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	data := randomBytes(rng, 8<<20)
	f := fileOf(t, data)
	server, client := pair(t)
	for round := range 120 {
		version := apis[1].min + int16(round)%(apis[1].max-apis[1].min+1)
		a, plain := randomAnswer(rng, f, data, version)
		kept := a.records
		c := bareConn(server, round%3 != 0)
		done := make(chan error, 1)
		go func() {
			_, err := c.writeFetch(&answer{r: &Request{CorrelationID: int32(round)}}, a, nil)
			done <- err
		}()
		want := []byte{0, 0, 0, byte(round)}
		if version >= 12 {
			want = append(want, 0)
		}
		want = plain.AppendTo(want)
		got := make([]byte, 4+len(want))
		if _, err := io.ReadFull(client, got); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if int(got[0])<<24|int(got[1])<<16|int(got[2])<<8|int(got[3]) != len(want) || !bytes.Equal(got[4:], want) {
			t.Fatalf("v%d, round %d: the answer differs from kmsg's", version, round)
		}
		for _, topic := range kept {
			for _, r := range topic {
				if n := r.(*somewhere).released; n != 1 {
					t.Fatalf("records were released %d times", n)
				}
			}
		}
	}
}

func TestUnreadableRecordsAreAStorageError(t *testing.T) {
	resp := kmsg.NewPtrFetchResponse()
	resp.Version = 13
	topic := kmsg.NewFetchResponseTopic()
	topic.Partitions = []kmsg.FetchResponseTopicPartition{kmsg.NewFetchResponseTopicPartition()}
	topic.Partitions[0].HighWatermark = 10
	resp.Topics = append(resp.Topics, topic)
	bad := &somewhere{regions: []fetch.Region{{Bytes: make([]byte, 100), Len: 100}}, err: errors.New("bad sector")}
	a := &fetchAnswer{FetchResponse: resp, records: [][]fetch.Records{{bad}}}
	var failures []error
	raw, cuts, left := a.encode(nil, func(err error) { failures = append(failures, err) })
	if len(failures) != 1 || len(cuts) != 0 || left != 0 {
		t.Fatalf("failures %v, cuts %v, left %d", failures, cuts, left)
	}
	back := kmsg.NewPtrFetchResponse()
	back.Version = 13
	if err := back.ReadFrom(raw); err != nil {
		t.Fatal(err)
	}
	if p := back.Topics[0].Partitions[0]; p.ErrorCode != codeStorage || p.HighWatermark != -1 || len(p.RecordBatches) != 0 {
		t.Fatalf("got %+v", p)
	}
}

// A file that ends inside the records ends the connection: the client must not
// take the next answer's bytes for records.
func TestAShortFileEndsTheConnection(t *testing.T) {
	f := fileOf(t, make([]byte, 50_000))
	for _, raw := range []bool{true, false} {
		server, client := pair(t)
		resp := kmsg.NewPtrFetchResponse()
		resp.Version = 13
		topic := kmsg.NewFetchResponseTopic()
		topic.Partitions = []kmsg.FetchResponseTopicPartition{kmsg.NewFetchResponseTopicPartition()}
		resp.Topics = append(resp.Topics, topic)
		r := &somewhere{regions: []fetch.Region{{File: f, Len: 60_000}}}
		a := &fetchAnswer{FetchResponse: resp, records: [][]fetch.Records{{r}}}
		told := toldUnreadable(t)
		go io.Copy(io.Discard, client)
		if _, err := bareConn(server, raw).writeFetch(&answer{r: &Request{}}, a, nil); err == nil {
			t.Fatalf("raw %v: no error", raw)
		}
		if r.released != 1 {
			t.Fatal("records are still held")
		}
		if len(*told) != 1 || (*told)[0] != (unread{r, 0}) {
			t.Errorf("raw %v: told of %v as unreadable, want region 0", raw, *told)
		}
	}
}

// unread is a region that could not be read.
type unread struct {
	records fetch.Records
	region  int
}

// toldUnreadable lists what the owner of records is told of, until it is released.
func toldUnreadable(t *testing.T) *[]unread {
	t.Helper()
	var told []unread
	unreadable = func(r fetch.Records, region int, why error) {
		if r.(*somewhere).released > 0 || why == nil {
			t.Errorf("told after the release, of %v", why)
		}
		told = append(told, unread{r, region})
	}
	t.Cleanup(func() { unreadable = fetch.Unreadable })
	return &told
}

// failing is a file that cannot be read.
type failing struct{ disk.File }

func (failing) Fd() (uintptr, bool)               { return 0, false }
func (failing) ReadAt([]byte, int64) (int, error) { return 0, syscall.EIO }

// TestAnUnreadableRegionIsToldOf: what lies in the cache is forgotten when it cannot
// be read, the region in question alone, so that the client's next try fetches it
// anew; a client that has gone away is no fault of it.
func TestAnUnreadableRegionIsToldOf(t *testing.T) {
	f := fileOf(t, make([]byte, 50_000))
	for name, tc := range map[string]struct {
		regions []fetch.Region
		gone    bool
		want    int // region; -1 for none
	}{
		"a bad sector":         {[]fetch.Region{{File: f, Len: 50_000}, {File: failing{f}, Len: 20_000}, {File: f, Len: 50_000}}, false, 1},
		"a client that is off": {[]fetch.Region{{File: f, Len: 50_000}, {File: failing{f}, Len: 20_000}}, true, -1},
		"all is well":          {[]fetch.Region{{File: f, Len: 50_000}}, false, -1},
	} {
		for _, raw := range []bool{true, false} {
			server, client := pair(t)
			resp := kmsg.NewPtrFetchResponse()
			resp.Version = 13
			topic := kmsg.NewFetchResponseTopic()
			topic.Partitions = []kmsg.FetchResponseTopicPartition{kmsg.NewFetchResponseTopicPartition()}
			resp.Topics = append(resp.Topics, topic)
			r := &somewhere{regions: tc.regions}
			told := toldUnreadable(t)
			if tc.gone {
				server.(*net.TCPConn).CloseWrite()
			}
			go io.Copy(io.Discard, client)
			_, err := bareConn(server, raw).writeFetch(&answer{r: &Request{}}, &fetchAnswer{FetchResponse: resp, records: [][]fetch.Records{{r}}}, nil)
			if (err != nil) != (tc.gone || tc.want >= 0) {
				t.Errorf("%s, raw %v: %v", name, raw, err)
			}
			if tc.want < 0 && len(*told) > 0 || tc.want >= 0 && (len(*told) != 1 || (*told)[0] != unread{r, tc.want}) {
				t.Errorf("%s, raw %v: told of %v, want region %d", name, raw, *told, tc.want)
			}
		}
	}
}

// A client that does not read is given up after the deadline, and what it was
// sent is released.
func TestAReaderThatStopsIsGivenUp(t *testing.T) {
	f := fileOf(t, make([]byte, 8<<20))
	server, _ := pair(t)
	resp := kmsg.NewPtrFetchResponse()
	resp.Version = 13
	topic := kmsg.NewFetchResponseTopic()
	topic.Partitions = []kmsg.FetchResponseTopicPartition{kmsg.NewFetchResponseTopicPartition()}
	resp.Topics = append(resp.Topics, topic)
	r := &somewhere{}
	for range 10 { // far beyond both sockets' buffers
		r.regions = append(r.regions, fetch.Region{File: f, Len: 8 << 20})
	}
	c := bareConn(server, true)
	// The clock stands writeTimeout in the past, so each deadline is due at once.
	c.s.cfg.Now = func() time.Time { return time.Now().Add(-writeTimeout + 50*time.Millisecond) }
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := c.writeFetch(&answer{r: &Request{}}, &fetchAnswer{FetchResponse: resp, records: [][]fetch.Records{{r}}}, nil)
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil || r.released != 1 {
			t.Fatalf("err %v, released %d times", err, r.released)
		}
	case <-ctx.Done():
		t.Fatal("still sending")
	}
}
