package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"cairn/client"
	"cairn/event"
)

// Every command explains itself, with examples.
func TestRun_Help(t *testing.T) {
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Name() == "help" || cmd.Name() == "completion" {
			return
		}
		args := append(strings.Fields(cmd.CommandPath())[1:], "--help")
		var out bytes.Buffer
		if err := run(t.Context(), args, strings.NewReader(""), &out, &out); err != nil {
			t.Errorf("%q: %v", args, err)
		}
		for _, want := range []string{"Usage:", "Examples:\n  cairn", "--node", "--output"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q: no %q in its help", args, want)
			}
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk((&app{}).newRoot())
}

// Wrong usage is told in one line that says where to look, before any node is
// asked.
func TestRun_Usage(t *testing.T) {
	tests := []struct {
		args, want string
	}{
		{"raed", `there is no command "raed" (did you mean read?); see 'cairn --help'`},
		{"cluster satus", `there is no command "satus" (did you mean status?); see 'cairn cluster --help'`},
		{"read a --nope", `unknown flag: --nope; see 'cairn read --help'`},
		{"read a -o xml", `--output is auto, text or json, not "xml"; see 'cairn read --help'`},
		{"read a --timeout 0s", `--timeout must be above 0, not 0s; see 'cairn read --help'`},
		{"read", `name a stream, or give --all; see 'cairn read --help'`},
		{"read a b", `read takes one stream, not 2; see 'cairn read --help'`},
		{"read a --all", `name a stream or give --all, not both; see 'cairn read --help'`},
		{"read a --type T", `filters are for reading all streams; a stream is read whole; see 'cairn read --help'`},
		{"read ..", `stream: must not be '.' or '..'; see 'cairn read --help'`},
		{"read a --limit -1", `--limit must be 0 or more; see 'cairn read --help'`},
		{"read --position 3 --all", `--position names one event; give nothing else; see 'cairn read --help'`},
		{"read --all --desc --from 3", `all streams are read with --from or with --desc, not with both; see 'cairn read --help'`},
		{"read --since yesterday", `--since: "yesterday" is not a time such as 2026-01-31T09:30:00Z (RFC 3339); see 'cairn read --help'`},
		{"tail --now --from-start", `give one of --now, --after and --from-start; see 'cairn tail --help'`},
		{"append", `append takes the name of one stream, not 0; see 'cairn append --help'`},
		{"append a", `there is no --type, and stdin holds no events; see 'cairn append --help'`},
		{"append a --id x", `--id is about one event, which needs --type; see 'cairn append --help'`},
		{"append a --type T --data {", `--data is not JSON: { (a text needs quotes: '"…"'; other content needs --content-type); see 'cairn append --help'`},
		{"append a --type T --meta 1", `--meta is not a JSON object: 1; see 'cairn append --help'`},
		{"append a --type T --exists --missing", `give one of --expect-version, --exists and --missing; see 'cairn append --help'`},
		{"streams a", `streams takes no argument such as "a"; see 'cairn streams --help'`},
		{"import a b", `import takes one file, not 2; see 'cairn import --help'`},
		{"import --window 0", `--window must be 1 or more; see 'cairn import --help'`},
		{"cluster remove", `remove takes the id of one member; 'cairn cluster status' lists them; see 'cairn cluster remove --help'`},
		{"bench --clients 0", `--clients must be from 1 to 10,000; see 'cairn bench --help'`},
		{"bench --size 1", `--size must be 2 or more, and an append at most 2 MiB; see 'cairn bench --help'`},
		{"backup", `backup takes a folder; see 'cairn backup --help'`},
		{"backup a b", `backup takes a folder; see 'cairn backup --help'`},
		{"restore", `restore takes a folder with a backup; see 'cairn restore --help'`},
		{"restore a --at yesterday", `--at "yesterday" is not a time such as 2026-01-31T09:30:00Z (RFC 3339); see 'cairn restore --help'`},
		{"restore a --at-position 0", `--at-position must be 1 or more; see 'cairn restore --help'`},
		{"repair", `--from is needed: the address of a running node of the cluster; see 'cairn repair --help'`},
		{"repair ./data", `repair takes no argument such as "./data"; see 'cairn repair --help'`},
		{"repair --from ftp://x", `--from: node "ftp://x" is not an address such as http://127.0.0.1:7070; see 'cairn repair --help'`},
		{"streams --node ftp://x", `node "ftp://x" is not an address such as http://127.0.0.1:7070; see 'cairn --help'`},
	}
	for _, test := range tests {
		t.Run(test.args, func(t *testing.T) {
			var errs bytes.Buffer
			code := report(run(t.Context(), strings.Fields(test.args), strings.NewReader(""), &errs, &errs), &errs)
			if got, want := errs.String(), "cairn: "+test.want+"\n"; code != exitUsage || got != want {
				t.Errorf("exit %d\ngot  %swant %s", code, got, want)
			}
		})
	}
}

func TestRun_NobodyAnswers(t *testing.T) {
	start := time.Now()
	var errs bytes.Buffer
	code := report(run(t.Context(), []string{"read", "a", "--node", "127.0.0.1:1"}, strings.NewReader(""), &errs, &errs), &errs)
	if code != exitError || !strings.HasPrefix(errs.String(), "cairn: no node answers at 127.0.0.1:1 (") || strings.Count(errs.String(), "\n") != 1 {
		t.Errorf("exit %d, %s", code, errs.String())
	}
	if time.Since(start) > 2*time.Second {
		t.Errorf("it took %s to notice", time.Since(start))
	}
}

func TestRun_NodeOfEnvironment(t *testing.T) {
	f := newFakeNode(t)
	t.Setenv("CAIRN_NODE", "127.0.0.1:1,"+f.url)
	var out bytes.Buffer
	if err := run(t.Context(), []string{"cluster", "status"}, nil, &out, &out); err != nil || !strings.Contains(out.String(), "log-1") {
		t.Errorf("got %s, %v", out.String(), err)
	}
}

// What goes wrong is told in one line, with what to do.
func TestReport(t *testing.T) {
	problem := func(code string, status int) *client.Problem {
		return &client.Problem{Code: code, Status: status, Detail: "details", Node: "node-1"}
	}
	tests := []struct {
		err  error
		code int
		want string
	}{
		{nil, 0, ""},
		{errors.New("two\nlines \x1b[31m"), 1, `cairn: two lines \u001b[31m`},
		{problem(client.CodeConditionFailed, 412), 3, "cairn: conflict: details; read it again and decide anew"},
		{problem(client.CodeIDReused, 409), 3, "cairn: conflict: details; choose another id for a new event"},
		{&client.Problem{Code: client.CodeGuardFailed, Status: 409, Projection: "account", Key: "account-42", Guard: "state.balance >= 0", Message: "insufficient funds"}, 3,
			"cairn: refused by projection account for account-42: insufficient funds (not true: state.balance >= 0)"},
		{fmt.Errorf("line 3: %w", problem(client.CodeInvalidEvent, 400)), 1, "cairn: line 3: details"},
		{problem("", 418), 1, "cairn: node-1 answered with status 418: details; is that a Cairn node?"},
		{&client.UnavailableError{Err: problem(client.CodeNoLeader, 503)}, 1,
			"cairn: the cluster has no leader, nothing was written; more than half of its nodes must run: see 'cairn cluster status'"},
		{&client.UnavailableError{Err: problem(client.CodeOverloaded, 503)}, 1, "cairn: the cluster is overloaded, nothing was written; try again in a moment"},
		{&client.UnavailableError{Err: errors.New("EOF")}, 1, "cairn: no node could serve this (EOF); see 'cairn cluster status'"},
		{&client.UnknownError{IDs: []string{"x"}, Err: problem(client.CodeOutcomeUnknown, 504)}, 1,
			"cairn: it is not known whether this was written (details); repeat it with --id x: it is not added twice"},
		{&client.UnknownError{IDs: []string{"x", "y"}, Err: errors.New("EOF")}, 1,
			"cairn: it is not known whether this was written (EOF); repeat it with the same ids: what is there already is not added twice"},
		{&client.UnavailableError{Err: context.Canceled}, 1, "cairn: interrupted"},
		{&timeoutError{time.Second, context.DeadlineExceeded}, 1, "cairn: no answer within 1s; allow more with --timeout, or see 'cairn cluster status'"},
		{&timeoutError{time.Second, &client.UnavailableError{Err: fmt.Errorf("%w, while: %w", context.DeadlineExceeded, problem(client.CodeNoLeader, 503))}}, 1,
			"cairn: the cluster has no leader, nothing was written; more than half of its nodes must run: see 'cairn cluster status'"},
		{&silentError{problem(client.CodeConditionFailed, 412)}, 3, ""},
		{&importError{after: 7, err: &client.UnknownError{Err: errors.New("EOF")}}, 1,
			"cairn: import ended after line 7 (some lines behind it may be appended too: EOF); repeat the import: what is there already is not added twice"},
		{&importError{after: 7, withoutIDs: true, err: context.Canceled}, 1,
			"cairn: import ended after line 7 (interrupted); lines had no id, so repeating would add some twice: read first which are there"},
	}
	for _, test := range tests {
		var out bytes.Buffer
		code := report(test.err, &out)
		if test.want != "" {
			test.want += "\n"
		}
		if code != test.code || out.String() != test.want {
			t.Errorf("exit %d, want %d\ngot  %swant %s", code, test.code, out.String(), test.want)
		}
	}
}

// account fills a node with what the tests read.
func account(t *testing.T) *fakeNode {
	f := newFakeNode(t)
	f.add(event.Event{Stream: "$log", Type: "log-created", ID: "c"},
		event.Event{Stream: "account-42", Type: "FundsDeposited", ID: "d", Data: []byte(`{"amount":100}`), Tags: []string{"customer:9"}},
		event.Event{Stream: "photo-7", Type: "PhotoTaken", ID: "p", ContentType: "image/png", Data: []byte{1, 2, 3}},
		event.Event{Stream: "account-42", Type: "FundsWithdrawn", ID: "w", Data: []byte(`{"amount":30,"why":"` + "\u009b" + `31m"}`)})
	return f
}

const (
	lineDeposited = `{"position":2,"stream":"account-42","version":1,"time":"2026-01-02T03:04:02.000000000Z","id":"d","type":"FundsDeposited","tags":["customer:9"],"data":{"amount":100}}` + "\n"
	linePhoto     = `{"position":3,"stream":"photo-7","version":1,"time":"2026-01-02T03:04:03.000000000Z","id":"p","type":"PhotoTaken","content_type":"image/png","data_base64":"AQID"}` + "\n"
	lineWithdrawn = `{"position":4,"stream":"account-42","version":2,"time":"2026-01-02T03:04:04.000000000Z","id":"w","type":"FundsWithdrawn","data":{"amount":30,"why":"` + "\u009b" + `31m"}}` + "\n"
)

func TestRead(t *testing.T) {
	f := account(t)
	tests := []struct {
		args, want string
	}{
		{"read account-42", lineDeposited + lineWithdrawn},
		{"read account-42 --from 2", lineWithdrawn},
		{"read account-42 --desc --limit 1", lineWithdrawn},
		{"read --all --from 2", lineDeposited + linePhoto + lineWithdrawn},
		{"read --type PhotoTaken --type FundsDeposited", lineDeposited + linePhoto},
		{"read --position 3", linePhoto},
		{"read account-42 -o text", "VERSION  POSITION  TIME                      TYPE            DATA\n" +
			"      1         2  2026-01-02T03:04:02.000Z  FundsDeposited  {\"amount\":100} #customer:9\n" +
			"      2         4  2026-01-02T03:04:04.000Z  FundsWithdrawn  {\"amount\":30,\"why\":\"\\u009b31m\"}\n"},
		{"read --all -o text", "POSITION  STREAM      VERSION  TIME                      TYPE            DATA\n" +
			"       1  $log              1  2026-01-02T03:04:01.000Z  log-created     null\n" +
			"       2  account-42        1  2026-01-02T03:04:02.000Z  FundsDeposited  {\"amount\":100} #customer:9\n" +
			"       3  photo-7           1  2026-01-02T03:04:03.000Z  PhotoTaken      <image/png, 3 bytes>\n" +
			"       4  account-42        2  2026-01-02T03:04:04.000Z  FundsWithdrawn  {\"amount\":30,\"why\":\"\\u009b31m\"}\n"},
		{"read --type Nothing -o text", ""},
	}
	for _, test := range tests {
		if got := f.ok(t, "", strings.Fields(test.args)...); got != test.want {
			t.Errorf("%s\ngot\n%s\nwant\n%s", test.args, got, test.want)
		}
	}
	f.ok(t, "", "read", "--tag", "a:1,2", "--category", "c", "--since", "2026-01-02T00:00:00+01:00", "--local")
	if got := f.query.Encode(); got != "category=c&consistency=local&from_time=2026-01-01T23%3A00%3A00.000000000Z&limit=1000&tag=a%3A1%2C2&timeout=4s" {
		t.Errorf("got %s", got)
	}
	for _, position := range []string{"99", "5"} { // 4 is the last one
		if code, out, errs := f.run(t, "", "read", "--position", position, "--raw"); code != 1 || out != "" || errs != "cairn: there is no event at position "+position+"\n" {
			t.Errorf("position %s: exit %d, %s%s", position, code, out, errs)
		}
	}
	if code, out, errs := f.run(t, "", "read", "account-1"); code != 1 || out != "" || errs != `cairn: stream "account-1" does not exist`+"\n" {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
}

func TestAppend(t *testing.T) {
	f := newFakeNode(t)
	file := filepath.Join(t.TempDir(), "data.json")
	if err := os.WriteFile(file, []byte(" {\"from\":\"file\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, stdin, args string
		want              string // of stdout
		event             string // the last one, as read
	}{
		{"text", "", `append a --type T --data {"n":1} --id one --tag x:1 --tag y --correlation-id c --causation-id d --compensates e --meta {"m":1} -o text`,
			"a is at version 1: 1 event at position 1\n",
			`{"position":1,"stream":"a","version":1,"time":"2026-01-02T03:04:01.000000000Z","id":"one","type":"T","tags":["x:1","y"],"correlation_id":"c","causation_id":"d","compensates":"e","data":{"n":1},"meta":{"m":1}}`},
		{"again", "", `append a --type T --id one -o text`, "a is at version 1: nothing new, it was appended before, at position 1\n", ""},
		{"json", "", `append a --type T --id two --expect-version 1`,
			`{"first_position":2,"last_position":2,"version":2,"versions":{"a":2},"time":"2026-01-02T03:04:02Z","duplicate":false,"ids":["two"]}` + "\n", ""},
		{"file", "", `append a --type T --id three --exists -o text --data @` + file, "a is at version 3: 1 event at position 3\n",
			`{"position":3,"stream":"a","version":3,"time":"2026-01-02T03:04:03.000000000Z","id":"three","type":"T","data":{"from":"file"}}`},
		{"stdin", "hello", `append b --type T --id four --missing -o text --content-type text/plain --data -`, "b is at version 1: 1 event at position 4\n",
			`{"position":4,"stream":"b","version":1,"time":"2026-01-02T03:04:04.000000000Z","id":"four","type":"T","content_type":"text/plain","data_base64":"aGVsbG8="}`},
		{"several", "{\"type\":\"U\",\"id\":\"five\"}\n\n {\"type\":\"V\",\"stream\":\"b\"}", `append b -o text`, "b is at version 3: 2 events at positions 5 to 6\n", ""},
		{"as read", lineDeposited, `append account-42 -o text`, "account-42 is at version 1: 1 event at position 7\n",
			`{"position":7,"stream":"account-42","version":1,"time":"2026-01-02T03:04:07.000000000Z","id":"d","type":"FundsDeposited","tags":["customer:9"],"data":{"amount":100}}`},
		{"key", "", `append b --type T --idempotency-key k -o text`, "b is at version 4: 1 event at position 8\n",
			`{"position":8,"stream":"b","version":4,"time":"2026-01-02T03:04:08.000000000Z","id":"k/0","type":"T","data":null}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := f.ok(t, test.stdin, strings.Fields(test.args)...); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
			if got := string(event.AppendJSON(nil, &f.events[len(f.events)-1])); test.event != "" && got != test.event {
				t.Errorf("got  %s\nwant %s", got, test.event)
			}
		})
	}
	n := len(f.events)
	for args, want := range map[string]string{
		"append a --type T --expect-version 9":       `cairn: conflict: stream "a" is at version 3, not 9; read it again and decide anew` + "\n",
		"append a --type T --missing --id something": `cairn: conflict: stream "a" is at version 3, not ; read it again and decide anew` + "\n",
	} {
		if code, out, errs := f.run(t, "", strings.Fields(args)...); code != exitConflict || out != "" || errs != want {
			t.Errorf("%s: exit %d, %s%s", args, code, out, errs)
		}
	}
	for stdin, want := range map[string]string{
		"{\"type\":\"T\"}\nnonsense":    "cairn: line 2: body: is not the JSON it should be",
		`{"type":"T","stream":"other"}`: `cairn: line 1: it is of stream "other"; use 'cairn import' for several streams`,
	} {
		if code, _, errs := f.run(t, stdin, "append", "a"); code != exitError || !strings.HasPrefix(errs, want) {
			t.Errorf("%q: exit %d, %s", stdin, code, errs)
		}
	}
	if len(f.events) != n {
		t.Error("something was appended by what failed")
	}
}

func TestTail(t *testing.T) {
	f := account(t)
	for args, want := range map[string]string{
		"tail account-42 --from-start --limit 2": lineDeposited + lineWithdrawn,
		"tail --after 2 -n 1":                    linePhoto,
		"tail --type FundsWithdrawn --after 0 -n 1 -o text": "POSITION  STREAM      VERSION  TIME                      TYPE            DATA\n" +
			"       4  account-42        2  2026-01-02T03:04:04.000Z  FundsWithdrawn  {\"amount\":30,\"why\":\"\\u009b31m\"}\n",
	} {
		if got := f.ok(t, "", strings.Fields(args)...); got != want {
			t.Errorf("%s: got %s, want %s", args, got, want)
		}
	}
}

// Events that are appended while it runs are printed at once; Ctrl-C is no
// error.
func TestTail_Live(t *testing.T) {
	f := account(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	printed := make(chan string)
	var errs bytes.Buffer
	done := make(chan error)
	go func() {
		out := writerFunc(func(b []byte) {
			select {
			case printed <- string(b):
			case <-ctx.Done():
			}
		})
		done <- run(ctx, []string{"tail", "--node", f.url}, strings.NewReader(""), out, &errs)
	}()
	// What is added before tail has asked where the log ends is not printed.
	for got := ""; got == ""; {
		f.add(event.Event{Stream: "a", Type: "first"})
		select {
		case got = <-printed:
			if !strings.Contains(got, `"first"`) {
				t.Fatalf("got %s", got)
			}
		case <-time.After(10 * time.Millisecond):
		}
	}
	f.add(event.Event{Stream: "a", Type: "second"})
	for got := range printed {
		if strings.Contains(got, `"second"`) {
			break
		}
	}
	cancel()
	if err := <-done; err != nil || errs.Len() > 0 {
		t.Errorf("got %v, %s", err, errs.String())
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) {
	f(b)
	return len(b), nil
}

func TestStreams(t *testing.T) {
	f := account(t)
	for args, want := range map[string]string{
		"streams":                           `{"stream":"$log","version":1}` + "\n" + `{"stream":"account-42","version":2}` + "\n" + `{"stream":"photo-7","version":1}` + "\n",
		"streams --prefix account-":         `{"stream":"account-42","version":2}` + "\n",
		"streams --after account-42 -n 1":   `{"stream":"photo-7","version":1}` + "\n",
		"streams -o text":                   "STREAM      VERSION\n$log              1\naccount-42        2\nphoto-7           1\n",
		"streams -o text --prefix nowhere-": "",
	} {
		if got := f.ok(t, "", strings.Fields(args)...); got != want {
			t.Errorf("%s: got %s, want %s", args, got, want)
		}
	}
}

func TestCluster(t *testing.T) {
	f := newFakeNode(t)
	for args, want := range map[string]string{
		"cluster status -o text": "log log-1, term 3, leader node-1\n\n" +
			"NODE    ROLE    ALIVE  APPLIED  LAG  VERSION  HTTP\n" +
			"node-1  leader  yes         12    0  v1       NODE\n" +
			"node-2  voter   no           9    3  v1       NODE\n",
		"cluster status": `{"log":"log-1","leader":"node-1","term":3,"members":[{"id":"node-1","http":"NODE","role":"leader","alive":true,"applied":12,"lag":0,"version":"v1"},` +
			`{"id":"node-2","http":"NODE","role":"voter","alive":false,"applied":9,"lag":3,"version":"v1"}]}` + "\n",
		"cluster transfer":               `{"leader":"node-1"}` + "\n",
		"cluster transfer node-1 -otext": "node-1 leads\n",
		"cluster remove node-2":          `{"removed":"node-2"}` + "\n",
		"cluster remove node-2 -o text":  "node-2 is removed; its data directory can be deleted\n",
	} {
		if got := strings.ReplaceAll(f.ok(t, "", strings.Fields(args)...), f.url, "NODE"); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", args, got, want)
		}
	}
	if code, _, errs := f.run(t, "", "cluster", "remove", "node-9"); code != 1 || errs != `cairn: remove: there is no member "node-9"; 'cairn cluster status' lists them`+"\n" {
		t.Errorf("exit %d, %s", code, errs)
	}
}
