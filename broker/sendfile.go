package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/firnlog/firn/fetch"
)

// sendStep is how much goes out at once. A client that takes nothing for
// writeTimeout is not reading.
const sendStep = 1 << 20

// errShortFile is a file that ends before the records that were found in it.
var errShortFile = errors.New("the file ends inside the records")

// unreadable is told of each region that could not be read. Tests listen to it.
var unreadable = fetch.Unreadable

// writeFetch sends a fetch's answer: what encode made by write, the records
// between by sendfile (2), which copies nothing into this process.
func (c *Conn) writeFetch(a *answer, f *fetchAnswer, buf []byte) ([]byte, error) {
	defer f.release()
	c.throttle(a, f.bytes())
	buf = append(buf[:0], 0, 0, 0, 0)
	buf = binary.BigEndian.AppendUint32(buf, uint32(a.r.CorrelationID))
	if f.IsFlexible() {
		buf = append(buf, 0)
	}
	failed := func(err error) {
		c.s.logger.Error("records cannot be read", "event", "read_failed", "err", err)
	}
	buf, cuts, left := f.encode(buf, failed)
	a.code = firstError(f)
	c.hold(len(buf))
	defer c.letGo()
	binary.BigEndian.PutUint32(buf, uint32(len(buf)-4+left))
	sent := 0
	for _, cut := range cuts {
		if err := c.sendBytes(buf[sent:cut.at], true); err != nil {
			return buf, errQuiet
		}
		sent = cut.at
		for i, g := range cut.records.Regions() {
			if err := c.sendRegion(g); err != nil {
				// The client has half an answer: only the end of the connection tells it.
				// When it asks again, it must not meet the same bytes.
				if !isNetwork(err) {
					failed(err)
					unreadable(cut.records, i, err)
				}
				return buf, errQuiet
			}
		}
	}
	if err := c.sendBytes(buf[sent:], false); err != nil {
		return buf, errQuiet
	}
	return buf, nil
}

// networkError is a failure of the socket, not of what was to be sent.
type networkError struct{ error }

func isNetwork(err error) bool {
	var n networkError
	return errors.As(err, &n)
}

// sendBytes writes p; more says that further bytes follow at once, so that the
// kernel need not make a packet of it.
func (c *Conn) sendBytes(p []byte, more bool) error {
	flags := unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
	if more {
		flags |= unix.MSG_MORE
	}
	for len(p) > 0 {
		step := p[:min(len(p), sendStep)]
		if c.raw == nil {
			c.nc.SetWriteDeadline(c.s.cfg.Now().Add(writeTimeout))
			if _, err := c.nc.Write(step); err != nil {
				return networkError{err}
			}
			p = p[len(step):]
			continue
		}
		n, err := c.push(func(fd int) (int, error) { return unix.SendmsgN(fd, step, nil, nil, flags) })
		if err != nil {
			return networkError{err}
		}
		p = p[n:]
	}
	return nil
}

// push calls write until the socket takes something. Only a wait has a deadline:
// setting one for each answer would cost more than most answers do.
func (c *Conn) push(write func(fd int) (int, error)) (n int, err error) {
	waited, armed, unread := false, false, 0
	try := func(fd uintptr) bool {
		for {
			n, err = write(int(fd))
			switch err {
			case unix.EINTR:
				continue
			case unix.EAGAIN:
				if !armed {
					waited, armed, unread = true, true, outgoing(fd)
					c.nc.SetWriteDeadline(c.s.cfg.Now().Add(writeTimeout))
				}
				return false
			}
			return true
		}
	}
	rerr := c.raw.Write(try)
	for isTimeout(rerr) && c.unread() < unread {
		// The socket asks for more only when a third of its buffer, which can be
		// megabytes, has gone: a slow reader is not one that has stopped.
		armed = false
		c.nc.SetWriteDeadline(time.Time{})
		rerr = c.raw.Write(try)
	}
	if waited {
		c.nc.SetWriteDeadline(time.Time{})
		c.took(max(n, 0))
	}
	if isTimeout(rerr) {
		c.end(fmt.Sprintf("the client took nothing of an answer for %v", writeTimeout))
	}
	if rerr != nil {
		return 0, rerr
	}
	return n, err
}

// unread is how much of what was written the client has not taken yet.
func (c *Conn) unread() (n int) {
	c.raw.Control(func(fd uintptr) { n = outgoing(fd) })
	return n
}

func outgoing(fd uintptr) int {
	n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
	if err != nil {
		return 0
	}
	return n
}

// sendRegion sends one region: by sendfile from a file, else by write.
func (c *Conn) sendRegion(g fetch.Region) error {
	if g.File == nil {
		return c.sendBytes(g.Bytes, false)
	}
	file, ok := g.File.Fd()
	if !ok || c.raw == nil {
		return c.copyRegion(g)
	}
	pos, left := g.Pos, g.Len
	for left > 0 {
		n, err := c.push(func(fd int) (int, error) { return unix.Sendfile(fd, int(file), &pos, int(min(left, sendStep))) })
		switch {
		case err == unix.EINVAL || err == unix.ENOSYS:
			return c.copyRegion(fetch.Region{File: g.File, Pos: pos, Len: left}) // a file system without it
		case err == unix.EIO:
			return err
		case err != nil:
			return networkError{err}
		case n == 0:
			return errShortFile
		}
		left -= int64(n)
	}
	return nil
}

// copyRegion is sendRegion by read and write.
func (c *Conn) copyRegion(g fetch.Region) error {
	buf := make([]byte, min(g.Len, 256<<10))
	for g.Len > 0 {
		p := buf[:min(g.Len, int64(len(buf)))]
		if n, err := g.File.ReadAt(p, g.Pos); n < len(p) {
			if errors.Is(err, io.EOF) {
				err = errShortFile
			}
			return err
		}
		if err := c.sendBytes(p, false); err != nil {
			return err
		}
		g.Pos += int64(len(p))
		g.Len -= int64(len(p))
	}
	return nil
}

// rawConn is the descriptor under a TCP connection, nil where there is none.
func rawConn(nc any) syscall.RawConn {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}
