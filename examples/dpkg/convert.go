package main

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/google/uuid"
)

// converter makes events of lines.
type converter struct {
	host     string
	seen     map[string]int // how often a line was there before
	packages map[string]struct{}

	lines, events, runs int
}

func newConverter(host string) *converter {
	return &converter{host: host, seen: make(map[string]int), packages: make(map[string]struct{})}
}

// runsStream is where lines go that are about no package.
const runsStream = "dpkg-runs"

// namespace is what the ids of this program are made in.
var namespace = uuid.MustParse("5bd6c1d5-7c1d-4b1e-9d5e-0f6f5a0c6f3a")

// jsonEvent is the form that `cairn import` takes.
type jsonEvent struct {
	Stream string   `json:"stream"`
	Type   string   `json:"type"`
	ID     string   `json:"id"`
	Tags   []string `json:"tags,omitempty"`
	Data   entry    `json:"data"`
}

// convert returns the event that a line is, as JSON.
func (c *converter) convert(line string) ([]byte, error) {
	c.lines++
	e, err := parse(line)
	if err != nil {
		return nil, err
	}
	times := c.seen[line]
	c.seen[line]++
	event := jsonEvent{Stream: runsStream, Type: e.typ, ID: c.id(line, times), Data: e}
	if e.Package != "" {
		event.Stream = "package-" + e.qualifiedName()
		event.Tags = append(event.Tags, "package:"+e.Package)
		c.packages[e.qualifiedName()] = struct{}{}
		c.events++
	} else {
		c.runs++
	}
	if c.host != "" {
		event.Tags = append(event.Tags, "host:"+c.host)
	}
	b, err := json.Marshal(event)
	if err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	return b, nil
}

// id is the same whenever a line is converted. Lines are equal when dpkg does
// the same twice in one second: then their number tells them apart.
func (c *converter) id(line string, times int) string {
	return uuid.NewSHA1(namespace, []byte(c.host+"\n"+line+"\n"+strconv.Itoa(times))).String()
}
