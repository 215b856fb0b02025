package clients

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// kcat is Debian's command line client over librdkafka, run as anybody runs it:
// once per command. One run writes to one partition with one set of headers.
type kcat struct {
	bootstrap string
	bare      bool // read without headers
}

func (kcat) name() string { return "kcat" }
func (kcat) lacks() lacks { return lacks{binary: true, timestamps: true} }
func (kcat) close() error { return nil }

func (k kcat) run(ctx context.Context, stdin io.Reader, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "kcat", append([]string{"-b", k.bootstrap, "-X", "client.id=firn-test-kcat"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = stdin, &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("kcat %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return out, nil
}

func (k kcat) version(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "kcat", "-V").CombinedOutput()
	if err != nil {
		return "", err
	}
	m := regexp.MustCompile(`Version ([0-9.]+).*librdkafka ([0-9.]+)`).FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("kcat -V says %q", out)
	}
	return fmt.Sprintf("kcat %s, librdkafka %s", m[1], m[2]), nil
}

func (k kcat) produce(ctx context.Context, topic, codec string, records []record) ([]int64, error) {
	// kcat does not tell offsets. In a new topic they are counted from 0, and
	// reading back proves it.
	offsets, next := make([]int64, len(records)), map[int32]int64{}
	lines := map[int32]*bytes.Buffer{}
	headers := map[int32][]string{}
	for i, r := range records {
		offsets[i] = next[r.Partition]
		next[r.Partition]++
		if lines[r.Partition] == nil {
			lines[r.Partition] = &bytes.Buffer{}
			for _, h := range r.Headers {
				arg := h.Key
				if h.Value != nil {
					arg += "=" + string(h.Value)
				}
				headers[r.Partition] = append(headers[r.Partition], "-H", arg)
			}
		}
		fmt.Fprintf(lines[r.Partition], "%s\t%s\n", r.Key, r.Value) // with -Z, nothing is null
	}
	for partition, in := range lines {
		args := []string{"-P", "-t", topic, "-p", strconv.Itoa(int(partition)), "-z", codec, "-K", "\t", "-Z", "-X", "acks=all"}
		if _, err := k.run(ctx, in, append(args, headers[partition]...)...); err != nil {
			return nil, err
		}
	}
	return offsets, nil
}

// One line tells a record's place, time and headers, and how long its key and
// value are, which follow as they are. bareFormat leaves the headers out.
const (
	kcatFormat = "%p %o %T %K %S %h\n%k%s\n"
	bareFormat = "%p %o %T %K %S \n%k%s\n"
)

func parseKcat(out []byte) ([]record, error) {
	var records []record
	for in := bufio.NewReader(bytes.NewReader(out)); ; {
		line, err := in.ReadString('\n')
		if err == io.EOF && line == "" {
			return records, nil
		}
		if err != nil {
			return nil, fmt.Errorf("kcat's output ends inside a line: %q", line)
		}
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 6)
		if len(f) != 6 {
			return nil, fmt.Errorf("kcat says %q", line)
		}
		var n [5]int64
		for i := range n {
			if n[i], err = strconv.ParseInt(f[i], 10, 64); err != nil {
				return nil, fmt.Errorf("kcat says %q: %w", line, err)
			}
		}
		r := record{Partition: int32(n[0]), Offset: n[1], Timestamp: n[2]}
		for i, dst := range []*[]byte{&r.Key, &r.Value} {
			if n[3+i] < 0 {
				continue
			}
			*dst = make([]byte, n[3+i])
			if _, err := io.ReadFull(in, *dst); err != nil {
				return nil, fmt.Errorf("kcat's output ends inside a record: %w", err)
			}
		}
		if _, err := in.ReadByte(); err != nil {
			return nil, err
		}
		for h := range strings.SplitSeq(f[5], ",") {
			if name, value, ok := strings.Cut(h, "="); ok {
				header := header{Key: name, Value: []byte(value)}
				if value == "NULL" {
					header.Value = nil
				}
				r.Headers = append(r.Headers, header)
			}
		}
		records = append(records, r)
	}
}

func (k kcat) read(ctx context.Context, args ...string) ([]record, error) {
	format := kcatFormat
	if k.bare {
		format = bareFormat
	}
	out, err := k.run(ctx, nil, append(args, "-q", "-f", format)...)
	if err != nil {
		return nil, err
	}
	return parseKcat(out)
}

func (k kcat) consume(ctx context.Context, topic string, n int) ([]record, error) {
	return k.read(ctx, "-C", "-t", topic, "-o", "beginning", "-c", strconv.Itoa(n))
}

func (k kcat) group(ctx context.Context, topic, group string, n int) ([]record, error) {
	return k.read(ctx, "-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=10000", "-c", strconv.Itoa(n), "-G", group, topic)
}

func (k kcat) seek(ctx context.Context, topic string, timestamp int64, n int) (int64, []record, error) {
	at := strconv.FormatInt(timestamp, 10)
	out, err := k.run(ctx, nil, "-Q", "-t", topic+":0:"+at)
	if err != nil {
		return 0, nil, err
	}
	words := strings.Fields(string(out))
	i := slices.Index(words, "offset")
	if i < 0 || i+1 >= len(words) {
		return 0, nil, fmt.Errorf("kcat -Q says %q", out)
	}
	offset, err := strconv.ParseInt(words[i+1], 10, 64)
	if err != nil {
		return 0, nil, fmt.Errorf("kcat -Q says %q: %w", out, err)
	}
	records, err := k.read(ctx, "-C", "-t", topic, "-p", "0", "-o", "s@"+at, "-c", strconv.Itoa(n))
	return offset, records, err
}
