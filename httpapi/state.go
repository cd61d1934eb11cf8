package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"unicode/utf8"

	"cairn/event"
)

const (
	maxRows   = 1000 // of a page
	maxRowKey = 512  // bytes
)

// asked is a reading of a state: which moment, and what the node must have
// folded for it.
type asked struct {
	reading
	at    Moment
	least uint64
}

// asked takes the parameters about the moment and consistency.
func (p *params) asked() asked {
	a := asked{reading: p.reading()}
	a.at = Moment{Version: p.number("at_version", 0, 1, maxNumber), Position: a.reading.at.n, Time: p.moment("at_time")}
	given := 0
	for _, name := range [...]string{"at_version", "at_position", "at_time"} {
		if p.has(name) {
			if given++; given > 1 {
				p.fault(name, "there is another moment; give one of at_version, at_position and at_time")
			}
		}
	}
	return a
}

// settleState is settle for a state, which is read by what is defined now, also
// as of an earlier position: the node must know the definition. What it takes
// together is done within the context it returns.
func (s *Server) settleState(x *exchange, a *asked) (context.Context, context.CancelFunc, error) {
	ctx, cancel := context.WithTimeout(x.r.Context(), a.timeout)
	now := a.reading
	now.at = position{}
	now.min.n = max(now.min.n, a.at.Position)
	var err error
	a.least, err = s.settle(ctx, now, a.reading.at)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	if a.at.Position > 0 {
		a.least = a.at.Position
	}
	x.about(a.least) // of an answer that there is no such thing
	return ctx, cancel, nil
}

// pathKey returns the key of a row in the path.
func (x *exchange) pathKey() (string, error) {
	key, err := x.pathText("key")
	if err != nil {
		return "", err
	}
	return key, checkKey("key", key)
}

func checkKey(name, key string) error {
	if len(key) > maxRowKey {
		return problemf(TooLarge, "%s: %d is over the limit of %d bytes", name, len(key), maxRowKey)
	}
	if !utf8.ValidString(key) {
		return problemf(InvalidRequest, "%s: must be UTF-8", name)
	}
	return nil
}

// key returns the key of a row, or the beginning of one.
func (p *params) key(name string) string {
	v := p.text(name)
	p.err = firstOf(p.err, checkKey(name, v))
	return v
}

// readRow is GET /v1/projections/{name}/rows/{key}.
func (s *Server) readRow(x *exchange) error {
	name, key, err := x.pathRow()
	if err != nil {
		return err
	}
	p := x.params(with("at_version", "at_position", "at_time")...)
	a := p.asked()
	if p.err != nil {
		return p.err
	}
	ctx, cancel, err := s.settleState(x, &a)
	if err != nil {
		return err
	}
	defer cancel()
	row, err := s.opts.Projections.Row(ctx, name, key, a.at, a.least)
	if err != nil {
		return s.ofRow(err, name, key)
	}
	x.about(row.AsOf)
	body := s.budget.hold()
	defer body.release()
	if err := body.grow(row.room() + 256); err != nil {
		return err
	}
	body.b = appendRow(body.b, &row.Row)
	body.b = appendReplay(body.b, row.Replayed, row.Final)
	body.b = appendAsOf(body.b, row.AsOf, row.Generation)
	return x.answer(http.StatusOK, append(body.b, '}'))
}

// pathRow returns the projection and the key of a row in the path.
func (x *exchange) pathRow() (name, key string, err error) {
	if name, err = x.pathProjectionName(); err != nil {
		return "", "", err
	}
	key, err = x.pathKey()
	return name, key, err
}

// ofRow says of which projection and row something was not found.
func (s *Server) ofRow(err error, name, key string) error {
	return s.notFound(err, fmt.Sprintf("projection %q, row %q: %v", name, key, err))
}

// readRows is GET /v1/projections/{name}/rows.
func (s *Server) readRows(x *exchange) error {
	name, err := x.pathProjectionName()
	if err != nil {
		return err
	}
	p := x.params(with("prefix", "after", "limit", "at_position", "at_time")...)
	a := p.asked()
	q := RowsQuery{
		Prefix: p.key("prefix"), After: p.key("after"), At: a.at, Bytes: pageBytes,
		Limit: int(p.number("limit", defaultLimit, 1, maxRows)),
	}
	if p.err != nil {
		return p.err
	}
	ctx, cancel, err := s.settleState(x, &a)
	if err != nil {
		return err
	}
	defer cancel()
	page, err := s.opts.Projections.Rows(ctx, name, q, a.least)
	if err != nil {
		return s.ofProjection(err, name)
	}
	x.about(page.AsOf)
	body := s.budget.hold()
	defer body.release()
	body.b = append(body.b, `{"rows":[`...)
	for i := range page.Rows {
		if err := body.grow(page.Rows[i].room() + 8*maxRowKey); err != nil { // with what follows the last
			return err
		}
		if i > 0 {
			body.b = append(body.b, ',')
		}
		body.b = append(appendRow(body.b, &page.Rows[i]), '}')
	}
	body.b = append(body.b, ']')
	if n := len(page.Rows); page.More && n > 0 {
		body.b = appendText(append(body.b, `,"next":`...), page.Rows[n-1].Key)
	}
	return x.answer(http.StatusOK, append(appendAsOf(body.b, page.AsOf, page.Generation), '}'))
}

// rowHistory is GET /v1/projections/{name}/rows/{key}/history.
func (s *Server) rowHistory(x *exchange) error {
	name, key, err := x.pathRow()
	if err != nil {
		return err
	}
	p := x.params(with("after", "limit")...)
	a := p.asked()
	after := p.position("after", 0)
	q := HistoryQuery{After: after.n, Limit: int(p.number("limit", defaultLimit, 1, maxRows)), Bytes: pageBytes}
	if p.err != nil {
		return p.err
	}
	ctx, cancel, err := s.settleState(x, &a)
	if err == nil {
		defer cancel()
		err = checkLog(after, s.opts.Reads.LogID())
	}
	if err != nil {
		return err
	}
	page, err := s.opts.Projections.History(ctx, name, key, q, a.least)
	if err != nil {
		return s.ofRow(err, name, key)
	}
	x.about(page.AsOf)
	body := s.budget.hold()
	defer body.release()
	body.b = append(body.b, `{"history":[`...)
	for i := range page.Entries {
		if err := body.grow(page.Entries[i].room() + 256); err != nil {
			return err
		}
		if i > 0 {
			body.b = append(body.b, ',')
		}
		body.b = appendEntry(body.b, &page.Entries[i])
	}
	body.b = append(body.b, ']')
	if n := len(page.Entries); page.More && n > 0 {
		body.b = strconv.AppendUint(append(body.b, `,"next":`...), page.Entries[n-1].Position, 10)
	}
	return x.answer(http.StatusOK, append(appendAsOf(body.b, page.AsOf, page.Generation), '}'))
}

// streamState is GET /v1/streams/{stream}/state.
func (s *Server) streamState(x *exchange) error {
	name, err := x.pathStream()
	if err != nil {
		return err
	}
	p := x.params(with("at_version", "at_position", "at_time")...)
	a := p.asked()
	if p.err != nil {
		return p.err
	}
	ctx, cancel, err := s.settleState(x, &a)
	if err != nil {
		return err
	}
	defer cancel()
	state, err := s.opts.Projections.StreamState(ctx, name, a.at, a.least)
	if err != nil {
		return s.notFound(err, fmt.Sprintf("stream %q does not exist, or did not at that moment", name))
	}
	x.about(state.AsOf)
	body := s.budget.hold()
	defer body.release()
	if err := body.grow(len(state.State) + 6*len(name) + 256); err != nil {
		return err
	}
	body.b = appendText(append(body.b, `{"stream":`...), name)
	body.b = append(append(body.b, `,"state":`...), state.State...)
	body.b = strconv.AppendUint(append(body.b, `,"version":`...), state.Version, 10)
	body.b = strconv.AppendUint(append(body.b, `,"events":`...), state.Events, 10)
	body.b = strconv.AppendUint(append(body.b, `,"position":`...), state.Position, 10)
	body.b = appendReplay(body.b, state.Replayed, state.Final)
	body.b = strconv.AppendUint(append(body.b, `,"as_of":`...), state.AsOf, 10)
	return x.answer(http.StatusOK, append(body.b, '}'))
}

// room is at least as long as what appendRow appends.
func (r *Row) room() int {
	n := 6*len(r.Key) + len(r.State) + 128
	if r.Failed != nil {
		n += 6*len(r.Failed.Reason) + 64
	}
	return n
}

// appendRow appends a row as an object that is not closed yet.
func appendRow(dst []byte, r *Row) []byte {
	dst = appendText(append(dst, `{"key":`...), r.Key)
	dst = append(append(dst, `,"state":`...), r.State...)
	dst = strconv.AppendUint(append(dst, `,"events":`...), r.Events, 10)
	dst = strconv.AppendUint(append(dst, `,"position":`...), r.Position, 10)
	if r.Failed != nil {
		dst = strconv.AppendUint(append(dst, `,"failed":{"position":`...), r.Failed.Position, 10)
		dst = append(appendText(append(dst, `,"reason":`...), r.Failed.Reason), '}')
	}
	return dst
}

func appendReplay(dst []byte, replayed uint64, final bool) []byte {
	dst = strconv.AppendUint(append(dst, `,"replayed":`...), replayed, 10)
	return strconv.AppendBool(append(dst, `,"final":`...), final)
}

func appendAsOf(dst []byte, position, generation uint64) []byte {
	dst = strconv.AppendUint(append(dst, `,"as_of":`...), position, 10)
	return strconv.AppendUint(append(dst, `,"generation":`...), generation, 10)
}

// room is at least as long as what appendEntry appends.
func (e *HistoryEntry) room() int { return 6*(len(e.Type)+len(e.Stream)) + len(e.State) + 192 }

func appendEntry(dst []byte, e *HistoryEntry) []byte {
	dst = strconv.AppendUint(append(dst, `{"position":`...), e.Position, 10)
	dst = strconv.AppendUint(append(dst, `,"version":`...), e.Version, 10)
	dst = appendText(append(dst, `,"type":`...), e.Type)
	dst = appendText(append(dst, `,"stream":`...), e.Stream)
	dst = append(append(dst, `,"time":"`...), event.FormatTime(e.Time)...)
	dst = append(append(dst, `","state":`...), e.State...)
	return append(dst, '}')
}
