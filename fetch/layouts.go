package fetch

import (
	"container/list"
	"context"
	"errors"
	"sort"
	"sync"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/localcache"
	"github.com/firnlog/firn/tiering/format"
)

// partID names a partition for good: a topic that is made again under its old
// name has another id.
type partID struct {
	topic     [16]byte
	partition int32
}

// object is one object of the bucket, as the manifest names it.
type object struct {
	key, etag string
	base, end int64
	entry     *format.Entry // the manifest's own, for open
}

// chunk is one line of an object's chunk table.
type chunk struct {
	base     int64  // first offset
	pos, len int64  // where its stored bytes are in the object
	size     int64  // of its batches, decoded
	crc      uint32 // CRC-32C of the stored bytes
}

// layout is an object with its chunk table.
type layout struct {
	object
	compressed bool
	chunks     []chunk
	aborted    []commitlog.AbortedTxn
	part       partID
	elem       *list.Element
}

// at returns the chunk that holds offset, which lies within the object.
func (l *layout) at(offset int64) int {
	return max(sort.Search(len(l.chunks), func(i int) bool { return l.chunks[i].base > offset })-1, 0)
}

// request names chunk i for the cache.
func (l *layout) request(i int) localcache.Request {
	return localcache.Request{
		Key:  localcache.Key{Object: l.key, ETag: l.etag, Chunk: uint32(i), CRC: l.chunks[i].crc},
		Size: l.chunks[i].size,
	}
}

// archive is the view of tiering.Archive that the cold side needs, and what
// tests fake.
type archive interface {
	// locate returns the object that holds offset, errNotTiered when none does.
	locate(ctx context.Context, offset int64) (object, error)
	// open reads the object's footer. The part is left for the caller to set.
	open(ctx context.Context, o object) (*layout, error)
	// refresh reads the manifest again, after an object was not there.
	refresh(ctx context.Context) error
	// tieredEnd is the offset after the last one in the bucket, -1 when nothing is
	// there. After a start it reads the manifest first, and fails without it.
	tieredEnd(ctx context.Context) (int64, error)
	// offsetForTime is the first record in the bucket, at or above the log
	// start, with a timestamp of ts or later.
	offsetForTime(ctx context.Context, ts int64) (offset, at int64, ok bool, err error)
	// maxTimestamp is the first record in the bucket, at or above the log start,
	// with the greatest timestamp.
	maxTimestamp(ctx context.Context) (offset, at int64, ok bool, err error)
}

// errNotTiered means that no object holds the offset.
var errNotTiered = errors.New("offset is not in the bucket")

// layouts remembers the chunk tables of objects that are being read, so that a
// sequential reader asks neither manifest nor footer again. What it knows of a
// partition is dropped when the leader epoch changes and when an object turns
// out to be gone.
type layouts struct {
	max int

	mu    sync.Mutex
	parts map[partID]*partLayouts
	lru   list.List // of *layout, most recently used last
}

type partLayouts struct {
	epoch int32
	all   []*layout // by base offset
}

func newLayouts(max int) *layouts {
	return &layouts{max: max, parts: make(map[partID]*partLayouts)}
}

// find returns the known object that holds offset.
func (c *layouts) find(p partID, epoch int32, offset int64) (*layout, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	pl := c.parts[p]
	if pl == nil || pl.epoch != epoch {
		return nil, false
	}
	i := sort.Search(len(pl.all), func(i int) bool { return pl.all[i].base > offset })
	if i == 0 || offset >= pl.all[i-1].end {
		return nil, false
	}
	l := pl.all[i-1]
	c.lru.MoveToBack(l.elem)
	return l, true
}

// put remembers l, instead of whatever overlaps it.
func (c *layouts) put(p partID, epoch int32, l *layout) {
	c.mu.Lock()
	defer c.mu.Unlock()
	pl := c.parts[p]
	if pl != nil && pl.epoch != epoch {
		c.forgetLocked(p)
		pl = nil
	}
	if pl == nil {
		pl = &partLayouts{epoch: epoch}
		c.parts[p] = pl
	}
	kept := pl.all[:0]
	for _, o := range pl.all {
		if o.end <= l.base || o.base >= l.end {
			kept = append(kept, o)
		} else {
			c.lru.Remove(o.elem)
		}
	}
	pl.all = append(kept, l)
	sort.Slice(pl.all, func(i, j int) bool { return pl.all[i].base < pl.all[j].base })
	l.part = p
	l.elem = c.lru.PushBack(l)
	for c.lru.Len() > c.max {
		c.dropLocked(c.lru.Front().Value.(*layout))
	}
}

func (c *layouts) dropLocked(l *layout) {
	c.lru.Remove(l.elem)
	pl := c.parts[l.part]
	for i, o := range pl.all {
		if o == l {
			pl.all = append(pl.all[:i:i], pl.all[i+1:]...)
			break
		}
	}
	if len(pl.all) == 0 {
		delete(c.parts, l.part)
	}
}

// forget drops all that is known of a partition.
func (c *layouts) forget(p partID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetLocked(p)
}

func (c *layouts) forgetLocked(p partID) {
	if pl := c.parts[p]; pl != nil {
		for _, l := range pl.all {
			c.lru.Remove(l.elem)
		}
		delete(c.parts, p)
	}
}

// indexes remembers the batch indexes of chunks.
type indexes struct {
	max int

	mu  sync.Mutex
	m   map[localcache.Key]*list.Element
	lru list.List // of indexEntry, most recently used last
}

type indexEntry struct {
	key localcache.Key
	x   *batchIndex
}

func newIndexes(max int) *indexes {
	return &indexes{max: max, m: make(map[localcache.Key]*list.Element)}
}

func (c *indexes) get(k localcache.Key) *batchIndex {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.m[k]
	if !ok {
		return nil
	}
	c.lru.MoveToBack(el)
	return el.Value.(indexEntry).x
}

func (c *indexes) put(k localcache.Key, x *batchIndex) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.m[k]; ok {
		el.Value = indexEntry{k, x}
		return
	}
	c.m[k] = c.lru.PushBack(indexEntry{k, x})
	for c.lru.Len() > c.max {
		el := c.lru.Front()
		delete(c.m, el.Value.(indexEntry).key)
		c.lru.Remove(el)
	}
}
