package client

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// message is one of a text/event-stream.
type message struct {
	id    string
	event string
	data  []byte
}

// position splits an id of the form position@log.
func (m *message) position() (uint64, string, error) {
	if m.id == "" {
		return 0, "", nil
	}
	number, log, _ := strings.Cut(m.id, "@")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return 0, "", fmt.Errorf("id %q does not begin with a position", m.id)
	}
	return n, log, nil
}

// messageReader parses a text/event-stream (WHATWG HTML, section 9.2).
type messageReader struct {
	r    *bufio.Reader
	line []byte
	m    message
}

// next returns the next message; it is valid until the next call. Unlike a
// browser it returns those without data too: they are heartbeats.
func (r *messageReader) next() (*message, error) {
	r.m = message{data: r.m.data[:0]}
	begun, hasData := false, false
	for {
		line, err := r.readLine()
		if err != nil {
			return nil, err
		}
		if len(line) == 0 {
			if begun {
				return &r.m, nil
			}
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "id":
			begun, r.m.id = true, string(value)
		case "event":
			begun, r.m.event = true, string(value)
		case "data":
			if hasData {
				r.m.data = append(r.m.data, '\n')
			}
			begun, hasData = true, true
			r.m.data = append(r.m.data, value...)
		}
	}
}

// readLine returns a line without its end; it is valid until the next call.
func (r *messageReader) readLine() ([]byte, error) {
	part, err := r.r.ReadSlice('\n')
	line := part
	if errors.Is(err, bufio.ErrBufferFull) {
		r.line = r.line[:0]
		for errors.Is(err, bufio.ErrBufferFull) {
			r.line = append(r.line, part...)
			part, err = r.r.ReadSlice('\n')
		}
		r.line = append(r.line, part...)
		line = r.line
	}
	if err != nil {
		return nil, err
	}
	line = line[:len(line)-1]
	return bytes.TrimSuffix(line, []byte("\r")), nil
}
