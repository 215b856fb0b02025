package load

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var formatter = kmsg.NewRequestFormatter(kmsg.FormatterClientID("firn-bench"))

// Conn is a connection for one request at a time.
type Conn struct{ c *net.TCPConn }

// Dial connects.
func Dial(addr string) (Conn, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return Conn{}, err
	}
	return Conn{c.(*net.TCPConn)}, nil
}

// Close ends the connection.
func (c Conn) Close() error { return c.c.Close() }

// Ask sends req in the version that it names and waits for the answer.
func (c Conn) Ask(req kmsg.Request) (kmsg.Response, error) {
	if _, err := c.c.Write(formatter.AppendRequest(nil, req, 1)); err != nil {
		return nil, err
	}
	frame, err := readFrame(c.c)
	if err != nil {
		return nil, err
	}
	resp := req.ResponseKind()
	frame = frame[4:]
	if resp.IsFlexible() && req.Key() != 18 {
		frame = frame[1:]
	}
	return resp, resp.ReadFrom(frame)
}

func readFrame(r io.Reader) ([]byte, error) {
	var n [4]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, fmt.Errorf("the server closed the connection: %w", err)
	}
	b := make([]byte, binary.BigEndian.Uint32(n[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

// Prepare makes the topic when asked and returns the partitions by the address
// of their leader.
func Prepare(o Options) (map[string][]int32, error) {
	o.defaults()
	c, err := Dial(o.Addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if o.Create {
		if err := createTopic(c, o); err != nil {
			return nil, err
		}
	}
	for range 100 {
		req := kmsg.NewPtrMetadataRequest()
		req.Version = 9
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = &o.Topic
		req.Topics = append(req.Topics, t)
		answer, err := c.Ask(req)
		if err != nil {
			return nil, err
		}
		resp := answer.(*kmsg.MetadataResponse)
		brokers, leaders, n := map[int32]string{}, map[string][]int32{}, 0
		for _, b := range resp.Brokers {
			brokers[b.NodeID] = net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
		}
		for _, p := range resp.Topics[0].Partitions {
			if addr, ok := brokers[p.Leader]; ok && p.ErrorCode == 0 && int(p.Partition) < o.Partitions {
				leaders[addr] = append(leaders[addr], p.Partition)
				n++
			}
		}
		if n == o.Partitions {
			for _, parts := range leaders {
				slices.Sort(parts)
			}
			return leaders, ready(o, leaders)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil, fmt.Errorf("load: %s has no leader for every partition after 10 s", o.Topic)
}

func createTopic(c Conn, o Options) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version, req.TimeoutMillis = 5, 30_000
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = o.Topic, int32(o.Partitions), int16(o.Replicas)
	for k, v := range o.Config {
		t.Configs = append(t.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: k, Value: &v})
	}
	req.Topics = append(req.Topics, t)
	resp, err := c.Ask(req)
	if err != nil {
		return err
	}
	err = kerr.ErrorForCode(resp.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode)
	if err == nil || err == kerr.TopicAlreadyExists {
		return nil
	}
	return fmt.Errorf("create topic %s: %w", o.Topic, err)
}

// ready waits until every leader answers for its partitions: one is named before
// it takes writes.
func ready(o Options, leaders map[string][]int32) error {
	for addr, parts := range leaders {
		c, err := Dial(addr)
		if err != nil {
			return err
		}
		defer c.Close()
		for _, p := range parts {
			var err error
			for range 100 {
				if _, err = endOffset(c, o.Topic, p); err == nil {
					break
				}
				time.Sleep(100 * time.Millisecond)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func endOffset(c Conn, topic string, partition int32) (int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.Version, req.ReplicaID = 4, -1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.Timestamp, p.CurrentLeaderEpoch = partition, -1, -1
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := c.Ask(req)
	if err != nil {
		return 0, err
	}
	got := resp.(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0]
	return got.Offset, kerr.ErrorForCode(got.ErrorCode)
}

// Offset asks for an offset by timestamp, or by one of Kafka's special ones.
func Offset(addr, topic string, partition int32, timestamp int64) (int64, error) {
	c, err := Dial(addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	req := kmsg.NewPtrListOffsetsRequest()
	req.Version, req.ReplicaID = 9, -1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.Timestamp, p.CurrentLeaderEpoch = partition, timestamp, -1
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := c.Ask(req)
	if err != nil {
		return 0, err
	}
	got := resp.(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0]
	return got.Offset, kerr.ErrorForCode(got.ErrorCode)
}

// DeleteTopic removes a topic.
func DeleteTopic(addr, topic string) error {
	c, err := Dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.Version, req.TimeoutMillis, req.TopicNames = 5, 30_000, []string{topic}
	resp, err := c.Ask(req)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.(*kmsg.DeleteTopicsResponse).Topics[0].ErrorCode)
}

// TopicConfig asks what a topic's settings are.
func TopicConfig(addr, topic string) (map[string]string, error) {
	c, err := Dial(addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	req := kmsg.NewPtrDescribeConfigsRequest()
	req.Version = 1
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	req.Resources = append(req.Resources, r)
	resp, err := c.Ask(req)
	if err != nil {
		return nil, err
	}
	got := resp.(*kmsg.DescribeConfigsResponse).Resources[0]
	all := map[string]string{}
	for _, e := range got.Configs {
		if e.Value != nil {
			all[e.Name] = *e.Value
		}
	}
	return all, kerr.ErrorForCode(got.ErrorCode)
}
