package jetstream

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/firnlog/firn/metadata"
)

// Errors that end a watch.
var (
	errLostConnection = errors.New("the connection was lost")
	errClosed         = errors.New("the store is closed")
)

// Watch implements metadata.Store. It is one ordered consumer.
func (s *Store) Watch(ctx context.Context, after uint64, fn func(metadata.Event)) error {
	if s.ctx.Err() != nil {
		return errClosed
	}
	s.wg.Add(1)
	defer s.wg.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	s.lost.Lock()
	lost := s.lost.ch
	s.lost.Unlock()
	kv, err := s.keyValue(ctx)
	if err != nil {
		return err
	}
	var opts []jetstream.WatchOpt
	if after > 0 {
		opts = append(opts, jetstream.ResumeFromRevision(after+1))
	}
	w, err := kv.WatchAll(ctx, opts...)
	if err != nil {
		s.kv.Store(nil) // the bucket may be another one next time
		return fmt.Errorf("%w: watch: %w", metadata.ErrUnavailable, err)
	}
	defer s.stop(w)
	for {
		select {
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return errLostConnection
			case e == nil:
				fn(metadata.Event{CaughtUp: true})
			default:
				fn(metadata.Event{Entry: metadata.Entry{Key: e.Key(), Value: e.Value(), Revision: e.Revision(), Deleted: e.Operation() != jetstream.KeyValuePut}})
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		case <-lost:
			return errLostConnection
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// stop ends a watcher's consumer. That is a request, and without a connection it
// would wait for its timeout: then it goes on by itself, until it succeeds over
// the next connection or Close ends it.
func (s *Store) stop(w jetstream.KeyWatcher) {
	if s.nc.IsConnected() {
		w.Stop() // an unreachable consumer expires
		return
	}
	s.stops.Add(1)
	go func() {
		defer s.stops.Done()
		w.Stop() // an unreachable consumer expires
	}()
}

// keyValue looks the bucket up, once.
func (s *Store) keyValue(ctx context.Context) (jetstream.KeyValue, error) {
	if kv := s.kv.Load(); kv != nil {
		return *kv, nil
	}
	kv, err := s.js.KeyValue(ctx, s.bucket)
	switch {
	case errors.Is(err, jetstream.ErrBucketNotFound):
		return nil, metadata.ErrNoBucket
	case err != nil:
		return nil, fmt.Errorf("%w: %w", metadata.ErrUnavailable, err)
	}
	s.kv.Store(&kv)
	return kv, nil
}
