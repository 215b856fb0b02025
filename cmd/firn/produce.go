package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"
)

// newProduce is `firn topic produce`: one record a line of standard input.
func newProduce() *cobra.Command {
	c := &cobra.Command{
		Use: "produce TOPIC", Short: "Send one record a line of standard input", Args: cobra.ExactArgs(1),
		Example: "  firn topic produce orders -k customer-7 < orders.jsonl\n  firn topic produce orders -f '%k\\t%v\\n' < keyed.tsv",
	}
	key := c.Flags().StringP("key", "k", "", "key of every record")
	format := c.Flags().StringP("format", "f", "%v\n", "how a record is written in the input: %k key, %v value, %t topic, with their separators")
	part := c.Flags().Int32P("partition", "p", -1, "send to this partition")
	codec := c.Flags().StringP("compression", "z", "none", "none, gzip, snappy, lz4 or zstd")
	headers := c.Flags().StringArrayP("header", "H", nil, "KEY:VALUE for every record, repeatable")
	acks := c.Flags().Int("acks", -1, "-1 for all in-sync replicas, 1 for the leader, 0 for none")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		opts := []kgo.Opt{kgo.DefaultProduceTopic(args[0]), kgo.AllowAutoTopicCreation(), kgo.ProducerLinger(5 * time.Millisecond)}
		codecs := map[string]kgo.CompressionCodec{
			"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
			"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
		}
		cc, ok := codecs[*codec]
		if !ok {
			return usageError("-z %q: want none, gzip, snappy, lz4 or zstd", *codec)
		}
		opts = append(opts, kgo.ProducerBatchCompression(cc))
		switch *acks {
		case -1:
		case 1:
			opts = append(opts, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
		case 0:
			opts = append(opts, kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite())
		default:
			return usageError("--acks %d: want -1, 0 or 1", *acks)
		}
		if *part >= 0 {
			opts = append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))
		}
		var hs []kgo.RecordHeader
		for _, h := range *headers {
			k, v, ok := strings.Cut(h, ":")
			if !ok {
				return usageError("-H %q: want KEY:VALUE", h)
			}
			hs = append(hs, kgo.RecordHeader{Key: k, Value: []byte(v)})
		}
		reader, err := kgo.NewRecordReader(bufio.NewReaderSize(cmd.InOrStdin(), 1<<20), unescape(*format))
		if err != nil {
			return usageError("-f %q: %w", *format, err)
		}
		cl, _, err := connect(cmd, opts...)
		if err != nil {
			return err
		}
		defer cl.Close()
		var sent, bytes atomic.Int64
		failed := make(chan error, 1)
		bar, begin := newProgress(cmd), time.Now()
		ctx, cancel := context.WithCancel(cmd.Context())
		defer cancel()
		for ctx.Err() == nil {
			r, err := reader.ReadRecord()
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			if err != nil {
				return fmt.Errorf("read record %d: %w", sent.Load()+1, err)
			}
			if *key != "" {
				r.Key = []byte(*key)
			}
			r.Partition, r.Headers = *part, append(r.Headers, hs...)
			cl.Produce(ctx, r, func(r *kgo.Record, err error) {
				if err != nil {
					select {
					case failed <- err:
						cancel()
					default:
					}
					return
				}
				bytes.Add(int64(len(r.Value) + len(r.Key)))
				if n := sent.Add(1); n%10000 == 0 {
					s := time.Since(begin).Seconds()
					bar.show("%d records, %s, %.0f records/s", n, humanBytes(bytes.Load()), float64(n)/s)
				}
			})
		}
		flushErr := cl.Flush(cmd.Context())
		bar.done()
		select {
		case err := <-failed:
			return fmt.Errorf("after %d acknowledged records: %w", sent.Load(), explain(err, args[0]))
		default:
		}
		if flushErr != nil {
			return flushErr
		}
		out := struct {
			Topic   string `json:"topic"`
			Records int64  `json:"records"`
			Bytes   int64  `json:"bytes"`
		}{args[0], sent.Load(), bytes.Load()}
		// The answer of produce is its count; it goes to stderr in text so that
		// the command can stand at the end of a pipe in silence.
		if o, _ := cmd.Flags().GetString("output"); o == "json" {
			return emit(cmd, out, nil)
		}
		fmt.Fprintf(os.Stderr, "%d records acknowledged\n", out.Records)
		return nil
	}
	return c
}

// unescape turns the \n and \t that a shell passes literally into bytes.
func unescape(s string) string {
	return strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\0`, "\x00").Replace(s)
}
