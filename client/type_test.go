package client

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"cairn/event"
)

// serveTypes is a node with schema 1 of type a/b. It keeps its requests.
func serveTypes(t *testing.T) (c *Client, requests *[]string) {
	requests = new([]string)
	return newClient(t, nil, serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		target := r.Method + " " + r.URL.EscapedPath() + string(body)
		*requests = append(*requests, target)
		switch {
		case r.URL.Path == "/v1/types":
			fmt.Fprint(w, `{"types":[{"type":"a/b","newest":2,"schemas":[1,2],"renamed":"c"},{"type":"z","newest":1,"schemas":[1]}]}`)
		case strings.HasSuffix(r.URL.Path, "/9") && r.Method == "PUT":
			problem(w, 409, CodeSchemaConflict, `,"newest":2`)
		case strings.HasSuffix(r.URL.Path, "/9"):
			problem(w, 404, CodeNotFound, "")
		case r.Method == "GET":
			fmt.Fprint(w, `{"schema":{"maximum":12345678901234567890}}`)
		case strings.Contains(string(body), "bad"):
			problem(w, 422, CodeBadDefinition, `,"path":"examples[0].new","message":"no"`)
		case strings.Contains(string(body), "lost"):
			abort()
		case strings.Contains(string(body), "again"):
			fmt.Fprint(w, `{"type":"a/b","number":1,"created":false}`)
		case strings.Contains(string(body), "pending"):
			w.WriteHeader(http.StatusAccepted)
			fmt.Fprintf(w, `{"type":"a/b","number":1,"created":%t,"pending":true}`, strings.Contains(string(body), "new"))
		default:
			w.WriteHeader(http.StatusCreated)
			fmt.Fprint(w, `{"type":"a/b","number":1,"created":true}`)
		}
	})), requests
}

func TestRegisterSchema(t *testing.T) {
	c, requests := serveTypes(t)
	for body, want := range map[string]bool{`{"schema":{}}`: true, `"again"`: false, `"new, pending"`: true, `"known, pending"`: false} {
		if created, err := c.RegisterSchema(testContext(t), "a/b", 1, []byte(body)); err != nil || created != want {
			t.Errorf("%s: %v, %v", body, created, err)
		}
	}
	if want := `PUT /v1/types/a%2Fb/schemas/1{"schema":{}}`; !slices.Contains(*requests, want) {
		t.Errorf("requests %q lack %q", *requests, want)
	}
	_, err := c.RegisterSchema(testContext(t), "a/b", 1, []byte(`"bad"`))
	if p, ok := err.(*Problem); !ok || !IsBadDefinition(err) || p.Path != "examples[0].new" {
		t.Errorf("a bad one: %v", err)
	}
	_, err = c.RegisterSchema(testContext(t), "a/b", 9, []byte(`{}`))
	if p, ok := err.(*Problem); !ok || !IsSchemaConflict(err) || p.Newest != 2 || IsConflict(err) {
		t.Errorf("another number: %v", err)
	}
	impatient := newClient(t, func(c *Config) { c.RetryFor = 1 }, serve(t, func(http.ResponseWriter, *http.Request) { abort() }))
	if _, err := impatient.RegisterSchema(testContext(t), "a", 1, []byte(`"lost"`)); err == nil || !strings.Contains(err.Error(), "do it again, that is safe") {
		t.Errorf("an open fate: %v", err)
	}
}

func TestTypes(t *testing.T) {
	c, _ := serveTypes(t)
	types, err := c.Types(testContext(t))
	if err != nil || len(types) != 2 || types[0].Renamed != "c" || !slices.Equal(types[0].Schemas, []uint32{1, 2}) || types[1].Newest != 1 {
		t.Errorf("types %+v, %v", types, err)
	}
	schema, err := c.Schema(testContext(t), "a/b", 1)
	if err != nil || string(schema) != `{"schema":{"maximum":12345678901234567890}}` {
		t.Errorf("schema %s, %v", schema, err)
	}
	if _, err := c.Schema(testContext(t), "a/b", 9); !IsNotFound(err) {
		t.Errorf("an unknown one: %v", err)
	}
}

func TestRead_Raw(t *testing.T) {
	node, requests := servePages(t, 5)
	c := newClient(t, nil, node)
	raw := ReadOptions{Raw: true}
	for range c.AllEvents(testContext(t), event.Filter{}, raw) {
		break
	}
	for range c.AllOfStream(testContext(t), "a", raw) {
		break
	}
	for range c.AllOfQuery(testContext(t), event.Query{}, raw) {
		break
	}
	for _, r := range *requests {
		if strings.HasPrefix(r, "/v1/cluster") {
			continue
		}
		if !strings.Contains(r, "raw=true") {
			t.Errorf("%s does not ask for events as they are stored", r)
		}
	}
	*requests = nil
	for range c.Streams(testContext(t), "", "", raw) {
		break
	}
	if strings.Contains(fmt.Sprint(*requests), "raw") {
		t.Errorf("names have no raw form: %q", *requests)
	}
	f := &follower{c: c, o: FollowOptions{Raw: true}}
	if err := f.setTarget(); err != nil || f.target != "/v1/events?raw=true" {
		t.Errorf("follow %s, %v", f.target, err)
	}
}
