package load

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Usage is what processes have used so far.
type Usage struct {
	CPU       float64 // seconds, user and system
	RSS, Peak float64 // MiB, together
}

// UsageOf reads /proc. The kernel counts CPU in hundredths of a second.
func UsageOf(pids []int) (u Usage, err error) {
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return u, err
		}
		// Behind the name, which may hold anything, and its bracket.
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
		for _, ticks := range f[11:13] {
			n, err := strconv.ParseFloat(ticks, 64)
			if err != nil {
				return u, err
			}
			u.CPU += n / 100
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return u, err
		}
		for line := range strings.Lines(string(status)) {
			f := strings.Fields(line)
			if len(f) < 2 {
				continue
			}
			kib, _ := strconv.ParseFloat(f[1], 64)
			switch f[0] {
			case "VmRSS:":
				u.RSS += kib / 1024
			case "VmHWM:":
				u.Peak += kib / 1024
			}
		}
	}
	return u, nil
}
