package main

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	const at = "2026-01-02T10:00:00"
	tests := []struct {
		line string
		want entry
	}{
		{"startup archives unpack", entry{typ: "RunStarted", Kind: "archives", Command: "unpack"}},
		{"install hello:amd64 <none> 2.10-3", entry{typ: "InstallStarted", Package: "hello", Architecture: "amd64", AvailableVersion: "2.10-3"}},
		{"upgrade hello:amd64 2.10-3 1:2.12~rc1+b2", entry{typ: "UpgradeStarted", Package: "hello", Architecture: "amd64", InstalledVersion: "2.10-3", AvailableVersion: "1:2.12~rc1+b2"}},
		{"configure hello 2.10-3 <none>", entry{typ: "ConfigureStarted", Package: "hello", InstalledVersion: "2.10-3"}},
		{"trigproc man-db:amd64 2.11 <none>", entry{typ: "TriggerProcessingStarted", Package: "man-db", Architecture: "amd64", InstalledVersion: "2.11"}},
		{"remove libstdc++6:amd64 12 <none>", entry{typ: "RemovalStarted", Package: "libstdc++6", Architecture: "amd64", InstalledVersion: "12"}},
		{"purge x:all 1 <none>", entry{typ: "PurgeStarted", Package: "x", Architecture: "all", InstalledVersion: "1"}},
		{"disappear x:all 1 <none>", entry{typ: "DisappearanceStarted", Package: "x", Architecture: "all", InstalledVersion: "1"}},
		{"status not-installed x:all <none>", entry{typ: "StatusChanged", Package: "x", Architecture: "all", Status: "not-installed"}},
		{"conffile /etc/x y.conf keep", entry{typ: "ConffileDecided", File: "/etc/x y.conf", Decision: "keep"}},
		{"conffile keep keep", entry{typ: "ConffileDecided", File: "keep", Decision: "keep"}},
	}
	for _, test := range tests {
		test.want.Time = at
		if got, err := parse("2026-01-02 10:00:00 " + test.line); err != nil || got != test.want {
			t.Errorf("%s\ngot  %+v, %v\nwant %+v", test.line, got, err, test.want)
		}
	}
}

func TestParse_NotUnderstood(t *testing.T) {
	for _, line := range []string{
		"", "hello", "2026-01-02 10:00:00", "2026-13-02 10:00:00 startup archives unpack", "yesterday noon startup archives unpack",
		"2026-01-02 10:00:00 explode x:all 1 <none>", "2026-01-02 10:00:00 install x:all <none>", "2026-01-02 10:00:00 install :all <none> 1",
		"2026-01-02 10:00:00 status installed", "2026-01-02 10:00:00 startup", "2026-01-02 10:00:00 conffile keep",
	} {
		if e, err := parse(line); err == nil {
			t.Errorf("%q: got %+v, want an error", line, e)
		}
	}
}

// convertText converts a log and returns its events and what was said.
func convertText(t *testing.T, text, host string) ([]jsonEvent, string) {
	t.Helper()
	var out, said bytes.Buffer
	if err := convert(strings.NewReader(text), &out, &said, host); err != nil {
		t.Fatal(err)
	}
	var events []jsonEvent
	for _, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		var e jsonEvent
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		events = append(events, e)
	}
	return events, said.String()
}

func TestConvert_Sample(t *testing.T) {
	text, err := os.ReadFile("testdata/dpkg.log")
	if err != nil {
		t.Fatal(err)
	}
	events, said := convertText(t, string(text), "")
	if want := "dpkg: 17 lines: 14 events of 4 packages, 3 of runs, 0 lines not understood\n"; said != want {
		t.Errorf("got %q, want %q", said, want)
	}
	ids := make(map[string]int)
	for i, e := range events {
		if first, ok := ids[e.ID]; ok {
			t.Errorf("events %d and %d have the same id", first, i)
		}
		ids[e.ID] = i
	}
	want := jsonEvent{Stream: "package-hello:amd64", Type: "InstallStarted", ID: events[1].ID, Tags: []string{"package:hello"},
		Data: entry{Time: "2026-01-02T10:00:00", Package: "hello", Architecture: "amd64", AvailableVersion: "2.10-3"}}
	if !reflect.DeepEqual(events[1], want) {
		t.Errorf("got  %+v\nwant %+v", events[1], want)
	}
	if events[0].Stream != runsStream {
		t.Errorf("got %+v", events[0])
	}
}

// A log that has grown gives the same events for the lines that were there.
func TestConvert_Repeatable(t *testing.T) {
	text, err := os.ReadFile("testdata/dpkg.log")
	if err != nil {
		t.Fatal(err)
	}
	before, _ := convertText(t, string(text), "")
	after, _ := convertText(t, string(text)+"2026-03-01 00:00:00 startup archives unpack\n", "")
	if len(after) != len(before)+1 || !reflect.DeepEqual(after[:len(before)], before) {
		t.Error("events of old lines have changed")
	}
	other, _ := convertText(t, string(text), "another-machine")
	if other[0].ID == before[0].ID || other[0].Tags[0] != "host:another-machine" {
		t.Errorf("got %+v", other[0])
	}
}

// A line that is just being written is not taken for a whole one, and one that
// is not understood costs only itself.
func TestConvert_Rest(t *testing.T) {
	events, said := convertText(t, "2026-01-02 10:00:00 startup archives unpack\nnonsense\n2026-01-02 10:00:00 install x:all <none> 1", "")
	if len(events) != 1 || !strings.Contains(said, "line 2: ") || !strings.Contains(said, "line 3 has no end yet") || !strings.Contains(said, " 1 lines not understood") {
		t.Errorf("got %+v, %s", events, said)
	}
}
