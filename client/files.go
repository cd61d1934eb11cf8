package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// filesIdle is how long a node may send nothing of a file.
const filesIdle = 30 * time.Second

// Files reads the files of one node: for backups, repairs and nodes that catch
// up. It may be used by any number of goroutines at once.
type Files struct {
	base string
	http *http.Client
	idle time.Duration // filesIdle, but in tests
}

// LogFiles are the files of a log as of one position, which ends an append.
type LogFiles struct {
	Log      string        `json:"log"`      // the log's id
	Position uint64        `json:"position"` // of the last event in the files
	Segments []SegmentFile `json:"segments"` // ascending, without gaps
}

// SegmentFile is a file of the log. All nodes have the same ones.
type SegmentFile struct {
	Name string `json:"name"`
	Base uint64 `json:"base"` // position of its first event
	Last uint64 `json:"last"` // and of its last one, up to LogFiles.Position
	Size int64  `json:"size"` // bytes, up to and with Last
	Hash string `json:"hash"` // of a sealed segment, over its frames and headers, hex; "" while it is not sealed
}

// NewFiles returns a reader of the files of the node at an address such as
// "http://127.0.0.1:7070". A nil transport means one of its own.
func NewFiles(node string, transport http.RoundTripper) (*Files, error) {
	base, err := nodeURL(node)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if transport == nil {
		transport = newTransport(false)
	}
	return &Files{base: base, http: &http.Client{Transport: transport}, idle: filesIdle}, nil
}

// Log describes the files of the log, up to all that was committed before the
// call.
func (f *Files) Log(ctx context.Context) (LogFiles, error) { return f.log(ctx, "/v1/segments") }

// LocalLog is Log up to what the node has, which may be less. It needs no leader.
func (f *Files) LocalLog(ctx context.Context) (LogFiles, error) {
	return f.log(ctx, "/v1/segments?consistency=local")
}

func (f *Files) log(ctx context.Context, path string) (LogFiles, error) {
	var files LogFiles
	ctx, cancel := context.WithTimeout(ctx, f.idle)
	defer cancel()
	body, _, err := f.get(ctx, path, 0, -1)
	if err != nil {
		return files, err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(&files); err != nil {
		return files, fmt.Errorf("read the list of segments of %s: %w", f.base, err)
	}
	return files, nil
}

// Segment reads a file of the log from offset to before end. The reader must be
// closed.
func (f *Files) Segment(ctx context.Context, name string, offset, end int64) (io.ReadCloser, error) {
	return f.file(ctx, "/v1/segments/"+url.PathEscape(name), offset, end)
}

// State reads a file of the state in a snapshot of the node, likewise.
func (f *Files) State(ctx context.Context, snapshot, name string, offset, end int64) (io.ReadCloser, error) {
	return f.file(ctx, "/v1/snapshots/"+url.PathEscape(snapshot)+"/state/"+url.PathEscape(name), offset, end)
}

func (f *Files) file(ctx context.Context, path string, offset, end int64) (io.ReadCloser, error) {
	if offset == end { // a range can't be empty
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	silent := fmt.Errorf("%s sent nothing for %s", f.base, f.idle)
	timer := time.AfterFunc(f.idle, func() { cancel(silent) })
	body, status, err := f.get(ctx, path, offset, end)
	timer.Stop()
	if err == nil && status != http.StatusPartialContent {
		err = errors.Join(fmt.Errorf("%s answered %d to a request for a part of %s", f.base, status, path), body.Close())
	}
	if err != nil {
		cancel(nil)
		return nil, err
	}
	return &fileBody{ReadCloser: body, ctx: ctx, cancel: cancel, timer: timer, idle: f.idle}, nil
}

// get asks for a path, or for a range of it if end is not below 0.
func (f *Files) get(ctx context.Context, path string, offset, end int64) (io.ReadCloser, int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.base+path, nil)
	if err != nil {
		return nil, 0, err
	}
	if end >= 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-"+strconv.FormatInt(end-1, 10))
	}
	resp, err := f.http.Do(req)
	if err != nil {
		return nil, 0, causeOf(ctx, err)
	}
	if resp.StatusCode < 300 {
		return resp.Body, resp.StatusCode, nil
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return nil, 0, fmt.Errorf("read the answer of %s: %w", f.base, err)
	}
	return nil, 0, decodeProblem(resp.StatusCode, nodeName(resp, f.base), content)
}

// fileBody ends when its node falls silent.
type fileBody struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer // runs while Read waits; what the reader does with the bytes takes its time
	idle   time.Duration
}

// Read reads on.
func (b *fileBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.idle)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if err != nil && err != io.EOF {
		err = causeOf(b.ctx, err)
	}
	return n, err
}

// Close gives up what was not read.
func (b *fileBody) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}
