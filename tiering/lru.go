package tiering

import (
	"container/list"
	"sync"
)

// lru remembers the max most recently used values.
type lru[K comparable, V any] struct {
	max int

	mu    sync.Mutex
	items map[K]*list.Element
	order list.List // of lruItem, most recently used last
}

type lruItem[K comparable, V any] struct {
	key K
	val V
}

func newLRU[K comparable, V any](max int) *lru[K, V] {
	return &lru[K, V]{max: max, items: make(map[K]*list.Element)}
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

func (l *lru[K, V]) put(k K, v V) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if el, ok := l.items[k]; ok {
		el.Value = lruItem[K, V]{k, v}
		l.order.MoveToBack(el)
		return
	}
	l.items[k] = l.order.PushBack(lruItem[K, V]{k, v})
	for l.order.Len() > l.max {
		oldest := l.order.Front()
		delete(l.items, oldest.Value.(lruItem[K, V]).key)
		l.order.Remove(oldest)
	}
}
