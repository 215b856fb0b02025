package metadata_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/firnlog/firn/internal/disk"
	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/metadata/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// chaos makes ids that follow from a seed.
type chaos struct{ r *rand.ChaCha8 }

func (c chaos) Read(p []byte) (int, error) { return c.r.Read(p) }

func seeded(seed, node uint64) chaos {
	var k [32]byte
	k[0], k[1], k[8] = byte(seed), byte(seed>>8), byte(node)
	return chaos{rand.NewChaCha8(k)}
}

type option func(*metadata.Config)

func open(t *testing.T, s *memory.Server, node int32, opts ...option) *metadata.Client {
	t.Helper()
	c, err := tryOpen(t, s, node, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func tryOpen(t *testing.T, s *memory.Server, node int32, opts ...option) (*metadata.Client, error) {
	cfg := metadata.Config{
		Store: s.Open(), Cluster: "c", NodeID: node, Now: time.Now, Rand: seeded(1, uint64(node)),
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	for _, o := range opts {
		o(&cfg)
	}
	c, err := metadata.Open(t.Context(), cfg)
	if err != nil {
		return nil, err
	}
	if _, on := c.SafeMode(); !on {
		err := c.RegisterBroker(t.Context(), metadata.Broker{Node: node, Incarnation: 1, DirIDs: []string{"d"},
			Endpoints: []metadata.Endpoint{{Name: "PLAINTEXT", Host: "h", Port: 9092, Protocol: "PLAINTEXT"}}})
		if err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

func guarded(dir string) option {
	return func(c *metadata.Config) { c.FS, c.GuardPath = disk.OS(), filepath.Join(dir, "data", "guard.json") }
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func lead(t *testing.T, c *metadata.Client, topic *metadata.Topic, n, node, minEpoch int32) metadata.PartitionState {
	t.Helper()
	r := c.Lead(t.Context(), []metadata.LeadRequest{{
		TopicPartition: metadata.TopicPartition{TopicID: topic.ID, Topic: topic.Name, Partition: n},
		Node:           node, MinEpoch: minEpoch, Incarnation: 1, DirID: "d",
	}})[0]
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	return r.State
}

func awaitImage(t *testing.T, c *metadata.Client, what string, cond func(*metadata.Image) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := c.Wait(ctx, cond); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// awaitSafeMode waits for the client to enter or leave safe mode.
func awaitSafeMode(t *testing.T, c *metadata.Client, want bool) string {
	t.Helper()
	for range 3000 {
		if reason, on := c.SafeMode(); on == want {
			return reason
		}
		time.Sleep(100 * time.Millisecond) // virtual: every caller is in a bubble
	}
	t.Fatalf("safe mode never became %v", want)
	return ""
}

func TestTopicsLiveThroughTheirClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		a, b := open(t, s, 1), open(t, s, 2)
		if a.Image().ClusterID() != b.Image().ClusterID() || len(a.Image().ClusterID()) != 22 {
			t.Fatalf("cluster ids %q and %q", a.Image().ClusterID(), b.Image().ClusterID())
		}
		topic := must[*metadata.Topic](t)(a.CreateTopic(t.Context(), metadata.NewTopic{Name: "orders.v1", Partitions: 3, ReplicationFactor: 1,
			Configs: map[string]string{"retention.ms": "1000"}}))
		if got, ok := a.Image().TopicByName("orders.v1"); !ok || got.ID != topic.ID {
			t.Fatal("the creator does not read its own write")
		}
		awaitImage(t, b, "the other broker sees the topic", func(im *metadata.Image) bool { _, ok := im.TopicByName("orders.v1"); return ok })
		if st, ok := b.Image().Partition(topic.ID, 2); !ok || st.Leader != -1 || st.LeaderEpoch != -1 || len(st.Replicas) != 1 {
			t.Fatalf("before its first leadership a partition is %+v", st)
		}
		if _, ok := b.Image().Partition(topic.ID, 3); ok {
			t.Fatal("partition 3 of 3 exists")
		}
		// A new name for the same key: another id, an ordered history.
		if err := b.DeleteTopic(t.Context(), "orders.v1", topic.ID); err != nil {
			t.Fatal(err)
		}
		if _, ok := b.Image().TopicByID(topic.ID); ok || !b.Image().Tombstoned(topic.ID) {
			t.Fatal("a deleted topic must be gone and tombstoned")
		}
		again := must[*metadata.Topic](t)(a.CreateTopic(t.Context(), metadata.NewTopic{Name: "orders_v1", Partitions: 1, ReplicationFactor: 1}))
		if again.ID == topic.ID {
			t.Fatal("a recreated topic has its old id")
		}
		if !a.Image().Tombstoned(topic.ID) {
			t.Fatal("the recreation forgot the tombstone")
		}
		if err := a.DeleteTopic(t.Context(), "orders.v1", topic.ID); !errors.Is(err, metadata.ErrUnknownTopicID) {
			t.Fatalf("deleting by a dead id: %v", err)
		}
	})
}

// TestRacingCreationsHaveOneWinner races names that are equal and names that
// collide, under a store with all its bad manners.
func TestRacingCreationsHaveOneWinner(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			s := memory.NewServer(seed, time.Now)
			clients := []*metadata.Client{open(t, s, 1), open(t, s, 2), open(t, s, 3)}
			s.Behave(rude)
			names := []string{"a.b", "a_b", "a.b"}
			ids := make([]metadata.TopicID, len(names))
			errs := make([]error, len(names))
			var wg sync.WaitGroup
			for i, c := range clients {
				wg.Add(1)
				go func() {
					defer wg.Done()
					topic, err := c.CreateTopic(t.Context(), metadata.NewTopic{Name: names[i], Partitions: 2, ReplicationFactor: 1})
					if errs[i] = err; err == nil {
						ids[i] = topic.ID
					}
				}()
			}
			wg.Wait()
			s.Behave(memory.Manners{})
			s.Settle()
			wins := 0
			for i, err := range errs {
				switch {
				case err == nil:
					wins++
				case errors.Is(err, metadata.ErrInDoubt):
				case names[i] == "a_b" && !errors.Is(err, metadata.ErrInvalidTopicName) && !errors.Is(err, metadata.ErrTopicExists):
					t.Fatalf("seed %d: %s lost with %v", seed, names[i], err)
				case !errors.Is(err, metadata.ErrTopicExists) && !errors.Is(err, metadata.ErrInvalidTopicName):
					t.Fatalf("seed %d: %s lost with %v", seed, names[i], err)
				}
			}
			if wins > 1 {
				t.Fatalf("seed %d: %d creators were told they won: %v", seed, wins, errs)
			}
			for i, c := range clients {
				awaitImage(t, c, fmt.Sprintf("seed %d: images agree", seed), func(im *metadata.Image) bool {
					topics := im.Topics()
					return len(topics) == 1 && (errs[i] != nil || topics[0].ID == ids[i])
				})
			}
			closeAll(clients)
		})
	}
}

func closeAll(clients []*metadata.Client) {
	for _, c := range clients {
		c.Close()
	}
}

// rude is everything at once.
var rude = memory.Manners{
	StaleRead: 0.2, LostRequest: 0.1, LostAck: 0.15, LateWrite: 0.1, InFlight: 0.1, SilentConflict: 0.3,
	WatchLate: 0.3, WatchDelay: 3 * time.Second, WatchRepeat: 0.2, WatchBreak: 0.1,
}

// TestALostAckIsNotASecondAttempt: a write whose acknowledgement was lost is
// recognised by its request id, so each call made exactly one change.
func TestALostAckIsNotASecondAttempt(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			s := memory.NewServer(seed, time.Now)
			c := open(t, s, 1)
			topic := must[*metadata.Topic](t)(c.CreateTopic(t.Context(), metadata.NewTopic{Name: "t", Partitions: 1, ReplicationFactor: 1}))
			s.Behave(memory.Manners{LostAck: 0.5, StaleRead: 0.3, SilentConflict: 0.3})
			for round := range 10 {
				st := lead(t, c, topic, 0, 1, -1)
				if st.Version != int64(round)+1 || st.LeaderEpoch != int32(round) {
					t.Fatalf("seed %d: leadership %d is version %d in epoch %d", seed, round, st.Version, st.LeaderEpoch)
				}
				if first, err := c.NextProducerIDs(t.Context(), 10, nil); err != nil || first != int64(round)*10 {
					t.Fatalf("seed %d: block %d begins at %d, %v", seed, round, first, err)
				}
			}
			c.Close()
		})
	}
}

// TestABatchInDoubtIsNotASecondAttempt is the same for writes that travel
// together; and two wishes for one key are two epochs.
func TestABatchInDoubtIsNotASecondAttempt(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			s := memory.NewServer(seed, time.Now)
			c := open(t, s, 1)
			topic := must[*metadata.Topic](t)(c.CreateTopic(t.Context(), metadata.NewTopic{Name: "t", Partitions: 8, ReplicationFactor: 1}))
			s.Behave(memory.Manners{LostAck: 0.5, LateWrite: 0.1, StaleRead: 0.3})
			var reqs []metadata.LeadRequest
			for n := range int32(9) {
				reqs = append(reqs, metadata.LeadRequest{TopicPartition: metadata.TopicPartition{TopicID: topic.ID, Partition: n % 8}, Node: 1, MinEpoch: -1})
			}
			for round := range int64(5) {
				epochs := map[int32]bool{}
				for i, r := range c.Lead(t.Context(), reqs) {
					switch want := round + 1; {
					case r.Err != nil:
						t.Fatalf("seed %d: %v", seed, r.Err)
					case i%8 == 0:
						epochs[r.State.LeaderEpoch] = true
					case r.State.Version != want || r.State.LeaderEpoch != int32(round):
						t.Fatalf("seed %d: leadership %d of partition %d is version %d in epoch %d", seed, round, i, r.State.Version, r.State.LeaderEpoch)
					}
				}
				if len(epochs) != 2 {
					t.Fatalf("seed %d: two leaderships of one partition share an epoch: %v", seed, epochs)
				}
			}
			c.Close()
		})
	}
}

// TestLeadershipsInDoubtAreResolved lets three brokers' worth of starts happen
// over a rude store. Each start that succeeded has an epoch of its own, above all
// earlier ones, and the store has the last.
func TestLeadershipsInDoubtAreResolved(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			s := memory.NewServer(seed, time.Now)
			c := open(t, s, 1)
			topic := must[*metadata.Topic](t)(c.CreateTopic(t.Context(), metadata.NewTopic{Name: "t", Partitions: 8, ReplicationFactor: 1}))
			s.Behave(rude)
			last := map[int32]int32{}
			for round := range 5 {
				var reqs []metadata.LeadRequest
				for n := range int32(8) {
					reqs = append(reqs, metadata.LeadRequest{TopicPartition: metadata.TopicPartition{TopicID: topic.ID, Topic: "t", Partition: n}, Node: 1, MinEpoch: int32(round) - 1, Incarnation: 1})
				}
				for n, r := range c.Lead(t.Context(), reqs) {
					if errors.Is(r.Err, metadata.ErrInDoubt) {
						continue
					}
					if r.Err != nil {
						t.Fatalf("seed %d: partition %d: %v", seed, n, r.Err)
					}
					if was, ok := last[int32(n)]; ok && r.State.LeaderEpoch <= was {
						t.Fatalf("seed %d: partition %d leads in epoch %d after %d", seed, n, r.State.LeaderEpoch, was)
					}
					if r.State.Leader != 1 || r.State.LeaderEpoch < int32(round) || len(r.State.ISR) != 1 || r.State.ISR[0].Incarnation != 1 {
						t.Fatalf("seed %d: partition %d: state %+v", seed, n, r.State)
					}
					last[int32(n)] = r.State.LeaderEpoch
				}
			}
			s.Behave(memory.Manners{})
			s.Settle()
			other := open(t, s, 2)
			for n, epoch := range last {
				if st, _ := other.Image().Partition(topic.ID, n); st.LeaderEpoch < epoch {
					t.Fatalf("seed %d: partition %d was told epoch %d, the store has %d", seed, n, epoch, st.LeaderEpoch)
				}
			}
			if reason, on := c.SafeMode(); on {
				t.Fatalf("seed %d: manners alone led to safe mode: %s", seed, reason)
			}
			closeAll([]*metadata.Client{c, other})
		})
	}
}

func TestOnlyAReplicaInSyncLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		a, b, c := open(t, s, 1), open(t, s, 2), open(t, s, 3)
		awaitImage(t, a, "three brokers", func(im *metadata.Image) bool { return len(im.Brokers()) == 3 })
		topic := must[*metadata.Topic](t)(a.CreateTopic(t.Context(), metadata.NewTopic{Name: "t", Partitions: -1, ReplicationFactor: -1,
			Assignment: map[int32][]int32{0: {1, 2}, 1: {3, 1}}}))
		st := lead(t, a, topic, 0, 1, 6)
		if st.LeaderEpoch != 7 || len(st.ISR) != 2 {
			t.Fatalf("first leadership above epoch 6: %+v", st)
		}
		for who, cl := range map[int32]*metadata.Client{2: b, 3: c} {
			awaitImage(t, cl, "leadership", func(im *metadata.Image) bool { p, _ := im.Partition(topic.ID, 0); return p.Leader == 1 })
			r := cl.Lead(t.Context(), []metadata.LeadRequest{{TopicPartition: metadata.TopicPartition{TopicID: topic.ID, Partition: 0}, Node: who, Incarnation: 1}})[0]
			if !errors.Is(r.Err, metadata.ErrNotEligible) {
				t.Fatalf("broker %d took the leadership of a living leader: %v", who, r.Err)
			}
		}
		r := a.Lead(t.Context(), []metadata.LeadRequest{{TopicPartition: metadata.TopicPartition{TopicID: topic.ID, Partition: 0}, Node: 1, Incarnation: 2}})[0]
		if !errors.Is(r.Err, metadata.ErrNotEligible) {
			t.Fatalf("another incarnation led with the place that its predecessor earned: %v", r.Err)
		}
		if r := a.Lead(t.Context(), []metadata.LeadRequest{{TopicPartition: metadata.TopicPartition{TopicID: topic.ID, Partition: 5}, Node: 1}})[0]; !errors.Is(r.Err, metadata.ErrUnknownTopic) {
			t.Fatalf("leading a partition that does not exist: %v", r.Err)
		}
	})
}

func TestProducerIDsAreNeverHandedOutTwice(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			s := memory.NewServer(seed, time.Now)
			clients := []*metadata.Client{open(t, s, 1), open(t, s, 2)}
			s.Behave(rude)
			var mu sync.Mutex
			taken := map[int64]bool{}
			var wg sync.WaitGroup
			for _, c := range clients {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for range 10 {
						first, err := c.NextProducerIDs(t.Context(), 10, func(int64) int64 { return 99 })
						if err != nil {
							continue
						}
						mu.Lock()
						for id := first; id < first+10; id++ {
							if taken[id] || id < 100 {
								t.Errorf("seed %d: producer id %d handed out twice or below what is used", seed, id)
							}
							taken[id] = true
						}
						mu.Unlock()
					}
				}()
			}
			wg.Wait()
			if len(taken) == 0 {
				t.Fatalf("seed %d: no id was ever handed out", seed)
			}
			closeAll(clients)
		})
	}
}

// TestALostStoreIsSafeMode attacks a broker's metadata while it runs, and while
// it is down: rollback, a bucket that is gone or made again, a key that is gone
// though the revision grew. Nothing may be created or elected, and what was known
// is still served.
func TestALostStoreIsSafeMode(t *testing.T) {
	attacks := map[string]func(s *memory.Server, old memory.Backup, topic metadata.TopicID){
		"rolled back": func(s *memory.Server, old memory.Backup, _ metadata.TopicID) { s.Restore(old) },
		"rolled back and grown again": func(s *memory.Server, old memory.Backup, _ metadata.TopicID) {
			s.Restore(old)
			st := s.Open()
			for rev, i := uint64(0), 0; i < 100; i++ {
				rev, _ = st.Update(context.Background(), "hints.noise", []byte("x"), rev)
			}
			st.Close()
		},
		"bucket dropped": func(s *memory.Server, _ memory.Backup, _ metadata.TopicID) { s.DropBucket() },
		"bucket made again": func(s *memory.Server, _ memory.Backup, _ metadata.TopicID) {
			s.DropBucket()
			st := s.Open()
			st.Bootstrap(context.Background())
			st.Close()
		},
		"copied into another bucket": func(s *memory.Server, _ memory.Backup, _ metadata.TopicID) { s.Recreate() },
		"one key gone back, another made": func(s *memory.Server, _ memory.Backup, id metadata.TopicID) {
			s.RevertKey("partitions." + id.Hex() + ".0")
			st := s.Open()
			st.Update(context.Background(), "hints.other", nil, 0)
			st.Close()
		},
		"one key lost, another made": func(s *memory.Server, _ memory.Backup, id metadata.TopicID) {
			s.LoseKey("topics.t")
			st := s.Open()
			st.Update(context.Background(), "hints.other", nil, 0)
			st.Close()
		},
		"topic's key lost": func(s *memory.Server, _ memory.Backup, _ metadata.TopicID) { s.LoseKey("topics.t") },
		"partition's key lost": func(s *memory.Server, _ memory.Backup, id metadata.TopicID) {
			s.LoseKey("partitions." + id.Hex() + ".0")
		},
		"cluster's key lost": func(s *memory.Server, _ memory.Backup, _ metadata.TopicID) { s.LoseKey("cluster") },
	}
	for name, attack := range attacks {
		for _, mode := range []string{"running", "running without a guard", "down"} {
			t.Run(name+", "+mode, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := memory.NewServer(1, time.Now)
					dir := t.TempDir()
					running, guard := mode != "down", guarded(dir)
					if mode == "running without a guard" {
						guard = func(*metadata.Config) {}
					}
					c := open(t, s, 1, guard)
					if err := c.PutHint(t.Context(), "noise", nil); err != nil {
						t.Fatal(err)
					}
					topic := must[*metadata.Topic](t)(c.CreateTopic(t.Context(), metadata.NewTopic{Name: "t", Partitions: 2, ReplicationFactor: 1}))
					lead(t, c, topic, 0, 1, -1)
					old := s.Backup()
					lead(t, c, topic, 0, 1, -1)
					time.Sleep(time.Second)
					if running {
						began := time.Now()
						attack(s, old, topic.ID)
						awaitSafeMode(t, c, true)
						// All but a key that went back shows in the store's own numbers.
						if took := time.Since(began); took > 6*time.Second && name != "one key gone back, another made" {
							t.Fatalf("noticed only after %v", took)
						}
						if _, ok := c.Image().TopicByID(topic.ID); !ok || c.Image().Tombstoned(topic.ID) {
							t.Fatal("absence became deletion")
						}
						if st, _ := c.Image().Partition(topic.ID, 0); st.LeaderEpoch != 1 {
							t.Fatalf("the image went back: %+v", st)
						}
					} else {
						c.Close()
						attack(s, old, topic.ID)
						time.Sleep(time.Second)
						var err error
						if c, err = tryOpen(t, s, 1, guard); err != nil {
							t.Fatal(err)
						}
						defer c.Close()
						if _, on := c.SafeMode(); !on {
							t.Fatal("a restart did not notice")
						}
						if c.Image().Tombstoned(topic.ID) {
							t.Fatal("absence became deletion")
						}
					}
					if _, err := c.CreateTopic(t.Context(), metadata.NewTopic{Name: "new", Partitions: 1, ReplicationFactor: 1}); err == nil {
						t.Fatal("a topic was created in safe mode")
					}
					r := c.Lead(t.Context(), []metadata.LeadRequest{{TopicPartition: metadata.TopicPartition{TopicID: topic.ID, Partition: 1}, Node: 1}})[0]
					if r.Err == nil {
						t.Fatal("a leader was elected in safe mode")
					}
					if err := c.DeleteTopic(t.Context(), "t", topic.ID); err == nil {
						t.Fatal("a topic was deleted in safe mode")
					}
					if name == "bucket dropped" {
						st := s.Open()
						if _, err := st.Status(t.Context()); !errors.Is(err, metadata.ErrNoBucket) {
							t.Fatalf("the lost bucket was made again: %v", err)
						}
						st.Close()
					}
					before := s.Keys()
					time.Sleep(time.Minute)
					if _, on := c.SafeMode(); !on {
						t.Fatal("safe mode ended by itself though the store is still wrong")
					}
					if after := s.Keys(); len(after) > len(before) {
						t.Fatalf("safe mode wrote: %v became %v", before, after)
					}
				})
			})
		}
	}
}

// TestSafeModeEndsWhenTheStoreIsWholeAgain puts everything back.
func TestSafeModeEndsWhenTheStoreIsWholeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		c := open(t, s, 1, guarded(t.TempDir()))
		old := s.Backup()
		topic := must[*metadata.Topic](t)(c.CreateTopic(t.Context(), metadata.NewTopic{Name: "t", Partitions: 1, ReplicationFactor: 1}))
		whole := s.Backup()
		s.Restore(old)
		awaitSafeMode(t, c, true)
		s.Restore(whole)
		awaitSafeMode(t, c, false)
		lead(t, c, topic, 0, 1, -1)
	})
}

// TestAnOutageIsNotALoss: a store that does not answer is no reason for safe
// mode, and what was missed is found afterwards.
func TestAnOutageIsNotALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		a, b := open(t, s, 1), open(t, s, 2)
		s.Down(true)
		time.Sleep(time.Minute)
		if _, err := a.CreateTopic(t.Context(), metadata.NewTopic{Name: "x", Partitions: 1, ReplicationFactor: 1}); err == nil {
			t.Fatal("a topic was created without a store")
		}
		if reason, on := a.SafeMode(); on {
			t.Fatalf("an outage is safe mode: %s", reason)
		}
		s.Down(false)
		must[*metadata.Topic](t)(b.CreateTopic(t.Context(), metadata.NewTopic{Name: "t", Partitions: 1, ReplicationFactor: 1}))
		awaitImage(t, a, "the change after the outage", func(im *metadata.Image) bool { _, ok := im.TopicByName("t"); return ok })
	})
}

// TestASilentWatchIsNotBelieved: the watch looks healthy and says nothing.
func TestASilentWatchIsNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		a, b := open(t, s, 1), open(t, s, 2)
		s.Behave(memory.Manners{WatchSilent: true})
		must[*metadata.Topic](t)(b.CreateTopic(t.Context(), metadata.NewTopic{Name: "t", Partitions: 1, ReplicationFactor: 1}))
		began := time.Now()
		awaitImage(t, a, "a change that the watch kept to itself", func(im *metadata.Image) bool { _, ok := im.TopicByName("t"); return ok })
		if late := time.Since(began); late > 15*time.Second {
			t.Fatalf("noticed after %v", late)
		}
	})
}

func TestAClusterIsNeverBootstrappedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		c := open(t, s, 1)
		id := c.Image().ClusterID()
		c.Close()
		for i, tc := range []struct {
			id   string
			drop bool
			safe bool
			err  error
		}{
			{id: id},
			{id: "AAAAAAAAAAAAAAAAAAAAAA", err: metadata.ErrForeignCluster},
			{id: id, drop: true, safe: true},
		} {
			if tc.drop {
				s.DropBucket()
			}
			c, err := tryOpen(t, s, 1, func(c *metadata.Config) { c.ClusterID = tc.id })
			if !errors.Is(err, tc.err) {
				t.Fatalf("case %d: %v", i, err)
			}
			if err != nil {
				continue
			}
			if _, on := c.SafeMode(); on != tc.safe {
				t.Fatalf("case %d: safe mode %v", i, on)
			}
			c.Close()
			if tc.drop && len(s.Keys()) > 0 {
				t.Fatalf("case %d: an empty store was filled again: %v", i, s.Keys())
			}
		}
	})
}

// TestAGuardSurvivesRestartsAndDamageIsSaid restarts over one disk.
func TestAGuardSurvivesRestartsAndDamageIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		dir := t.TempDir()
		c := open(t, s, 1, guarded(dir))
		topic := must[*metadata.Topic](t)(c.CreateTopic(t.Context(), metadata.NewTopic{Name: "t", Partitions: 1, ReplicationFactor: 1}))
		lead(t, c, topic, 0, 1, -1)
		c.Close()
		// Others go on without us: that is no rollback.
		o := open(t, s, 2)
		if err := o.DeleteTopic(t.Context(), "t", topic.ID); err != nil {
			t.Fatal(err)
		}
		o.Close()
		c = open(t, s, 1, guarded(dir))
		if reason, on := c.SafeMode(); on {
			t.Fatalf("safe mode after an ordinary restart: %s", reason)
		}
		if !c.Image().Tombstoned(topic.ID) {
			t.Fatal("no tombstone")
		}
		c.Close()
		path := filepath.Join(dir, "data", "guard.json")
		raw := must[[]byte](t)(os.ReadFile(path))
		raw[len(raw)/2] ^= 1
		if err := os.WriteFile(path, raw, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := tryOpen(t, s, 1, guarded(dir)); err == nil || !strings.Contains(err.Error(), "guard") {
			t.Fatalf("a damaged guard: %v", err)
		}
	})
}

// TestTombstonesStayUntilDataIsGone: seven days, and every holder.
func TestTombstonesStayUntilDataIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		slow := func(c *metadata.Config) { c.ReconcileEvery = time.Hour }
		c := open(t, s, 1, slow)
		topic := must[*metadata.Topic](t)(c.CreateTopic(t.Context(), metadata.NewTopic{Name: "t", Partitions: 1, ReplicationFactor: 1}))
		lead(t, c, topic, 0, 1, -1)
		if err := c.DeleteTopic(t.Context(), "t", topic.ID); err != nil {
			t.Fatal(err)
		}
		step := func(what string, stays bool) {
			t.Helper()
			if err := c.SweepTombstones(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := c.Image().Tombstoned(topic.ID); got != stays {
				t.Fatalf("%s: tombstoned %v, want %v", what, got, stays)
			}
		}
		step("at once", true)
		time.Sleep(7*24*time.Hour + time.Minute)
		step("old, but everybody has data", true)
		if err := c.MarkReplicasGone(t.Context(), topic.ID, 1); err != nil {
			t.Fatal(err)
		}
		step("old, but the bucket has data", true)
		for range 2 {
			if err := c.MarkBucketGone(t.Context(), topic.ID); err != nil {
				t.Fatal(err)
			}
		}
		step("old, and nobody has data", false)
		if keys := s.Keys(); slices.ContainsFunc(keys, func(k string) bool { return strings.HasPrefix(k, "partitions.") }) {
			t.Fatalf("partition keys stay: %v", keys)
		}
		time.Sleep(12 * time.Hour)
		if reason, on := c.SafeMode(); on {
			t.Fatalf("sweeping looked like a loss: %s", reason)
		}
		// A broker that comes later sees the same.
		o := open(t, s, 2)
		time.Sleep(time.Minute)
		if reason, on := o.SafeMode(); on || o.Image().Tombstoned(topic.ID) {
			t.Fatalf("a later broker: safe mode %q, tombstoned %v", reason, o.Image().Tombstoned(topic.ID))
		}
	})
}

func TestConfigurationsSurviveAndResolve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		static := func(c *metadata.Config) {
			c.Static = map[string]string{"log.retention.hours": "24", "log.segment.bytes": "2000000"}
		}
		c := open(t, s, 1, static)
		must[*metadata.Topic](t)(c.CreateTopic(t.Context(), metadata.NewTopic{Name: "t", Partitions: 1, ReplicationFactor: 1}))
		cfg := c.Image().TopicConfig("t")
		if cfg.RetentionMs != 86400000 || cfg.SegmentBytes != 2000000 {
			t.Fatalf("static: %+v", cfg)
		}
		alter := func(node int32, kv ...string) {
			t.Helper()
			var ch []metadata.AlterConfig
			for i := 0; i < len(kv); i += 2 {
				op := metadata.OpSet
				if kv[i+1] == "" {
					op = metadata.OpDelete
				}
				ch = append(ch, metadata.AlterConfig{Name: kv[i], Value: kv[i+1], Op: op})
			}
			if err := c.AlterBrokerConfigs(t.Context(), node, ch, false); err != nil {
				t.Fatal(err)
			}
		}
		alter(-1, "log.retention.ms", "5000")
		if got := c.Image().TopicConfig("t"); got.RetentionMs != 5000 || got == cfg {
			t.Fatalf("cluster-wide: %+v", got)
		}
		alter(1, "log.retention.ms", "6000")
		cfg = c.Image().TopicConfig("t")
		if cfg.RetentionMs != 6000 {
			t.Fatalf("this broker: %+v", cfg)
		}
		// A change elsewhere leaves the pointer alone.
		alter(-1, "max.connections", "7")
		if c.Image().TopicConfig("t") != cfg {
			t.Fatal("the configuration's pointer changed without a change")
		}
		err := c.AlterTopicConfigs(t.Context(), "t", []metadata.AlterConfig{{Name: "retention.ms", Value: "7000"}}, false)
		if err != nil || c.Image().TopicConfig("t").RetentionMs != 7000 {
			t.Fatalf("topic: %v, %+v", err, c.Image().TopicConfig("t"))
		}
		c.Close()
		c = open(t, s, 1, static)
		var entry metadata.ConfigEntry
		for _, e := range c.Image().DescribeTopic("t") {
			if e.Name == "retention.ms" {
				entry = e
			}
		}
		want := []metadata.ConfigSynonym{
			{Name: "retention.ms", Value: "7000", Source: metadata.SourceDynamicTopic},
			{Name: "log.retention.ms", Value: "6000", Source: metadata.SourceDynamicBroker},
			{Name: "log.retention.ms", Value: "5000", Source: metadata.SourceDynamicDefaultBroker},
			{Name: "log.retention.hours", Value: "24", Source: metadata.SourceStaticBroker},
		}
		if entry.Value != "7000" || entry.Source != metadata.SourceDynamicTopic || !slices.Equal(entry.Synonyms, want) {
			t.Fatalf("after a restart: %+v", entry)
		}
		// Read-only, unknown and bad values are refused whole.
		for _, bad := range []metadata.AlterConfig{{Name: "num.partitions", Value: "3"}, {Name: "no.such", Value: "3"}, {Name: "log.retention.ms", Value: "x"}} {
			if err := c.AlterBrokerConfigs(t.Context(), -1, []metadata.AlterConfig{{Name: "log.retention.bytes", Value: "1"}, bad}, false); err == nil {
				t.Fatalf("%s=%s was accepted", bad.Name, bad.Value)
			}
		}
		if got := c.Image().TopicConfig("t").RetentionBytes; got != -1 {
			t.Fatalf("half of a refused change was made: %d", got)
		}
		alter(1, "log.retention.ms", "")
		alter(-1, "log.retention.ms", "")
		if err := c.AlterTopicConfigs(t.Context(), "t", []metadata.AlterConfig{{Name: "retention.ms", Op: metadata.OpDelete}}, false); err != nil || c.Image().TopicConfig("t").RetentionMs != 86400000 {
			t.Fatalf("all taken back: %v, %+v", err, c.Image().TopicConfig("t"))
		}
	})
}

// TestTheSameEntriesMakeTheSameImage: two brokers, one of which saw everything
// late, twice and in pieces, have one view.
func TestTheSameEntriesMakeTheSameImage(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			s := memory.NewServer(seed, time.Now)
			a, b := open(t, s, 1), open(t, s, 2)
			s.Behave(memory.Manners{WatchLate: 0.5, WatchDelay: 2 * time.Second, WatchRepeat: 0.5, WatchBreak: 0.3, StaleRead: 0.3})
			r := rand.New(rand.NewPCG(seed, 1))
			for range 60 {
				c := []*metadata.Client{a, b}[r.IntN(2)]
				name := fmt.Sprintf("t%d", r.IntN(5))
				switch topic, ok := c.Image().TopicByName(name); {
				case !ok:
					c.CreateTopic(t.Context(), metadata.NewTopic{Name: name, Partitions: 2, ReplicationFactor: 1})
				case r.IntN(4) == 0:
					c.DeleteTopic(t.Context(), name, topic.ID)
				case r.IntN(3) == 0:
					c.CreatePartitions(t.Context(), name, topic.Partitions+1, nil, false)
				default:
					c.AlterTopicConfigs(t.Context(), name, []metadata.AlterConfig{{Name: "retention.ms", Value: fmt.Sprint(r.IntN(1000) + 1)}}, false)
				}
			}
			s.Behave(memory.Manners{})
			fresh := open(t, s, 3)
			want := view(fresh.Image())
			for _, c := range []*metadata.Client{a, b} {
				awaitImage(t, c, fmt.Sprintf("seed %d: the images agree", seed), func(im *metadata.Image) bool { return maps.Equal(view(im), want) })
			}
			closeAll([]*metadata.Client{a, b, fresh})
		})
	}
}

// view is what brokers must agree on.
func view(im *metadata.Image) map[string]string {
	out := map[string]string{}
	for _, topic := range im.Topics() {
		out[topic.Name] = fmt.Sprint(topic.ID, topic.Partitions, topic.Configs, *im.TopicConfig(topic.Name))
		for n := range topic.Partitions {
			st, _ := im.Partition(topic.ID, n)
			out[fmt.Sprint(topic.Name, n)] = fmt.Sprintf("%+v", st)
		}
	}
	for _, d := range im.Tombstones() {
		out[d.ID.String()] = fmt.Sprint(d.Name, d.At.UnixNano(), d.Partitions)
	}
	return out
}

func TestAStaleIncarnationIsToldToStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		c := open(t, s, 1)
		b := metadata.Broker{Node: 1, Incarnation: 5, DirIDs: []string{"d"}}
		if err := c.RegisterBroker(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		b.Incarnation = 4
		if err := c.RegisterBroker(t.Context(), b); !errors.Is(err, metadata.ErrStaleIncarnation) {
			t.Fatalf("an older process registered over a newer one: %v", err)
		}
	})
}

func TestHintsAreWrittenBlindly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(1, time.Now)
		a, b := open(t, s, 1), open(t, s, 2)
		for i := range 5 {
			for _, c := range []*metadata.Client{a, b} {
				if err := c.PutHint(t.Context(), "tier.x.0", fmt.Append(nil, i)); err != nil {
					t.Fatal(err)
				}
			}
		}
		awaitImage(t, a, "the last hint", func(im *metadata.Image) bool { return string(im.Hint("tier.x.0")) == "4" })
		if err := a.PutHint(t.Context(), "", nil); err == nil {
			t.Fatal("a hint without a name")
		}
	})
}
