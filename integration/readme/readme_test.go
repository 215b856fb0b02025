// Package readme does what README.md says, as a new user would: on a fresh copy of
// the tree, its commands one after the other.
package readme

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const root = "../.."

// section returns the indented blocks of the README below a heading.
func section(t *testing.T, heading string) (blocks []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("no section %s", heading)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	in := false
	for line := range strings.Lines(rest) {
		command, code := strings.CutPrefix(line, "    ")
		switch {
		case code && !in:
			blocks = append(blocks, command)
		case code:
			blocks[len(blocks)-1] += command
		}
		in = code
	}
	return blocks
}

// freshCopy is the tree as git has it, elsewhere.
func freshCopy(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", `git ls-files -z --cached --others --exclude-standard | grep -zv testdata/golden | tar --null -T - -cf - | tar -xf - -C "$1"`, "-", dir)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("copy: %v: %s", err, out)
	}
	return dir
}

func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// TestFiveMinutes types the first section's blocks into two terminals. The ports are
// others, for 9092 may be taken; each block shows what its text promises.
func TestFiveMinutes(t *testing.T) {
	blocks := section(t, "Five minutes")
	if len(blocks) != 5 || !strings.HasPrefix(blocks[0], "make up") || !strings.Contains(blocks[4], "s3://BUCKET") {
		t.Fatalf("the section has other blocks than this test knows: %q", blocks)
	}
	dir := freshCopy(t)
	kafka, admin := freeAddr(t), freeAddr(t)
	env := append(os.Environ(), "FIRN_KAFKA_ADDR="+kafka, "FIRN_ADMIN_ADDR="+admin, "FIRN_BROKERS="+kafka)

	up := exec.Command("bash", "-euo", "pipefail", "-c", blocks[0])
	up.Dir, up.Env = dir, env
	up.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	up.Stdout, up.Stderr = &log, &log
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- up.Wait() }()
	t.Cleanup(func() { syscall.Kill(-up.Process.Pid, syscall.SIGKILL) })
	ready := func() bool {
		resp, err := http.Get("http://" + admin + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
	for deadline := time.Now().Add(3 * time.Minute); !ready(); {
		select {
		case err := <-ended:
			t.Fatalf("make up ended: %v\n%s", err, log.String())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal("make up is not ready after three minutes")
		}
	}

	for i, wants := range [][]string{1: {"created", " 999\n", "topic orders", "healthy"}, 2: {"\n10\n", "group crew"}, 3: {"hot", ".seg", "0 00000", "2 00000"}} {
		if wants == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", strings.ReplaceAll(blocks[i], "127.0.0.1:9092", kafka))
		cmd.Dir, cmd.Env = dir, env
		out, err := cmd.CombinedOutput()
		cancel()
		if err != nil {
			t.Fatalf("%v:\n%s\nsays\n%s", err, blocks[i], out)
		}
		for _, want := range wants {
			if !strings.Contains(string(out), want) {
				t.Errorf("no %q in the answer to\n%s\nwhich is\n%s", want, blocks[i], out)
			}
		}
	}

	// Ctrl-C reaches the whole group of a terminal.
	syscall.Kill(-up.Process.Pid, syscall.SIGINT)
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("Ctrl-C does not stop it")
	}
	if !strings.Contains(log.String(), "stopped") || !strings.Contains(log.String(), "clean") {
		t.Errorf("it did not stop cleanly:\n%s", log.String())
	}
	if _, err := os.Stat(filepath.Join(dir, "firn-data", "clean.json")); err != nil {
		t.Error(fmt.Errorf("no mark of a clean stop in ./firn-data: %w", err))
	}
}
