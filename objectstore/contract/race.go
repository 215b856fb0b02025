package contract

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/firnlog/firn/objectstore"
)

// RaceCreate lets Writers create each of rounds keys at once with IfNoneMatch
// and fails unless exactly one is told that it won, and its bytes are there.
func RaceCreate(ctx context.Context, b objectstore.Bucket, base string, rounds int) error {
	for round := range rounds {
		key := fmt.Sprintf("%screate-%03d", base, round)
		if _, err := race(ctx, b, key, round, objectstore.Cond{IfNoneMatch: true}); err != nil {
			return fmt.Errorf("create, round %d: %w", round, err)
		}
	}
	return nil
}

// RaceReplace lets Writers replace one object at once with the same IfMatch, in
// rounds that each start from the last winner's ETag.
func RaceReplace(ctx context.Context, b objectstore.Bucket, base string, rounds int) error {
	key := base + "replace"
	first := []byte("the first")
	etag, err := b.Put(ctx, key, bytes.NewReader(first), int64(len(first)), objectstore.Cond{IfNoneMatch: true})
	if err != nil {
		return err
	}
	for round := range rounds {
		if etag, err = race(ctx, b, key, round, objectstore.Cond{IfMatch: etag}); err != nil {
			return fmt.Errorf("replace, round %d: %w", round, err)
		}
	}
	return nil
}

// race returns the winner's ETag. A 409 or a 503 is an honest answer in a race:
// such a writer does not know. So a round in which nobody was told that it won
// counts when the object that is there belongs to one of those in doubt.
func race(ctx context.Context, b objectstore.Bucket, key string, round int, c objectstore.Cond) (string, error) {
	bodies := make([][]byte, Writers)
	etags := make([]string, Writers)
	errs := make([]error, Writers)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for w := range Writers {
		// Bodies differ in length, too, so a mixture would show.
		bodies[w] = bytes.Repeat(fmt.Appendf(nil, "writer %02d round %d;", w, round), 1+w*97)
		wg.Go(func() {
			<-start
			etags[w], errs[w] = b.Put(ctx, key, bytes.NewReader(bodies[w]), int64(len(bodies[w])), c)
		})
	}
	close(start)
	wg.Wait()

	var winners, doubtful []int
	for w, err := range errs {
		switch {
		case err == nil:
			winners = append(winners, w)
		case errors.Is(err, objectstore.ErrInDoubt):
			doubtful = append(doubtful, w)
		case errors.Is(err, objectstore.ErrPrecondition):
		default:
			return "", fmt.Errorf("writer %d: %w", w, err)
		}
	}
	if len(winners) > 1 {
		return "", fmt.Errorf("writers %v of %d all won", winners, Writers)
	}
	data, etag, err := b.Get(ctx, key)
	if err != nil {
		return "", err
	}
	if len(winners) == 1 {
		w := winners[0]
		if !bytes.Equal(data, bodies[w]) || etag != etags[w] {
			return "", fmt.Errorf("writer %d won with ETag %s, but the object is %d bytes with ETag %s beginning %.20q", w, etags[w], len(data), etag, data)
		}
		return etag, nil
	}
	for _, w := range doubtful {
		if bytes.Equal(data, bodies[w]) {
			return etag, nil
		}
	}
	return "", fmt.Errorf("nobody won: %w", errors.Join(errs...))
}
