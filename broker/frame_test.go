package broker

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"testing"
)

// Requests come out whole and in order however the stream is cut into writes.
func TestFramesSurviveEveryCut(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	for round := range 15 {
		server, client := pair(t)
		var raw = rawConn(server)
		if round%3 == 0 {
			raw = nil
			server, client = net.Pipe()
		}
		var want [][]byte
		var stream []byte
		for range 1 + rng.IntN(20) {
			n := []int{8, 9, 20, 300, readHead - 4, readAhead - 4, readAhead, readAhead + 1, frameStep * 4, 700_000, maxPooledFrame + 1, 3 << 20}[rng.IntN(8+round%5)]
			p := randomBytes(rng, n)
			binary.BigEndian.PutUint16(p, uint16(rng.IntN(3))) // some are Produce
			want = append(want, p)
			stream = binary.BigEndian.AppendUint32(stream, uint32(n))
			stream = append(stream, p...)
		}
		seeds := [2]uint64{rng.Uint64(), rng.Uint64()}
		go func() {
			rng := rand.New(rand.NewPCG(seeds[0], seeds[1]))
			for len(stream) > 0 {
				n := min(len(stream), 1+rng.IntN([]int{1, 10, 1000, 100_000, 4 << 20}[rng.IntN(5)]))
				client.Write(stream[:n])
				stream = stream[n:]
			}
			client.Close()
		}()
		f := newFrames(server, raw)
		for i, w := range want {
			got, err := f.next(i == 0 && binary.BigEndian.Uint16(w) > 100, 100<<20)
			if err != nil {
				t.Fatalf("round %d, request %d: %v", round, i, err)
			}
			if !bytes.Equal(got.bytes, w) {
				t.Fatalf("round %d: request %d of %d bytes differs", round, i, len(w))
			}
			if pooled := w[1] == 0 && len(w) <= maxPooledFrame; got.pooled != pooled {
				t.Fatalf("round %d: a request of key %d and %d bytes: pooled %v", round, w[1], len(w), got.pooled)
			}
			got.release()
		}
		if _, err := f.next(false, 100<<20); err != errQuiet {
			t.Fatalf("after the last request: %v", err)
		}
		server.Close()
	}
}

// While nothing comes, a connection holds no buffer.
func TestAnIdleConnectionHoldsNoBuffer(t *testing.T) {
	server, client := pair(t)
	f := newFrames(server, rawConn(server))
	client.Write([]byte{0, 0, 0, 8, 0, 18, 0, 0, 0, 0, 0, 1})
	if _, err := f.next(false, 100); err != nil {
		t.Fatal(err)
	}
	waiting, checked := make(chan struct{}), make(chan struct{})
	inner := f.call
	f.call = func(fd uintptr) bool {
		done := inner(fd)
		if !done {
			if f.buf != nil {
				t.Error("a buffer is held")
			}
			close(waiting)
			<-checked
		}
		return done
	}
	go func() {
		<-waiting
		close(checked)
		client.Close()
	}()
	if _, err := f.next(false, 100); err != errQuiet {
		t.Fatal(err)
	}
}

// A length without bytes behind it allocates little, whatever is asked for.
func TestALengthAloneAllocatesLittle(t *testing.T) {
	for key, size := range map[byte]uint32{0: 100 << 20, 3: 2 << 20, 1: 16 << 20, 18: 100 << 10} {
		server, client := pair(t)
		f := newFrames(server, rawConn(server))
		client.Write(append(binary.BigEndian.AppendUint32(nil, size), 0, key))
		client.Write(make([]byte, 1000))
		largest := 0
		inner := f.call
		f.call = func(fd uintptr) bool {
			largest = max(largest, len(f.dst))
			return inner(fd)
		}
		client.(*net.TCPConn).CloseWrite()
		if _, err := f.next(false, 100<<20); err != errQuiet {
			t.Fatal(err)
		}
		if largest == 0 || largest > frameStep {
			t.Errorf("key %d: read into %d bytes", key, largest)
		}
	}
}
