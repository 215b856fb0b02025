// Package cli runs every command of the real binary against a node and holds what
// they print to files: JSON has the same fields with the same types in every
// version, answers go to stdout and all else to stderr, and the exit code says what
// kind of answer it was.
package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firnlog/firn/integration/node"
)

var update = flag.Bool("update", false, "write testdata from what the commands print")

// bound is how long a command may take; it is killed then, and the test fails.
const bound = 10 * time.Second

// result is what one run of a command left.
type result struct {
	line        string
	out, stderr string
	code        int
}

// firn runs a command without a broker of its own.
func firn(t *testing.T, env []string, stdin io.Reader, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	cmd := exec.CommandContext(ctx, node.Binary(t), args...)
	cmd.Env = append(os.Environ(), env...)
	var out, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &stderr
	err := cmd.Run()
	r := result{"firn " + strings.Join(args, " "), out.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	if exited := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exited) || ctx.Err() != nil {
		t.Fatalf("%s: %v after %v; printed %q and %q", r.line, err, bound, r.out, r.stderr)
	}
	return r
}

// on runs a command against a node.
func on(t *testing.T, n *node.Node, args ...string) result {
	t.Helper()
	return firn(t, []string{"FIRN_BROKERS=" + n.Addr}, nil, args...)
}

// ok fails the test unless the command did what it was told, in silence.
func (r result) ok(t *testing.T) string {
	t.Helper()
	if r.code != 0 || r.stderr != "" {
		t.Fatalf("%s: exit code %d: %s", r.line, r.code, r.stderr)
	}
	return r.out
}

// fails fails the test unless the command ended with a code and one line that has
// all of these words.
func (r result) fails(t *testing.T, code int, words ...string) {
	t.Helper()
	if r.code != code || strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("%s: exit code %d, want %d and one line; stderr %q", r.line, r.code, code, r.stderr)
	}
	for _, w := range words {
		if !strings.Contains(r.stderr, w) {
			t.Errorf("%s says %q, without %q", r.line, r.stderr, w)
		}
	}
}

// golden compares the JSON values that a command printed with testdata/name.json,
// after the values of the fields that vary are replaced by their type.
func golden(t *testing.T, name, printed string, vary ...string) {
	t.Helper()
	var got bytes.Buffer
	d := json.NewDecoder(strings.NewReader(printed))
	d.UseNumber()
	for {
		var v any
		if err := d.Decode(&v); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%s: %v in %s", name, err, printed)
		}
		enc := json.NewEncoder(&got)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(shape(v, vary)); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || got.String() != string(want) {
		t.Errorf("%s, %v: the command says\n%s\nand the file\n%s", name, err, got.String(), want)
	}
}

// shape replaces the values of fields that vary by their type.
func shape(v any, vary []string) any {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			if !slices.Contains(vary, k) {
				v[k] = shape(x, vary)
				continue
			}
			switch x.(type) {
			case string:
				v[k] = "<string>"
			case json.Number:
				v[k] = "<number>"
			case []any:
				v[k] = "<list>"
			}
		}
	case []any:
		for i := range v {
			v[i] = shape(v[i], vary)
		}
	}
	return v
}

// TestCommands is every command on one node that they share.
func TestCommands(t *testing.T) {
	n := node.Start(t, "--set", "group.initial.rebalance.delay.ms=0")
	for name, test := range map[string]func(*testing.T, *node.Node){
		"topic create":           topicCreate,
		"topic list":             topicList,
		"topic describe":         topicDescribe,
		"topic delete":           topicDelete,
		"topic alter-config":     topicAlterConfig,
		"topic add-partitions":   topicAddPartitions,
		"topic trim-prefix":      topicTrimPrefix,
		"topic produce":          topicProduce,
		"topic consume":          topicConsume,
		"ranges":                 ranges,
		"far timestamps":         farTimestamps,
		"topic storage describe": storageDescribe,
		"group":                  group,
		"bucket ls":              bucketLs,
		"health":                 health,
		"brokers":                brokers,
		"missing topics":         missing,
		"internal topics":        internal,
		"progress":               progress,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, n)
		})
	}
}

// create makes a topic for a test.
func create(t *testing.T, n *node.Node, topic string, args ...string) {
	t.Helper()
	on(t, n, append([]string{"topic", "create", topic}, args...)...).ok(t)
}

// produce sends lines to a topic.
func produce(t *testing.T, n *node.Node, topic, lines string, args ...string) {
	t.Helper()
	r := firn(t, []string{"FIRN_BROKERS=" + n.Addr}, strings.NewReader(lines), append([]string{"topic", "produce", topic}, args...)...)
	if want := fmt.Sprintf("%d records acknowledged\n", strings.Count(lines, "\n")); r.code != 0 || r.out != "" || r.stderr != want {
		t.Fatalf("%s: exit code %d, printed %q and %q", r.line, r.code, r.out, r.stderr)
	}
}

func topicCreate(t *testing.T, n *node.Node) {
	golden(t, "topic-create", on(t, n, "topic", "create", "c1", "c2", "-p", "3", "-c", "retention.ms=86400000", "-o", "json").ok(t), "topic_id")
	again := on(t, n, "topic", "create", "c1", "-o", "json")
	again.fails(t, 1, `"exit_code":1`, "exists already", "firn topic describe c1")
	golden(t, "topic-create-again", again.out)
	if got := on(t, n, "topic", "create", "c3").ok(t); got != "c3  created\n" {
		t.Errorf("printed %q", got)
	}
	on(t, n, "topic", "create", "c4", "--dry-run").ok(t)
	on(t, n, "topic", "describe", "c4").fails(t, 1, "does not exist")
	on(t, n, "topic", "create", "a/b").fails(t, 1, "a/b")
	on(t, n, "topic", "create", "c5", "-c", "segment.bytes=x").fails(t, 1, "segment.bytes")
}

func topicList(t *testing.T, n *node.Node) {
	create(t, n, "listed", "-p", "2")
	var rows []map[string]any
	if err := json.Unmarshal([]byte(on(t, n, "topic", "list", "-o", "json").ok(t)), &rows); err != nil {
		t.Fatal(err)
	}
	rows = slices.DeleteFunc(rows, func(r map[string]any) bool { return r["topic"] != "listed" })
	raw, err := json.Marshal(rows)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "topic-list", string(raw), "topic_id")
	if got := on(t, n, "topic", "list").ok(t); !strings.HasPrefix(got, "TOPIC") || !strings.Contains(got, "listed") {
		t.Errorf("printed %q", got)
	}
}

func topicDescribe(t *testing.T, n *node.Node) {
	create(t, n, "described", "-p", "2", "-c", "segment.bytes=1048576")
	produce(t, n, "described", "a\nb\n", "-p", "1")
	var all []map[string]any
	d := json.NewDecoder(strings.NewReader(on(t, n, "topic", "describe", "described", "-o", "json").ok(t)))
	d.UseNumber()
	if err := d.Decode(&all); err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	// One configuration shows the shape of them all.
	configs, _ := all[0]["configs"].([]any)
	all[0]["configs"] = slices.DeleteFunc(configs, func(c any) bool { return c.(map[string]any)["key"] != "segment.bytes" })
	raw, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "topic-describe", string(raw), "topic_id", "leader_epoch")
	if got := on(t, n, "topic", "describe", "described").ok(t); !strings.Contains(got, "topic described  id ") || !strings.Contains(got, "segment.bytes") {
		t.Errorf("printed %q", got)
	}
}

func topicDelete(t *testing.T, n *node.Node) {
	create(t, n, "d1")
	unsure := firn(t, []string{"FIRN_BROKERS=" + n.Addr}, strings.NewReader("no\n"), "topic", "delete", "d1")
	if unsure.code != 2 || !strings.Contains(unsure.stderr, "add -y") || unsure.out != "" {
		t.Errorf("%s: exit code %d, %q, %q", unsure.line, unsure.code, unsure.out, unsure.stderr)
	}
	on(t, n, "topic", "describe", "d1").ok(t)
	golden(t, "topic-delete", on(t, n, "topic", "delete", "d1", "-y", "-o", "json").ok(t))
	gone := on(t, n, "topic", "delete", "d1", "-y", "-o", "json")
	gone.fails(t, 1, "does not exist", "firn topic list")
	golden(t, "topic-delete-missing", gone.out)
}

func topicAlterConfig(t *testing.T, n *node.Node) {
	create(t, n, "altered")
	golden(t, "topic-alter-config", on(t, n, "topic", "alter-config", "altered", "--set", "retention.ms=5000", "--set", "max.message.bytes=99", "-o", "json").ok(t))
	on(t, n, "topic", "alter-config", "altered", "--unset", "max.message.bytes").ok(t)
	got := on(t, n, "topic", "describe", "altered").ok(t)
	if !strings.Contains(got, "5000") || strings.Contains(got, " 99 ") {
		t.Errorf("describe says %s", got)
	}
	wrong := on(t, n, "topic", "alter-config", "altered", "--set", "no.such=1", "-o", "json")
	wrong.fails(t, 1, "no.such")
	golden(t, "topic-alter-config-unknown", wrong.out, "error")
}

func topicAddPartitions(t *testing.T, n *node.Node) {
	create(t, n, "grown", "-p", "1")
	golden(t, "topic-add-partitions", on(t, n, "topic", "add-partitions", "grown", "-n", "2", "-o", "json").ok(t))
	if got := on(t, n, "topic", "list").ok(t); !strings.Contains(strings.Join(strings.Fields(got), " "), "grown 3 1") {
		t.Errorf("list says %s", got)
	}
}

func topicTrimPrefix(t *testing.T, n *node.Node) {
	create(t, n, "trimmed", "-p", "2")
	produce(t, n, "trimmed", "a\nb\nc\nd\n", "-p", "1")
	golden(t, "topic-trim-prefix", on(t, n, "topic", "trim-prefix", "trimmed", "-O", "3", "-p", "1", "-y", "-o", "json").ok(t))
	if got := on(t, n, "topic", "consume", "trimmed", "-O", ":end", "-f", "%v\n").ok(t); got != "d\n" {
		t.Errorf("left is %q", got)
	}
	for _, p := range []string{"99", "1,99"} {
		r := on(t, n, "topic", "trim-prefix", "trimmed", "-O", "end", "-p", p, "-y")
		r.fails(t, 1, "topic trimmed has no partition 99", "firn topic describe trimmed")
	}
	if got := on(t, n, "topic", "consume", "trimmed", "-O", ":end", "-f", "%v\n").ok(t); got != "d\n" {
		t.Errorf("a refused trim has left %q", got)
	}
	beyond := on(t, n, "topic", "trim-prefix", "trimmed", "-O", "100", "-p", "1", "-y", "-o", "json")
	beyond.fails(t, 1, "trimmed-1", "offset is outside")
	golden(t, "topic-trim-prefix-beyond", beyond.out)
	on(t, n, "topic", "trim-prefix", "trimmed", "-O", "end", "-y").ok(t)
	if got := on(t, n, "topic", "consume", "trimmed", "-O", ":end").ok(t); got != "" {
		t.Errorf("left is %q", got)
	}
}

func topicProduce(t *testing.T, n *node.Node) {
	create(t, n, "filled")
	r := firn(t, []string{"FIRN_BROKERS=" + n.Addr}, strings.NewReader("a\nb\n"), "topic", "produce", "filled", "-z", "zstd", "-o", "json")
	golden(t, "topic-produce", r.ok(t))
	produce(t, n, "filled", "k1=v1\nk2=v2\n", "-f", `%k=%v\n`, "-H", "h:x")
	if got := on(t, n, "topic", "consume", "filled", "-O", "2:end", "-f", `%k %v %h{%k=%v}\n`).ok(t); got != "k1 v1 h=x\nk2 v2 h=x\n" {
		t.Errorf("consumed %q", got)
	}
	produce(t, n, "made-by-the-first-record", "x\n")
}

func health(t *testing.T, n *node.Node) {
	// Topics of other tests have no leader for a moment.
	golden(t, "health", on(t, n, "health", "--wait", "5s", "-o", "json").ok(t), "topics", "partitions")
	if got := on(t, n, "health", "--wait", "5s").ok(t); !strings.HasPrefix(got, "healthy: 1 brokers") {
		t.Errorf("printed %q", got)
	}
	nobody := "brokers=127.0.0.1:1"
	on(t, n, "health", "-X", nobody).fails(t, 10, "no broker answers at 127.0.0.1:1", "firn up", "-X brokers=HOST:PORT")
	before := time.Now()
	on(t, n, "health", "-X", nobody, "--wait", "500ms", "-o", "json").fails(t, 10, `"exit_code":10`)
	if waited := time.Since(before); waited < 500*time.Millisecond {
		t.Errorf("gave up after %v of 500 ms", waited)
	}
}

// brokers: -X goes before FIRN_BROKERS, that before the default of `firn up`.
func brokers(t *testing.T, n *node.Node) {
	dead := "127.0.0.1:1"
	for _, c := range []struct {
		env  string
		args []string
		code int
	}{
		{n.Addr, nil, 0},
		{dead, nil, 1},
		{dead, []string{"-X", "brokers=" + n.Addr}, 0},
		{n.Addr, []string{"-X", "brokers=" + dead}, 1},
		{dead + "," + n.Addr, nil, 0},
		{n.Addr, []string{"-X", "borkers=" + n.Addr}, 2},
		{"nowhere", nil, 2},
	} {
		r := firn(t, []string{"FIRN_BROKERS=" + c.env}, nil, append([]string{"topic", "list"}, c.args...)...)
		if r.code != c.code {
			t.Errorf("FIRN_BROKERS=%s %s: exit code %d, want %d: %s", c.env, r.line, r.code, c.code, r.stderr)
		}
	}
}

// missing: every command that is told the name of a topic that does not exist says
// so at once, with what to do next.
func missing(t *testing.T, n *node.Node) {
	for _, line := range []string{
		"topic describe missing", "topic delete missing -y", "topic alter-config missing --set retention.ms=1", "topic add-partitions missing -n 1",
		"topic trim-prefix missing -O 0 -y", "topic storage describe missing", "topic consume missing", "topic consume missing -O :end", "topic consume missing -O 5",
		"topic consume missing -O @-1h:end", "topic consume missing -g nobody", "topic consume missing -p 0",
	} {
		on(t, n, strings.Fields(line)...).fails(t, 1, "topic missing does not exist", "`firn topic list`")
	}
	create(t, n, "present")
	on(t, n, "topic", "consume", "present", "missing", "-O", ":end").fails(t, 1, "topic missing does not exist")
	on(t, n, "topic", "consume", "present", "-p", "99").fails(t, 1, "topic present has no partition 99", "firn topic describe present")
	on(t, n, "group", "describe", "missing").fails(t, 1, "group missing does not exist", "firn group list")
}

// internal topics are looked at and read by name, as others are.
func internal(t *testing.T, n *node.Node) {
	create(t, n, "committed-from")
	produce(t, n, "committed-from", "a\n")
	on(t, n, "topic", "consume", "committed-from", "-g", "internal", "-n", "1").ok(t)
	if got := on(t, n, "topic", "consume", "__consumer_offsets", "-O", ":end", "-f", "%t\n").ok(t); !strings.HasPrefix(got, "__consumer_offsets\n") {
		t.Errorf("printed %q", got)
	}
	var d struct {
		Partitions []struct {
			End int64 `json:"end_offset"`
		} `json:"partitions"`
	}
	if err := json.Unmarshal([]byte(on(t, n, "topic", "storage", "describe", "__consumer_offsets", "-o", "json").ok(t)), &d); err != nil || len(d.Partitions) == 0 {
		t.Errorf("%+v, %v", d, err)
	}
	for _, p := range d.Partitions {
		if p.End < 0 {
			t.Errorf("an end of %d", p.End)
		}
	}
	if got := on(t, n, "topic", "describe", "__consumer_offsets").ok(t); strings.Contains(got, "-1  -1") {
		t.Errorf("described without offsets: %s", got)
	}
	if got := on(t, n, "topic", "list", "-i").ok(t); !strings.Contains(got, "__consumer_offsets") {
		t.Errorf("printed %q", got)
	}
}
