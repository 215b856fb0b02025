package layering

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/firnlog/firn"

// mayImport lists, for each package folder, the folders of ours it may import.
// A folder covers its subfolders unless they have a line of their own. A package
// may always import below itself.
var mayImport = map[string][]string{
	"record":              {},
	"internal/disk":       {},
	"internal/failpoint":  {},
	"internal/layering":   {},
	"internal/mutation":   {},
	"internal/space":      {},
	"tiering/format":      {"record"},
	"objectstore":         {"internal/disk", "internal/failpoint"},
	"metadata":            {"internal/disk", "internal/failpoint"},
	"localcache":          {"internal/disk", "internal/failpoint"},
	"commitlog":           {"record", "internal/disk", "internal/failpoint"},
	"replication":         {"commitlog", "metadata", "record", "internal/disk", "internal/failpoint"},
	"tiering":             {"commitlog", "metadata", "objectstore", "record", "tiering/format", "internal/disk", "internal/failpoint"},
	"fetch":               {"replication", "tiering", "tiering/format", "localcache", "objectstore", "commitlog", "metadata", "record", "internal/disk", "internal/failpoint"},
	"group":               {"replication", "metadata", "record", "internal/failpoint"},
	"security":            {"metadata"},
	"broker":              {"security", "fetch", "replication", "tiering", "group", "commitlog", "metadata", "record", "internal/disk", "internal/failpoint"},
	"admin":               {"broker", "security", "fetch", "replication", "tiering", "group", "commitlog", "metadata", "record", "localcache", "objectstore"},
	"cmd":                 {"*"},
	"integration":         {"objectstore", "record", "tiering/format", "integration", "internal/failpoint"},
	"bench":               {"bench", "integration/s3/proxy"},
	"docs":                {},
	"deploy":              {},
	"scripts":             {},
	"internal/goldentest": {"*"},
}

// address lists, for each third party, the only folders that may import it.
// Tests are free.
var address = map[string][]string{
	"github.com/nats-io/":               {"metadata/jetstream"},
	"github.com/aws/":                   {"objectstore/s3"},
	"github.com/minio/minio-go":         {"objectstore/s3"},
	"github.com/twmb/franz-go/pkg/kmsg": {"broker", "replication", "group", "cmd/firn", "integration", "bench"},
	"github.com/twmb/franz-go/pkg/kgo":  {"cmd/firn", "replication", "integration", "bench"},
	"github.com/twmb/franz-go/pkg/kadm": {"cmd/firn", "integration", "bench"},
	"github.com/spf13/":                 {"cmd/firn"},
	"github.com/testcontainers/":        {"integration"},
	"github.com/prometheus/":            {"*"},
	"github.com/klauspost/compress":     {"record", "tiering/format", "metadata", "bench"},
	"github.com/pierrec/lz4":            {"record"},
	"google.golang.org/protobuf":        {"tiering/format"},
}

// seams may call the outside world directly; everyone else is given it.
var seams = []string{"cmd", "internal/disk", "objectstore/file", "objectstore/s3", "metadata/jetstream", "integration", "bench", "internal/failpoint", "internal/mutation"}

// outside are the calls that only a seam may make.
var outside = []string{
	"time.Now", "time.Since", "time.Until",
	"os.Open", "os.OpenFile", "os.Create", "os.ReadFile", "os.WriteFile", "os.Rename", "os.Remove", "os.RemoveAll", "os.Mkdir", "os.MkdirAll", "os.ReadDir", "os.Stat",
	"net.Dial", "net.DialTimeout", "net.DialTCP", "net.Listen", "net.ListenPacket", "net.ListenTCP",
}

type source struct {
	path string // relative, slash separated
	dir  string
	file *ast.File
	test bool
}

func load(t *testing.T) []source {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var all []source
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); p != root && (strings.HasPrefix(n, ".") || n == "testdata" || n == "node_modules" || n == "firn-data") {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil && p != root {
				return filepath.SkipDir // a module of its own
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, 0)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		all = append(all, source{path: rel, dir: filepath.ToSlash(filepath.Dir(rel)), file: f, test: strings.HasSuffix(rel, "_test.go")})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("found only %d Go files below %s: the walk is broken", len(all), root)
	}
	return all
}

func under(dir, folder string) bool { return dir == folder || strings.HasPrefix(dir, folder+"/") }

// ruleFor returns the longest folder of mayImport that covers dir.
func ruleFor(dir string) (string, []string, bool) {
	best := ""
	for folder := range mayImport {
		if under(dir, folder) && len(folder) > len(best) {
			best = folder
		}
	}
	allowed, ok := mayImport[best]
	return best, allowed, ok
}

// TestArrowsPointOneWay fails for an import between our packages that the table
// does not allow, and for a package that has no line in it.
func TestArrowsPointOneWay(t *testing.T) {
	for _, s := range load(t) {
		if s.test || s.dir == "." {
			continue
		}
		folder, allowed, ok := ruleFor(s.dir)
		if !ok {
			t.Errorf("%s: folder %s has no line in the table of internal/layering: give it one", s.path, s.dir)
			continue
		}
		if slices.Contains(allowed, "*") {
			continue
		}
		for _, imp := range s.file.Imports {
			path, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			rest, ours := strings.CutPrefix(path, module+"/")
			if !ours || under(rest, folder) {
				continue
			}
			target, _, _ := ruleFor(rest)
			if !slices.ContainsFunc(allowed, func(a string) bool { return a == target || (under(rest, a) && a == rest) }) {
				t.Errorf("%s imports %s: %s may import only %v", s.path, rest, folder, allowed)
			}
		}
	}
}

// TestThirdPartiesHaveOneAddress fails when a library leaves its folder.
func TestThirdPartiesHaveOneAddress(t *testing.T) {
	for _, s := range load(t) {
		if s.test || s.dir == "." {
			continue
		}
		for _, imp := range s.file.Imports {
			path, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			for lib, folders := range address {
				if !strings.HasPrefix(path, lib) || slices.Contains(folders, "*") {
					continue
				}
				if !slices.ContainsFunc(folders, func(f string) bool { return under(s.dir, f) }) {
					t.Errorf("%s imports %s, whose only address is %v", s.path, path, folders)
				}
			}
		}
	}
}

// TestOutsideWorldEntersThroughSeams fails when code other than a seam reads the
// wall clock, opens a file or dials by itself.
func TestOutsideWorldEntersThroughSeams(t *testing.T) {
	for _, s := range load(t) {
		if s.test || s.dir == "." || slices.ContainsFunc(seams, func(f string) bool { return under(s.dir, f) }) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := sel.X.(*ast.Ident)
			if !ok || pkg.Obj != nil {
				return true
			}
			name := pkg.Name + "." + sel.Sel.Name
			if !slices.Contains(outside, name) {
				return true
			}
			t.Errorf("%s uses %s: take it from the seam given at construction", s.path, name)
			return true
		})
	}
}
