package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"cairn/client"
)

func (a *app) newSchema() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "schema",
		Short: "Register the schemas of event types, and check history against them",
		Long: `Register the schemas of event types, and check history against them.

A schema says what the data of events of a type looks like, in JSON Schema
2020-12; appends that are not so are refused. The next schema of a type comes
with an upcast, a CEL expression that makes new data of old: from then on old
events are read in the new form. What is stored never changes.`,
		Example: `  cairn schema check ItemAdded -f item-2.yaml
  cairn schema put ItemAdded 2 -f item-2.yaml
  cairn schema list`,
	}
	group(cmd)
	cmd.AddCommand(a.newSchemaPut(), a.newSchemaList(), a.newSchemaGet(), a.newSchemaCheck())
	return cmd
}

func (a *app) newSchemaPut() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "put TYPE NUMBER -f FILE",
		Short: "Register the next schema of a type",
		Long: `Register the next schema of a type. The file, YAML or JSON, has "schema" and, but
for the first schema of a type, "upcast" and "examples" of what the upcast does;
"renamed" gives the type another name. The examples must come out as they say.

What is registered never changes; to register the same again is no error. To
see beforehand what it means for the events there are, use 'cairn schema check'.`,
		Example: `  cairn schema put ItemAdded 1 -f item-1.json
  cairn schema put ItemAdded 2 -f item-2.yaml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef(cmd, "put takes a type and a number")
			}
			number, err := schemaNumber(cmd, args[1])
			if err != nil {
				return err
			}
			body, err := a.readRegistration(cmd, file)
			if err != nil {
				return err
			}
			return a.withClient(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.schemaPut(ctx, c, args[0], number, body)
			})
		},
	}
	registrationFlag(cmd, &file)
	return cmd
}

func registrationFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "file", "f", "", "file with the schema, '-' is stdin")
}

func schemaNumber(cmd *cobra.Command, text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 0 {
		return 0, usagef(cmd, "the number of a schema is 1 or more, not %q", text)
	}
	return uint32(n), nil
}

// readRegistration reads the one document of a file as JSON.
func (a *app) readRegistration(cmd *cobra.Command, file string) ([]byte, error) {
	var b []byte
	var err error
	switch file {
	case "":
		return nil, usagef(cmd, "name a file with --file")
	case "-":
		b, err = io.ReadAll(a.stdin)
	default:
		b, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, err
	}
	documents, err := splitDocuments(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(documents) != 1 {
		return nil, fmt.Errorf("%s: must hold one schema, not %d documents", file, len(documents))
	}
	return documents[0], nil
}

func (a *app) schemaPut(ctx context.Context, c *client.Client, typ string, number uint32, body []byte) error {
	created, err := c.RegisterSchema(ctx, typ, number, body)
	if err != nil {
		return err
	}
	if !a.text() {
		return a.printJSON(struct {
			Type    string `json:"type"`
			Number  uint32 `json:"number"`
			Changed bool   `json:"changed"`
		}{typ, number, created})
	}
	what := "was registered before, the same"
	if created {
		what = "is registered"
	}
	_, err = fmt.Fprintf(a.stdout, "schema %d of %s %s\n", number, printable(typ), what)
	return err
}

func (a *app) newSchemaList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the types that have schemas",
		Long:  "List the types that have schemas, with the number of the newest of each.",
		Example: `  cairn schema list
  cairn schema list --output json | jq -r .type`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.withClient(cmd.Context(), a.schemaList) },
	}
}

func (a *app) schemaList(ctx context.Context, c *client.Client) error {
	types, err := c.Types(ctx)
	if err != nil {
		return err
	}
	if !a.text() {
		for i := range types {
			if err := a.printJSON(&types[i]); err != nil {
				return err
			}
		}
		return nil
	}
	t := newTable(a.stdout, column{"TYPE", false}, column{"NEWEST", true}, column{"READ AS", false})
	for _, s := range types {
		readAs := s.Type
		if s.Renamed != "" {
			readAs = s.Renamed
		}
		if err := t.row(cell{s.Type, cyan}, cell{strconv.FormatUint(uint64(s.Newest), 10), plain}, cell{readAs, plain}); err != nil {
			return err
		}
	}
	return t.flush()
}

func (a *app) newSchemaGet() *cobra.Command {
	return &cobra.Command{
		Use:   "get TYPE [NUMBER]",
		Short: "Print a schema of a type, the newest without NUMBER",
		Long:  "Print a schema of a type with its upcast and examples, in the form that 'cairn schema put' takes.",
		Example: `  cairn schema get ItemAdded
  cairn schema get ItemAdded 1 > item-1.json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || len(args) > 2 {
				return usagef(cmd, "get takes a type and a number; 'cairn schema list' lists them")
			}
			number := uint32(0)
			if len(args) == 2 {
				var err error
				if number, err = schemaNumber(cmd, args[1]); err != nil {
					return err
				}
			}
			return a.withClient(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.schemaGet(ctx, c, args[0], number)
			})
		},
	}
}

func (a *app) schemaGet(ctx context.Context, c *client.Client, typ string, number uint32) error {
	if number == 0 {
		types, err := c.Types(ctx)
		if err != nil {
			return err
		}
		for _, t := range types {
			if t.Type == typ {
				number = t.Newest
			}
		}
		if number == 0 {
			return noSchemas(typ)
		}
	}
	v, err := c.Schema(ctx, typ, number)
	if client.IsNotFound(err) {
		return fmt.Errorf("there is no schema %d of type %q; 'cairn schema list' lists them", number, typ)
	}
	if err != nil {
		return err
	}
	if a.text() {
		if err := v.Indent(jsontext.WithIndent("  ")); err != nil {
			return err
		}
	}
	text := string(v)
	if isTerminal(a.stdout) {
		text = printableLines(text)
	}
	_, err = fmt.Fprintln(a.stdout, strings.TrimSpace(text))
	return err
}

func noSchemas(typ string) error {
	if typ == "" {
		return errors.New("no type has a schema; 'cairn schema put' registers one")
	}
	return fmt.Errorf("type %q has no schema; 'cairn schema list' lists those that have", typ)
}
