package tiering

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/objectstore/faulty"
	"github.com/firnlog/firn/tiering/format"
)

// measured makes the archivers of w tell their metrics, which the returned function
// reads: "name" or "name topic" to value.
func measured(t *testing.T, w *world) (read func() map[string]float64) {
	reg := prometheus.NewRegistry()
	w.tune = func(c *Config) { c.Registerer = reg }
	return func() map[string]float64 {
		t.Helper()
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				name := f.GetName()
				for _, l := range m.GetLabel() {
					name += " " + l.GetValue()
				}
				out[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
		return out
	}
}

// unnamed is what lies in the partition's folder and is no longer data: its bytes,
// and how many of it are segment objects.
func (w *world) unnamed() (bytes, segments float64) {
	w.t.Helper()
	h := w.head()
	named := map[string]bool{format.HeadName: true}
	for _, e := range w.entries(h) {
		named[e.Name()] = true
	}
	for i := range h.Parts {
		named[h.Parts[i].Name()] = true
	}
	for info, err := range w.raw.List(context.Background(), w.folder()) {
		if err != nil {
			w.t.Fatal(err)
		}
		name := strings.TrimPrefix(info.Key, w.folder())
		if named[name] {
			continue
		}
		bytes += float64(info.Size)
		if n, ok := format.ParseName(name); ok && !n.Part {
			segments++
		}
	}
	return bytes, segments
}

// TestWhatIsBuriedIsMeasured: the delete lag is exactly what the bucket holds and no
// manifest needs, be it buried alone, with the part that names it, as a part that was
// replaced or as an orphan. The next leader sees the same, and none is left in the end.
func TestWhatIsBuriedIsMeasured(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		read := measured(t, w)
		l := small(w)
		check := func(when string, some bool) {
			t.Helper()
			bytes, segments := w.unnamed()
			m := read()
			if got := m["firn_remote_delete_lag_bytes"]; got != bytes || some != (bytes > 0) {
				t.Errorf("%s: %v bytes wait for their deletion, the metric says %v", when, bytes, got)
			}
			if got := m["firn_remote_delete_lag_segments"]; got != segments {
				t.Errorf("%s: %v segments wait for their deletion, the metric says %v", when, segments, got)
			}
		}
		l.sink(3)
		check("nothing was deleted", false)
		w.log.SetStart(2)
		if err := l.run(); err != nil {
			t.Fatal(err)
		}
		check("entries", true)
		l.sink(30) // spills replace parts
		check("parts", true)
		parts := w.head().Parts
		if len(parts) == 0 {
			t.Fatal("no parts")
		}
		w.log.SetStart(parts[0].To)
		if err := l.run(); err != nil {
			t.Fatal(err)
		}
		check("a part with its objects", true)
		w.raw.Put(context.Background(), w.folder()+format.SegmentName(0, 1, 1, format.Nonce{9}), strings.NewReader("orphan"), 6, objectstore.Cond{})
		if err := l.run(); err != nil {
			t.Fatal(err)
		}
		check("an orphan", true)

		l.a.Close()
		read = measured(t, w)
		l = small(w)
		if err := l.run(); err != nil {
			t.Fatal(err)
		}
		check("after a restart", true)
		l.ticks(l.a.cfg.OrphanAge+time.Hour, nil)
		check("after the grace", false)
	})
}

// TestFailedUploadsAreCounted: an upload that fails is an error of its topic, and
// its bytes are not counted; a deletion that fails is an error of deletions alone.
// The series are there before the first failure, and go with the topic.
func TestFailedUploadsAreCounted(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		read := measured(t, w)
		l := small(w)
		expect := func(when, name string, want float64) {
			t.Helper()
			if got, ok := read()[name]; !ok || got != want {
				t.Errorf("%s: %s is %v (there: %v), want %v", when, name, got, ok, want)
			}
		}
		for _, name := range []string{"errors", "requests", "bytes"} {
			expect("before anything", "firn_remote_copy_"+name+"_total t", 0)
		}
		l.sink(3)
		expect("three uploads", "firn_remote_copy_requests_total t", 3)
		expect("three uploads", "firn_remote_copy_errors_total t", 0)
		var size float64
		for _, e := range w.entries(w.head()) {
			size += float64(e.Size)
		}
		expect("three uploads", "firn_remote_copy_bytes_total t", size)

		w.bucket.Inject(faulty.Fault{Kind: faulty.Before, Op: objectstore.OpPut, Match: ".seg", Times: 2, Err: objectstore.ErrUnreachable})
		w.fill(1)
		for tries := 0; w.bucket.Met(faulty.Before) < 2 && tries < 10; tries++ {
			time.Sleep(2 * time.Millisecond)
			l.pass()
		}
		expect("two failures", "firn_remote_copy_errors_total t", 2)
		expect("two failures", "firn_remote_copy_requests_total t", 5)
		expect("two failures", "firn_remote_copy_bytes_total t", size)

		w.bucket.Heal()
		w.bucket.Inject(faulty.Fault{Kind: faulty.Before, Op: objectstore.OpDelete, Times: -1, Err: objectstore.ErrDenied})
		w.log.SetStart(2)
		l.ticks(2*l.a.cfg.Grace, nil)
		expect("deletions are denied", "firn_remote_copy_errors_total t", 2)
		if read()["firn_remote_delete_errors_total"] == 0 {
			t.Error("deletions that are denied are not counted")
		}
		w.bucket.Heal()
		l.a.metrics.forget("t")
		if _, ok := read()["firn_remote_copy_errors_total t"]; ok {
			t.Error("the series outlives its topic")
		}
	})
}
