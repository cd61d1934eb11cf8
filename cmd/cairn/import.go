package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"cairn/client"
	"cairn/event"
)

// importFlags are the flags of `cairn import`.
type importFlags struct {
	stream          string
	continueOnError bool
	window          int
}

func (a *app) newImport() *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use:   "import [FILE]",
		Short: "Append the events of an NDJSON file, each on its own",
		Long: `Append the events of a file, or of stdin. Every line is one event,
{"stream":…,"type":…,"data":…,"id":…}, and one append of its own. Many are on
their way at once; the lines of a stream keep their order.

Give events ids: an import that was broken off, or whose file has grown, can
then simply be repeated, and what is there already is not added twice.

It ends at the first line that fails; up to --window lines behind a line that
the cluster refuses may have been appended too. With --continue-on-error it
reports such lines and goes on. It exits with 1 if any line failed.`,
		Example: `  cairn import events.ndjson
  zcat events.ndjson.gz | cairn import
  cairn import --stream account-42 --continue-on-error history.ndjson
  cairn export --node 10.0.0.1:7070 | cairn import --node 10.0.1.1:7070`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef(cmd, "import takes one file, not %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.importFile(cmd, append(args, "-")[0], &f) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.continueOnError, "continue-on-error", false, "report lines that fail and go on")
	flags.StringVar(&f.stream, "stream", "", "stream of the lines that name none")
	flags.IntVar(&f.window, "window", 1024, "how many lines may be on their way at once")
	return cmd
}

func (a *app) importFile(cmd *cobra.Command, name string, f *importFlags) error {
	if f.window < 1 {
		return usagef(cmd, "--window must be 1 or more")
	}
	in, size := a.stdin, int64(0)
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
			size = info.Size()
		}
		in = file
	} else if isTerminal(in) {
		return usagef(cmd, "give a file, or events on stdin, one JSON object a line")
	}
	c, _, err := a.connect(cmd.Context())
	if err != nil {
		return err
	}
	defer c.Close()
	im := &importer{a: a, flags: f, begin: time.Now(), bar: newProgress(a.stderr, size)}
	err = im.run(cmd.Context(), c, newLineReader(in))
	im.bar.clear()
	if sumErr := im.summary(); err == nil {
		err = sumErr
	}
	switch {
	case err != nil && !errors.Is(err, errStopped):
		return &importError{after: im.last.number, withoutIDs: im.withoutIDs.Load(), err: err}
	case im.failed > 0:
		return &silentError{fmt.Errorf("%s failed", counted(im.failed, "line"))}
	}
	return nil
}

// errStopped ends an import at a line that was refused and is reported.
var errStopped = errors.New("stopped")

// importer is the state of one import. The goroutine that ranges over the
// outcomes owns it, but for what mu guards.
type importer struct {
	a          *app
	flags      *importFlags
	begin      time.Time
	bar        *progress
	withoutIDs atomic.Bool // a line had none

	appended, duplicate int
	last                line // the last that was answered

	mu      sync.Mutex
	failed  int    // owned by mu, as is the rest
	pending []line // sent, in order, not answered
	bad     parsed // the line that can't be sent, which ended the input
}

// run sends every line and takes in what becomes of it.
func (im *importer) run(ctx context.Context, c *client.Client, lines *lineReader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	input := make(chan parsed)
	go im.read(ctx, lines, input) // ends with ctx, or when the read of stdin returns that it may be in
	o := client.PipelineOptions{Window: im.flags.window, Interrupted: func(err error) {
		im.bar.say("interrupted (%s), going on", oneLine(explain(err)))
	}}
	for out, err := range c.AppendStream(ctx, im.appends(ctx, input), o) {
		if err == nil {
			err = im.take(out)
		}
		if err != nil {
			cancel() // before the loop is left, so that the input ends
			return err
		}
	}
	if im.bad.err != nil {
		im.report(im.bad.line, im.bad.err)
		return errStopped
	}
	return nil
}

// parsed is a line and the event it is, or what is wrong with it.
type parsed struct {
	line  line
	event event.Event
	err   error
	fatal bool // the input can't be read any further
}

// read parses lines until they end or ctx is done.
func (im *importer) read(ctx context.Context, lines *lineReader, to chan<- parsed) {
	defer close(to)
	for fatal := false; !fatal; {
		l, err := lines.next()
		if errors.Is(err, io.EOF) {
			return
		}
		p := parsed{line: l, err: err, fatal: err != nil}
		if fatal = p.fatal; fatal {
			p.line.number = lines.number + 1
		} else {
			p.event, p.err = im.parse(l.text)
			p.line.text = nil
		}
		select {
		case to <- p:
		case <-ctx.Done():
			return
		}
	}
}

// parse reads a line and checks what the server would.
func (im *importer) parse(text []byte) (event.Event, error) {
	e, err := parseEvent(text)
	if err != nil {
		return e, err
	}
	if e.Stream == "" {
		e.Stream = im.flags.stream
	}
	if e.Stream == "" {
		return e, errors.New(`it names no stream; add "stream" to it, or give --stream`)
	}
	if e.ID == "" && !e.IDChosen {
		e.ID = event.NewID()
		im.withoutIDs.Store(true)
	}
	return e, (&event.Append{Events: []event.Event{e}}).Check()
}

// appends yields the lines that can be sent. One that can't is reported, or
// without --continue-on-error ends the input, to be reported when all before
// it are answered.
func (im *importer) appends(ctx context.Context, input <-chan parsed) iter.Seq[event.Append] {
	return func(yield func(event.Append) bool) {
		for {
			var p parsed
			var ok bool
			select {
			case p, ok = <-input:
			case <-ctx.Done():
			}
			switch {
			case !ok:
				return
			case p.err != nil && im.flags.continueOnError && !p.fatal:
				im.report(p.line, p.err)
				continue
			case p.err != nil:
				im.bad = p // read when this goroutine has ended
				return
			}
			im.mu.Lock()
			im.pending = append(im.pending, p.line)
			im.mu.Unlock()
			if !yield(event.Append{Events: []event.Event{p.event}}) {
				return
			}
		}
	}
}

// take counts an outcome.
func (im *importer) take(out client.LineOutcome) error {
	im.mu.Lock()
	im.last = im.pending[0]
	im.pending = im.pending[1:]
	im.mu.Unlock()
	switch {
	case out.Err != nil:
		im.report(im.last, out.Err)
		if !im.flags.continueOnError {
			return errStopped
		}
	case out.Result.Duplicate:
		im.duplicate++
	default:
		im.appended++
	}
	im.bar.update(im.last.number, im.last.end)
	return nil
}

// report says which line failed, and why.
func (im *importer) report(l line, err error) {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.failed++
	im.bar.say("line %d: %s", l.number, oneLine(explain(err)))
}

// summary says what has become of the lines.
func (im *importer) summary() error {
	took := time.Since(im.begin)
	im.mu.Lock()
	defer im.mu.Unlock()
	if !im.a.text() {
		return im.a.printJSON(struct {
			Appended  int     `json:"appended"`
			Duplicate int     `json:"duplicate"`
			Failed    int     `json:"failed"`
			LastLine  int     `json:"last_line"`
			Seconds   float64 `json:"seconds"`
		}{im.appended, im.duplicate, im.failed, im.last.number, math.Round(took.Seconds()*1000) / 1000})
	}
	done := im.appended + im.duplicate
	_, err := fmt.Fprintf(im.a.stdout, "%s in %.1f s (%s/s): %s appended, %s there already, %s failed\n", counted(done+im.failed, "line"),
		took.Seconds(), thousands(int(float64(done)/took.Seconds())), thousands(im.appended), thousands(im.duplicate), thousands(im.failed))
	return err
}

// importError ends an import half-way.
type importError struct {
	after      int // the last line that was answered
	withoutIDs bool
	err        error
}

func (e *importError) Error() string {
	var unknown *client.UnknownError
	why := ""
	switch {
	case errors.Is(e.err, context.Canceled):
		why = "interrupted"
	case errors.As(e.err, &unknown):
		why = "some lines behind it may be appended too: " + lastLine(unknown.Err)
	default:
		why = explain(e.err)
	}
	next := "repeat the import: what is there already is not added twice"
	if e.withoutIDs {
		next = "lines had no id, so repeating would add some twice: read first which are there"
	}
	return fmt.Sprintf("import ended after line %d (%s); %s", e.after, why, next)
}

func (e *importError) Unwrap() error { return e.err }
