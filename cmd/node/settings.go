package main

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
)

// setting is one thing that can be set: as flag -name, as environment variable
// CAIRN_NAME and as key name in the file, with '_' for '-' in the latter two.
type setting struct {
	name  string
	value string // placeholder of its value in the help
	help  string
	set   func(c *Config, text string) error
}

// settings in the order of the help text. -config, -version and -help are not
// among them: they are about the command, not about the node.
var settings = []setting{
	{"data", "FOLDER", "the node's data, created if missing (default ./data)", text(func(c *Config) *string { return &c.Data })},
	{"http", "ADDRESS", "serve clients here (default 127.0.0.1:7070)", text(func(c *Config) *string { return &c.HTTP })},
	{"raft", "ADDRESS", "traffic between nodes (default 127.0.0.1:7071)", text(func(c *Config) *string { return &c.Raft })},
	{"gossip", "ADDRESS", "membership, TCP and UDP (default 127.0.0.1:7072)", text(func(c *Config) *string { return &c.Gossip })},
	{"expect", "N", "nodes that found a new cluster together (default 1)", setExpect},
	{"join", "ADDRESS[,…]", "gossip addresses of other nodes", setJoin},
	{"id", "NAME", "name of this node in the cluster (default: a new one, kept in its data)", text(func(c *Config) *string { return &c.ID })},
	{"advertise-http", "ADDRESS", "what others dial instead of -http; may be a URL", text(func(c *Config) *string { return &c.AdvertiseHTTP })},
	{"advertise-raft", "ADDRESS", "what others dial instead of -raft", text(func(c *Config) *string { return &c.AdvertiseRaft })},
	{"advertise-gossip", "ADDRESS", "what others dial instead of -gossip", text(func(c *Config) *string { return &c.AdvertiseGossip })},
	{"secret-file", "FILE", "secret of the cluster; needed when not on loopback", text(func(c *Config) *string { return &c.SecretFile })},
	{"segment-size", "SIZE", "of the files of a log that is born here (default 64MiB)", size(func(c *Config) *int64 { return &c.SegmentSize })},
	{"savepoint-bytes", "SIZE", "changes in memory until they are saved (default 24MiB)", size(func(c *Config) *int64 { return &c.SavepointBytes })},
	{"snapshot-bytes", "SIZE", "Raft log until a snapshot is taken (default 64MiB)", size(func(c *Config) *int64 { return &c.SnapshotBytes })},
	{"trailing-bytes", "SIZE", "Raft log kept behind it at most, for slow nodes (default 64MiB)", size(func(c *Config) *int64 { return &c.TrailingBytes })},
	{"file-rate", "SIZE", "a second, of files sent to nodes that catch up and to backups (default 128MiB)", size(func(c *Config) *int64 { return &c.FileRate })},
	{"scrub-rate", "SIZE", "a second, of sealed segments read to find damage (default 8MiB)", size(func(c *Config) *int64 { return &c.ScrubRate })},
	{"log-level", "LEVEL", "debug, info, warn or error (default info)", setLogLevel},
	{"log-format", "FORMAT", "text or json (default text)", text(func(c *Config) *string { return &c.LogFormat })},
}

// variable is the environment variable of a setting.
func variable(name string) string {
	return "CAIRN_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// key is the name of a setting in the file.
func key(name string) string { return strings.ReplaceAll(name, "-", "_") }

func settingNamed(name string) (setting, bool) {
	for _, s := range settings {
		if s.name == name {
			return s, true
		}
	}
	return setting{}, false
}

func text(field func(*Config) *string) func(*Config, string) error {
	return func(c *Config, s string) error {
		*field(c) = s
		return nil
	}
}

func size(field func(*Config) *int64) func(*Config, string) error {
	return func(c *Config, s string) error {
		n, err := parseSize(s)
		if err != nil {
			return err
		}
		*field(c) = n
		return nil
	}
}

func setExpect(c *Config, s string) error {
	n, err := strconv.Atoi(s)
	if err != nil {
		return fmt.Errorf("%q is not a number", s)
	}
	c.Expect = n
	return nil
}

func setJoin(c *Config, s string) error {
	c.Join = nil
	for a := range strings.SplitSeq(s, ",") {
		if a = strings.TrimSpace(a); a != "" {
			c.Join = append(c.Join, a)
		}
	}
	return nil
}

func setLogLevel(c *Config, s string) error {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if strings.EqualFold(s, l.String()) {
			c.LogLevel = l
			return nil
		}
	}
	return fmt.Errorf("%q is not debug, info, warn or error", s)
}

// parseSize reads a number of bytes: 4096, 4KiB, 64MiB, 1GiB.
func parseSize(s string) (int64, error) {
	digits, shift := s, 0
	for _, unit := range []struct {
		suffix string
		shift  int
	}{{"KiB", 10}, {"MiB", 20}, {"GiB", 30}} {
		if rest, ok := strings.CutSuffix(s, unit.suffix); ok {
			digits, shift = rest, unit.shift
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 32)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not a size like 4096, 512KiB or 64MiB", s)
	}
	return n << shift, nil
}
