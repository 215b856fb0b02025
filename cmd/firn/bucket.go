package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/objectstore/open"
	"github.com/firnlog/firn/tiering/format"
)

// newBucket is what can be said of a bucket without any broker.
func newBucket() *cobra.Command {
	c := folder("bucket", "Look into the bucket, with the brokers on or off", bucketLs())
	c.PersistentFlags().String("bucket", os.Getenv("FIRN_BUCKET"), "file:///PATH or s3://BUCKET/PREFIX?endpoint=..., as firn up takes it (FIRN_BUCKET)")
	c.PersistentFlags().String("cluster", cmp.Or(os.Getenv("FIRN_CLUSTER"), defaultCluster), "name of the cluster (FIRN_CLUSTER)")
	return c
}

type bucketTopic struct {
	Topic      string            `json:"topic"`
	ID         string            `json:"topic_id"`
	State      string            `json:"state"`
	Objects    int64             `json:"objects"`
	Bytes      int64             `json:"bytes"`
	Stored     int64             `json:"stored_bytes"`
	Partitions []bucketPartition `json:"partitions"`
}

type bucketPartition struct {
	Partition  int32          `json:"partition"`
	LogStart   int64          `json:"log_start_offset"`
	End        int64          `json:"tiered_up_to_offset"`
	Epoch      int32          `json:"leader_epoch"`
	Generation uint64         `json:"generation"`
	Objects    int64          `json:"objects"`
	Bytes      int64          `json:"bytes"`
	Stored     int64          `json:"stored_bytes"`
	Buried     int            `json:"buried"`
	Named      []bucketObject `json:"named,omitempty"`
}

type bucketObject struct {
	Key   string `json:"key"`
	Base  int64  `json:"base_offset"`
	End   int64  `json:"end_offset"`
	Epoch int32  `json:"leader_epoch"`
	Bytes int64  `json:"bytes"`
	MinTs int64  `json:"min_timestamp_ms"`
	MaxTs int64  `json:"max_timestamp_ms"`
	CRC   string `json:"crc32c"`
}

func bucketLs() *cobra.Command {
	c := &cobra.Command{
		Use: "ls [TOPIC]", Short: "List topics, or one topic's partitions and objects, from their manifests", Args: cobra.MaximumNArgs(1),
		Example: "  firn bucket ls --bucket file://$PWD/firn-data/bucket\n  firn bucket ls orders --objects",
	}
	objects := c.Flags().Bool("objects", false, "name every object")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		url, _ := cmd.Flags().GetString("bucket")
		cluster, _ := cmd.Flags().GetString("cluster")
		if url == "" {
			return usageError("name the bucket: --bucket URL or FIRN_BUCKET; that of `firn up` without --bucket is file://<data-dir>/bucket")
		}
		b, err := open.Open(cmd.Context(), url, open.Options{SkipProbe: true})
		if err != nil {
			return err
		}
		defer b.Close()
		data, _, err := b.Get(cmd.Context(), format.ClusterKey(cluster))
		if errors.Is(err, objectstore.ErrNotFound) {
			return fmt.Errorf("%s has no cluster named %s; --cluster names another", b.Name(), cluster)
		}
		if err != nil {
			return err
		}
		if _, err := format.DecodeCluster(data); err != nil {
			return err
		}
		only := ""
		if len(args) == 1 {
			only = args[0]
		}
		topics, err := readTopics(cmd.Context(), b, cluster, only, *objects)
		if err != nil {
			return err
		}
		if only != "" && len(topics) == 0 {
			return fmt.Errorf("%s has no topic %s; `firn bucket ls` lists those it has", b.Name(), only)
		}
		return emit(cmd, topics, func(w *tabular) { printTopics(w, topics, only != "", *objects) })
	}
	return c
}

// readTopics reads topic.json and the heads of each topic. Two topics may have
// the same name: one of them is being deleted.
func readTopics(ctx context.Context, b objectstore.Bucket, cluster, only string, objects bool) ([]bucketTopic, error) {
	topics := []bucketTopic{}
	for info, err := range b.List(ctx, cluster+"/topics/") {
		if err != nil {
			return nil, err
		}
		if !strings.HasSuffix(info.Key, "/"+format.TopicName) {
			continue
		}
		data, _, err := b.Get(ctx, info.Key)
		if err != nil {
			return nil, err
		}
		t, err := format.DecodeTopic(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", info.Key, err)
		}
		if only != "" && t.Name != only {
			continue
		}
		out := bucketTopic{Topic: t.Name, ID: t.ID, State: t.State, Partitions: []bucketPartition{}}
		for p := range t.Partitions {
			bp, ok, err := readPartition(ctx, b, format.PartitionFolder(cluster, t.ID, p), p, objects)
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			out.Objects, out.Bytes, out.Stored = out.Objects+bp.Objects, out.Bytes+bp.Bytes, out.Stored+bp.Stored
			out.Partitions = append(out.Partitions, bp)
		}
		topics = append(topics, out)
	}
	return topics, nil
}

func readPartition(ctx context.Context, b objectstore.Bucket, folder string, n int32, objects bool) (bucketPartition, bool, error) {
	data, _, err := b.Get(ctx, folder+format.HeadName)
	if errors.Is(err, objectstore.ErrNotFound) {
		return bucketPartition{}, false, nil
	}
	if err != nil {
		return bucketPartition{}, false, err
	}
	h, err := format.DecodeHead(data)
	if err != nil {
		return bucketPartition{}, false, fmt.Errorf("%s: %w", folder+format.HeadName, err)
	}
	p := bucketPartition{Partition: n, LogStart: h.LogStart, End: h.End, Epoch: h.Epoch, Generation: h.Generation, Buried: len(h.Graves)}
	name := func(e *format.Entry) {
		if !objects {
			return
		}
		key := e.Key
		if key == "" {
			key = folder + e.Name()
		}
		p.Named = append(p.Named, bucketObject{key, e.Base, e.End, e.Epoch, e.Bytes, e.MinTs, e.MaxTs, fmt.Sprintf("%08x", e.CRC)})
	}
	for i := range h.Parts {
		r := &h.Parts[i]
		p.Objects, p.Bytes, p.Stored = p.Objects+r.Count, p.Bytes+r.Bytes, p.Stored+r.Stored
		if !objects {
			continue
		}
		data, _, err := b.Get(ctx, folder+r.Name())
		if err != nil {
			return p, false, err
		}
		part, err := format.DecodePart(data)
		if err != nil {
			return p, false, fmt.Errorf("%s: %w", folder+r.Name(), err)
		}
		for j := range part.Entries {
			name(&part.Entries[j])
		}
	}
	for i := range h.Entries {
		e := &h.Entries[i]
		p.Objects, p.Bytes, p.Stored = p.Objects+1, p.Bytes+e.Bytes, p.Stored+e.Size
		name(e)
	}
	return p, true, nil
}

func printTopics(w *tabular, topics []bucketTopic, partitions, objects bool) {
	if objects {
		w.row("TOPIC", "PARTITION", "OFFSETS", "EPOCH", "BYTES", "CRC32C", "KEY")
		for _, t := range topics {
			for _, p := range t.Partitions {
				for _, o := range p.Named {
					w.row(t.Topic, p.Partition, fmt.Sprintf("[%d, %d)", o.Base, o.End), o.Epoch, humanBytes(o.Bytes), o.CRC, o.Key)
				}
			}
		}
		return
	}
	if partitions {
		w.row("TOPIC", "PARTITION", "LOG START", "TIERED UP TO", "OBJECTS", "BYTES", "BURIED", "EPOCH", "GENERATION")
		for _, t := range topics {
			for _, p := range t.Partitions {
				w.row(t.Topic, p.Partition, p.LogStart, p.End, p.Objects, humanBytes(p.Bytes), p.Buried, p.Epoch, p.Generation)
			}
		}
		return
	}
	w.row("TOPIC", "STATE", "PARTITIONS", "OBJECTS", "BYTES", "TOPIC ID")
	for _, t := range topics {
		w.row(t.Topic, t.State, len(t.Partitions), t.Objects, humanBytes(t.Bytes), t.ID)
	}
}
