package metadata

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/firnlog/firn/internal/disk"
)

// Config is what a Client is made of.
type Config struct {
	// Store holds the facts. The client closes it.
	Store Store
	// Cluster is the cluster's name, put into its record when it is made.
	Cluster string
	// NodeID is this broker.
	NodeID int32
	// ClusterID is the id this broker knows its cluster by, from its data dir
	// or the bucket; empty on a fresh node. With it nothing is ever
	// bootstrapped, and another id in the store is ErrForeignCluster.
	ClusterID string
	// Static is the process's own broker configuration, by Kafka's names.
	Static map[string]string

	// FS and GuardPath name the file that remembers what the store was when it
	// was last seen. Without GuardPath a rollback while this process was down
	// goes unnoticed.
	FS        disk.FS
	GuardPath string

	Now        func() time.Time
	Logger     *slog.Logger          // nil: discard
	Registerer prometheus.Registerer // nil: no metrics
	Rand       io.Reader             // ids; nil: crypto/rand

	// ReconcileEvery is how often the image is compared with the store; 0 is
	// 5 s. Every tenth time, and after a broken watch, key by key.
	ReconcileEvery time.Duration
	// AttemptTimeout bounds one request to the store; 0 is 2 s. DoubtTimeout
	// bounds resolving an unknown outcome; 0 is 10 s.
	AttemptTimeout, DoubtTimeout time.Duration
	// MaxPartitions bounds the partitions of one topic; 0 is 10,000.
	MaxPartitions int32
}

// maxPartitions is the default bound of a topic's partitions: its whole
// assignment is one value of the store.
const maxPartitions = 10_000

// Client folds the store into Images and changes the store. Open makes one; all
// methods are safe for concurrent use.
type Client struct {
	cfg    Config
	logger *slog.Logger
	nonce  string
	reqs   atomic.Uint64
	image  atomic.Pointer[Image]
	// watched is the newest revision the watch reported; behind is the store's
	// own newest at the last reconciliation.
	watched, behind atomic.Uint64
	staleLists      int // only the reconciler's
	guard           *guardFile
	m               metrics

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	kick   chan struct{} // asks for a full reconcile now
	caught chan struct{} // closed when the first watch has caught up

	// fold guards the making of images. It is never held across a call to the
	// store.
	fold struct {
		sync.Mutex
		caught  bool
		pending []Entry // before the first watch has caught up
	}
	safe safeMode
	// jumped is what safe.times was at the last reservation of producer ids.
	jumped atomic.Int64
	batch  batcher
	subs   struct {
		sync.Mutex
		chans map[*subscription]struct{}
	}
}

type subscription struct{ ch chan<- struct{} }

// Open connects a client to its store, makes the cluster's record if this is the
// beginning of a cluster, and returns when the image has everything that was in
// the store. With a store that lost or changed what this broker knew it returns
// a client in safe mode, with whatever image there is.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	if cfg.ReconcileEvery == 0 {
		cfg.ReconcileEvery = 5 * time.Second
	}
	if cfg.AttemptTimeout == 0 {
		cfg.AttemptTimeout = 2 * time.Second
	}
	if cfg.DoubtTimeout == 0 {
		cfg.DoubtTimeout = 10 * time.Second
	}
	if cfg.MaxPartitions == 0 {
		cfg.MaxPartitions = maxPartitions
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	static, err := ValidateStatic(cfg.Static)
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, logger: cfg.Logger.With("component", "metadata"), kick: make(chan struct{}, 1), caught: make(chan struct{})}
	c.m = newMetrics(cfg.Registerer, c)
	c.subs.chans = map[*subscription]struct{}{}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if c.nonce, err = c.randomHex(6); err != nil {
		return nil, err
	}
	c.image.Store(emptyImage(cfg.NodeID, static))
	if c.guard, err = openGuard(cfg.FS, cfg.GuardPath); err != nil {
		return nil, err
	}
	if err := c.start(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Client) start(ctx context.Context) error {
	guarded := c.guard.state.ClusterID
	fresh := guarded == "" && c.cfg.ClusterID == ""
	if c.guard.lost() && !fresh {
		if err := c.guard.mark(); err != nil {
			return err
		}
	}
	if c.guard.unsafe {
		c.safe.times.Add(1)
	}
	st, err := c.awaitStatus(ctx)
	if errors.Is(err, ErrNoBucket) {
		if !fresh {
			c.enterSafeMode("the store has no bucket for a cluster that this broker knows")
			c.run()
			return nil
		}
		if err := c.cfg.Store.Bootstrap(ctx); err != nil {
			return fmt.Errorf("create the metadata bucket: %w", err)
		}
		st, err = c.awaitStatus(ctx)
	}
	if err != nil {
		return fmt.Errorf("reach the metadata store: %w", err)
	}
	if reason := c.guard.compare(st); reason != "" {
		c.enterSafeMode(reason)
	}
	c.guard.setCreated(st.Created)
	c.run()
	select {
	case <-c.caught:
	case <-ctx.Done():
		return fmt.Errorf("read the metadata: %w", ctx.Err())
	}
	im := c.Image()
	if reason := c.guard.compareImage(im); reason != "" {
		c.enterSafeMode(reason)
	}
	if im.ClusterID() == "" {
		if !fresh || im.Revision() > 0 {
			c.enterSafeMode("the store has no record of the cluster")
			return nil
		}
		if err := c.createCluster(ctx); err != nil {
			return err
		}
		im = c.Image()
	}
	for _, want := range []string{c.cfg.ClusterID, guarded} {
		if want != "" && want != im.ClusterID() {
			return fmt.Errorf("the metadata store holds cluster %s, this broker belongs to %s: %w", im.ClusterID(), want, ErrForeignCluster)
		}
	}
	if _, on := c.SafeMode(); on {
		return nil // the guard keeps what was known before
	}
	if err := im.checkStaticPolicy(); err != nil {
		return err
	}
	if err := c.rememberCompacted(ctx, im.layers); err != nil {
		return err
	}
	c.safe.whole.Store(true)
	return c.saveGuard()
}

// awaitStatus asks until the store answers.
func (c *Client) awaitStatus(ctx context.Context) (Status, error) {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 500*time.Millisecond) {
		actx, cancel := context.WithTimeout(ctx, c.cfg.AttemptTimeout)
		st, err := c.cfg.Store.Status(actx)
		cancel()
		if err == nil || errors.Is(err, ErrNoBucket) {
			return st, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return st, err
		}
	}
}

// createCluster writes the cluster's record. Of several brokers that start at
// once one wins, and the others take its id.
func (c *Client) createCluster(ctx context.Context) error {
	raw := make([]byte, 16)
	if _, err := io.ReadFull(c.cfg.Rand, raw); err != nil {
		return err
	}
	r := &clusterRecord{ClusterInfo: ClusterInfo{ID: TopicID(raw).String(), Name: c.cfg.Cluster, Created: c.cfg.Now().UTC()}}
	_, err := c.cas(ctx, keyCluster, encode(r, c.request()), 0)
	if errors.Is(err, ErrConflict) {
		e, err := c.get(ctx, keyCluster)
		if err != nil {
			return err
		}
		return c.absorb([]Entry{e})
	}
	if err == nil {
		c.logger.Info("cluster created", "event", "cluster_created", "cluster_id", r.ID, "cluster", r.Name)
	}
	return err
}

// Image is the newest state of the cluster that this broker has folded.
func (c *Client) Image() *Image { return c.image.Load() }

// Subscribe pokes ch, without blocking, after every change of the image; ch
// should have a capacity of one. cancel ends it.
func (c *Client) Subscribe(ch chan<- struct{}) (cancel func()) {
	s := &subscription{ch}
	c.subs.Lock()
	c.subs.chans[s] = struct{}{}
	c.subs.Unlock()
	return func() {
		c.subs.Lock()
		delete(c.subs.chans, s)
		c.subs.Unlock()
	}
}

func (c *Client) poke() {
	c.subs.Lock()
	defer c.subs.Unlock()
	for s := range c.subs.chans {
		select {
		case s.ch <- struct{}{}:
		default:
		}
	}
}

// Wait returns once cond holds of the image, or with ctx's error.
func (c *Client) Wait(ctx context.Context, cond func(*Image) bool) error {
	ch := make(chan struct{}, 1)
	defer c.Subscribe(ch)()
	for !cond(c.Image()) {
		select {
		case <-ch:
		case <-ctx.Done():
			return ctx.Err()
		case <-c.ctx.Done():
			return ErrUnavailable
		}
	}
	return nil
}

// Close stops the client and closes its store. It is safe to call twice.
func (c *Client) Close() error {
	c.cancel()
	c.wg.Wait()
	var err error
	if _, on := c.SafeMode(); !on && c.Image().ClusterID() != "" {
		err = c.saveGuard()
	}
	return errors.Join(err, c.cfg.Store.Close())
}

// absorb folds entries into a new image. An entry that contradicts what is known
// stops at safe mode: the image keeps what it had.
func (c *Client) absorb(entries []Entry) error {
	c.fold.Lock()
	f := newFolder(c.Image())
	var bad error
	for _, e := range entries {
		if err := f.add(e); err != nil {
			bad = errors.Join(bad, err)
		}
	}
	im := f.image()
	c.image.Store(im)
	c.fold.Unlock()
	if f.changed {
		c.poke()
	}
	if untrusted(bad) {
		c.enterSafeMode(bad.Error())
	}
	return bad
}

// untrusted says whether an entry's error means safe mode.
func untrusted(err error) bool {
	var lost *lostError
	return errors.As(err, &lost) || errors.Is(err, ErrNewerFormat)
}

// request returns an id that no other attempt to change anything has.
func (c *Client) request() string {
	return fmt.Sprintf("%d-%s-%d", c.cfg.NodeID, c.nonce, c.reqs.Add(1))
}

func (c *Client) randomHex(n int) (string, error) {
	raw := make([]byte, n)
	if _, err := io.ReadFull(c.cfg.Rand, raw); err != nil {
		return "", fmt.Errorf("random id: %w", err)
	}
	return hex.EncodeToString(raw), nil
}

// newTopicID is a random id that Kafka could have made: not one of the reserved
// ones, and not beginning with a dash, which command lines take for a flag.
func (c *Client) newTopicID() (TopicID, error) {
	for {
		var id TopicID
		if _, err := io.ReadFull(c.cfg.Rand, id[:]); err != nil {
			return id, fmt.Errorf("random id: %w", err)
		}
		id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
		if !slices.Contains([]byte("-"), id.String()[0]) {
			return id, nil
		}
	}
}
