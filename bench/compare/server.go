package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firnlog/firn/bench/load"
)

// server is one of those compared.
type server interface {
	name() string
	// command is how to start it with its data in dir, listening at addr.
	command(ctx context.Context, dir, addr string) (*exec.Cmd, error)
	// topic is the settings of a topic; flushed says that acknowledgements wait
	// for the disk.
	topic(flushed bool) map[string]string
	// settings are those of the topic as the server tells them, by neutral names.
	settings(config map[string]string) map[string]string
	warm() bool // needs warming up
}

const segmentBytes = "134217728"

// firn is this project's binary.
type firn struct{ binary string }

func (firn) name() string { return "firn" }
func (firn) warm() bool   { return false }
func (f firn) command(ctx context.Context, dir, addr string) (*exec.Cmd, error) {
	admin, err := freeAddr()
	if err != nil {
		return nil, err
	}
	return exec.CommandContext(ctx, f.binary, "up", "--data-dir", filepath.Join(dir, "data"), "--kafka-addr", addr, "--admin-addr", admin), nil
}

func (firn) topic(flushed bool) map[string]string {
	c := map[string]string{"segment.bytes": segmentBytes, "remote.storage.enable": "false", "firn.durability": "replicated"}
	if flushed {
		c["firn.durability"] = "fsync"
	}
	return c
}

func (firn) settings(c map[string]string) map[string]string {
	flush := map[string]string{"replicated": "acks do not wait for the disk", "fsync": "acks wait for the disk"}[c["firn.durability"]]
	return map[string]string{"flush": flush, "segment.bytes": c["segment.bytes"], "compression.type": c["compression.type"], "tiering": c["remote.storage.enable"]}
}

// kafka is Apache Kafka, a broker and controller in one JVM.
type kafka struct{ libs string }

func (kafka) name() string { return "kafka" }
func (kafka) warm() bool   { return true }

// The flags are those of Kafka's own start script, with its heap.
var jvm = strings.Fields("-Xms1g -Xmx1g -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent -XX:MaxInlineLevel=15 -Djava.awt.headless=true")

func (k kafka) command(ctx context.Context, dir, addr string) (*exec.Cmd, error) {
	controller, err := freeAddr()
	if err != nil {
		return nil, err
	}
	properties := filepath.Join(dir, "server.properties")
	logging := filepath.Join(dir, "log4j2.properties")
	class := filepath.Join(k.libs, "*")
	if _, err := os.Stat(properties); err != nil {
		text := fmt.Sprintf(`process.roles=broker,controller
node.id=1
controller.quorum.voters=1@%[2]s
listeners=PLAINTEXT://%[1]s,CONTROLLER://%[2]s
advertised.listeners=PLAINTEXT://%[1]s
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=%[3]s
num.network.threads=2
num.io.threads=4
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.segment.delete.delay.ms=500
`, addr, controller, filepath.Join(dir, "data"))
		if err := os.WriteFile(properties, []byte(text), 0o644); err != nil {
			return nil, err
		}
		text = "rootLogger.level=WARN\nrootLogger.appenderRef.f.ref=F\nappender.f.type=File\nappender.f.name=F\nappender.f.layout.type=PatternLayout\nappender.f.fileName=" + filepath.Join(dir, "server.log") + "\n"
		if err := os.WriteFile(logging, []byte(text), 0o644); err != nil {
			return nil, err
		}
		format := exec.CommandContext(ctx, "java", "-XX:TieredStopAtLevel=1", "-cp", class, "-Dlog4j2.configurationFile="+logging,
			"kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", properties)
		if out, err := format.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("format Kafka's folder: %w: %s", err, out)
		}
	}
	return exec.CommandContext(ctx, "java", append(append([]string{}, jvm...), "-cp", class, "-Dlog4j2.configurationFile="+logging, "kafka.Kafka", properties)...), nil
}

func (kafka) topic(flushed bool) map[string]string {
	c := map[string]string{"segment.bytes": segmentBytes}
	if flushed {
		c["flush.messages"] = "1"
	}
	return c
}

func (kafka) settings(c map[string]string) map[string]string {
	flush := "acks do not wait for the disk"
	if c["flush.messages"] == "1" {
		flush = "acks wait for the disk"
	}
	tiering := c["remote.storage.enable"]
	if tiering == "" {
		tiering = "false"
	}
	return map[string]string{"flush": flush, "segment.bytes": c["segment.bytes"], "compression.type": c["compression.type"], "tiering": tiering}
}

// floor is the least that a Go server can do; it has no settings.
type floor struct{ binary string }

func (floor) name() string { return "floor" }
func (floor) warm() bool   { return false }
func (f floor) command(ctx context.Context, dir, addr string) (*exec.Cmd, error) {
	return exec.CommandContext(ctx, f.binary, addr, filepath.Join(dir, "data")), nil
}
func (floor) topic(bool) map[string]string                 { return nil }
func (floor) settings(map[string]string) map[string]string { return nil }

// process is a server that runs.
type process struct {
	server
	cmd  *exec.Cmd
	dir  string
	addr string
	took time.Duration // from its start to its first answer
	done chan struct{}
	log  *os.File
}

// start runs s with its data in a folder below base and waits for its first
// answer to Metadata.
func start(ctx context.Context, s server, base string) (*process, error) {
	dir := filepath.Join(base, s.name())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	p := &process{server: s, dir: dir, addr: addr, done: make(chan struct{})}
	if p.cmd, err = s.command(ctx, dir, addr); err != nil {
		return nil, err
	}
	// A server that dies is told about with what it last said.
	if p.log, err = os.OpenFile(filepath.Join(dir, "output"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644); err != nil {
		return nil, err
	}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = 20 * time.Second
	began := time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.cmd.Wait(); close(p.done) }()
	for {
		if err := answers(addr); err == nil {
			p.took = time.Since(began)
			return p, nil
		}
		select {
		case <-p.done:
			return nil, fmt.Errorf("%s ended at once: %s", s.name(), p.tail())
		case <-time.After(2 * time.Millisecond):
		}
		if time.Since(began) > time.Minute {
			p.stop()
			return nil, fmt.Errorf("%s does not answer after a minute: %s", s.name(), p.tail())
		}
	}
}

// answers asks for Metadata.
func answers(addr string) error {
	c, err := load.Dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 9
	t := kmsg.NewMetadataRequestTopic()
	name := "none"
	t.Topic = &name
	req.Topics = append(req.Topics, t)
	resp, err := c.Ask(req)
	if err == nil && len(resp.(*kmsg.MetadataResponse).Brokers) == 0 {
		err = errors.New("no broker yet")
	}
	return err
}

func (p *process) tail() string {
	size, _ := p.log.Seek(0, io.SeekEnd)
	b := make([]byte, min(size, 1000))
	p.log.ReadAt(b, size-int64(len(b)))
	return string(b)
}

// stop ends the server and deletes its data.
func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		p.cmd.Process.Kill()
		<-p.done
	}
	p.log.Close()
	os.RemoveAll(p.dir)
}

func (p *process) pids() []int { return []int{p.cmd.Process.Pid} }

// drained waits until the bytes of deleted topics are gone from the disk.
func (p *process) drained(below int64) error {
	for range 600 {
		var total int64
		filepath.WalkDir(p.dir, func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil
			}
			if info, err := d.Info(); err == nil {
				if st, ok := info.Sys().(*syscall.Stat_t); ok {
					total += st.Blocks * 512
				}
			}
			return nil
		})
		if total < below {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("%s keeps the bytes of a deleted topic for more than a minute", p.name())
}

func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)), nil
}
