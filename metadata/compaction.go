package metadata

import (
	"context"
	"errors"
	"slices"
)

// configPolicy is the broker's default for cleanup.policy. A topic without a policy
// of its own is compacted when it says so.
const configPolicy = "log.cleanup.policy"

func (l layers) compacts() bool {
	v, _, _ := l.value(findSpec(brokerSpecs, configPolicy))
	return slices.Contains(splitList(v), "compact")
}

// follows says whether the topic has the policy of its broker.
func (t *topicValue) follows() bool {
	_, own := t.Configs["cleanup.policy"]
	return !own
}

// checkPolicy refuses a default that compacts topics which are or were in the bucket:
// compacted ranges do not tier (SAFETY 15).
func (im *Image) checkPolicy(l layers) error {
	if !l.compacts() {
		return nil
	}
	for _, t := range im.topics {
		if t.value.follows() && t.value.EverTiered {
			return refuse(ErrInvalidConfig, "%s with compact is refused: topic '%s' has no cleanup.policy of its own and is or was in the bucket, and compacted ranges do not tier. Set cleanup.policy of the topic first", configPolicy, t.Name)
		}
	}
	return nil
}

// checkStaticPolicy is checkPolicy for a process's own configuration, where no
// dynamic one hides it. The dynamic ones were checked when they were made, and a
// broker that did not start could not be told another.
func (im *Image) checkStaticPolicy() error {
	if _, src, _ := im.layers.value(findSpec(brokerSpecs, configPolicy)); src != SourceStaticBroker {
		return nil
	}
	return im.checkPolicy(im.layers)
}

// rememberCompacted notes of every topic that follows l that it has been compacted,
// if that is what l says: such a topic never tiers, whatever the policy becomes. It is
// called after each change of l and at every start, which makes up for a crash in
// between.
func (c *Client) rememberCompacted(ctx context.Context, l layers) error {
	if !l.compacts() {
		return nil
	}
	for _, t := range c.Image().topics {
		if !t.value.follows() || t.value.EverCompacted {
			continue
		}
		err := c.changeTopic(ctx, t, func(v *topicValue) error {
			if !v.follows() || v.EverCompacted {
				return errUnchanged
			}
			v.EverCompacted = true
			return nil
		})
		if err != nil && !errors.Is(err, ErrUnknownTopic) {
			return during(err, "remember that topic %s is compacted", t.Name)
		}
	}
	return nil
}
