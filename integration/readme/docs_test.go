package readme

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// tree is what git has, and what is new and not ignored.
func tree(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestDocsNameWhatIsThere: the tests, files and folders that documents and comments
// point to exist.
func TestDocsNameWhatIsThere(t *testing.T) {
	files := tree(t)
	folders := map[string]bool{}
	var tests strings.Builder
	for _, f := range files {
		for d := filepath.Dir(f); d != "."; d = filepath.Dir(d) {
			folders[d] = true
		}
		if strings.HasSuffix(f, "_test.go") {
			tests.WriteString(read(t, f))
		}
	}
	testName := regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z][A-Za-z0-9]+\b`)
	pathName := regexp.MustCompile(`\b(?:docs|scripts|integration|bench|deploy|internal|broker|commitlog|replication|tiering|fetch|localcache|metadata|objectstore|record|group|admin|cmd/firn)/[a-z0-9_/.-]*[a-z0-9_]`)
	pointed := 0
	for _, doc := range files {
		markdown := strings.HasSuffix(doc, ".md")
		if !markdown && !strings.HasSuffix(doc, ".go") {
			continue
		}
		text := read(t, doc)
		for _, p := range pathName.FindAllString(text, -1) {
			ext := filepath.Ext(p)
			isFile := slices.Contains([]string{".go", ".md", ".sh", ".yaml", ".txt"}, ext)
			if !isFile {
				continue
			}
			pointed++
			if !slices.Contains(files, p) && !slices.Contains(files, filepath.Join(filepath.Dir(doc), p)) {
				t.Errorf("%s names %s, which is not there", doc, p)
			}
		}
		if !markdown {
			continue
		}
		for _, name := range testName.FindAllString(text, -1) {
			pointed++
			if !strings.Contains(tests.String(), "func "+name+"(") {
				t.Errorf("%s names %s, and no test is called so", doc, name)
			}
		}
	}
	if pointed < 100 {
		t.Fatalf("only %d names were found in the documents: the search is broken", pointed)
	}
}

// TestTheFileMapIsWhole: docs/ARCHITECTURE.md names every file of every package.
func TestTheFileMapIsWhole(t *testing.T) {
	_, text, ok := strings.Cut(read(t, "docs/ARCHITECTURE.md"), "\n## File map\n")
	if !ok {
		t.Fatal("no file map")
	}
	text, _, _ = strings.Cut(text, "\n## ")
	rows := map[string]string{}
	for line := range strings.Lines(text) {
		if folder, names, ok := strings.Cut(strings.TrimPrefix(line, "- `"), "`: "); ok {
			rows[folder] = names
		}
	}
	api := regexp.MustCompile(`^api_\d\d_.*\.go$`)
	named := map[string]bool{}
	for _, f := range tree(t) {
		dir, base := filepath.Dir(f), filepath.Base(f)
		if !strings.HasSuffix(f, ".go") || strings.HasSuffix(f, "_test.go") || api.MatchString(base) || base == "doc.go" {
			continue
		}
		if !regexp.MustCompile(`(^|[ (])` + regexp.QuoteMeta(base) + `\b`).MatchString(rows[dir]) {
			t.Errorf("the row of `%s` does not name %s", dir, base)
		}
		named[dir+"/"+base] = true
	}
	for dir, names := range rows {
		for _, base := range regexp.MustCompile(`\b[a-z0-9_]+\.go\b`).FindAllString(names, -1) {
			if !named[dir+"/"+base] {
				t.Errorf("the row of `%s` names %s, which is not there", dir, base)
			}
		}
	}
}
