// Package client is the Go client of Cairn.
//
// A Client knows the cluster's nodes, sends appends to the leader and moves on
// to another node when one does not answer. What it retries is safe: every
// event it appends carries an id, one it makes where the caller gave none, so
// an append that was sent twice is in the log once. An error of an append is
// therefore one of three: the append was refused (*Problem), nothing was
// written (*UnavailableError), or its fate is not known (IsUnknown; the error
// has the ids with which a repetition is safe).
//
// Reads are linearizable unless asked otherwise. Follow delivers each event
// once, in order, across broken connections and changes of leader.
//
// A Client may be used by any number of goroutines at once. It starts none of
// its own but those that end with the call that needs them.
package client

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Config says how a Client behaves. Only Nodes is required.
type Config struct {
	// Nodes are the addresses of some of the cluster's nodes, such as
	// "http://127.0.0.1:7070"; "127.0.0.1:7070" means the same. The rest of
	// the cluster is learned from them.
	Nodes []string

	// Fixed keeps the client to Nodes, tried in their order: it neither learns
	// others nor prefers the leader. For nodes whose own addresses can't be
	// reached from here, and for tests.
	Fixed bool

	// AttemptTimeout is how long one node may take for one answer before
	// another is asked. 0 = 3 s.
	AttemptTimeout time.Duration

	// RetryFor is how long a call goes on trying, counted from its start, or
	// in AppendStream from the last answer. 0 = 30 s; below 0 = one attempt.
	RetryFor time.Duration

	// MinBackoff and MaxBackoff bound the pause before a repetition, which
	// doubles from one to the next. 0 = 20 ms and 1 s.
	MinBackoff, MaxBackoff time.Duration

	// Transport carries plain requests and Streaming those of AppendStream,
	// which need HTTP/2. nil = transports of the client's own.
	Transport, Streaming http.RoundTripper
}

func (c *Config) validate() error {
	var errs []error
	if len(c.Nodes) == 0 {
		errs = append(errs, errors.New("nodes: at least one address is needed"))
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"attempt timeout", c.AttemptTimeout}, {"min backoff", c.MinBackoff}, {"max backoff", c.MaxBackoff}} {
		if d.value < 0 {
			errs = append(errs, fmt.Errorf("%s: %s is below 0", d.name, d.value))
		}
	}
	return errors.Join(errs...)
}

func orDefault(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}

// Client talks to one cluster. New makes it.
type Client struct {
	cfg       Config
	plain     http.RoundTripper
	streaming http.RoundTripper
	silence   time.Duration // followSilence, or shorter in tests
	nodes     nodes
	learning  sync.Mutex // held by the one call that asks for the members
}

// New returns a client of the cluster that cfg.Nodes belong to. It contacts
// none of them yet.
func New(cfg Config) (*Client, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	orDefault(&cfg.AttemptTimeout, 3*time.Second)
	orDefault(&cfg.RetryFor, 30*time.Second)
	orDefault(&cfg.MinBackoff, 20*time.Millisecond)
	orDefault(&cfg.MaxBackoff, time.Second)
	c := &Client{cfg: cfg, plain: cfg.Transport, streaming: cfg.Streaming, silence: followSilence}
	for _, node := range cfg.Nodes {
		base, err := nodeURL(node)
		if err != nil {
			return nil, fmt.Errorf("client: %w", err)
		}
		c.nodes.seeds = append(c.nodes.seeds, base)
	}
	if c.plain == nil {
		c.plain = newTransport(false)
	}
	if c.streaming == nil {
		c.streaming = newTransport(true)
	}
	return c, nil
}

// Close gives up idle connections. Calls under way are not disturbed.
func (c *Client) Close() {
	for _, t := range []http.RoundTripper{c.plain, c.streaming} {
		if idle, ok := t.(interface{ CloseIdleConnections() }); ok {
			idle.CloseIdleConnections()
		}
	}
}

// nodeURL brings an address into the form scheme://host:port.
func nodeURL(address string) (string, error) {
	s := strings.TrimSpace(address)
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || (u.Path != "" && u.Path != "/") || u.RawQuery != "" {
		return "", fmt.Errorf("node %q is not an address such as http://127.0.0.1:7070", address)
	}
	return u.Scheme + "://" + u.Host, nil
}

// newTransport returns a transport for plain requests, HTTP/1.1 where TLS does
// not offer more, or for streaming ones, HTTP/2 also without TLS.
func newTransport(streaming bool) *http.Transport {
	dialer := &net.Dialer{Timeout: 2 * time.Second, KeepAlive: 15 * time.Second}
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConnsPerHost: 512,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true,
		ReadBufferSize:      16 << 10,
		WriteBufferSize:     16 << 10,
		Protocols:           new(http.Protocols),
	}
	t.Protocols.SetHTTP2(true)
	if streaming {
		t.Protocols.SetUnencryptedHTTP2(true)
		// A node that is frozen keeps its connection open: ping it.
		t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 5 * time.Second}
	} else {
		t.Protocols.SetHTTP1(true)
	}
	return t
}
