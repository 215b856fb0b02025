package groups

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/firnlog/firn/integration/node"
)

// What `firn topic consume -g` has printed is committed when it ends, and the next
// one goes on right behind it.
func TestTheCLICommitsWhatItPrinted(t *testing.T) {
	n := node.Start(t, fast...)
	ctx := within(t)
	cl := client(t, n)
	adm := kadm.NewClient(cl)
	if _, err := adm.CreateTopic(ctx, 1, 1, nil, "lines"); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "lines", Value: fmt.Append(nil, i)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	next := 0
	for _, count := range []int{1, 5, 9} {
		out, stderr, err := n.CLI(ctx, nil, "topic", "consume", "lines", "-g", "cli", "-n", fmt.Sprint(count), "-f", "%v\n")
		if err != nil {
			t.Fatalf("%v: %s", err, stderr)
		}
		var want strings.Builder
		for range count {
			fmt.Fprintln(&want, next)
			next++
		}
		if out != want.String() {
			t.Fatalf("printed %q, want %q", out, want.String())
		}
		offsets, err := adm.FetchOffsets(ctx, "cli")
		if err != nil {
			t.Fatal(err)
		}
		if at, ok := offsets.Lookup("lines", 0); !ok || at.At != int64(next) {
			t.Fatalf("%d records were printed, committed is %+v", next, offsets)
		}
	}
	out, _, err := n.CLI(ctx, nil, "group", "describe", "cli")
	if err != nil || !strings.Contains(out, "lag 5") {
		t.Fatalf("%v: %s", err, out)
	}
}
