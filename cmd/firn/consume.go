package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// newConsume is `firn topic consume`. Offsets follow rpk's grammar: start, end,
// :end, N, N1-N2, N:end, +N and -N (relative to start and end), @T and @T1:T2
// with T as milliseconds, RFC 3339 or -1h.
func newConsume() *cobra.Command {
	c := &cobra.Command{
		Use: "consume TOPIC...", Short: "Read records, from either tier", Args: cobra.MinimumNArgs(1),
		Example: "  firn topic consume orders -O start -n 10\n  firn topic consume orders -O @-1h:end -f '%p %o %k %v\\n'\n  firn topic consume orders -g billing",
	}
	offset := c.Flags().StringP("offset", "O", "start", "where to read: start, end, :end, N, N1-N2, N:end, +N, -N, @T, @T1:T2")
	num := c.Flags().Int64P("num", "n", 0, "stop after this many records")
	format := c.Flags().StringP("format", "f", "json", "a record's format: json, or a string with %t %p %o %k %v %h %d")
	parts := c.Flags().Int32SliceP("partitions", "p", nil, "only these partitions")
	group := c.Flags().StringP("group", "g", "", "consume as a member of this group and commit")
	committed := c.Flags().Bool("read-committed", false, "only committed transactions")
	idle := c.Flags().Duration("exit-after-idle", 0, "stop when nothing came for this long")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		rng, err := parseRange(*offset, time.Now())
		if err != nil {
			return err
		}
		var fmtr *kgo.RecordFormatter
		if *format != "json" {
			if fmtr, err = kgo.NewRecordFormatter(*format); err != nil {
				return usageError("-f %q: %w", *format, err)
			}
		}
		// Markers of transactions are never printed, but a range may end with one.
		opts := []kgo.Opt{kgo.FetchMaxWait(500 * time.Millisecond), kgo.KeepControlRecords()}
		if *committed {
			opts = append(opts, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
		}
		if *group != "" {
			if len(*parts) > 0 || rng.hasEnd() {
				return usageError("-g reads whole topics without an end: leave out -p and the end of -O")
			}
			opts = append(opts, kgo.ConsumerGroup(*group), kgo.ConsumeTopics(args...), kgo.ConsumeResetOffset(rng.from.offset()), kgo.AutoCommitMarks())
		}
		cl, adm, err := connect(cmd, opts...)
		if err != nil {
			return err
		}
		defer cl.Close()
		left := map[string]map[int32]int64{} // partition to the end offset, when there is one
		if *group == "" {
			if left, err = assign(cmd, cl, adm, args, *parts, rng, *committed); err != nil {
				return err
			}
			if rng.hasEnd() && len(left) == 0 {
				return nil
			}
		}
		// What is committed is what was printed, no record more.
		printed := func(...*kgo.Record) {}
		if *group != "" {
			printed = cl.MarkCommitRecords
		}
		err = printRecords(cmd, cl, fmtr, left, rng.hasEnd(), *num, *idle, printed)
		if *group != "" {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), 10*time.Second)
			defer cancel()
			if cerr := cl.CommitMarkedOffsets(ctx); cerr != nil {
				err = errors.Join(err, explain(cerr, *group))
			}
		}
		return err
	}
	return c
}

// position is one end of a range: exactly one of the fields decides.
type position struct {
	kind byte // 's' start, 'e' end, 'n' exact, '+' after start, '-' before end, '@' time, 0 none
	n    int64
}

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

type offsetRange struct{ from, to position }

func (r offsetRange) hasEnd() bool { return r.to.kind != 0 }

// parseRange reads rpk's offset grammar.
func parseRange(s string, now time.Time) (offsetRange, error) {
	bad := func() (offsetRange, error) {
		return offsetRange{}, usageError("-O %q: want start, end, :end, N, N1-N2, N:end, +N, -N, @T or @T1:T2", s)
	}
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
		n, err := strconv.ParseInt(s[1:], 10, 64)
		if err != nil || n < 0 {
			return bad()
		}
		return offsetRange{from: position{kind: s[0], n: n}}, nil
	}
	from, to, ranged := strings.Cut(s, "-")
	toEnd := false
	if !ranged {
		if from, to, toEnd = strings.Cut(s, ":"); toEnd && to != "end" {
			return bad()
		}
	}
	n, err := strconv.ParseInt(from, 10, 64)
	if err != nil || n < 0 {
		return bad()
	}
	r := offsetRange{from: position{kind: 'n', n: n}}
	switch {
	case toEnd:
		r.to = position{kind: 'e'}
	case ranged:
		m, err := strconv.ParseInt(to, 10, 64)
		if err != nil || m < n {
			return bad()
		}
		r.to = position{kind: 'n', n: m}
	}
	return r, nil
}

// splitTimes reads T or T1:T2 or T:end. RFC 3339 holds colons of its own, so
// every colon is tried.
func splitTimes(s string, now time.Time) (from, to position, err error) {
	if ms, e := parseTime(s, now); e == nil {
		return position{'@', ms}, position{}, nil
	}
	for i := range s {
		if s[i] != ':' {
			continue
		}
		a, e := parseTime(s[:i], now)
		if e != nil {
			continue
		}
		if s[i+1:] == "end" {
			return position{'@', a}, position{kind: 'e'}, nil
		}
		if b, e := parseTime(s[i+1:], now); e == nil {
			return position{'@', a}, position{'@', b}, nil
		}
	}
	return position{}, position{}, fmt.Errorf("time %q: want milliseconds, RFC 3339 or a duration such as -1h", s)
}

func parseTime(s string, now time.Time) (int64, error) {
	if d, err := time.ParseDuration(s); err == nil && strings.HasPrefix(s, "-") {
		return now.Add(d).UnixMilli(), nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		return n, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00", time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UnixMilli(), nil
		}
	}
	return 0, fmt.Errorf("time %q", s)
}

// assign points the client at the partitions and returns where each one ends.
func assign(cmd *cobra.Command, cl *kgo.Client, adm *kadm.Client, topics []string, parts []int32, rng offsetRange, committed bool) (map[string]map[int32]int64, error) {
	ends := map[string]map[int32]int64{}
	starts, err := adm.ListStartOffsets(cmd.Context(), topics...)
	if err != nil {
		return nil, err
	}
	list := adm.ListEndOffsets
	if committed {
		list = adm.ListCommittedOffsets // nothing above the last stable offset would come
	}
	highs, err := list(cmd.Context(), topics...)
	if err != nil {
		return nil, err
	}
	var byTime kadm.ListedOffsets
	if rng.to.kind == '@' {
		if byTime, err = adm.ListOffsetsAfterMilli(cmd.Context(), rng.to.n, topics...); err != nil {
			return nil, err
		}
	}
	add := map[string]map[int32]kgo.Offset{}
	for _, t := range topics {
		for _, hi := range sortedPartitions(highs[t]) {
			if hi.Err != nil {
				return nil, explain(hi.Err, t)
			}
			if len(parts) > 0 && !contains(parts, hi.Partition) {
				continue
			}
			lo, _ := starts.Lookup(t, hi.Partition)
			end := int64(-1)
			switch rng.to.kind {
			case 'e':
				end = hi.Offset
			case 'n':
				end = min(rng.to.n, hi.Offset)
			case '@':
				if o, ok := byTime.Lookup(t, hi.Partition); ok && o.Err == nil {
					end = o.Offset
				}
			}
			from := rng.from.offset()
			if rng.from.kind == 'n' && rng.from.n < lo.Offset {
				from = kgo.NewOffset().At(lo.Offset)
			}
			if rng.hasEnd() {
				first := lo.Offset
				if rng.from.kind == 'n' {
					first = max(first, rng.from.n)
				}
				if end <= first {
					continue // nothing to read in this partition
				}
				if ends[t] == nil {
					ends[t] = map[int32]int64{}
				}
				ends[t][hi.Partition] = end
			}
			if add[t] == nil {
				add[t] = map[int32]kgo.Offset{}
			}
			add[t][hi.Partition] = from
		}
		if len(highs[t]) == 0 {
			return nil, fmt.Errorf("topic %s does not exist; `firn topic list` shows what does", t)
		}
	}
	cl.AddConsumePartitions(add)
	return ends, nil
}

func sortedPartitions(m map[int32]kadm.ListedOffset) []kadm.ListedOffset {
	out := make([]kadm.ListedOffset, 0, len(m))
	for i := int32(0); len(out) < len(m); i++ {
		if o, ok := m[i]; ok {
			out = append(out, o)
		}
		if i > 1<<20 {
			break
		}
	}
	return out
}

func contains(list []int32, x int32) bool {
	for _, v := range list {
		if v == x {
			return true
		}
	}
	return false
}

// recordJSON is the stable shape of a record. Bytes that are no UTF-8 come as
// base64 in the *_base64 field instead. Offset and timestamp are whole numbers of
// up to 64 bits.
type recordJSON struct {
	Topic     string       `json:"topic"`
	Partition int32        `json:"partition"`
	Offset    int64        `json:"offset"`
	Timestamp int64        `json:"timestamp"`
	Key       *string      `json:"key"`
	KeyB64    []byte       `json:"key_base64,omitempty"`
	Value     *string      `json:"value"`
	ValueB64  []byte       `json:"value_base64,omitempty"`
	Headers   []headerJSON `json:"headers,omitempty"`
}

type headerJSON struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// timeOf is the record's own timestamp. The client library keeps times as
// nanoseconds, in which those after the year 2262 (microseconds that were sent as
// milliseconds, say) lose their highest bits; 10^6 being 2^6 times an odd number,
// the 58 low bits of the milliseconds are still there. Beyond +-2^57 ms, four
// million years, what is shown is that remainder.
func timeOf(r *kgo.Record) time.Time {
	const inverse = 0x10fb65668c26139 // of 15,625, modulo 2^58
	return time.UnixMilli(int64(uint64(r.Timestamp.UnixNano())>>6*inverse<<6) >> 6)
}

func toJSON(r *kgo.Record) recordJSON {
	j := recordJSON{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp.UnixMilli()}
	text := func(b []byte) (*string, []byte) {
		if b == nil {
			return nil, nil
		}
		if !utf8.Valid(b) {
			return nil, b
		}
		s := string(b)
		return &s, nil
	}
	j.Key, j.KeyB64 = text(r.Key)
	j.Value, j.ValueB64 = text(r.Value)
	for _, h := range r.Headers {
		j.Headers = append(j.Headers, headerJSON{h.Key, string(h.Value)})
	}
	return j
}

// printRecords writes records until the count, the ends or idleness say stop.
func printRecords(cmd *cobra.Command, cl *kgo.Client, fmtr *kgo.RecordFormatter, ends map[string]map[int32]int64, bounded bool, limit int64, idle time.Duration, printed func(...*kgo.Record)) (err error) {
	out := bufio.NewWriterSize(cmd.OutOrStdout(), 1<<16)
	var unflushed []*kgo.Record
	flush := func() error {
		if err := out.Flush(); err != nil {
			return err
		}
		printed(unflushed...)
		unflushed = unflushed[:0]
		return nil
	}
	defer func() { err = errors.Join(err, flush()) }()
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	open := 0
	for _, m := range ends {
		open += len(m)
	}
	var seen int64
	var buf []byte
	last := time.Now()
	for {
		ctx, cancel := pollContext(cmd, idle)
		fetches := cl.PollFetches(ctx)
		cancel()
		if cmd.Context().Err() != nil {
			return nil // asked to stop
		}
		for _, fe := range fetches.Errors() {
			if ctx.Err() == nil {
				return explain(fe.Err, fe.Topic)
			}
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			r.Timestamp = timeOf(r)
			last = time.Now()
			if bounded {
				end, ok := ends[r.Topic][r.Partition]
				if !ok {
					continue
				}
				// The last record of the range may never come: it was aborted,
				// or compacted away. One behind it says so.
				if r.Offset >= end-1 {
					delete(ends[r.Topic], r.Partition)
					open--
				}
				if r.Offset >= end {
					continue
				}
			}
			if r.Attrs.IsControl() {
				continue
			}
			if fmtr == nil {
				if err := enc.Encode(toJSON(r)); err != nil {
					return err
				}
			} else {
				buf = fmtr.AppendRecord(buf[:0], r)
				if _, err := out.Write(buf); err != nil {
					return err
				}
			}
			unflushed = append(unflushed, r)
			if seen++; limit > 0 && seen >= limit {
				return nil
			}
		}
		if err := flush(); err != nil {
			return err
		}
		if bounded && open == 0 {
			return nil
		}
		if idle > 0 && time.Since(last) >= idle {
			return nil
		}
	}
}
