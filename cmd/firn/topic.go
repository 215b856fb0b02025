package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

func newTopic() *cobra.Command {
	return folder("topic", "Create, look at, change, fill and read topics",
		topicCreate(), topicList(), topicDescribe(), topicDelete(), topicAlterConfig(),
		topicAddPartitions(), topicTrimPrefix(), newProduce(), newConsume(), newStorage())
}

// configArgs reads repeated KEY=VALUE.
func configArgs(list []string) (map[string]*string, error) {
	m := make(map[string]*string, len(list))
	for _, kv := range list {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, usageError("-c %q: want KEY=VALUE", kv)
		}
		m[k] = &v
	}
	return m, nil
}

type topicResult struct {
	Topic      string `json:"topic"`
	TopicID    string `json:"topic_id,omitempty"`
	Partitions int32  `json:"partitions,omitempty"`
	Replicas   int16  `json:"replicas,omitempty"`
	Error      string `json:"error,omitempty"`
}

// emitTopics prints one result a topic, by name, and fails when any of them failed.
func emitTopics(cmd *cobra.Command, done string, results []topicResult) error {
	slices.SortFunc(results, func(a, b topicResult) int { return strings.Compare(a.Topic, b.Topic) })
	err := emit(cmd, results, func(w *tabular) {
		for _, r := range results {
			if r.Error == "" {
				w.row(r.Topic, done)
			} else {
				w.row(r.Topic, r.Error)
			}
		}
	})
	for _, r := range results {
		if r.Error != "" {
			return errors.Join(err, fmt.Errorf("%s: %s", r.Topic, r.Error))
		}
	}
	return err
}

func topicCreate() *cobra.Command {
	c := &cobra.Command{
		Use: "create NAME...", Short: "Create topics", Args: cobra.MinimumNArgs(1),
		Example: "  firn topic create orders -p 6 -c retention.ms=604800000",
	}
	parts := c.Flags().Int32P("partitions", "p", -1, "partitions of each topic; -1 is the broker's default")
	repl := c.Flags().Int16P("replicas", "r", -1, "replicas of each partition; -1 is the broker's default")
	conf := c.Flags().StringArrayP("config", "c", nil, "KEY=VALUE, repeatable")
	dry := c.Flags().Bool("dry-run", false, "only check")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		configs, err := configArgs(*conf)
		if err != nil {
			return err
		}
		cl, adm, err := connect(cmd)
		if err != nil {
			return err
		}
		defer cl.Close()
		create := adm.CreateTopics
		if *dry {
			create = adm.ValidateCreateTopics
		}
		resp, err := create(cmd.Context(), *parts, *repl, configs, args...)
		if err != nil {
			return err
		}
		var results []topicResult
		for _, r := range resp {
			t := topicResult{Topic: r.Topic, Partitions: r.NumPartitions, Replicas: r.ReplicationFactor}
			if r.ID != (kadm.TopicID{}) {
				t.TopicID = r.ID.String()
			}
			if r.Err != nil {
				t.Error = withMessage(explain(r.Err, r.Topic), r.ErrMessage).Error()
			}
			results = append(results, t)
		}
		return emitTopics(cmd, "created", results)
	}
	return c
}

func topicList() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List topics", Args: cobra.NoArgs}
	internal := c.Flags().BoolP("internal", "i", false, "internal topics too")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		cl, adm, err := connect(cmd)
		if err != nil {
			return err
		}
		defer cl.Close()
		list := adm.ListTopics
		if *internal {
			list = adm.ListTopicsWithInternal
		}
		topics, err := list(cmd.Context())
		if err != nil {
			return err
		}
		type row struct {
			Topic      string `json:"topic"`
			TopicID    string `json:"topic_id"`
			Partitions int    `json:"partitions"`
			Replicas   int    `json:"replicas"`
			Internal   bool   `json:"internal"`
		}
		rows := []row{}
		for _, t := range topics.Sorted() {
			rows = append(rows, row{t.Topic, t.ID.String(), len(t.Partitions), t.Partitions.NumReplicas(), t.IsInternal})
		}
		return emit(cmd, rows, func(w *tabular) {
			w.row("TOPIC", "PARTITIONS", "REPLICAS")
			for _, r := range rows {
				w.row(r.Topic, r.Partitions, r.Replicas)
			}
		})
	}
	return c
}

type partitionRow struct {
	Partition   int32   `json:"partition"`
	Leader      int32   `json:"leader"`
	LeaderEpoch int32   `json:"leader_epoch"`
	Replicas    []int32 `json:"replicas"`
	ISR         []int32 `json:"isr"`
	LogStart    int64   `json:"log_start_offset"`
	End         int64   `json:"high_watermark"`
}

type configRow struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Source string `json:"source"`
}

type topicDescription struct {
	Topic      string         `json:"topic"`
	TopicID    string         `json:"topic_id"`
	Internal   bool           `json:"internal"`
	Partitions []partitionRow `json:"partitions"`
	Configs    []configRow    `json:"configs"`
}

func topicDescribe() *cobra.Command {
	c := &cobra.Command{Use: "describe NAME...", Short: "Partitions, offsets and configuration of topics", Args: cobra.MinimumNArgs(1)}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		cl, adm, err := connect(cmd)
		if err != nil {
			return err
		}
		defer cl.Close()
		out := []topicDescription{}
		for _, name := range args {
			d, err := describeTopic(cmd, adm, name)
			if err != nil {
				return err
			}
			out = append(out, d)
		}
		return emit(cmd, out, func(w *tabular) {
			for _, d := range out {
				w.line("topic %s  id %s", d.Topic, d.TopicID)
				w.row("PARTITION", "LEADER", "EPOCH", "REPLICAS", "ISR", "LOG START", "HIGH WATERMARK")
				for _, p := range d.Partitions {
					w.row(p.Partition, p.Leader, p.LeaderEpoch, p.Replicas, p.ISR, p.LogStart, p.End)
				}
				w.row("CONFIG", "VALUE", "SOURCE")
				for _, kv := range d.Configs {
					w.row(kv.Key, kv.Value, kv.Source)
				}
			}
		})
	}
	return c
}

func describeTopic(cmd *cobra.Command, adm *kadm.Client, name string) (topicDescription, error) {
	topics, err := adm.ListTopicsWithInternal(cmd.Context(), name)
	if err != nil {
		return topicDescription{}, err
	}
	t, ok := topics[name]
	if !ok {
		return topicDescription{}, explain(kerr.UnknownTopicOrPartition, name)
	}
	if t.Err != nil {
		return topicDescription{}, explain(t.Err, name)
	}
	starts, err := adm.ListStartOffsets(cmd.Context(), name)
	if err != nil {
		return topicDescription{}, explain(err, name)
	}
	ends, err := adm.ListEndOffsets(cmd.Context(), name)
	if err != nil {
		return topicDescription{}, explain(err, name)
	}
	d := topicDescription{Topic: name, TopicID: t.ID.String(), Internal: t.IsInternal, Partitions: []partitionRow{}, Configs: []configRow{}}
	for _, p := range t.Partitions.Sorted() {
		r := partitionRow{Partition: p.Partition, Leader: p.Leader, LeaderEpoch: p.LeaderEpoch, Replicas: p.Replicas, ISR: p.ISR, LogStart: -1, End: -1}
		if o, ok := starts.Lookup(name, p.Partition); ok && o.Err == nil {
			r.LogStart = o.Offset
		}
		if o, ok := ends.Lookup(name, p.Partition); ok && o.Err == nil {
			r.End = o.Offset
		}
		d.Partitions = append(d.Partitions, r)
	}
	rcs, err := adm.DescribeTopicConfigs(cmd.Context(), name)
	if err != nil {
		return topicDescription{}, err
	}
	for _, rc := range rcs {
		if rc.Err != nil {
			return topicDescription{}, explain(rc.Err, name)
		}
		for _, kv := range rc.Configs {
			d.Configs = append(d.Configs, configRow{kv.Key, kv.MaybeValue(), kv.Source.String()})
		}
	}
	slices.SortFunc(d.Configs, func(a, b configRow) int { return strings.Compare(a.Key, b.Key) })
	return d, nil
}

func topicDelete() *cobra.Command {
	c := &cobra.Command{Use: "delete NAME...", Short: "Delete topics with all their data, hot and cold", Args: cobra.MinimumNArgs(1)}
	yes := c.Flags().BoolP("yes", "y", false, "do not ask")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := confirm(cmd, *yes, "delete "+strings.Join(args, ", ")+" and all its data, on disk and in the bucket"); err != nil {
			return err
		}
		cl, adm, err := connect(cmd)
		if err != nil {
			return err
		}
		defer cl.Close()
		resp, err := adm.DeleteTopics(cmd.Context(), args...)
		if err != nil {
			return err
		}
		var results []topicResult
		for _, r := range resp {
			t := topicResult{Topic: r.Topic}
			if r.Err != nil {
				t.Error = explain(r.Err, r.Topic).Error()
			}
			results = append(results, t)
		}
		return emitTopics(cmd, "deleted", results)
	}
	return c
}

// confirm asks on the terminal unless yes; without one it refuses.
func confirm(cmd *cobra.Command, yes bool, what string) error {
	if yes {
		return nil
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s? type yes: ", what)
	var answer string
	if _, err := fmt.Fscanln(cmd.InOrStdin(), &answer); err != nil || answer != "yes" {
		return usageError("not confirmed; add -y to do it without asking")
	}
	return nil
}

func topicAlterConfig() *cobra.Command {
	c := &cobra.Command{
		Use: "alter-config NAME...", Short: "Set or unset a topic's configuration", Args: cobra.MinimumNArgs(1),
		Example: "  firn topic alter-config orders --set local.retention.ms=3600000 --unset segment.bytes",
	}
	set := c.Flags().StringArrayP("set", "s", nil, "KEY=VALUE, repeatable")
	unset := c.Flags().StringArrayP("unset", "u", nil, "KEY back to its default, repeatable")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		values, err := configArgs(*set)
		if err != nil {
			return err
		}
		var changes []kadm.AlterConfig
		for k, v := range values {
			changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: k, Value: v})
		}
		for _, k := range *unset {
			changes = append(changes, kadm.AlterConfig{Op: kadm.DeleteConfig, Name: k})
		}
		if len(changes) == 0 {
			return usageError("nothing to change: give --set KEY=VALUE or --unset KEY")
		}
		cl, adm, err := connect(cmd)
		if err != nil {
			return err
		}
		defer cl.Close()
		resp, err := adm.AlterTopicConfigs(cmd.Context(), changes, args...)
		if err != nil {
			return err
		}
		var results []topicResult
		for _, r := range resp {
			t := topicResult{Topic: r.Name}
			if r.Err != nil {
				t.Error = withMessage(explain(r.Err, r.Name), r.ErrMessage).Error()
			}
			results = append(results, t)
		}
		return emitTopics(cmd, "altered", results)
	}
	return c
}

func topicAddPartitions() *cobra.Command {
	c := &cobra.Command{Use: "add-partitions NAME...", Short: "Add partitions to topics", Args: cobra.MinimumNArgs(1)}
	num := c.Flags().IntP("num", "n", 0, "how many to add to each topic")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if *num <= 0 {
			return usageError("-n %d: give the number of partitions to add", *num)
		}
		cl, adm, err := connect(cmd)
		if err != nil {
			return err
		}
		defer cl.Close()
		resp, err := adm.CreatePartitions(cmd.Context(), *num, args...)
		if err != nil {
			return err
		}
		var results []topicResult
		for _, r := range resp {
			t := topicResult{Topic: r.Topic}
			if r.Err != nil {
				t.Error = withMessage(explain(r.Err, r.Topic), r.ErrMessage).Error()
			}
			results = append(results, t)
		}
		return emitTopics(cmd, "partitions added", results)
	}
	return c
}

func topicTrimPrefix() *cobra.Command {
	c := &cobra.Command{
		Use: "trim-prefix NAME", Short: "Raise the log start: records below the offset are gone, hot and cold", Args: cobra.ExactArgs(1),
		Example: "  firn topic trim-prefix orders --offset 5000 -p 0 -p 1\n  firn topic trim-prefix orders --offset end",
	}
	offset := c.Flags().StringP("offset", "O", "", "first offset to keep, or end for the high watermark")
	parts := c.Flags().Int32SliceP("partitions", "p", nil, "only these partitions (default all)")
	yes := c.Flags().BoolP("yes", "y", false, "do not ask")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		at := int64(-1)
		if *offset != "end" {
			var err error
			if at, err = strconv.ParseInt(*offset, 10, 64); err != nil || at < 0 {
				return usageError("--offset %q: want an offset or end", *offset)
			}
		}
		if err := confirm(cmd, *yes, fmt.Sprintf("drop every record of %s below %s", args[0], *offset)); err != nil {
			return err
		}
		cl, adm, err := connect(cmd)
		if err != nil {
			return err
		}
		defer cl.Close()
		ends, err := adm.ListEndOffsets(cmd.Context(), args[0])
		if err != nil {
			return explain(err, args[0])
		}
		all, err := listed(ends, args[0])
		if err != nil {
			return err
		}
		if all, err = choose(args[0], all, *parts); err != nil {
			return err
		}
		var want kadm.Offsets
		for _, p := range all {
			want.AddOffset(p.Topic, p.Partition, at, -1)
		}
		resp, err := adm.DeleteRecords(cmd.Context(), want)
		if err != nil {
			return explain(err, args[0])
		}
		type row struct {
			Partition int32  `json:"partition"`
			LogStart  int64  `json:"log_start_offset"`
			Error     string `json:"error,omitempty"`
		}
		rows, failed := []row{}, error(nil)
		for _, r := range resp.Sorted() {
			x := row{Partition: r.Partition, LogStart: r.LowWatermark}
			if r.Err != nil {
				x.Error = explain(r.Err, args[0]).Error()
				failed = fmt.Errorf("%s-%d: %s", args[0], r.Partition, x.Error)
			}
			rows = append(rows, x)
		}
		return errors.Join(emit(cmd, rows, func(w *tabular) {
			w.row("PARTITION", "LOG START", "ERROR")
			for _, r := range rows {
				w.row(r.Partition, r.LogStart, r.Error)
			}
		}), failed)
	}
	return c
}
