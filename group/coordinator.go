package group

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf16"

	"github.com/firnlog/firn/metadata"
)

// tombstoneDelay collects deletions of topics before the groups are searched for
// their offsets: deleting a thousand topics must not walk all groups a thousand
// times.
const tombstoneDelay = 500 * time.Millisecond

// Coordinator answers for the groups of the partitions of Topic that this broker
// leads. All methods are safe for concurrent use, and none blocks on the disk or
// on another broker but Find.
type Coordinator struct {
	cfg     Config
	logger  *slog.Logger
	metrics *metrics

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	sooner chan struct{} // capacity 1: an earlier deadline was set

	mu struct {
		sync.RWMutex
		topic  metadata.TopicID
		shards []*shard // by partition
		closed bool
	}
}

// New returns a coordinator that follows the metadata until Close.
func New(cfg Config) (*Coordinator, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.NewID == nil {
		cfg.NewID = randomUUID
	}
	c := &Coordinator{cfg: cfg, logger: cfg.Logger.With("component", "group"), sooner: make(chan struct{}, 1)}
	c.metrics = newMetrics(cfg.Registerer, c)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	// Before the first shard looks for itself, or a deletion between the two would
	// be nobody's.
	poke := make(chan struct{}, 1)
	unsubscribe := cfg.Cluster.Subscribe(poke)
	known := map[metadata.TopicID]struct{}{}
	for _, t := range cfg.Cluster.Image().Tombstones() {
		known[t.ID] = struct{}{}
	}
	c.follow()
	c.wg.Add(2)
	go func() {
		defer c.wg.Done()
		defer unsubscribe()
		c.watch(poke, known)
	}()
	go func() {
		defer c.wg.Done()
		c.timers()
	}()
	return c, nil
}

// Close answers everybody who waits and returns when no goroutine is left. Safe to
// call twice. Close it before the partitions.
func (c *Coordinator) Close() {
	c.mu.Lock()
	c.mu.closed = true
	shards := c.mu.shards
	c.mu.Unlock()
	c.cancel()
	c.wg.Wait()
	for _, s := range shards {
		<-s.done
	}
}

// watch follows the metadata: the topic's own partitions, and deleted topics, of
// which a shard has looked at those in known by itself when it loaded.
func (c *Coordinator) watch(poke <-chan struct{}, known map[metadata.TopicID]struct{}) {
	var look <-chan time.Time
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-poke:
			c.follow()
			if look == nil {
				look = time.After(tombstoneDelay)
			}
		case <-look:
			look = nil
			known = c.dropDeleted(known)
		}
	}
}

// dropDeleted removes the offsets of the topics whose tombstones are not in known.
func (c *Coordinator) dropDeleted(known map[metadata.TopicID]struct{}) map[metadata.TopicID]struct{} {
	all := map[metadata.TopicID]struct{}{}
	var fresh []metadata.Tombstone
	for _, t := range c.cfg.Cluster.Image().Tombstones() {
		all[t.ID] = struct{}{}
		if _, ok := known[t.ID]; !ok {
			fresh = append(fresh, t)
		}
	}
	if len(fresh) > 0 {
		for _, s := range c.shards() {
			s.mu.Lock()
			s.dropDeletedLocked(fresh)
			s.mu.Unlock()
		}
	}
	return all
}

// follow makes the shards what the topic's partitions are.
func (c *Coordinator) follow() {
	t, ok := c.cfg.Cluster.Image().TopicByName(Topic)
	if !ok {
		return // deleted or not made yet; its shards find out by themselves
	}
	c.mu.Lock()
	if c.mu.closed {
		c.mu.Unlock()
		return
	}
	var old []*shard
	if c.mu.topic != t.ID {
		old, c.mu.shards, c.mu.topic = c.mu.shards, nil, t.ID
	}
	// The number is taken once for a topic: groups are spread by it, and one that
	// grew would move them away from their records.
	if c.mu.shards == nil {
		for n := range t.Partitions {
			s := newShard(c, n)
			ctx, cancel := context.WithCancel(c.ctx)
			s.cancel = cancel
			c.mu.shards = append(c.mu.shards, s)
			go s.run(ctx)
		}
	}
	shards := c.mu.shards
	c.mu.Unlock()
	for _, s := range old {
		s.cancel()
		<-s.done
	}
	for _, s := range shards {
		s.poke()
	}
}

func (c *Coordinator) shards() []*shard {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.mu.shards
}

func (c *Coordinator) partitionState(n int32) (metadata.PartitionState, bool) {
	im := c.cfg.Cluster.Image()
	t, ok := im.TopicByName(Topic)
	if !ok {
		return metadata.PartitionState{}, false
	}
	return im.Partition(t.ID, n)
}

func (c *Coordinator) pokeTimer() {
	select {
	case c.sooner <- struct{}{}:
	default:
	}
}

// timers is the one goroutine that runs deadlines, of all groups, and looks for
// what has expired.
func (c *Coordinator) timers() {
	sweep := c.cfg.Now().Add(c.cfg.RetentionCheck)
	for {
		now := c.cfg.Now()
		next := sweep
		for _, s := range c.shards() {
			next = earlier(next, s.fire(now))
			if !now.Before(sweep) {
				s.mu.Lock()
				s.sweepLocked()
				s.mu.Unlock()
			}
		}
		if !now.Before(sweep) {
			sweep = now.Add(c.cfg.RetentionCheck)
			next = earlier(next, sweep)
		}
		t := time.NewTimer(max(next.Sub(now), time.Millisecond))
		select {
		case <-t.C:
		case <-c.sooner:
			t.Stop()
		case <-c.ctx.Done():
			t.Stop()
			return
		}
	}
}

func (c *Coordinator) count() (n int) {
	for _, s := range c.shards() {
		s.mu.Lock()
		n += len(s.groups)
		s.mu.Unlock()
	}
	return n
}

// Find returns the node that coordinates the group. It makes Topic when there is
// none yet, and waits until the coordinator, if that is this broker, has loaded
// its groups: then the client need not try in vain. Errors: ErrNotAvailable, ctx's,
// or the metadata's.
func (c *Coordinator) Find(ctx context.Context, group string) (node int32, err error) {
	t, err := c.EnsureTopic(ctx)
	if err != nil {
		return -1, err
	}
	c.follow()
	shards := c.shards()
	if len(shards) == 0 {
		return -1, ErrNotAvailable
	}
	n := partitionFor(group, len(shards))
	err = shards[n].awaitReady(ctx)
	if errors.Is(err, ErrNotCoordinator) {
		if st, ok := c.cfg.Cluster.Image().Partition(t.ID, n); ok && st.Leader >= 0 {
			return st.Leader, nil
		}
		return -1, ErrNotAvailable
	}
	if err != nil {
		return -1, err
	}
	return c.cfg.NodeID, nil
}

// EnsureTopic makes Topic unless it exists, as it has to be: compacted, which also
// keeps it from being tiered and from retention.
func (c *Coordinator) EnsureTopic(ctx context.Context) (*metadata.Topic, error) {
	im := c.cfg.Cluster.Image()
	if t, ok := im.TopicByName(Topic); ok {
		return t, nil
	}
	rf := min(int(c.cfg.ReplicationFactor), max(len(im.Brokers()), 1))
	t, err := c.cfg.Cluster.EnsureTopic(ctx, metadata.NewTopic{
		Name: Topic, Partitions: c.cfg.Partitions, ReplicationFactor: int16(rf), Internal: true,
		Configs: map[string]string{
			"cleanup.policy": "compact", "compression.type": "producer", "segment.bytes": fmt.Sprint(c.cfg.SegmentBytes),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("create topic %s: %w", Topic, err)
	}
	return t, nil
}

// partitionFor is Kafka's choice: Java's hash of the group id, so that tools that
// compute it look in the right partition.
func partitionFor(group string, partitions int) int32 {
	var h int32
	for _, u := range utf16.Encode([]rune(group)) {
		h = 31*h + int32(u)
	}
	if h == math.MinInt32 {
		h = 0
	}
	return max(h, -h) % int32(partitions)
}

// with runs fn under the lock of the group's shard, or returns why not.
func (c *Coordinator) with(group string, fn func(s *shard)) error {
	if len(group) > maxString {
		return ErrInvalidGroupID
	}
	shards := c.shards()
	if len(shards) == 0 {
		return ErrNotCoordinator
	}
	s := shards[partitionFor(group, len(shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status != nil {
		return s.status
	}
	fn(s)
	return nil
}

// Join takes a JoinGroup.
func (c *Coordinator) Join(r JoinRequest) Answer[JoinResult] {
	refuse := func(err error) Answer[JoinResult] {
		return answered(JoinResult{Err: err, MemberID: r.MemberID, Generation: -1})
	}
	switch {
	case r.Group == "":
		return refuse(ErrInvalidGroupID)
	case r.SessionTimeout < c.cfg.MinSession || r.SessionTimeout > c.cfg.MaxSession:
		return refuse(ErrInvalidSessionTimeout)
	case r.tooLong():
		return refuse(ErrInvalidRequest)
	}
	r.Protocols = distinct(r.Protocols)
	a := newAnswer[JoinResult]()
	err := c.with(r.Group, func(s *shard) {
		g := s.groupLocked(r.Group, r.MemberID == "")
		switch {
		case g == nil:
			a.give(JoinResult{Err: ErrUnknownMember, MemberID: r.MemberID, Generation: -1})
		case g.deleting:
			a.give(JoinResult{Err: ErrNotAvailable, MemberID: r.MemberID, Generation: -1})
			return
		default:
			g.joins(r, a.give)
			s.settleLocked(g)
		}
	})
	if err != nil {
		return refuse(err)
	}
	return a
}

// distinct drops protocols named before: each is one vote.
func distinct(ps []Protocol) []Protocol {
	seen := make(map[string]struct{}, len(ps))
	return slices.DeleteFunc(slices.Clone(ps), func(p Protocol) bool {
		_, again := seen[p.Name]
		seen[p.Name] = struct{}{}
		return again
	})
}

// Sync takes a SyncGroup.
func (c *Coordinator) Sync(r SyncRequest) Answer[SyncResult] {
	if r.Group == "" {
		return answered(SyncResult{Err: ErrInvalidGroupID})
	}
	a := newAnswer[SyncResult]()
	err := c.with(r.Group, func(s *shard) {
		g := s.groupLocked(r.Group, false)
		if g == nil {
			a.give(SyncResult{Err: ErrUnknownMember})
			return
		}
		g.syncs(r, a.give)
		s.settleLocked(g)
	})
	if err != nil {
		return answered(SyncResult{Err: err})
	}
	return a
}

// Heartbeat keeps a member's session. A coordinator that is still loading says
// nothing against it: sessions begin anew when it has loaded.
func (c *Coordinator) Heartbeat(group, memberID string, instanceID *string, generation int32) error {
	if group == "" {
		return ErrInvalidGroupID
	}
	var answer error
	err := c.with(group, func(s *shard) {
		g := s.groupLocked(group, false)
		if g == nil {
			answer = ErrUnknownMember
			return
		}
		if answer = g.heartbeats(memberID, instanceID, generation); answer == nil || errors.Is(answer, ErrRebalance) {
			s.scheduleLocked(g, g.byID[memberID].expires)
		}
	})
	if errors.Is(err, ErrLoading) {
		return nil
	}
	if err != nil {
		return err
	}
	return answer
}

// Leave takes a LeaveGroup; the errors are in the order of the members.
func (c *Coordinator) Leave(group string, members []Leaver) ([]error, error) {
	if group == "" {
		return nil, ErrInvalidGroupID
	}
	errs := make([]error, len(members))
	err := c.with(group, func(s *shard) {
		g := s.groupLocked(group, false)
		if g == nil {
			for i := range errs {
				errs[i] = ErrUnknownMember
			}
			return
		}
		errs = g.leaves(members)
		s.settleLocked(g)
	})
	return errs, err
}

// Commit takes an OffsetCommit. The answer comes when the offsets are committed in
// the journal. The empty group id is a group like others here, for clients of old.
func (c *Coordinator) Commit(r CommitRequest) Answer[CommitResult] {
	a := newAnswer[CommitResult]()
	err := c.with(r.Group, func(s *shard) { s.commitLocked(&r, a) })
	if err != nil {
		return answered(CommitResult{Err: err})
	}
	return a
}

func (s *shard) commitLocked(r *CommitRequest, a Answer[CommitResult]) {
	g := s.groupLocked(r.Group, r.Generation < 0)
	if g == nil {
		// The broker turns this into ILLEGAL_GENERATION below OffsetCommit v9.
		a.give(CommitResult{Err: ErrGroupNotFound})
		return
	}
	if err := g.mayCommit(r); err != nil {
		s.settleLocked(g)
		a.give(CommitResult{Err: err})
		return
	}
	if m := g.byID[r.MemberID]; m != nil {
		s.scheduleLocked(g, m.expires)
	}
	tps, cs, errs := g.commitRecords(r)
	e := &entry{records: make([]kv, len(tps))}
	for i := range tps {
		e.records[i] = offsetRecord(g.id, tps[i], cs[i])
	}
	g.commits++
	e.done = func(err error) {
		g.commits--
		if err != nil {
			a.give(CommitResult{Err: err})
		} else {
			if g.offsets == nil && len(tps) > 0 {
				g.offsets = make(map[topicPartition]committed, len(tps))
			}
			for i, tp := range tps {
				g.offsets[tp] = cs[i]
			}
			s.c.metrics.commits.Add(float64(len(tps)))
			a.give(CommitResult{Errs: errs})
		}
		if g.commits == 0 && s.groups[g.id] == g {
			s.settleLocked(g)
		}
	}
	s.enqueueLocked(e, ErrCommitTooLarge)
}

// Fetch takes an OffsetFetch: the offsets of the partitions given, or with all
// those of every partition. Commits that came before it are in the answer.
// Offsets are never unstable, because there are no transactions.
func (c *Coordinator) Fetch(group string, topics []string, partitions []int32, all bool) Answer[FetchResult] {
	a := newAnswer[FetchResult]()
	err := c.with(group, func(s *shard) {
		tps := make([]topicPartition, len(topics))
		for i := range tps {
			tps[i] = topicPartition{topics[i], partitions[i]}
		}
		g := s.groupLocked(group, false)
		if g == nil || g.commits == 0 {
			a.give(FetchResult{Offsets: g.fetch(tps, all)})
			return
		}
		s.enqueueLocked(&entry{done: func(err error) {
			if err != nil {
				a.give(FetchResult{Err: err})
				return
			}
			a.give(FetchResult{Offsets: g.fetch(tps, all)})
		}}, nil)
	})
	if err != nil {
		return answered(FetchResult{Err: err})
	}
	return a
}

// FetchResult is the answer to an OffsetFetch of one group.
type FetchResult struct {
	Err     error
	Offsets []Offset
}

// Delete removes an empty group and its offsets.
func (c *Coordinator) Delete(group string) Answer[error] {
	a := newAnswer[error]()
	err := c.with(group, func(s *shard) {
		g := s.groupLocked(group, false)
		if g == nil {
			a.give(ErrGroupNotFound)
			return
		}
		if err := g.mayDelete(); err != nil {
			a.give(err)
			return
		}
		// From here on nothing is taken for the group, so that nothing is queued
		// behind its tombstone.
		g.deleting = true
		s.enqueueLocked(&entry{
			prepare: func() (records []kv) {
				for tp := range g.offsets {
					records = append(records, kv{key: offsetKey(g.id, tp)})
				}
				// Last, so that what a crash leaves is still a group.
				return append(records, kv{key: groupKey(g.id)})
			},
			done: func(err error) {
				g.deleting = false
				if err == nil && s.groups[g.id] == g {
					s.forgetLocked(g)
				}
				a.give(err)
			},
		}, nil)
	})
	if err != nil {
		return answered(err)
	}
	return a
}

// DeleteOffsetsResult is the answer to an OffsetDelete.
type DeleteOffsetsResult struct {
	Err  error
	Errs []error // in the order of the partitions
}

// DeleteOffsets removes single offsets of a group, which must not be subscribed to
// their topics.
func (c *Coordinator) DeleteOffsets(group string, topics []string, partitions []int32) Answer[DeleteOffsetsResult] {
	a := newAnswer[DeleteOffsetsResult]()
	err := c.with(group, func(s *shard) {
		g := s.groupLocked(group, false)
		if g == nil {
			a.give(DeleteOffsetsResult{Err: ErrGroupNotFound})
			return
		}
		if err := g.mayDeleteOffsets(); err != nil {
			a.give(DeleteOffsetsResult{Err: err})
			return
		}
		errs := make([]error, len(topics))
		var tps []topicPartition
		for i, topic := range topics {
			if g.state != Empty && g.subscribed(topic) {
				errs[i] = ErrSubscribed
				continue
			}
			tps = append(tps, topicPartition{strings.Clone(topic), partitions[i]})
		}
		g.commits++
		s.enqueueLocked(&entry{
			prepare: func() (records []kv) {
				for _, tp := range tps {
					if _, ok := g.offsets[tp]; ok {
						records = append(records, kv{key: offsetKey(g.id, tp)})
					}
				}
				return records
			},
			done: func(err error) {
				g.commits--
				if err != nil {
					a.give(DeleteOffsetsResult{Err: err})
					return
				}
				for _, tp := range tps {
					delete(g.offsets, tp)
				}
				a.give(DeleteOffsetsResult{Errs: errs})
			},
		}, nil)
	})
	if err != nil {
		return answered(DeleteOffsetsResult{Err: err})
	}
	return a
}

// Listed is a group as ListGroups shows it.
type Listed struct {
	ID, ProtocolType string
	State            State
}

// List names the groups coordinated here, sorted by id. While any partition is
// being loaded it fails with ErrLoading: a list with groups missing would be taken
// for the whole.
func (c *Coordinator) List() ([]Listed, error) {
	var all []Listed
	for _, s := range c.shards() {
		s.mu.Lock()
		status := s.status
		for _, g := range s.groups {
			all = append(all, Listed{g.id, g.protocolType, g.shownState()})
		}
		s.mu.Unlock()
		if status != nil && !errors.Is(status, ErrNotCoordinator) {
			return nil, status
		}
	}
	slices.SortFunc(all, func(a, b Listed) int { return strings.Compare(a.ID, b.ID) })
	return all, nil
}

// Loaded waits until every partition that is coordinated here has been loaded.
func (c *Coordinator) Loaded(ctx context.Context) error {
	for _, s := range c.shards() {
		if err := s.awaitReady(ctx); err != nil && !errors.Is(err, ErrNotCoordinator) {
			return err
		}
	}
	return nil
}

func (g *group) shownState() State {
	if g.deleting {
		return Dead
	}
	return g.state
}

// Description is a group as DescribeGroups shows it.
type Description struct {
	State                  State
	ProtocolType, Protocol string // Protocol only when stable
	Members                []DescribedMember
}

// DescribedMember is a member of a Description; Metadata and Assignment only when
// the group is stable.
type DescribedMember struct {
	ID                   string
	InstanceID           *string
	ClientID, Host       string
	Metadata, Assignment []byte
}

// Describe describes a group. Errors: ErrGroupNotFound, and why this broker cannot
// know.
func (c *Coordinator) Describe(group string) (d Description, err error) {
	answer := ErrGroupNotFound
	err = c.with(group, func(s *shard) {
		g := s.groupLocked(group, false)
		if g == nil || g.deleting {
			return
		}
		answer = nil
		d = Description{State: g.state, ProtocolType: g.protocolType}
		if g.state == Stable {
			d.Protocol = g.protocol
		}
		for _, m := range g.members {
			dm := DescribedMember{ID: m.id, InstanceID: m.instanceID, ClientID: m.clientID, Host: m.host}
			if g.state == Stable {
				dm.Metadata, dm.Assignment = m.metadata(g.protocol), m.assignment
			}
			d.Members = append(d.Members, dm)
		}
	})
	if err != nil {
		return d, err
	}
	return d, answer
}

func randomUUID() string {
	var u [16]byte
	rand.Read(u[:]) // never fails
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
