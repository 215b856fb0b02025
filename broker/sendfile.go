package broker

import (
	"encoding/binary"
	"errors"
	"io"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/firnlog/firn/fetch"
)

// sendStep is how much goes out under one write deadline: a client that takes
// less in that time is not reading.
const sendStep = 1 << 20

// errShortFile is a file that ends before the records that were found in it.
var errShortFile = errors.New("the file ends inside the records")

// writeFetch sends a fetch's answer: what encode made by write, the records
// between by sendfile (2), which copies nothing into this process.
func (c *Conn) writeFetch(a *answer, f *fetchAnswer, buf []byte) ([]byte, error) {
	defer f.release()
	buf = append(buf[:0], 0, 0, 0, 0)
	buf = binary.BigEndian.AppendUint32(buf, uint32(a.r.CorrelationID))
	if f.IsFlexible() {
		buf = append(buf, 0)
	}
	failed := func(err error) {
		c.s.logger.Error("records cannot be read", "event", "read_failed", "err", err)
	}
	buf, cuts, left := f.encode(buf, failed)
	binary.BigEndian.PutUint32(buf, uint32(len(buf)-4+left))
	sent := 0
	for _, cut := range cuts {
		if err := c.sendBytes(buf[sent:cut.at], true); err != nil {
			return buf, errQuiet
		}
		sent = cut.at
		for _, g := range cut.records.Regions() {
			if err := c.sendRegion(g); err != nil {
				// The client has half an answer: only the end of the connection tells it.
				if !isNetwork(err) {
					failed(err)
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
	for len(p) > 0 {
		step := p[:min(len(p), sendStep)]
		c.extendWrite()
		if !more || c.raw == nil {
			if _, err := c.nc.Write(step); err != nil {
				return networkError{err}
			}
			p = p[len(step):]
			continue
		}
		var n int
		var failure error
		err := c.raw.Write(func(fd uintptr) bool {
			n, failure = unix.SendmsgN(int(fd), step, nil, nil, unix.MSG_MORE|unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			return failure != unix.EAGAIN && failure != unix.EINTR
		})
		if err = errors.Join(err, failure); err != nil {
			return networkError{err}
		}
		p = p[n:]
	}
	return nil
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
		c.extendWrite()
		var n int
		var failure error
		err := c.raw.Write(func(fd uintptr) bool {
			n, failure = unix.Sendfile(int(fd), int(file), &pos, int(min(left, sendStep)))
			return failure != unix.EAGAIN && failure != unix.EINTR
		})
		switch {
		case err != nil:
			return networkError{err}
		case failure == unix.EINVAL || failure == unix.ENOSYS:
			return c.copyRegion(fetch.Region{File: g.File, Pos: pos, Len: left}) // a file system without it
		case failure == unix.EIO:
			return failure
		case failure != nil:
			return networkError{failure}
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

// extendWrite gives the next step of an answer its time.
func (c *Conn) extendWrite() { c.nc.SetWriteDeadline(c.s.cfg.Now().Add(writeTimeout)) }

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
