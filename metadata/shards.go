package metadata

import "hash/maphash"

// shardCount bounds what one change copies: a map of n keys costs n/shardCount.
const shardCount = 128

var shardSeed = maphash.MakeSeed()

// shards is a map that is cheap to copy on write. A nil pointer is an empty map.
// It must not be changed once it is shared; edit makes a copy that may be.
type shards[K comparable, V any] struct {
	m [shardCount]map[K]V
	n int
}

func (s *shards[K, V]) get(k K) (v V, ok bool) {
	if s == nil {
		return v, false
	}
	v, ok = s.m[maphash.Comparable(shardSeed, k)%shardCount][k]
	return v, ok
}

func (s *shards[K, V]) len() int {
	if s == nil {
		return 0
	}
	return s.n
}

func (s *shards[K, V]) each(fn func(K, V) bool) {
	if s == nil {
		return
	}
	for _, m := range s.m {
		for k, v := range m {
			if !fn(k, v) {
				return
			}
		}
	}
}

// shardsEdit changes a map of an image: it copies the map when it first changes
// it, and then each touched part once.
type shardsEdit[K comparable, V any] struct {
	s     **shards[K, V] // the image's field
	owns  bool
	owned [shardCount]bool
}

// edit makes the map behind field changeable; the old one stays as it is.
func edit[K comparable, V any](field **shards[K, V]) shardsEdit[K, V] {
	return shardsEdit[K, V]{s: field}
}

func (e *shardsEdit[K, V]) own(k K) map[K]V {
	if !e.owns {
		c := new(shards[K, V])
		if *e.s != nil {
			*c = **e.s
		}
		*e.s, e.owns = c, true
	}
	i := maphash.Comparable(shardSeed, k) % shardCount
	if !e.owned[i] {
		old := (*e.s).m[i]
		m := make(map[K]V, len(old)+1)
		for k, v := range old {
			m[k] = v
		}
		(*e.s).m[i], e.owned[i] = m, true
	}
	return (*e.s).m[i]
}

func (e *shardsEdit[K, V]) set(k K, v V) {
	m := e.own(k)
	if _, ok := m[k]; !ok {
		(*e.s).n++
	}
	m[k] = v
}

func (e *shardsEdit[K, V]) remove(k K) {
	if _, ok := (*e.s).get(k); !ok {
		return
	}
	delete(e.own(k), k)
	(*e.s).n--
}
