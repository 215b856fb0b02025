package fetch

import (
	"fmt"
	"sync"

	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/localcache"
)

// coldRecords is what the cold side has at an offset.
type coldRecords struct {
	records *pieces
	base    int64 // first offset of the records
	end     int64 // offset after them
	aborted []commitlog.AbortedTxn
}

var windows = sync.Pool{New: func() any { p := make([]byte, indexStep); return &p }}

// serve returns whole batches from the one with offset on, as far as the chunks
// are in the cache: at most most bytes (minOne: a first batch of any size), below
// limit. ok is false when the first chunk is not there. It never waits for the
// bucket. An error means that the first chunk was there and could not be used: the
// cache has forgotten it, so that it can be fetched again.
func (c *coldReader) serve(client string, p partition, epoch int32, offset, limit, most int64, minOne bool) (r coldRecords, ok bool, err error) {
	l, found := c.layouts.find(p.id(), epoch, offset)
	if !found {
		return r, false, nil
	}
	buf := windows.Get().(*[]byte)
	defer windows.Put(buf)
	st := c.streams.take(client, p.id(), offset)
	r.records = &pieces{}
	r.end = offset
	i := l.at(offset)
	for {
		req := l.request(i)
		h, here := c.cache.Lookup(req.Key, req.Size, st.last == req.Key)
		if !here {
			break
		}
		ok = true
		st.enter(req.Key)
		var pos, n, end int64
		x, err := c.indexOf(h, req.Key, l.chunks[i].base)
		if err == nil {
			pos, err = x.find(h, r.end, *buf)
		}
		if err == nil && pos < x.size {
			n, end, err = x.cut(h, pos, most-int64(r.records.len), limit, minOne && r.records.len == 0, *buf)
		}
		if err != nil {
			h.Discard(err)
			h.Release()
			if r.records.len > 0 {
				break // the next fetch begins here
			}
			return r, true, fmt.Errorf("%w: %s chunk %d: %w", ErrColdRead, l.key, i, err)
		}
		if n > 0 {
			if r.records.len == 0 {
				r.base = r.end // the batch may begin before; its records do not count
			}
			r.records.add(c.region(h, pos, n), h)
			r.aborted = append(r.aborted, overlapping(l.aborted, r.end, end)...)
			r.end = end
		}
		whole := pos+n >= x.size
		if whole {
			h.Drained()
			r.end = max(r.end, x.end)
		}
		if n == 0 {
			h.Release()
		}
		if !whole || r.end >= limit || int64(r.records.len) >= most {
			break
		}
		// On to the next chunk, which may be the next object's first.
		if i++; i == len(l.chunks) {
			if l, found = c.layouts.find(p.id(), epoch, l.end); !found {
				break
			}
			i = 0
		}
	}
	if ok {
		if o, plan := c.streams.put(st, r.end); plan {
			c.readAhead(o, p, epoch)
		}
	}
	c.metrics.served.Add(float64(r.records.len))
	return r, ok, nil
}

func (c *coldReader) region(h *localcache.Handle, pos, n int64) Region {
	if f, base, ok := h.File(); ok {
		return Region{File: f, Pos: base + pos, Len: n}
	}
	return Region{Bytes: h.Bytes()[pos : pos+n], Len: n}
}

// indexOf returns the chunk's batch index, made from its bytes when it was
// filled by an earlier process.
func (c *coldReader) indexOf(h *localcache.Handle, k localcache.Key, base int64) (*batchIndex, error) {
	if x := c.indexes.get(k); x != nil {
		return x, nil
	}
	x, err := indexBatches(h, h.Len(), base)
	if err == nil {
		c.indexes.put(k, x)
	}
	return x, err
}

// overlapping lists the transactions of all with records in [start, end).
func overlapping(all []commitlog.AbortedTxn, start, end int64) (some []commitlog.AbortedTxn) {
	for _, a := range all {
		if a.First < end && a.Last >= start {
			some = append(some, a)
		}
	}
	return some
}
