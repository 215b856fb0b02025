package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/firnlog/firn/internal/failpoint"
)

// newUp is `firn up`: one node with everything in it.
func newUp() *cobra.Command {
	c := &cobra.Command{
		Use: "up", Short: "Serve: one node with its metadata store inside", Args: cobra.NoArgs,
		Example: "  firn up\n  firn up --data-dir /var/lib/firn --listener EXTERNAL=0.0.0.0:9092;advertise=logs.example.org:9092",
	}
	upFlags(c.Flags())
	file := c.Flags().String("config", os.Getenv("FIRN_CONFIG"), "YAML file with the same names as these flags")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		started := time.Now()
		cfg, warnings, err := loadConfig(cmd.Flags(), *file, os.Environ())
		if err != nil {
			return &codedError{exitUsage, err}
		}
		logger := newLogger(cfg)
		for _, w := range warnings {
			logger.Warn(w, "event", "unknown_environment")
		}
		if cfg.Ephemeral {
			dir, err := os.MkdirTemp("", "firn-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			cfg.DataDir = dir
		}
		limit, err := memoryLimit(cfg, os.DirFS("/"))
		if err != nil {
			return err
		}
		raiseDescriptors(logger)
		plan := planMemory(limit, descriptors())
		plan.setHeap(0)
		if spec := os.Getenv("FIRN_FAILPOINTS"); spec != "" {
			if err := failpoint.Arm(spec); err != nil {
				return &codedError{exitUsage, fmt.Errorf("FIRN_FAILPOINTS: %w", err)}
			}
			logger.Warn("failpoints are armed: this process will end itself", "event", "failpoints_armed", "spec", spec)
		}
		n, err := startNode(cmd.Context(), cfg, plan, logger)
		if err != nil {
			return err
		}
		logger.Info("ready", "event", "ready", "took", time.Since(started).Round(time.Millisecond).String(), "version", version,
			"kafka", n.kafkaAddrs(), "admin", "http://"+n.admin.Addr(), "data", cfg.DataDir, "cluster_id", n.meta.Image().ClusterID())
		<-cmd.Context().Done()
		logger.Info("stopping", "event", "stopping")
		clean := n.close()
		logger.Info("stopped", "event", "stopped", "clean", clean)
		if !clean {
			return fmt.Errorf("some logs did not close cleanly; the next start recovers them")
		}
		return nil
	}
	return c
}

// newLogger writes text to a terminal and JSON elsewhere, unless told.
func newLogger(cfg Config) *slog.Logger {
	level := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}[cfg.LogLevel]
	opts := &slog.HandlerOptions{Level: level}
	json := cfg.LogFormat == "json"
	if cfg.LogFormat == "auto" {
		st, err := os.Stderr.Stat()
		json = err != nil || st.Mode()&os.ModeCharDevice == 0
	}
	if json {
		return slog.New(slog.NewJSONHandler(os.Stderr, opts))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opts))
}

// raiseDescriptors lifts the soft limit of open files to the hard one.
func raiseDescriptors(logger *slog.Logger) {
	var lim unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim)
	if err == nil && lim.Cur < lim.Max {
		lim.Cur = lim.Max
		err = unix.Setrlimit(unix.RLIMIT_NOFILE, &lim)
	}
	if err != nil {
		logger.Warn("limit of open files was not raised", "event", "descriptor_limit", "err", err)
	}
}

// ctxTimeout bounds a step of the start.
func ctxTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, 60*time.Second)
}
