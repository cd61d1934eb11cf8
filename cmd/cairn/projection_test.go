package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cairn/event"
	"cairn/projection"
)

const definitionYAML = `# Accounts and what may be withdrawn.
name: account
match: {category: account}
init: {balance: 0, open: true}
when:
  FundsDeposited: "{'balance': state.balance + event.data.amount}"
  "*": >-
    {'seen': event.position}
guards:
  FundsWithdrawn:
  - rule: state.balance >= event.data.amount
    message: insufficient funds
`

const definitionJSON = `{"guards":{"FundsWithdrawn":[{"message":"insufficient funds","rule":"state.balance >= event.data.amount"}]},` +
	`"init":{"balance":0,"open":true},"match":{"category":"account"},"name":"account",` +
	`"when":{"*":"{'seen': event.position}","FundsDeposited":"{'balance': state.balance + event.data.amount}"}}`

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestProjection_Apply(t *testing.T) {
	f := newFakeNode(t)
	f.projections.polls = 2
	file := writeFile(t, "account.yaml", definitionYAML)
	if got := f.ok(t, "", "projection", "apply", "-f", file); got != `{"name":"account","generation":295,"state":"live","changed":true}`+"\n" {
		t.Errorf("got %s", got)
	}
	if got := f.projections.defined["account"]; got != definitionJSON {
		t.Errorf("got  %s\nwant %s", got, definitionJSON)
	}
	if f.projections.polls != 0 {
		t.Error("it did not wait until the projection was live")
	}
	if got := f.ok(t, "", "projection", "apply", "-f", file, "-o", "text"); got != "account is as it was: generation 295, live\n" {
		t.Errorf("got %s", got)
	}

	f.projections.polls = 1
	two := "---\n---\nname: a\n---\n# nothing else\nname: b\ninit: {n: 12345678901234567890, day: 2026-01-01, no: no}\n"
	got := f.ok(t, two, "projection", "apply", "--no-wait", "-otext", "--file", "-")
	if want := "a is defined: generation 12, building\nb is defined: generation 75, building\n"; got != want || f.projections.polls != 1 {
		t.Errorf("got %s", got)
	}
	if got, want := f.projections.defined["b"], `{"init":{"day":"2026-01-01","n":12345678901234567890,"no":"no"},"name":"b"}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	f.ok(t, ` {"name":"c",	"key":"a && b"} {"name":"d"}`, "projection", "apply", "--no-wait", "-f", "-")
	if c, d := f.projections.defined["c"], f.projections.defined["d"]; c != `{"name":"c",	"key":"a && b"}` || d != `{"name":"d"}` {
		t.Errorf("got %s, %s", c, d)
	}
}

// The definition of the documentation is one.
func TestProjection_Docs(t *testing.T) {
	text, err := os.ReadFile("../../docs/projections.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ = bytes.Cut(text, []byte("```yaml\n"))
	text, _, found := bytes.Cut(text, []byte("```"))
	documents, err := splitDocuments(text)
	if !found || err != nil || len(documents) != 1 {
		t.Fatalf("got %d documents, %v", len(documents), err)
	}
	d, err := projection.ParseDefinition("account", documents[0])
	if err == nil {
		_, err = projection.Compile(d)
	}
	if err != nil || !d.Guarding() {
		t.Errorf("got %+v, %v", d, err)
	}
}

// Nothing is sent while a file holds a fault, and a fault that the server finds
// is told with its place.
func TestProjection_ApplyErrors(t *testing.T) {
	f := newFakeNode(t)
	for text, want := range map[string]string{
		"":                         `stdin: holds no definition`,
		"name: a\nname: b\n":       `stdin: yaml: unmarshal errors: line 2: mapping key "name" already defined at line 1`,
		"name: a\n---\nkey: [1\n":  `stdin: yaml: line 2: did not find expected ',' or ']'`,
		"name: a\n---\nkey: k\n":   `stdin, document 2: must be an object with a "name"`,
		"- name: a\n":              `stdin: must be an object with a "name"`,
		`{"name":"a"} {`:           `stdin: jsontext: unexpected EOF`,
		"name: a\ninit: {n: .nan}": `stdin: has no form in JSON`,
		"name: a\n---\nname: [b]n": `stdin: yaml:`,
	} {
		if code, out, errs := f.run(t, text, "projection", "apply", "-f", "-"); code != exitError || out != "" || !strings.HasPrefix(errs, "cairn: "+want) {
			t.Errorf("%q: exit %d, %s", text, code, errs)
		}
	}
	if len(f.projections.defined) > 0 {
		t.Errorf("there is %v", f.projections.defined)
	}
	code, _, errs := f.run(t, "name: a\n---\nname: b\nwhen: {T: '{} + sum(1)'}\n", "projection", "apply", "-f", "-")
	if want := "cairn: stdin, document 2, b: when.T, line 1, column 5: undeclared reference to 'sum'\n"; code != exitError || errs != want {
		t.Errorf("exit %d, got %s", code, errs)
	}
}

func TestProjection_Show(t *testing.T) {
	f := newFakeNode(t)
	f.projections.defined = map[string]string{"account": `{"key":"a && b","init":{}}`, "next": `{}`}
	for args, want := range map[string]string{
		"projection list -o text": "PROJECTION  STATE  GUARDS  SINCE  POSITION  HEAD  FAILED  GENERATION  NEXT\n" +
			"account     live   yes        70         9    12       1          26\n" +
			"next        live   yes        70         9    12       1           2  building 50 %\n",
		"projection status account -o text": "account, generation 26: live since position 70, guarding from there on; folded to 9 of 12\n\n" +
			"{\n  \"key\": \"a && b\",\n  \"init\": {}\n}\n\n1 row stopped, each at an event that could not be folded:\n" +
			"ROW        POSITION  REASON\naccount-9         7  no such overload\n",
		"projection status account": `{"name":"account","generation":26,"state":"live","guarding":true,"since":70,"position":9,"head":12,"progress":0.43,` +
			`"rows":{"failed":1},"failures":[{"key":"account-9","position":7,"reason":"no such overload"}],"definition":{"key":"a && b","init":{}}}` + "\n",
	} {
		if got := f.ok(t, "", strings.Fields(args)...); got != want {
			t.Errorf("%s\ngot\n%s\nwant\n%s", args, got, want)
		}
	}
	if got := f.ok(t, "", "projection", "list"); strings.Count(got, "\n") != 2 || !strings.Contains(got, `"next":{"name":"next","generation":99`) {
		t.Errorf("got %s", got)
	}
	f.projections.polls = 1
	if got := f.ok(t, "", "projection", "status", "next", "-otext"); !strings.HasPrefix(got, "next, generation 2: building 43 %, not guarding yet; folded to 9 of 12\n") {
		t.Errorf("got %s", got)
	}
	if got := f.ok(t, "", "projection", "delete", "account", "-o", "text"); got != "account is deleted, its rows are gone and its guards hold no longer\n" {
		t.Errorf("got %s", got)
	}
	if got := f.ok(t, "", "projection", "delete", "next"); got != `{"deleted":"next"}`+"\n" {
		t.Errorf("got %s", got)
	}
	for _, command := range []string{"status", "delete", "rows"} {
		want := `cairn: there is no projection "next"; 'cairn projection list' lists them` + "\n"
		if code, _, errs := f.run(t, "", "projection", command, "next"); code != exitError || errs != want {
			t.Errorf("%s: exit %d, %s", command, code, errs)
		}
	}
}

// accounts is a node with two accounts and a projection of them.
func accounts(t *testing.T) *fakeNode {
	f := account(t) // account-42: deposited 100 at 2, withdrawn 30 at 4
	f.add(event.Event{Stream: "account-42", Type: "Renamed", ID: "r", Data: []byte(`{"owner":{"name":"Ann","a/b":1}}`)},
		event.Event{Stream: "account-42", Type: "Opened", ID: "o"},
		event.Event{Stream: "account-9", Type: "FundsDeposited", ID: "x", Data: []byte(`{"amount":1.50}`)},
		event.Event{Stream: "account-42", Type: "Renamed", ID: "q", Data: []byte(`{"owner":{"name":"Bob","a/b":null,"tags":["x"]},"amount":12345678901234567890}`)})
	f.projections.defined["account"] = `{"init":{"balance":0,"open":true}}`
	return f
}

func TestProjection_Rows(t *testing.T) {
	f := accounts(t)
	for args, want := range map[string]string{
		"projection rows account -o text": "ROW         EVENTS  POSITION  STATE\n" +
			"account-42       5         8  {\"balance\":70,\"open\":true}\n" +
			"account-9        1         7  stopped at 7 (no such overload): {\"balance\":0,\"open\":true}\n",
		"projection rows account --prefix account- --after account-42": `{"key":"account-9","state":{"balance":0,"open":true},"events":1,"position":7,` +
			`"failed":{"position":7,"reason":"no such overload"},"as_of":12,"generation":5}` + "\n",
		"projection rows account --limit 1 --at 2026-01-02T03:04:02Z": `{"key":"account-42","state":{"balance":100,"open":true},"events":1,"position":2,"as_of":12,"generation":5}` + "\n",
		"projection rows account --at-position 1 -otext":              "",
	} {
		if got := f.ok(t, "", strings.Fields(args)...); got != want {
			t.Errorf("%s\ngot\n%s\nwant\n%s", args, got, want)
		}
	}
	f.projections.polls = 1
	want := `cairn: projection "account" is being built, 43 % so far; see 'cairn projection status account'` + "\n"
	if code, _, errs := f.run(t, "", "projection", "rows", "account"); code != exitError || errs != want {
		t.Errorf("exit %d, %s", code, errs)
	}
}

func TestState(t *testing.T) {
	f := accounts(t)
	for args, want := range map[string]string{
		"state account-42": `{"stream":"account-42","state":{"amount":12345678901234567890,"owner":{"name":"Bob","tags":["x"]},"why":"` + "\u009b" + `31m"},` +
			`"version":5,"events":5,"position":8,"replayed":5,"final":true,"as_of":12}` + "\n",
		"state account-42 -o text --at-version 2": "account-42 after 2 events, the last at position 4\n{\n  \"amount\": 30,\n  \"why\": \"\\u009b31m\"\n}\n",
		"state account-42 -p account --at-position 2": `{"key":"account-42","state":{"balance":100,"open":true},"events":1,"position":2,"as_of":12,"generation":5,` +
			`"replayed":2,"final":true}` + "\n",
		"state account-42 --projection account --at 2026-01-02T03:04:04Z -otext": "account-42 after 2 events, the last at position 4; not final, the time is not over\n" +
			"{\n  \"balance\": 70,\n  \"open\": true\n}\n",
		"state account-9 -p account -o text": "account-9 after 1 event, the last at position 7; stopped at position 7: no such overload\n{\n  \"balance\": 0,\n  \"open\": true\n}\n",
	} {
		if got := f.ok(t, "", strings.Fields(args)...); got != want {
			t.Errorf("%s\ngot\n%s\nwant\n%s", args, got, want)
		}
	}
	if want := "/v1/streams/account-42/state?at_version=2&timeout=4s"; !slices.Contains(f.projections.reads, want) {
		t.Errorf("no %s in %q", want, f.projections.reads)
	}
	for args, want := range map[string]string{
		"state none":            `stream 'none' does not exist`,
		"state none -p account": `there is no row 'none'; 'cairn projection list' lists projections, 'cairn projection rows account' rows`,
		"state none -p cart":    `there is no projection 'cart'; 'cairn projection list' lists projections, 'cairn projection rows cart' rows`,
	} {
		if code, _, errs := f.run(t, "", strings.Fields(args)...); code != exitError || errs != "cairn: "+want+"\n" {
			t.Errorf("%s: exit %d, %s", args, code, errs)
		}
	}
}

func TestDiff(t *testing.T) {
	f := accounts(t)
	for args, want := range map[string]string{
		"diff account-42 -p account --from v1 -o text": "MEMBER    OLD  NEW\n/balance  100  70\n",
		"diff account-42 -p account --from p1":         `{"key":"account-42","from":{"events":0,"position":0},"to":{"events":5,"position":8},"changes":[{"path":"/balance","new":70},{"path":"/open","new":true}]}` + "\n",
		"diff account-42 --from v3 -o text": "MEMBER       OLD    NEW\n" +
			"/amount      30     12345678901234567890\n/owner/a~1b  1\n/owner/name  \"Ann\"  \"Bob\"\n/owner/tags         [\"x\"]\n",
		"diff account-42 --from 2026-01-02T03:04:05Z --to p8": `{"key":"account-42","from":{"events":3,"position":5},"to":{"events":5,"position":8},"changes":[{"path":"/amount","old":30,"new":12345678901234567890},` +
			`{"path":"/owner/a~1b","old":1},{"path":"/owner/name","old":"Ann","new":"Bob"},{"path":"/owner/tags","new":["x"]}]}` + "\n",
		"diff account-42 --to v1":                                    `{"key":"account-42","from":{"events":0,"position":0},"to":{"events":1,"position":2},"changes":[{"path":"/amount","new":100}]}` + "\n",
		"diff account-42 --from v3 --to v4 -otext":                   "nothing changed in account-42: 3 events, then 4 events\n",
		"diff account-42 -p account --from v4 --to v5 -o json":       `{"key":"account-42","from":{"events":4,"position":6},"to":{"events":5,"position":8},"changes":[]}` + "\n",
		"diff account-42 -p account --from v3 --to v1 -o text":       "MEMBER    OLD  NEW\n/balance  70   100\n",
		"diff account-42 --projection account --to v1 --full -otext": "MEMBER    OLD  NEW\n/balance       100\n/open          true\n",
	} {
		if got := f.ok(t, "", strings.Fields(args)...); got != want {
			t.Errorf("%s\ngot\n%s\nwant\n%s", args, got, want)
		}
	}
	if code, _, errs := f.run(t, "", "diff", "none"); code != exitError || errs != "cairn: stream 'none' does not exist\n" {
		t.Errorf("exit %d, %s", code, errs)
	}
	// Two states by two definitions tell nothing of what happened between them.
	f.projections.restless = true
	code, out, errs := f.run(t, "", "diff", "account-42", "-p", "account", "--from", "v1")
	if code != exitError || out != "" || !strings.Contains(errs, "projection account is defined anew") {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
}

func TestChanges(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{`{"a":1,"b":{"c":[1,2,3]}}`, `{"b":{"c":[1,5]},"d":null}`, `/a taken out, /b/c/1 2 -> 5, /b/c/2 taken out, /d = null`},
		{`{"a":1}`, `{"a":{"b":1}}`, `/a 1 -> {"b":1}`},
		{`[1]`, `[1,{"a":1}]`, `/1 = {"a":1}`},
		{`1`, `"1"`, `1 -> "1"`},
		{`{"":1,"~":2,"/":3}`, `{"":2,"~":3,"/":4}`, `/ 1 -> 2, /~0 2 -> 3, /~1 3 -> 4`},
		{`{"a":1}`, `{"a":1}`, ``},
		{`{"a":1}`, ``, `taken out`},
	} {
		list, err := changes([]byte(c.old), []byte(c.new))
		if c.new == "" {
			list, err = changes([]byte(c.old), nil)
		}
		if got := changesText(list); err != nil || got != c.want {
			t.Errorf("%s, %s: got %s, %v; want %s", c.old, c.new, got, err, c.want)
		}
	}
}

func TestWhy(t *testing.T) {
	f := accounts(t)
	for args, want := range map[string]string{
		"why account-42 -p account -o text": "POSITION  STREAM      VERSION  TIME                      TYPE            CHANGED\n" +
			"       2  account-42        1  2026-01-02T03:04:02.000Z  FundsDeposited  /balance 0 -> 100\n" +
			"       4  account-42        2  2026-01-02T03:04:04.000Z  FundsWithdrawn  /balance 100 -> 70\n" +
			"       5  account-42        3  2026-01-02T03:04:05.000Z  Renamed         nothing\n" +
			"       6  account-42        4  2026-01-02T03:04:06.000Z  Opened          nothing\n" +
			"       8  account-42        5  2026-01-02T03:04:08.000Z  Renamed         nothing\n",
		"why account-42 -o text": "VERSION  POSITION  TIME                      TYPE            CHANGED\n" +
			"      1         2  2026-01-02T03:04:02.000Z  FundsDeposited  /amount = 100\n" +
			"      2         4  2026-01-02T03:04:04.000Z  FundsWithdrawn  /amount 100 -> 30, /why = \"\\u009b31m\"\n" +
			"      3         5  2026-01-02T03:04:05.000Z  Renamed         /owner = {\"a/b\":1,\"name\":\"Ann\"}\n" +
			"      4         6  2026-01-02T03:04:06.000Z  Opened          nothing\n" +
			"      5         8  2026-01-02T03:04:08.000Z  Renamed         /amount 30 -> 12345678901234567890, /owner/a~1b taken out, /owner/name \"Ann\" -> \"Bob\", /owner/tags = [\"x\"]\n",
		"why account-42 -p account --full": `{"position":2,"stream":"account-42","version":1,"time":"2026-01-02T03:04:02.000000000Z","type":"FundsDeposited","changes":[{"path":"/balance","old":0,"new":100}]}` + "\n" +
			`{"position":4,"stream":"account-42","version":2,"time":"2026-01-02T03:04:04.000000000Z","type":"FundsWithdrawn","changes":[{"path":"/balance","old":100,"new":70}]}` + "\n" +
			`{"position":5,"stream":"account-42","version":3,"time":"2026-01-02T03:04:05.000000000Z","type":"Renamed","changes":[]}` + "\n" +
			`{"position":6,"stream":"account-42","version":4,"time":"2026-01-02T03:04:06.000000000Z","type":"Opened","changes":[]}` + "\n" +
			`{"position":8,"stream":"account-42","version":5,"time":"2026-01-02T03:04:08.000000000Z","type":"Renamed","changes":[]}` + "\n",
		"why photo-7":   `{"position":3,"stream":"photo-7","version":1,"time":"2026-01-02T03:04:03.000000000Z","type":"PhotoTaken","changes":[]}` + "\n",
		"why account-9": `{"position":7,"stream":"account-9","version":1,"time":"2026-01-02T03:04:07.000000000Z","type":"FundsDeposited","changes":[{"path":"/amount","new":1.50}]}` + "\n",
	} {
		if got := f.ok(t, "", strings.Fields(args)...); got != want {
			t.Errorf("%s\ngot\n%s\nwant\n%s", args, got, want)
		}
	}
	code, out, errs := f.run(t, "", "why", "account-9", "-p", "account")
	if code != 0 || strings.Count(out, "\n") != 1 || errs != "cairn: the row stopped at position 7: no such overload\n" {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
	if code, _, errs := f.run(t, "", "why", "none"); code != exitError || errs != "cairn: stream 'none' does not exist\n" {
		t.Errorf("exit %d, %s", code, errs)
	}
}

// Wrong usage is told before any node is asked.
func TestProjection_Usage(t *testing.T) {
	for args, want := range map[string]string{
		"projection aply":                     `there is no command "aply" (did you mean apply?); see 'cairn projection --help'`,
		"projection apply":                    `name a file with --file; see 'cairn projection apply --help'`,
		"projection apply x":                  `apply takes no argument such as "x"; see 'cairn projection apply --help'`,
		"projection status":                   `status takes the name of one projection; 'cairn projection list' lists them; see 'cairn projection status --help'`,
		"projection rows a --limit -1":        `--limit must be 0 or more; see 'cairn projection rows --help'`,
		"projection rows a --at-version 3":    `unknown flag: --at-version; see 'cairn projection rows --help'`,
		"state":                               `state takes one stream, or one row with --projection, not 0; see 'cairn state --help'`,
		"state a b":                           `state takes one stream, or one row with --projection, not 2; see 'cairn state --help'`,
		"state ..":                            `stream: must not be '.' or '..'; see 'cairn state --help'`,
		"state a --at-version 0":              `--at-version must be 1 or more; see 'cairn state --help'`,
		"state a --at-version 1 --at now":     `give one moment, not 2; see 'cairn state --help'`,
		"state a --at now":                    `--at: "now" is not a time such as 2026-01-31T09:30:00Z (RFC 3339); see 'cairn state --help'`,
		"diff a --from v0":                    `--from: "v0" is not a time such as 2026-01-31T09:30:00Z (RFC 3339), a version such as v3 or a position such as p812; see 'cairn diff --help'`,
		"diff a --to x":                       `--to: "x" is not a time such as 2026-01-31T09:30:00Z (RFC 3339), a version such as v3 or a position such as p812; see 'cairn diff --help'`,
		"why a b":                             `why takes one stream, or one row with --projection, not 2; see 'cairn why --help'`,
		"projection apply -f /does/not/exist": ``,
	} {
		var errs strings.Builder
		code := report(run(t.Context(), strings.Fields(args), strings.NewReader(""), &errs, &errs), &errs)
		if want == "" {
			want = "open /does/not/exist: no such file or directory"
			code++
		}
		if got := errs.String(); code != exitUsage || got != "cairn: "+want+"\n" {
			t.Errorf("%s: exit %d\ngot  %swant cairn: %s", args, code, got, want)
		}
	}
}
