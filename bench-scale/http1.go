package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strconv"
	"strings"
	"time"
)

// answerTimeout is for one answer; the slowest is that of a snapshot or of a
// condition that looks at the whole log.
const answerTimeout = time.Minute

// conn is one connection to a node, for one goroutine. It speaks just the
// HTTP/1.1 it takes to send prepared requests: the clients share the processors
// with the nodes they measure, and net/http costs several times as much.
type conn struct {
	c    net.Conn
	r    *bufio.Reader
	body []byte // of the last answer
}

// answer is valid until the next request of its connection.
type answer struct {
	status int
	body   []byte
}

func dial(ctx context.Context, host string) (*conn, error) {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	c, err := dialer.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	return &conn{c: c, r: bufio.NewReaderSize(c, 16<<10)}, nil
}

// do sends a request and reads the whole answer.
func (c *conn) do(request []byte) (answer, error) {
	h, err := c.begin(request, answerTimeout)
	if err != nil {
		return answer{}, err
	}
	c.body = c.body[:0]
	switch {
	case h.chunked:
		b := bytes.NewBuffer(c.body)
		if _, err = b.ReadFrom(httputil.NewChunkedReader(c.r)); err == nil {
			_, err = c.r.Discard(len("\r\n"))
		}
		c.body = b.Bytes()
	case h.length >= 0:
		if cap(c.body) < h.length {
			c.body = make([]byte, h.length)
		}
		c.body = c.body[:h.length]
		_, err = io.ReadFull(c.r, c.body)
	default:
		err = errors.New("an answer without a length")
	}
	if err != nil {
		return answer{}, fmt.Errorf("read answer: %w", err)
	}
	return answer{h.status, c.body}, nil
}

// head is what matters of the head of an answer.
type head struct {
	status  int
	length  int // -1 = unknown
	chunked bool
}

// begin sends a request and reads the head of its answer. The timeout is for
// the body as well.
func (c *conn) begin(request []byte, timeout time.Duration) (head, error) {
	if err := c.c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return head{}, err
	}
	if _, err := c.c.Write(request); err != nil {
		return head{}, err
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return head{}, err
	}
	h := head{length: -1}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return head{}, fmt.Errorf("answered with %q, which is not HTTP/1.1", line)
	}
	if h.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return head{}, err
	}
	for {
		if line, err = c.r.ReadSlice('\n'); err != nil {
			return head{}, err
		}
		if len(line) <= 2 {
			return h, nil
		}
		if value, ok := headerValue(line, "Content-Length"); ok {
			if h.length, err = strconv.Atoi(string(value)); err != nil {
				return head{}, err
			}
		} else if value, ok := headerValue(line, "Transfer-Encoding"); ok {
			h.chunked = string(value) == "chunked"
		}
	}
}

// headerValue returns the value if line is a header of that name.
func headerValue(line []byte, name string) ([]byte, bool) {
	if len(line) <= len(name) || line[len(name)] != ':' || !strings.EqualFold(string(line[:len(name)]), name) {
		return nil, false
	}
	return bytes.TrimSpace(line[len(name)+1:]), true
}

// appended returns nil if the answer says that an append is in the log.
func (a answer) appended() error {
	if a.status == 201 && bytes.Contains(a.body, []byte(`"last_position":`)) {
		return nil
	}
	return a.unexpected("an append")
}

func (a answer) unexpected(of string) error {
	return fmt.Errorf("the answer to %s: status %d, %.300q", of, a.status, a.body)
}

func (c *conn) close() { _ = c.c.Close() }

// getRequest is the request for a path.
func getRequest(host, path, accept string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: %s\r\n\r\n", path, host, accept)
}

// postRequest puts a request with a JSON body into dst, over what is there.
func postRequest(dst []byte, host, path string, body []byte) []byte {
	dst = append(append(append(dst[:0], "POST "...), path...), " HTTP/1.1\r\nHost: "...)
	dst = append(append(dst, host...), "\r\nContent-Type: application/json\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(body)), 10)
	return append(append(dst, "\r\n\r\n"...), body...)
}
