package load

import (
	"slices"
	"sync"
	"time"
)

// measure runs a share of the work for each connection and adds up what they did
// and what the server used meanwhile.
func measure(o Options, leaders map[string][]int32, share func(addr string, parts []int32) (Result, error)) (total Result, err error) {
	before, err := UsageOf(o.PIDs)
	if err != nil {
		return total, err
	}
	start := time.Now()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for addr, parts := range leaders {
		for k := range o.Conns {
			var mine []int32
			for i, p := range parts {
				if i%o.Conns == k {
					mine = append(mine, p)
				}
			}
			if len(mine) == 0 {
				continue
			}
			wg.Go(func() {
				r, e := share(addr, mine)
				mu.Lock()
				defer mu.Unlock()
				total.add(r)
				if e != nil && err == nil {
					err = e
				}
			})
		}
	}
	wg.Wait()
	total.Wall = time.Since(start)
	if err != nil {
		return total, err
	}
	after, err := UsageOf(o.PIDs)
	total.CPU, total.RSS, total.Peak = after.CPU-before.CPU, after.RSS, after.Peak
	slices.Sort(total.Latencies)
	return total, err
}
