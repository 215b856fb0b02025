package metadata

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// cas writes value under key if the key is at revision rev, resolves an unknown
// outcome, and folds the result, so that the caller reads its own write.
// ErrConflict means that somebody else's value is there; ErrInDoubt that the
// outcome could not be found out in time: the caller must act on neither.
//
// value carries a fresh request id, so equal bytes are the same attempt. A
// conflict after a doubtful send may be caused by that very send: the value in
// the store tells.
func (c *Client) cas(ctx context.Context, key string, value []byte, rev uint64) (uint64, error) {
	return c.resolve(ctx, key, value, rev, false)
}

// resolve is cas; doubt says that the same bytes may have been sent before.
func (c *Client) resolve(ctx context.Context, key string, value []byte, rev uint64, doubt bool) (uint64, error) {
	if reason, on := c.SafeMode(); on {
		return 0, fmt.Errorf("%w: %s", ErrSafeMode, reason)
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.DoubtTimeout)
	defer cancel()
	for attempt := 0; ; attempt++ {
		actx, stop := context.WithTimeout(ctx, c.cfg.AttemptTimeout)
		got, err := c.cfg.Store.Update(actx, key, value, rev)
		stop()
		var conflict *ConflictError
		switch {
		case err == nil:
			return got, c.absorb([]Entry{{Key: key, Value: value, Revision: got}})
		case errors.Is(err, ErrConflict) && !doubt:
			return 0, err
		case errors.Is(err, ErrConflict):
			errors.As(err, &conflict)
			e, err2 := c.readBack(ctx, key, rev, conflict)
			if err2 != nil {
				return 0, fmt.Errorf("%w: %w", ErrInDoubt, err2)
			}
			if bytes.Equal(e.Value, value) {
				c.m.resolved()
				return e.Revision, c.absorb([]Entry{e})
			}
			return 0, err
		case !errors.Is(err, ErrInDoubt):
			return 0, err // refused before it left
		}
		doubt = true
		c.m.doubted()
		if err := pause(ctx, attempt); err != nil {
			return 0, fmt.Errorf("change metadata key %s: %w", key, ErrInDoubt)
		}
	}
}

// readBack reads key until the answer is at least as new as the conflict that
// was reported: an older one is a stale read.
func (c *Client) readBack(ctx context.Context, key string, rev uint64, conflict *ConflictError) (Entry, error) {
	want := rev + 1
	if conflict != nil {
		want = max(want, conflict.Current)
	}
	for attempt := 0; ; attempt++ {
		e, err := c.get(ctx, key)
		if err == nil && e.Revision >= want {
			return e, nil
		}
		if err := pause(ctx, attempt); err != nil {
			return e, err
		}
	}
}

// get reads a key: a hint. A deleted or missing key is an entry with its
// revision, if there is one, and no value. A store that does not answer for
// DoubtTimeout is ErrUnavailable.
func (c *Client) get(ctx context.Context, key string) (Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.DoubtTimeout)
	defer cancel()
	for attempt := 0; ; attempt++ {
		actx, cancel := context.WithTimeout(ctx, c.cfg.AttemptTimeout)
		e, err := c.cfg.Store.Get(actx, key)
		cancel()
		switch {
		case err == nil:
			return e, nil
		case errors.Is(err, ErrNotFound):
			return Entry{Key: key, Revision: e.Revision, Deleted: true}, nil
		}
		if pause(ctx, attempt) != nil {
			return e, fmt.Errorf("read metadata key %s: %w", key, err)
		}
	}
}

// pause waits a little, longer with each attempt, with jitter.
func pause(ctx context.Context, attempt int) error {
	top := min(time.Millisecond<<min(attempt, 8), 250*time.Millisecond)
	select {
	case <-time.After(top/2 + rand.N(top/2+1)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errUnchanged ends a change that has nothing to do.
var errUnchanged = errors.New("nothing to change")

// change is read, decide, compare-and-set, again on conflict. decide gets the
// record as it is (as decoded by the zero value of R, untouched when the key is
// missing) and changes it in place; its error ends the change. It may run more
// than once and must not have effects of its own. The entry that is returned is
// the one that holds, whether or not anything was changed.
func change[R any, P interface {
	*R
	record
}](ctx context.Context, c *Client, key string, decide func(r P, exists bool) error) error {
	for attempt := 0; ; attempt++ {
		if reason, on := c.SafeMode(); on {
			return fmt.Errorf("%w: %s", ErrSafeMode, reason)
		}
		e, err := c.get(ctx, key)
		if err != nil {
			return err
		}
		r := P(new(R))
		if len(e.Value) > 0 {
			if err := decode(key, e.Value, r); err != nil {
				return err
			}
		}
		// A read may be stale: a decision that refuses or does nothing is made
		// on the newest of what was read and what is known.
		if err := decide(r, len(e.Value) > 0); err != nil {
			if e.Revision < c.Image().known(key).revision && attempt < 100 {
				if perr := pause(ctx, attempt); perr != nil {
					return perr
				}
				continue
			}
			if errors.Is(err, errUnchanged) {
				return c.absorb([]Entry{e})
			}
			return err
		}
		_, err = c.cas(ctx, key, encode(r, c.request()), e.Revision)
		if !errors.Is(err, ErrConflict) {
			return err
		}
		if err := pause(ctx, attempt); err != nil {
			return fmt.Errorf("change metadata key %s: %w", key, ErrConflict)
		}
	}
}

// requestOf is the request id inside a value.
func requestOf(e Entry) string {
	var h header
	if json.Unmarshal(e.Value, &h) != nil {
		return ""
	}
	return h.Request
}
