package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn/client"
	"cairn/event"
	"cairn/examples/internal/define"
	"cairn/examples/internal/testnode"
)

// machine is a folder in which the real dpkg installs packages, as if it were a
// Debian machine of its own.
type machine struct {
	t           *testing.T
	folder, log string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	for _, program := range []string{"dpkg", "dpkg-deb", "dpkg-query"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("this machine has no ", program)
		}
	}
	m := &machine{t: t, folder: t.TempDir()}
	m.log = filepath.Join(m.folder, "dpkg.log")
	for _, folder := range []string{"info", "updates"} {
		m.write(filepath.Join("root/var/lib/dpkg", folder, "empty"), "")
	}
	m.write("root/var/lib/dpkg/status", "")
	m.write("root/var/lib/dpkg/available", "")
	return m
}

func (m *machine) write(name, text string) {
	m.t.Helper()
	name = filepath.Join(m.folder, name)
	err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644))
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) exec(program string, args ...string) string {
	m.t.Helper()
	cmd := exec.CommandContext(m.t.Context(), program, args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("%s %v: %v\n%s", program, args, err, &said)
	}
	return string(out)
}

// dpkg runs dpkg on the machine, which writes to log.
func (m *machine) dpkg(log string, args ...string) {
	m.t.Helper()
	// Who runs the test may be neither root nor have the tools of root.
	m.exec("dpkg", append([]string{"--root=" + filepath.Join(m.folder, "root"), "--force-not-root", "--force-bad-path", "--log=" + log}, args...)...)
}

// build makes a package with one configuration file and returns its file.
func (m *machine) build(name, version string) string {
	m.t.Helper()
	m.write(name+"/DEBIAN/control", fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: an example\n", name, version))
	m.write(name+"/DEBIAN/conffiles", "/etc/"+name+".conf\n")
	m.write(name+"/etc/"+name+".conf", "nothing\n")
	file := filepath.Join(m.folder, name+"_"+version+".deb")
	m.exec("dpkg-deb", "--root-owner-group", "--build", filepath.Join(m.folder, name), file)
	return file
}

// moment is what dpkg said once everything up to then was imported.
type moment struct {
	step  string
	at    time.Time
	query string
}

// record imports the log once more, all of it, and asks dpkg what there is.
func (m *machine) record(ctx context.Context, c *client.Client, step string) moment {
	m.t.Helper()
	text, err := os.ReadFile(m.log)
	if err != nil {
		m.t.Fatal(err)
	}
	events, _ := convertText(m.t, string(text), "")
	var last client.Result
	for _, e := range events {
		data, err := json.Marshal(e.Data)
		if err != nil {
			m.t.Fatal(err)
		}
		if last, err = c.Append(ctx, e.Stream, []event.Event{{Type: e.Type, ID: e.ID, Tags: e.Tags, Data: data}}); err != nil {
			m.t.Fatal(err)
		}
	}
	m.write(step+".txt", m.exec("dpkg-query", "--admindir="+filepath.Join(m.folder, "root/var/lib/dpkg"), "-W", "-f="+queryFormat))
	return moment{step, last.Time, filepath.Join(m.folder, step+".txt")}
}

// What the rows say is what dpkg says, after each of its steps and, later, as of
// each of them.
func TestCompare(t *testing.T) {
	m := newMachine(t)
	node := testnode.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	c, err := client.New(client.Config{Nodes: []string{node}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	definition, err := os.ReadFile("packages.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := define.Apply(ctx, c, definition); err != nil {
		t.Fatal(err)
	}
	// Two packages are older than the log; one of them is never touched again.
	m.dpkg("/dev/null", "--install", m.build("base", "1"), m.build("old", "1"))
	info := filepath.Join(m.folder, "root/var/lib/dpkg/info")
	if err := os.Chtimes(filepath.Join(info, "base.list"), time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	var moments []moment
	for _, step := range []struct {
		name string
		args []string
	}{
		{"install", []string{"--install", m.build("hello", "1.0-1")}},
		{"upgrade", []string{"--install", m.build("hello", "1:0.9"), m.build("new", "2~rc1")}},
		{"remove", []string{"--remove", "hello"}},
		{"unpack", []string{"--unpack", m.build("old", "2")}},
		{"purge", []string{"--purge", "hello", "new"}},
		{"configure", []string{"--configure", "--pending"}},
	} {
		m.dpkg(m.log, step.args...)
		moments = append(moments, m.record(ctx, c, step.name))
	}
	for _, then := range moments {
		var out bytes.Buffer
		err := run(ctx, []string{"compare", "-node", node, "-info", info, "-query", then.query, "-at", then.at.Format(time.RFC3339Nano)}, nil, &out, &out)
		if err != nil {
			t.Errorf("%s: %v\n%s", then.step, err, &out)
		}
	}
	// It finds what is not so: today is not as after the first step.
	var out bytes.Buffer
	err = run(ctx, []string{"compare", "-node", node, "-info", info, "-query", moments[0].query}, nil, &out, &out)
	for _, want := range []string{
		"base:all 1 installed is unknown to the log: installed before the log began, and not touched since",
		"hello:all 1.0-1 installed is unknown to the log: UNEXPLAINED",
		"old:all 1 installed is 2 installed by the log: UNEXPLAINED",
		"\n2 unexplained\n",
	} {
		if err == nil || !strings.Contains(out.String(), want) {
			t.Errorf("got %v; %q is missing in\n%s", err, want, &out)
		}
	}
	out.Reset()
	if err := run(ctx, []string{"compare", "-node", node, "-info", info, "-query", moments[1].query, "-at", moments[1].at.Format(time.RFC3339Nano)}, nil, &out, &out); err != nil ||
		!strings.Contains(out.String(), "old:all 1 installed is unknown to the log: installed before the log began, as its first line there says") {
		t.Errorf("got %v\n%s", err, &out)
	}
}
