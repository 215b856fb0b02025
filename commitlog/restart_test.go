package commitlog

import (
	"bytes"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/record"
)

// thinFS keeps the first bytes of each large write to a segment and leaves a hole
// for the rest, which the tests fill with zeroes only: ten gigabytes of log take
// a few megabytes of disk.
type thinFS struct{ disk.FS }

func (f thinFS) OpenFile(name string, flag int, perm fs.FileMode) (disk.File, error) {
	file, err := f.FS.OpenFile(name, flag, perm)
	if err != nil || !strings.HasSuffix(name, ".log") {
		return file, err
	}
	return thinFile{file}, nil
}

type thinFile struct{ disk.File }

const thinHead = 4 << 10

var zeroes = make([]byte, 2<<20)

func (f thinFile) WriteAt(p []byte, off int64) (int, error) {
	if len(p) <= thinHead {
		return f.File.WriteAt(p, off)
	}
	if !bytes.Equal(p[thinHead:], zeroes[:len(p)-thinHead]) {
		return 0, fmt.Errorf("%d bytes at %d are not thin", len(p), off)
	}
	if n, err := f.File.WriteAt(p[:thinHead], off); err != nil {
		return n, err
	}
	if err := f.File.Truncate(off + int64(len(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// A clean restart of ten gigabytes reads less than one megabyte, a crash restart
// that and what was written after the last checkpoint.
func TestARestartReadsLittle(t *testing.T) {
	t.Parallel()
	const (
		logs      = 8
		batchSize = 1 << 20
		perLog    = 10 << 30 / logs / batchSize
		after     = 5 // batches behind the last checkpoint
	)
	counted := disk.Counting(thinFS{disk.OS()})
	dir := t.TempDir()
	tune := func(c *Config) { c.SegmentBytes, c.IndexInterval, c.CheckpointBytes = 128<<20, 4096, 0 }
	one := func() record.Batch {
		b := record.NewBuilder(record.NewBatchOptions())
		b.Append(record.Record{TimestampDelta: 1000, Value: make([]byte, batchSize)})
		return b.Build()
	}
	var total int64
	for i := range logs {
		sub := filepath.Join(dir, fmt.Sprint(i))
		if err := counted.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		l, _ := open(t, counted, sub, tune)
		b := one()
		for range perLog {
			mustAppend(t, l, 1, b)
			total += int64(len(b))
		}
		if err := l.Close(true); err != nil {
			t.Fatal(err)
		}
	}
	if total < 10<<30 {
		t.Fatalf("only %d MiB were written", total>>20)
	}
	before := counted.ReadBytes()
	all := make([]*Log, logs)
	for i := range logs {
		l, rec := open(t, counted, filepath.Join(dir, fmt.Sprint(i)), tune)
		if l.End() != perLog {
			t.Fatalf("log %d ends at %d", i, l.End())
		}
		if rec.ScannedBytes != 0 {
			t.Fatalf("log %d: a clean restart scanned %d bytes", i, rec.ScannedBytes)
		}
		all[i] = l
	}
	if read := counted.ReadBytes() - before; read >= 1<<20 {
		t.Fatalf("%d bytes were read for %d MiB of segments", read, total>>20)
	} else {
		t.Logf("%d bytes were read for %d MiB of segments", read, total>>20)
	}

	// Now the process ends without a word: the logs are opened anew as they lie.
	for _, l := range all {
		b := one()
		for range after {
			mustAppend(t, l, 2, b)
		}
	}
	before = counted.ReadBytes()
	for i := range logs {
		l, rec := open(t, counted, filepath.Join(dir, fmt.Sprint(i)), tune)
		if l.End() != perLog+after {
			t.Fatalf("log %d ends at %d after the crash", i, l.End())
		}
		if rec.ScannedBytes < after*batchSize || rec.ScannedBytes > (after+1)*batchSize {
			t.Fatalf("log %d: %d bytes were scanned", i, rec.ScannedBytes)
		}
	}
	if read, most := counted.ReadBytes()-before, int64(logs*(after+1)*batchSize+1<<20); read > most {
		t.Fatalf("%d bytes were read, at most %d were expected", read, most)
	}
}
