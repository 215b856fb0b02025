package broker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

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
	// maxPooledFrame is the largest buffer that is used again.
	maxPooledFrame = 1 << 20
)

// frame is the bytes of one request behind its length.
type frame struct {
	bytes  []byte
	pooled bool // bytes go back to framePool
}

// release gives the bytes to another request. Nothing may point into them.
func (f *frame) release() {
	if f.pooled {
		f.pooled = false
		putFrame(f.bytes)
		f.bytes = nil
	}
}

// framePools hold buffers of 64 KiB, 256 KiB and 1 MiB.
var framePools [3]sync.Pool

// frameClass is the pool for n bytes, -1 for none.
func frameClass(n int) int {
	for i, size := 0, frameStep; i < len(framePools); i, size = i+1, 4*size {
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
	return make([]byte, n, frameStep<<(2*class))
}

func putFrame(p []byte) {
	class := frameClass(cap(p))
	if class >= 0 && cap(p) == frameStep<<(2*class) {
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
func (f *frames) next(first bool, most int32) (frame, error) {
	if err := f.buffer(4); err != nil {
		var ne net.Error
		if first && errors.As(err, &ne) && ne.Timeout() {
			return frame{}, errors.New("no request within 10 s")
		}
		return frame{}, errQuiet
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
	// Only a Produce is sure to leave nothing behind that points into it.
	out := frame{pooled: binary.BigEndian.Uint16(head[4:]) == 0 && size <= maxPooledFrame}
	f.big = size > readAhead/2
	have := min(len(head)-4, int(size))
	out.bytes = out.make(min(int(size), max(frameStep, frameGrowth*have)))
	copy(out.bytes, head[4:4+have])
	if f.r += 4 + have; f.r == f.w {
		f.drop()
	}
	for have < int(size) {
		if have == len(out.bytes) {
			grown := out.make(min(int(size), 4*len(out.bytes)))
			copy(grown, out.bytes)
			if out.pooled {
				putFrame(out.bytes)
			}
			out.bytes = grown
		}
		n, err := f.read(out.bytes[have:])
		if err != nil {
			return frame{}, errQuiet
		}
		have += n
	}
	return out, nil
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
			if f.dst == nil && f.r == f.w {
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
