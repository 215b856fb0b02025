package tiering

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/tiering/format"
)

// judge is the store as it really is, below all faults, and sees that the rules
// are kept at the moment in which something changes:
//
//	SAFETY 9   an object is only put by a leader that has claimed the head; each
//	           head has the next generation, a new nonce and no lower epoch
//	SAFETY 11  what is deleted lies in a grave that the head calls deleting, and
//	           has lain there for the grace time by the judge's own clock
//	SAFETY 12  objects and parts are created, never replaced
type judge struct {
	objectstore.Bucket
	w *world

	mu      sync.Mutex
	claimed map[int32]bool       // epochs that wrote the head
	buried  map[string]time.Time // names in graves, since when
	last    *format.Head
}

func (j *judge) Put(ctx context.Context, key string, body io.ReadSeeker, size int64, c objectstore.Cond) (string, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	name, ours := strings.CutPrefix(key, j.w.folder())
	if !ours {
		return j.Bucket.Put(ctx, key, body, size, c)
	}
	if name != format.HeadName {
		n, _ := format.ParseName(name)
		if !n.Part && !j.claimed[n.Epoch] {
			j.w.t.Errorf("epoch %d puts %s and has not claimed the head", n.Epoch, name)
		}
		if !c.IfNoneMatch {
			j.w.t.Errorf("%s is put without If-None-Match", name)
		}
		return j.Bucket.Put(ctx, key, body, size, c)
	}
	body.Seek(0, io.SeekStart)
	data, err := io.ReadAll(body)
	if err != nil {
		return "", err
	}
	etag, err := j.Bucket.Put(ctx, key, bytes.NewReader(data), size, c)
	if err != nil {
		return etag, err
	}
	h, derr := format.DecodeHead(data)
	if derr != nil {
		j.w.t.Errorf("a head that nobody can read: %v", derr)
		return etag, err
	}
	// Tests that write heads themselves do so behind the judge's back.
	if old := j.last; old != nil && old.TopicID == h.TopicID && h.Generation <= old.Generation+1 {
		if h.Generation != old.Generation+1 || h.Nonce == old.Nonce || h.Epoch < old.Epoch {
			j.w.t.Errorf("head %d of epoch %d after %d of %d, nonces %s and %s", h.Generation, h.Epoch, old.Generation, old.Epoch, h.Nonce, old.Nonce)
		}
	}
	j.last = h
	j.claimed[h.Epoch] = true
	now := map[string]time.Time{}
	for i := range h.Graves {
		n := h.Graves[i].Name()
		if now[n] = time.Now(); !j.buried[n].IsZero() {
			now[n] = j.buried[n]
		}
	}
	j.buried = now
	return etag, err
}

func (j *judge) Delete(ctx context.Context, keys []string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	h := j.w.head()
	if h == nil || h.Deleted {
		return j.Bucket.Delete(ctx, keys) // the topic goes
	}
	open := map[string]bool{}
	for i := range h.Graves {
		g := &h.Graves[i]
		grace := 10 * time.Minute
		if g.Orphan {
			grace = 24 * time.Hour
		}
		if g.State != format.Deleting || time.Since(j.buried[g.Name()]) < grace {
			continue
		}
		open[j.w.folder()+g.Name()] = true
		if !g.WithEntries {
			continue
		}
		data, _, err := j.Bucket.Get(ctx, j.w.folder()+g.Name())
		if err != nil {
			continue
		}
		if p, err := format.DecodePart(data); err == nil {
			for k := range p.Entries {
				open[j.w.folder()+p.Entries[k].Name()] = true
			}
		}
	}
	for _, k := range keys {
		if strings.HasPrefix(k, j.w.folder()) && !open[k] {
			j.w.t.Errorf("%s is deleted and lies in no open grave", k)
		}
	}
	return j.Bucket.Delete(ctx, keys)
}
