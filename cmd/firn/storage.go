package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

func newStorage() *cobra.Command {
	return folder("storage", "Where a topic's records are", storageDescribe())
}

// storageRow is where one partition's records are. Offsets come from ListOffsets
// (KIP-405, KIP-1005, KIP-1023), bytes from DescribeLogDirs, so the command works
// against any broker that serves those.
type storageRow struct {
	Partition     int32 `json:"partition"`
	LogStart      int64 `json:"log_start_offset"`
	LocalStart    int64 `json:"local_start_offset"`
	TieredUpTo    int64 `json:"tiered_up_to_offset"`
	PendingUpload int64 `json:"pending_upload_offset"`
	End           int64 `json:"end_offset"`
	HotBytes      int64 `json:"hot_bytes"`
	ColdBytes     int64 `json:"cold_bytes"`
}

type storageDescription struct {
	Topic      string       `json:"topic"`
	Bucket     string       `json:"bucket"`
	HotBytes   int64        `json:"hot_bytes"`
	ColdBytes  int64        `json:"cold_bytes"`
	Partitions []storageRow `json:"partitions"`
}

func storageDescribe() *cobra.Command {
	c := &cobra.Command{
		Use: "describe TOPIC", Aliases: []string{"describe-storage"}, Args: cobra.ExactArgs(1),
		Short: "Log start, local start, tiered end and log end; bytes on disk and in the bucket",
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		cl, adm, err := connect(cmd)
		if err != nil {
			return err
		}
		defer cl.Close()
		d, err := describeStorage(cmd.Context(), adm, args[0])
		if err != nil {
			return err
		}
		return emit(cmd, d, func(w *tabular) {
			w.line("topic %s  hot %s  cold %s  bucket %s", d.Topic, humanBytes(d.HotBytes), humanBytes(d.ColdBytes), d.Bucket)
			w.row("PARTITION", "LOG START", "LOCAL START", "TIERED UP TO", "END", "HOT", "COLD")
			for _, r := range d.Partitions {
				w.row(r.Partition, r.LogStart, r.LocalStart, r.TieredUpTo, r.End, humanBytes(r.HotBytes), humanBytes(r.ColdBytes))
			}
		})
	}
	return c
}

func describeStorage(ctx context.Context, adm *kadm.Client, topic string) (storageDescription, error) {
	d := storageDescription{Topic: topic, Partitions: []storageRow{}}
	at := map[string]kadm.ListedOffsets{}
	for _, q := range []struct {
		name string
		ms   int64
	}{{"start", -2}, {"end", -1}, {"local", -4}, {"tiered", -5}, {"pending", -6}} {
		l, err := adm.ListOffsetsAfterMilli(ctx, q.ms, topic)
		if err != nil {
			return d, explain(err, topic)
		}
		at[q.name] = l
	}
	ends, err := listed(at["end"], topic)
	if err != nil {
		return d, err
	}
	for _, p := range ends {
		get := func(name string) int64 {
			if o, ok := at[name].Lookup(topic, p.Partition); ok && o.Err == nil {
				return o.Offset
			}
			return -1
		}
		r := storageRow{Partition: p.Partition, LogStart: get("start"), LocalStart: get("local"), TieredUpTo: get("tiered"), PendingUpload: get("pending"), End: p.Offset}
		if r.TieredUpTo >= 0 {
			r.TieredUpTo++ // -5 names the last tiered offset; this column is exclusive like the others
		}
		d.Partitions = append(d.Partitions, r)
	}
	dirs, err := adm.DescribeAllLogDirs(ctx, nil)
	if err != nil {
		return d, err
	}
	dirs.Each(func(dir kadm.DescribedLogDir) {
		bucket, cold := strings.CutPrefix(dir.Dir, "remote://")
		if cold {
			d.Bucket = bucket
		}
		dir.Topics.Each(func(p kadm.DescribedLogDirPartition) {
			for i := range d.Partitions {
				if d.Partitions[i].Partition != p.Partition || p.Topic != topic {
					continue
				}
				if cold {
					d.Partitions[i].ColdBytes += p.Size
					d.ColdBytes += p.Size
				} else {
					d.Partitions[i].HotBytes += p.Size
					d.HotBytes += p.Size
				}
			}
		})
	})
	return d, nil
}
