// Package jetstream is a metadata.Store in a key-value bucket of NATS JetStream:
// in a server of its own inside this process, or in one named by URL.
//
// What it does about JetStream's manners:
//
//   - The bucket has a history of one, is kept in files, and the embedded server
//     syncs every write before it acknowledges it.
//   - Reads ask the stream's leader, not whichever replica is nearest. They may
//     still be stale (a deposed leader answers for a while) and stay hints.
//   - "Wrong last sequence" is two errors: 10071 is a conflict and names the
//     present revision; 10164 says that another write of the key is under way,
//     perhaps our own, and is tried again a few times before the outcome is
//     called unknown.
//   - A timeout, a lost connection or an unavailable stream is an unknown
//     outcome, never a refusal.
//   - A silent server is noticed within a second or two, by pings, and a
//     watch ends when the connection was lost, so that whoever watches compares
//     everything.
//
// Read jetstream.go, embed.go, batch.go, then watch.go.
package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/firnlog/firn/metadata"
)

// Config says where the bucket is.
type Config struct {
	// Dir is the folder of the embedded server; used when URL is empty.
	Dir string
	// URL names NATS servers, separated by commas; Credentials is the file with
	// the user's credentials, if any, and RootCAs one with the authority that
	// signed the servers' certificates, if it is not a public one.
	URL         string
	Credentials string
	RootCAs     string
	// Cluster is the cluster's name: its bucket is firn_<Cluster>.
	Cluster string
	// Replicas of the bucket, 1 by default.
	Replicas int
	// MaxStore bounds the bytes of the embedded server; 0 is 1 GiB.
	MaxStore int64
	// PingInterval is how often a silent server is asked for a sign of life; two
	// unanswered ones are a lost connection. 0 is 500 ms.
	PingInterval time.Duration
	// StartTimeout bounds the start of the embedded server and the first
	// connection; 0 is 15 s.
	StartTimeout time.Duration
	Logger       *slog.Logger // nil: discard
}

// A server that was stopped (SIGSTOP, a frozen machine) keeps its connections open,
// and without pings a client takes it for a quiet one. A second of silence is as
// long as brokers wait for each other.
const (
	defaultPingInterval = 500 * time.Millisecond
	maxUnanswered       = 2
)

// Codes of the JetStream API that mean something to us.
const (
	codeWrongLastSequence         = 10071
	codeWrongLastSequenceInFlight = 10164
	codeNoMessageFound            = 10037
	codeStreamNotFound            = 10059
)

// Store implements metadata.Store.
type Store struct {
	cfg    Config
	bucket string
	stream string
	prefix string // of subjects
	server *embedded
	nc     *nats.Conn
	js     jetstream.JetStream
	kv     atomic.Pointer[jetstream.KeyValue]

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // watches
	stops  sync.WaitGroup // of watches whose connection is gone

	// lost guards the channel that is closed when the connection was lost.
	lost struct {
		sync.Mutex
		ch chan struct{}
	}
}

var _ metadata.Batcher = (*Store)(nil)

// Open starts the embedded server if there is no URL, and connects. It makes no
// bucket.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Replicas == 0 {
		cfg.Replicas = 1
	}
	if cfg.MaxStore == 0 {
		cfg.MaxStore = 1 << 30
	}
	if cfg.PingInterval == 0 {
		cfg.PingInterval = defaultPingInterval
	}
	if cfg.StartTimeout == 0 {
		cfg.StartTimeout = defaultStartTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{cfg: cfg, bucket: "firn_" + cfg.Cluster}
	s.stream, s.prefix = "KV_"+s.bucket, "$KV."+s.bucket+"."
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.lost.ch = make(chan struct{})
	opts := []nats.Option{
		nats.Name("firn " + cfg.Cluster),
		nats.PingInterval(cfg.PingInterval), nats.MaxPingsOutstanding(maxUnanswered),
		nats.MaxReconnects(-1), nats.ReconnectWait(50 * time.Millisecond), nats.ReconnectJitter(50*time.Millisecond, 50*time.Millisecond),
		nats.Timeout(2 * time.Second),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { s.disconnected(err) }),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			cfg.Logger.Info("connected to the metadata store again", "event", "nats_reconnected", "url", nc.ConnectedUrlRedacted())
		}),
	}
	url := cfg.URL
	if url == "" {
		var err error
		if s.server, err = startEmbedded(cfg); err != nil {
			return nil, err
		}
		opts = append(opts, nats.InProcessServer(s.server.s))
	}
	if cfg.Credentials != "" {
		opts = append(opts, nats.UserCredentials(cfg.Credentials))
	}
	if cfg.RootCAs != "" {
		opts = append(opts, nats.RootCAs(cfg.RootCAs))
	}
	if err := s.connect(ctx, url, opts); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Store) connect(ctx context.Context, url string, opts []nats.Option) (err error) {
	deadline := time.Now().Add(s.cfg.StartTimeout)
	for {
		if s.nc, err = nats.Connect(url, opts...); err == nil {
			break
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("connect to the metadata store at %s: %w", url, err)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	if s.js, err = jetstream.New(s.nc); err != nil {
		return fmt.Errorf("connect to the metadata store: %w", err)
	}
	return nil
}

// disconnected ends every watch: what was missed in between, a comparison finds.
func (s *Store) disconnected(err error) {
	if s.ctx.Err() != nil {
		return
	}
	s.cfg.Logger.Warn("lost the metadata store", "event", "nats_disconnected", "err", err)
	s.lost.Lock()
	close(s.lost.ch)
	s.lost.ch = make(chan struct{})
	s.lost.Unlock()
}

// Bootstrap implements metadata.Store.
func (s *Store) Bootstrap(ctx context.Context) error {
	_, err := s.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: s.bucket, Description: "metadata of the firn cluster " + s.cfg.Cluster,
		History: 1, Storage: jetstream.FileStorage, Replicas: s.cfg.Replicas,
	})
	if err != nil && !errors.Is(err, jetstream.ErrBucketExists) {
		return fmt.Errorf("create metadata bucket %s: %w", s.bucket, err)
	}
	return s.allowBatches(ctx)
}

// Status implements metadata.Store. The stream's leader answers.
func (s *Store) Status(ctx context.Context) (metadata.Status, error) {
	st, err := s.js.Stream(ctx, s.stream)
	if err != nil {
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return metadata.Status{}, metadata.ErrNoBucket
		}
		return metadata.Status{}, fmt.Errorf("%w: %w", metadata.ErrUnavailable, err)
	}
	info := st.CachedInfo()
	return metadata.Status{Created: info.Created, LastRevision: info.State.LastSeq, Keys: info.State.NumSubjects}, nil
}

// Get implements metadata.Store. It asks the stream's leader.
func (s *Store) Get(ctx context.Context, key string) (metadata.Entry, error) {
	e := metadata.Entry{Key: key, Deleted: true}
	ask, err := json.Marshal(map[string]string{"last_by_subj": s.prefix + key})
	if err != nil {
		return e, err
	}
	msg, err := s.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+s.stream, ask)
	if err != nil {
		return e, fmt.Errorf("%w: %w", metadata.ErrUnavailable, err)
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message *struct {
			Sequence uint64 `json:"seq"`
			Header   []byte `json:"hdrs"`
			Data     []byte `json:"data"`
		} `json:"message"`
	}
	if err := json.Unmarshal(msg.Data, &answer); err != nil {
		return e, fmt.Errorf("%w: %w", metadata.ErrUnavailable, err)
	}
	switch {
	case answer.Error != nil && answer.Error.ErrorCode == codeNoMessageFound:
		return e, metadata.ErrNotFound
	case answer.Error != nil && answer.Error.ErrorCode == codeStreamNotFound:
		return e, fmt.Errorf("%w: %w", metadata.ErrUnavailable, metadata.ErrNoBucket)
	case answer.Error != nil:
		return e, fmt.Errorf("%w: %w", metadata.ErrUnavailable, answer.Error)
	case answer.Message == nil:
		return e, fmt.Errorf("%w: empty answer", metadata.ErrUnavailable)
	}
	e.Revision = answer.Message.Sequence
	if len(answer.Message.Header) > 0 {
		h, err := nats.DecodeHeadersMsg(answer.Message.Header)
		if err != nil {
			return e, fmt.Errorf("%w: %w", metadata.ErrUnavailable, err)
		}
		if h.Get(operationHeader) != "" || h.Get(jetstream.MarkerReasonHeader) != "" {
			return e, metadata.ErrNotFound
		}
	}
	e.Value, e.Deleted = answer.Message.Data, false
	return e, nil
}

const operationHeader = "KV-Operation"

// Update implements metadata.Store.
func (s *Store) Update(ctx context.Context, key string, value []byte, rev uint64) (uint64, error) {
	return s.publish(ctx, key, &nats.Msg{Subject: s.prefix + key, Data: value}, rev)
}

// Delete implements metadata.Store.
func (s *Store) Delete(ctx context.Context, key string, rev uint64) (uint64, error) {
	return s.publish(ctx, key, &nats.Msg{Subject: s.prefix + key, Header: nats.Header{operationHeader: []string{"DEL"}}}, rev)
}

// inFlightTries bounds how long a write waits for the one before it.
const inFlightTries = 8

func (s *Store) publish(ctx context.Context, key string, m *nats.Msg, rev uint64) (uint64, error) {
	for try := 0; ; try++ {
		ack, err := s.js.PublishMsg(ctx, m, jetstream.WithExpectLastSequencePerSubject(rev), jetstream.WithExpectStream(s.stream))
		if err == nil {
			return ack.Sequence, nil
		}
		err = classify(key, err)
		if !errors.Is(err, errInFlight) || try == inFlightTries {
			return 0, err
		}
		select {
		case <-time.After(time.Millisecond + rand.N(4*time.Millisecond)):
		case <-ctx.Done():
			return 0, err
		}
	}
}

// errInFlight is 10164: another write of the key has not been decided.
var errInFlight = fmt.Errorf("%w: another write of the key is in flight", metadata.ErrInDoubt)

// classify maps what a publish failed with. Only an answer of the stream can be
// a refusal; everything else may have happened.
func classify(key string, err error) error {
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api) && api.ErrorCode == codeWrongLastSequence:
		return &metadata.ConflictError{Key: key, Current: currentSequence(api.Description)}
	case errors.As(err, &api) && api.ErrorCode == codeWrongLastSequenceInFlight:
		return errInFlight
	case errors.As(err, &api) && api.Code != 503 && api.Code != 408:
		return fmt.Errorf("write metadata key %s: %w", key, err)
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("write metadata key %s: %w", key, err)
	}
	return fmt.Errorf("%w: %w", metadata.ErrInDoubt, err)
}

// currentSequence reads N out of "wrong last sequence: N"; 0 when it is not
// there.
func currentSequence(description string) uint64 {
	i := strings.LastIndexByte(description, ' ')
	n, err := strconv.ParseUint(description[i+1:], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Close implements metadata.Store: it ends the watches, the connection and the
// embedded server.
func (s *Store) Close() error {
	s.cancel()
	s.wg.Wait()
	if s.nc != nil {
		s.nc.Close()
	}
	s.stops.Wait()
	if s.server != nil {
		s.server.close()
	}
	return nil
}
