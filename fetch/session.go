package fetch

import (
	"container/list"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Errors of fetch sessions (KIP-227).
var (
	// ErrSessionNotFound: FETCH_SESSION_ID_NOT_FOUND (70).
	ErrSessionNotFound = errors.New("fetch session not found")
	// ErrSessionEpoch: INVALID_FETCH_SESSION_EPOCH (71).
	ErrSessionEpoch = errors.New("invalid fetch session epoch")
	// ErrSessionTopicID: FETCH_SESSION_TOPIC_ID_ERROR (106): the session was made
	// with topic names and is now used with ids, or the other way round.
	ErrSessionTopicID = errors.New("fetch session mixes topic names and topic ids")
)

// SessionsConfig is what Sessions are made of.
type SessionsConfig struct {
	// Slots is max.incremental.fetch.session.cache.slots; default 1000. A client
	// that gets none fetches in full each time.
	Slots int
	// EvictAfter is how long a session is safe from being replaced by a larger
	// one; default 2 min, as in Kafka.
	EvictAfter time.Duration
	Now        func() time.Time // required
	Registerer prometheus.Registerer
}

// Sessions are the incremental fetch sessions of a broker (KIP-227): the
// partitions a client fetches and what it was told of them, so that requests and
// answers carry only what changed. Safe for concurrent use.
type Sessions struct {
	slots      int
	evictAfter time.Duration
	now        func() time.Time
	evictions  prometheus.Counter

	mu    sync.Mutex
	byID  map[int32]*session
	lru   list.List // of *session, least recently used first
	parts int       // in all sessions
}

// SessionKey names a partition in a session. ID is zero for requests by name.
type SessionKey struct {
	ID        [16]byte
	Topic     string // empty for requests by id
	Partition int32
}

// SessionPart is a partition as the client asks for it.
type SessionPart struct {
	SessionKey
	Offset           int64
	MaxBytes         int32
	CurrentEpoch     int32
	LastFetchedEpoch int32
	LogStart         int64 // what the client says of its own; followers only
}

// SessionOutcome is what was found for a partition, as far as it decides whether
// an incremental answer mentions it.
type SessionOutcome struct {
	Bytes         int
	HighWatermark int64
	LogStart      int64
	Err           bool
	Diverging     bool
}

type session struct {
	id      int32
	byID    bool // made by topic ids (Fetch v13+)
	created time.Time
	used    time.Time
	elem    *list.Element // in Sessions.lru, nil when removed

	// The rest is guarded by Sessions.mu.
	epoch int32 // expected next
	parts map[SessionKey]*sessionPart
	order list.List // of *sessionPart; those that got records move to the end
}

type sessionPart struct {
	SessionPart
	elem          *list.Element
	highWatermark int64 // as last told; -1 for never, and after an error
	logStart      int64
}

// SessionRequest is the session part of a Fetch.
type SessionRequest struct {
	ID, Epoch int32
	ByID      bool // the version uses topic ids
	Parts     []SessionPart
	Forgotten []SessionKey
}

const (
	finalEpoch   = -1 // close the session, or none wanted
	initialEpoch = 0  // full fetch, open one
)

// Turn is one request's use of a session, from Begin to Finish.
type Turn struct {
	s      *Sessions
	sess   *session // nil: no session, or one still to be made
	create bool
	byID   bool
	epoch  int32 // of the session, during this turn
	parts  []SessionPart
}

// Parts are the partitions to fetch, in order: those that lately got records
// come last, so that none starves behind another.
func (t *Turn) Parts() []SessionPart { return t.parts }

// Begin applies a request to its session. Errors: ErrSessionNotFound,
// ErrSessionEpoch, ErrSessionTopicID; the answer then has session id 0 and no
// partitions.
func (s *Sessions) Begin(q SessionRequest) (*Turn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q.Epoch == initialEpoch || q.Epoch == finalEpoch {
		if old := s.byID[q.ID]; q.ID != 0 && old != nil {
			s.removeLocked(old)
		}
		return &Turn{s: s, create: q.Epoch == initialEpoch, byID: q.ByID, parts: q.Parts}, nil
	}
	sess := s.byID[q.ID]
	switch {
	case sess == nil:
		return nil, ErrSessionNotFound
	case sess.byID != q.ByID:
		return nil, ErrSessionTopicID
	case sess.epoch != q.Epoch:
		return nil, ErrSessionEpoch
	}
	s.parts -= len(sess.parts)
	for _, k := range q.Forgotten {
		if p := sess.parts[k]; p != nil {
			sess.order.Remove(p.elem)
			delete(sess.parts, k)
		}
	}
	for _, p := range q.Parts {
		sess.add(p)
	}
	s.parts += len(sess.parts)
	if len(sess.parts) == 0 {
		// Nothing left to remember: the session ends and the answer says so.
		s.removeLocked(sess)
		return &Turn{s: s, byID: q.ByID}, nil
	}
	sess.used = s.now()
	s.lru.MoveToBack(sess.elem)
	sess.epoch = nextEpoch(sess.epoch)
	t := &Turn{s: s, sess: sess, byID: q.ByID, epoch: sess.epoch, parts: make([]SessionPart, 0, len(sess.parts))}
	for el := sess.order.Front(); el != nil; el = el.Next() {
		t.parts = append(t.parts, el.Value.(*sessionPart).SessionPart)
	}
	return t, nil
}

// nextEpoch skips what has a meaning of its own.
func nextEpoch(e int32) int32 {
	if e+1 <= 0 {
		return 1
	}
	return e + 1
}

func (x *session) add(p SessionPart) *sessionPart {
	if old := x.parts[p.SessionKey]; old != nil {
		old.SessionPart = p
		return old
	}
	sp := &sessionPart{SessionPart: p, highWatermark: -1, logStart: -1}
	sp.elem = x.order.PushBack(sp)
	x.parts[p.SessionKey] = sp
	return sp
}

// Finish ends the turn with what was found for Parts, in the same order. It
// returns the session id of the answer and which partitions the answer mentions.
// ErrSessionEpoch means that another request used the session meanwhile.
func (t *Turn) Finish(found []SessionOutcome) (id int32, mention []bool, err error) {
	s := t.s
	mention = make([]bool, len(found))
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.sess == nil {
		for i := range mention {
			mention[i] = true
		}
		if t.create && len(t.parts) > 0 {
			id = s.createLocked(t, found)
		}
		return id, mention, nil
	}
	if t.sess.elem == nil || t.sess.epoch != t.epoch {
		return 0, nil, ErrSessionEpoch
	}
	for i, p := range t.parts {
		if sp := t.sess.parts[p.SessionKey]; sp != nil {
			mention[i] = sp.tell(found[i])
			if found[i].Bytes > 0 {
				t.sess.order.MoveToBack(sp.elem)
			}
		}
	}
	return t.sess.id, mention, nil
}

// tell notes what the client hears and says whether it must hear it. A partition
// with an error is always mentioned, and again when the error is gone.
func (p *sessionPart) tell(o SessionOutcome) bool {
	must := o.Bytes > 0 || o.Diverging || o.Err
	if o.HighWatermark != p.highWatermark {
		p.highWatermark = o.HighWatermark
		must = true
	}
	if o.LogStart != p.logStart {
		p.logStart = o.LogStart
		must = true
	}
	if o.Err {
		p.highWatermark = -1
	}
	return must
}

// createLocked makes a session if there is room for one; 0 means there is none.
func (s *Sessions) createLocked(t *Turn, found []SessionOutcome) int32 {
	now := s.now()
	if len(s.byID) >= s.slots && !s.evictLocked(len(t.parts), now) {
		return 0
	}
	sess := &session{byID: t.byID, created: now, used: now, epoch: 1, parts: make(map[SessionKey]*sessionPart, len(t.parts))}
	for sess.id == 0 || s.byID[sess.id] != nil {
		sess.id = rand.Int32()
	}
	for i, p := range t.parts {
		sess.add(p).tell(found[i])
	}
	s.byID[sess.id] = sess
	sess.elem = s.lru.PushBack(sess)
	s.parts += len(sess.parts)
	return sess.id
}

// evictLocked makes room for a session of size partitions by Kafka's rules: one
// unused for EvictAfter goes first; else the smallest that is older than
// EvictAfter, if it is smaller than the new one.
func (s *Sessions) evictLocked(size int, now time.Time) bool {
	if s.lru.Len() == 0 {
		return false
	}
	if oldest := s.lru.Front().Value.(*session); now.Sub(oldest.used) > s.evictAfter {
		s.removeLocked(oldest)
		s.evictions.Inc()
		return true
	}
	var smallest *session
	for el := s.lru.Front(); el != nil; el = el.Next() {
		x := el.Value.(*session)
		if now.Sub(x.created) > s.evictAfter && (smallest == nil || len(x.parts) < len(smallest.parts)) {
			smallest = x
		}
	}
	if smallest == nil || len(smallest.parts) >= size {
		return false
	}
	s.removeLocked(smallest)
	s.evictions.Inc()
	return true
}

func (s *Sessions) removeLocked(x *session) {
	delete(s.byID, x.id)
	s.lru.Remove(x.elem)
	x.elem = nil
	s.parts -= len(x.parts)
}

// NewSessions returns an empty cache of sessions.
func NewSessions(cfg SessionsConfig) *Sessions {
	s := &Sessions{slots: cfg.Slots, evictAfter: cfg.EvictAfter, now: cfg.Now, byID: make(map[int32]*session)}
	if s.slots <= 0 {
		s.slots = 1000
	}
	if s.evictAfter <= 0 {
		s.evictAfter = 2 * time.Minute
	}
	s.evictions = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "firn_fetch_session_evictions_total", Help: "Incremental fetch sessions evicted to make room for others.",
	})
	if cfg.Registerer != nil {
		count := func(name, help string, f func() int) {
			cfg.Registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
				s.mu.Lock()
				defer s.mu.Unlock()
				return float64(f())
			}))
		}
		cfg.Registerer.MustRegister(s.evictions)
		count("firn_fetch_sessions", "Incremental fetch sessions.", func() int { return len(s.byID) })
		count("firn_fetch_session_partitions", "Partitions in all incremental fetch sessions.", func() int { return s.parts })
	}
	return s
}
