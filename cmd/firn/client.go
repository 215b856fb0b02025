package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	defaultBrokers = "127.0.0.1:9092"
	soon           = 200 * time.Millisecond
)

// brokers resolves -X brokers=, then FIRN_BROKERS, then the default of `firn up`.
func brokers(cmd *cobra.Command) ([]string, error) {
	opts, _ := cmd.Flags().GetStringArray("option")
	list := os.Getenv("FIRN_BROKERS")
	for _, o := range opts {
		k, v, ok := strings.Cut(o, "=")
		if !ok || k != "brokers" {
			return nil, usageError("-X %s: unknown option%s; known: brokers=HOST:PORT", o, didYouMean(k, []string{"brokers"}))
		}
		list = v
	}
	if list == "" {
		list = defaultBrokers
	}
	var seeds []string
	for s := range strings.SplitSeq(list, ",") {
		s = strings.TrimSpace(s)
		if _, _, err := net.SplitHostPort(s); err != nil {
			return nil, usageError("broker address %q: want HOST:PORT", s)
		}
		seeds = append(seeds, s)
	}
	return seeds, nil
}

// connect makes a client that has reached the cluster once, so that a wrong
// address fails in one line instead of in a retry loop.
func connect(cmd *cobra.Command, opts ...kgo.Opt) (*kgo.Client, *kadm.Client, error) {
	seeds, err := brokers(cmd)
	if err != nil {
		return nil, nil, err
	}
	base := []kgo.Opt{
		kgo.SeedBrokers(seeds...), kgo.ClientID("firn-cli"), kgo.RetryTimeout(20 * time.Second),
		kgo.DialTimeout(3 * time.Second),
		// Somebody is waiting, and one client is no load: it asks again soon, for new
		// metadata too, which the library would take from its cache for 5 s.
		kgo.RetryBackoffFn(func(int) time.Duration { return soon }), kgo.MetadataMinAge(soon),
	}
	cl, err := kgo.NewClient(append(base, opts...)...)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), 5*time.Second)
	defer cancel()
	if err := cl.Ping(ctx); err != nil {
		cl.Close()
		return nil, nil, fmt.Errorf("no broker answers at %s: %w; start one with `firn up`, or name one with -X brokers=HOST:PORT",
			strings.Join(seeds, ","), rootCause(err))
	}
	// A broker that has lost its metadata answers, but names no broker, not even
	// itself, and every request would be tried again until its time is up.
	for _, b := range cl.SeedBrokers() {
		req := kmsg.NewPtrMetadataRequest()
		req.Topics = []kmsg.MetadataRequestTopic{}
		resp, err := b.Request(ctx, req)
		if err != nil {
			continue
		}
		if m := resp.(*kmsg.MetadataResponse); len(m.Brokers) == 0 {
			cl.Close()
			return nil, nil, fmt.Errorf("the broker at %s knows of no broker in its cluster, so it serves nothing: its metadata is in safe mode; /readyz of its admin address and its log say why", strings.Join(seeds, ","))
		}
		break
	}
	return cl, kadm.NewClient(cl), nil
}

func rootCause(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// explain turns a Kafka error code into what the user can do next.
func explain(err error, topic string) error {
	if err == nil {
		return nil
	}
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return fmt.Errorf("topic %s does not exist; `firn topic list` shows what does, `firn topic create %s` makes it", topic, topic)
	case errors.Is(err, kerr.TopicAlreadyExists):
		return fmt.Errorf("topic %s exists already; `firn topic describe %s` shows it", topic, topic)
	case errors.Is(err, kerr.OffsetOutOfRange):
		return fmt.Errorf("offset is outside of topic %s; `firn topic storage describe %s` shows its offsets", topic, topic)
	}
	return err
}

// withMessage adds the broker's own words to a code.
func withMessage(err error, msg string) error {
	if err == nil || msg == "" {
		return err
	}
	return fmt.Errorf("%s: %w", msg, err)
}
