package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"cairn/client"
	"cairn/event"
)

// appendFlags are the flags of `cairn append`.
type appendFlags struct {
	typ, data, contentType, id, meta    string
	tags                                []string
	correlation, causation, compensates string
	expect                              uint64
	exists, missing                     bool
	key                                 string
}

func (a *app) newAppend() *cobra.Command {
	var f appendFlags
	cmd := &cobra.Command{
		Use:   "append STREAM",
		Short: "Append events to a stream",
		Long: `Append an event to a stream, or several at once: without --type, every line of
stdin is an event {"type":…,"data":…,"id":…}, and all are appended or none.

When it is not known whether an append happened, repeating it with the same
--id, or --idempotency-key, is safe.`,
		Example: `  cairn append account-42 --type FundsDeposited --data '{"amount":100}' --tag customer:9
  cairn append account-42 --type FundsWithdrawn --data @withdrawal.json --expect-version 1
  cairn append photo-7 --type PhotoTaken --content-type image/png --data @photo.png
  cairn append account-43 --missing < opening-events.ndjson`,
		Args: func(cmd *cobra.Command, args []string) error { return oneStream(cmd, args) },
		RunE: func(cmd *cobra.Command, args []string) error { return a.append(cmd, args[0], &f) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.typ, "type", "t", "", "type of the event; without it, events are read from stdin")
	flags.StringVarP(&f.data, "data", "d", "", "its data: JSON, @FILE, or - for stdin")
	flags.StringVar(&f.contentType, "content-type", "", "media type of --data if it is not JSON")
	flags.StringVar(&f.id, "id", "", "its id, unique in the stream (default: a new one)")
	flags.StringArrayVar(&f.tags, "tag", nil, "a tag it can be found by; repeatable")
	flags.StringVar(&f.correlation, "correlation-id", "", "id of what it belongs to")
	flags.StringVar(&f.causation, "causation-id", "", "id of what caused it")
	flags.StringVar(&f.compensates, "compensates", "", "id of the event of this stream that it makes up for")
	flags.StringVar(&f.meta, "meta", "", "a JSON object about it")
	flags.Uint64Var(&f.expect, "expect-version", 0, "append only if the stream is exactly at this version")
	flags.BoolVar(&f.exists, "exists", false, "append only if the stream exists")
	flags.BoolVar(&f.missing, "missing", false, "append only if the stream does not exist")
	flags.StringVar(&f.key, "idempotency-key", "", "gives events without an id the ids KEY/0, KEY/1, …")
	return cmd
}

// oneStream checks that the only argument is the name of a stream.
func oneStream(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef(cmd, "%s takes the name of one stream, not %d", cmd.Name(), len(args))
	}
	if err := event.CheckStreamName(args[0]); err != nil {
		return usagef(cmd, "%v", err)
	}
	return nil
}

func (a *app) append(cmd *cobra.Command, stream string, f *appendFlags) error {
	options, err := f.options(cmd)
	if err != nil {
		return err
	}
	var events []event.Event
	if f.typ != "" {
		var e event.Event
		e, err = f.event(cmd, a.stdin)
		events = []event.Event{e}
	} else {
		events, err = a.eventsFromStdin(cmd, stream)
	}
	if err != nil {
		return err
	}
	return a.withClient(cmd.Context(), func(ctx context.Context, c *client.Client) error {
		r, err := c.Append(ctx, stream, events, options...)
		if err != nil {
			return err
		}
		return a.printResult(stream, len(events), &r)
	})
}

// options returns the preconditions of the append.
func (f *appendFlags) options(cmd *cobra.Command) ([]client.AppendOption, error) {
	var list []client.AppendOption
	if cmd.Flags().Changed("expect-version") {
		list = append(list, client.ExpectVersion(f.expect))
	}
	if f.exists {
		list = append(list, client.Exists())
	}
	if f.missing {
		list = append(list, client.Missing())
	}
	if len(list) > 1 {
		return nil, usagef(cmd, "give one of --expect-version, --exists and --missing")
	}
	if f.key != "" {
		list = append(list, client.IdempotencyKey(f.key))
	}
	return list, nil
}

// event returns the event that the flags describe.
func (f *appendFlags) event(cmd *cobra.Command, stdin io.Reader) (event.Event, error) {
	e := event.Event{Type: f.typ, ID: f.id, Tags: f.tags, CorrelationID: f.correlation, CausationID: f.causation,
		Compensates: f.compensates, ContentType: f.contentType}
	var err error
	switch {
	case f.data == "-":
		e.Data, err = io.ReadAll(stdin)
	case strings.HasPrefix(f.data, "@"):
		e.Data, err = os.ReadFile(f.data[1:])
	case f.data != "":
		e.Data = []byte(f.data)
	}
	if err != nil {
		return e, fmt.Errorf("--data: %w", err)
	}
	if f.contentType == "" && len(e.Data) > 0 {
		e.Data = bytes.TrimSpace(e.Data)
		if !jsontext.Value(e.Data).IsValid() {
			return e, usagef(cmd, `--data is not JSON: %s (a text needs quotes: '"…"'; other content needs --content-type)`, cut(string(e.Data), 40))
		}
	}
	if f.meta != "" {
		e.Meta = []byte(f.meta)
		if v := jsontext.Value(e.Meta); !v.IsValid() || v.Kind() != '{' {
			return e, usagef(cmd, "--meta is not a JSON object: %s", cut(f.meta, 40))
		}
	}
	return e, nil
}

// eventsFromStdin reads one event a line.
func (a *app) eventsFromStdin(cmd *cobra.Command, stream string) ([]event.Event, error) {
	if isTerminal(a.stdin) {
		return nil, usagef(cmd, "give --type, or events on stdin, one JSON object a line")
	}
	for _, name := range []string{"data", "content-type", "id", "tag", "correlation-id", "causation-id", "compensates", "meta"} {
		if cmd.Flags().Changed(name) {
			return nil, usagef(cmd, "--%s is about one event, which needs --type", name)
		}
	}
	var events []event.Event
	lines := newLineReader(a.stdin)
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		e, err := parseEvent(line.text)
		if err == nil && e.Stream != "" && e.Stream != stream {
			err = fmt.Errorf("it is of stream %q; use 'cairn import' for several streams", e.Stream)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line.number, err)
		}
		events = append(events, e)
	}
	if len(events) == 0 {
		return nil, usagef(cmd, "there is no --type, and stdin holds no events")
	}
	return events, nil
}

// parseEvent reads an event in the form in which it is appended, or in which
// it was read, so that what one command prints another takes.
func parseEvent(line []byte) (event.Event, error) {
	e, err := event.DecodeNew(line)
	if err != nil && bytes.Contains(line, []byte(`"position"`)) {
		if e, err = event.DecodeEvent(line); err == nil {
			e.Position, e.Version, e.Time = 0, 0, 0
		}
	}
	return e, err
}

// printResult says where appended events stand.
func (a *app) printResult(stream string, events int, r *client.Result) error {
	if !a.text() {
		return a.printJSON(appendForm{r.First, r.Last, r.Version, r.Versions, r.Time.UTC().Format(time.RFC3339Nano), r.Duplicate, r.IDs})
	}
	where := fmt.Sprintf("position %d", r.First)
	if r.Last != r.First {
		where = fmt.Sprintf("positions %d to %d", r.First, r.Last)
	}
	what := counted(events, "event") + " at " + where
	if r.Duplicate {
		what = "nothing new, it was appended before, at " + where
	}
	_, err := fmt.Fprintf(a.stdout, "%s is at version %d: %s\n", stream, r.Version, what)
	return err
}

type appendForm struct {
	FirstPosition uint64            `json:"first_position"`
	LastPosition  uint64            `json:"last_position"`
	Version       uint64            `json:"version"`
	Versions      map[string]uint64 `json:"versions"`
	Time          string            `json:"time"`
	Duplicate     bool              `json:"duplicate"`
	IDs           []string          `json:"ids,omitempty"`
}

// printJSON writes v as one line.
func (a *app) printJSON(v any) error {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return err
	}
	_, err = a.stdout.Write(append(b, '\n'))
	return err
}

// line is one of a text, with its place in it.
type line struct {
	text   []byte
	number int   // from 1
	end    int64 // offset of what follows
}

// lineReader reads lines of any length, passing over blank ones.
type lineReader struct {
	r      *bufio.Reader
	number int
	offset int64
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 256<<10)}
}

// maxLine is more than any event can need, so that a file that is not NDJSON
// does not fill the memory.
const maxLine = 16 << 20

// next returns the next line, whose text the caller may keep, or io.EOF.
func (r *lineReader) next() (line, error) {
	for {
		var text []byte
		for {
			part, err := r.r.ReadSlice('\n')
			text = append(text, part...)
			r.offset += int64(len(part))
			if len(text) > maxLine {
				return line{}, fmt.Errorf("line %d is longer than %d bytes; is this NDJSON?", r.number+1, maxLine)
			}
			if err == nil || errors.Is(err, io.EOF) && len(text) > 0 {
				break
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				return line{}, err
			}
		}
		r.number++
		if text = bytes.TrimSpace(text); len(text) > 0 {
			return line{text, r.number, r.offset}, nil
		}
	}
}
