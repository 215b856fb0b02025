// Command floor is no log service. It does the least that a Go server can do for a
// produce (read the frame, decode it, check the CRC-32C, stamp the base offset, one
// write to the page cache, answer) and for a fetch (find the position, sendfile),
// with no durability and no safety. What it costs is the floor that real servers
// are compared with.
//
//	floor 127.0.0.1:39092 DIR
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"sort"
	"sync"
	"syscall"

	"github.com/twmb/franz-go/pkg/kmsg"
)

type batchAt struct{ offset, position int64 }

type partition struct {
	mu   sync.Mutex
	f    *os.File
	size int64
	next int64
	idx  []batchAt
}

var (
	partitions [64]*partition
	count      int32
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: floor HOST:PORT DIR")
		os.Exit(2)
	}
	check(os.MkdirAll(os.Args[2], 0o755))
	for i := range partitions {
		f, err := os.Create(fmt.Sprintf("%s/%d.log", os.Args[2], i))
		check(err)
		partitions[i] = &partition{f: f}
	}
	l, err := net.Listen("tcp", os.Args[1])
	check(err)
	for {
		c, err := l.Accept()
		check(err)
		go serve(c.(*net.TCPConn))
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

func serve(c *net.TCPConn) {
	defer c.Close()
	in := bufio.NewReaderSize(c, 64<<10)
	buf := make([]byte, 1<<20)
	var head [4]byte
	var out []byte
	for {
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint32(head[:]))
		if n > cap(buf) {
			buf = make([]byte, n)
		}
		b := buf[:n]
		if _, err := io.ReadFull(in, b); err != nil {
			return
		}
		key, version := int16(binary.BigEndian.Uint16(b)), int16(binary.BigEndian.Uint16(b[2:]))
		body := b[10+max(int(int16(binary.BigEndian.Uint16(b[8:]))), 0):]
		req := kmsg.RequestForKey(key)
		req.SetVersion(version)
		if req.IsFlexible() {
			body = body[1:]
		}
		if err := req.(interface{ UnsafeReadFrom([]byte) error }).UnsafeReadFrom(body); err != nil {
			fmt.Fprintln(os.Stderr, "floor:", err)
			return
		}
		resp := req.ResponseKind()
		resp.SetVersion(version)
		var from *partition
		var position, length int64
		switch r := req.(type) {
		case *kmsg.CreateTopicsRequest:
			count = r.Topics[0].NumPartitions
			t := kmsg.NewCreateTopicsResponseTopic()
			t.Topic = r.Topics[0].Topic
			resp.(*kmsg.CreateTopicsResponse).Topics = append(resp.(*kmsg.CreateTopicsResponse).Topics, t)
		case *kmsg.MetadataRequest:
			m := resp.(*kmsg.MetadataResponse)
			br := kmsg.NewMetadataResponseBroker()
			br.NodeID, br.Host, br.Port = 1, "127.0.0.1", int32(c.LocalAddr().(*net.TCPAddr).Port)
			m.Brokers = append(m.Brokers, br)
			t := kmsg.NewMetadataResponseTopic()
			t.Topic = r.Topics[0].Topic
			for i := range count {
				p := kmsg.NewMetadataResponseTopicPartition()
				p.Partition, p.Leader = i, 1
				t.Partitions = append(t.Partitions, p)
			}
			m.Topics = append(m.Topics, t)
		case *kmsg.ListOffsetsRequest:
			q := r.Topics[0].Partitions[0].Partition
			t := kmsg.NewListOffsetsResponseTopic()
			p := kmsg.NewListOffsetsResponseTopicPartition()
			p.Partition, p.Offset = q, partitions[q].next
			t.Partitions = append(t.Partitions, p)
			resp.(*kmsg.ListOffsetsResponse).Topics = append(resp.(*kmsg.ListOffsetsResponse).Topics, t)
		case *kmsg.ProduceRequest:
			q := r.Topics[0].Partitions[0]
			t := kmsg.NewProduceResponseTopic()
			t.Topic = r.Topics[0].Topic
			p := kmsg.NewProduceResponseTopicPartition()
			p.Partition, p.BaseOffset = q.Partition, partitions[q.Partition].append(q.Records)
			t.Partitions = append(t.Partitions, p)
			resp.(*kmsg.ProduceResponse).Topics = append(resp.(*kmsg.ProduceResponse).Topics, t)
		case *kmsg.FetchRequest:
			q := r.Topics[0].Partitions[0]
			from = partitions[q.Partition]
			position, length = from.find(q.FetchOffset, int64(q.PartitionMaxBytes))
			t := kmsg.NewFetchResponseTopic()
			t.Topic = r.Topics[0].Topic
			p := kmsg.NewFetchResponseTopicPartition()
			p.Partition = q.Partition
			t.Partitions = append(t.Partitions, p)
			resp.(*kmsg.FetchResponse).Topics = append(resp.(*kmsg.FetchResponse).Topics, t)
		}
		out = append(append(out[:0], 0, 0, 0, 0), b[4:8]...)
		if resp.IsFlexible() && key != 18 {
			out = append(out, 0)
		}
		out = resp.AppendTo(out)
		if from != nil { // the records' length is the last field of a Fetch v11 response
			binary.BigEndian.PutUint32(out[len(out)-4:], uint32(length))
		}
		binary.BigEndian.PutUint32(out, uint32(len(out)-4)+uint32(length))
		if _, err := c.Write(out); err != nil {
			return
		}
		if from != nil {
			send(c, from.f, position, length)
		}
	}
}

func (p *partition) append(records []byte) int64 {
	if crc32.Checksum(records[21:], castagnoli) != binary.BigEndian.Uint32(records[17:]) {
		panic("bad CRC")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	base := p.next
	binary.BigEndian.PutUint64(records, uint64(base))
	binary.BigEndian.PutUint32(records[12:], 1)
	if _, err := p.f.WriteAt(records, p.size); err != nil {
		panic(err)
	}
	p.idx = append(p.idx, batchAt{base, p.size})
	p.next += int64(binary.BigEndian.Uint32(records[57:]))
	p.size += int64(len(records))
	return base
}

func (p *partition) find(offset, limit int64) (position, length int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := sort.Search(len(p.idx), func(i int) bool { return p.idx[i].offset >= offset })
	if i == len(p.idx) {
		return p.size, 0
	}
	return p.idx[i].position, min(p.size-p.idx[i].position, limit)
}

func send(c *net.TCPConn, f *os.File, position, length int64) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	for length > 0 {
		failed := false
		err := raw.Write(func(fd uintptr) bool {
			n, err := syscall.Sendfile(int(fd), int(f.Fd()), &position, int(length))
			if n > 0 {
				length -= int64(n)
			}
			failed = err != nil && err != syscall.EAGAIN
			return err != syscall.EAGAIN
		})
		if err != nil || failed {
			return
		}
	}
}
