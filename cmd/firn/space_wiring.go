package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/internal/space"
	"github.com/firnlog/firn/localcache"
)

// cacheRoom is the cache as the disk's guard sees it.
type cacheRoom struct{ *localcache.Cache }

func (c cacheRoom) Used() int64 { return c.Stats().Bytes }

// guardDisk starts what keeps the data dir's disk from filling up.
func guardDisk(cfg Config, cache *localcache.Cache, cacheBytes int64, fsys disk.FS, logger *slog.Logger, reg prometheus.Registerer) (g *space.Guard, stop func(), err error) {
	reserve, err := optionalSize(cfg.DiskReserve)
	if err != nil {
		return nil, nil, err
	}
	g, err = space.New(space.Config{
		Measure: func() (int64, int64, error) { return fsys.Space(filepath.Clean(cfg.DataDir)) },
		Reserve: reserve, Cache: cacheRoom{cache}, CacheBytes: cacheBytes, Every: time.Second, Logger: logger.With("component", "space"), Registerer: reg,
	})
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.Run(ctx)
	}()
	return g, func() { cancel(); <-done }, nil
}
