package group

import "context"

// Answer is a result that may not be there yet. What had to be done in the order
// of requests is done when an Answer is returned; only the waiting is left.
type Answer[T any] struct{ ch chan T }

func newAnswer[T any]() Answer[T] { return Answer[T]{make(chan T, 1)} }

func answered[T any](v T) Answer[T] {
	a := newAnswer[T]()
	a.ch <- v
	return a
}

// give answers; the first call counts.
func (a Answer[T]) give(v T) {
	select {
	case a.ch <- v:
	default:
	}
}

// Now returns the result when it is there. It is taken once, by Now or by Wait.
func (a Answer[T]) Now() (v T, ok bool) {
	select {
	case v = <-a.ch:
		return v, true
	default:
		return v, false
	}
}

// Wait returns the result, or ctx's error. The request has its effect either way.
func (a Answer[T]) Wait(ctx context.Context) (v T, err error) {
	select {
	case v = <-a.ch:
		return v, nil
	default:
	}
	select {
	case v = <-a.ch:
		return v, nil
	case <-ctx.Done():
		return v, ctx.Err()
	}
}
