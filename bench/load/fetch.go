package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sys/unix"
)

// Fetch reads every partition from From to the end it has now. Batch, Record and
// Codec must be those that filled the topic.
func Fetch(o Options, leaders map[string][]int32) (Result, error) {
	o.defaults()
	one, err := EncodeBatch(o.Batch, o.Record, o.Codec)
	if err != nil {
		return Result{}, err
	}
	deadline := time.Now().Add(o.For)
	return measure(o, leaders, func(addr string, parts []int32) (Result, error) {
		return fetchAll(o, addr, parts, int64(len(one)), deadline)
	})
}

func fetchAll(o Options, addr string, parts []int32, size int64, deadline time.Time) (r Result, err error) {
	c, err := Dial(addr)
	if err != nil {
		return r, err
	}
	defer c.Close()
	next, end := map[int32]int64{}, map[int32]int64{}
	for _, p := range parts {
		next[p] = o.From
		if end[p], err = endOffset(c, o.Topic, p); err != nil {
			return r, err
		}
	}
	start := time.Now()
	for time.Now().Before(deadline) && (o.Bytes == 0 || r.Bytes < o.Bytes) {
		if o.Pace > 0 {
			time.Sleep(time.Until(start.Add(time.Duration(float64(r.Bytes) / float64(o.Pace) * 1e9))))
		}
		req := kmsg.NewPtrFetchRequest()
		req.Version, req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.ReplicaID = 11, 500, 1, 50<<20, -1
		req.SessionEpoch = -1
		t := kmsg.NewFetchRequestTopic()
		t.Topic = o.Topic
		for _, p := range parts {
			if next[p] < end[p] {
				fp := kmsg.NewFetchRequestTopicPartition()
				fp.Partition, fp.FetchOffset, fp.PartitionMaxBytes, fp.CurrentLeaderEpoch = p, next[p], o.FetchMax, -1
				t.Partitions = append(t.Partitions, fp)
			}
		}
		if len(t.Partitions) == 0 {
			break
		}
		req.Topics = append(req.Topics, t)
		began := time.Now()
		if _, err := c.c.Write(formatter.AppendRequest(nil, req, 1)); err != nil {
			return r, err
		}
		if err := c.skimFetch(o, next, size, &r); err != nil {
			return r, err
		}
		r.Latencies = append(r.Latencies, time.Since(began))
		r.Requests++
	}
	return r, nil
}

// skimFetch walks a Fetch v11 answer so that the records never enter this process.
func (c Conn) skimFetch(o Options, next map[int32]int64, size int64, r *Result) error {
	var b [64]byte
	var broken error
	get := func(n int) []byte {
		if broken == nil {
			_, broken = io.ReadFull(c.c, b[:n])
		}
		if broken != nil {
			clear(b[:n])
		}
		return b[:n]
	}
	i16 := func() int16 { return int16(binary.BigEndian.Uint16(get(2))) }
	i32 := func() int32 { return int32(binary.BigEndian.Uint32(get(4))) }
	i64 := func() int64 { return int64(binary.BigEndian.Uint64(get(8))) }
	i32() // length
	i32() // correlation id
	i32() // throttle time
	if err := kerr.ErrorForCode(i16()); err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	i32() // session
	for topics := i32(); topics > 0 && broken == nil; topics-- {
		if err := c.discard(int64(i16())); err != nil {
			return err
		}
		for parts := i32(); parts > 0 && broken == nil; parts-- {
			p := i32()
			if err := kerr.ErrorForCode(i16()); err != nil {
				return fmt.Errorf("fetch of partition %d: %w", p, err)
			}
			i64() // high watermark
			i64() // last stable offset
			i64() // log start
			for aborted := i32(); aborted > 0; aborted-- {
				i64()
				i64()
			}
			i32() // preferred replica
			n := int64(i32())
			if n <= 0 {
				continue
			}
			if err := c.discard(n); err != nil {
				return err
			}
			whole := n / size
			next[p] += whole * int64(o.Batch)
			r.Bytes += whole * size
			r.Records += whole * int64(o.Batch)
		}
	}
	return broken
}

// discard drops n bytes of the stream inside the kernel: MSG_TRUNC on TCP copies
// nothing.
func (c Conn) discard(n int64) error {
	raw, err := c.c.SyscallConn()
	if err != nil {
		return err
	}
	for n > 0 {
		var failure error
		err := raw.Read(func(fd uintptr) bool {
			got, _, errno := unix.Syscall6(unix.SYS_RECVFROM, fd, 0, uintptr(min(n, 1<<20)), unix.MSG_TRUNC|unix.MSG_DONTWAIT, 0, 0)
			switch {
			case errno == unix.EAGAIN:
				return false
			case errno != 0:
				failure = errno
			case got == 0:
				failure = io.ErrUnexpectedEOF
			}
			n -= int64(got)
			return true
		})
		if err := errors.Join(err, failure); err != nil {
			return fmt.Errorf("inside an answer: %w", err)
		}
	}
	return nil
}
