package metadata

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Errors of a Store. They are matched with errors.Is.
var (
	// ErrNotFound means the key has never been written, or was deleted.
	ErrNotFound = errors.New("metadata key not found")
	// ErrConflict means a compare-and-set found another revision than expected
	// and changed nothing. A *ConflictError carries the present one if known.
	ErrConflict = errors.New("metadata key was changed by someone else")
	// ErrInDoubt means the outcome of a write is not known: it may have
	// happened, may still happen, or never will.
	ErrInDoubt = errors.New("outcome of the metadata write is unknown")
	// ErrNoBucket means the store has no bucket for this cluster.
	ErrNoBucket = errors.New("metadata bucket does not exist")
	// ErrUnavailable means the store did not answer a read.
	ErrUnavailable = errors.New("metadata store is unavailable")
)

// ConflictError is an ErrConflict with the revision that was found.
type ConflictError struct {
	Key     string
	Current uint64 // present revision of Key, 0 when the store did not say
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%v: %s is at revision %d", ErrConflict, e.Key, e.Current)
}

// Unwrap makes it an ErrConflict.
func (e *ConflictError) Unwrap() error { return ErrConflict }

// Entry is one key with its last value.
type Entry struct {
	Key      string
	Value    []byte
	Revision uint64 // of the store, not of the key: grows with every write anywhere
	// Deleted marks a key that was deleted; Value is empty.
	Deleted bool
}

// Event is what a watch reports.
type Event struct {
	Entry
	// CaughtUp is reported once, with no entry: everything that was in the
	// store when the watch began has been reported before it.
	CaughtUp bool
}

// Status is what the store says about itself.
type Status struct {
	// Created is when the bucket was made. Another time is another bucket.
	Created time.Time
	// LastRevision is the newest revision in the bucket.
	LastRevision uint64
	// Keys counts the keys that were ever written, deleted ones included.
	Keys uint64
}

// Store is a bucket of keys with compare-and-set, as JetStream's key-value store
// offers it and with the manners it has: reads may be stale, acknowledgements
// may be lost, watches may be late, silent, or report a key twice. What never
// happens in a sound store is that two updates of one key both succeed from the
// same revision. All methods are safe for concurrent use.
type Store interface {
	// Get returns the last entry of key, or an older one: it is a hint.
	// ErrNotFound for a missing or deleted key, ErrUnavailable for no answer.
	Get(ctx context.Context, key string) (Entry, error)
	// Update writes value if the key's revision is rev; rev 0 means the key must
	// not exist. It returns the new revision, ErrConflict when the key was at
	// another revision and nothing was written, or ErrInDoubt. Expiry of ctx is
	// ErrInDoubt once the request may have left.
	Update(ctx context.Context, key string, value []byte, rev uint64) (uint64, error)
	// Delete removes the key if its revision is rev, with the errors of Update.
	// A later Update of the key names the revision of the deletion.
	Delete(ctx context.Context, key string, rev uint64) (uint64, error)
	// Watch calls fn from one goroutine with the last entry of every key whose
	// revision is above after, in revision order, then with CaughtUp, then with
	// every change, until ctx ends (its error) or the watch breaks (another
	// error; watch again from what was seen). Values in between may be skipped,
	// the last one of a key never is.
	Watch(ctx context.Context, after uint64, fn func(Event)) error
	// Status describes the bucket; ErrNoBucket when there is none. It is as
	// fresh as the store can make it.
	Status(ctx context.Context) (Status, error)
	// Bootstrap creates the bucket if there is none. Only a node that has never
	// seen this cluster may call it.
	Bootstrap(ctx context.Context) error
	// Close stops everything. It is safe to call twice.
	Close() error
}

// Batcher is a Store that can make several updates in one step, which is one
// sync of the disk instead of one each.
type Batcher interface {
	Store
	// UpdateAll writes the entries, each with the revision its key must be at in
	// Revision, all or none. The keys are distinct, and at most MaxBatch. It
	// returns the new revisions in order, ErrConflict when a key was at another
	// revision, or ErrInDoubt. With any other error nothing was written.
	UpdateAll(ctx context.Context, entries []Entry) ([]uint64, error)
}

// MaxBatch is how many entries every Batcher takes.
const MaxBatch = 500

// List returns the last entry of every key, deleted ones included.
func List(ctx context.Context, s Store) ([]Entry, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all []Entry
	done := false
	err := s.Watch(ctx, 0, func(e Event) {
		switch {
		case done:
		case e.CaughtUp:
			done = true
			cancel()
		default:
			all = append(all, e.Entry)
		}
	})
	if !done {
		return nil, err
	}
	return all, nil
}
