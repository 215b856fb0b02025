package commitlog

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/firnlog/firn/internal/disk"
)

// TestEpochEndsAreKafkas compares with the answers of Kafka's LeaderEpochFileCache
// (KIP-101, KIP-279, KIP-320) for every kind of epoch that a replica or a consumer
// may ask for.
func TestEpochEndsAreKafkas(t *testing.T) {
	type answer struct {
		epoch int32
		end   int64
	}
	none := answer{-1, -1}
	for _, c := range []struct {
		lineage []EpochStart
		ask     int32
		want    answer
	}{
		{nil, -1, none},
		{nil, 0, none},
		{nil, 7, none},
		{[]EpochStart{{5, 100}}, -1, none},
		{[]EpochStart{{5, 100}}, 0, answer{0, 100}}, // older than all: where what is known begins
		{[]EpochStart{{5, 100}}, 4, answer{4, 100}}, // and its own name, not another's
		{[]EpochStart{{5, 100}}, 5, answer{5, 200}}, // the latest ends at the log end
		{[]EpochStart{{2, 100}, {5, 150}}, 1, answer{1, 100}},
		{[]EpochStart{{2, 100}, {5, 150}}, 2, answer{2, 150}},
		{[]EpochStart{{2, 100}, {5, 150}}, 3, answer{2, 150}}, // nobody wrote in it: the one before
		{[]EpochStart{{2, 100}, {5, 150}}, 5, answer{5, 200}},
		// Ours: Kafka's cache names the leader's epoch from its first moment, this
		// lineage from its first record. The caller knows that 6 has been.
		{[]EpochStart{{2, 100}, {5, 150}}, 6, answer{5, 200}},
	} {
		t.Run(fmt.Sprintf("%v/%d", c.lineage, c.ask), func(t *testing.T) {
			l, _ := open(t, disk.OS(), t.TempDir())
			if err := l.Reset(0, 200, c.lineage, nil); err != nil {
				t.Fatal(err)
			}
			if e, end := l.EpochEnd(c.ask); (answer{e, end}) != c.want {
				t.Fatalf("epoch %d ends at %d, Kafka says %+v", e, end, c.want)
			}
		})
	}
}

// TestEpochsNeverGoBack: a deposed leader's append is refused, also after a restart
// and also when its successor has appended nothing that survived (SAFETY 4).
func TestEpochsNeverGoBack(t *testing.T) {
	dir := t.TempDir()
	l, _ := open(t, disk.OS(), dir)
	mustAppend(t, l, 3, batch(0, 1))
	mustAppend(t, l, 5, batch(1, 1))
	for _, when := range []string{"live", "after a kill"} {
		if _, err := l.Append(4, batch(2, 1)); !errors.Is(err, ErrEpochRegression) || l.End() != 2 {
			t.Fatalf("%s: %v, want ErrEpochRegression", when, err)
		}
		if want := []EpochStart{{3, 0}, {5, 1}}; !slices.Equal(l.Epochs(), want) {
			t.Fatalf("%s: lineage %v, want %v", when, l.Epochs(), want)
		}
		l.Close(false)
		l, _ = open(t, disk.OS(), dir)
	}
}
