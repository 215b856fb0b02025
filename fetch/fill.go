package fetch

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"

	"github.com/firnlog/firn/localcache"
	"github.com/firnlog/firn/record"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fill is how chunks of l, counted from the first one, get from the bucket into
// the cache: one ranged GET for the whole run, every checksum compared, chunks
// decoded, and their batches walked to the end. A run with damage in it is asked
// for once more; then it is an error.
func (c *coldReader) fill(l *layout, first int) localcache.Fill {
	return func(ctx context.Context, from, to int, p []byte) (err error) {
		chunks := l.chunks[first+from : first+to]
		last := chunks[len(chunks)-1]
		stored := last.pos + last.len - chunks[0].pos
		raw := p
		if l.compressed || stored != int64(len(p)) {
			// The stored form and one decoded chunk live beside p for a moment.
			n := stored
			for _, ch := range chunks {
				n = max(n, stored+ch.size)
			}
			n = min(n, c.decodeBytes)
			if err := c.decoding.Acquire(ctx, n); err != nil {
				return err
			}
			defer c.decoding.Release(n)
			raw = make([]byte, stored)
		}
		for range 2 {
			c.metrics.requests.Inc()
			if err = c.bucket.getRange(ctx, l.key, raw, chunks[0].pos); err != nil {
				c.metrics.getErrors.Inc()
				return err
			}
			c.metrics.bytes.Add(float64(stored))
			if err = c.accept(l, first+from, chunks, raw, p); err == nil {
				return nil
			}
			c.metrics.damaged.Inc()
			c.log.Error("damaged chunk in the bucket", "event", "cold_chunk_damaged", "object", l.key, "chunk", first+from, "error", err)
		}
		return err
	}
}

// accept checks the stored bytes of a run and puts its batches into p.
func (c *coldReader) accept(l *layout, first int, chunks []chunk, raw, p []byte) error {
	begin := chunks[0].pos
	for i, ch := range chunks {
		stored := raw[ch.pos-begin:][:ch.len]
		if sum := crc32.Checksum(stored, castagnoli); sum != ch.crc {
			return fmt.Errorf("%w: %s chunk %d has checksum %08x instead of %08x", errBadChunk, l.key, first+i, sum, ch.crc)
		}
		out := p[:ch.size]
		p = p[ch.size:]
		if l.compressed {
			plain, err := record.Decompress(record.Zstd, stored, int(ch.size))
			if err != nil || int64(len(plain)) != ch.size {
				return fmt.Errorf("%w: %s chunk %d: %d decoded bytes instead of %d: %w", errBadChunk, l.key, first+i, len(plain), ch.size, err)
			}
			copy(out, plain)
		} else if &out[0] != &stored[0] {
			copy(out, stored)
		}
		x, err := indexBatches(bytes.NewReader(out), ch.size, ch.base)
		if err != nil {
			return fmt.Errorf("%s chunk %d: %w", l.key, first+i, err)
		}
		c.indexes.put(l.request(first+i).Key, x)
	}
	return nil
}
