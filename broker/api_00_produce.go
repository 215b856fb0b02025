package broker

// Produce (key 0), v3 to v13; KIP-98 (idempotence), KIP-467 (record errors from
// v8), KIP-516 (topic ids from v13). v0 to v2 are advertised and close the
// connection. Left out: transactions (a transactional batch needs a coordinator)
// and KIP-951's leader hints, which need more than one broker.

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/group"
	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/record"
	"github.com/firnlog/firn/replication"
)

// permitted finds a partition by topic name, or by id when byID, on which the client
// may do op. The right comes first: whether a topic of some name exists is nobody's
// business without it.
func (s *Server) permitted(c *Conn, op kmsg.ACLOperation, byID bool, topic string, id [16]byte, partition int32) (*replication.Partition, error) {
	if byID {
		t, ok := s.cfg.Metadata.Image().TopicByID(id)
		if !ok {
			return nil, errUnknownTopicID
		}
		topic = t.Name
	}
	if !c.mayTopic(op, topic) {
		return nil, errTopicDenied
	}
	if !byID {
		return s.cfg.Replication.ByName(topic, partition)
	}
	return s.cfg.Replication.Partition(id, partition)
}

// waiting is a batch whose acknowledgement is not due yet.
type waiting struct {
	p *replication.Partition
	a replication.Appended
	// topic and part say where the answer goes.
	topic, part int
}

func produce(ctx context.Context, s *Server, r *Request) Reply {
	req := r.Body.(*kmsg.ProduceRequest)
	resp := req.ResponseKind().(*kmsg.ProduceResponse)
	var open []waiting
	failed := false
	for _, t := range req.Topics {
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		for i := range t.Partitions {
			rp := kmsg.NewProduceResponseTopicPartition()
			rp.Partition, rp.BaseOffset, rp.LogStartOffset = t.Partitions[i].Partition, -1, -1
			p, a, err := s.appendTo(ctx, r, req, t.Topic, t.TopicID, &t.Partitions[i])
			if err != nil {
				failed = true
				refuse(&rp, err, r.Version)
			} else {
				rp.BaseOffset, rp.LogAppendTime, rp.LogStartOffset = a.Base, a.LogAppendMs, a.LogStart
				if req.Acks == -1 && !p.Committed(a) {
					open = append(open, waiting{p, a, len(resp.Topics), i})
				}
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	switch {
	case req.Acks == 0:
		return Reply{Close: failed}
	case len(open) == 0:
		return Reply{Response: resp}
	}
	timeout := time.Duration(max(req.TimeoutMillis, 1)) * time.Millisecond
	return Reply{Wait: func(ctx context.Context) kmsg.Response {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		for _, w := range open {
			if err := w.p.WaitCommitted(ctx, w.a); err != nil {
				rp := &resp.Topics[w.topic].Partitions[w.part]
				rp.BaseOffset, rp.LogAppendTime = -1, -1
				refuse(rp, err, r.Version)
			}
		}
		return resp
	}}
}

// refuse fills in why a batch was not accepted.
func refuse(rp *kmsg.ProduceResponseTopicPartition, err error, version int16) {
	rp.ErrorCode = codeOf(err)
	if version < 8 {
		return
	}
	msg := err.Error()
	rp.ErrorMessage = &msg
	var invalid *record.ValidationError
	if errors.As(err, &invalid) {
		for _, re := range invalid.Records {
			e := kmsg.NewProduceResponseTopicPartitionErrorRecord()
			e.RelativeOffset, e.ErrorMessage = re.Index, &re.Msg
			rp.ErrorRecords = append(rp.ErrorRecords, e)
		}
	}
}

// errAcks and errTransactional are refusals that only Produce has.
var (
	errAcks          = errors.New("acks must be -1, 0 or 1")
	errTransactional = errors.New("a transactional batch needs a transactional id")
	errNoTxns        = errors.New("transactions are not served yet")
	errInternalTopic = errors.New("only the broker itself writes to an internal topic")
)

// appendTo validates one partition's batch and appends it.
func (s *Server) appendTo(ctx context.Context, r *Request, req *kmsg.ProduceRequest, topic string, id [16]byte, in *kmsg.ProduceRequestTopicPartition) (*replication.Partition, replication.Appended, error) {
	none := replication.Appended{}
	if req.Acks < -1 || req.Acks > 1 {
		return nil, none, errAcks
	}
	p, err := s.permitted(r.Conn, kmsg.ACLOperationWrite, r.Version >= 13, topic, id, in.Partition)
	if err != nil {
		return nil, none, err
	}
	if p.TopicPartition().Topic == group.Topic {
		return nil, none, errInternalTopic
	}
	// Kafka looks at this before it looks at the batch.
	if b, _, err := record.Parse(in.Records); err == nil && b.IsTransactional() {
		if req.TransactionID == nil {
			return nil, none, errTransactional
		}
		return nil, none, errNoTxns
	}
	cfg := p.Config()
	b, err := s.cfg.Memory.validate(ctx, in.Records, record.Limits{
		MaxBatchBytes: cfg.MaxMessageBytes, Strict: cfg.StrictValidation, RequireKeys: cfg.Compact,
		NowMs:       s.cfg.Now().UnixMilli(),
		BeforeMaxMs: orForever(cfg.TimestampBeforeMax), AfterMaxMs: orForever(cfg.TimestampAfterMax),
		LogAppendTime: cfg.LogAppendTime, Codec: codecOf(cfg), NoZstd: r.Version < 7,
	})
	if err != nil {
		return nil, none, err
	}
	a, err := p.Append(b, replication.AppendOptions{Acks: req.Acks, CurrentEpoch: -1})
	return p, a, err
}

func orForever(ms int64) int64 {
	if ms < 0 {
		return math.MaxInt64
	}
	return ms
}

// codecOf is the topic's compression.type.
func codecOf(cfg *metadata.TopicConfig) record.Codec {
	switch cfg.Compression {
	case "uncompressed":
		return record.None
	case "gzip":
		return record.Gzip
	case "snappy":
		return record.Snappy
	case "lz4":
		return record.LZ4
	case "zstd":
		return record.Zstd
	}
	return record.ProducerCodec
}
