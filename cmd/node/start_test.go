package main

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

func lastLine(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return lines[len(lines)-1]
}

// Whatever keeps a node from starting is told in one line that says what is
// wrong and what to do, and in the exit code.
func TestProcess_StartMessages(t *testing.T) {
	for _, tt := range []struct {
		name string
		// break_ is called with the data of a node that ran and was stopped; it
		// returns further flags.
		break_ func(t *testing.T, p *process) []string
		code   int
		want   []string // regular expressions that the line must match
	}{
		{"wrong flag", func(*testing.T, *process) []string { return []string{"-dta", "x"} }, 2,
			[]string{`no flag -dta \(did you mean -data\?\)`, `-help`}},
		{"wrong value", func(*testing.T, *process) []string { return []string{"-expect", "0"} }, 2,
			[]string{`-expect: 0 is not between 1 and`}},
		{"HTTP port taken", func(t *testing.T, p *process) []string { take(t, p.http); return nil }, 1,
			[]string{`-http`, `%http%`, `taken|in use`}},
		{"Raft port taken", func(t *testing.T, p *process) []string { take(t, p.raft); return nil }, 1,
			[]string{`-raft`, `%raft%`, `taken|in use`}},
		{"gossip port taken", func(t *testing.T, p *process) []string { take(t, p.gossip); return nil }, 1,
			[]string{`-gossip`, `%gossip%`, `taken|in use`}},
		{"data is a file", func(t *testing.T, p *process) []string {
			replaceFile(t, p.dir, []byte("x"))
			return nil
		}, 1, []string{`%data%`, `folder|directory`}},
		{"data in use", func(t *testing.T, p *process) []string {
			other := p.cluster.add()
			other.name, other.dir = p.name, p.dir
			other.start("-join", "")
			other.waitReady()
			return nil
		}, 1, []string{`%data%`, `in use|another`}},
		{"format from the future", func(t *testing.T, p *process) []string {
			editNode(t, p, "format", 99)
			return nil
		}, 1, []string{`%data%`, `format 99`, `newer`}},
		{"version from the future", func(t *testing.T, p *process) []string {
			editNode(t, p, "min_version", 99)
			return nil
		}, 1, []string{`version 99`, `newer`}},
		{"broken node.json", func(t *testing.T, p *process) []string {
			replaceFile(t, filepath.Join(p.dir, "node.json"), []byte("{"))
			return nil
		}, 1, []string{`node\.json`}},
		{"part missing", func(t *testing.T, p *process) []string {
			must(t, os.RemoveAll(filepath.Join(p.dir, "raft", "wal")))
			return nil
		}, 1, []string{`raft/wal`, `missing`}},
		{"term and vote missing", func(t *testing.T, p *process) []string {
			must(t, os.Remove(filepath.Join(p.dir, "raft", "stable.db")))
			return nil
		}, 1, []string{`stable\.db`, `missing`}},
		{"damaged log", func(t *testing.T, p *process) []string {
			names := segments(t, p.logFolder())
			flip(t, filepath.Join(p.logFolder(), names[len(names)-1]), 200)
			return nil
		}, 1, []string{`damaged`, `\.seg`, `offset`}},
		{"log missing", func(t *testing.T, p *process) []string {
			for _, name := range segments(t, p.logFolder()) {
				must(t, os.Remove(filepath.Join(p.logFolder(), name)))
			}
			return nil
		}, 1, []string{`log`, `position`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 1)
			p := c.nodes[0]
			p.start()
			p.waitReady()
			appendUntil(t, c.nodes, "a-1", "one")
			p.stop()
			p.start(tt.break_(t, p)...)
			code := p.waitExit(10 * time.Second)
			out := strings.TrimSpace(p.out())
			t.Logf("exit code %d: %s", code, out)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if strings.Count(out, "\n") != 0 || !strings.HasPrefix(out, "cairn-node: ") {
				t.Errorf("not one line that begins with \"cairn-node: \":\n%s", out)
			}
			place := strings.NewReplacer("%http%", regexp.QuoteMeta(p.http), "%raft%", regexp.QuoteMeta(p.raft),
				"%gossip%", regexp.QuoteMeta(p.gossip), "%data%", regexp.QuoteMeta(p.dir))
			for _, want := range tt.want {
				if !regexp.MustCompile(place.Replace(want)).MatchString(out) {
					t.Errorf("it does not say %s", want)
				}
			}
		})
	}
}

// A node with the data of one cluster must not mix with the nodes of another.
func TestProcess_DataOfAnotherCluster(t *testing.T) {
	t.Parallel()
	ours, theirs := newCluster(t, 1), newCluster(t, 1)
	ours.up()
	theirs.nodes[0].name = "stranger"
	theirs.up()
	appendUntil(t, ours.nodes, "a-1", "one")
	stranger := theirs.nodes[0]
	stranger.stop()
	stranger.start("-join", ours.nodes[0].gossip)
	if code := stranger.waitExit(15 * time.Second); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	line := lastLine(stranger.out())
	t.Logf("it says: %s", line)
	if !strings.HasPrefix(line, "cairn-node: ") || !strings.Contains(line, "another cluster") && !strings.Contains(line, "another log") {
		t.Errorf("it does not say why")
	}
	if s, err := ours.nodes[0].status(); err != nil || len(s.Members) != 1 {
		t.Errorf("the cluster is %+v, %v", s, err)
	}
}

func TestProcess_VersionAndHelp(t *testing.T) {
	p := newCluster(t, 1).nodes[0]
	p.exec("-version")
	if code := p.waitExit(5 * time.Second); code != 0 || !strings.HasPrefix(p.out(), "cairn-node v0.0.0-test (go") {
		t.Errorf("-version: exit code %d, %q", code, p.out())
	}
	p.exec("-help")
	if code := p.waitExit(5 * time.Second); code != 0 || !strings.Contains(p.out(), "Examples:") {
		t.Errorf("-help: exit code %d, %q", code, p.out())
	}
}

// SIGINT is as clean as SIGTERM, and what was there before is there after.
func TestProcess_StopsCleanly(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	p := c.nodes[0]
	c.up()
	appendUntil(t, c.nodes, "a-1", "one")
	p.stop()
	p.start()
	p.waitReady()
	if a := p.mustGet("/v1/streams/a-1/events/1"); !bytes.Contains(a.body, []byte(`"id":"one"`)) {
		t.Errorf("after a restart: %s", a)
	}
	p.signal(syscall.SIGINT)
	if code := p.waitExit(10 * time.Second); code != 0 {
		t.Errorf("exit code %d after SIGINT", code)
	}
	if out := p.out(); !strings.Contains(out, "msg=stopped") || strings.Contains(out, "metric left out") {
		t.Errorf("its log:\n%s", tail(out))
	}
}

// A second signal does not wait for the clean stop, here one that waits for a
// client which does not send what it promised.
func TestProcess_SecondSignal(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	p := c.nodes[0]
	c.up()
	conn, err := net.Dial("tcp", p.http)
	must(t, err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "POST /v1/streams/a/events HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{", p.http)
	must(t, err)
	eventually(t, 5*time.Second, func() bool { return p.metrics()["cairn_http_requests_in_flight"] > 1 },
		func() string { return "the request does not arrive" })
	p.signal(syscall.SIGTERM)
	eventually(t, 5*time.Second, func() bool { return strings.Contains(p.out(), "msg=stopping") }, func() string { return "it does not stop" })
	p.signal(syscall.SIGTERM)
	if code := p.waitExit(time.Second); code != 1 {
		t.Errorf("exit code %d after a second SIGTERM", code)
	}
}

// take listens on an address until the test ends.
func take(t *testing.T, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func replaceFile(t *testing.T, name string, b []byte) {
	t.Helper()
	must(t, os.RemoveAll(name))
	must(t, os.WriteFile(name, b, 0o600))
}

// editNode sets a number in node.json, and its checksum to what it has to be
// then: crc32c of all that stands before it.
func editNode(t *testing.T, p *process, member string, value int) {
	t.Helper()
	name := filepath.Join(p.dir, "node.json")
	b, err := os.ReadFile(name)
	must(t, err)
	number := regexp.MustCompile(fmt.Sprintf(`%q: [0-9]+`, member))
	if !number.Match(b) {
		t.Fatalf("node.json has no %s: %s", member, b)
	}
	b = number.ReplaceAll(b, fmt.Appendf(nil, "%q: %d", member, value))
	b = b[:bytes.LastIndex(b, []byte(`"sum"`))]
	b = fmt.Appendf(b, "\"sum\": \"crc32c %08x\"\n}\n", crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	replaceFile(t, name, b)
}

// flip changes one bit of a file.
func flip(t *testing.T, name string, offset int64) {
	t.Helper()
	b, err := os.ReadFile(name)
	must(t, err)
	if int64(len(b)) <= offset {
		t.Fatal(fmt.Errorf("%s has only %d bytes", name, len(b)))
	}
	b[offset] ^= 1
	must(t, os.WriteFile(name, b, 0o600))
}
