package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"cairn/client"
)

// applyFlags are the flags of `cairn projection apply`.
type applyFlags struct {
	files  []string
	noWait bool
}

func (a *app) newProjectionApply() *cobra.Command {
	var f applyFlags
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Define projections, or replace their definitions",
		Long: `Define the projections of a file: YAML or JSON, one document or several, each
with a "name". What is defined so already stays as it is. A changed definition is
built beside the live one, which goes on until the new one takes over.

It waits until all are live; Ctrl-C ends the waiting, not the building.`,
		Example: `  cairn projection apply -f account.yaml
  cairn projection apply -f account.yaml -f cart.json --no-wait
  cat *.yaml | cairn projection apply -f -`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.projectionApply(cmd, &f) },
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.files, "file", "f", nil, "file with definitions, '-' is stdin; repeatable")
	flags.BoolVar(&f.noWait, "no-wait", false, "do not wait until they are live")
	return cmd
}

func (a *app) projectionApply(cmd *cobra.Command, f *applyFlags) error {
	if len(f.files) == 0 {
		return usagef(cmd, "name a file with --file")
	}
	// All are read before any is sent.
	var all []definition
	for _, file := range f.files {
		list, err := a.readDefinitions(file)
		if err != nil {
			return err
		}
		all = append(all, list...)
	}
	ctx := cmd.Context()
	c, _, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	for i := range all {
		d := &all[i]
		if d.defined, err = c.DefineProjection(ctx, d.name, d.json); err != nil {
			return fmt.Errorf("%s: %w", d.place, err)
		}
	}
	for i := range all {
		d := &all[i]
		if !f.noWait && d.defined.State != client.StateLive {
			if err := a.waitLive(ctx, c, d); err != nil {
				return err
			}
			d.defined.State = client.StateLive
		}
		if err := a.sayApplied(d); err != nil {
			return err
		}
	}
	return nil
}

// waitLive waits until a definition is live, and shows how far it is.
func (a *app) waitLive(ctx context.Context, c *client.Client, d *definition) error {
	bar := newProgress(a.stderr, 0)
	defer bar.clear()
	return c.WaitLive(ctx, d.name, d.defined.Generation, func(p *client.Projection) {
		bar.show(fmt.Sprintf("%s: %s, position %s of %s", printable(d.name), stateText(p), thousands(p.Position), thousands(p.Head)))
	})
}

func (a *app) sayApplied(d *definition) error {
	if !a.text() {
		return a.printJSON(struct {
			Name       string `json:"name"`
			Generation uint64 `json:"generation"`
			State      string `json:"state"`
			Changed    bool   `json:"changed"`
		}{d.name, d.defined.Generation, d.defined.State, d.defined.Changed})
	}
	what := "is as it was"
	if d.defined.Changed {
		what = "is defined"
	}
	_, err := fmt.Fprintf(a.stdout, "%s %s: generation %d, %s\n", printable(d.name), what, d.defined.Generation, d.defined.State)
	return err
}

// definition is one document of a file.
type definition struct {
	place   string // file, and which of its documents
	name    string
	json    []byte
	defined client.Defined
}

// readDefinitions reads the documents of a file.
func (a *app) readDefinitions(file string) ([]definition, error) {
	var b []byte
	var err error
	if file == "-" {
		b, err = io.ReadAll(a.stdin)
		file = "stdin"
	} else {
		b, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, err
	}
	documents, err := splitDocuments(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	list := make([]definition, len(documents))
	for i, doc := range documents {
		place := file
		if len(documents) > 1 {
			place = fmt.Sprintf("%s, document %d", file, i+1)
		}
		var form struct {
			Name string `json:"name"`
		}
		if err := json.Unmarshal(doc, &form); err != nil || form.Name == "" {
			return nil, fmt.Errorf("%s: must be an object with a \"name\"", place)
		}
		list[i] = definition{place: place + ", " + form.Name, name: form.Name, json: doc}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s: holds no definition", file)
	}
	return list, nil
}

// splitDocuments returns the documents of a file as JSON. What begins as JSON
// is JSON, one value after another; all else is YAML.
func splitDocuments(b []byte) ([][]byte, error) {
	if first := bytes.TrimLeft(b, " \t\r\n"); len(first) > 0 && first[0] == '{' {
		return splitJSON(b)
	}
	var documents [][]byte
	dec := yaml.NewDecoder(bytes.NewReader(b))
	for {
		var node yaml.Node
		if err := dec.Decode(&node); errors.Is(err, io.EOF) {
			return documents, nil
		} else if err != nil {
			return nil, err
		}
		keepDates(&node)
		var v any
		if err := node.Decode(&v); err != nil {
			return nil, err
		}
		if v == nil { // nothing between two lines of dashes
			continue
		}
		doc, err := json.Marshal(v, json.Deterministic(true))
		if err != nil {
			return nil, fmt.Errorf("has no form in JSON: %w", err)
		}
		documents = append(documents, doc)
	}
}

// keepDates makes text of what YAML takes for times: JSON has none, and 2026-01-31
// is to stay what it is.
func keepDates(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!timestamp" {
		n.Tag = "!!str"
	}
	for _, part := range n.Content {
		keepDates(part)
	}
}

func splitJSON(b []byte) ([][]byte, error) {
	var documents [][]byte
	dec := jsontext.NewDecoder(bytes.NewReader(b))
	for {
		v, err := dec.ReadValue()
		if errors.Is(err, io.EOF) {
			return documents, nil
		} else if err != nil {
			return nil, err
		}
		documents = append(documents, v.Clone())
	}
}
