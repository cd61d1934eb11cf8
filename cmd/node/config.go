package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// Config is what a node is started with. Its zero value is not usable:
// defaultConfig gives the defaults named here.
type Config struct {
	Data string // folder of the node's data; default ./data, created if missing

	HTTP   string // address that clients are served on; default 127.0.0.1:7070
	Raft   string // address of the traffic between nodes; default 127.0.0.1:7071
	Gossip string // address of membership, TCP and UDP; default 127.0.0.1:7072

	// What other nodes and clients are told to dial instead of the three above;
	// "" = the address itself, which then must name a host.
	AdvertiseHTTP   string
	AdvertiseRaft   string
	AdvertiseGossip string

	Expect int      // nodes that found a new cluster together; default 1
	Join   []string // gossip addresses of other nodes; none by default
	ID     string   // name of the node in the cluster; "" = the one in its data, or a new one

	SecretFile string // file with the secret of the cluster; needed off loopback

	SegmentSize    int64 // bytes of one file of a log that is born here; 0 = 64 MiB
	SavepointBytes int64 // bytes of state in memory that make a savepoint due; 0 = 24 MiB
	SnapshotBytes  int64 // bytes of Raft log that make a snapshot due; 0 = 64 MiB
	TrailingBytes  int64 // bytes of Raft log kept behind a snapshot at most; 0 = 64 MiB
	ScrubRate      int64 // bytes of sealed segments read a second to find damage; 0 = 8 MiB
	FileRate       int64 // bytes of files a second sent to nodes that catch up and to backups; 0 = 128 MiB

	LogLevel  slog.Level // least level that is logged; default info
	LogFormat string     // text or json; default text

	// origin says where a setting came from, by name, for the messages of
	// Validate. Settings that were left alone are not in it.
	origin map[string]string
}

func defaultConfig() Config {
	return Config{
		Data:      "./data",
		HTTP:      "127.0.0.1:7070",
		Raft:      "127.0.0.1:7071",
		Gossip:    "127.0.0.1:7072",
		Expect:    1,
		LogFormat: "text",
		origin:    map[string]string{},
	}
}

// Bounds of the sizes, so that a slip of the unit is noticed at the start and
// not when the disk is full.
const (
	minSize   = 4 << 10
	maxSize   = 1 << 30
	maxExpect = 99
)

// Validate reports every fault of c at once, as one error that says which
// setting, where it came from and what it has to be.
func (c *Config) Validate() error {
	var faults []error
	fault := func(name, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s: %s", c.from(name), fmt.Sprintf(format, args...)))
	}
	if c.Data == "" {
		fault("data", "must name a folder")
	}
	c.validateAddresses(fault)
	if c.Expect < 1 || c.Expect > maxExpect {
		fault("expect", "%d is not between 1 and %d", c.Expect, maxExpect)
	}
	for _, a := range c.Join {
		if reason := dialable(a); reason != "" {
			fault("join", "%s", reason)
		}
	}
	if c.ID != "" && !idForm.MatchString(c.ID) {
		fault("id", "%q is not 1 to 64 letters, digits, '-', '_' or '.', the first a letter or digit", c.ID)
	}
	for _, s := range []struct {
		name string
		size int64
	}{{"segment-size", c.SegmentSize}, {"savepoint-bytes", c.SavepointBytes}, {"snapshot-bytes", c.SnapshotBytes}, {"trailing-bytes", c.TrailingBytes}, {"file-rate", c.FileRate}, {"scrub-rate", c.ScrubRate}} {
		if s.size != 0 && (s.size < minSize || s.size > maxSize) {
			fault(s.name, "%d bytes is not between 4KiB and 1GiB", s.size)
		}
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		fault("log-format", "%q is neither text nor json", c.LogFormat)
	}
	return errors.Join(faults...)
}

// validateAddresses checks the three addresses alone and against each other.
func (c *Config) validateAddresses(fault func(name, format string, args ...any)) {
	seen := map[string]string{}
	offLoopback := ""
	for _, a := range []struct{ name, bind, advertise string }{
		{"http", c.HTTP, c.AdvertiseHTTP}, {"raft", c.Raft, c.AdvertiseRaft}, {"gossip", c.Gossip, c.AdvertiseGossip},
	} {
		host, port, err := splitAddress(a.bind)
		if err != nil {
			fault(a.name, "%v", err)
			continue
		}
		if other, taken := seen[port]; taken {
			fault(a.name, "has the same port as -%s; the three addresses need one each", other)
		}
		seen[port] = a.name
		if isUnspecified(host) && a.advertise == "" {
			fault(a.name, "%s is every address of this machine, so -advertise-%s must say which one others dial", a.bind, a.name)
		}
		if a.advertise != "" {
			if reason := dialable(advertised(a.name, a.advertise)); reason != "" {
				fault("advertise-"+a.name, "%s", reason)
			}
		}
		if a.name != "http" && !isLoopback(host) {
			offLoopback = a.name
		}
	}
	if offLoopback != "" && c.SecretFile == "" {
		fault("secret-file", "is needed because -%s is not on loopback: a file with at least %d bytes, the same on every node", offLoopback, minSecret)
	}
}

// from names a setting the way its user wrote it: flag, variable or file.
func (c *Config) from(name string) string {
	if o := c.origin[name]; o != "" {
		return o
	}
	return "-" + name
}

// HTTPURL is where clients reach this node.
func (c *Config) HTTPURL() string {
	switch {
	case strings.Contains(c.AdvertiseHTTP, "://"):
		return strings.TrimSuffix(c.AdvertiseHTTP, "/")
	case c.AdvertiseHTTP != "":
		return "http://" + c.AdvertiseHTTP
	}
	return "http://" + c.HTTP
}

// advertised is the part of an advertised address that can be dialled: only
// that of HTTP may be a URL.
func advertised(name, address string) string {
	if name != "http" || !strings.Contains(address, "://") {
		return address
	}
	u, err := url.Parse(address)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || (u.Path != "" && u.Path != "/") {
		return address
	}
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	}
	return u.Host
}

// dialable returns what is wrong with an address that others dial, or "".
func dialable(address string) string {
	host, _, err := splitAddress(address)
	if err != nil {
		return err.Error()
	}
	if isUnspecified(host) {
		return fmt.Sprintf("%s names no host that others could dial", address)
	}
	return ""
}

func splitAddress(address string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(address)
	if err != nil {
		return "", "", fmt.Errorf("%q is not an address like 127.0.0.1:7070", address)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return "", "", fmt.Errorf("%q has no port between 1 and 65535", address)
	}
	return host, port, nil
}

func isUnspecified(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || (ip != nil && ip.IsUnspecified())
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// idForm is that of node ids: readable in logs, safe in a URL and a file name.
var idForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
