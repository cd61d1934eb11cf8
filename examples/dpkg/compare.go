package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cairn/client"
)

// queryFormat is what the comparison takes of dpkg-query -W -f.
const queryFormat = `${Package} ${Architecture} ${Version} ${db:Status-Status}\n`

// comparison is of what dpkg says and what the projection package says.
type comparison struct {
	node  string
	at    time.Time // as of when the rows are read; zero = now
	query string    // file with what dpkg-query said then; "" = ask it now
	info  string    // the folder in which dpkg keeps a list of each package's files
}

func runCompare(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var cmp comparison
	flags := flag.NewFlagSet("dpkg compare", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&cmp.node, "node", "http://127.0.0.1:7070", "address of a node")
	flags.StringVar(&cmp.query, "query", "", "file with what dpkg-query -W -f '"+queryFormat+"' printed; it is asked now if not given")
	flags.StringVar(&cmp.info, "info", "/var/lib/dpkg/info", "where dpkg keeps its lists of files")
	flags.Func("at", "time as of which to read the rows, such as 2026-01-31T09:30:00Z; now if not given", func(s string) (err error) {
		cmp.at, err = time.Parse(time.RFC3339Nano, s)
		return err
	})
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	c, err := client.New(client.Config{Nodes: []string{cmp.node}})
	if err != nil {
		return err
	}
	defer c.Close()
	return cmp.run(ctx, c, stdout)
}

// run prints what is the same, every difference with its reason, and fails if
// there is one without.
func (cmp *comparison) run(ctx context.Context, c *client.Client, stdout io.Writer) error {
	installed, err := cmp.installed(ctx)
	if err != nil {
		return err
	}
	then, asOf, err := readPackages(ctx, c, cmp.at)
	if err != nil {
		return err
	}
	now, _, err := readPackages(ctx, c, time.Time{})
	if err != nil {
		return err
	}
	e := explainer{begin: began(now), now: now, info: cmp.info}
	same, unexplained := 0, 0
	reasons := make(map[string]int)
	differs := func(what, reason string) {
		if reason == "" {
			unexplained++
			fmt.Fprintf(stdout, "  %s: UNEXPLAINED\n", what)
			return
		}
		reasons[reason]++
		fmt.Fprintf(stdout, "  %s: %s\n", what, reason)
	}
	for _, p := range installed {
		key, row, known := find(then, p.name, p.arch)
		delete(then, key)
		switch {
		case known && row.Status == p.status && row.Version == p.version:
			same++
		case !known || row.Status == notInstalled:
			differs(p.String()+" is unknown to the log", e.explain(p))
		default:
			differs(fmt.Sprintf("%s is %s %s by the log", p, row.Version, row.Status), "")
		}
	}
	for _, key := range slices.Sorted(maps.Keys(then)) {
		if row := then[key]; row.Status != notInstalled {
			differs(fmt.Sprintf("%s %s %s by the log is unknown to dpkg", key, row.Version, row.Status), "")
		}
	}
	fmt.Fprintf(stdout, "%d packages by dpkg; rows as of position %d\n%d the same\n", len(installed), asOf, same)
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		fmt.Fprintf(stdout, "%d %s\n", reasons[reason], reason)
	}
	fmt.Fprintf(stdout, "%d unexplained\n", unexplained)
	if unexplained > 0 {
		return fmt.Errorf("%d differences have no explanation", unexplained)
	}
	return nil
}

// installedPackage is a line of dpkg-query.
type installedPackage struct{ name, arch, version, status string }

func (p installedPackage) String() string {
	return fmt.Sprintf("%s:%s %s %s", p.name, p.arch, p.version, p.status)
}

// installed returns what dpkg knows.
func (cmp *comparison) installed(ctx context.Context) (list []installedPackage, err error) {
	var said []byte
	if cmp.query != "" {
		said, err = os.ReadFile(cmp.query)
	} else {
		said, err = exec.CommandContext(ctx, "dpkg-query", "-W", "-f="+queryFormat).Output()
	}
	if err != nil {
		return nil, fmt.Errorf("ask dpkg-query: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(said))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) != 4 {
			return nil, fmt.Errorf("%q is not a line of dpkg-query in the form %s", lines.Text(), queryFormat)
		}
		list = append(list, installedPackage{f[0], f[1], f[2], f[3]})
	}
	return list, lines.Err()
}

const notInstalled = "not-installed"

// packageRow is a row of the projection.
type packageRow struct {
	Status  string `json:"status"`
	Version string `json:"version"`
	First   string `json:"first"`  // time of the first line about it
	Before  string `json:"before"` // version that was there before that line
}

// readPackages returns the rows as of a time by name:architecture, and the
// position that is.
func readPackages(ctx context.Context, c *client.Client, at time.Time) (rows map[string]packageRow, asOf uint64, err error) {
	rows = make(map[string]packageRow)
	for row, err := range c.Rows(ctx, "package", client.RowsOptions{StateOptions: client.StateOptions{AtTime: at}}) {
		if err != nil {
			return nil, 0, err
		}
		var p packageRow
		if err := json.Unmarshal(row.State, &p); err != nil {
			return nil, 0, err
		}
		rows[strings.TrimPrefix(row.Key, "package-")], asOf = p, row.AsOf
	}
	return rows, asOf, nil
}

// find looks a package up. dpkg wrote names without the architecture before it
// knew several.
func find(rows map[string]packageRow, name, arch string) (key string, row packageRow, ok bool) {
	for _, key := range []string{name + ":" + arch, name} {
		if row, ok := rows[key]; ok {
			return key, row, true
		}
	}
	return "", packageRow{}, false
}

// explainer knows why the log has nothing about a package.
type explainer struct {
	begin time.Time             // of the log
	now   map[string]packageRow // rows as they are today
	info  string
}

// explain returns the reason, "" if there is none that holds.
func (e *explainer) explain(p installedPackage) string {
	if _, row, ok := find(e.now, p.name, p.arch); ok {
		if row.Before == p.version {
			return "installed before the log began, as its first line there says"
		}
		return ""
	}
	// Of a package for several architectures the file's name has which.
	for _, name := range []string{p.name + ":" + p.arch, p.name} {
		list, err := os.Stat(filepath.Join(e.info, name+".list"))
		if err == nil && list.ModTime().Before(e.begin) {
			return "installed before the log began, and not touched since: its list of files is older"
		}
	}
	return ""
}

// began returns when the log begins, by the machine's clock.
func began(rows map[string]packageRow) (first time.Time) {
	for _, row := range rows {
		at, err := time.ParseInLocation(timeForm, row.First, time.Local)
		if err == nil && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}
