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
	code := exitCode(err)
	if code == 0 {
		return 0
	}
	if out, _ := root.PersistentFlags().GetString("output"); out == "json" {
		raw, _ := json.Marshal(map[string]any{"error": err.Error(), "exit_code": code})
		fmt.Fprintln(os.Stderr, string(raw))
	} else {
		fmt.Fprintln(os.Stderr, "firn:", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return code
}

func exitCode(err error) int {
	var coded *codedError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &coded):
		return coded.code
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	}
	for _, cobras := range []string{"unknown command", "accepts ", "requires at least", "required flag"} {
		if strings.HasPrefix(err.Error(), cobras) {
			return exitUsage
		}
	}
	return exitFailure
}

func newRoot() *cobra.Command {
	root := folder("firn", "A tiered-storage log service that speaks the Kafka protocol",
		newUp(), newTopic(), newGroup(), newBucket(), newHealth(), newVersion())
	root.SilenceUsage, root.SilenceErrors = true, true
	pf := root.PersistentFlags()
	pf.StringP("output", "o", "text", "shape of the answer: text or json, where integers have all their 64 bits")
	pf.StringArrayP("option", "X", nil, "KEY=VALUE for this call: brokers=HOST:PORT[,HOST:PORT]")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if cmd.HasSubCommands() && cmd.Flags().NArg() > 0 {
			return unknownCommand(cmd, cmd.Flags().Args()) // the flags are those of the command that was meant
		}
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
		if _, name, ok := strings.Cut(err.Error(), "unknown flag: "); ok {
			return usageError("unknown flag %s%s; see %s --help", name, didYouMean(name, names), cmd.CommandPath())
		}
		return usageError("%w; see %s --help", err, cmd.CommandPath())
	})
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if o, _ := cmd.Flags().GetString("output"); o != "text" && o != "json" {
			return usageError("-o %s: want text or json (a record's format in consume is -f)", o)
		}
		return nil
	}
	return root
}

// folder is a command that only holds others: alone it prints what those are.
func folder(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, RunE: func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(cmd, args)
		}
		return cmd.Help()
	}}
	c.AddCommand(commands...)
	return c
}

func unknownCommand(folder *cobra.Command, args []string) error {
	var names []string
	for _, c := range folder.Commands() {
		names = append(names, c.Name())
	}
	return usageError("unknown command %q%s; see %s --help", folder.CommandPath()+" "+args[0], didYouMean(args[0], names), folder.CommandPath())
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
