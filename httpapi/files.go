package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/time/rate"
)

// Files gives what a node's data consists of: to backups, to repairs and to
// nodes that catch up.
type Files interface {
	// Log describes the files of the log up to the last position that reads can
	// see.
	Log() (LogFiles, error)
	// OpenSegment opens a file of the log. Its bytes up to where its frames end
	// are there; what follows may change. One that does not exist is not-found
	// to Options.Classify.
	OpenSegment(name string) (File, error)
	// OpenState opens a file of the state in this node's newest snapshot, or in
	// one that is being sent. Any other is not-found to Options.Classify.
	OpenState(snapshot, name string) (File, error)
	// Snapshot has a snapshot taken of all that is applied when it is called. It
	// returns the newest one, which may be that of another call.
	Snapshot(ctx context.Context) (SnapshotInfo, error)
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
	Last uint64 `json:"last"` // and of its last one, or of the last one asked for
	Size int64  `json:"size"` // in bytes, up to and with Last
	// Hash is the SHA-256 over the frames and headers of a sealed segment, hex;
	// "" while it is not sealed.
	Hash string `json:"hash,omitempty"`
}

// SnapshotInfo is a snapshot of this node.
type SnapshotInfo struct {
	ID       string `json:"id"`
	Index    uint64 `json:"index"`    // Raft index of the last command in it
	Position uint64 `json:"position"` // of the last event in it
	Bytes    int64  `json:"bytes"`    // that another node would need, at most
}

// File is an open file. Whoever opened it closes it.
type File struct {
	io.ReaderAt
	io.Closer
	Size int64
}

// logFiles is GET /v1/segments.
func (s *Server) logFiles(x *exchange) error {
	p := x.params(consistency...)
	q := p.reading()
	if p.err != nil {
		return p.err
	}
	if _, err := s.settle(x.r.Context(), q); err != nil {
		return err
	}
	files, err := s.opts.Files.Log()
	if err != nil {
		return err
	}
	body, err := json.Marshal(files)
	if err != nil {
		return fmt.Errorf("encode the list of segments: %w", err)
	}
	x.about(files.Position)
	return x.answer(http.StatusOK, body)
}

// readSegment is GET /v1/segments/{name}.
func (s *Server) readSegment(x *exchange) error {
	return s.sendFile(x, func(name string) (File, error) { return s.opts.Files.OpenSegment(name) })
}

// readState is GET /v1/snapshots/{id}/state/{name}.
func (s *Server) readState(x *exchange) error {
	id, err := x.pathText("id")
	if err != nil {
		return err
	}
	return s.sendFile(x, func(name string) (File, error) { return s.opts.Files.OpenState(id, name) })
}

// takeSnapshot is POST /v1/snapshots. Like every write it needs its
// Content-Type.
func (s *Server) takeSnapshot(x *exchange) error {
	if err := x.noParams(); err != nil {
		return err
	}
	if _, err := x.mediaType(mediaJSON[0]); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(x.r.Context(), clusterTimeout)
	defer cancel()
	info, err := s.opts.Files.Snapshot(ctx)
	if err != nil {
		return err
	}
	body, err := json.Marshal(info)
	if err != nil {
		return fmt.Errorf("encode snapshot: %w", err)
	}
	x.about(info.Position)
	return x.answer(http.StatusCreated, body)
}

// sendFile answers with a file or the range of it that was asked for, no faster
// than Options.FileRate: appends go on beside it.
func (s *Server) sendFile(x *exchange, open func(name string) (File, error)) error {
	if err := x.noParams(); err != nil {
		return err
	}
	name, err := x.pathText("name")
	if err != nil {
		return err
	}
	f, err := open(name)
	if err != nil {
		return s.notFound(err, fmt.Sprintf("there is no file %q", clip(name)))
	}
	defer f.Close()
	if err := x.stay(); err != nil {
		return err
	}
	x.Header().Set("Content-Type", "application/octet-stream")
	w := &ratedWriter{exchange: x, ctx: x.r.Context(), limit: s.fileRate}
	http.ServeContent(w, x.r, "", time.Time{}, io.NewSectionReader(f, 0, f.Size))
	if w.badRange {
		p := problemf(InvalidRequest, "Range: %q is not in the file, which has %d bytes", clip(x.r.Header.Get("Range")), f.Size)
		p.status = http.StatusRequestedRangeNotSatisfiable
		return p
	}
	return nil
}

// ratePiece is how much of a file is sent at a time.
const ratePiece = 256 << 10

// newRate returns what all files that this node sends share.
func newRate(bytesPerSecond int64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(bytesPerSecond), int(max(bytesPerSecond/20, ratePiece)))
}

// ratedWriter sends a file, in pieces, each under a deadline of its own.
type ratedWriter struct {
	*exchange
	ctx      context.Context
	limit    *rate.Limiter
	badRange bool // the answer is a problem, which is the caller's to send
}

// WriteHeader sends the header of an answer that is not a refusal, at once: the
// client need not wait for its turn to learn that there will be one.
func (w *ratedWriter) WriteHeader(status int) {
	if w.badRange = status == http.StatusRequestedRangeNotSatisfiable; !w.badRange {
		w.exchange.WriteHeader(status)
		_ = w.rc.Flush() // what is wrong shows at the next write
	}
}

// Write sends b, or stops with an error when the client is gone.
func (w *ratedWriter) Write(b []byte) (int, error) {
	if w.badRange { // the library's words for it
		return len(b), nil
	}
	sent := 0
	for len(b) > 0 {
		piece := b[:min(len(b), ratePiece)]
		if err := w.limit.WaitN(w.ctx, len(piece)); err != nil {
			return sent, err
		}
		_ = w.rc.SetWriteDeadline(time.Now().Add(w.s.opts.StallTimeout)) // only a test's writer has none
		n, err := w.exchange.Write(piece)
		sent += n
		if err != nil {
			return sent, err
		}
		b = b[n:]
	}
	return sent, nil
}
