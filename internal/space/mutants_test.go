package space

import (
	"testing"

	"github.com/firnlog/firn/internal/mutation"
)

// TestMutants: the numbers are those of the rules that the package keeps.
func TestMutants(t *testing.T) {
	m := mutation.Of(t)
	m.Catch("22 the cache goes first", "space.go", `g.cfg.Cache.Used()+free-3*g.reserve`, `g.cfg.Cache.Used()+free-2*g.reserve`, "TestThePartsGiveWayInOrder")
	m.Catch("22 the cache never gets more than its own", "space.go", `g.reserve, 0), g.cfg.CacheBytes)`, `g.reserve, 0), 1<<62)`, "TestThePartsGiveWayInOrder")
	m.Catch("22 the cache gets back what it gave", "space.go", `may < g.allowed || may >= g.allowed+g.reserve/4 || may == g.cfg.CacheBytes && may != g.allowed`, `may < g.allowed`, "TestThePartsGiveWayInOrder")
	m.Catch("22 then what the bucket covers", "space.go", `g.Level() >= Low`, `g.Level() >= Full`, "TestThePartsGiveWayInOrder")
	m.Catch("22 which is below two reserves", "space.go", `case free < 2*g.reserve:`, `case free < g.reserve+g.reserve/4:`, "TestThePartsGiveWayInOrder")
	m.Catch("22 but not before the cache", "space.go", `g.Level() >= Low`, `g.Level() >= Tight`, "TestThePartsGiveWayInOrder")
	m.Catch("22 then producers are refused", "space.go", `	if g.Level() < Full {`, `	if g.Level() <= Full {`, "TestThePartsGiveWayInOrder")
	m.Catch("22 but not before covered segments", "space.go", `	if g.Level() < Full {`, `	if g.Level() < Low {`, "TestThePartsGiveWayInOrder")
	m.Catch("22 room comes back with some distance", "space.go", `return min(before, at(max(0, free-g.reserve/4)))`, `return now`, "TestThePartsGiveWayInOrder")
	m.Catch("22 journals may use the reserve", "space.go", `protects && free > g.reserve/2`, `protects && free > g.reserve`, "TestWhatProtects")
	m.Catch("22 half of it", "space.go", `protects && free > g.reserve/2`, `protects`, "TestWhatProtects")
	m.Catch("22 and nobody else", "space.go", `err == nil && protects && free`, `err == nil && free`, "TestWhatProtects")
	m.Catch("22 a fast writer is measured by its bytes", "space.go", `g.left.Add(-int64(n)) < 0`, `false`, "TestAFastWriter")
	m.Catch("22 others are measured by the clock", "space.go", `		case <-t.C:
			g.measure()`, `		case <-t.C:`, "TestAFastWriter")
	m.Catch("22 a failed measurement changes nothing", "space.go", `		g.broken = true
		return
`, `		g.broken = true
`, "TestADiskThatCannotBeMeasured")
	m.Catch("22 nor does it let anybody in", "space.go", `err == nil && protects && free > g.reserve/2`, `protects && (err != nil || free > g.reserve/2)`, "TestADiskThatCannotBeMeasured")
}
