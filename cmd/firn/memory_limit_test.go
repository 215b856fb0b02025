package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

const gib = 1 << 30

// machine is a root folder as /proc and /sys show it.
func machine(memory int64, cgroup, mounts string, limits map[string]string) fstest.MapFS {
	root := fstest.MapFS{
		"proc/meminfo":        {Data: fmt.Appendf(nil, "MemTotal:       %d kB\nMemFree: 1 kB\n", memory>>10)},
		"proc/self/cgroup":    {Data: []byte(cgroup)},
		"proc/self/mountinfo": {Data: []byte(mounts)},
	}
	for name, limit := range limits {
		root[strings.TrimPrefix(name, "/")] = &fstest.MapFile{Data: []byte(limit + "\n")}
	}
	return root
}

const (
	v2Mount = "31 23 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	v1Mount = "33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
	noLimit = "9223372036854771712" // of version 1
)

// TestMemoryLimitIsTheCgroups finds the limit that rules this process wherever in
// the tree of cgroups it lies, and takes 60 % of it.
func TestMemoryLimitIsTheCgroups(t *testing.T) {
	for name, c := range map[string]struct {
		root fstest.MapFS
		want int64 // the memory there is
	}{
		"no cgroup":         {machine(8*gib, "", "", nil), 8 * gib},
		"version 2, a unit": {machine(8*gib, "0::/system.slice/firn.service\n", v2Mount, map[string]string{"/sys/fs/cgroup/system.slice/firn.service/memory.max": "1073741824", "/sys/fs/cgroup/system.slice/memory.max": "max"}), gib},
		"version 2, a limit further up": {machine(8*gib, "0::/a/b/c\n", v2Mount, map[string]string{
			"/sys/fs/cgroup/a/b/c/memory.max": "4294967296", "/sys/fs/cgroup/a/b/memory.max": "max", "/sys/fs/cgroup/a/memory.max": "2147483648",
		}), 2 * gib},
		"version 2, a namespace":          {machine(8*gib, "0::/\n", v2Mount, map[string]string{"/sys/fs/cgroup/memory.max": "1073741824"}), gib},
		"version 2, outside of the mount": {machine(8*gib, "0::/../other\n", v2Mount, map[string]string{"/sys/fs/cgroup/memory.max": "1073741824"}), gib},
		"version 2, a part is mounted": {machine(8*gib, "0::/docker/abc/inner\n", strings.Replace(v2Mount, " / ", " /docker/abc ", 1), map[string]string{
			"/sys/fs/cgroup/inner/memory.max": "1073741824", "/sys/fs/cgroup/memory.max": "2147483648",
		}), gib},
		"version 1": {machine(8*gib, "4:cpu,cpuacct:/other\n3:memory:/docker/abc\n0::/\n", v1Mount, map[string]string{
			"/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "1073741824", "/sys/fs/cgroup/memory/memory.limit_in_bytes": noLimit,
		}), gib},
		"version 1, only its own part is mounted": {machine(8*gib, "3:memory:/docker/abc\n", strings.ReplaceAll(v1Mount, " / /sys/fs/cgroup/memory", " /docker/abc /sys/fs/cgroup/memory"), map[string]string{
			"/sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824",
		}), gib},
		"version 1, no limit": {machine(8*gib, "3:memory:/a\n", v1Mount, map[string]string{"/sys/fs/cgroup/memory/a/memory.limit_in_bytes": noLimit, "/sys/fs/cgroup/memory/memory.limit_in_bytes": noLimit}), 8 * gib},
		"both versions": {machine(8*gib, "3:memory:/a\n0::/b\n", v1Mount+strings.Replace(v2Mount, "/sys/fs/cgroup", "/sys/fs/cgroup/unified", 1), map[string]string{
			"/sys/fs/cgroup/memory/a/memory.limit_in_bytes": "3221225472", "/sys/fs/cgroup/unified/b/memory.max": "2147483648",
		}), 2 * gib},
		"more than the machine has": {machine(2*gib, "0::/a\n", v2Mount, map[string]string{"/sys/fs/cgroup/a/memory.max": "8589934592"}), 2 * gib},
		"another's limit":           {machine(8*gib, "0::/ab\n", v2Mount, map[string]string{"/sys/fs/cgroup/a/memory.max": "1073741824"}), 8 * gib},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := memoryLimit(Config{}, c.root)
			if want := c.want / 10 * 6; err != nil || got != want {
				t.Errorf("%d, %v; want %d", got, err, want)
			}
		})
	}
}

// TestTooLittleMemoryIsRefused says so before a node starts that could not serve.
func TestTooLittleMemoryIsRefused(t *testing.T) {
	small := machine(8*gib, "0::/a\n", v2Mount, map[string]string{"/sys/fs/cgroup/a/memory.max": "104857600"})
	if _, err := memoryLimit(Config{}, small); err == nil || !strings.Contains(err.Error(), "60 % of this cgroup's memory (100.0 MiB) is 60.0 MiB, and a node needs at least 64.0 MiB") {
		t.Errorf("%v", err)
	}
	if n, err := memoryLimit(Config{MemoryLimit: "64MiB"}, small); err != nil || n != leastMemory {
		t.Errorf("what --memory-limit says: %d, %v", n, err)
	}
	if _, err := memoryLimit(Config{}, fstest.MapFS{}); err == nil || !strings.Contains(err.Error(), "set --memory-limit") {
		t.Errorf("a machine that says nothing: %v", err)
	}
}

// TestThisMachineSays reads the real /proc.
func TestThisMachineSays(t *testing.T) {
	if n := machineMemory(os.DirFS("/")); n < 64<<20 {
		t.Errorf("this machine has %d bytes of memory", n)
	}
}
