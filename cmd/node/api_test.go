package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The tests speak HTTP by hand, from api.md alone: a fault of the Go client
// must not hide one of the server.

var httpClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}}

// answer is an HTTP answer, read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// problem is the code of a problem document, or "".
func (a answer) problem() string {
	var p struct{ Type string }
	_ = json.Unmarshal(a.body, &p)
	return strings.TrimPrefix(p.Type, "urn:cairn:error:")
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.status, bytes.TrimSpace(a.body)) }

// request sends one request and reads the whole answer.
func (p *process) request(ctx context.Context, method, path, body string, header ...string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+p.http+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	if body != "" && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := httpClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, b}, err
}

func (p *process) get(path string, header ...string) (answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return p.request(ctx, http.MethodGet, path, "", header...)
}

// mustGet is a GET that must give 200.
func (p *process) mustGet(path string, header ...string) answer {
	p.t.Helper()
	a, err := p.get(path, header...)
	if err != nil || a.status != http.StatusOK {
		p.t.Fatalf("GET %s of %s: %s, %v", path, p.name, a, err)
	}
	return a
}

// clusterState is the answer of /v1/cluster.
type clusterState struct {
	Log     string
	Leader  string
	Term    uint64
	Members []struct {
		ID      string
		HTTP    string
		Role    string
		Alive   bool
		Applied uint64
		Lag     uint64
		Version string
	}
}

func (p *process) status() (clusterState, error) {
	var s clusterState
	a, err := p.get("/v1/cluster")
	if err == nil && a.status == http.StatusOK {
		err = json.Unmarshal(a.body, &s)
	} else if err == nil {
		err = fmt.Errorf("GET /v1/cluster: %s", a)
	}
	return s, err
}

// role is the role of the node in what by says of the cluster, "" if it is no
// member.
func (s clusterState) role(p *process) string {
	for _, m := range s.Members {
		if m.HTTP == "http://"+p.http {
			return m.Role
		}
	}
	return ""
}

// leader is the node that leads, as a node that runs sees it.
func (c *group) leader() *process {
	c.t.Helper()
	var found *process
	var last error
	eventually(c.t, 20*time.Second, func() bool {
		for _, p := range c.nodes {
			if !p.running() {
				continue
			}
			s, err := p.status()
			last = err
			for _, o := range c.nodes {
				if err == nil && s.role(o) == "leader" && o.running() {
					found = o
					return true
				}
			}
		}
		return false
	}, func() string { return fmt.Sprintf("no leader: %v", last) })
	return found
}

// id is the node's id in the cluster.
func (p *process) id() string {
	p.t.Helper()
	s, err := p.status()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, m := range s.Members {
		if m.HTTP == "http://"+p.http {
			return m.ID
		}
	}
	p.t.Fatalf("%s is no member: %+v", p.name, s)
	return ""
}

// head is the last position of the whole log, read linearizably.
func (p *process) head() uint64 {
	p.t.Helper()
	a := p.mustGet("/v1/events?limit=1&order=desc")
	n, err := strconv.ParseUint(a.header.Get("Cairn-Position"), 10, 64)
	if err != nil {
		p.t.Fatalf("Cairn-Position: %v", err)
	}
	return n
}

// record is what the tests need of an event that was read.
type record struct {
	Position, Version uint64
	Stream, Type, ID  string
	Time              string
}

// readAll reads the whole log from what this node has applied, after it has
// applied position at least.
func (p *process) readAll(position uint64) ([]record, []byte) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 60*time.Second)
	defer cancel()
	path := fmt.Sprintf("/v1/events?consistency=local&min_position=%d&timeout=20s", position)
	a, err := p.request(ctx, http.MethodGet, path, "", "Accept", "application/x-ndjson")
	if err != nil || a.status != http.StatusOK {
		p.t.Fatalf("read all of %s: %s, %v", p.name, a, err)
	}
	var records []record
	for line := range bytes.Lines(a.body) {
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			p.t.Fatalf("read all of %s: %v in %q", p.name, err, line)
		}
		records = append(records, r)
	}
	return records, a.body
}

// metrics reads all plain samples of /metrics; labels are summed up.
func (p *process) metrics() map[string]float64 {
	values := map[string]float64{}
	a, err := p.get("/metrics")
	if err != nil {
		return values
	}
	for line := range strings.Lines(string(a.body)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil && !strings.HasPrefix(line, "#") {
			name, _, _ = strings.Cut(name, "{")
			values[name] += v
		}
	}
	return values
}

func TestAnswer_Problem(t *testing.T) {
	a := answer{body: []byte(`{"type":"urn:cairn:error:id-reused","ids":[]}`)}
	if got := a.problem(); got != "id-reused" {
		t.Errorf("problem = %q", got)
	}
}
