package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"cairn/offline"
)

func (a *app) newDump() *cobra.Command {
	var from uint64
	cmd := &cobra.Command{
		Use:   "dump FILE",
		Short: "Show what a segment file holds",
		Long: `Show the parts of one file of a node's log in the order in which they stand: its
header, the frames (what one entry of Raft added), their records and the footer.
The file may be damaged, and the node may run: what can't be read is named, and
it goes on with the next frame that is whole.

It exits with 1 if something is damaged.`,
		Example: `  cairn dump data/logs/main/gen-000001/log/00000000000000000001.seg
  cairn dump 00000000000000048213.seg --from 50000 | head
  cairn dump 00000000000000048213.seg -o json | jq 'select(.part=="frame")'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef(cmd, "dump takes one segment file, not %d", len(args))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return a.dump(args[0], from) },
	}
	cmd.Flags().Uint64Var(&from, "from", 0, "begin with the event at this position")
	return cmd
}

func (a *app) dump(path string, from uint64) error {
	w := bufio.NewWriterSize(a.stdout, 64<<10)
	show := a.dumpJSON(w)
	if a.text() {
		show = a.dumpText(w)
	}
	damaged, err := offline.Dump(vfs.Default, path, from, show)
	if ferr := w.Flush(); err == nil {
		err = ferr
	}
	if err == nil && damaged {
		err = errors.New("the file is damaged; 'cairn check' says what to do")
	}
	return err
}

func (a *app) dumpJSON(w *bufio.Writer) func(*offline.Part) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return func(p *offline.Part) error { return e.Encode(p) }
}

func (a *app) dumpText(w *bufio.Writer) func(*offline.Part) error {
	colour := newTable(a.stdout).colour
	paint := func(look, s string) string {
		if !colour {
			return s
		}
		return look + s + reset
	}
	return func(p *offline.Part) error {
		var s string
		switch p.Kind {
		case offline.PartSegment:
			s = paint(bold, "segment") + fmt.Sprintf(" of log %s, from position %d, segment size %d", p.LogID, p.Base, p.SegmentSize)
		case offline.PartFrame:
			s = paint(bold, "frame") + fmt.Sprintf(" entry %d of term %d, positions %d to %d, %s, %s", p.Index, p.Term, p.First, p.Last, p.Time, counted(p.Size, "byte"))
		case offline.PartRecord:
			s = "  " + dumpRecord(p, paint)
		case offline.PartFooter:
			s = paint(bold, "footer") + fmt.Sprintf(" positions %d to %d, %s to %s, hash %s", p.First, p.Last, p.Time, p.LastTime, p.Hash)
		}
		if p.Damage != "" {
			s = strings.TrimSpace(s + " " + paint(red, "DAMAGED: "+printable(p.Damage)))
			if p.Kind == offline.PartDamage && p.Size > 0 {
				s += fmt.Sprintf("; %s passed over", counted(p.Size, "byte"))
			}
		}
		_, err := fmt.Fprintf(w, "%s %s\n", paint(dim, fmt.Sprintf("%10d", p.Offset)), s)
		return err
	}
}

// dumpRecord shows a record in one line: what finds the event, then the fields
// that it has, then what it carries.
func dumpRecord(p *offline.Part, paint func(look, s string) string) string {
	e := p.Event
	s := fmt.Sprintf("%d %s version %d %s id %s", e.Position, paint(cyan, printable(e.Stream)), e.Version, paint(bold, printable(e.Type)), printable(e.ID))
	if e.IDChosen {
		s += " (chosen)"
	}
	s += fmt.Sprintf(" %d/%d", e.AppendPlace+1, e.AppendSize)
	for _, field := range []struct{ name, value string }{
		{"correlation", e.CorrelationID}, {"causation", e.CausationID}, {"compensates", e.Compensates}, {"content-type", e.ContentType},
	} {
		if field.value != "" {
			s += fmt.Sprintf(" %s=%s", field.name, printable(field.value))
		}
	}
	if e.Schema > 0 {
		s += fmt.Sprintf(" schema=%d", e.Schema)
	}
	s += " " + printable(content(e))
	if len(e.Meta) > 0 {
		s += " meta=" + printable(string(e.Meta))
	}
	return s + " " + paint(dim, "digest "+p.Digest[:16]+"… salt "+p.Salt)
}
