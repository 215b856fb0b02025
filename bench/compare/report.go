package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// row is one figure of a scenario, summed up.
type row struct {
	scenario, figure, unit string
	firn, kafka, floor     spread
	toKafka, toFloor       string
	verdict                string
}

// spread is a median and what lies around it.
type spread struct {
	median, low, high float64
	n                 int
}

func (s spread) String() string {
	if s.n == 0 {
		return "-"
	}
	return fmt.Sprintf("%s (%s-%s)", short(s.median), short(s.low), short(s.high))
}

func short(x float64) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	v := slices.Sorted(slices.Values(values))
	return spread{median: v[len(v)/2], low: v[0], high: v[len(v)-1], n: len(v)}
}

// differing names the settings in which the runs of two servers are not alike.
func differing(a, b []sample) []string {
	names := map[string]bool{}
	for _, x := range a {
		for _, y := range b {
			for _, pair := range [][2]map[string]string{{x.Settings, y.Settings}, {y.Settings, x.Settings}} {
				for k, v := range pair[0] {
					if pair[1][k] != v {
						names[k] = true
					}
				}
			}
			for k, v := range x.Options {
				if y.Options[k] != v {
					names[k] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

func summarize(s scenario, runs []sample) (rows []row) {
	by := map[string][]sample{}
	for _, r := range runs {
		by[r.Server] = append(by[r.Server], r)
	}
	for _, f := range s.figures {
		values := func(server string) spread {
			var v []float64
			for _, r := range by[server] {
				v = append(v, f.of(r))
			}
			return spreadOf(v)
		}
		r := row{scenario: s.what, figure: f.name, unit: f.unit, firn: values("firn"), kafka: values("kafka"), floor: values("floor"), toKafka: "-", toFloor: "-"}
		var misses []string
		judge := func(ratio, bound float64, to string) {
			if bound > 0 && ratio > bound {
				misses = append(misses, fmt.Sprintf("wants %.2f of %s", bound, to))
			}
		}
		if r.kafka.n > 0 {
			if diff := differing(by["firn"], by["kafka"]); len(diff) > 0 && !f.acrossSettings {
				r.toKafka = "refused: " + strings.Join(diff, ", ") + " differ"
				misses = append(misses, "no ratio")
			} else {
				ratio := r.firn.median / r.kafka.median
				r.toKafka = fmt.Sprintf("%.2f", ratio)
				judge(ratio, f.kafka, "Kafka's")
			}
		}
		if r.floor.n > 0 {
			ratio := r.firn.median / r.floor.median
			r.toFloor = fmt.Sprintf("%.2f", ratio)
			judge(ratio, f.floor, "the floor's")
		}
		if f.limit > 0 && r.firn.median > f.limit {
			misses = append(misses, fmt.Sprintf("wants %s", short(f.limit)))
		}
		if probe := values("probe"); probe.n > 0 && f.higherIsBetter {
			least := probe.median
			if r.kafka.n > 0 {
				least = min(least, r.kafka.median)
			}
			r.floor, r.toFloor = probe, fmt.Sprintf("%.2f of the plain write+fdatasync", r.firn.median/probe.median)
			if r.firn.median < 0.9*least {
				misses = append(misses, "wants 0.90 of the lower")
			}
		}
		switch {
		case len(misses) > 0:
			r.verdict = "missed: " + strings.Join(misses, "; ")
		case f.kafka > 0 || f.floor > 0 || f.limit > 0 || f.acrossSettings:
			r.verdict = "met"
		}
		rows = append(rows, r)
	}
	return rows
}

// render is the table, in Markdown. Cells are median (lowest-highest).
func render(rows []row) string {
	var b strings.Builder
	b.WriteString("| work | figure | firn | Kafka | floor | firn / Kafka | firn / floor | aim |\n|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s, %s | %s | %s | %s | %s | %s | %s |\n", r.scenario, r.figure, r.unit, r.firn, r.kafka, r.floor, r.toKafka, r.toFloor, r.verdict)
	}
	return b.String()
}
