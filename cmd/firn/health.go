package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

// newHealth asks the cluster over the Kafka protocol whether every partition has
// a leader and all of its in-sync replicas; exit code 10 says no.
func newHealth() *cobra.Command {
	c := &cobra.Command{Use: "health", Short: "Whether every partition can be written and read (exit 10 when not)", Args: cobra.NoArgs}
	wait := c.Flags().Duration("wait", 0, "keep asking this long until healthy")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		deadline := time.Now().Add(*wait)
		for {
			h, err := checkHealth(cmd)
			if err == nil && h.Healthy {
				return emit(cmd, h, h.text)
			}
			if time.Now().After(deadline) {
				if err != nil {
					return &codedError{exitUnhealthy, err}
				}
				if e := emit(cmd, h, h.text); e != nil {
					return e
				}
				return &codedError{exitUnhealthy, fmt.Errorf("unhealthy: %d partitions without a leader, %d under-replicated", h.Offline, h.UnderReplicated)}
			}
			select {
			case <-cmd.Context().Done():
				return cmd.Context().Err()
			case <-time.After(200 * time.Millisecond):
			}
		}
	}
	return c
}

type health struct {
	Healthy         bool    `json:"healthy"`
	Brokers         []int32 `json:"brokers"`
	Topics          int     `json:"topics"`
	Partitions      int     `json:"partitions"`
	Offline         int     `json:"offline_partitions"`
	UnderReplicated int     `json:"under_replicated_partitions"`
}

func (h health) text(w *tabular) {
	word := "healthy"
	if !h.Healthy {
		word = "unhealthy"
	}
	w.line("%s: %d brokers, %d topics, %d partitions, %d offline, %d under-replicated",
		word, len(h.Brokers), h.Topics, h.Partitions, h.Offline, h.UnderReplicated)
}

func checkHealth(cmd *cobra.Command) (health, error) {
	h := health{Brokers: []int32{}}
	cl, adm, err := connect(cmd)
	if err != nil {
		return h, err
	}
	defer cl.Close()
	m, err := adm.Metadata(cmd.Context())
	if err != nil {
		return h, err
	}
	h.Brokers = append(h.Brokers, m.Brokers.NodeIDs()...)
	for _, t := range m.Topics {
		h.Topics++
		for _, p := range t.Partitions {
			h.Partitions++
			if p.Leader < 0 || p.Err != nil {
				h.Offline++
			} else if len(p.ISR) < len(p.Replicas) {
				h.UnderReplicated++
			}
		}
	}
	h.Healthy = h.Offline == 0 && h.UnderReplicated == 0 && len(h.Brokers) > 0
	return h, nil
}
