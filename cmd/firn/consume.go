package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"
)

// newConsume is `firn topic consume`. Offsets follow rpk's grammar (parseRange).
func newConsume() *cobra.Command {
	c := &cobra.Command{
		Use: "consume TOPIC...", Short: "Read records, from either tier", Args: cobra.MinimumNArgs(1),
		Example: "  firn topic consume orders -O start -n 10\n  firn topic consume orders -O @-1h:end -f '%p %o %k %v\\n'\n  firn topic consume orders -g billing",
	}
	offset := c.Flags().StringP("offset", "O", "start", "where to read: start, end, :end, N, N1-N2, N:end, +N, -N, @T, @T1:T2, @T:end; a second end is exclusive")
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
		slices.Sort(args)
		args = slices.Compact(args)
		var opts []kgo.Opt
		if *group != "" {
			if len(*parts) > 0 || rng.hasEnd() {
				return usageError("-g reads whole topics without an end: leave out -p and the end of -O")
			}
			opts = []kgo.Opt{kgo.ConsumerGroup(*group), kgo.ConsumeTopics(args...), kgo.ConsumeResetOffset(rng.from.offset()), kgo.AutoCommitMarks(), kgo.FetchMaxWait(fetchWait)}
			if *committed {
				opts = append(opts, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
			}
		}
		cl, adm, err := connect(cmd, opts...)
		if err != nil {
			return err
		}
		defer cl.Close()
		r := newReader(cl, adm, *committed, func(msg string) { fmt.Fprintln(cmd.ErrOrStderr(), msg) })
		if *group == "" {
			spans, err := resolve(cmd.Context(), adm, args, *parts, rng, *committed)
			if err != nil {
				return err
			}
			r.begin(spans)
			return printRecords(cmd, r, fmtr, *num, *idle, func(...*kgo.Record) {})
		}
		for _, t := range args { // a group would wait for a missing topic for ever
			if _, err := r.leader(cmd.Context(), t, 0); err != nil {
				return err
			}
		}
		// What is committed is what was printed, no record more.
		err = printRecords(cmd, member{cl, r}, fmtr, *num, *idle, cl.MarkCommitRecords)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), 10*time.Second)
		defer cancel()
		if cerr := cl.CommitMarkedOffsets(ctx); cerr != nil {
			err = errors.Join(err, fmt.Errorf("commit of group %s: %w", *group, cerr))
		}
		return err
	}
	return c
}

// source is where records come from: a reader, or a member of a group.
type source interface {
	// poll returns what is there, or what comes within wait.
	poll(ctx context.Context, wait time.Duration) ([]*kgo.Record, error)
	// done says that nothing can come any more.
	done() bool
}

// member reads as a member of a group.
type member struct {
	cl *kgo.Client
	r  *reader
}

func (m member) done() bool { return false }

func (m member) poll(ctx context.Context, wait time.Duration) (records []*kgo.Record, err error) {
	wctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	fetches := m.cl.PollFetches(wctx)
	for _, fe := range fetches.Errors() {
		if wctx.Err() == nil {
			return nil, explain(fe.Err, fe.Topic)
		}
	}
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if err == nil {
			err = m.r.retime(ctx, p.Records)
			records = append(records, p.Records...)
		}
	})
	return records, err
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

// headerJSON is one header, whose value may be null as a record's.
type headerJSON struct {
	Key      *string `json:"key"`
	KeyB64   []byte  `json:"key_base64,omitempty"`
	Value    *string `json:"value"`
	ValueB64 []byte  `json:"value_base64,omitempty"`
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
		var x headerJSON
		x.Key, x.KeyB64 = text([]byte(h.Key))
		x.Value, x.ValueB64 = text(h.Value)
		j.Headers = append(j.Headers, x)
	}
	return j
}

// printRecords writes records until the count, the source or idleness say stop.
func printRecords(cmd *cobra.Command, src source, fmtr *kgo.RecordFormatter, limit int64, idle time.Duration, printed func(...*kgo.Record)) (err error) {
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
	wait := fetchWait
	if idle > 0 {
		wait = max(min(wait, idle), time.Millisecond)
	}
	var seen int64
	var buf []byte
	last := time.Now()
	for !src.done() {
		records, err := src.poll(cmd.Context(), wait)
		if cmd.Context().Err() != nil {
			return nil // asked to stop
		}
		for _, r := range records {
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
		if err != nil {
			return err
		}
		if err := flush(); err != nil {
			return err
		}
		if len(records) > 0 {
			last = time.Now()
		}
		if idle > 0 && time.Since(last) >= idle {
			return nil
		}
	}
	return nil
}
