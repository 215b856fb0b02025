// Command firn is a tiered-storage log service that speaks the Kafka protocol,
// and the tool to use it with. `firn up` serves; the other commands are Kafka
// clients like any other and work against any broker.
//
// Read main.go (the command tree and exit codes), config.go (what `firn up` can
// be told), up.go and wiring.go (how a node is put together and taken apart),
// then one file a noun: topic.go, produce.go, consume.go, storage.go, group.go,
// bucket.go, health.go.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// version is set by the linker.
var version = "dev"

// Exit codes, the same for every command.
const (
	exitFailure   = 1
	exitUsage     = 2
	exitUnhealthy = 10
	exitTimeout   = 124
)

// codedError carries the exit code that its command wants.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

func usageError(format string, a ...any) error {
	return &codedError{exitUsage, fmt.Errorf(format, a...)}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	code := exitFailure
	var coded *codedError
	switch {
	case errors.As(err, &coded):
		code = coded.code
	case errors.Is(err, context.DeadlineExceeded):
		code = exitTimeout
	case strings.HasPrefix(err.Error(), "unknown command"), strings.HasPrefix(err.Error(), "accepts "),
		strings.HasPrefix(err.Error(), "requires at least"), strings.HasPrefix(err.Error(), "required flag"):
		code = exitUsage
	}
	if out, _ := root.PersistentFlags().GetString("output"); out == "json" {
		raw, _ := json.Marshal(map[string]any{"error": err.Error(), "exit_code": code})
		fmt.Fprintln(os.Stderr, string(raw))
	} else {
		fmt.Fprintln(os.Stderr, "firn:", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return code
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "firn",
		Short:         "A tiered-storage log service that speaks the Kafka protocol",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				var names []string
				for _, c := range cmd.Commands() {
					names = append(names, c.Name())
				}
				return usageError("unknown command %q%s; see firn --help", args[0], didYouMean(args[0], names))
			}
			return cmd.Help()
		},
	}
	pf := root.PersistentFlags()
	pf.StringP("output", "o", "text", "shape of the answer: text or json, where integers have all their 64 bits")
	pf.StringArrayP("option", "X", nil, "KEY=VALUE for this call: brokers=HOST:PORT[,HOST:PORT]")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
		if _, name, ok := strings.Cut(err.Error(), "unknown flag: "); ok {
			return usageError("unknown flag %s%s; see firn %s --help", name, didYouMean(name, names), cmd.Name())
		}
		return usageError("%w; see firn %s --help", err, cmd.Name())
	})
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if o, _ := cmd.Flags().GetString("output"); o != "text" && o != "json" {
			return usageError("-o %s: want text or json (a record's format in consume is -f)", o)
		}
		return nil
	}
	root.AddCommand(newUp(), newTopic(), newGroup(), newBucket(), newHealth(), newVersion())
	return root
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := struct {
				Version string `json:"version"`
				Go      string `json:"go"`
			}{version, goVersion()}
			return emit(cmd, v, func(w *tabular) { w.line("firn %s (%s)", v.Version, v.Go) })
		},
	}
}
