package tiering

import (
	"container/list"
	"sync"
)

// lru remembers the most recently used values: at most max of them, and of those
// no more than weigh weight together, the last one put apart.
type lru[K comparable, V any] struct {
	max    int
	weight int64

	mu    sync.Mutex
	total int64
	items map[K]*list.Element
	order list.List // of lruItem, most recently used last
}

type lruItem[K comparable, V any] struct {
	key    K
	val    V
	weight int64
}

func newLRU[K comparable, V any](max int, weight int64) *lru[K, V] {
	return &lru[K, V]{max: max, weight: weight, items: make(map[K]*list.Element)}
}

func (l *lru[K, V]) get(k K) (v V, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	el, ok := l.items[k]
	if !ok {
		return v, false
	}
	l.order.MoveToBack(el)
	return el.Value.(lruItem[K, V]).val, true
}

func (l *lru[K, V]) put(k K, v V, weight int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if el, ok := l.items[k]; ok {
		l.dropLocked(el)
	}
	l.items[k] = l.order.PushBack(lruItem[K, V]{k, v, weight})
	l.total += weight
	for n := l.order.Len(); n > l.max || n > 1 && l.total > l.weight; n-- {
		l.dropLocked(l.order.Front())
	}
}

func (l *lru[K, V]) dropLocked(el *list.Element) {
	x := el.Value.(lruItem[K, V])
	delete(l.items, x.key)
	l.order.Remove(el)
	l.total -= x.weight
}
