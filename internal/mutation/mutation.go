// Package mutation takes rules out of the code, one at a time, and sees whether a
// test notices: a rule whose absence nobody notices is not tested.
//
// Each package keeps its mutants in mutants_test.go. In every run of the tests it
// is only checked that they still apply; with FIRN_TEST_MUTANTS set the tests run
// against each of them, which takes minutes (make verify PARTS=mutants).
package mutation

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Suite are the mutants of the package in the working directory.
type Suite struct {
	t   *testing.T
	run bool
}

// Of begins a suite in t.
func Of(t *testing.T) *Suite { return &Suite{t, os.Getenv("FIRN_TEST_MUTANTS") != ""} }

// Catch takes a rule out: old, which occurs once in file, becomes replacement. One of
// tests, a pattern for go test -run that matches from the beginning of a name, must
// then fail. rule is a number of docs/SAFETY.md, or a name, and which part of it is gone.
func (s *Suite) Catch(rule, file, old, replacement, tests string) {
	s.t.Helper()
	s.t.Run(rule, func(t *testing.T) {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(source), old); n != 1 {
			t.Fatalf("%s has it %d times: %s", file, n, old)
		}
		if !s.run {
			return
		}
		out, err := test(t, file, strings.Replace(string(source), old, replacement, 1), tests)
		switch {
		case err == nil:
			t.Errorf("nobody notices:\n%s", out)
		case strings.Contains(out, "[build failed]") || strings.Contains(out, "[setup failed]"):
			t.Errorf("the mutant does not build:\n%s", out)
		case strings.Contains(out, "no tests to run"):
			t.Errorf("no test is called %s", tests)
		case !strings.Contains(out, "--- FAIL") && !strings.Contains(out, "panic:"):
			t.Errorf("no test failed:\n%s", out)
		}
	})
}

// test runs tests of the package with mutant in the place of file.
func test(t *testing.T, file, mutant, tests string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	original, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := filepath.Join(dir, filepath.Base(file))
	if err := os.WriteFile(changed, []byte(mutant), 0o600); err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{original: changed}})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-vet=off", "-failfast", "-timeout=3m", "-overlay", list, "-run", "^("+tests+")", ".")
	cmd.Env = append(os.Environ(), "FIRN_TEST_MUTANTS=")
	out, err := cmd.CombinedOutput()
	return string(out), err
}
