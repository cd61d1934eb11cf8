package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn/event"
)

func oneEvent() []event.Event { return []event.Event{{Type: "T", Data: []byte(`{"a":1}`)}} }

func TestAppend_Request(t *testing.T) {
	tests := []struct {
		name    string
		options []AppendOption
		want    map[string]string
	}{
		{"plain", nil, map[string]string{"If-Match": "", "If-None-Match": "", "Content-Type": "application/json"}},
		{"version", []AppendOption{ExpectVersion(7)}, map[string]string{"If-Match": `"7"`, "If-None-Match": ""}},
		{"version 0", []AppendOption{ExpectVersion(0)}, map[string]string{"If-Match": "", "If-None-Match": "*"}},
		{"exists", []AppendOption{Exists()}, map[string]string{"If-Match": "*"}},
		{"missing", []AppendOption{Missing()}, map[string]string{"If-None-Match": "*"}},
		{"key", []AppendOption{IdempotencyKey("k"), Exists()}, map[string]string{"Idempotency-Key": "k", "If-Match": "*"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			node := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if got, want := r.Method+" "+r.URL.EscapedPath(), "POST /v1/streams/a%2Fb%20c%3F/events"; got != want {
					t.Errorf("got %s, want %s", got, want)
				}
				for name, want := range test.want {
					if got := r.Header.Get(name); got != want {
						t.Errorf("%s: got %q, want %q", name, got, want)
					}
				}
				w.WriteHeader(http.StatusCreated)
				_, _ = io.WriteString(w, accepted)
			})
			got, err := newClient(t, nil, node).Append(testContext(t), "a/b c?", oneEvent(), test.options...)
			if err != nil {
				t.Fatal(err)
			}
			want := Result{First: 5, Last: 6, Version: 3, Versions: map[string]uint64{"a": 3},
				Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), IDs: got.IDs}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
	if _, err := newClient(t, nil, "h:1").Append(t.Context(), "a", oneEvent(), ExpectVersion(3), Exists()); err == nil {
		t.Error("two preconditions: no error")
	}
}

func TestAppendMany_Body(t *testing.T) {
	var body string
	node := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		body = r.URL.Path + " " + string(b)
		_, _ = io.WriteString(w, accepted)
	})
	_, err := newClient(t, nil, node).AppendMany(testContext(t), event.Append{
		Events: []event.Event{
			{Stream: "a", Type: "T\n", ID: "1", Tags: []string{"x:1", `y"`}, Data: []byte(`[1]`), Meta: []byte(`{"m":1}`), Schema: 2},
			{Stream: "b", Type: "U", ID: "2", ContentType: "image/png", Data: []byte{0, 1, 2}, CorrelationID: "c", CausationID: "d", Compensates: "e"},
		},
		Conditions: []event.Condition{
			{Kind: event.StreamAtVersion, Stream: "a", Version: 7}, {Kind: event.StreamMissing, Stream: "b"}, {Kind: event.StreamExists, Stream: "c"},
			{Kind: event.NoMatch, Query: event.Query{Items: []event.QueryItem{{Types: []string{"T"}, Tags: []string{"x:1"}}, {Tags: []string{"y"}}}}, After: 123},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `/v1/append {"events":[{"type":"T\n","stream":"a","id":"1","tags":["x:1","y\""],"schema":2,"data":[1],"meta":{"m":1}},` +
		`{"type":"U","stream":"b","id":"2","correlation_id":"c","causation_id":"d","compensates":"e","content_type":"image/png","data_base64":"AAEC"}],` +
		`"conditions":[{"stream":"a","version":7},{"stream":"b","exists":false},{"stream":"c","exists":true},` +
		`{"query":{"items":[{"types":["T"],"tags":["x:1"]},{"tags":["y"]}]},"after":123}]}`
	if body != want {
		t.Errorf("got  %s\nwant %s", body, want)
	}
}

// What the client sends is what the server's decoder reads.
func TestEncoder_RoundTrip(t *testing.T) {
	want := event.Event{Stream: "s", Type: "T", ID: "i", IDChosen: true, Tags: []string{"é", "\u2028"}, CorrelationID: "c", CausationID: "d",
		Compensates: "e", Schema: 4, Data: []byte(`{"a":"\u00e9"}`), Meta: []byte(`{"m":[]}`)}
	var w encoder
	w.event(&want, true)
	got, err := event.DecodeNew(w.b)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestAppend_InvalidText(t *testing.T) {
	_, err := newClient(t, nil, "h:1").Append(t.Context(), "a", []event.Event{{Type: "\xff"}})
	if err == nil || IsUnknown(err) {
		t.Errorf("got %v, want an encoding error", err)
	}
}

// A broken connection leaves the fate of an append open: it is sent again with
// the same ids, and the caller sees one success.
func TestAppend_RetryHasTheSameIDs(t *testing.T) {
	var mu sync.Mutex
	var bodies []string
	node := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		bodies = append(bodies, string(b))
		switch len(bodies) {
		case 1:
			abort()
		case 2:
			problem(w, 504, CodeOutcomeUnknown, `,"ids":["x"]`)
		default:
			_, _ = io.WriteString(w, strings.Replace(accepted, "false", "true", 1))
		}
	})
	events := oneEvent()
	got, err := newClient(t, nil, node).Append(testContext(t), "a", events)
	if err != nil || !got.Duplicate {
		t.Fatalf("got %+v, %v", got, err)
	}
	if events[0].ID != "" {
		t.Error("the caller's events were changed")
	}
	if len(bodies) != 3 || bodies[0] != bodies[1] || bodies[1] != bodies[2] || !strings.Contains(bodies[0], got.IDs[0]) {
		t.Errorf("bodies %q, ids %q", bodies, got.IDs)
	}
}

func TestAppend_FailsOver(t *testing.T) {
	hung := make(chan struct{})
	defer close(hung)
	nodes := map[string]string{
		"refused": deadNode(t),
		"hung": serve(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			select {
			case <-hung:
			case <-r.Context().Done():
			}
		}),
		"no leader": serve(t, func(w http.ResponseWriter, r *http.Request) { problem(w, 503, CodeNoLeader, "") }),
		"corrupt":   serve(t, func(w http.ResponseWriter, r *http.Request) { problem(w, 500, CodeCorrupt, `,"file":"f","offset":3`) }),
		"proxy": serve(t, func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "<html>bad gateway", http.StatusBadGateway)
		}),
	}
	for name, bad := range nodes {
		t.Run(name, func(t *testing.T) {
			good := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, accepted) })
			c := newClient(t, func(c *Config) { c.AttemptTimeout = 100 * time.Millisecond }, bad, good)
			for range 3 {
				if _, err := c.Append(testContext(t), "a", oneEvent()); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestAppend_GivesUp(t *testing.T) {
	tests := []struct {
		name        string
		handler     http.HandlerFunc // nil = nobody listens
		unknown     bool
		unavailable bool
		says        string
	}{
		{"refused", nil, false, true, "connection refused"},
		{"no leader", func(w http.ResponseWriter, r *http.Request) { problem(w, 503, CodeNoLeader, "") }, false, true, "no-leader"},
		{"unknown", func(w http.ResponseWriter, r *http.Request) { problem(w, 504, CodeOutcomeUnknown, "") }, true, false, "outcome-unknown"},
		{"broken", func(w http.ResponseWriter, r *http.Request) { abort() }, true, false, "EOF"},
		{"nonsense", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello") }, true, false, "answer of"},
		{"refusal", func(w http.ResponseWriter, r *http.Request) { problem(w, 400, CodeInvalidEvent, "") }, false, false, "what happened"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			node := deadNode(t)
			if test.handler != nil {
				node = serve(t, test.handler)
			}
			_, err := newClient(t, func(c *Config) { c.RetryFor = 20 * time.Millisecond }, node).Append(testContext(t), "a", oneEvent())
			if err == nil || IsUnknown(err) != test.unknown || IsUnavailable(err) != test.unavailable || !strings.Contains(err.Error(), test.says) {
				t.Fatalf("got %v: unknown %v, unavailable %v", err, IsUnknown(err), IsUnavailable(err))
			}
			var unknown *UnknownError
			if test.unknown && (!errors.As(err, &unknown) || len(unknown.IDs) != 1) {
				t.Errorf("no ids in %v", err)
			}
		})
	}
}

// What a node said is told rather than that time was up then.
func TestAppend_SaysWhatNodesSaid(t *testing.T) {
	var calls atomic.Int32
	node := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 {
			problem(w, 503, CodeNoLeader, "")
			return
		}
		<-r.Context().Done()
	})
	c := newClient(t, func(c *Config) { c.AttemptTimeout, c.RetryFor = 100*time.Millisecond, 50*time.Millisecond }, node)
	_, err := c.ReadStream(testContext(t), "a", ReadOptions{})
	if codeOf(err) != CodeNoLeader || !IsUnavailable(err) {
		t.Errorf("got %v", err)
	}
}

// A refusal after an attempt of unknown fate is final only if the condition
// can't come to hold when that attempt arrives late.
func TestAppend_ConflictAfterUnknown(t *testing.T) {
	tests := []struct {
		name    string
		members string
		unknown bool
	}{
		{"past the version", `,"expected":3,"actual":9`, false},
		{"behind the version", `,"expected":9,"actual":3`, true},
		{"does not exist yet", `,"expected":"exists","actual":0`, true},
		{"exists already", `,"expected":0,"actual":4`, false},
		{"query", `,"conflicting_position":8`, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var calls atomic.Int32
			node := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if calls.Add(1) == 1 {
					abort()
				}
				problem(w, 409, CodeConditionFailed, test.members)
			})
			_, err := newClient(t, nil, node).Append(testContext(t), "a", oneEvent())
			if IsUnknown(err) != test.unknown || IsConflict(err) == test.unknown {
				t.Errorf("got %v: unknown %v, conflict %v", err, IsUnknown(err), IsConflict(err))
			}
		})
	}
}

func TestAppend_ContextDone(t *testing.T) {
	hung := make(chan struct{})
	node := serve(t, func(w http.ResponseWriter, r *http.Request) {
		close(hung)
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(testContext(t))
	go func() {
		<-hung
		cancel()
	}()
	_, err := newClient(t, nil, node).Append(ctx, "a", oneEvent())
	if !errors.Is(err, context.Canceled) || !IsUnknown(err) {
		t.Errorf("got %v, want a cancelled append of unknown fate", err)
	}
}

func TestDecodeProblem(t *testing.T) {
	tests := []struct {
		name, body string
		want       Problem
	}{
		{"conflict", `{"type":"urn:cairn:error:condition-failed","title":"t","status":412,"detail":"d","condition":0,"stream":"s","expected":3,"actual":4,"new":{"x":1}}`,
			Problem{Type: "urn:cairn:error:condition-failed", Title: "t", Status: 412, Detail: "d", Code: "condition-failed", Condition: []byte("0"), Stream: "s", Expected: []byte("3"), Actual: 4}},
		{"ids", `{"type":"urn:cairn:error:id-reused","status":409,"ids":["x",{"id":"y","stream":"s","position":7}]}`,
			Problem{Type: "urn:cairn:error:id-reused", Status: 409, Code: "id-reused", IDs: []ProblemID{{ID: "x"}, {ID: "y", Stream: "s", Position: 7}}}},
		{"other form", `{"type":"urn:cairn:error:condition-failed","status":412,"detail":"d","actual":{}}`,
			Problem{Type: "urn:cairn:error:condition-failed", Status: 412, Detail: "d", Code: "condition-failed"}},
		{"not ours", "<html>\n no\xff </html>", Problem{Status: 418, Detail: "<html> no? </html>"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := decodeProblem(418, "node-1", []byte(test.body))
			test.want.Node = "node-1"
			if !reflect.DeepEqual(*got, test.want) {
				t.Errorf("got  %+v\nwant %+v", *got, test.want)
			}
		})
	}
}
