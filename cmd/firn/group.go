package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
)

func newGroup() *cobra.Command {
	return folder("group", "Look at consumer groups", groupList(), groupDescribe())
}

func groupList() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List consumer groups", Args: cobra.NoArgs}
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		cl, adm, err := connect(cmd)
		if err != nil {
			return err
		}
		defer cl.Close()
		groups, err := adm.ListGroups(cmd.Context())
		if err != nil {
			return err
		}
		type row struct {
			Group       string `json:"group"`
			State       string `json:"state"`
			Coordinator int32  `json:"coordinator"`
			Protocol    string `json:"protocol_type"`
		}
		rows := []row{}
		for _, g := range groups.Sorted() {
			rows = append(rows, row{g.Group, g.State, g.Coordinator, g.ProtocolType})
		}
		return emit(cmd, rows, func(w *tabular) {
			w.row("GROUP", "STATE", "COORDINATOR")
			for _, r := range rows {
				w.row(r.Group, r.State, r.Coordinator)
			}
		})
	}
	return c
}

type groupLag struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Committed int64  `json:"committed_offset"`
	End       int64  `json:"end_offset"`
	Lag       int64  `json:"lag"`
	Member    string `json:"member_id"`
	Client    string `json:"client_id"`
	Host      string `json:"host"`
}

type groupDescription struct {
	Group       string     `json:"group"`
	State       string     `json:"state"`
	Protocol    string     `json:"protocol"`
	Coordinator int32      `json:"coordinator"`
	Members     int        `json:"members"`
	Lag         int64      `json:"lag"`
	Partitions  []groupLag `json:"partitions"`
}

func groupDescribe() *cobra.Command {
	c := &cobra.Command{Use: "describe GROUP...", Short: "Members, committed offsets and lag", Args: cobra.MinimumNArgs(1)}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		cl, adm, err := connect(cmd)
		if err != nil {
			return err
		}
		defer cl.Close()
		lags, err := adm.Lag(cmd.Context(), args...)
		if err != nil {
			return err
		}
		out := []groupDescription{}
		var failed error
		for _, l := range lags.Sorted() {
			if e := l.Error(); errors.Is(e, kerr.GroupIDNotFound) || e == nil && l.State == "Dead" && len(l.Lag) == 0 {
				failed = errors.Join(failed, fmt.Errorf("group %s does not exist; `firn group list` shows what does", l.Group))
				continue
			} else if e != nil {
				failed = errors.Join(failed, fmt.Errorf("group %s: %w", l.Group, e))
				continue
			}
			d := groupDescription{Group: l.Group, State: l.State, Protocol: l.Protocol, Coordinator: l.Coordinator.NodeID, Members: len(l.Members), Lag: l.Lag.Total(), Partitions: []groupLag{}}
			for _, p := range l.Lag.Sorted() {
				g := groupLag{Topic: p.Topic, Partition: p.Partition, Committed: p.Commit.At, End: p.End.Offset, Lag: p.Lag}
				if p.Member != nil {
					g.Member, g.Client, g.Host = p.Member.MemberID, p.Member.ClientID, p.Member.ClientHost
				}
				d.Partitions = append(d.Partitions, g)
			}
			out = append(out, d)
		}
		return errors.Join(emit(cmd, out, func(w *tabular) {
			for _, d := range out {
				w.line("group %s  state %s  members %d  lag %d", d.Group, d.State, d.Members, d.Lag)
				w.row("TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "CLIENT", "HOST")
				for _, p := range d.Partitions {
					w.row(p.Topic, p.Partition, p.Committed, p.End, p.Lag, p.Client, p.Host)
				}
			}
		}), failed)
	}
	return c
}
