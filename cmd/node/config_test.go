package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// environment is a getenv of fixed variables.
func environment(pairs ...string) func(string) string {
	m := map[string]string{}
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		m[k] = v
	}
	return func(name string) string { return m[name] }
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestConfig_Defaults(t *testing.T) {
	cmd, err := parseCommand(nil, environment())
	if err != nil {
		t.Fatal(err)
	}
	c := cmd.config
	if c.Data != "./data" || c.HTTP != "127.0.0.1:7070" || c.Raft != "127.0.0.1:7071" || c.Gossip != "127.0.0.1:7072" || c.Expect != 1 || len(c.Join) != 0 {
		t.Errorf("defaults are %+v", c)
	}
	if got := c.HTTPURL(); got != "http://127.0.0.1:7070" {
		t.Errorf("HTTPURL = %s", got)
	}
}

func TestConfig_Precedence(t *testing.T) {
	file := writeFile(t, "data: /file\nexpect: 3\nid: from-file\nsegment_size: 4KiB\njoin:\n  - a:1\n  - b:2\nlog_level: warn\n")
	env := environment("CAIRN_CONFIG="+file, "CAIRN_EXPECT=5", "CAIRN_ID=from-env", "CAIRN_SAVEPOINT_BYTES=8192")
	cmd, err := parseCommand([]string{"-id", "from-flag", "--snapshot-bytes=1MiB"}, env)
	if err != nil {
		t.Fatal(err)
	}
	c := cmd.config
	if c.Data != "/file" || c.Expect != 5 || c.ID != "from-flag" {
		t.Errorf("data %s of the file, expect %d of the environment, id %s of the flag", c.Data, c.Expect, c.ID)
	}
	if c.SegmentSize != 4096 || c.SavepointBytes != 8192 || c.SnapshotBytes != 1<<20 || c.LogLevel != slog.LevelWarn {
		t.Errorf("sizes %d %d %d, level %v", c.SegmentSize, c.SavepointBytes, c.SnapshotBytes, c.LogLevel)
	}
	if !slices.Equal(c.Join, []string{"a:1", "b:2"}) {
		t.Errorf("join = %q", c.Join)
	}
}

// Every setting must be reachable from each of the three sources.
func TestConfig_EverySettingFromEverySource(t *testing.T) {
	example := map[string]string{
		"data": "/d", "http": "127.0.0.1:9001", "raft": "127.0.0.1:9002", "gossip": "127.0.0.1:9003", "expect": "3", "join": "h:1", "id": "n1",
		"advertise-http": "h:1", "advertise-raft": "h:2", "advertise-gossip": "h:3", "secret-file": "/s", "segment-size": "8192",
		"savepoint-bytes": "8193", "snapshot-bytes": "8194", "trailing-bytes": "8195", "file-rate": "8196", "scrub-rate": "8197", "log-level": "error", "log-format": "json",
	}
	for _, s := range settings {
		value, ok := example[s.name]
		if !ok {
			t.Errorf("no example for -%s", s.name)
			continue
		}
		want := defaultConfig()
		if err := s.set(&want, value); err != nil {
			t.Fatalf("-%s %s: %v", s.name, value, err)
		}
		for source, parse := range map[string]func() (command, error){
			"flag": func() (command, error) { return parseCommand([]string{"-" + s.name, value}, environment()) },
			"env":  func() (command, error) { return parseCommand(nil, environment(variable(s.name)+"="+value)) },
			"file": func() (command, error) {
				return parseCommand([]string{"-config", writeFile(t, key(s.name)+": "+value+"\n")}, environment())
			},
		} {
			cmd, err := parse()
			if err != nil {
				t.Errorf("%s from %s: %v", s.name, source, err)
			}
			cmd.config.origin, want.origin = nil, nil
			if got := cmd.config; !equalConfig(got, want) {
				t.Errorf("%s from %s gives %+v, want %+v", s.name, source, got, want)
			}
		}
		if !strings.Contains(helpText(), "-"+s.name+" "+s.value) {
			t.Errorf("-help does not tell of -%s", s.name)
		}
	}
}

func equalConfig(a, b Config) bool {
	same := slices.Equal(a.Join, b.Join)
	a.Join, b.Join = nil, nil
	return same && a.Data == b.Data && a.HTTP == b.HTTP && a.Raft == b.Raft && a.Gossip == b.Gossip && a.Expect == b.Expect && a.ID == b.ID &&
		a.AdvertiseHTTP == b.AdvertiseHTTP && a.AdvertiseRaft == b.AdvertiseRaft && a.AdvertiseGossip == b.AdvertiseGossip && a.SecretFile == b.SecretFile &&
		a.SegmentSize == b.SegmentSize && a.SavepointBytes == b.SavepointBytes && a.SnapshotBytes == b.SnapshotBytes && a.TrailingBytes == b.TrailingBytes && a.FileRate == b.FileRate && a.ScrubRate == b.ScrubRate && a.LogLevel == b.LogLevel && a.LogFormat == b.LogFormat
}

func TestConfig_Faults(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		env  []string
		file string
		want []string // parts of the message, all of them
	}{
		{"unknown flag", []string{"-dtaa", "x"}, nil, "", []string{"there is no flag -dtaa (did you mean -data?); see", "cairn-node -help"}},
		{"unknown flag, nothing near", []string{"-frobnicate=1"}, nil, "", []string{"there is no flag -frobnicate; see"}},
		{"no flag at all", []string{"start"}, nil, "", []string{`"start" is not a flag`}},
		{"value missing", []string{"-data"}, nil, "", []string{"-data needs a value"}},
		{"bad number", []string{"-expect", "many"}, nil, "", []string{`-expect: "many" is not a number`}},
		{"bad size", []string{"-segment-size", "4kb"}, nil, "", []string{`-segment-size: "4kb" is not a size`}},
		{"size too small", []string{"-segment-size", "10"}, nil, "", []string{"-segment-size: 10 bytes is not between"}},
		{"bad address", []string{"-http", "7070"}, nil, "", []string{`-http: "7070" is not an address`}},
		{"port 0", []string{"-raft", "127.0.0.1:0"}, nil, "", []string{`-raft: "127.0.0.1:0" has no port`}},
		{"same port", []string{"-raft", "127.0.0.1:7070"}, nil, "", []string{"-raft: has the same port as -http"}},
		{"every address", []string{"-http", "0.0.0.0:7070"}, nil, "", []string{"-http: 0.0.0.0:7070 is every address", "-advertise-http"}},
		{"no secret", []string{"-raft", "10.0.0.1:7071"}, nil, "", []string{"-secret-file: is needed because -raft is not on loopback"}},
		{"advertised nowhere", []string{"-advertise-raft", "0.0.0.0:1"}, nil, "", []string{"-advertise-raft: 0.0.0.0:1 names no host"}},
		{"bad id", []string{"-id", "a b"}, nil, "", []string{`-id: "a b" is not 1 to 64 letters`}},
		{"bad level", nil, []string{"CAIRN_LOG_LEVEL=loud"}, "", []string{`CAIRN_LOG_LEVEL: "loud" is not`}},
		{"bad variable", nil, []string{"CAIRN_EXPECT=0"}, "", []string{"CAIRN_EXPECT: 0 is not between 1 and 99"}},
		{"file missing", []string{"-config", "/nowhere/node.yaml"}, nil, "", []string{"-config:", "/nowhere/node.yaml"}},
		{"file unknown key", nil, nil, "data: /d\nsegmentsize: 1\n", []string{"node.yaml:2: segmentsize: is not a setting (did you mean segment_size?)"}},
		{"file with dashes", nil, nil, "segment-size: 8192\n", []string{"node.yaml:1: segment-size: is not a setting (did you mean segment_size?)"}},
		{"file set twice", nil, nil, "data: /a\ndata: /b\n", []string{"data"}},
		{"file nested", nil, nil, "data:\n  a: b\n", []string{"node.yaml:1: data: needs a plain value"}},
		{"file null", nil, nil, "data:\n", []string{"node.yaml:1: data: needs a plain value"}},
		{"file no mapping", nil, nil, "- a\n", []string{"is not a list of settings"}},
		{"file bad yaml", nil, nil, "a: [\n", []string{"-config:", "yaml"}},
		{"file bad value", nil, nil, "expect: none\n", []string{`node.yaml:1: expect: "none" is not a number`}},
		{"all at once", []string{"-expect", "0", "-http", "x", "-log-format", "xml", "-id", "!"}, nil, "", []string{"-expect:", "-http:", "-log-format:", "-id:"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := tt.args
			if tt.file != "" {
				args = append(args, "-config", writeFile(t, tt.file))
			}
			_, err := parseCommand(args, environment(tt.env...))
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error is %q, want %q in it", err, want)
				}
			}
		})
	}
}

func TestConfig_Advertise(t *testing.T) {
	for _, tt := range []struct{ value, want string }{
		{"cairn-1.example:7070", "http://cairn-1.example:7070"},
		{"https://cairn-1.example/", "https://cairn-1.example"},
		{"http://10.0.0.1:80", "http://10.0.0.1:80"},
	} {
		cmd, err := parseCommand([]string{"-http", "0.0.0.0:7070", "-advertise-http", tt.value}, environment())
		if err != nil {
			t.Errorf("%s: %v", tt.value, err)
		}
		if got := cmd.config.HTTPURL(); got != tt.want {
			t.Errorf("HTTPURL with %s = %s, want %s", tt.value, got, tt.want)
		}
	}
	for _, bad := range []string{"ftp://host:1", "http://host/path", "host", "http://:80"} {
		if _, err := parseCommand([]string{"-advertise-http", bad}, environment()); err == nil {
			t.Errorf("-advertise-http %s was taken", bad)
		}
	}
}

func TestSecret(t *testing.T) {
	if s, err := readSecret(""); s != nil || err != nil {
		t.Errorf("no file: %q, %v", s, err)
	}
	if s, err := readSecret(writeFile(t, " 0123456789abcdef\n")); string(s) != "0123456789abcdef" || err != nil {
		t.Errorf("a file: %q, %v", s, err)
	}
	if _, err := readSecret(writeFile(t, "short\n")); err == nil || !strings.Contains(err.Error(), "at least 16") {
		t.Errorf("a short one: %v", err)
	}
}
