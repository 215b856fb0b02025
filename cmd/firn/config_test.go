package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// load resolves a configuration from flags, environment and the text of a file.
func load(t *testing.T, args, env []string, file string) (Config, []string, error) {
	t.Helper()
	f := pflag.NewFlagSet("up", pflag.ContinueOnError)
	upFlags(f)
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		t.Setenv(k, v)
	}
	path := ""
	if file != "" {
		path = filepath.Join(t.TempDir(), "firn.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return loadConfig(f, path, env)
}

// field is the value of the field of a name of the configuration.
func field(t *testing.T, c Config, name string) any {
	t.Helper()
	v := reflect.ValueOf(c)
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("mapstructure") == name {
			return v.Field(i).Interface()
		}
	}
	t.Fatalf("no field for %s", name)
	return nil
}

// TestTheNearestSourceWins gives one value of each kind from every source: a flag
// goes before the environment, that before the file, that before the default.
func TestTheNearestSourceWins(t *testing.T) {
	list := func(s ...string) any { return s }
	for _, c := range []struct {
		name      string
		fallback  any
		file      string
		fromFile  any
		env       string
		fromEnv   any
		flags     []string
		fromFlags any
	}{
		{name: "cluster", fallback: "firn", file: "cluster: of-file", fromFile: "of-file", env: "of-env", fromEnv: "of-env", flags: []string{"--cluster", "of-flag"}, fromFlags: "of-flag"},
		{name: "cache-size", fallback: "1GiB", file: "cache-size: 2GiB", fromFile: "2GiB", env: "3GiB", fromEnv: "3GiB", flags: []string{"--cache-size=4GiB"}, fromFlags: "4GiB"},
		{name: "memory-limit", fallback: "", file: "memory-limit: 1073741824", fromFile: "1073741824", env: "2147483648", fromEnv: "2147483648", flags: []string{"--memory-limit=1GiB"}, fromFlags: "1GiB"},
		{name: "kafka-addr", fallback: "127.0.0.1:9092", file: "kafka-addr: 127.0.0.1:1", fromFile: "127.0.0.1:1", env: "127.0.0.1:2", fromEnv: "127.0.0.1:2", flags: []string{"--kafka-addr=127.0.0.1:3"}, fromFlags: "127.0.0.1:3"},
		{name: "ephemeral", fallback: false, file: "ephemeral: true", fromFile: true, env: "false", fromEnv: false, flags: []string{"--ephemeral"}, fromFlags: true},
		{name: "admin-remote", fallback: false, file: "admin-remote: true", fromFile: true, env: "false", fromEnv: false, flags: []string{"--admin-remote=true"}, fromFlags: true},
		{
			name: "set", fallback: list(), file: "set: [log.retention.hours=1, auto.create.topics.enable=false]", fromFile: list("log.retention.hours=1", "auto.create.topics.enable=false"),
			env: "log.retention.hours=2,log.roll.ms=7", fromEnv: list("log.retention.hours=2", "log.roll.ms=7"),
			flags: []string{"--set", "log.retention.hours=3", "--set", "log.roll.ms=8"}, fromFlags: list("log.retention.hours=3", "log.roll.ms=8"),
		},
		{
			name: "listener", fallback: list(), file: "listener:\n  - A=127.0.0.1:1;advertise=a:1", fromFile: list("A=127.0.0.1:1;advertise=a:1"),
			env: "A=127.0.0.1:1,B=127.0.0.1:2;protocol=PLAINTEXT", fromEnv: list("A=127.0.0.1:1", "B=127.0.0.1:2;protocol=PLAINTEXT"),
			flags: []string{"--listener", "C=127.0.0.1:3", "--listener", "D=127.0.0.1:4"}, fromFlags: list("C=127.0.0.1:3", "D=127.0.0.1:4"),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			variable := "FIRN_" + strings.ToUpper(strings.ReplaceAll(c.name, "-", "_"))
			check := func(what string, args, env []string, file string, want any) {
				t.Helper()
				t.Run(what, func(t *testing.T) {
					cfg, warnings, err := load(t, args, env, file)
					if err != nil || len(warnings) > 0 {
						t.Fatal(err, warnings)
					}
					if got := field(t, cfg, c.name); fmt.Sprint(got) != fmt.Sprint(want) {
						t.Errorf("%v, want %v", got, want)
					}
				})
			}
			env := []string{variable + "=" + c.env}
			check("default", nil, nil, "", c.fallback)
			check("file", nil, nil, c.file, c.fromFile)
			check("environment", nil, env, c.file, c.fromEnv)
			check("flag", c.flags, env, c.file, c.fromFlags)
		})
	}
}

// TestEveryFlagHasAField keeps flags and Config from growing apart: a value that no
// field takes would be read and dropped.
func TestEveryFlagHasAField(t *testing.T) {
	f := pflag.NewFlagSet("up", pflag.ContinueOnError)
	upFlags(f)
	f.VisitAll(func(fl *pflag.Flag) { field(t, Config{}, fl.Name) })
	flags := 0
	f.VisitAll(func(*pflag.Flag) { flags++ })
	if fields := reflect.TypeFor[Config]().NumField(); fields != flags {
		t.Errorf("%d fields and %d flags", fields, flags)
	}
}

// TestUnknownKeysAreErrors names the nearest key, wherever the unknown one stands
// in the file, and all of them at once.
func TestUnknownKeysAreErrors(t *testing.T) {
	for file, want := range map[string][]string{
		"data-dri: /tmp":                          {`unknown key "data-dri" (did you mean "data-dir"?)`},
		"log.level: debug":                        {`unknown key "log.level" (did you mean "log-level"?)`},
		"log-level.x: debug":                      {`unknown key "log-level.x" (did you mean "log-level"?)`},
		"data:\n  dir: /tmp":                      {`unknown key "data.dir" (did you mean "data-dir"?)`},
		"cluster: a\nbukcet: b\nlog_format: text": {`unknown key "bukcet" (did you mean "bucket"?)`, `unknown key "log_format" (did you mean "log-format"?)`},
		"quite.another: 1":                        {`unknown key "quite.another"`},
		"output: json":                            {`unknown key "output"`},
	} {
		t.Run(file, func(t *testing.T) {
			_, _, err := load(t, nil, nil, file)
			for _, w := range want {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("%v, want %s", err, w)
				}
			}
		})
	}
	if _, _, err := load(t, nil, nil, "log-level: ["); err == nil {
		t.Error("a file that is no YAML was taken")
	}
	f := pflag.NewFlagSet("up", pflag.ContinueOnError)
	upFlags(f)
	if _, _, err := loadConfig(f, filepath.Join(t.TempDir(), "none.yaml"), nil); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("a missing file: %v", err)
	}
}

// TestUnknownEnvironmentOnlyWarns leaves an orchestrator its own variables.
func TestUnknownEnvironmentOnlyWarns(t *testing.T) {
	env := []string{"FIRN_DATADIR=/x", "FIRN_SERVICE_HOST=10.0.0.1", "FIRN_CLUSTER=c", "FIRN_BROKERS=a:1", "PATH=/bin"}
	cfg, warnings, err := load(t, nil, env, "")
	if err != nil || cfg.Cluster != "c" {
		t.Fatal(cfg.Cluster, err)
	}
	want := []string{
		`unknown environment variable FIRN_DATADIR is ignored (did you mean "FIRN_DATA_DIR"?)`,
		"unknown environment variable FIRN_SERVICE_HOST is ignored",
	}
	if !slices.Equal(warnings, want) {
		t.Errorf("%q", warnings)
	}
}

// TestEveryFaultIsReportedAtOnce gives many wrong values and wants each named.
func TestEveryFaultIsReportedAtOnce(t *testing.T) {
	_, _, err := load(t, []string{
		"--cluster", "a/b", "--admin-addr", "0.0.0.0:1", "--kafka-addr", "9092", "--memory-limit", "much", "--cache-size", "-1", "--upload-rate", "fast",
		"--disk-reserve", "5%", "--set", "novalue", "--set", "no.such.property=1", "--set", "log.segment.bytes=x", "--log-level", "loud", "--log-format", "xml", "--data-dir", "",
	}, nil, "")
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{
		`--cluster "a/b"`, "add --admin-remote", `--kafka-addr "9092"`, "--memory-limit", "--cache-size", "--upload-rate", "--disk-reserve", `--set "novalue"`,
		"no.such.property", "log.segment.bytes", `--log-level "loud"`, `--log-format "xml"`, "--data-dir is empty",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}

// TestValidate is one fault, or none, at a time.
func TestValidate(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string // of the error; empty for none
	}{
		{nil, ""},
		{[]string{"--admin-addr", "127.0.0.2:1"}, ""},
		{[]string{"--admin-addr", "[::1]:1"}, ""},
		{[]string{"--admin-addr", "localhost:1"}, ""},
		{[]string{"--admin-addr", "10.0.0.1:1"}, "--admin-remote"},
		{[]string{"--admin-addr", ":9644"}, "--admin-remote"},
		{[]string{"--admin-addr", "example.org:1"}, "--admin-remote"},
		{[]string{"--admin-addr", "0.0.0.0:1", "--admin-remote"}, ""},
		{[]string{"--admin-addr", "nine"}, "want HOST:PORT"},
		{[]string{"--cluster", strings.Repeat("c", 64)}, ""},
		{[]string{"--cluster", strings.Repeat("c", 65)}, "--cluster"},
		{[]string{"--data-dir", "", "--ephemeral"}, ""},
		{[]string{"--kafka-addr", ":9092"}, "name the host"},
		{[]string{"--listener", "A=127.0.0.1:1", "--listener", "B=127.0.0.1:2"}, ""},
		{[]string{"--listener", "A=127.0.0.1:1", "--listener", "A=127.0.0.1:2"}, "the name A is taken"},
		{[]string{"--listener", "A=127.0.0.1:1", "--listener", "a=127.0.0.1:2"}, "the name a is taken"},
		{[]string{"--listener", "A=127.0.0.1"}, "want NAME=HOST:PORT"},
		{[]string{"--kafka-addr", "bad", "--listener", "A=127.0.0.1:1"}, ""},
		{[]string{"--memory-limit", "64MiB"}, ""},
		{[]string{"--memory-limit", "63MiB"}, "at least 64.0 MiB"},
		{[]string{"--memory-limit", "0"}, "at least 64.0 MiB"},
		{[]string{"--set", "log.retention.hours=24"}, ""},
		{[]string{"--set", "=1"}, "want KEY=VALUE"},
	} {
		_, _, err := load(t, c.args, nil, "")
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.args, err, c.want)
		}
	}
}

// TestParseSize reads numbers with and without units, and refuses the rest.
func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "1": 1, "1048576": 1 << 20, "7B": 7, "1KiB": 1 << 10, "512MiB": 512 << 20, "2GiB": 2 << 30, "1.5GiB": 3 << 29, "1TiB": 1 << 40,
		"10KB": 10_000, "10MB": 10_000_000, "10GB": 10_000_000_000, "1TB": 1_000_000_000_000, "5 MiB": 5 << 20,
		"": -1, "MiB": -1, "-1": -1, "-1GiB": -1, "1Gib": -1, "1G": -1, "ten": -1, "NaN": -1, "Inf": -1, "9e30": -1, "0x10": -1,
	} {
		got, err := parseSize(s)
		if want < 0 && err == nil || want >= 0 && (err != nil || got != want) {
			t.Errorf("%q is %d, %v; want %d", s, got, err, want)
		}
	}
}

// TestDidYouMean names what is near, the nearest first, and nothing when all is far.
func TestDidYouMean(t *testing.T) {
	names := []string{"create", "list", "describe", "delete", "data-dir"}
	for word, want := range map[string]string{
		"crate": "create", "lst": "list", "lsit": "list", "describ": "describe", "delet": "delete", "data_dir": "data-dir", "data.dir": "data-dir",
		"": "", "x": "", "quux": "", "consume": "", "create": "create",
	} {
		hint := ""
		if want != "" {
			hint = fmt.Sprintf(" (did you mean %q?)", want)
		}
		if got := didYouMean(word, names); got != hint {
			t.Errorf("%q: %q, want %q", word, got, hint)
		}
	}
}
