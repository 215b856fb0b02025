package broker

import (
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/metadata"
)

// DescribeLogDirs (35), versions 1 to 5.
//
// KIP-113, KIP-827 (space). Beside the data dirs there is one named
// remote://<bucket> with the bytes that each partition has there, as Redpanda
// shows it. Its space is unknown (-1).
func (a *Admin) describeLogDirs(_ context.Context, c Caller, req *kmsg.DescribeLogDirsRequest) *kmsg.DescribeLogDirsResponse {
	res := req.ResponseKind().(*kmsg.DescribeLogDirsResponse)
	if !c.Allowed(kmsg.ACLOperationDescribe, kmsg.ACLResourceTypeCluster, clusterResource) {
		res.ErrorCode = adminCode(errClusterDenied)
		return res
	}
	wanted := func(metadata.TopicPartition) bool { return true }
	if req.Topics != nil {
		asked := map[string][]int32{}
		for _, t := range req.Topics {
			asked[t.Topic] = append(asked[t.Topic], t.Partitions...)
		}
		wanted = func(tp metadata.TopicPartition) bool { return slices.Contains(asked[tp.Topic], tp.Partition) }
	}
	local, remote := map[string]dirSizes{}, dirSizes{}
	for _, d := range a.Dirs {
		local[d.Path] = dirSizes{}
	}
	a.Replicas.Each(func(tp metadata.TopicPartition, dir string, bytes int64) {
		if !wanted(tp) {
			return
		}
		if sizes, ok := local[dir]; ok {
			sizes.add(tp, bytes)
		}
		if a.RemoteBytes == nil {
			return
		}
		if n := a.RemoteBytes(tp); n > 0 {
			remote.add(tp, n)
		}
	})
	for _, d := range a.Dirs {
		dir := local[d.Path].describe(d.Path)
		if free, total, err := d.Space(); err == nil {
			dir.TotalBytes, dir.UsableBytes = total, free
		} else {
			dir.ErrorCode = adminCode(errDirOffline)
		}
		res.Dirs = append(res.Dirs, dir)
	}
	if a.RemoteBytes != nil {
		res.Dirs = append(res.Dirs, remote.describe("remote://"+a.BucketName))
	}
	return res
}

// dirSizes are the bytes of each partition in one dir.
type dirSizes map[string]map[int32]int64

func (s dirSizes) add(tp metadata.TopicPartition, bytes int64) {
	if s[tp.Topic] == nil {
		s[tp.Topic] = map[int32]int64{}
	}
	s[tp.Topic][tp.Partition] = bytes
}

func (s dirSizes) describe(name string) kmsg.DescribeLogDirsResponseDir {
	dir := kmsg.NewDescribeLogDirsResponseDir()
	dir.Dir, dir.TotalBytes, dir.UsableBytes = name, -1, -1
	for topic, parts := range s {
		t := kmsg.NewDescribeLogDirsResponseDirTopic()
		t.Topic = topic
		for n, bytes := range parts {
			p := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
			p.Partition, p.Size = n, bytes
			t.Partitions = append(t.Partitions, p)
		}
		slices.SortFunc(t.Partitions, func(a, b kmsg.DescribeLogDirsResponseDirTopicPartition) int {
			return int(a.Partition) - int(b.Partition)
		})
		dir.Topics = append(dir.Topics, t)
	}
	slices.SortFunc(dir.Topics, func(a, b kmsg.DescribeLogDirsResponseDirTopic) int { return strings.Compare(a.Topic, b.Topic) })
	return dir
}
