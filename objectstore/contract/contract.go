// Package contract is the suite that every implementation of objectstore.Bucket
// passes: drivers against each store we know, and wrappers. It attacks what the
// layers above rely on, first of all that of writers racing with one condition
// exactly one wins.
//
// Run is the whole suite. Races alone is for stores that are expected to fail.
package contract

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firnlog/firn/objectstore"
)

// Rounds and Writers are the size of each race.
const (
	Rounds  = 100
	Writers = 16
)

// Run checks every promise of objectstore.Bucket on a bucket from open, which
// may hold objects of others: the suite works below a random folder and removes
// what it wrote.
func Run(t *testing.T, open func(t *testing.T) objectstore.Bucket) {
	tests := []struct {
		name string
		run  func(*testing.T, objectstore.Bucket, string)
	}{
		{"WhatWasPutIsRead", whatWasPutIsRead},
		{"BodiesAreReadFromTheirStart", bodiesFromStart},
		{"WrongSizesAreRefused", wrongSizes},
		{"RangesAreWholeOrAnError", ranges},
		{"MissingIsNotFound", missing},
		{"CreateRefusesWhatExists", createRefuses},
		{"ReplaceNeedsTheETag", replaceNeedsETag},
		{"EqualBytesBringBackNoHistory", equalBytes},
		{"HeadDescribes", headDescribes},
		{"ListIsInByteOrderOfKeys", listOrder},
		{"ListSeesPrefixesNotFolders", listPrefix},
		{"ListReadsManyPages", listPages},
		{"DeleteIsIdempotentAndBatched", deleteBatches},
		{"BadKeysAreRefused", badKeys},
		{"CancelledCallsEnd", cancelled},
		{"ReadersNeverSeeHalfAnObject", wholeObjects},
		{"OneWinnerPerCreate", func(t *testing.T, b objectstore.Bucket, base string) {
			report(t, RaceCreate(t.Context(), b, base, Rounds))
		}},
		{"OneWinnerPerReplace", func(t *testing.T, b objectstore.Bucket, base string) {
			report(t, RaceReplace(t.Context(), b, base, Rounds))
		}},
		{"ProbeAcceptsAndLeavesNothing", probe},
		{"TheStoreHasAClock", clock},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := open(t)
			base := "contract-" + nonce() + "/"
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				var left []string
				for info, err := range b.List(ctx, base) {
					if err != nil {
						t.Errorf("list what the test left: %v", err)
						break
					}
					left = append(left, info.Key)
				}
				if err := b.Delete(ctx, left); err != nil {
					t.Errorf("remove what the test left: %v", err)
				}
			})
			tt.run(t, b, base)
		})
	}
}

func report(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func nonce() string {
	p := make([]byte, 8)
	rand.Read(p)
	return hex.EncodeToString(p)
}

// put writes data or ends the test.
func put(t *testing.T, b objectstore.Bucket, key string, data []byte, c objectstore.Cond) string {
	t.Helper()
	etag, err := b.Put(t.Context(), key, bytes.NewReader(data), int64(len(data)), c)
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	if etag == "" || strings.ContainsAny(etag, "\" ") {
		t.Fatalf("put %s: ETag %q, want one without quotes", key, etag)
	}
	return etag
}

func try(t *testing.T, b objectstore.Bucket, key, data string, c objectstore.Cond) error {
	t.Helper()
	_, err := b.Put(t.Context(), key, strings.NewReader(data), int64(len(data)), c)
	return err
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: got %v, want %v", what, err, want)
	}
}

func pseudo(seed uint64, n int) []byte {
	p := make([]byte, n)
	r := mrand.New(mrand.NewPCG(seed, 1))
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

func whatWasPutIsRead(t *testing.T, b objectstore.Bucket, base string) {
	for i, n := range []int{0, 1, 1000, 256 << 10, 5<<20 + 7} {
		for _, c := range []objectstore.Cond{{}, {IfNoneMatch: true}} {
			key := fmt.Sprintf("%so-%d-%v", base, n, c.IfNoneMatch)
			want := pseudo(uint64(i), n)
			etag := put(t, b, key, want, c)
			got, gotTag, err := b.Get(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) || gotTag != etag {
				t.Fatalf("%s: %d bytes with ETag %s, want %d with %s", key, len(got), gotTag, len(want), etag)
			}
		}
	}
}

func bodiesFromStart(t *testing.T, b objectstore.Bucket, base string) {
	body := strings.NewReader("0123456789")
	body.Seek(7, io.SeekStart)
	if _, err := b.Put(t.Context(), base+"k", body, 10, objectstore.Cond{}); err != nil {
		t.Fatal(err)
	}
	got, _, err := b.Get(t.Context(), base+"k")
	if err != nil || string(got) != "0123456789" {
		t.Fatalf("got %q, %v", got, err)
	}
}

func wrongSizes(t *testing.T, b objectstore.Bucket, base string) {
	for _, size := range []int64{-1, 0, 9, 11, math.MaxInt64} {
		_, err := b.Put(t.Context(), base+"k", strings.NewReader("0123456789"), size, objectstore.Cond{IfNoneMatch: true})
		if err == nil || errors.Is(err, objectstore.ErrInDoubt) {
			t.Fatalf("size %d for 10 bytes: got %v, want an error that is not in doubt", size, err)
		}
		_, _, err = b.Get(t.Context(), base+"k")
		wantErr(t, "read after a refused put", err, objectstore.ErrNotFound)
	}
}

func ranges(t *testing.T, b objectstore.Bucket, base string) {
	const size = 100_000
	want := pseudo(7, size)
	put(t, b, base+"k", want, objectstore.Cond{IfNoneMatch: true})
	put(t, b, base+"empty", nil, objectstore.Cond{IfNoneMatch: true})
	for _, r := range [][2]int{{0, 1}, {0, size}, {size - 1, 1}, {1, size - 1}, {4096, 8192}, {99_990, 10}} {
		p := make([]byte, r[1])
		if err := b.GetRange(t.Context(), base+"k", p, int64(r[0])); err != nil {
			t.Fatalf("range [%d,+%d): %v", r[0], r[1], err)
		}
		if !bytes.Equal(p, want[r[0]:r[0]+r[1]]) {
			t.Fatalf("range [%d,+%d) has other bytes", r[0], r[1])
		}
	}
	for _, r := range [][2]int64{{size, 1}, {size - 1, 2}, {0, size + 1}, {1 << 40, 10}, {math.MaxInt64 - 1, 10}, {-1, 10}} {
		err := b.GetRange(t.Context(), base+"k", make([]byte, r[1]), r[0])
		wantErr(t, fmt.Sprintf("range [%d,+%d) of %d", r[0], r[1], size), err, objectstore.ErrRange)
	}
	wantErr(t, "a range of an empty object", b.GetRange(t.Context(), base+"empty", make([]byte, 1), 0), objectstore.ErrRange)
	if err := b.GetRange(t.Context(), base+"k", nil, 5); err != nil {
		t.Fatalf("empty range: %v", err)
	}
	var wg sync.WaitGroup
	errs := make([]error, 32)
	for i := range errs {
		wg.Go(func() {
			p := make([]byte, 3000)
			off := int64(i * 3000)
			if errs[i] = b.GetRange(t.Context(), base+"k", p, off); errs[i] == nil && !bytes.Equal(p, want[off:off+3000]) {
				errs[i] = fmt.Errorf("range at %d has other bytes", off)
			}
		})
	}
	wg.Wait()
	report(t, errors.Join(errs...))
}

func missing(t *testing.T, b objectstore.Bucket, base string) {
	put(t, b, base+"dir/k", []byte("x"), objectstore.Cond{})
	for _, key := range []string{base + "nothing", base + "dir", base + "dir/k/below", base + "no/such/folder"} {
		_, _, err := b.Get(t.Context(), key)
		wantErr(t, "get "+key, err, objectstore.ErrNotFound)
		_, err = b.Head(t.Context(), key)
		wantErr(t, "head "+key, err, objectstore.ErrNotFound)
		wantErr(t, "range "+key, b.GetRange(t.Context(), key, make([]byte, 4), 0), objectstore.ErrNotFound)
	}
	for _, err := range b.List(t.Context(), base+"nothing/at/all/") {
		t.Fatalf("listing an empty prefix yields (error %v)", err)
	}
}

func createRefuses(t *testing.T, b objectstore.Bucket, base string) {
	for _, first := range []objectstore.Cond{{}, {IfNoneMatch: true}} {
		key := fmt.Sprintf("%sk-%v", base, first.IfNoneMatch)
		put(t, b, key, []byte("one"), first)
		wantErr(t, "create what exists", try(t, b, key, "two", objectstore.Cond{IfNoneMatch: true}), objectstore.ErrPrecondition)
		if got, _, err := b.Get(t.Context(), key); err != nil || string(got) != "one" {
			t.Fatalf("after a refused create: %q, %v", got, err)
		}
		if err := b.Delete(t.Context(), []string{key}); err != nil {
			t.Fatal(err)
		}
		put(t, b, key, []byte("three"), objectstore.Cond{IfNoneMatch: true})
	}
}

func replaceNeedsETag(t *testing.T, b objectstore.Bucket, base string) {
	key := base + "head"
	wantErr(t, "replace what is not there", try(t, b, key, "x", objectstore.Cond{IfMatch: "0123456789abcdef0123456789abcdef"}), objectstore.ErrNotFound)
	old := put(t, b, key, []byte("v0"), objectstore.Cond{IfNoneMatch: true})
	for i := range 5 {
		now := put(t, b, key, fmt.Appendf(nil, "v%d", i+1), objectstore.Cond{IfMatch: old})
		if now == old {
			t.Fatal("two contents have one ETag")
		}
		wantErr(t, "replace with an old ETag", try(t, b, key, "stale", objectstore.Cond{IfMatch: old}), objectstore.ErrPrecondition)
		got, etag, err := b.Get(t.Context(), key)
		if err != nil || string(got) != fmt.Sprintf("v%d", i+1) || etag != now {
			t.Fatalf("got %q %s, %v; want v%d %s", got, etag, err, i+1, now)
		}
		old = now
	}
	wantErr(t, "replace with a foreign ETag", try(t, b, key, "x", objectstore.Cond{IfMatch: "0123456789abcdef0123456789abcdef"}), objectstore.ErrPrecondition)
	if err := b.Delete(t.Context(), []string{key}); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "replace what was deleted", try(t, b, key, "x", objectstore.Cond{IfMatch: old}), objectstore.ErrNotFound)
	_, _, err := b.Get(t.Context(), key)
	wantErr(t, "read after a refused replace", err, objectstore.ErrNotFound)
}

// equalBytes: the ETag a writer holds fences it off once anything else was
// written, until the very same bytes return.
func equalBytes(t *testing.T, b objectstore.Bucket, base string) {
	first := put(t, b, base+"k", []byte("a, nonce 1"), objectstore.Cond{IfNoneMatch: true})
	second := put(t, b, base+"k", []byte("b, nonce 2"), objectstore.Cond{IfMatch: first})
	put(t, b, base+"k", []byte("a, nonce 3"), objectstore.Cond{IfMatch: second})
	for _, stale := range []string{first, second} {
		wantErr(t, "replace with a stale ETag", try(t, b, base+"k", "late", objectstore.Cond{IfMatch: stale}), objectstore.ErrPrecondition)
	}
}

func headDescribes(t *testing.T, b objectstore.Bucket, base string) {
	data := pseudo(3, 70_000)
	before, err := b.Date(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	etag := put(t, b, base+"k", data, objectstore.Cond{IfNoneMatch: true})
	info, err := b.Head(t.Context(), base+"k")
	if err != nil {
		t.Fatal(err)
	}
	if info.Key != base+"k" || info.Size != int64(len(data)) || info.ETag != etag {
		t.Fatalf("head says %+v, want %d bytes with ETag %s", info, len(data), etag)
	}
	if d := info.LastModified.Sub(before); d < -3*time.Second || d > time.Minute {
		t.Fatalf("last modified %v, written about %v by the store's clock", info.LastModified, before)
	}
	if want := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)); info.CRC32C != nil && *info.CRC32C != want {
		t.Fatalf("head says CRC-32C %08x, it is %08x", *info.CRC32C, want)
	}
	for listed, err := range b.List(t.Context(), base) {
		if err != nil {
			t.Fatal(err)
		}
		if listed.Key != info.Key || listed.Size != info.Size || listed.ETag != info.ETag {
			t.Fatalf("list says %+v, head says %+v", listed, info)
		}
	}
}

func keysOf(t *testing.T, b objectstore.Bucket, prefix string) []string {
	t.Helper()
	var keys []string
	for info, err := range b.List(t.Context(), prefix) {
		if err != nil {
			t.Fatalf("list %s: %v", prefix, err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

var treacherous = []string{
	"a-b", "a/b", "a/b-c", "a/b.c/d", "a+", "a=", "a0", "a~", "a_", "a.b/c", "ab/c", "A/z", "b/0/1/2/3", "b/0-1", "b/00", "b/0.5",
	"00000000000000000010-00000000000000000020-0-x.seg", "manifest", "manifest.00000000000000000000-00000000000000000010.n",
}

func listOrder(t *testing.T, b objectstore.Bucket, base string) {
	var want []string
	for _, k := range treacherous {
		put(t, b, base+k, []byte(k), objectstore.Cond{})
		want = append(want, base+k)
	}
	slices.Sort(want)
	if got := keysOf(t, b, base); !slices.Equal(got, want) {
		t.Fatalf("order of the listing:\n got %q\nwant %q", got, want)
	}
	for range b.List(t.Context(), base) {
		break // stopping early must not hang or leak
	}
}

func listPrefix(t *testing.T, b objectstore.Bucket, base string) {
	var all []string
	for _, k := range treacherous {
		put(t, b, base+k, nil, objectstore.Cond{})
		all = append(all, base+k)
	}
	slices.Sort(all)
	for _, p := range []string{"a", "a/", "a/b", "a/b.", "a.", "b/0", "b/0/1/2", "b/0/1/2/3", "b/0/1/2/3/", "manifest", "manifest.", "0000", "zz", "A"} {
		var want []string
		for _, k := range all {
			if strings.HasPrefix(k, base+p) {
				want = append(want, k)
			}
		}
		if got := keysOf(t, b, base+p); !slices.Equal(got, want) {
			t.Fatalf("prefix %q:\n got %q\nwant %q", p, got, want)
		}
	}
}

func parallel(n, workers int, do func(i int) error) error {
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += workers {
				errs[w] = do(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func fill(t *testing.T, b objectstore.Bucket, base string, n int) []string {
	t.Helper()
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("%s%d/%05d", base, i%3, i)
	}
	report(t, parallel(n, 16, func(i int) error {
		_, err := b.Put(t.Context(), keys[i], strings.NewReader("x"), 1, objectstore.Cond{})
		return err
	}))
	slices.Sort(keys)
	return keys
}

func listPages(t *testing.T, b objectstore.Bucket, base string) {
	want := fill(t, b, base, 1234)
	if got := keysOf(t, b, base); !slices.Equal(got, want) {
		t.Fatalf("listed %d keys, want %d in order", len(got), len(want))
	}
}

func deleteBatches(t *testing.T, b objectstore.Bucket, base string) {
	keys := fill(t, b, base, 1101)
	keep := keys[500]
	gone := slices.Concat(keys[:500], keys[501:], []string{base + "never/was", base + "nor-this"})
	for range 2 { // the second time all are missing
		if err := b.Delete(t.Context(), gone); err != nil {
			t.Fatal(err)
		}
	}
	if got := keysOf(t, b, base); !slices.Equal(got, []string{keep}) {
		t.Fatalf("left: %d keys, want only %s", len(got), keep)
	}
	if err := b.Delete(t.Context(), nil); err != nil {
		t.Fatalf("delete nothing: %v", err)
	}
}

func badKeys(t *testing.T, b objectstore.Bucket, base string) {
	for _, key := range []string{"", "/", "/etc/passwd", "..", base + "../x", base + "a/../../x", base + "./x", base + "a//b", base + "a/", ".firn/meta/x",
		base + ".hidden", base + "a b", base + "a\nb", base + "a\x00b", base + "é", base + strings.Repeat("x", 256), strings.Repeat("y/", 500) + "z"} {
		if err := try(t, b, key, "x", objectstore.Cond{}); err == nil || errors.Is(err, objectstore.ErrInDoubt) {
			t.Errorf("put %q: got %v, want a refusal", key, err)
		}
		if _, _, err := b.Get(t.Context(), key); err == nil {
			t.Errorf("get %q succeeds", key)
		}
		if _, err := b.Head(t.Context(), key); err == nil {
			t.Errorf("head %q succeeds", key)
		}
		if err := b.GetRange(t.Context(), key, make([]byte, 1), 0); err == nil {
			t.Errorf("range of %q succeeds", key)
		}
		if err := b.Delete(t.Context(), []string{key}); err == nil {
			t.Errorf("delete %q succeeds", key)
		}
	}
	if _, err := b.Put(t.Context(), base+"k", strings.NewReader("x"), 1, objectstore.Cond{IfNoneMatch: true, IfMatch: "x"}); err == nil {
		t.Error("both conditions at once are accepted")
	}
}

func cancelled(t *testing.T, b objectstore.Bucket, base string) {
	put(t, b, base+"k", []byte("x"), objectstore.Cond{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := b.Get(ctx, base+"k")
	wantErr(t, "get", err, context.Canceled)
	wantErr(t, "range", b.GetRange(ctx, base+"k", make([]byte, 1), 0), context.Canceled)
	_, err = b.Head(ctx, base+"k")
	wantErr(t, "head", err, context.Canceled)
	_, err = b.Put(ctx, base+"other", strings.NewReader("x"), 1, objectstore.Cond{IfNoneMatch: true})
	wantErr(t, "put", err, context.Canceled)
	wantErr(t, "delete", b.Delete(ctx, []string{base + "k"}), context.Canceled)
	var last error
	for _, last = range b.List(ctx, base) {
	}
	wantErr(t, "list", last, context.Canceled)
}

// wholeObjects replaces one object over and over, each version filled with one
// byte, while others read it in all ways.
func wholeObjects(t *testing.T, b objectstore.Bucket, base string) {
	const size = 64 << 10
	key := base + "k"
	version := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, size) }
	etag := put(t, b, key, version(0), objectstore.Cond{IfNoneMatch: true})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	errs := make([]error, 6)
	for r := range errs {
		wg.Go(func() {
			p := make([]byte, size)
			for {
				select {
				case <-stop:
					return
				default:
				}
				var got []byte
				if r%2 == 0 {
					got, _, errs[r] = b.Get(t.Context(), key)
				} else {
					errs[r], got = b.GetRange(t.Context(), key, p, 0), p
				}
				if errs[r] != nil {
					return
				}
				if len(got) != size || bytes.Count(got, got[:1]) != size {
					errs[r] = fmt.Errorf("a reader got a mixture of two versions")
					return
				}
			}
		})
	}
	for i := range 40 {
		etag = put(t, b, key, version(i+1), objectstore.Cond{IfMatch: etag})
	}
	close(stop)
	wg.Wait()
	report(t, errors.Join(errs...))
}

func probe(t *testing.T, b objectstore.Bucket, base string) {
	if err := objectstore.Probe(t.Context(), b, base+"deep/prefix"); err != nil {
		t.Fatal(err)
	}
	if left := keysOf(t, b, base); len(left) > 0 {
		t.Fatalf("the probe left %q", left)
	}
}

func clock(t *testing.T, b objectstore.Bucket, _ string) {
	d, err := b.Date(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	later, err := b.Date(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := later.Sub(d); d.Year() < 2020 || diff < -time.Second || diff > time.Minute {
		t.Fatalf("the store says %v, then %v", d, later)
	}
	if b.Name() == "" {
		t.Fatal("a bucket without a name")
	}
}
