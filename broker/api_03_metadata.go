package broker

// Metadata (key 3), v0 to v13; KIP-4, KIP-430 (authorized operations), KIP-516
// (topic ids). A missing topic is made when the request and the broker allow it.

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/group"
	"github.com/firnlog/firn/metadata"
)

// autoCreateTimeout bounds how long a Metadata request waits for a topic it makes.
const autoCreateTimeout = 5 * time.Second

// bulkyMetadata is for requests of all topics; what clients ask again and again
// names the few that they use.
func bulkyMetadata(req kmsg.Request) bool {
	n := len(req.(*kmsg.MetadataRequest).Topics)
	return n == 0 || n > 16
}

func describeMetadata(_ context.Context, s *Server, r *Request) Reply {
	req := r.Body.(*kmsg.MetadataRequest)
	all := req.Topics == nil && r.Version >= 1 || len(req.Topics) == 0 && r.Version == 0
	im := s.cfg.Metadata.Image()
	missing := false
	for _, t := range req.Topics {
		if t.Topic != nil {
			if _, ok := im.TopicByName(*t.Topic); !ok {
				missing = true
			}
		}
	}
	if all || !missing {
		return Reply{Response: s.metadataAnswer(im, r, req, all, nil)}
	}
	return Reply{Wait: func(ctx context.Context) kmsg.Response {
		failed := map[string]error{}
		if (req.AllowAutoTopicCreation || r.Version < 4) && s.cfg.AutoCreate() {
			ctx, cancel := context.WithTimeout(ctx, autoCreateTimeout)
			defer cancel()
			for _, t := range req.Topics {
				if t.Topic == nil {
					continue
				}
				if _, ok := im.TopicByName(*t.Topic); ok || !r.Conn.mayTopic(kmsg.ACLOperationDescribe, *t.Topic) {
					continue
				}
				if !r.Conn.mayCreate(*t.Topic) {
					failed[*t.Topic] = errTopicDenied
					continue
				}
				if err := s.autoCreate(ctx, *t.Topic); err != nil {
					failed[*t.Topic] = err
				}
			}
		}
		return s.metadataAnswer(s.cfg.Metadata.Image(), r, req, false, failed)
	}}
}

// autoCreate makes a missing topic with the broker's defaults, an internal one as
// its owner needs it.
func (s *Server) autoCreate(ctx context.Context, topic string) error {
	if topic == group.Topic {
		_, err := s.cfg.Groups.EnsureTopic(ctx)
		return err
	}
	_, err := s.cfg.Metadata.EnsureTopic(ctx, metadata.NewTopic{Name: topic, Partitions: -1, ReplicationFactor: -1})
	return err
}

func (s *Server) metadataAnswer(im *metadata.Image, r *Request, req *kmsg.MetadataRequest, all bool, failed map[string]error) *kmsg.MetadataResponse {
	resp := req.ResponseKind().(*kmsg.MetadataResponse)
	id := im.ClusterID()
	resp.ClusterID, resp.ControllerID = &id, s.cfg.NodeID
	for _, b := range im.Brokers() {
		host, port := r.Conn.Address(b)
		if host == "" {
			continue
		}
		rb := kmsg.NewMetadataResponseBroker()
		rb.NodeID, rb.Host, rb.Port = b.Node, host, port
		if b.Rack != "" {
			rb.Rack = &b.Rack
		}
		resp.Brokers = append(resp.Brokers, rb)
	}
	if r.Version >= 8 && r.Version <= 10 && req.IncludeClusterAuthorizedOperations {
		resp.AuthorizedOperations = operations(r.Conn, kmsg.ACLResourceTypeCluster, clusterResource)
	}
	if all {
		for _, t := range im.Topics() {
			if !r.Conn.mayTopic(kmsg.ACLOperationDescribe, t.Name) {
				continue
			}
			resp.Topics = append(resp.Topics, s.metadataTopic(im, r, req, t))
		}
		return resp
	}
	for _, q := range req.Topics {
		var t *metadata.Topic
		var ok bool
		code := codeUnknownTopic
		if q.Topic != nil {
			t, ok = im.TopicByName(*q.Topic)
			if err := failed[*q.Topic]; err != nil && !ok {
				code = codeOf(err)
				if errors.Is(err, context.DeadlineExceeded) {
					code = codeLeaderNotAvailable
				}
			} else if metadata.CheckTopicName(*q.Topic) != nil {
				code = codeInvalidTopic
			}
		} else {
			t, ok = im.TopicByID(q.TopicID)
			code = codeUnknownTopicID
		}
		// By name, a topic that may not be seen looks the same whether it exists;
		// by id, as if it did not.
		switch {
		case q.Topic != nil && !r.Conn.mayTopic(kmsg.ACLOperationDescribe, *q.Topic):
			ok, code = false, codeTopicDenied
		case ok && !r.Conn.mayTopic(kmsg.ACLOperationDescribe, t.Name):
			ok = false
		}
		if !ok {
			rt := kmsg.NewMetadataResponseTopic()
			rt.Topic, rt.TopicID, rt.ErrorCode = q.Topic, q.TopicID, code
			if rt.Topic == nil && r.Version < 12 {
				empty := ""
				rt.Topic = &empty
			}
			resp.Topics = append(resp.Topics, rt)
			continue
		}
		resp.Topics = append(resp.Topics, s.metadataTopic(im, r, req, t))
	}
	return resp
}

func (s *Server) metadataTopic(im *metadata.Image, r *Request, req *kmsg.MetadataRequest, t *metadata.Topic) kmsg.MetadataResponseTopic {
	rt := kmsg.NewMetadataResponseTopic()
	rt.Topic, rt.TopicID, rt.IsInternal = &t.Name, t.ID, t.Internal
	if req.IncludeTopicAuthorizedOperations {
		rt.AuthorizedOperations = operations(r.Conn, kmsg.ACLResourceTypeTopic, t.Name)
	}
	for n := range t.Partitions {
		rp := kmsg.NewMetadataResponseTopicPartition()
		rp.Partition, rp.Leader, rp.LeaderEpoch = n, -1, -1
		if st, ok := im.Partition(t.ID, n); ok {
			rp.Leader, rp.LeaderEpoch, rp.Replicas = st.Leader, st.LeaderEpoch, st.Replicas
			for _, m := range st.ISR {
				rp.ISR = append(rp.ISR, m.Node)
			}
		}
		if rp.Leader < 0 {
			rp.ErrorCode = codeLeaderNotAvailable
		}
		rt.Partitions = append(rt.Partitions, rp)
	}
	return rt
}
