package main

import (
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// execute runs a command line that needs no broker.
func execute(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	var out strings.Builder
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(io.Discard)
	err = root.ExecuteContext(t.Context())
	return out.String(), err
}

// TestMistypedCommands are usage errors that name the nearest command, at every
// level of the tree, and with the flags of the command that was meant.
func TestMistypedCommands(t *testing.T) {
	for line, want := range map[string]string{
		"tpoic":                      `unknown command "firn tpoic" (did you mean "topic"?); see firn --help`,
		"topic crate x":              `unknown command "firn topic crate" (did you mean "create"?); see firn topic --help`,
		"topic crate x -p 3":         `unknown command "firn topic crate" (did you mean "create"?); see firn topic --help`,
		"topic crate x --partitions": `unknown command "firn topic crate" (did you mean "create"?); see firn topic --help`,
		"group lst":                  `unknown command "firn group lst" (did you mean "list"?); see firn group --help`,
		"bucket x":                   `unknown command "firn bucket x"; see firn bucket --help`,
		"topic storage x":            `unknown command "firn topic storage x"; see firn topic storage --help`,
		"up --data-dri x":            `unknown flag --data-dri (did you mean "--data-dir"?); see firn up --help`,
		"topic create a --partition": `unknown flag --partition (did you mean "--partitions"?); see firn topic create --help`,
		"health -o yaml":             `-o yaml: want text or json (a record's format in consume is -f)`,
	} {
		out, err := execute(t, strings.Fields(line)...)
		if err == nil || err.Error() != want || exitCode(err) != exitUsage || out != "" {
			t.Errorf("firn %s: %v, printed %q; want %s", line, err, out, want)
		}
	}
}

// TestWrongUsage is refused before anything is asked of a broker.
func TestWrongUsage(t *testing.T) {
	for _, line := range []string{
		"topic create", "topic delete", "topic describe", "topic alter-config a", "topic add-partitions a", "topic add-partitions a -n -1", "topic trim-prefix a -y",
		"topic trim-prefix a -O -5 -y", "topic produce", "topic produce a b", "topic produce a -z brotli", "topic produce a --acks 2", "topic produce a -H novalue",
		"topic consume", "topic consume a -O nowhere", "topic consume a -g g -O :end", "topic consume a -g g -p 1", "topic create a -c novalue", "topic storage describe",
		"group describe", "group list x", "bucket ls", "bucket ls a b", "health x", "version x", "up x", "topic list -X broker=a:1", "topic list -X brokers=nine",
	} {
		if _, err := execute(t, strings.Fields(line)...); exitCode(err) != exitUsage {
			t.Errorf("firn %s: %v has exit code %d", line, err, exitCode(err))
		}
	}
}

// TestHelpIsTrueOfEveryCommand: each has a sentence of help, and a folder by itself
// prints its commands.
func TestHelpIsTrueOfEveryCommand(t *testing.T) {
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Short == "" {
			t.Errorf("%s has no help", c.CommandPath())
		}
		if c.HasSubCommands() {
			out, err := execute(t, strings.Fields(c.CommandPath())[1:]...)
			if err != nil || !strings.Contains(out, "Available Commands") {
				t.Errorf("%s: %v, %q", c.CommandPath(), err, out)
			}
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(newRoot())
}
