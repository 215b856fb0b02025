package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// position is one end of a range: kind decides what n means.
type position struct {
	kind byte // 's' start, 'e' end, 'n' exact, '+' after start, '-' before end, '@' time in ms, 0 none
	n    int64
}

// offset is the position for a group that has committed nothing.
func (p position) offset() kgo.Offset {
	switch p.kind {
	case 'e':
		return kgo.NewOffset().AtEnd()
	case 'n':
		return kgo.NewOffset().At(p.n)
	case '+':
		return kgo.NewOffset().AtStart().Relative(p.n)
	case '-':
		return kgo.NewOffset().AtEnd().Relative(-p.n)
	case '@':
		return kgo.NewOffset().AfterMilli(p.n)
	default:
		return kgo.NewOffset().AtStart()
	}
}

// offsetRange is what -O says.
type offsetRange struct{ from, to position }

func (r offsetRange) hasEnd() bool { return r.to.kind != 0 }

// within is the range in a partition whose log is [lo, hi), where fromTime and
// toTime are the offsets of the range's times. Only an exact offset may lie behind
// hi: its record is still to come. end is -1 for no end, and may be below from:
// then there is nothing to read.
func (r offsetRange) within(lo, hi, fromTime, toTime int64) (from, end int64) {
	switch r.from.kind {
	case 'e':
		from = hi
	case 'n':
		from = max(r.from.n, lo)
	case '+':
		from = lo + min(r.from.n, hi-lo)
	case '-':
		from = hi - min(r.from.n, hi-lo)
	case '@':
		from = min(max(fromTime, lo), hi)
	default:
		from = lo
	}
	switch r.to.kind {
	case 'e':
		return from, hi
	case 'n':
		return from, min(r.to.n, hi)
	case '@':
		return from, min(toTime, hi)
	}
	return from, -1
}

// parseRange reads rpk's offset grammar: start, end, :end, N, N1-N2, N:end, +N and
// -N (relative to start and end), @T, @T1:T2 and @T:end with T as milliseconds,
// RFC 3339 or -1h. The second of two ends is exclusive.
func parseRange(s string, now time.Time) (offsetRange, error) {
	bad := usageError("-O %q: want start, end, :end, N, N1-N2, N:end, +N, -N, @T, @T1:T2 or @T:end", s)
	if t, ok := strings.CutPrefix(s, "@"); ok {
		from, to, err := splitTimes(t, now)
		if err != nil {
			return offsetRange{}, usageError("-O %q: %w", s, err)
		}
		return offsetRange{from, to}, nil
	}
	switch {
	case s == "start":
		return offsetRange{from: position{kind: 's'}}, nil
	case s == "end":
		return offsetRange{from: position{kind: 'e'}}, nil
	case s == ":end":
		return offsetRange{position{kind: 's'}, position{kind: 'e'}}, nil
	case strings.HasPrefix(s, "+"), strings.HasPrefix(s, "-"):
		n, ok := digits(s[1:])
		if !ok {
			return offsetRange{}, bad
		}
		return offsetRange{from: position{kind: s[0], n: n}}, nil
	}
	if from, ok := strings.CutSuffix(s, ":end"); ok {
		n, ok := digits(from)
		if !ok {
			return offsetRange{}, bad
		}
		return offsetRange{position{'n', n}, position{kind: 'e'}}, nil
	}
	from, to, ranged := strings.Cut(s, "-")
	n, ok := digits(from)
	if !ok {
		return offsetRange{}, bad
	}
	r := offsetRange{from: position{'n', n}}
	if ranged {
		m, ok := digits(to)
		if !ok || m < n {
			return offsetRange{}, bad
		}
		r.to = position{'n', m}
	}
	return r, nil
}

// digits reads a whole number without a sign.
func digits(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && s[0] >= '0' && s[0] <= '9'
}

// splitTimes reads T or T1:T2 or T:end. RFC 3339 holds colons of its own, so
// every colon is tried.
func splitTimes(s string, now time.Time) (from, to position, err error) {
	if ms, ok := parseTime(s, now); ok {
		return position{'@', ms}, position{}, nil
	}
	for i := range s {
		if s[i] != ':' {
			continue
		}
		a, ok := parseTime(s[:i], now)
		if !ok {
			continue
		}
		if s[i+1:] == "end" {
			return position{'@', a}, position{kind: 'e'}, nil
		}
		if b, ok := parseTime(s[i+1:], now); ok {
			if b < a {
				return position{}, position{}, fmt.Errorf("%s is before %s", s[i+1:], s[:i])
			}
			return position{'@', a}, position{'@', b}, nil
		}
	}
	return position{}, position{}, fmt.Errorf("time %q: want milliseconds, RFC 3339 or a duration such as -1h", s)
}

// parseTime is a time in milliseconds. What lies before 1970 is 0: ListOffsets has
// other uses for negative numbers.
func parseTime(s string, now time.Time) (int64, bool) {
	if strings.HasPrefix(s, "-") {
		d, err := time.ParseDuration(s)
		return max(now.Add(d).UnixMilli(), 0), err == nil
	}
	if n, ok := digits(s); ok {
		return n, true
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00", time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return max(t.UnixMilli(), 0), true
		}
	}
	return 0, false
}

// listed is a topic's part of a ListOffsets answer, by partition. The client
// library reports a topic without metadata as an entry for partition -1.
func listed(all kadm.ListedOffsets, topic string) ([]kadm.ListedOffset, error) {
	var out []kadm.ListedOffset
	for _, o := range all[topic] {
		if o.Err != nil {
			return nil, explain(o.Err, topic)
		}
		out = append(out, o)
	}
	if len(out) == 0 {
		return nil, explain(kerr.UnknownTopicOrPartition, topic)
	}
	slices.SortFunc(out, func(a, b kadm.ListedOffset) int { return int(a.Partition) - int(b.Partition) })
	return out, nil
}

// choose is the wanted of a topic's partitions, all of them when none is named. One
// that is named and does not exist is an error.
func choose(topic string, all []kadm.ListedOffset, wanted []int32) ([]kadm.ListedOffset, error) {
	for _, w := range wanted {
		if !slices.ContainsFunc(all, func(o kadm.ListedOffset) bool { return o.Partition == w }) {
			return nil, fmt.Errorf("topic %s has no partition %d, it has %d of them; `firn topic describe %s` shows them", topic, w, len(all), topic)
		}
	}
	if len(wanted) == 0 {
		return all, nil
	}
	return slices.DeleteFunc(all, func(o kadm.ListedOffset) bool { return !slices.Contains(wanted, o.Partition) }), nil
}

// span is what is to be read of one partition.
type span struct {
	topic     string
	partition int32
	from, end int64 // end is -1 for no end
	hi        int64 // where the log ended when it was asked
}

// resolve turns a range into what it is in each partition now. Partitions in which
// a range with an end has nothing are left out.
func resolve(ctx context.Context, adm *kadm.Client, topics []string, partitions []int32, rng offsetRange, committed bool) ([]span, error) {
	starts, err := adm.ListStartOffsets(ctx, topics...)
	if err != nil {
		return nil, err
	}
	list := adm.ListEndOffsets
	if committed {
		list = adm.ListCommittedOffsets // nothing above the last stable offset would come
	}
	ends, err := list(ctx, topics...)
	if err != nil {
		return nil, err
	}
	var times [2]kadm.ListedOffsets // the log's end where nothing is as late
	for i, p := range []position{rng.from, rng.to} {
		if p.kind != '@' {
			continue
		}
		if times[i], err = adm.ListOffsetsAfterMilli(ctx, p.n, topics...); err != nil {
			return nil, err
		}
	}
	var spans []span
	for _, t := range topics {
		his, err := listed(ends, t)
		if err != nil {
			return nil, err
		}
		if his, err = choose(t, his, partitions); err != nil {
			return nil, err
		}
		for _, hi := range his {
			at := func(l kadm.ListedOffsets) (int64, error) {
				o, ok := l.Lookup(t, hi.Partition)
				if !ok {
					o.Err = kerr.UnknownTopicOrPartition
				}
				return o.Offset, explain(o.Err, t)
			}
			lo, err := at(starts)
			if err != nil {
				return nil, err
			}
			var offsets [2]int64
			for i, l := range times {
				if l == nil {
					continue
				}
				if offsets[i], err = at(l); err != nil {
					return nil, err
				}
			}
			s := span{topic: t, partition: hi.Partition, hi: hi.Offset}
			if s.from, s.end = rng.within(lo, hi.Offset, offsets[0], offsets[1]); s.end < 0 || s.from < s.end {
				spans = append(spans, s)
			}
		}
	}
	return spans, nil
}
