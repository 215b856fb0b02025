package main

import (
	"errors"
	"math"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const noonMs = 1772366400000

// TestRanges reads every form of -O.
func TestRanges(t *testing.T) {
	at := func(kind byte, n int64) position { return position{kind, n} }
	start, end, none := at('s', 0), at('e', 0), position{}
	for s, want := range map[string]offsetRange{
		"start": {start, none}, "end": {end, none}, ":end": {start, end},
		"0": {at('n', 0), none}, "17": {at('n', 17), none}, "9223372036854775807": {at('n', math.MaxInt64), none},
		"5-9": {at('n', 5), at('n', 9)}, "5-5": {at('n', 5), at('n', 5)}, "5:end": {at('n', 5), end},
		"+0": {at('+', 0), none}, "+10": {at('+', 10), none}, "-10": {at('-', 10), none},
		"@0": {at('@', 0), none}, "@1700000000000": {at('@', 1700000000000), none},
		"@-1h": {at('@', noonMs-3600_000), none}, "@-1h:end": {at('@', noonMs-3600_000), end}, "@-90m:-30m": {at('@', noonMs-5400_000), at('@', noonMs-1800_000)},
		"@1:2": {at('@', 1), at('@', 2)}, "@2:end": {at('@', 2), end},
		"@2026-03-01":           {at('@', noonMs-12*3600_000), none},
		"@2026-03-01T12:00:00Z": {at('@', noonMs), none}, "@2026-03-01T12:00Z": {at('@', noonMs), none}, "@2026-03-01T13:00:00.5+01:00": {at('@', noonMs+500), none},
		"@2026-03-01T12:00:00Z:2026-03-01T13:00:00Z": {at('@', noonMs), at('@', noonMs+3600_000)},
		"@2026-03-01T12:00:00+01:00:end":             {at('@', noonMs-3600_000), end},
		"@1969-12-31T23:59:59.997Z":                  {at('@', 0), none}, // not -3, which would ask for something else
	} {
		if got, err := parseRange(s, noon); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", s, got, err, want)
		}
	}
	for _, s := range []string{
		"", "begin", "START", "x", "1x", "-", "+", "--1", "++1", "+-1", "1-", "-1-2", "9-5", "5-+9", "5:9", "5:", ":", ":5", "1.5", " 1", "9223372036854775808",
		"@", "@x", "@:end", "@-1h:", "@-1h:start", "@1h", "@2:1", "@2026-13-01", "@-", "@1:2:3",
	} {
		if got, err := parseRange(s, noon); err == nil {
			t.Errorf("%q is taken as %+v", s, got)
		} else if exitCode(err) != exitUsage {
			t.Errorf("%q: %v is no usage error", s, err)
		}
	}
}

// TestRangesWithinALog resolves ranges in a log of [100, 200).
func TestRangesWithinALog(t *testing.T) {
	for s, want := range map[string][2]int64{
		"start": {100, -1}, "end": {200, -1}, ":end": {100, 200},
		"150": {150, -1}, "50": {100, -1}, "200": {200, -1},
		"250":     {250, -1},  // still to come
		"250:end": {250, 200}, // nothing
		"150:end": {150, 200}, "150-160": {150, 160}, "150-999": {150, 200}, "10-20": {100, 20},
		"+10": {110, -1}, "+100": {200, -1}, "+9223372036854775807": {200, -1},
		"-10": {190, -1}, "-100": {100, -1}, "-9223372036854775807": {100, -1},
		"@1": {120, -1}, "@1:2": {120, 130}, "@1:end": {120, 200},
	} {
		r, err := parseRange(s, noon)
		if err != nil {
			t.Fatal(err)
		}
		if from, end := r.within(100, 200, 120, 130); from != want[0] || end != want[1] {
			t.Errorf("%s: [%d, %d), want %v", s, from, end, want)
		}
	}
	// Times whose offsets have left the log meanwhile, or lie above what may be read.
	r, _ := parseRange("@1:2", noon)
	if from, end := r.within(100, 200, 50, 300); from != 100 || end != 200 {
		t.Errorf("[%d, %d)", from, end)
	}
}

// FuzzRange: whatever -O says is refused as bad usage, or is a range whose numbers
// are no negative ones and which lies in the log that it is resolved in.
func FuzzRange(f *testing.F) {
	for _, s := range []string{"start", ":end", "5-9", "5:end", "+3", "-3", "@-1h:end", "@2026-03-01T12:00:00Z:2026-03-01T13:00:00+01:00", "@1:2", "9223372036854775807"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseRange(s, noon)
		if err != nil {
			if coded := (*codedError)(nil); !errors.As(err, &coded) || coded.code != exitUsage {
				t.Fatalf("%q: %v is no usage error", s, err)
			}
			return
		}
		if r.from.n < 0 || r.to.n < 0 || r.from.kind == 0 || r.from.kind == r.to.kind && r.to.n < r.from.n {
			t.Fatalf("%q: %+v", s, r)
		}
		const lo, hi = int64(100), int64(200)
		from, end := r.within(lo, hi, 120, 130)
		if from < lo || from > hi && r.from.kind != 'n' || end > hi || r.hasEnd() != (end >= 0) {
			t.Fatalf("%q is [%d, %d) in [%d, %d)", s, from, end, lo, hi)
		}
	})
}
