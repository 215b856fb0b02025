package broker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const mib = 1 << 20

func newMemory(total int64) *Memory {
	return NewMemory(MemoryConfig{Total: total, Now: time.Now})
}

// whole charges a request to its end, as a connection does.
func whole(ctx context.Context, m *Memory, size int64) (charge, error) {
	c := m.begin(size)
	step := size
	if c.large() {
		step = firstCharge
	}
	for c.got < size {
		if err := c.take(ctx, min(step, size-c.got)); err != nil {
			c.release()
			return c, err
		}
	}
	return c, nil
}

// TestMemoryIsNeverOverdrawnAndNobodyWaitsForEver charges requests of all sizes
// from many goroutines, some of which give up, and looks at the account all along.
func TestMemoryIsNeverOverdrawnAndNobodyWaitsForEver(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			m := newMemory(128 * mib)
			var wg sync.WaitGroup
			for i := range uint64(200) {
				wg.Go(func() {
					r := rand.New(rand.NewPCG(seed, i))
					for range 20 {
						size := []int64{100, 60 << 10, 700 << 10, 3 * mib, 20 * mib, 100 * mib}[r.IntN(6)]
						size -= r.Int64N(size / 2)
						ctx, cancel := context.Background(), context.CancelFunc(func() {})
						if r.IntN(5) == 0 {
							ctx, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(1000))*time.Millisecond)
						}
						c, err := whole(ctx, m, size)
						if err == nil {
							time.Sleep(time.Duration(r.IntN(50)) * time.Millisecond)
						} else if !errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("seed %d: %v", seed, err)
						}
						m.mu.Lock()
						if m.used > m.total || m.common+m.kept > m.largeEnd {
							t.Errorf("seed %d: %d of %d used, %d+%d large of %d", seed, m.used, m.total, m.common, m.kept, m.largeEnd)
						}
						m.mu.Unlock()
						c.release()
						c.release()
						cancel()
					}
				})
			}
			wg.Wait()
			if m.used != 0 || m.common != 0 || m.kept != 0 || m.medium != 0 || m.waiting.Load() != 0 {
				t.Fatalf("seed %d: %d bytes are left, %d wait", seed, m.used, m.waiting.Load())
			}
		})
	}
}

// TestSmallAndMediumRequestsPassLargeOnes fills the part for large requests, lets
// more of them wait, and answers may take the rest.
func TestSmallAndMediumRequestsPassLargeOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		m := newMemory(128 * mib)
		for range 3 { // the first has room, the others wait
			go whole(ctx, m, 100*mib)
		}
		synctest.Wait()
		medium := m.begin(mediumFrame)
		if !medium.try(mediumFrame) {
			t.Error("a request of 2 MiB waits for large ones")
		}
		for range 100 {
			if small := m.begin(smallFrame); !small.try(smallFrame) {
				t.Fatal("a request of 64 KiB waits for large ones")
			}
		}
		// Answers are charged whatever there is; then also small requests wait.
		m.add(200 * mib)
		small := m.begin(10)
		if small.try(10) {
			t.Error("there was room when there was none")
		}
		got := make(chan error)
		go func() { got <- small.take(ctx, 10) }()
		synctest.Wait()
		m.add(-200 * mib)
		if err := <-got; err != nil {
			t.Error(err)
		}
	})
}

// TestWhoHasStalledMakesRoom lets a request wait behind one that has stalled.
func TestWhoHasStalledMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(128 * mib)
		asked := make(chan int64, 100)
		f := func(large, other int64) { asked <- large }
		m.reclaim.Store(&f)
		first, err := whole(t.Context(), m, 100*mib)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() {
			second, err := whole(t.Context(), m, 50*mib)
			second.release()
			done <- err
		}()
		if large := <-asked; large <= 0 || large > 50*mib {
			t.Errorf("%d bytes were asked for", large)
		}
		first.release()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestStalledRequestsEnd sends the begin of a request and no more.
func TestStalledRequestsEnd(t *testing.T) {
	for name, tc := range map[string]struct {
		first bool
		after time.Duration
		want  string
	}{
		"the first request": {true, firstFrameTimeout, "is not there after 10s: 1004 are"},
		"a later request":   {false, frameTimeout, "stalled after"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, client := net.Pipe()
				f := newFrames(server, nil)
				f.memory, f.ctx, f.now = newMemory(256*mib), t.Context(), time.Now
				go client.Write(append([]byte{0x06, 0x40, 0, 0, 0, 0, 0, 7}, make([]byte, 1000)...))
				begun := time.Now()
				_, err := f.next(tc.first, 100<<20)
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("%v, want %q", err, tc.want)
				}
				if d := time.Since(begun); d != tc.after {
					t.Errorf("it took %v, want %v", d, tc.after)
				}
				if n := f.memory.inUse(); n != 0 {
					t.Errorf("%d bytes are still charged", n)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		server, _ := net.Pipe()
		f := newFrames(server, nil)
		f.now = time.Now
		if _, err := f.next(true, 100); err == nil || !strings.Contains(err.Error(), "no request within 10s") {
			t.Errorf("no request at all: %v", err)
		}
		// Then the connection's idle time counts, but not while an answer is due.
		busy := 3
		f.idle = time.Minute
		f.busy = func() bool { busy--; return busy > 0 }
		begun := time.Now()
		if _, err := f.next(false, 100); err != errQuiet || time.Since(begun) != 3*time.Minute {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}

// TestATrickledFirstRequestEnds sends 64 KiB every five seconds, which is enough for
// a later request and not for the first one: that has 10 s in all, besides what we make
// it wait.
func TestATrickledFirstRequestEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		first bool
		wait  time.Duration // for memory
		after time.Duration // 0: it comes whole
	}{
		"the first request":         {true, 0, firstFrameTimeout},
		"which we made wait":        {true, time.Minute, time.Minute + firstFrameTimeout},
		"a later request":           {false, 0, 0},
		"a later one that we delay": {false, time.Minute, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const size = 8 * mib
				server, client := net.Pipe()
				f := newFrames(server, nil)
				f.memory, f.ctx, f.now = newMemory(64*mib), t.Context(), time.Now
				if tc.wait > 0 {
					f.memory.add(64 * mib)
					go func() {
						time.Sleep(tc.wait)
						f.memory.add(-64 * mib)
					}()
				}
				var sender sync.WaitGroup
				sender.Go(func() {
					client.Write([]byte{0, size >> 16, 0, 0, 0, 0, 0, 7})
					for sent := 4; sent < size; sent += 64 << 10 {
						if _, err := client.Write(make([]byte, min(64<<10, size-sent))); err != nil {
							return
						}
						time.Sleep(5 * time.Second)
					}
				})
				begun := time.Now()
				got, err := f.next(tc.first, 100<<20)
				got.release()
				if (err != nil) != (tc.after > 0) {
					t.Errorf("after %v: %v", time.Since(begun), err)
				}
				if tc.after > 0 && time.Since(begun) != tc.after {
					t.Errorf("it ended after %v, want %v: %v", time.Since(begun), tc.after, err)
				}
				if n := f.memory.inUse(); n != 0 {
					t.Errorf("%d bytes are still charged", n)
				}
				server.Close()
				sender.Wait()
			})
		})
	}
}

// TestRequestsThatNeverFitAreRefused names the sizes that have no room at all.
func TestRequestsThatNeverFitAreRefused(t *testing.T) {
	for want, head := range map[string][]byte{
		"raise --memory-limit":              {0x06, 0x40, 0, 0, 0, 0, 0, 7}, // a Produce of 100 MiB
		"only a Produce may have more than": {0x02, 0, 0, 0, 0, 3, 0, 7},    // a Metadata of 32 MiB
	} {
		server, client := net.Pipe()
		f := newFrames(server, nil)
		f.memory, f.ctx = newMemory(32*mib), t.Context()
		go client.Write(head)
		if _, err := f.next(false, 100<<20); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestRefusedConnectionsAreLoggedNowAndThen refuses many and reads one line.
func TestRefusedConnectionsAreLoggedNowAndThen(t *testing.T) {
	var log safeBuffer
	s := New(Config{Now: time.Now, Logger: slog.New(slog.NewTextHandler(&log, nil)), MaxConnections: 100, Limits: func() (int, int) { return 1, 1 }})
	b, err := Listen(Listener{Name: "T", Address: "127.0.0.1:0"}, net.Listen)
	if err != nil {
		t.Fatal(err)
	}
	s.Serve(b)
	for i := range 20 {
		c, err := net.Dial("tcp", b.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i == 0 {
			continue
		}
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	s.Close()
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "max.connections") {
		t.Errorf("logged %q", got)
	}
}

// TestALargeFrameIsChargedAsItComes: what a length promises holds no memory of the
// account yet.
func TestALargeFrameIsChargedAsItComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := net.Pipe()
		f := newFrames(server, nil)
		f.memory, f.ctx = newMemory(256*mib), t.Context()
		done := make(chan error)
		go func() {
			_, err := f.next(false, 100<<20)
			done <- err
		}()
		client.Write([]byte{0x06, 0x40, 0, 0, 0, 0, 0, 7})
		for range 10 {
			client.Write(make([]byte, 64<<10))
		}
		synctest.Wait()
		if n := f.memory.inUse(); n < 640<<10 || n > mib {
			t.Errorf("%d bytes are charged for 640 KiB of a request of 100 MiB", n)
		}
		client.Close()
		if err := <-done; err != errQuiet {
			t.Error(err)
		}
		if n := f.memory.inUse(); n != 0 {
			t.Errorf("%d bytes are still charged", n)
		}
	})
}

// TestMediumRequestsLeaveRoomForSmallOnes: however many batches come, a heartbeat
// has room.
func TestMediumRequestsLeaveRoomForSmallOnes(t *testing.T) {
	m := newMemory(64 * mib)
	for range 100 {
		medium := m.begin(mib)
		medium.try(mib)
	}
	if m.used > m.mediumEnd || m.used < m.mediumEnd-mib {
		t.Errorf("medium requests have %d bytes of %d", m.used, m.mediumEnd)
	}
	if small := m.begin(smallFrame); !small.try(smallFrame) {
		t.Error("a request of 64 KiB waits for those of 1 MiB")
	}
}
