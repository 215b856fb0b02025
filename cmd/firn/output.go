package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

func goVersion() string { return runtime.Version() }

// tabular writes aligned text.
type tabular struct{ tw *tabwriter.Writer }

func newTabular(w io.Writer) *tabular {
	return &tabular{tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)}
}

func (t *tabular) line(format string, a ...any) { fmt.Fprintf(t.tw, format+"\n", a...) }

func (t *tabular) row(cells ...any) {
	s := make([]string, len(cells))
	for i, c := range cells {
		s[i] = fmt.Sprint(c)
	}
	fmt.Fprintln(t.tw, strings.Join(s, "\t"))
}

// emit prints the answer of a command: v as JSON with -o json, else what text
// writes. The JSON of every command is stable: fields are only ever added. Offsets,
// timestamps and sizes are JSON numbers with all their digits, never rounded to a
// float64: read them with a parser that keeps integers above 2^53 (Go's
// json.Number, Python, jq 1.7), not with JavaScript's JSON.parse.
func emit(cmd *cobra.Command, v any, text func(w *tabular)) error {
	if o, _ := cmd.Flags().GetString("output"); o == "json" {
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	t := newTabular(cmd.OutOrStdout())
	text(t)
	return t.tw.Flush()
}

// progress writes one line that overwrites itself, on a terminal's stderr only.
type progress struct {
	w    io.Writer
	tty  bool
	used bool
}

func newProgress(cmd *cobra.Command) *progress {
	p := &progress{w: cmd.ErrOrStderr()}
	if f, ok := p.w.(*os.File); ok {
		if st, err := f.Stat(); err == nil {
			p.tty = st.Mode()&os.ModeCharDevice != 0
		}
	}
	return p
}

func (p *progress) show(format string, a ...any) {
	if p.tty {
		fmt.Fprintf(p.w, "\r\x1b[K"+format, a...)
		p.used = true
	}
}

func (p *progress) done() {
	if p.used {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// humanBytes is 12.3 MiB.
func humanBytes(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/unit, 0
	for f >= unit && i < 4 {
		f /= unit
		i++
	}
	return fmt.Sprintf("%.1f %s", f, [...]string{"KiB", "MiB", "GiB", "TiB", "PiB"}[i])
}
