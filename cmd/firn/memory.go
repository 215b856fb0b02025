package main

import (
	"runtime/debug"
	"runtime/metrics"

	"golang.org/x/sys/unix"
)

// memoryPlan divides --memory-limit. The shares are what may be held at once;
// together with what a node needs anyway (some 20 MiB, and some 20 KiB a
// connection) they leave the garbage collector room below heap.
type memoryPlan struct {
	limit    int64
	heap     int64 // of Go's runtime: the limit without the program's own pages
	requests int64 // requests and answers (broker.Memory)
	cache    int64 // chunks on their way from the bucket to the cache
	decoding int64 // compressed chunks while they are decoded
	coalesce int64 // largest GET that chunks share
	// connections is how many the limit and the descriptors allow: an idle one
	// takes less than 32 KiB, and files need descriptors too.
	connections int
}

func planMemory(limit int64, descriptors uint64) memoryPlan {
	const mib = 1 << 20
	p := memoryPlan{limit: limit, heap: max(limit-max(32*mib, limit/16), limit/2), requests: limit / 2}
	p.cache = min(max(limit/16, 8*mib), 64*mib)
	p.decoding = min(max(limit/16, 8*mib), 48*mib)
	p.coalesce = min(p.cache/4, 8*mib)
	p.connections = int(min(10_000, limit/(32<<10), int64(min(descriptors, 1<<20))/2))
	return p
}

// setHeap sets the soft limit of Go's runtime, which does not know of mapped bytes
// outside its heap, and returns when the heap is below it: garbage makes room at
// once for what is about to be mapped.
func (p memoryPlan) setHeap(mapped int64) {
	limit := max(p.heap-mapped, p.limit/4)
	debug.SetMemoryLimit(limit)
	use := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(use)
	if int64(use[0].Value.Uint64()-use[1].Value.Uint64()) > limit {
		debug.FreeOSMemory()
	}
}

// descriptors is how many files and sockets this process may have open.
func descriptors() uint64 {
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) != nil {
		return 1024
	}
	return lim.Cur
}
