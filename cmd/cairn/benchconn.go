package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// benchRequest is an append as bytes of HTTP/1.1, made once. Between sends only
// digits in it change: the number of the stream, and the ids if it has any.
type benchRequest struct {
	bytes  []byte
	stream []byte   // part of bytes, as are ids
	ids    [][]byte // one for each event
	nextID uint64
}

const (
	streamDigits = 6
	idDigits     = 16
)

// newBenchRequest returns an append of batch events with size bytes of data
// each. IDs count up from firstID; 0 = the server makes them.
func newBenchRequest(host string, batch, size int, firstID uint64) *benchRequest {
	zeros := strings.Repeat("0", idDigits)
	data := `"` + strings.Repeat("0123456789abcdef", size/16+1)[:max(size-2, 0)] + `"`
	one := `{"type":"Measured","data":` + data + `}`
	if firstID > 0 {
		one = `{"type":"Measured","id":"bench-` + zeros + `","data":` + data + `}`
	}
	body := one
	if batch > 1 {
		body = "[" + strings.Repeat(one+",", batch-1) + one + "]"
	}
	head := "POST /v1/streams/bench-" + zeros[:streamDigits] + "/events HTTP/1.1\r\nHost: " + host +
		"\r\nContent-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n"
	r := &benchRequest{bytes: []byte(head + body), nextID: firstID}
	at := len("POST /v1/streams/bench-")
	r.stream = r.bytes[at : at+streamDigits]
	if firstID > 0 {
		marker := []byte(`"id":"bench-`)
		for at := len(head); ; {
			i := bytes.Index(r.bytes[at:], marker)
			if i < 0 {
				break
			}
			at += i + len(marker)
			r.ids = append(r.ids, r.bytes[at:at+idDigits])
		}
	}
	return r
}

// prepare makes it the append to a stream, with new ids.
func (r *benchRequest) prepare(stream int) {
	putDigits(r.stream, uint64(stream))
	for _, id := range r.ids {
		putDigits(id, r.nextID)
		r.nextID++
	}
}

func putDigits(to []byte, n uint64) {
	for i := len(to) - 1; i >= 0; i-- {
		to[i] = byte('0' + n%10)
		n /= 10
	}
}

// benchConn is one client's connection. It speaks just the HTTP/1.1 that it
// takes to send a prepared request and to see how it was answered: the load
// shares the machine with the servers it measures, and net/http costs more than
// twice the processor time.
type benchConn struct {
	conn net.Conn
	r    *bufio.Reader
}

func dialBench(ctx context.Context, host string, until time.Time) (*benchConn, error) {
	dialer := net.Dialer{Timeout: 2 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(until); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &benchConn{conn: conn, r: bufio.NewReaderSize(conn, 4<<10)}, nil
}

// do sends a request and returns nil when the answer is that it is in the log.
func (c *benchConn) do(request []byte) error {
	if _, err := c.conn.Write(request); err != nil {
		return err
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return err
	}
	// HTTP/1.1 201 Created
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return fmt.Errorf("answered with %q, which is not HTTP/1.1", line)
	}
	status := string(line[9:12])
	ok := status == "201" || status == "200"
	length, err := c.readHeader()
	if err != nil {
		return err
	}
	if !ok {
		return c.refusal(status, length)
	}
	_, err = c.r.Discard(length)
	return err
}

// refusal says what the body of an answer, a problem document, is about.
func (c *benchConn) refusal(status string, length int) error {
	body, err := c.r.Peek(min(length, c.r.Size()))
	if err != nil {
		return err
	}
	var p struct {
		Detail string `json:"detail"`
	}
	_ = json.Unmarshal(body, &p) // it may be cut off, or not ours: then the status has to do
	return fmt.Errorf("status %s %s", status, p.Detail)
}

// errLastAnswer says that the server closes the connection after an answer.
var errLastAnswer = errors.New("the server closed the connection")

// readHeader reads up to the body and returns its length.
func (c *benchConn) readHeader() (length int, err error) {
	length = -1
	last := false
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(line) <= 2 {
			break
		}
		switch line[0] {
		case 'C', 'c':
		default:
			continue
		}
		if value, ok := headerValue(line, "Content-Length"); ok {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, fmt.Errorf("content length: %w", err)
			}
		} else if value, ok := headerValue(line, "Connection"); ok {
			last = bytes.EqualFold(value, []byte("close"))
		}
	}
	switch {
	case last:
		return 0, errLastAnswer
	case length < 0:
		return 0, errors.New("answer without a Content-Length")
	}
	return length, nil
}

// headerValue returns the value if line is a header of that name.
func headerValue(line []byte, name string) ([]byte, bool) {
	if len(line) <= len(name) || line[len(name)] != ':' || !strings.EqualFold(string(line[:len(name)]), name) {
		return nil, false
	}
	return bytes.TrimSpace(line[len(name)+1:]), true
}

// Close gives the connection up.
func (c *benchConn) Close() error { return c.conn.Close() }
