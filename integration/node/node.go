// Package node runs the firn binary as a process for the integration tests: it
// starts one, waits until it is ready, kills or stops it, and starts it again on
// the same data dir. The tests speak to it from outside, as any client does.
package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Node is one firn process and what it leaves behind between its runs.
type Node struct {
	Addr    string // Kafka HOST:PORT, the same over restarts
	Admin   string // admin HOST:PORT
	DataDir string
	Args    []string // further flags of `firn up`
	Env     []string // further environment

	t      testing.TB
	binary string
	cmd    *exec.Cmd
	exited chan struct{}
	err    error
	log    *tail
}

// tail keeps the end of a process's output.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len() > 4<<20 {
		keep := bytes.Clone(l.buf.Bytes()[2<<20:])
		l.buf.Reset()
		l.buf.Write(keep)
	}
	return l.buf.Write(p)
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

var build struct {
	sync.Once
	path string
	err  error
}

// Binary is the firn binary: FIRN_TEST_BINARY, or one built here once.
func Binary(t testing.TB) string {
	t.Helper()
	if p := os.Getenv("FIRN_TEST_BINARY"); p != "" {
		return p
	}
	build.Do(func() {
		_, file, _, _ := runtime.Caller(0)
		root := filepath.Join(filepath.Dir(file), "..", "..")
		build.path = filepath.Join(os.TempDir(), fmt.Sprintf("firn-test-%d", os.Getpid()))
		cmd := exec.Command("go", "build", "-o", build.path, "./cmd/firn")
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			build.err = fmt.Errorf("build firn: %w\n%s", err, out)
		}
	})
	if build.err != nil {
		t.Fatal(build.err)
	}
	return build.path
}

// New prepares a node on free loopback ports and a fresh data dir. It is killed
// when the test ends; a failed test prints the end of its log.
func New(t testing.TB, args ...string) *Node {
	t.Helper()
	n := &Node{t: t, binary: Binary(t), DataDir: filepath.Join(t.TempDir(), "data"), Args: args, log: &tail{}}
	n.Addr, n.Admin = freeAddr(t), freeAddr(t)
	t.Cleanup(func() {
		n.Kill()
		if t.Failed() {
			s := n.log.String()
			t.Logf("end of the log of firn at %s:\n%s", n.Addr, s[max(0, len(s)-8000):])
		}
	})
	return n
}

// Start is New and Up.
func Start(t testing.TB, args ...string) *Node {
	t.Helper()
	n := New(t, args...)
	n.Up()
	return n
}

// freeAddr asks the kernel for a port that is free now. Ports of the ephemeral
// range may be taken by an outgoing connection before the node listens; Up then
// fails loudly.
func freeAddr(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// Command is the process that Up would start.
func (n *Node) Command() *exec.Cmd {
	args := append([]string{"up", "--data-dir", n.DataDir, "--kafka-addr", n.Addr, "--admin-addr", n.Admin, "--log-format", "json"}, n.Args...)
	cmd := exec.Command(n.binary, args...)
	cmd.Env = append(os.Environ(), n.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Launch starts the process without waiting for it to be ready.
func (n *Node) Launch() {
	n.t.Helper()
	if n.cmd != nil {
		n.t.Fatal("node is running already")
	}
	cmd := n.Command()
	cmd.Stdout, cmd.Stderr = n.log, n.log
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.cmd, n.exited = cmd, make(chan struct{})
	go func(exited chan struct{}) {
		n.err = cmd.Wait()
		close(exited)
	}(n.exited)
}

// Up starts the process and waits until it is ready.
func (n *Node) Up() {
	n.t.Helper()
	n.Launch()
	if err := n.WaitReady(60 * time.Second); err != nil {
		s := n.log.String()
		n.t.Fatalf("firn is not ready: %v\n%s", err, s[max(0, len(s)-4000):])
	}
}

// WaitReady asks /readyz until it says yes; a process that ends first is an error.
func (n *Node) WaitReady(within time.Duration) error {
	deadline := time.Now().Add(within)
	var last error
	for time.Now().Before(deadline) {
		select {
		case <-n.exited:
			return fmt.Errorf("it exited: %v", n.err)
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Admin+"/readyz", nil)
		if err != nil {
			cancel()
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode == 200 {
				cancel()
				return nil
			}
			last = errors.New(strings.TrimSpace(string(body)))
		} else {
			last = err
		}
		cancel()
		select {
		case <-n.exited:
		case <-time.After(5 * time.Millisecond):
		}
	}
	return fmt.Errorf("after %v: %w", within, last)
}

// Pid is the process id, 0 when none runs.
func (n *Node) Pid() int {
	if n.cmd == nil {
		return 0
	}
	return n.cmd.Process.Pid
}

// Exited is closed when the process that runs now has ended.
func (n *Node) Exited() <-chan struct{} { return n.exited }

// Kill ends the process as kill -9 does and waits until it is gone.
func (n *Node) Kill() {
	if n.cmd == nil {
		return
	}
	n.cmd.Process.Kill()
	<-n.exited
	n.cmd = nil
}

// Signal sends s to the process.
func (n *Node) Signal(s syscall.Signal) error { return n.cmd.Process.Signal(s) }

// Stop asks the process to end and fails the test unless it does so cleanly.
func (n *Node) Stop() {
	n.t.Helper()
	if n.cmd == nil {
		return
	}
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
	select {
	case <-n.exited:
	case <-time.After(30 * time.Second):
		n.t.Fatal("firn did not stop within 30 s of SIGTERM")
	}
	err := n.err
	n.cmd = nil
	if err != nil {
		n.t.Fatalf("firn stopped with %v", err)
	}
}

// Reap waits until the process has ended by itself (a failpoint) and returns how.
func (n *Node) Reap(within time.Duration) error {
	select {
	case <-n.exited:
		n.cmd = nil
		return n.err
	case <-time.After(within):
		return fmt.Errorf("firn still runs after %v", within)
	}
}

// Log is the end of what the process has written.
func (n *Node) Log() string { return n.log.String() }

// CLI runs a client command of the binary against the node.
func (n *Node) CLI(ctx context.Context, stdin io.Reader, args ...string) (stdout, stderr string, err error) {
	cmd := exec.CommandContext(ctx, n.binary, append(args, "-X", "brokers="+n.Addr)...)
	var out, errb bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errb
	err = cmd.Run()
	return out.String(), errb.String(), err
}
