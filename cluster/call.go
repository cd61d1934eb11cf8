package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"time"
)

// Peer calls over TCP are HTTP/1.1 POSTs, one path a name, kept alive. An
// answer that is an error has status 500, its code in a header and its message
// as the body.
const (
	maxCallBody = 16 << 20 // of a request and of an answer

	headerCode    = "Cairn-Code"
	headerTimeout = "Cairn-Timeout" // milliseconds that the caller will wait
	callMedia     = "application/octet-stream"

	idleCalls   = 16 // idle connections kept to each peer
	maxCalls    = 64 // connections to each peer; a peer that hangs must not use up all there are
	idleTimeout = time.Minute
)

// callServer answers peer calls.
type callServer struct {
	service PeerService
	http    *http.Server
}

func newCallServer(s PeerService) *callServer {
	c := &callServer{service: s}
	c.http = &http.Server{
		Handler:           c,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * idleTimeout, // the client closes first, or it would send into a closing connection
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	return c
}

func (c *callServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(http.MaxBytesReader(w, r.Body, maxCallBody), r.ContentLength)
	if err != nil {
		writeCallError(w, &PeerError{Code: codeTooLarge, Message: err.Error()})
		return
	}
	timeout := peerTimeout
	if ms, err := strconv.ParseUint(r.Header.Get(headerTimeout), 10, 31); err == nil {
		timeout = min(time.Duration(ms)*time.Millisecond, 50*time.Second)
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	answer, err := c.service(ctx, strings.TrimPrefix(r.URL.Path, "/"), body)
	if err != nil {
		writeCallError(w, err)
		return
	}
	w.Header().Set("Content-Type", callMedia)
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	_, _ = w.Write(answer) // the caller learns of it
}

func writeCallError(w http.ResponseWriter, err error) {
	code := codeFailed
	if p := (*PeerError)(nil); errors.As(err, &p) {
		code = p.Code
		err = errors.New(p.Message)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set(headerCode, code)
	w.WriteHeader(http.StatusInternalServerError)
	_, _ = io.WriteString(w, err.Error()) // the caller learns of it
}

// readBody reads a body whose length is known, or -1.
func readBody(r io.Reader, length int64) ([]byte, error) {
	if length < 0 || length > maxCallBody {
		return io.ReadAll(r)
	}
	b := make([]byte, length)
	_, err := io.ReadFull(r, b)
	return b, err
}

// callClient makes peer calls over a pool of connections.
type callClient struct{ transport *http.Transport }

func newCallClient(dial func(ctx context.Context, addr string) (net.Conn, error)) *callClient {
	return &callClient{&http.Transport{
		DialContext:         func(ctx context.Context, _, addr string) (net.Conn, error) { return dial(ctx, addr) },
		MaxIdleConnsPerHost: idleCalls,
		MaxConnsPerHost:     maxCalls,
		IdleConnTimeout:     idleTimeout,
		DisableCompression:  true,
		WriteBufferSize:     64 << 10,
		ReadBufferSize:      64 << 10,
	}}
}

func (c *callClient) close() { c.transport.CloseIdleConnections() }

// call makes one call; see peerClient.call for its errors. The context has a
// deadline.
func (c *callClient) call(ctx context.Context, addr, name string, body []byte) ([]byte, error) {
	if len(body) > maxCallBody {
		return nil, &notSentError{fmt.Errorf("%d bytes, at most %d may be sent", len(body), maxCallBody)}
	}
	// Until the request has got a connection nothing of it can have left. The
	// transport itself tries again only when nothing was written.
	sent := false
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent = true }})
	req, err := http.NewRequestWithContext(traced, http.MethodPost, "http://"+addr+"/"+name, bytes.NewReader(body))
	if err != nil {
		return nil, &notSentError{err}
	}
	req.Header.Set("Content-Type", callMedia)
	if deadline, ok := ctx.Deadline(); ok {
		req.Header.Set(headerTimeout, strconv.FormatInt(max(time.Until(deadline).Milliseconds(), 1), 10))
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		if !sent {
			return nil, &notSentError{err}
		}
		return nil, fmt.Errorf("call %s of %s: %w", name, addr, err)
	}
	defer resp.Body.Close()
	answer, err := readBody(io.LimitReader(resp.Body, maxCallBody), resp.ContentLength)
	if err != nil {
		return nil, fmt.Errorf("read the answer to %s of %s: %w", name, addr, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, &PeerError{Code: resp.Header.Get(headerCode), Message: string(answer)}
	}
	return answer, nil
}
