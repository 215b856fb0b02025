package objectstore

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CheckBody fails when body does not end at size. Drivers call it before they
// send anything, because a store that was promised another length leaves the
// outcome in doubt.
func CheckBody(body io.ReadSeeker, size int64) error {
	if size < 0 {
		return fmt.Errorf("size %d is negative", size)
	}
	end, err := body.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("find the end of the body: %w", err)
	}
	if end != size {
		return fmt.Errorf("body has %d bytes, not the %d that were announced", end, size)
	}
	_, err = body.Seek(0, io.SeekStart)
	return err
}

var sumBuffers = sync.Pool{New: func() any { p := make([]byte, 128<<10); return &p }}

// Sum returns the CRC-32C of body and leaves it at its start. A body that is
// Summed is asked instead of read.
func Sum(ctx context.Context, body io.ReadSeeker) (uint32, error) {
	if s, ok := body.(Summed); ok {
		return s.CRC32C(), nil
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	var sum uint32
	pooled := sumBuffers.Get().(*[]byte)
	defer sumBuffers.Put(pooled)
	buf := *pooled
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := body.Read(buf)
		sum = crc32.Update(sum, castagnoli, buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	_, err := body.Seek(0, io.SeekStart)
	return sum, err
}
