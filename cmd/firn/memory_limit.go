package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// leastMemory is the smallest limit that is accepted. Below it what a node needs
// for itself leaves nothing to serve requests with.
const leastMemory = 64 << 20

// memoryLimit is --memory-limit, else 60 % of what the cgroup or the machine
// allows, whichever is less. root is the root folder.
func memoryLimit(c Config, root fs.FS) (int64, error) {
	if c.MemoryLimit != "" {
		return parseSize(c.MemoryLimit)
	}
	total, whose := machineMemory(root), "machine"
	if n := cgroupMemory(root); n > 0 && (total == 0 || n < total) {
		total, whose = n, "cgroup"
	}
	if total == 0 {
		return 0, errors.New("memory size unknown: set --memory-limit")
	}
	limit := total / 10 * 6
	if limit < leastMemory {
		return 0, fmt.Errorf("60 %% of this %s's memory (%s) is %s, and a node needs at least %s: give it more, or set --memory-limit",
			whose, humanBytes(total), humanBytes(limit), humanBytes(leastMemory))
	}
	return limit, nil
}

// machineMemory is all memory there is, or 0 when that is unknown.
func machineMemory(root fs.FS) int64 {
	raw, _ := fs.ReadFile(root, "proc/meminfo")
	for line := range strings.Lines(string(raw)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "MemTotal: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	return 0
}

// cgroupMemory is the least of the memory limits of this process's cgroup and of
// all above it, as far as they can be seen from here; 0 when there is none. Both
// hierarchies count, for on some machines version 1 has the memory controller and
// on others version 2.
func cgroupMemory(root fs.FS) int64 {
	least := int64(0)
	for _, h := range hierarchies(root) {
		for dir := h.below; ; dir = path.Dir(dir) {
			raw, err := fs.ReadFile(root, strings.TrimPrefix(path.Join(h.mount, dir, h.file), "/"))
			n, perr := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
			// "max" in version 2, and in version 1 a number near 2^63, are no limit.
			if err == nil && perr == nil && n > 0 && n < 1<<60 && (least == 0 || n < least) {
				least = n
			}
			if dir == "/" {
				break
			}
		}
	}
	return least
}

// hierarchy is a mounted tree of cgroups that may limit memory.
type hierarchy struct {
	mount string // where its root is seen
	below string // this process's cgroup, from there
	file  string // the limit's name
}

// hierarchies joins /proc/self/cgroup, which says where this process is in each
// tree, with the mounts of those trees. In a container a mount may show only a part
// of its tree, and the process may seem to be elsewhere: then the mount's root,
// which is the container's own cgroup, is what there is to see.
func hierarchies(root fs.FS) (out []hierarchy) {
	raw, _ := fs.ReadFile(root, "proc/self/cgroup")
	at := map[string]string{} // version to path
	for line := range strings.Lines(string(raw)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(f) < 3:
		case f[0] == "0" && f[1] == "":
			at["cgroup2"] = f[2]
		case slices.Contains(strings.Split(f[1], ","), "memory"):
			at["cgroup"] = f[2]
		}
	}
	mounts, _ := fs.ReadFile(root, "proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		// ID PARENT DEVICE ROOT MOUNTPOINT OPTIONS... - TYPE SOURCE SUPEROPTIONS
		left, right, _ := strings.Cut(strings.TrimSpace(line), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) < 5 || len(r) < 3 {
			continue
		}
		h := hierarchy{mount: l[4], file: "memory.max"}
		if r[0] == "cgroup" && slices.Contains(strings.Split(r[2], ","), "memory") {
			h.file = "memory.limit_in_bytes"
		} else if r[0] != "cgroup2" {
			continue
		}
		where, ok := at[r[0]]
		if !ok {
			continue
		}
		h.below = "/"
		if rest, ok := strings.CutPrefix(path.Clean(where), strings.TrimSuffix(l[3], "/")); ok && strings.HasPrefix(rest, "/") {
			h.below = rest
		}
		out = append(out, h)
	}
	return out
}
