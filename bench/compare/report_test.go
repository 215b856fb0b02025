package main

import (
	"strings"
	"testing"
)

func runsOf(server string, settings map[string]string, rates ...float64) (runs []sample) {
	for i, r := range rates {
		runs = append(runs, sample{Server: server, Round: i, Rate: r, Settings: settings})
	}
	return runs
}

func TestARatioIsRefusedWhenSettingsDiffer(t *testing.T) {
	f := rate()
	f.kafka = 2
	s := scenario{what: "work", figures: []figure{f}}
	same := map[string]string{"segment.bytes": "1", "flush": "no"}
	other := map[string]string{"segment.bytes": "2", "flush": "no"}
	rows := summarize(s, append(runsOf("firn", same, 3, 1, 2), runsOf("kafka", other, 1)...))
	if r := rows[0]; r.toKafka != "refused: segment.bytes differ" || !strings.HasPrefix(r.verdict, "missed") {
		t.Fatalf("%+v", r)
	}
	rows = summarize(s, append(runsOf("firn", same, 3, 1, 2), runsOf("kafka", same, 1)...))
	if r := rows[0]; r.toKafka != "2.00" || r.verdict != "met" || r.firn != (spread{2, 1, 3, 3}) {
		t.Fatalf("%+v", r)
	}
	rows = summarize(s, append(runsOf("firn", same, 3), runsOf("kafka", same, 1)...))
	if r := rows[0]; r.verdict != "missed: wants 2.00 of Kafka's" {
		t.Fatalf("%+v", r)
	}
	// A setting that only one of them has is a difference too.
	delete(other, "segment.bytes")
	rows = summarize(s, append(runsOf("firn", same, 3), runsOf("kafka", other, 1)...))
	if r := rows[0]; !strings.HasPrefix(r.toKafka, "refused") {
		t.Fatalf("%+v", r)
	}
}

func TestTheFsyncRateIsHeldAgainstTheLowerOfKafkaAndTheProbe(t *testing.T) {
	f := rate()
	f.acrossSettings = true
	s := scenario{what: "work", figures: []figure{f}}
	base := append(runsOf("kafka", nil, 200), runsOf("probe", nil, 100)...)
	if r := summarize(s, append(base, runsOf("firn", nil, 91)...))[0]; r.verdict != "met" {
		t.Fatalf("%+v", r)
	}
	if r := summarize(s, append(base, runsOf("firn", nil, 89)...))[0]; r.verdict != "missed: wants 0.90 of the lower" {
		t.Fatalf("%+v", r)
	}
}
