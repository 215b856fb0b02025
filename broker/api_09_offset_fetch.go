package broker

// OffsetFetch (key 9), v1 to v10; KIP-320 (leader epochs from v5), KIP-447 (require
// stable, from v7: without transactions every offset is stable), KIP-709 (several
// groups from v8), KIP-848 (topic ids from v10). Left out: the member epochs of
// KIP-848's groups (v9), which are not served; classic groups ignore them.

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/group"
	"github.com/firnlog/firn/metadata"
)

func offsetFetch(_ context.Context, s *Server, r *Request) Reply {
	req := r.Body.(*kmsg.OffsetFetchRequest)
	groups := req.Groups
	if r.Version < 8 {
		one := kmsg.NewOffsetFetchRequestGroup()
		one.Group = req.Group
		if req.Topics != nil {
			one.Topics = []kmsg.OffsetFetchRequestGroupTopic{}
		}
		for _, t := range req.Topics {
			gt := kmsg.NewOffsetFetchRequestGroupTopic()
			gt.Topic, gt.Partitions = t.Topic, t.Partitions
			one.Topics = append(one.Topics, gt)
		}
		groups = []kmsg.OffsetFetchRequestGroup{one}
	}
	im := s.cfg.Metadata.Image()
	fetches := make([]*groupFetch, len(groups))
	waits := false
	for i := range groups {
		fetches[i] = s.beginFetch(r, im, &groups[i])
		waits = waits || fetches[i].pending != nil
	}
	finish := func(ctx context.Context) kmsg.Response {
		done := make([]kmsg.OffsetFetchResponseGroup, len(fetches))
		for i, f := range fetches {
			done[i] = f.finish(ctx)
		}
		return offsetFetchAnswer(r, req, done)
	}
	if !waits {
		return Reply{Response: finish(context.Background())}
	}
	return Reply{Park: func(ctx context.Context) kmsg.Response {
		ctx, cancel := context.WithTimeout(ctx, journalTimeout)
		defer cancel()
		return finish(ctx)
	}}
}

// groupFetch is the part of a request about one group.
type groupFetch struct {
	r       *Request
	im      *metadata.Image
	in      *kmsg.OffsetFetchRequestGroup
	out     kmsg.OffsetFetchResponseGroup
	slots   []slot // where the offsets asked for go; none when all are
	all     bool
	pending *group.Answer[group.FetchResult] // nil: out is complete
}

func (s *Server) beginFetch(r *Request, im *metadata.Image, in *kmsg.OffsetFetchRequestGroup) *groupFetch {
	f := &groupFetch{r: r, im: im, in: in, out: kmsg.NewOffsetFetchResponseGroup(), all: in.Topics == nil && r.Version >= 2}
	f.out.Group = in.Group
	if !r.Conn.mayDescribeGroup(in.Group) {
		f.out.ErrorCode = codeGroupDenied
		return f
	}
	var topics []string
	var partitions []int32
	for _, t := range in.Topics {
		name, code := t.Topic, codeNone
		if r.Version >= 10 {
			if topic, ok := im.TopicByID(t.TopicID); ok {
				name = topic.Name
			} else {
				code = codeUnknownTopicID
			}
		}
		if code == codeNone && !r.Conn.Allowed(kmsg.ACLOperationDescribe, kmsg.ACLResourceTypeTopic, name) {
			code = codeTopicDenied
		}
		rt := kmsg.NewOffsetFetchResponseGroupTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			rp := noOffset(p)
			if rp.ErrorCode = code; code == codeNone {
				topics, partitions = append(topics, name), append(partitions, p)
				f.slots = append(f.slots, slot{len(f.out.Topics), len(rt.Partitions)})
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		f.out.Topics = append(f.out.Topics, rt)
	}
	a := s.cfg.Groups.Fetch(in.Group, topics, partitions, f.all)
	if res, ok := a.Now(); ok {
		f.fill(res, nil)
		return f
	}
	f.pending = &a
	return f
}

func noOffset(partition int32) kmsg.OffsetFetchResponseGroupTopicPartition {
	rp := kmsg.NewOffsetFetchResponseGroupTopicPartition()
	empty := ""
	rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata = partition, -1, -1, &empty
	return rp
}

func (f *groupFetch) finish(ctx context.Context) kmsg.OffsetFetchResponseGroup {
	if f.pending != nil {
		f.fill(f.pending.Wait(ctx))
	}
	return f.out
}

func (f *groupFetch) fill(res group.FetchResult, err error) {
	if err == nil {
		err = res.Err
	}
	if err != nil {
		f.out.ErrorCode = groupCode(err)
		if f.r.Version >= 2 {
			f.out.Topics = nil
			return
		}
		for _, at := range f.slots {
			f.out.Topics[at.topic].Partitions[at.part].ErrorCode = f.out.ErrorCode
		}
		return
	}
	if f.all {
		f.fillAll(slices.DeleteFunc(res.Offsets, f.stale))
		return
	}
	for i, at := range f.slots {
		rt := &f.out.Topics[at.topic]
		o := res.Offsets[i]
		if f.r.Version >= 10 && o.TopicID != ([16]byte{}) && o.TopicID != rt.TopicID || f.stale(o) {
			continue
		}
		rt.Partitions[at.part] = offsetOf(o)
	}
}

// stale says that o was committed for a topic that was deleted and made again: it
// is no offset of the topic that has the name now, in which a reader that began
// there would skip records. The journal forgets it a little later.
func (f *groupFetch) stale(o group.Offset) bool {
	t, ok := f.im.TopicByName(o.Topic)
	return ok && o.TopicID != ([16]byte{}) && o.TopicID != t.ID
}

func offsetOf(o group.Offset) kmsg.OffsetFetchResponseGroupTopicPartition {
	rp := noOffset(o.Partition)
	rp.Offset, rp.LeaderEpoch, rp.Metadata = o.Offset, o.Epoch, &o.Metadata
	return rp
}

// fillAll answers a request for every offset; those come sorted by topic.
func (f *groupFetch) fillAll(all []group.Offset) {
	f.out.Topics = []kmsg.OffsetFetchResponseGroupTopic{}
	skip, last := false, ""
	for i, o := range all {
		if i == 0 || o.Topic != last {
			last = o.Topic
			rt := kmsg.NewOffsetFetchResponseGroupTopic()
			rt.Topic = o.Topic
			skip = !f.r.Conn.Allowed(kmsg.ACLOperationDescribe, kmsg.ACLResourceTypeTopic, o.Topic)
			if f.r.Version >= 10 {
				t, ok := f.im.TopicByName(o.Topic)
				if skip = skip || !ok; ok {
					rt.TopicID = t.ID
				}
			}
			if !skip {
				f.out.Topics = append(f.out.Topics, rt)
			}
		}
		if !skip {
			rt := &f.out.Topics[len(f.out.Topics)-1]
			rt.Partitions = append(rt.Partitions, offsetOf(o))
		}
	}
}

// offsetFetchAnswer gives the groups in the form of the version.
func offsetFetchAnswer(r *Request, req *kmsg.OffsetFetchRequest, groups []kmsg.OffsetFetchResponseGroup) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
	if r.Version >= 8 {
		resp.Groups = groups
		return resp
	}
	resp.ErrorCode = groups[0].ErrorCode
	for _, t := range groups[0].Topics {
		rt := kmsg.NewOffsetFetchResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewOffsetFetchResponseTopicPartition()
			rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata, rp.ErrorCode = p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}
