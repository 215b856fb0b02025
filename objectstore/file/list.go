package file

import (
	"context"
	"errors"
	"iter"
	"path/filepath"
	"slices"
	"strings"

	"github.com/firnlog/firn/objectstore"
)

// List walks the folders in the order of keys. That is not the order of names:
// all keys of a folder "a" begin with "a/", which sorts after "a-b", so a folder
// takes its place by its name with the slash.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[objectstore.Info, error] {
	return func(yield func(objectstore.Info, error) bool) {
		// The deepest folder that holds every match.
		folder := ""
		if cut := strings.LastIndexByte(prefix, '/'); cut >= 0 {
			folder = prefix[:cut+1]
			if objectstore.CheckKey(strings.TrimSuffix(folder, "/")) != nil {
				return // no key can look like that
			}
		}
		if _, err := b.fs.Stat(filepath.Join(b.root, hidden)); err != nil {
			yield(objectstore.Info{}, b.missing(".", err))
			return
		}
		b.walk(ctx, folder, prefix, yield)
	}
}

// walk yields what lies in folder ("" or ending in a slash) and starts with
// prefix. It returns false when the walk is over.
func (b *Bucket) walk(ctx context.Context, folder, prefix string, yield func(objectstore.Info, error) bool) bool {
	if err := ctx.Err(); err != nil {
		yield(objectstore.Info{}, err)
		return false
	}
	entries, err := b.fs.ReadDir(filepath.Join(b.root, filepath.FromSlash(folder)))
	if isNotExist(err) {
		return true // pruned meanwhile, or never there
	}
	if err != nil {
		yield(objectstore.Info{}, mapError(err))
		return false
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		name := e.Name()
		if name[0] == '.' {
			continue
		}
		if e.IsDir() {
			name += "/"
		}
		key := folder + name
		// A folder matters when it may hold a match: one of the two strings
		// begins with the other.
		if strings.HasPrefix(key, prefix) || e.IsDir() && strings.HasPrefix(prefix, key) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		key := folder + name
		if strings.HasSuffix(name, "/") {
			if !b.walk(ctx, key, prefix, yield) {
				return false
			}
			continue
		}
		if objectstore.CheckKey(key) != nil {
			continue // not ours, and no call could name it
		}
		info, err := b.Head(ctx, key)
		if errors.Is(err, objectstore.ErrNotFound) {
			continue
		}
		info.CRC32C = nil
		if !yield(info, err) || err != nil {
			return false
		}
	}
	return true
}
