package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"cairn/client"
	"cairn/event"
	"cairn/projection/schema"
)

func (a *app) newSchemaCheck() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "check [TYPE]",
		Short: "Check all of history against the newest schemas",
		Long: `Read all events of a type, or of all types that have schemas, as they are stored,
bring each to the newest schema and validate what comes out. It prints the
events that can't be brought there or are not valid then, and exits with 1 if
there are any. Events of types that were renamed to TYPE count as well.

With --file the schema of that file counts as the next one of TYPE, as if it were
registered: what it would mean shows before.`,
		Example: `  cairn schema check
  cairn schema check ItemAdded
  cairn schema check ItemAdded -f item-3.yaml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 0 && file != "" {
				return usagef(cmd, "check takes one type")
			}
			k := &schemaCheck{app: a, typ: append(args, "")[0]}
			if file != "" {
				var err error
				if k.next, err = a.readRegistration(cmd, file); err != nil {
					return err
				}
			}
			return k.run(cmd.Context())
		},
	}
	registrationFlag(cmd, &file)
	return cmd
}

// schemaCheck is one run of `cairn schema check`.
type schemaCheck struct {
	app   *app
	typ   string // "" = all types that have schemas
	next  []byte // a registration of typ to try; nil = none
	types *schema.Registry

	out   *table // nil = NDJSON
	bar   *progress
	shown time.Time // when the bar was drawn
	count int       // events that were looked at
	found int       // of them, those that are not as they should be
}

func (k *schemaCheck) run(ctx context.Context) error {
	c, _, err := k.app.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := k.load(ctx, c); err != nil {
		return err
	}
	names := k.names()
	if len(names) == 0 {
		return noSchemas(k.typ)
	}
	if k.app.text() {
		k.out = newTable(k.app.stdout, column{"POSITION", true}, column{"STREAM", false}, column{"VERSION", true},
			column{"TYPE", false}, column{"SCHEMA", true}, column{"WHY", false})
		k.out.limit = 0
	}
	k.bar = newProgress(k.app.stderr, 0)
	defer k.bar.clear()
	for some := range slices.Chunk(names, event.MaxQueryTerms/2) {
		if err := k.read(ctx, c, some); err != nil {
			return err
		}
	}
	return k.conclude()
}

// load reads the schemas there are, in the order of the log, which says what a
// new name led to at the time.
func (k *schemaCheck) load(ctx context.Context, c *client.Client) error {
	k.types = schema.Empty()
	for e, err := range c.AllOfStream(ctx, event.StreamTypes, client.ReadOptions{Raw: true}) {
		if client.IsNotFound(err) {
			break
		}
		if err != nil {
			return err
		}
		if e.Type != event.TypeSchemaRegistered {
			continue
		}
		var form event.SchemaRegistered
		if err := json.Unmarshal(e.Data, &form); err != nil {
			return fmt.Errorf("position %d: %w", e.Position, err)
		}
		if err := k.add(form.Type, form.Number, form.Body); err != nil {
			return fmt.Errorf("schema %d of type %q can't be used by this program: %w", form.Number, form.Type, err)
		}
	}
	if k.next == nil {
		return nil
	}
	number := k.types.Newest(k.typ)
	if number > 0 && k.add(k.typ, number, k.next) == nil {
		return nil // it is the newest already
	}
	number++
	if err := k.add(k.typ, number, k.next); err != nil {
		return fmt.Errorf("it can't be schema %d of type %q: %w", number, k.typ, err)
	}
	return nil
}

func (k *schemaCheck) add(typ string, number uint32, body []byte) error {
	r, err := schema.Parse(typ, number, body)
	if err != nil {
		return err
	}
	types, err := k.types.With(r)
	if err != nil && !errors.Is(err, schema.ErrUnchanged) {
		return err
	}
	k.types = types
	return nil
}

// names returns the types whose events are to be looked at.
func (k *schemaCheck) names() []string {
	if k.typ == "" {
		return k.types.Types()
	}
	var names []string
	for _, name := range k.types.Types() {
		for now := name; now != ""; now, _ = k.types.Renamed(now) {
			if now == k.typ {
				names = append(names, name)
				break
			}
		}
	}
	return names
}

// read looks at all events of some types.
func (k *schemaCheck) read(ctx context.Context, c *client.Client, types []string) error {
	filter := event.Filter{Query: event.Query{Items: []event.QueryItem{{Types: types}}}}
	for e, err := range c.AllEvents(ctx, filter, client.ReadOptions{Raw: true}) {
		if err != nil {
			return err
		}
		k.count++
		if now := time.Now(); now.Sub(k.shown) > 100*time.Millisecond {
			k.shown = now
			k.bar.show(fmt.Sprintf("%s looked at, %s found", counted(k.count, "event"), thousands(k.found)))
		}
		if why := k.types.Check(&e); why != nil {
			k.found++
			if err := k.report(&e, why.Error()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (k *schemaCheck) report(e *event.Event, why string) error {
	if k.out == nil {
		return k.app.printJSON(struct {
			Position uint64 `json:"position"`
			Stream   string `json:"stream"`
			Version  uint64 `json:"version"`
			Type     string `json:"type"`
			Schema   uint32 `json:"schema"`
			Why      string `json:"why"`
		}{e.Position, e.Stream, e.Version, e.Type, e.Schema, why})
	}
	return k.out.row(cell{strconv.FormatUint(e.Position, 10), dim}, cell{e.Stream, cyan}, cell{strconv.FormatUint(e.Version, 10), plain},
		cell{e.Type, bold}, cell{strconv.FormatUint(uint64(e.Schema), 10), plain}, cell{why, red})
}

// conclude says how it ended.
func (k *schemaCheck) conclude() error {
	k.bar.clear()
	if k.out != nil {
		if err := k.out.flush(); err != nil {
			return err
		}
	}
	if k.found > 0 {
		return fmt.Errorf("%s of %s can't be read as the newest schema says", thousands(k.found), counted(k.count, "event"))
	}
	if k.out == nil {
		return nil
	}
	_, err := fmt.Fprintf(k.app.stdout, "%s looked at, all can be read as the newest schema says\n", counted(k.count, "event"))
	return err
}
