package clients

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"sync"
)

// driver is a client in another language: a small program that stays up, reads
// commands from its standard input, a line each, and answers each with one line
// of JSON. Fields are separated by tabs.
//
//	version
//	produce TOPIC CODEC N      followed by N lines: PARTITION TIMESTAMP KEY VALUE HEADERS
//	consume TOPIC N
//	group   TOPIC GROUP N
//	seek    TOPIC TIMESTAMP N
//
// KEY and VALUE are base64, or "-" for null; HEADERS is NAME:VALUE, separated by
// commas. The answer has acks (pairs of partition and offset, in the order of
// the records), records, offsets (by partition, of seek), version, or error.
// The program ends when its input does. Whatever it says on standard error is
// shown when a command fails.
type driver struct {
	short string
	less  lacks
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	noise *noise
}

// noise keeps the last of what a program says on standard error.
type noise struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (n *noise) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.buf.Len() > 1<<20 {
		n.buf.Reset()
	}
	return n.buf.Write(p)
}

func (n *noise) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.buf.String()
	return s[max(0, len(s)-4000):]
}

type answer struct {
	Version string           `json:"version"`
	Acks    [][2]int64       `json:"acks"`
	Records []record         `json:"records"`
	Offsets map[string]int64 `json:"offsets"`
	Error   string           `json:"error"`
}

func startDriver(short string, less lacks, program string, args ...string) (*driver, error) {
	d := &driver{short: short, less: less, cmd: exec.Command(program, args...), noise: &noise{}}
	d.cmd.Stderr = d.noise
	in, err := d.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	d.in, d.out = in, bufio.NewReaderSize(out, 1<<20)
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the %s client: %w", short, err)
	}
	return d, nil
}

// do sends one command and waits for its answer. When ctx ends first, the
// program is killed, and every later command fails.
func (d *driver) do(ctx context.Context, command string) (answer, error) {
	type result struct {
		a   answer
		err error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		if _, r.err = io.WriteString(d.in, command); r.err == nil {
			var line []byte
			if line, r.err = d.out.ReadBytes('\n'); r.err == nil {
				r.err = json.Unmarshal(line, &r.a)
			}
		}
		done <- r
	}()
	what, _, _ := strings.Cut(command, "\n")
	what = strings.ReplaceAll(what, "\t", " ")
	var r result
	select {
	case r = <-done:
	case <-ctx.Done():
		_ = d.cmd.Process.Kill() // ends the read below; an error means that it has ended
		<-done
		r.err = ctx.Err()
	}
	if r.err == nil && r.a.Error != "" {
		r.err = errors.New(r.a.Error)
	}
	if r.err != nil {
		return answer{}, fmt.Errorf("%s: %s: %w\n%s", d.short, what, r.err, d.noise)
	}
	return r.a, nil
}

func (d *driver) name() string { return d.short }
func (d *driver) lacks() lacks { return d.less }

func (d *driver) version(ctx context.Context) (string, error) {
	a, err := d.do(ctx, "version\n")
	return a.Version, err
}

func (d *driver) produce(ctx context.Context, topic, codec string, records []record) ([]int64, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "produce\t%s\t%s\t%d\n", topic, codec, len(records))
	for _, r := range records {
		headers := make([]string, len(r.Headers))
		for i, h := range r.Headers {
			headers[i] = h.Key + ":" + armour(h.Value)
		}
		fmt.Fprintf(&b, "%d\t%d\t%s\t%s\t%s\n", r.Partition, r.Timestamp, armour(r.Key), armour(r.Value), strings.Join(headers, ","))
	}
	a, err := d.do(ctx, b.String())
	if err != nil {
		return nil, err
	}
	if len(a.Acks) != len(records) {
		return nil, fmt.Errorf("%s: %d acks for %d records", d.short, len(a.Acks), len(records))
	}
	offsets := make([]int64, len(records))
	for i, ack := range a.Acks {
		if ack[0] != int64(records[i].Partition) {
			return nil, fmt.Errorf("%s: record %d for partition %d went to %d", d.short, i, records[i].Partition, ack[0])
		}
		offsets[i] = ack[1]
	}
	return offsets, nil
}

func armour(p []byte) string {
	if p == nil {
		return "-"
	}
	return base64.StdEncoding.EncodeToString(p)
}

func (d *driver) consume(ctx context.Context, topic string, n int) ([]record, error) {
	a, err := d.do(ctx, fmt.Sprintf("consume\t%s\t%d\n", topic, n))
	return a.Records, err
}

func (d *driver) group(ctx context.Context, topic, group string, n int) ([]record, error) {
	a, err := d.do(ctx, fmt.Sprintf("group\t%s\t%s\t%d\n", topic, group, n))
	return a.Records, err
}

func (d *driver) seek(ctx context.Context, topic string, timestamp int64, n int) (int64, []record, error) {
	a, err := d.do(ctx, fmt.Sprintf("seek\t%s\t%s\t%d\n", topic, strconv.FormatInt(timestamp, 10), n))
	if err != nil {
		return 0, nil, err
	}
	offset, ok := a.Offsets["0"]
	if !ok {
		return 0, nil, fmt.Errorf("%s: no offset for timestamp %d", d.short, timestamp)
	}
	return offset, a.Records, nil
}

func (d *driver) close() error {
	if err := d.in.Close(); err != nil {
		return err
	}
	return d.cmd.Wait()
}
