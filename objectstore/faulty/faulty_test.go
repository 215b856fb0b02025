package faulty

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/objectstore/contract"
	"github.com/firnlog/firn/objectstore/file"
)

func wrap(t testing.TB) *Bucket {
	t.Helper()
	b, err := file.Open(file.Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return Wrap(b)
}

func put(b *Bucket, t *testing.T, key, data string, c objectstore.Cond) (string, error) {
	return b.Put(t.Context(), key, strings.NewReader(data), int64(len(data)), c)
}

func content(b *Bucket, t *testing.T, key string) string {
	t.Helper()
	data, _, err := b.next.Get(t.Context(), key)
	if errors.Is(err, objectstore.ErrNotFound) {
		return "-"
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestWithoutFaultsItIsABucket keeps the wrapper honest.
func TestWithoutFaultsItIsABucket(t *testing.T) {
	contract.Run(t, func(t *testing.T) objectstore.Bucket { return wrap(t) })
}

func TestAFaultHasItsEffectAndNoOther(t *testing.T) {
	for _, tt := range []struct {
		fault Fault
		want  string // in the store afterwards
		is    error
	}{
		{Fault{Kind: Before}, "-", objectstore.ErrInDoubt},
		{Fault{Kind: Before, Err: objectstore.ErrUnreachable}, "-", objectstore.ErrUnreachable},
		{Fault{Kind: After}, "data", objectstore.ErrInDoubt},
		{Fault{Kind: After, Err: io.ErrClosedPipe}, "data", io.ErrClosedPipe},
		{Fault{Kind: Late}, "-", objectstore.ErrInDoubt},
		{Fault{Kind: Slow, Delay: time.Microsecond}, "data", nil},
	} {
		b := wrap(t)
		tt.fault.Op = objectstore.OpPut
		b.Inject(tt.fault)
		_, err := put(b, t, "k", "data", objectstore.Cond{IfNoneMatch: true})
		if got := content(b, t, "k"); got != tt.want || !errors.Is(err, tt.is) || (err == nil) != (tt.is == nil) {
			t.Errorf("%v: %q in the store, %v; want %q, %v", tt.fault.Kind, got, err, tt.want, tt.is)
		}
		if b.Met(tt.fault.Kind) != 1 {
			t.Errorf("%v was met %d times", tt.fault.Kind, b.Met(tt.fault.Kind))
		}
	}
}

// TestALateWriteMeetsItsCondition: it lands while nothing changed, and is refused
// afterwards.
func TestALateWriteMeetsItsCondition(t *testing.T) {
	b := wrap(t)
	etag, err := put(b, t, "head", "v1", objectstore.Cond{IfNoneMatch: true})
	if err != nil {
		t.Fatal(err)
	}
	b.Inject(Fault{Kind: Late, Op: objectstore.OpPut, Match: "head", Times: 2})
	put(b, t, "head", "v2", objectstore.Cond{IfMatch: etag})
	put(b, t, "head", "v3", objectstore.Cond{IfMatch: etag})
	if got := content(b, t, "head"); got != "v1" || b.Waiting() != 2 {
		t.Fatalf("%q in the store, %d on their way", got, b.Waiting())
	}
	errs := b.Land(t.Context())
	if len(errs) != 2 || errs[0] != nil || !errors.Is(errs[1], objectstore.ErrPrecondition) {
		t.Fatalf("landing: %v", errs)
	}
	if got := content(b, t, "head"); got != "v2" {
		t.Fatalf("%q in the store", got)
	}
}

func TestALateWriteLandsByItself(t *testing.T) {
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		inner, err := file.Open(file.Config{Root: root})
		if err != nil {
			t.Fatal(err)
		}
		b := Wrap(inner)
		b.Inject(Fault{Kind: Late, Op: objectstore.OpPut, Delay: time.Hour})
		put(b, t, "k", "late", objectstore.Cond{})
		time.Sleep(time.Hour - 1)
		if got := content(b, t, "k"); got != "-" {
			t.Fatalf("%q too early", got)
		}
		b.Close() // waits
		if got := content(b, t, "k"); got != "late" {
			t.Fatalf("%q after its hour", got)
		}
	})
}

func TestBodiesAreDamaged(t *testing.T) {
	b := wrap(t)
	want := bytes.Repeat([]byte("firn"), 100)
	put(b, t, "k", string(want), objectstore.Cond{})
	b.Inject(
		Fault{Kind: Corrupt, Op: objectstore.OpGet},
		Fault{Kind: Short, Op: objectstore.OpGet},
		Fault{Kind: Corrupt, Op: objectstore.OpGetRange},
		Fault{Kind: Short, Op: objectstore.OpGetRange},
		Fault{Kind: Missing, Op: objectstore.OpGetRange},
	)
	data, _, err := b.Get(t.Context(), "k")
	if err != nil || len(data) != len(want) || bytes.Equal(data, want) {
		t.Errorf("corrupt get: %v", err)
	}
	if data, _, err = b.Get(t.Context(), "k"); err != nil || len(data) != len(want)/2 {
		t.Errorf("short get: %d bytes, %v", len(data), err)
	}
	p := make([]byte, 64)
	if err = b.GetRange(t.Context(), "k", p, 8); err != nil || bytes.Equal(p, want[8:72]) {
		t.Errorf("corrupt range: %v", err)
	}
	if err = b.GetRange(t.Context(), "k", p, 8); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short range: %v", err)
	}
	if err = b.GetRange(t.Context(), "k", p, 8); !errors.Is(err, objectstore.ErrNotFound) {
		t.Errorf("missing: %v", err)
	}
	if err = b.GetRange(t.Context(), "k", p, 8); err != nil || !bytes.Equal(p, want[8:72]) {
		t.Errorf("after the faults: %v", err)
	}
}

func TestScriptsCount(t *testing.T) {
	b := wrap(t)
	b.Inject(Fault{Kind: Before, Op: objectstore.OpPut, Match: "x", Skip: 2, Times: 3})
	var got []bool
	for range 8 {
		_, err := put(b, t, "x", "d", objectstore.Cond{})
		got = append(got, err == nil)
		if _, err := put(b, t, "y", "d", objectstore.Cond{}); err != nil {
			t.Fatal(err)
		}
	}
	if fmt.Sprint(got) != "[true true false false false true true true]" {
		t.Fatal(got)
	}
	if c := b.Count(objectstore.OpPut); c.Requests != 13 || c.Bytes != 13 {
		t.Fatalf("the store saw %+v", c)
	}
	b.Down(ErrServer)
	if _, _, err := b.Get(t.Context(), "x"); !errors.Is(err, ErrServer) {
		t.Fatalf("down: %v", err)
	}
	for _, err := range b.List(t.Context(), "") {
		if !errors.Is(err, ErrServer) {
			t.Fatalf("down: %v", err)
		}
	}
	b.Heal()
	if _, _, err := b.Get(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
}

// TestChaosRepeats: the same seed brings the same faults to each key, in any
// order of keys, and about as many as asked for.
func TestChaosRepeats(t *testing.T) {
	run := func(seed uint64, backwards bool) map[string]string {
		b := wrap(t)
		b.Chaos(Chaos{Seed: seed, Before: 0.2, After: 0.2})
		got := map[string]string{}
		for i := range 200 {
			if backwards {
				i = 199 - i
			}
			key := fmt.Sprint("k", i)
			_, err := put(b, t, key, "d", objectstore.Cond{IfNoneMatch: true})
			got[key] = fmt.Sprint(err == nil, content(b, t, key))
		}
		if n := b.Met(Before); n < 20 || n > 60 {
			t.Errorf("seed %d: %d of 200 failed before, want about 40", seed, n)
		}
		return got
	}
	one, two, other := run(1, false), run(1, true), run(2, false)
	if fmt.Sprint(one) != fmt.Sprint(two) {
		t.Error("the order of requests changed the faults of seed 1")
	}
	if fmt.Sprint(one) == fmt.Sprint(other) {
		t.Error("two seeds gave the same faults")
	}
}
