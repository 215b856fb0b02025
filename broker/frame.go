package broker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// readAhead is the buffer that small requests share: several of them come
	// with one read. A connection has one only while bytes are in it.
	readAhead = 64 << 10
	// readHead is how much is read into it when large requests are expected,
	// because what lands in it is copied once more.
	readHead = 16 << 10
	// frameStep is how much memory a request gets before its bytes have come,
	// and frameGrowth how many times what has come: a length alone allocates
	// nothing of note.
	frameStep   = 64 << 10
	frameGrowth = 16
	// minPooledFrame and maxPooledFrame are the smallest and the largest buffer
	// that is used again.
	minPooledFrame = 1 << 10
	maxPooledFrame = 1 << 20
	// maxOtherFrame is the largest request that is no Produce. What is decoded of
	// one takes several times its bytes, otherFactor at most in practice.
	maxOtherFrame = 16 << 20
	otherFactor   = 4
	// A large Produce lies in a mapping of its own, which takes memory only as bytes
	// come and gives all of it back at once. firstCharge is what a large request is charged before its bytes have come.
	firstCharge = 16 << 10

	// firstFrameTimeout is how long a client may take for its first request, however
	// large that is: clients begin with a small one.
	firstFrameTimeout = 10 * time.Second
	// frameTimeout is how long a client may take for every frameStep bytes of a
	// request that it has begun.
	frameTimeout = 30 * time.Second
)

// frame is the bytes of one request behind its length.
type frame struct {
	bytes  []byte
	pooled bool // bytes go back to framePool
	mapped bool // bytes are a mapping
	charge charge
}

// release gives the bytes to another request, and what they were charged back.
// Nothing may point into those of a Produce.
func (f *frame) release() {
	switch {
	case f.pooled:
		putFrame(f.bytes)
	case f.mapped:
		if err := unix.Munmap(f.bytes); err != nil {
			panic(fmt.Sprintf("BUG: unmap a frame of %d bytes: %v", len(f.bytes), err))
		}
	}
	f.pooled, f.mapped, f.bytes = false, false, nil
	f.charge.release()
}

// framePools hold buffers of 1, 4, 16, 64 and 256 KiB and 1 MiB.
var framePools [6]sync.Pool

// frameClass is the pool for n bytes, -1 for none.
func frameClass(n int) int {
	for i, size := 0, minPooledFrame; i < len(framePools); i, size = i+1, 4*size {
		if n <= size {
			return i
		}
	}
	return -1
}

// getFrame returns n bytes of any content.
func getFrame(n int) []byte {
	class := frameClass(n)
	if class < 0 {
		return make([]byte, n)
	}
	if p, ok := framePools[class].Get().(*[]byte); ok {
		return (*p)[:n]
	}
	return make([]byte, n, minPooledFrame<<(2*class))
}

func putFrame(p []byte) {
	class := frameClass(cap(p))
	if class >= 0 && cap(p) == minPooledFrame<<(2*class) {
		p = p[:0]
		framePools[class].Put(&p)
	}
}

var readBuffers = sync.Pool{New: func() any { p := make([]byte, readAhead); return &p }}

// frames reads requests from a connection. While it waits for the first byte of a
// request it holds no buffer, so an idle connection costs little.
type frames struct {
	nc  net.Conn
	raw syscall.RawConn // nil: read through nc, with a buffer always

	buf  *[]byte // what has been read ahead is buf[r:w]
	r, w int
	big  bool // the last request was large
	part [8]byte
	kept int // bytes in part: the begin of a request while the rest is awaited

	memory *Memory
	ctx    context.Context
	now    func() time.Time // nil: no deadlines
	idle   time.Duration    // how long to wait for a request; 0 for ever
	busy   func() bool      // whether the client waits for us, and so may be silent
	room   func(int64) bool // waits until a request of a size may be read
	armed  time.Time        // when the deadline of an idle connection was set
	// firstEnd is when the first request must be there. What we make it wait is added.
	firstEnd time.Time
	// held is what the request that is being read was charged, since when it
	// waits for bytes, in nanoseconds. Others read them.
	held, since atomic.Int64

	// What the callback of raw works on; kept here so that a read allocates
	// nothing.
	dst  []byte // where to read, nil for buf
	n    int
	err  error
	call func(fd uintptr) bool
}

func newFrames(nc net.Conn, raw syscall.RawConn) *frames {
	f := &frames{nc: nc, raw: raw}
	f.call = f.tryRead
	return f
}

// next returns the next request. Errors that are errQuiet end the connection
// without a word.
func (f *frames) next(first bool, most int32) (_ frame, err error) {
	if err := f.begin(first); err != nil {
		return frame{}, err
	}
	head := (*f.buf)[f.r:f.w]
	if first {
		if other := foreign([4]byte(head)); other != "" {
			return frame{}, fmt.Errorf("this is a Kafka listener, and the client speaks %s", other)
		}
	}
	size := int32(binary.BigEndian.Uint32(head))
	if size < 8 || size > most {
		return frame{}, fmt.Errorf("frame of %d bytes: want 8 to %d (socket.request.max.bytes)", size, most)
	}
	if err := f.buffer(6); err != nil {
		return frame{}, errQuiet
	}
	head = (*f.buf)[f.r:f.w]
	isProduce := binary.BigEndian.Uint16(head[4:]) == 0
	cost := int64(size)
	if !isProduce && size > smallFrame {
		cost *= otherFactor
	}
	switch {
	case !isProduce && size > maxOtherFrame:
		return frame{}, fmt.Errorf("frame of %d bytes: only a Produce may have more than %d", size, maxOtherFrame)
	case cost > f.memory.largest():
		return frame{}, fmt.Errorf("frame of %d bytes: there is room for %d; raise --memory-limit", size, f.memory.largest())
	}
	if !f.gate(int64(size)) {
		return frame{}, errQuiet
	}
	// Only a Produce is sure to leave nothing behind that points into it.
	out := frame{pooled: isProduce && size <= maxPooledFrame}
	if out.pooled {
		cost = minPooledFrame << (2 * frameClass(int(size)))
	}
	f.big = size > readAhead/2
	have := min(len(head)-4, int(size))
	got := head[4 : 4+have]
	defer func() {
		f.held.Store(0)
		if err != nil {
			out.release()
		}
	}()
	out.charge = f.memory.begin(cost)
	large, factor, step := out.charge.large(), int64(1), cost
	if large {
		factor = cost / int64(size)
		step = max(int64(have)*factor, firstCharge)
	}
	f.r += 4 + have
	if !out.charge.try(step) {
		// It waits with what the client has sent, and no more.
		got = bytes.Clone(got)
		if f.r == f.w {
			f.drop()
		}
		if f.wait(&out.charge, step) != nil {
			return frame{}, errQuiet
		}
	}
	f.holds(out.charge.got)
	if large && isProduce {
		if out.bytes, err = mapFrame(int(size)); err != nil {
			return frame{}, fmt.Errorf("frame of %d bytes: %w", size, err)
		}
		out.mapped = true
	} else {
		out.bytes = out.make(min(int(size), max(frameStep, frameGrowth*have)))
	}
	copy(out.bytes, got)
	if f.r == f.w {
		f.drop()
	}
	for due := 0; have < int(size); {
		if large && int64(have)*factor == out.charge.got {
			// While we make it wait, it is not the client who has stalled.
			f.held.Store(0)
			if f.wait(&out.charge, min(frameStep*factor, cost-out.charge.got)) != nil {
				return frame{}, errQuiet
			}
			f.holds(out.charge.got)
			due = have
		}
		if have == len(out.bytes) {
			grown := out.make(min(int(size), 4*len(out.bytes)))
			copy(grown, out.bytes)
			if out.pooled {
				putFrame(out.bytes)
			}
			out.bytes = grown
		}
		if have >= due && f.now != nil {
			due = have + frameStep
			f.deadline(f.now(), first)
		}
		end := len(out.bytes)
		if large {
			end = min(end, int(out.charge.got/factor))
		}
		n, err := f.read(out.bytes[have:end])
		if isTimeout(err) && first {
			return frame{}, fmt.Errorf("the first request of %d bytes is not there after %v: %d are", size, firstFrameTimeout, have)
		}
		if isTimeout(err) {
			return frame{}, fmt.Errorf("a frame of %d bytes stalled after %d: want %d in %v", size, have, frameStep, frameTimeout)
		}
		if err != nil {
			return frame{}, errQuiet
		}
		have += n
		if out.mapped {
			out.charge.maps(int64(have))
		}
	}
	return out, nil
}

// begin waits for the first bytes of a request.
func (f *frames) begin(first bool) error {
	for {
		if f.now != nil && f.w-f.r < 4 {
			if now := f.now(); first {
				f.firstEnd = now.Add(firstFrameTimeout)
				f.deadline(now, true)
			} else if now.Sub(f.armed) > f.idle/16 {
				f.armed = now
				var end time.Time
				if f.idle > 0 {
					end = now.Add(f.idle)
				}
				f.nc.SetReadDeadline(end)
			}
		}
		err := f.buffer(4)
		switch {
		case err == nil:
			return nil
		case isTimeout(err) && first:
			return fmt.Errorf("no request within %v", firstFrameTimeout)
		case isTimeout(err) && f.kept == 0 && f.busy != nil && f.busy():
			f.armed = time.Time{}
		default:
			return errQuiet
		}
	}
}

// gate waits until the connection may have a request of size bytes more in flight.
func (f *frames) gate(size int64) bool { return f.room == nil || f.room(size) }

// wait charges c with step bytes more. That is not the client's time.
func (f *frames) wait(c *charge, step int64) error {
	if f.now == nil {
		return c.take(f.ctx, step)
	}
	begun := f.now()
	err := c.take(f.ctx, step)
	f.firstEnd = f.firstEnd.Add(f.now().Sub(begun))
	return err
}

// deadline gives the next step of a request its time, the first request no more than
// it has in all.
func (f *frames) deadline(now time.Time, first bool) {
	f.armed = time.Time{}
	f.since.Store(now.UnixNano())
	end := now.Add(frameTimeout)
	if first {
		end = f.firstEnd
	}
	f.nc.SetReadDeadline(end)
}

// holds says what the request that is being read was charged.
func (f *frames) holds(n int64) {
	if f.now != nil {
		f.since.Store(f.now().UnixNano())
	}
	f.held.Store(n)
}

// stalled is what the request that is being read was charged if the client has
// sent none of it since a time.
func (f *frames) stalled(since time.Time) int64 {
	if f.since.Load() > since.UnixNano() {
		return 0
	}
	return f.held.Load()
}

// mapFrame returns n bytes that take memory only when they are written.
func mapFrame(n int) ([]byte, error) {
	p, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err == nil {
		// A huge page would be memory for bytes that have not come.
		_ = unix.Madvise(p, unix.MADV_NOHUGEPAGE)
	}
	return p, err
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func (f *frame) make(n int) []byte {
	if f.pooled {
		return getFrame(n)
	}
	return make([]byte, n)
}

// buffer reads until n bytes are there. Nothing is held while the first byte of a
// request is awaited.
func (f *frames) buffer(n int) error {
	for f.w-f.r < n {
		if f.buf != nil && len(*f.buf)-f.r < n {
			f.w = copy(*f.buf, (*f.buf)[f.r:f.w])
			f.r = 0
		}
		if _, err := f.read(nil); err != nil {
			return err
		}
	}
	return nil
}

// drop gives the empty buffer back.
func (f *frames) drop() {
	if f.buf != nil {
		readBuffers.Put(f.buf)
		f.buf, f.r, f.w = nil, 0, 0
	}
}

// read reads into dst, or behind what is buffered when dst is nil.
func (f *frames) read(dst []byte) (int, error) {
	f.dst = dst
	if f.raw == nil {
		n, err := f.nc.Read(f.target())
		return f.took(n, err)
	}
	if err := f.raw.Read(f.call); err != nil {
		return 0, err
	}
	return f.took(f.n, f.err)
}

func (f *frames) took(n int, err error) (int, error) {
	dst := f.dst
	f.dst = nil
	switch {
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	if dst == nil {
		f.w += n
	} else if f.now != nil {
		f.since.Store(f.now().UnixNano())
	}
	return n, nil
}

// target is where the next bytes go.
func (f *frames) target() []byte {
	if f.dst != nil {
		return f.dst
	}
	if f.buf == nil {
		f.buf = readBuffers.Get().(*[]byte)
		f.w = copy(*f.buf, f.part[:f.kept])
		f.kept = 0
	}
	if f.big && f.r == 0 && f.w < readHead {
		return (*f.buf)[f.w:readHead]
	}
	return (*f.buf)[f.w:]
}

// tryRead is one read that does not block; false asks to be called again when
// there is something.
func (f *frames) tryRead(fd uintptr) bool {
	p := f.target()
	for {
		switch f.n, f.err = unix.Read(int(fd), p); f.err {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			if f.dst == nil && f.w-f.r < len(f.part) {
				f.kept = copy(f.part[:], (*f.buf)[f.r:f.w])
				f.drop()
			}
			return false
		}
		return true
	}
}

// foreign names another protocol by its first bytes.
func foreign(head [4]byte) string {
	switch {
	case head[0] == 0x16 && head[1] == 3:
		return "TLS"
	case bytes.HasPrefix([]byte("SSH-"), head[:]):
		return "SSH"
	}
	for _, m := range []string{"GET ", "POST", "HEAD", "PUT ", "DELE", "OPTI", "PATC", "PRI ", "CONN"} {
		if string(head[:]) == m {
			return "HTTP"
		}
	}
	return ""
}
