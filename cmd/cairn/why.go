package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"cairn/client"
	"cairn/event"
)

func (a *app) newWhy() *cobra.Command {
	var s subject
	var full bool
	cmd := &cobra.Command{
		Use:   "why STREAM|ROW",
		Short: "Show the events that made a state what it is",
		Long: `Show the events that made a state what it is, oldest first, each with what it
changed: of a row with --projection, else of a stream, whose state is the data of
its events merged. Members are named as JSON pointers (RFC 6901).`,
		Example: `  cairn why account-42
  cairn why account-42 --projection account
  cairn why account-42 --output json | jq 'select(.changes[].path == "/owner")'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.take(cmd, args); err != nil {
				return err
			}
			return a.why(cmd.Context(), &s, full)
		},
	}
	subjectFlag(cmd, &s)
	fullFlag(cmd, &full)
	return cmd
}

func (a *app) why(ctx context.Context, s *subject, full bool) error {
	c, _, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	// The row says what the history does not: that it is there, and stopped.
	st, err := s.read(ctx, c, client.StateOptions{})
	if err != nil {
		return s.explain(err)
	}
	w := a.newStepWriter(s.projection == "", full)
	for step, err := range s.steps(ctx, c, st.position) {
		if err == nil {
			err = w.write(&step)
		}
		if err != nil {
			_ = w.flush()
			return s.explain(err)
		}
	}
	if err := w.flush(); err != nil || st.failed == nil {
		return err
	}
	fmt.Fprintf(a.stderr, "cairn: the row stopped at position %d: %s\n", st.failed.Position, oneLine(st.failed.Reason))
	return nil
}

// step is an event and what it did to a state.
type step struct {
	client.RowChange // State is that after the event
	changes          []change
}

// steps yields the events of s up to a position, each with what it changed.
func (s *subject) steps(ctx context.Context, c *client.Client, last uint64) iter.Seq2[step, error] {
	return func(yield func(step, error) bool) {
		before := jsontext.Value(`{}`)
		after := mergeEvents(ctx, c, s.key)
		if s.projection != "" {
			init, err := initOf(ctx, c, s.projection)
			if err != nil {
				yield(step{}, err)
				return
			}
			before, after = init, c.RowHistory(ctx, s.projection, s.key, client.HistoryOptions{})
		}
		for row, err := range after {
			st := step{RowChange: row}
			if err == nil {
				st.changes, err = changes(before, row.State)
			}
			if err == nil && row.Position > last {
				return // it came since the state was read
			}
			if !yield(st, err) || err != nil {
				return
			}
			before = row.State
		}
	}
}

// initOf returns the state before the first event of a row.
func initOf(ctx context.Context, c *client.Client, projection string) (jsontext.Value, error) {
	p, err := c.Projection(ctx, projection)
	if err != nil {
		return nil, err
	}
	var form struct {
		Init jsontext.Value `json:"init"`
	}
	if err := json.Unmarshal(p.Definition, &form); err != nil {
		return nil, fmt.Errorf("definition of %s: %w", projection, err)
	}
	if form.Init == nil {
		return jsontext.Value(`{}`), nil
	}
	return form.Init, nil
}

// mergeEvents yields the events of a stream, each with the merged data of all up
// to it. Content that is not a JSON object merges nothing.
func mergeEvents(ctx context.Context, c *client.Client, stream string) iter.Seq2[client.RowChange, error] {
	return func(yield func(client.RowChange, error) bool) {
		state := map[string]any{}
		for e, err := range c.AllOfStream(ctx, stream, client.ReadOptions{}) {
			row := client.RowChange{Position: e.Position, Version: e.Version, Type: e.Type, Stream: e.Stream, Time: e.Time}
			if err == nil {
				err = mergeData(state, &e)
			}
			if err == nil {
				row.State, err = json.Marshal(state, json.Deterministic(true))
			}
			if !yield(row, err) || err != nil {
				return
			}
		}
	}
}

// mergeData applies the data of an event to a state (RFC 7396). Numbers stay as
// they are written.
func mergeData(state map[string]any, e *event.Event) error {
	data := bytes.TrimSpace(e.Data)
	if e.ContentType != "" || len(data) == 0 || data[0] != '{' {
		return nil
	}
	var patch map[string]any
	if err := json.Unmarshal(data, &patch, json.WithUnmarshalers(rawNumbers)); err != nil {
		return fmt.Errorf("event at position %d: %w", e.Position, err)
	}
	merge(state, patch)
	return nil
}

// rawNumbers keeps numbers as text, which loses nothing.
var rawNumbers = json.UnmarshalFromFunc(func(dec *jsontext.Decoder, v *any) error {
	if dec.PeekKind() != '0' {
		return errors.ErrUnsupported
	}
	raw, err := dec.ReadValue()
	*v = raw.Clone()
	return err
})

func merge(state, patch map[string]any) {
	for name, v := range patch {
		switch v := v.(type) {
		case nil:
			delete(state, name)
		case map[string]any:
			inner, ok := state[name].(map[string]any)
			if !ok {
				inner = map[string]any{}
			}
			merge(inner, v)
			state[name] = inner
		default:
			state[name] = v
		}
	}
}

// stepWriter writes steps, as a table for people or as NDJSON.
type stepWriter struct {
	table     *table // nil = NDJSON
	oneStream bool   // all events are of one stream, which need not be named
	w         *bufio.Writer
}

func (a *app) newStepWriter(oneStream, full bool) *stepWriter {
	w := &stepWriter{oneStream: oneStream, w: bufio.NewWriter(a.stdout)}
	if a.text() {
		columns := []column{{"POSITION", true}, {"STREAM", false}, {"VERSION", true}}
		if oneStream {
			columns = []column{{"VERSION", true}, {"POSITION", true}}
		}
		w.table = newTable(a.stdout, append(columns, column{"TIME", false}, column{"TYPE", false}, column{"CHANGED", false})...)
		if full {
			w.table.limit = 0
		}
	}
	return w
}

func (w *stepWriter) write(s *step) error {
	if w.table == nil {
		return w.writeJSON(s)
	}
	position := cell{strconv.FormatUint(s.Position, 10), dim}
	version := cell{strconv.FormatUint(s.Version, 10), plain}
	cells := []cell{version, position}
	if !w.oneStream {
		cells = []cell{position, {s.Stream, cyan}, version}
	}
	changed := cell{changesText(s.changes), plain}
	if len(s.changes) == 0 {
		changed = cell{"nothing", dim}
	}
	return w.table.row(append(cells, cell{time.Unix(0, s.Time).UTC().Format("2006-01-02T15:04:05.000Z"), dim}, cell{s.Type, bold}, changed)...)
}

func (w *stepWriter) writeJSON(s *step) error {
	b := strconv.AppendUint([]byte(`{"position":`), s.Position, 10)
	b = quote(append(b, `,"stream":`...), s.Stream)
	b = strconv.AppendUint(append(b, `,"version":`...), s.Version, 10)
	b = quote(append(b, `,"time":`...), event.FormatTime(s.Time))
	b = quote(append(b, `,"type":`...), s.Type)
	_, _ = w.w.Write(append(b, `,"changes":`...)) // an error stays with w
	if err := writeChanges(w.w, s.changes); err != nil {
		return err
	}
	_, err := w.w.WriteString("}\n")
	return err
}

func (w *stepWriter) flush() error {
	if w.table != nil {
		return w.table.flush()
	}
	return w.w.Flush()
}
