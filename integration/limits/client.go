// Package limits tests what a broker takes from clients that mean no good, or are
// many: its memory stays within --memory-limit, others are served meanwhile, and
// nothing is left when they have gone.
package limits

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/record"
)

// conn speaks Kafka frames by hand, so that it can be slow, stall and pipeline.
type conn struct {
	*net.TCPConn
	asked int32
}

func dial(addr string) (*conn, error) {
	nc, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	return &conn{TCPConn: nc.(*net.TCPConn)}, nil
}

// encode is a request as it goes over the wire.
func (c *conn) encode(version int16, req kmsg.Request, client string) []byte {
	c.asked++
	req.SetVersion(version)
	p := binary.BigEndian.AppendUint16(make([]byte, 4), uint16(req.Key()))
	p = binary.BigEndian.AppendUint16(p, uint16(version))
	p = binary.BigEndian.AppendUint32(p, uint32(c.asked))
	p = binary.BigEndian.AppendUint16(p, uint16(len(client)))
	p = append(p, client...)
	if req.IsFlexible() {
		p = append(p, 0)
	}
	p = req.AppendTo(p)
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	return p
}

func (c *conn) send(version int16, req kmsg.Request, client string) error {
	_, err := c.Write(c.encode(version, req, client))
	return err
}

// answer reads one answer, in steps so that a large one takes little memory here.
func (c *conn) answer(keep bool) (body []byte, size int, err error) {
	var head [8]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil, 0, err
	}
	size = int(binary.BigEndian.Uint32(head[:])) - 4
	if !keep {
		_, err = io.CopyN(io.Discard, c, int64(size))
		return nil, size, err
	}
	body = make([]byte, size)
	_, err = io.ReadFull(c, body)
	return body, size, err
}

// hello asks for ApiVersions, as every client does first.
func (c *conn) hello() error {
	if err := c.send(0, kmsg.NewPtrApiVersionsRequest(), "hello"); err != nil {
		return err
	}
	_, _, err := c.answer(false)
	return err
}

// fetchVersion names topics and has a header without tags.
const fetchVersion = 11

// fetch asks one partition for records, without a session.
func fetch(topic string, partition int32, offset int64, wait time.Duration, maxBytes int32) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.SessionEpoch = int32(wait.Milliseconds()), 1, maxBytes, -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic = topic
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = partition, offset, maxBytes
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	return req
}

// records is how many bytes of records an answer to fetch has.
func records(body []byte) (int, error) {
	resp := kmsg.NewPtrFetchResponse()
	resp.Version = fetchVersion
	if err := resp.ReadFrom(body); err != nil {
		return 0, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return 0, errors.New("an answer without the partition")
	}
	p := resp.Topics[0].Partitions[0]
	if p.ErrorCode != 0 {
		return 0, fmt.Errorf("error code %d", p.ErrorCode)
	}
	return len(p.RecordBatches), nil
}

// produceHead is the begin of a Produce of size bytes, as far as its header.
func produceHead(size int) []byte {
	p := binary.BigEndian.AppendUint32(nil, uint32(size))
	p = binary.BigEndian.AppendUint16(p, 0)
	p = binary.BigEndian.AppendUint16(p, 7)
	p = binary.BigEndian.AppendUint32(p, 1)
	p = binary.BigEndian.AppendUint16(p, 0xffff)
	return append(p, 0xff, 0xff, 0, 1) // no transaction, acks=1
}

// zeros is a batch of one record with a key and n zeros, which zstd makes small.
func zeros(n int) []byte {
	opts := record.NewBatchOptions()
	opts.Codec = record.Zstd
	b := record.NewBuilder(opts)
	b.Append(record.Record{TimestampDelta: time.Now().UnixMilli(), Key: []byte("k"), Value: make([]byte, n)})
	return b.Build()
}

// produce sends one batch to the first partition and returns the error code.
func (c *conn) produce(topic string, batch []byte) (int16, error) {
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = 1, 30_000
	t := kmsg.NewProduceRequestTopic()
	t.Topic = topic
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = batch
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	if err := c.send(8, req, "produce"); err != nil {
		return 0, err
	}
	body, _, err := c.answer(true)
	if err != nil {
		return 0, err
	}
	resp := kmsg.NewPtrProduceResponse()
	resp.Version = 8
	if err := resp.ReadFrom(body); err != nil {
		return 0, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return 0, errors.New("an answer without the partition")
	}
	return resp.Topics[0].Partitions[0].ErrorCode, nil
}
