package sim

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// journal keeps what the nodes of a seed log, until it is known whether anybody
// wants to read it.
type journal struct {
	began time.Time
	level slog.Level

	mu    sync.Mutex
	lines bytes.Buffer // under mu
}

// handler returns a slog.Handler for one node.
func (j *journal) handler(name string) slog.Handler {
	return slog.NewTextHandler(&nodeWriter{j, name}, &slog.HandlerOptions{Level: j.level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{} // the journal's own says how far into the run it is
		}
		return a
	}})
}

// note adds a line that no node wrote.
func (j *journal) note(format string, args ...any) {
	j.write("sim", []byte(fmt.Sprintf(format, args...)+"\n"))
}

func (j *journal) write(name string, line []byte) {
	at := time.Since(j.began)
	j.mu.Lock()
	defer j.mu.Unlock()
	fmt.Fprintf(&j.lines, "%10.4f %-3s ", at.Seconds(), name)
	j.lines.Write(line)
}

// WriteTo writes all lines.
func (j *journal) WriteTo(w io.Writer) (int64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines.WriteTo(w)
}

type nodeWriter struct {
	journal *journal
	name    string
}

func (w *nodeWriter) Write(p []byte) (int, error) {
	w.journal.write(w.name, p)
	return len(p), nil
}
