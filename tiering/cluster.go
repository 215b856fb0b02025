package tiering

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/firnlog/firn/objectstore"
	"github.com/firnlog/firn/tiering/format"
)

// ErrForeign means that the prefix belongs to another cluster, or to an earlier
// life of this one whose data dir is gone.
var ErrForeign = errors.New("the bucket belongs to another cluster")

// Inspect says whose prefix this is and writes nothing: ErrForeign when it is not
// that of clusterID, found is false when it is nobody's. An empty clusterID is
// that of a broker that has never run; for it, topics without a cluster.json are
// ErrForeign too, because a missing file is not a beginning (SAFETY 10).
func Inspect(ctx context.Context, b objectstore.Bucket, cluster, clusterID string) (generation uint64, found bool, err error) {
	key := format.ClusterKey(cluster)
	data, _, err := b.Get(ctx, key)
	switch {
	case err == nil:
		c, err := format.DecodeCluster(data)
		if err != nil {
			return 0, true, fmt.Errorf("%s: %w", key, err)
		}
		if c.ID != clusterID {
			return 0, true, foreign(b, cluster, c.ID, clusterID)
		}
		return c.Generation, true, nil
	case !errors.Is(err, objectstore.ErrNotFound):
		return 0, false, fmt.Errorf("read %s: %w", key, err)
	case clusterID != "":
		return 0, false, nil
	}
	for info, err := range b.List(ctx, cluster+"/topics/") {
		if err != nil {
			return 0, false, fmt.Errorf("list %s/topics/: %w", cluster, err)
		}
		return 0, false, fmt.Errorf("%w: %s has no %s but holds %s; put that file back, or name another --cluster or another prefix in --bucket",
			ErrForeign, b.Name(), key, info.Key)
	}
	return 0, false, nil
}

// Identify makes sure that <cluster>/cluster.json is that of clusterID, and
// returns its generation. An empty clusterID is that of a broker that has never
// run: then a cluster.json that is there is ErrForeign, and none is made.
func Identify(ctx context.Context, b objectstore.Bucket, cluster, clusterID string, now time.Time) (generation uint64, err error) {
	key := format.ClusterKey(cluster)
	fresh := format.Cluster{Name: cluster, ID: clusterID, Generation: 1, CreatedMs: now.UnixMilli()}
	for range 5 {
		generation, found, err := Inspect(ctx, b, cluster, clusterID)
		if err != nil || found || clusterID == "" {
			return generation, err
		}
		data := format.EncodeCluster(fresh)
		if _, err = b.Put(ctx, key, bytes.NewReader(data), int64(len(data)), objectstore.Cond{IfNoneMatch: true}); err == nil {
			return fresh.Generation, nil
		}
		// A race or an unknown outcome: what is there decides.
		if !errors.Is(err, objectstore.ErrPrecondition) && !errors.Is(err, objectstore.ErrInDoubt) {
			return 0, fmt.Errorf("write %s: %w", key, err)
		}
	}
	return 0, fmt.Errorf("write %s: the outcome stays unknown", key)
}

func foreign(b objectstore.Bucket, cluster, theirs, ours string) error {
	if ours == "" {
		return fmt.Errorf("%w: %s holds cluster %q with id %s and this data dir is empty; start with that cluster's data dir, or name another --cluster or another prefix in --bucket",
			ErrForeign, b.Name(), cluster, theirs)
	}
	return fmt.Errorf("%w: %s holds cluster %q with id %s, this data dir is of %s; name another --cluster or another prefix in --bucket",
		ErrForeign, b.Name(), cluster, theirs, ours)
}
