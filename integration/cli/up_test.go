package cli

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/firnlog/firn/integration/node"
)

// TestUpWarnsOfASharedDisk: without --bucket losing the disk loses both, and that is
// said; with one it is not. Unknown variables of the environment are named.
func TestUpWarnsOfASharedDisk(t *testing.T) {
	t.Parallel()
	n := node.New(t)
	n.Env = []string{"FIRN_DATADIR=/nowhere"}
	n.Up()
	n.Stop()
	for _, want := range []string{`"event":"bucket_shares_disk"`, "losing this disk loses both", "FIRN_DATADIR is ignored (did you mean", "FIRN_DATA_DIR"} {
		if !strings.Contains(n.Log(), want) {
			t.Errorf("%s is not in the log", want)
		}
	}
	other := node.Start(t, "--bucket", "file://"+filepath.Join(t.TempDir(), "bucket"))
	other.Stop()
	if strings.Contains(other.Log(), "bucket_shares_disk") {
		t.Error("a bucket of its own is warned of")
	}
}

// TestEphemeralLeavesNothing: its folder is there while it serves, and gone after
// SIGTERM, which ends it with exit code 0; and after a start that failed.
func TestEphemeralLeavesNothing(t *testing.T) {
	t.Parallel()
	n := node.New(t, "--ephemeral")
	tmp := t.TempDir()
	n.Env = []string{"TMPDIR=" + tmp}
	n.Up()
	create(t, n, "fleeting")
	left := func() int {
		t.Helper()
		entries, err := os.ReadDir(tmp)
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	if left() != 1 {
		t.Errorf("%d folders while it serves", left())
	}
	n.Stop()
	if left() != 0 {
		t.Errorf("%d folders are left", left())
	}
	if _, err := os.Stat(n.DataDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("--data-dir was used: %v", err)
	}
	firn(t, n.Env, nil, "up", "--ephemeral", "--kafka-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0", "--bucket", "file:///proc/none").fails(t, 1)
	if left() != 0 {
		t.Errorf("%d folders are left of a start that failed", left())
	}
}

// TestSigtermEndsCleanly, and a start that SIGTERM ends is not an error either.
func TestSigtermEndsCleanly(t *testing.T) {
	t.Parallel()
	n := node.Start(t)
	create(t, n, "kept")
	produce(t, n, "kept", "a\n")
	n.Stop()
	if !strings.Contains(n.Log(), `"event":"stopped"`) || !strings.Contains(n.Log(), `"clean":true`) {
		t.Error("the log does not say that it stopped cleanly")
	}
	n.Up()
	if got := on(t, n, "topic", "consume", "kept", "-O", ":end", "-f", "%v").ok(t); got != "a" {
		t.Errorf("after a restart it has %q", got)
	}
	reading := follow(t, n, "kept", "-f", "%v")
	reading.read("a")
	reading.signal(syscall.SIGTERM)
	if err := reading.cmd.Wait(); err != nil {
		t.Errorf("a consumer that is asked to stop: %v", err)
	}
}

// TestUsageErrors end with 2 and one line, before anything is touched.
func TestUsageErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "firn.yaml")
	if err := os.WriteFile(file, []byte("log.level: debug\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	for _, c := range []struct {
		args  []string
		words []string
	}{
		{[]string{"tpoic"}, []string{`did you mean "topic"?`}},
		{[]string{"topic", "crate", "x"}, []string{"unknown command", `did you mean "create"?`}},
		{[]string{"topic", "crate", "x", "-p", "1"}, []string{"unknown command", `did you mean "create"?`}},
		{[]string{"group", "lst"}, []string{"unknown command", `did you mean "list"?`}},
		{[]string{"bucket", "x"}, []string{"unknown command"}},
		{[]string{"topic", "storage", "x"}, []string{"unknown command"}},
		{[]string{"topic", "create"}, []string{"requires at least 1 arg"}},
		{[]string{"topic", "consume", "x", "-O", "nowhere"}, []string{"-O", "want start, end"}},
		{[]string{"topic", "list", "-o", "yaml"}, []string{"text or json"}},
		{[]string{"up", "--data-dir", data, "--data-dri", "x"}, []string{`did you mean "--data-dir"?`}},
		{[]string{"up", "--data-dir", data, "--memory-limit", "1MiB"}, []string{"at least 64.0 MiB"}},
		{[]string{"up", "--data-dir", data, "--listener", "A=127.0.0.1:0", "--listener", "A=127.0.0.1:0"}, []string{"the name A is taken"}},
		{[]string{"up", "--data-dir", data, "--admin-addr", "0.0.0.0:0"}, []string{"--admin-remote"}},
		{[]string{"up", "--data-dir", data, "--config", file}, []string{`unknown key "log.level"`, `did you mean "log-level"?`}},
		{[]string{"up", "--data-dir", data, "--log-level", "x", "--log-format", "y"}, []string{"--log-level", "; --log-format"}},
		{[]string{"up", "--data-dir", data, "--set", "log.retention.huors=1"}, []string{"log.retention.huors"}},
	} {
		r := firn(t, nil, nil, c.args...)
		r.fails(t, 2, c.words...)
		if r.out != "" {
			t.Errorf("%s printed %q", r.line, r.out)
		}
	}
	if _, err := os.Stat(data); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused start left its data dir: %v", err)
	}
	r := firn(t, nil, nil, "group", "lst", "-o", "json")
	r.fails(t, 2)
	golden(t, "error", r.stderr)
}

// TestVersion needs no broker.
func TestVersion(t *testing.T) {
	t.Parallel()
	golden(t, "version", firn(t, nil, nil, "version", "-o", "json").ok(t), "version", "go")
	if got := firn(t, nil, nil, "version").ok(t); !strings.HasPrefix(got, "firn ") {
		t.Errorf("printed %q", got)
	}
}

// progress is for a terminal's stderr: elsewhere nothing but the count is written.
func progress(t *testing.T, n *node.Node) {
	create(t, n, "many")
	lines := strings.Repeat("line\n", 30_000)
	produce(t, n, "many", lines) // exactly one line on stderr

	screen, tty := terminal(t)
	cmd := exec.CommandContext(t.Context(), node.Binary(t), "topic", "produce", "many", "-X", "brokers="+n.Addr)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(lines), &out, tty
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	seen, _ := io.ReadAll(screen) // ends with EIO, the terminal's end of file
	if !bytes.Contains(seen, []byte("records/s")) || !bytes.Contains(seen, []byte("30000 records acknowledged")) || out.Len() > 0 {
		t.Errorf("a terminal shows %q, stdout %q", seen, out.String())
	}
}

// terminal is a pseudo-terminal: what is written to tty is read from screen.
func terminal(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	unlock := 0
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, screen.Fd(), unix.TIOCSPTLCK, uintptr(unsafe.Pointer(&unlock))); errno != 0 {
		t.Fatal(errno)
	}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, screen.Fd(), unix.TIOCGPTPEER, uintptr(unix.O_RDWR|unix.O_NOCTTY))
	if errno != 0 {
		t.Fatal(errno)
	}
	return screen, os.NewFile(fd, "tty")
}
