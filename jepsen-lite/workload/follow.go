package workload

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"cairn/event"
	"cairn/jepsen-lite/history"
)

// maxMessage is the longest line a follower takes: an event of the greatest
// size, and what JSON adds to it.
const maxMessage = 4 << 20

// follower follows the log over plain HTTP, as programs in other languages do.
type follower struct {
	of     *Run
	who    history.Follower
	rng    *rand.Rand
	http   *http.Client
	stop   context.CancelFunc
	ended  chan struct{}
	wanted atomic.Uint64 // position up to which it has to come before it may end; 0 = not known yet

	connection int
	lastID     string // of SSE, as it was sent
	through    uint64 // everything up to here was given
}

// follow starts the followers.
func (r *Run) follow(ctx context.Context) {
	for i, who := range []history.Follower{
		{Form: "sse"},
		{Form: "ndjson"},
		{Form: "sse", Prefix: "append-"},
		{Form: "ndjson", Types: []string{"Left", "Arrived", "PaidIn"}},
		{Form: "sse", Types: []string{"Begun", "NameTaken"}, Prefix: "streams-"},
	} {
		who.ID = i + 1
		running, stop := context.WithCancel(ctx)
		f := &follower{
			of: r, who: who, stop: stop, ended: make(chan struct{}), rng: rand.New(rand.NewPCG(r.opts.Seed, uint64(1000+i))),
			http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: attempt}},
		}
		r.followers = append(r.followers, f)
		go f.run(running) // joined by finish
	}
}

// finish waits until the follower has come to position, or ctx is done.
func (f *follower) finish(ctx context.Context, position uint64) history.Follower {
	f.wanted.Store(position)
	select {
	case <-f.ended:
	case <-ctx.Done():
	}
	f.stop()
	<-f.ended
	f.who.Through, f.who.Done = f.through, f.through >= position
	return f.who
}

// run connects again and again, each time to any node, for some seconds at most:
// a connection that never ends would not show what happens between two.
func (f *follower) run(ctx context.Context) {
	defer close(f.ended)
	for ctx.Err() == nil {
		wanted := f.wanted.Load()
		if wanted > 0 && f.through >= wanted {
			return
		}
		life := time.Second + time.Duration(f.rng.Int64N(int64(9*time.Second)))
		if wanted > 0 {
			life = 2 * time.Second
		}
		once, cancel := context.WithTimeout(ctx, life)
		f.note(f.connect(once))
		cancel()
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(f.rng.Int64N(int64(200 * time.Millisecond)))):
		}
	}
}

// connect follows at one node until the connection ends.
func (f *follower) connect(ctx context.Context) error {
	node := f.of.opts.Nodes[f.rng.IntN(len(f.of.opts.Nodes))]
	f.connection++
	query := url.Values{"type": f.who.Types}
	if f.who.Prefix != "" {
		query.Set("stream_prefix", f.who.Prefix)
	}
	sse := f.who.Form == "sse"
	if !sse {
		query.Set("follow", "true")
	}
	if f.lastID == "" { // else Last-Event-ID says it, alone
		query.Set("after", strconv.FormatUint(f.through, 10))
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, node.URL+"/v1/events?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	if sse {
		request.Header.Set("Accept", "text/event-stream")
		if f.lastID != "" {
			request.Header.Set("Last-Event-ID", f.lastID)
		}
	}
	answer, err := f.http.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		problem, _ := io.ReadAll(io.LimitReader(answer.Body, 4096)) // for people
		if answer.StatusCode == http.StatusServiceUnavailable {
			return fmt.Errorf("status %d: %s", answer.StatusCode, problem)
		}
		return &nonsenseError{fmt.Sprintf("status %d: %s", answer.StatusCode, problem)}
	}
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, maxMessage)
	lines.Split(wholeLines)
	if sse {
		return f.messages(node.Name, lines)
	}
	for lines.Scan() {
		if err := f.line(node.Name, lines.Bytes()); err != nil {
			return err
		}
	}
	return lines.Err()
}

// nonsenseError is an answer that no node may give a follower, as opposed to a
// connection that ended or a node that can't serve.
type nonsenseError struct{ what string }

func (e *nonsenseError) Error() string { return e.what }

// maxFaults is how much nonsense is kept.
const maxFaults = 5

// note keeps what ended a connection if it was nonsense. Whatever it was, the
// next one goes on where this one got to.
func (f *follower) note(err error) {
	var nonsense *nonsenseError
	if errors.As(err, &nonsense) && len(f.who.Faults) < maxFaults {
		f.who.Faults = append(f.who.Faults, nonsense.what)
	}
}

// wholeLines is bufio.ScanLines without what a broken connection leaves of a
// last line.
func wholeLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if atEOF && !bytes.ContainsRune(data, '\n') {
		return len(data), nil, nil
	}
	return bufio.ScanLines(data, atEOF)
}

// messages reads server-sent events.
func (f *follower) messages(node string, lines *bufio.Scanner) error {
	var id, name, data string
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "id":
			id = value
		case "event":
			name = value
		case "data":
			data = value
		case "": // the end of a message
			at, _, _ := strings.Cut(id, "@")
			position, err := strconv.ParseUint(at, 10, 64)
			if err != nil {
				return &nonsenseError{fmt.Sprintf("a message with id %q", id)}
			}
			if name == "" && data != "" {
				if err := f.given(node, []byte(data)); err != nil {
					return err
				}
			}
			f.lastID, f.through = id, max(f.through, position)
			name, data = "", ""
		}
	}
	return lines.Err()
}

// line reads a line of NDJSON: an event, or how far the node has come.
func (f *follower) line(node string, text []byte) error {
	var sign struct {
		Position  uint64                     `json:"position"`
		CaughtUp  *struct{ Position uint64 } `json:"caught_up"`
		Heartbeat *struct{ Position uint64 } `json:"heartbeat"`
	}
	if err := json.Unmarshal(text, &sign); err != nil {
		return &nonsenseError{fmt.Sprintf("%v: %.80s", err, text)}
	}
	position := sign.Position
	switch {
	case sign.CaughtUp != nil:
		position = sign.CaughtUp.Position
	case sign.Heartbeat != nil:
		position = sign.Heartbeat.Position
	case position == 0:
		return &nonsenseError{fmt.Sprintf("a line that is neither event nor sign: %.80s", text)}
	default:
		if err := f.given(node, text); err != nil {
			return err
		}
	}
	f.through = max(f.through, position)
	return nil
}

// given records an event.
func (f *follower) given(node string, text []byte) error {
	e, err := event.DecodeEvent(text)
	if err != nil {
		return &nonsenseError{fmt.Sprintf("%v: %.80s", err, text)}
	}
	f.of.opts.Recorder.Delivery(history.Delivery{
		Follower: f.who.ID, Connection: f.connection, Node: node, At: f.of.opts.Recorder.Now(), Event: Seen(&e),
	})
	return nil
}
