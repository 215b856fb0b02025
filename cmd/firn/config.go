package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// Config is everything `firn up` can be told. A value comes from a flag, else
// from FIRN_<NAME> in the environment, else from the file, else from the default
// below. Names are the same everywhere: --data-dir, FIRN_DATA_DIR, data-dir.
type Config struct {
	DataDir     string   `mapstructure:"data-dir"`
	KafkaAddr   string   `mapstructure:"kafka-addr"`
	Listener    []string `mapstructure:"listener"`
	AdminAddr   string   `mapstructure:"admin-addr"`
	AdminRemote bool     `mapstructure:"admin-remote"`
	Bucket      string   `mapstructure:"bucket"`
	CacheSize   string   `mapstructure:"cache-size"`
	UploadRate  string   `mapstructure:"upload-rate"`
	DiskReserve string   `mapstructure:"disk-reserve"`
	Cluster     string   `mapstructure:"cluster"`
	MemoryLimit string   `mapstructure:"memory-limit"`
	Ephemeral   bool     `mapstructure:"ephemeral"`
	Set         []string `mapstructure:"set"`
	LogLevel    string   `mapstructure:"log-level"`
	LogFormat   string   `mapstructure:"log-format"`
}

// defaultCluster is the name of a cluster that was given none.
const defaultCluster = "firn"

// upFlags declares the flags of `firn up`; their defaults are the defaults.
func upFlags(f *pflag.FlagSet) {
	f.String("data-dir", "./firn-data", "folder for everything this node keeps")
	f.String("kafka-addr", "127.0.0.1:9092", "HOST:PORT of the Kafka listener (short for --listener PLAINTEXT=HOST:PORT)")
	f.StringArray("listener", nil, "NAME=HOST:PORT[;advertise=HOST:PORT][;protocol=PLAINTEXT], repeatable; replaces --kafka-addr")
	f.String("admin-addr", "127.0.0.1:9644", "HOST:PORT of /readyz, /livez, /metrics and /debug/pprof")
	f.Bool("admin-remote", false, "allow an --admin-addr that is not loopback (metrics and profiles become readable from there)")
	f.String("bucket", "", "file:///PATH or s3://BUCKET/PREFIX?endpoint=URL&region=R&path-style=true&driver=aws|minio (default a folder of the data dir)")
	f.String("cache-size", "1GiB", "local disk for chunks read back from the bucket")
	f.String("upload-rate", "", "bytes per second for uploads, such as 50MiB (default no limit)")
	f.String("disk-reserve", "", "free bytes of the data dir's disk below which producers are refused (default 5% of it, at most 1GiB)")
	f.String("cluster", defaultCluster, "name of the cluster")
	f.String("memory-limit", "", "soft limit of the process's memory, such as 2GiB (default 60% of the cgroup's or the machine's)")
	f.Bool("ephemeral", false, "keep everything in a fresh temporary folder and remove it on exit")
	f.StringArray("set", nil, "KEY=VALUE, a Kafka broker property such as log.retention.hours=24, repeatable")
	f.String("log-level", "info", "debug, info, warn or error")
	f.String("log-format", "auto", "text, json, or auto (text on a terminal)")
}

// knownEnv are FIRN_ variables that other parts of firn read.
var knownEnv = []string{"FIRN_CONFIG", "FIRN_BROKERS", "FIRN_FAILPOINTS", "FIRN_TOOLS", "FIRN_SEEDS"}

// loadConfig resolves the configuration. Unknown keys in the file are errors
// that name the nearest key; unknown FIRN_ variables only come back as warnings,
// because orchestrators put variables of their own into the environment.
func loadConfig(f *pflag.FlagSet, file string, environ []string) (cfg Config, warnings []string, err error) {
	v := viper.NewWithOptions(viper.ExperimentalBindStruct(), viper.EnvKeyReplacer(strings.NewReplacer("-", "_")))
	v.SetEnvPrefix("FIRN")
	v.AutomaticEnv()
	var names []string
	f.VisitAll(func(fl *pflag.Flag) {
		if fl.Name == "help" || fl.Name == "config" || fl.Name == "output" || fl.Name == "option" {
			return
		}
		names = append(names, fl.Name)
		if e := v.BindPFlag(fl.Name, fl); e != nil {
			err = errors.Join(err, e)
		}
	})
	if err != nil {
		return cfg, nil, err
	}
	if file != "" {
		v.SetConfigFile(file)
		if filepath.Ext(file) == "" {
			v.SetConfigType("yaml")
		}
		if err := v.ReadInConfig(); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return cfg, nil, fmt.Errorf("config file %s does not exist", file)
			}
			return cfg, nil, fmt.Errorf("read config file %s: %w", file, err)
		}
		if err := unknownKeys(v.ConfigFileUsed(), names); err != nil {
			return cfg, nil, err
		}
	}
	if err := v.UnmarshalExact(&cfg); err != nil {
		return cfg, nil, fmt.Errorf("configuration: %w", err)
	}
	// An environment variable holds one list item a comma.
	if len(cfg.Listener) == 1 && strings.Contains(cfg.Listener[0], ",") {
		cfg.Listener = strings.Split(cfg.Listener[0], ",")
	}
	if len(cfg.Set) == 1 && strings.Contains(cfg.Set[0], ",") && !f.Changed("set") {
		cfg.Set = strings.Split(cfg.Set[0], ",")
	}
	return cfg, unknownEnv(environ, names), cfg.validate()
}

// unknownKeys are the keys of the file that no flag has. The file is read by itself:
// among the keys of all sources, one of its own cannot be told for sure.
func unknownKeys(file string, names []string) error {
	v := viper.New()
	v.SetConfigFile(file)
	if filepath.Ext(file) == "" {
		v.SetConfigType("yaml")
	}
	if err := v.ReadInConfig(); err != nil {
		return fmt.Errorf("read config file %s: %w", file, err)
	}
	var errs []error
	for _, key := range slices.Sorted(slices.Values(v.AllKeys())) {
		if !slices.Contains(names, key) {
			errs = append(errs, fmt.Errorf("config file %s: unknown key %q%s", file, key, didYouMean(key, names)))
		}
	}
	return errors.Join(errs...)
}

func unknownEnv(environ, names []string) (warnings []string) {
	known := slices.Clone(knownEnv)
	for _, n := range names {
		known = append(known, "FIRN_"+strings.ToUpper(strings.ReplaceAll(n, "-", "_")))
	}
	for _, kv := range environ {
		k, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(k, "FIRN_") && !slices.Contains(known, k) && !strings.HasPrefix(k, "FIRN_TEST_") {
			warnings = append(warnings, fmt.Sprintf("unknown environment variable %s is ignored%s", k, didYouMean(k, known)))
		}
	}
	sort.Strings(warnings)
	return warnings
}

// validate reports every fault at once.
func (c *Config) validate() error {
	var errs []error
	fail := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if c.DataDir == "" && !c.Ephemeral {
		fail("--data-dir is empty")
	}
	if !validCluster(c.Cluster) {
		fail("--cluster %q: use 1 to 64 of a-z A-Z 0-9 - _", c.Cluster)
	}
	host, _, err := net.SplitHostPort(c.AdminAddr)
	if err != nil {
		fail("--admin-addr %q: want HOST:PORT", c.AdminAddr)
	} else if !isLoopback(host) && !c.AdminRemote {
		fail("--admin-addr %s is not a loopback address: it serves metrics and profiles to anyone who reaches it; add --admin-remote to allow that", c.AdminAddr)
	}
	if _, _, err := net.SplitHostPort(c.KafkaAddr); err != nil && len(c.Listener) == 0 {
		fail("--kafka-addr %q: want HOST:PORT", c.KafkaAddr)
	} else if _, err := parseListeners(*c); err != nil {
		errs = append(errs, err)
	}
	if c.MemoryLimit != "" {
		if n, err := parseSize(c.MemoryLimit); err != nil {
			fail("--memory-limit: %w", err)
		} else if n < leastMemory {
			fail("--memory-limit %s: a node needs at least %s", c.MemoryLimit, humanBytes(leastMemory))
		}
	}
	if _, err := parseSize(c.CacheSize); err != nil {
		fail("--cache-size: %w", err)
	}
	if _, err := optionalSize(c.UploadRate); err != nil {
		fail("--upload-rate: %w", err)
	}
	if _, err := optionalSize(c.DiskReserve); err != nil {
		fail("--disk-reserve: %w", err)
	}
	for _, kv := range c.Set {
		if k, _, ok := strings.Cut(kv, "="); !ok || k == "" {
			fail("--set %q: want KEY=VALUE", kv)
		}
	}
	if _, err := staticConfig(*c); err != nil {
		errs = append(errs, err)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		fail("--log-level %q: want debug, info, warn or error", c.LogLevel)
	}
	if !slices.Contains([]string{"auto", "text", "json"}, c.LogFormat) {
		fail("--log-format %q: want auto, text or json", c.LogFormat)
	}
	return errors.Join(errs...)
}

func validCluster(s string) bool {
	if len(s) == 0 || len(s) > 64 {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}) < 0
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// parseSize reads 1048576, 512MiB, 2GiB, 10GB and the like.
func parseSize(s string) (int64, error) {
	units := []struct {
		suffix string
		factor int64
	}{
		{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
		{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1},
	}
	for _, u := range units {
		num, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(num), 64)
		if err != nil || !(n >= 0 && n*float64(u.factor) <= 1<<62) { // NaN is neither
			return 0, fmt.Errorf("size %q: want a number with B, KiB, MiB, GiB or TiB", s)
		}
		return int64(n * float64(u.factor)), nil
	}
	return 0, fmt.Errorf("size %q: want a number with B, KiB, MiB, GiB or TiB", s)
}

// didYouMean is ` (did you mean "x"?)` for the nearest candidate, or nothing
// when none is near.
func didYouMean(word string, candidates []string) string {
	best, bestDist := "", 1+len(word)/3
	for _, c := range candidates {
		if d := editDistance(word, c); d < bestDist || (d == bestDist && best == "") {
			best, bestDist = c, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diag := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diag
			if a[i-1] != b[j-1] {
				cost++
			}
			diag = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
