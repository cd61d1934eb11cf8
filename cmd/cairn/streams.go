package main

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"cairn/client"
)

func (a *app) newStreams() *cobra.Command {
	var prefix, after string
	var limit int
	cmd := &cobra.Command{
		Use:   "streams",
		Short: "List streams and their versions",
		Long:  "List the streams there are, in order of their names, with the version each is at.",
		Example: `  cairn streams
  cairn streams --prefix account-
  cairn streams --after account-42 --limit 10`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.streams(cmd, prefix, after, limit) },
	}
	flags := cmd.Flags()
	flags.StringVar(&prefix, "prefix", "", "only streams whose names begin so")
	flags.StringVar(&after, "after", "", "begin after this name")
	flags.IntVarP(&limit, "limit", "n", 0, "at most that many; 0 = all")
	return cmd
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef(cmd, "%s takes no argument such as %q", cmd.Name(), args[0])
	}
	return nil
}

func (a *app) streams(cmd *cobra.Command, prefix, after string, limit int) error {
	if limit < 0 {
		return usagef(cmd, "--limit must be 0 or more")
	}
	c, _, err := a.connect(cmd.Context())
	if err != nil {
		return err
	}
	defer c.Close()
	text := a.text()
	t := newTable(a.stdout, column{"STREAM", false}, column{"VERSION", true})
	for s, err := range c.Streams(cmd.Context(), prefix, after, client.ReadOptions{Limit: limit}) {
		switch {
		case err != nil:
		case text:
			err = t.row(cell{s.Stream, cyan}, cell{strconv.FormatUint(s.Version, 10), plain})
		default:
			var quoted []byte
			if quoted, err = jsontext.AppendQuote(nil, s.Stream); err == nil {
				_, err = t.w.WriteString(`{"stream":` + string(quoted) + `,"version":` + strconv.FormatUint(s.Version, 10) + "}\n")
			}
		}
		if err != nil {
			_ = t.flush()
			return err
		}
	}
	return t.flush()
}
