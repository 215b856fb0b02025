package broker

// InitProducerId (key 22), v0 to v5; KIP-98, KIP-360. Idempotent producers only:
// transactional ids need a coordinator, which comes with transactions.

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/metadata"
)

// idBlock is how many producer ids are taken from the metadata at a time.
const idBlock = 1000

// producerIDs hands out ids from a block that this process alone owns. A restart
// forgets the rest of it: ids are never reused (SAFETY 18).
type producerIDs struct {
	mu        sync.Mutex
	next, end int64
}

func (p *producerIDs) take(ctx context.Context, m *metadata.Client, used func(below int64) int64) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next == p.end {
		first, err := m.NextProducerIDs(ctx, idBlock, used)
		if err != nil {
			return -1, err
		}
		p.next, p.end = first, first+idBlock
	}
	p.next++
	return p.next - 1, nil
}

func initProducerID(_ context.Context, s *Server, r *Request) Reply {
	req := r.Body.(*kmsg.InitProducerIDRequest)
	resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	if req.TransactionalID != nil {
		resp.ErrorCode = codeCoordinatorNotAvailable
		if *req.TransactionalID == "" {
			resp.ErrorCode = codeInvalidRequest
		}
		return Reply{Response: resp}
	}
	if !s.mayWriteSomewhere(r.Conn) {
		resp.ErrorCode = codeOf(errClusterDenied)
		return Reply{Response: resp}
	}
	return Reply{Wait: func(ctx context.Context) kmsg.Response {
		id, err := s.pids.take(ctx, s.cfg.Metadata, s.cfg.Replication.MaxProducerID)
		if err != nil {
			resp.ErrorCode = codeOf(err)
			return resp
		}
		resp.ProducerID, resp.ProducerEpoch = id, 0
		return resp
	}}
}

// mayWriteSomewhere says whether a client may be an idempotent producer: it has the
// right for the cluster, or may write to any topic (KIP-679).
func (s *Server) mayWriteSomewhere(c *Conn) bool {
	if c.Allowed(kmsg.ACLOperationIdempotentWrite, kmsg.ACLResourceTypeCluster, clusterResource) {
		return true
	}
	for _, t := range s.cfg.Metadata.Image().Topics() {
		if c.mayTopic(kmsg.ACLOperationWrite, t.Name) {
			return true
		}
	}
	return false
}
