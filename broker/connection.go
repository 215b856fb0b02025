package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/metadata"
)

const (
	writeTimeout = 30 * time.Second
	// maxUnanswered and maxInFlight bound what a connection may have asked
	// without having been answered, and the answers that are ready and wait for
	// others before them; then it is not read until it drains. One request may be
	// larger, if it is the only one.
	maxUnanswered = 100
	maxInFlight   = 16 << 20
	// keepBuffer is the largest write buffer that an idle connection keeps.
	keepBuffer = 16 << 10
	readerStep = 256 << 10
)

// Conn is one client connection. Its reader handles requests in order of arrival;
// answers that have to wait are made in goroutines of their own and leave through
// the writer in order. An answer that is ready while nothing waits is written by
// the reader itself.
type Conn struct {
	s        *Server
	listener Listener
	nc       net.Conn
	raw      syscall.RawConn // under nc; nil when nc is no socket
	logger   *slog.Logger
	software string // as told in ApiVersions (KIP-511)
	// principal is who the client is: who asks the authorizer and pays for quotas.
	principal  string
	quietUntil atomic.Int64 // in nanoseconds; 0: it was never throttled

	ctx     context.Context
	cancel  context.CancelFunc
	pending chan *answer // in order of the requests
	queued  atomic.Int32 // answers in pending or being written from it
	bytes   atomic.Int64 // request bytes that are not answered yet, and answers that wait
	drained chan struct{}
	in      *frames
	out     []byte // the reader's write buffer
	writing holding
	why     atomic.Pointer[string] // why it was closed, if we did
}

// answer is a slot in the order of answers.
type answer struct {
	r     *Request
	resp  kmsg.Response
	frame frame         // the request's bytes, which resp may point into
	ready chan struct{} // nil when resp is there already, or parked
	park  func(context.Context) kmsg.Response
	size  int64
	// early is the encoded answer, where it has to wait for others before it.
	early []byte
	close bool
	start time.Time
	code  int16 // the first error of the answer, once it is encoded
	// worked is how long its handler took, where that is counted, and quietUntil
	// when the client may speak again that sent too much with it.
	worked     time.Duration
	quietUntil time.Time
}

func newConn(s *Server, l Listener, nc net.Conn) *Conn {
	c := &Conn{s: s, listener: l, nc: nc, raw: rawConn(nc), principal: anonymous, drained: make(chan struct{}, 1)}
	c.logger = s.logger.With("remote", nc.RemoteAddr().String(), "listener", l.Name)
	c.ctx, c.cancel = context.WithCancel(s.ctx)
	c.in = newFrames(nc, c.raw)
	c.in.memory, c.in.ctx, c.in.now, c.in.idle = s.cfg.Memory, c.ctx, s.cfg.Now, s.cfg.MaxIdle
	c.in.busy = func() bool { return c.queued.Load() > 0 }
	c.in.room = c.room
	return c
}

// Address is where this client reaches broker b: what the listener advertises,
// else the very address that the client came to.
func (c *Conn) Address(b *metadata.Broker) (host string, port int32) {
	if e, ok := b.Endpoint(c.listener.Name); ok && e.Host != "" {
		return e.Host, e.Port
	}
	// The client is connected to us; where it would reach another broker, only
	// that broker's registration knows.
	if b.Node != c.s.cfg.NodeID {
		return "", 0
	}
	host, port, err := splitHostPort(c.nc.LocalAddr().String())
	if err != nil {
		return "", 0
	}
	return host, port
}

// errQuiet ends a connection without a log line: the client went away.
var errQuiet = errors.New("connection ended")

// serve runs the connection until it ends and waits for all it started.
func (c *Conn) serve() {
	var writer sync.WaitGroup
	defer func() {
		c.cancel()
		c.nc.Close()
		if c.pending != nil {
			close(c.pending)
		}
		writer.Wait()
	}()
	for first := true; ; first = false {
		c.quiet()
		f, err := c.in.next(first, c.s.cfg.MaxRequestBytes)
		if err == nil {
			c.quiet() // the answer before may have been made while this request was awaited
			err = c.handle(f, &writer)
		}
		if err != nil {
			reason := c.why.Load()
			if reason == nil && !errors.Is(err, errQuiet) && c.ctx.Err() == nil {
				s := err.Error()
				reason = &s
			}
			if reason != nil && c.s.ctx.Err() == nil {
				c.logger.Info("connection closed", "event", "connection_closed", "reason", *reason, "client", c.software)
			}
			return
		}
		for c.queued.Load() >= maxUnanswered {
			select {
			case <-c.drained:
			case <-c.ctx.Done():
			}
			if c.ctx.Err() != nil {
				break // next finds the connection closed
			}
		}
	}
}

// room waits until a request of size bytes may be read; false ends the connection.
func (c *Conn) room(size int64) bool {
	for c.queued.Load() > 0 && c.bytes.Load()+size > c.s.cfg.Memory.fair() {
		select {
		case <-c.drained:
		case <-c.ctx.Done():
			return false
		}
	}
	return true
}

// end closes the connection from outside its goroutines, for a reason that is
// logged.
func (c *Conn) end(reason string) {
	c.why.CompareAndSwap(nil, &reason)
	c.nc.Close()
}

// holding is what answers hold while one of them is written. Others read it.
type holding struct {
	bytes    atomic.Int64 // charged for the answer that is being written
	early    atomic.Int64 // charged for those encoded behind it
	since    atomic.Int64 // when the client last took readerStep, in nanoseconds; 0: nothing is being written
	progress int          // bytes taken since
}

// hold charges an answer of n bytes, until letGo.
func (c *Conn) hold(n int) {
	c.writing.progress = 0
	c.writing.since.Store(c.s.cfg.Now().UnixNano())
	if n > keepBuffer {
		c.writing.bytes.Store(int64(n))
		c.s.cfg.Memory.add(int64(n))
	}
}

func (c *Conn) letGo() {
	c.writing.since.Store(0)
	if n := c.writing.bytes.Swap(0); n > 0 {
		c.s.cfg.Memory.add(-n)
	}
}

// took notes that the client took n bytes of an answer after a wait. One that
// takes less than readerStep in pressureStall has stalled.
func (c *Conn) took(n int) {
	w := &c.writing
	if w.progress += n; w.progress >= readerStep {
		w.progress = 0
		w.since.Store(c.s.cfg.Now().UnixNano())
	}
}

// stalled is the memory of answers that the connection holds for a client that has
// taken nothing to speak of since a time.
func (c *Conn) stalled(since time.Time) int64 {
	if at := c.writing.since.Load(); at != 0 && at <= since.UnixNano() {
		return c.writing.bytes.Load() + c.writing.early.Load()
	}
	return 0
}

// handle decodes one frame, runs its handler and sends or queues the answer. A
// panic ends the connection, never the process.
func (c *Conn) handle(f frame, writer *sync.WaitGroup) (err error) {
	ans := &answer{frame: f, size: int64(len(f.bytes)), start: c.s.cfg.Now()}
	defer func() {
		if p := recover(); p != nil {
			c.logger.Error("BUG: request panicked", "event", "request_panic", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = errors.New("internal error")
		}
		if err != nil {
			c.forget(ans)
		}
	}()
	in := f.bytes
	r := &Request{Conn: c, Key: int16(binary.BigEndian.Uint16(in)), Version: int16(binary.BigEndian.Uint16(in[2:])), CorrelationID: int32(binary.BigEndian.Uint32(in[4:]))}
	if r.Key < 0 || r.Key >= maxKey || apis[r.Key] == nil {
		return fmt.Errorf("API key %d is not served", r.Key)
	}
	a := apis[r.Key]
	ans.r = r
	if r.Version < a.min || r.Version > a.max {
		if r.Key == 18 {
			ans.resp = unsupportedApiVersions()
			return c.send(ans, writer)
		}
		return fmt.Errorf("%s v%d is not served (v%d to v%d are): use a newer client", a.name, r.Version, a.min, a.max)
	}
	r.Body = kmsg.RequestForKey(r.Key)
	r.Body.SetVersion(r.Version)
	body, err := c.header(r, in[8:])
	if err != nil {
		return err
	}
	// What is decoded points into the frame, which is this answer's until it is sent.
	if err := r.Body.(interface{ UnsafeReadFrom([]byte) error }).UnsafeReadFrom(body); err != nil {
		return fmt.Errorf("%s v%d cannot be decoded: %w", a.name, r.Version, err)
	}
	c.chargeRead(ans)
	var reply Reply
	made := func() {}
	bulky := a.bulky != nil && a.bulky(r.Body)
	if bulky {
		if made, err = c.s.bulky(c.ctx); err != nil {
			return errQuiet
		}
		defer func() {
			if reply.Wait == nil {
				made() // also after a panic
			}
		}()
	}
	began := c.s.quotas.started()
	reply = a.handle(c.ctx, c.s, r)
	ans.worked = c.s.quotas.worked(began)
	ans.resp, ans.close, ans.park = reply.Response, reply.Close, reply.Park
	if reply.Wait != nil {
		ans.ready = make(chan struct{})
		writer.Add(1)
		go func() {
			defer writer.Done()
			defer close(ans.ready)
			defer func() {
				if p := recover(); p != nil {
					c.logger.Error("BUG: request panicked", "event", "request_panic", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
					ans.resp, ans.close = nil, true
				}
			}()
			defer made()
			if r.Key == 3 {
				made() // it makes topics, which takes time, and names only what it was asked
			}
			ans.resp = reply.Wait(c.ctx)
			c.encodeEarly(ans)
		}()
	} else if ans.resp == nil && ans.park == nil && !ans.close {
		c.s.metrics.count(r.Key, codeNone)
		c.throttle(ans, 0)
		c.forget(ans)
		return nil // no answer was asked for
	} else if bulky {
		c.encodeEarly(ans)
		made() // what follows may wait for the client
	}
	return c.send(ans, writer)
}

// header reads the rest of the request header: the client id and, in flexible
// versions, tags.
func (c *Conn) header(r *Request, p []byte) ([]byte, error) {
	bad := errors.New("request header cannot be decoded")
	if len(p) < 2 {
		return nil, bad
	}
	n := int(int16(binary.BigEndian.Uint16(p)))
	p = p[2:]
	if n > len(p) {
		return nil, bad
	}
	if n > 0 {
		r.ClientID, p = string(p[:n]), p[n:]
	}
	if !r.Body.IsFlexible() {
		return p, nil
	}
	tags, w := binary.Uvarint(p)
	if w <= 0 {
		return nil, bad
	}
	p = p[w:]
	for range min(tags, 1<<16) {
		_, w := binary.Uvarint(p)
		if w <= 0 {
			return nil, bad
		}
		size, w2 := binary.Uvarint(p[w:])
		if w2 <= 0 || size > uint64(len(p)-w-w2) {
			return nil, bad
		}
		p = p[w+w2+int(size):]
	}
	return p, nil
}

// send writes an answer that is ready and has none before it, else queues it.
func (c *Conn) send(a *answer, writer *sync.WaitGroup) error {
	if a.close {
		// Nothing is read after it, and what was asked before is answered first.
		for c.queued.Load() > 0 {
			select {
			case <-c.drained:
			case <-c.ctx.Done():
				return errQuiet
			}
		}
		return errors.New("a request that wants no answer failed")
	}
	if a.ready == nil && a.park == nil && c.queued.Load() == 0 {
		var err error
		if c.out, err = c.write(a, c.out); cap(c.out) > keepBuffer {
			c.out = nil
		}
		return err
	}
	if c.pending == nil {
		// The writer exists only for connections that ever had to wait.
		c.pending = make(chan *answer, maxUnanswered+1)
		writer.Add(1)
		go func() {
			defer writer.Done()
			c.writeInOrder()
		}()
	}
	if a.ready == nil && a.park == nil && a.early == nil {
		c.encodeEarly(a)
	}
	c.queued.Add(1)
	c.bytes.Add(a.size)
	c.pending <- a
	return nil
}

// writeInOrder writes the queued answers as they become ready.
func (c *Conn) writeInOrder() {
	var buf []byte
	failed := false
	for a := range c.pending {
		if a.ready != nil {
			<-a.ready
		}
		if a.park != nil && !failed {
			c.unpark(a)
		}
		if !failed {
			var err error
			if buf, err = c.write(a, buf); err != nil {
				failed = true
				c.cancel()
				c.nc.Close()
			}
			if cap(buf) > keepBuffer {
				buf = nil
			}
		}
		if f, ok := a.resp.(*fetchAnswer); ok {
			f.release() // also when nobody is left to read it
		}
		c.forget(a)
		c.queued.Add(-1)
		c.bytes.Add(-a.size)
		select {
		case c.drained <- struct{}{}:
		default:
		}
	}
}

// unpark waits for a parked answer. A panic ends the connection.
func (c *Conn) unpark(a *answer) {
	defer func() {
		if p := recover(); p != nil {
			c.logger.Error("BUG: request panicked", "event", "request_panic", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			a.resp, a.close = nil, true
		}
	}()
	a.resp = a.park(c.ctx)
}

// encodeEarly encodes an answer that has to wait for others, so that it is known
// what it holds. The records of a fetch hold nothing, and the answer to a Produce
// is no larger than its request.
func (c *Conn) encodeEarly(a *answer) {
	if _, fetched := a.resp.(*fetchAnswer); fetched || a.resp == nil || a.r.Key == 0 {
		return
	}
	a.early = a.encode(nil)
	a.resp = nil
	c.addEarly(len(a.early))
}

// forget gives back what an answer holds. It may be called twice.
func (c *Conn) forget(a *answer) {
	a.frame.release()
	if n := len(a.early); n > 0 {
		a.early = nil
		c.addEarly(-n)
	}
}

func (c *Conn) addEarly(n int) {
	c.bytes.Add(int64(n))
	c.writing.early.Add(int64(n))
	c.s.cfg.Memory.add(int64(n))
}

// encode puts the answer and its header into buf.
func (a *answer) encode(buf []byte) []byte {
	a.r.Conn.throttle(a, 0)
	a.code = firstError(a.resp)
	buf = append(buf[:0], 0, 0, 0, 0)
	buf = binary.BigEndian.AppendUint32(buf, uint32(a.r.CorrelationID))
	// The header of ApiVersions is v0 always: the client does not know yet
	// what we speak (KIP-511).
	if a.resp.IsFlexible() && a.r.Key != 18 {
		buf = append(buf, 0)
	}
	buf = a.resp.AppendTo(buf)
	binary.BigEndian.PutUint32(buf, uint32(len(buf)-4))
	return buf
}

// write encodes and sends one answer. A panic of the encoder ends the connection.
func (c *Conn) write(a *answer, buf []byte) (_ []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			c.logger.Error("BUG: answer panicked", "event", "answer_panic", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = errQuiet
		}
	}()
	c.s.metrics.byKey[a.r.Key].d.Observe(c.s.cfg.Now().Sub(a.start).Seconds())
	defer func() {
		c.s.metrics.count(a.r.Key, a.code)
		c.forget(a)
	}()
	if f, ok := a.resp.(*fetchAnswer); ok {
		return c.writeFetch(a, f, buf)
	}
	if a.resp != nil || a.early != nil {
		out := a.early
		if out == nil {
			buf = a.encode(buf)
			out = buf
			c.hold(len(out))
		} else {
			c.hold(0)
		}
		defer c.letGo()
		if err := c.sendBytes(out, false); err != nil {
			return buf, errQuiet
		}
	}
	if a.close {
		return buf, errQuiet // its handler panicked and said so
	}
	return buf, nil
}
