package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"cairn/client"
	"cairn/event"
)

// momentFlags are the flags that say as of when a state is read.
type momentFlags struct {
	time     string
	version  uint64
	position uint64
}

func (f *momentFlags) register(cmd *cobra.Command, withVersion bool) {
	flags := cmd.Flags()
	flags.StringVar(&f.time, "at", "", "as of this time, such as 2026-01-31T09:30:00Z")
	if withVersion {
		flags.Uint64Var(&f.version, "at-version", 0, "as of this version of the stream")
	}
	flags.Uint64Var(&f.position, "at-position", 0, "as of this position of the log")
}

// options returns what the flags ask for.
func (f *momentFlags) options(cmd *cobra.Command) (client.StateOptions, error) {
	o := client.StateOptions{AtVersion: f.version, AtPosition: f.position}
	given := 0
	for _, name := range []string{"at", "at-version", "at-position"} {
		if cmd.Flags().Changed(name) {
			given++
		}
	}
	if given > 1 {
		return o, usagef(cmd, "give one moment, not %d", given)
	}
	for _, name := range []string{"at-version", "at-position"} {
		if cmd.Flags().Changed(name) && f.version+f.position == 0 {
			return o, usagef(cmd, "--%s must be 1 or more", name)
		}
	}
	if f.time != "" {
		ns, err := event.ParseTime(f.time)
		if err != nil {
			return o, usagef(cmd, "--at: %v", err)
		}
		o.AtTime = time.Unix(0, ns)
	}
	return o, nil
}

// subject is what has a state: a row of a projection, or a stream.
type subject struct {
	projection string // "" = the stream with the name key
	key        string
}

// subjectFlag registers the flag that chooses the projection.
func subjectFlag(cmd *cobra.Command, s *subject) {
	cmd.Flags().StringVarP(&s.projection, "projection", "p", "", "the row of this projection; without it, the data of\nthe stream's events merged")
}

// take takes the arguments of a command about one subject.
func (s *subject) take(cmd *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return usagef(cmd, "%s takes one stream, or one row with --projection, not %d", cmd.Name(), len(args))
	}
	s.key = args[0]
	if s.projection == "" {
		if err := event.CheckStreamName(s.key); err != nil {
			return usagef(cmd, "%v", err)
		}
	}
	return nil
}

// explain says what an error of a reading of s means.
func (s *subject) explain(err error) error {
	var p *client.Problem
	switch {
	case s.projection == "" || !errors.As(err, &p):
		return err
	case client.IsNotFound(err):
		return fmt.Errorf("%s; 'cairn projection list' lists projections, 'cairn projection rows %s' rows", detail(p), s.projection)
	}
	return explainProjection(s.projection, err)
}

// stateAt is a state as of a moment.
type stateAt struct {
	state    jsontext.Value // nil = there was none
	events   uint64
	position uint64 // of the last of them
	failed   *client.RowFailure
	answer   []byte // as JSON
	final    bool
	// generation of the projection that tells it; 0 = there is no projection
	generation uint64
}

// read reads the state of s.
func (s *subject) read(ctx context.Context, c *client.Client, o client.StateOptions) (stateAt, error) {
	if s.projection == "" {
		st, err := c.StreamState(ctx, s.key, o)
		if err != nil {
			return stateAt{}, err
		}
		answer := quote([]byte(`{"stream":`), st.Stream)
		answer = append(append(answer, `,"state":`...), st.State...)
		answer = strconv.AppendUint(append(answer, `,"version":`...), st.Version, 10)
		answer = appendRead(answer, st.Events, st.Position, st.Replayed, st.Final)
		answer = append(strconv.AppendUint(append(answer, `,"as_of":`...), st.AsOf, 10), '}')
		return stateAt{state: st.State, events: st.Events, position: st.Position, answer: answer, final: st.Final}, nil
	}
	row, err := c.Row(ctx, s.projection, s.key, o)
	if err != nil {
		return stateAt{}, err
	}
	answer := rowJSON(&row)
	answer = strconv.AppendUint(append(answer[:len(answer)-1], `,"replayed":`...), row.Replayed, 10)
	answer = append(strconv.AppendBool(append(answer, `,"final":`...), row.Final), '}')
	return stateAt{state: row.State, events: row.Events, position: row.Position, failed: row.Failed, answer: answer, final: row.Final, generation: row.Generation}, nil
}

func appendRead(dst []byte, events, position, replayed uint64, final bool) []byte {
	dst = strconv.AppendUint(append(dst, `,"events":`...), events, 10)
	dst = strconv.AppendUint(append(dst, `,"position":`...), position, 10)
	dst = strconv.AppendUint(append(dst, `,"replayed":`...), replayed, 10)
	return strconv.AppendBool(append(dst, `,"final":`...), final)
}

func (a *app) newState() *cobra.Command {
	var s subject
	var at momentFlags
	cmd := &cobra.Command{
		Use:   "state STREAM|ROW",
		Short: "Show the state of a stream or row, as it is or was",
		Long: `Show a state: of a row with --projection, else of a stream, which is the data of
its events merged one after the other (JSON Merge Patch, RFC 7396).

With a moment it is the state of then. It is not final as long as an event that
is yet to come could belong to that time.`,
		Example: `  cairn state account-42
  cairn state account-42 --at 2026-01-01T00:00:00Z
  cairn state account-42 --projection account --at-version 3`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.take(cmd, args); err != nil {
				return err
			}
			o, err := at.options(cmd)
			if err != nil {
				return err
			}
			return a.withClient(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.state(ctx, c, &s, o)
			})
		},
	}
	subjectFlag(cmd, &s)
	at.register(cmd, true)
	return cmd
}

func (a *app) state(ctx context.Context, c *client.Client, s *subject, o client.StateOptions) error {
	st, err := s.read(ctx, c, o)
	if err != nil {
		return s.explain(err)
	}
	if !a.text() {
		_, err := a.stdout.Write(append(st.answer, '\n'))
		return err
	}
	indented := st.state.Clone()
	if err := indented.Indent(jsontext.WithIndent("  ")); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	after := fmt.Sprintf("%s after %s, the last at position %d", printable(s.key), counted(st.events, "event"), st.position)
	if !st.final {
		after += "; not final, the time is not over"
	}
	if st.failed != nil {
		after += fmt.Sprintf("; stopped at position %d: %s", st.failed.Position, printable(st.failed.Reason))
	}
	_, err = fmt.Fprintf(a.stdout, "%s\n%s\n", after, printableLines(string(indented)))
	return err
}

// printableLines is printable for a text of several lines.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return strings.Join(lines, "\n")
}
