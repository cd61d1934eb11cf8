package httpapi

import (
	"context"
	"math"
	"net/http"
	"strconv"

	"cairn/event"
)

// Types are the schemas of event types, and what brings events to the newest of
// them.
type Types interface {
	// Register returns when a schema of a type is in the log for good and in force
	// on this node; or when it has to wait for projections, for longer than the
	// request should.
	// Body is the registration as it was sent, not checked. One that can't be
	// used is bad-definition to Options.Classify, and one whose number is not the
	// next schema-conflict. An error that Options.Classify does not know leaves
	// open whether it was written; to register the same again is always safe.
	Register(ctx context.Context, typ string, number uint32, body []byte) (Registered, error)
	// Schema returns a registration as JSON. One that does not exist is not-found
	// to Options.Classify.
	Schema(typ string, number uint32) ([]byte, error)
	// List returns the types that have schemas, in the order of their names.
	List() []TypeSchemas
	// Upcasts returns what this node brings events to the newest schemas with,
	// nil while all are read as they are stored.
	Upcasts() Upcasts
}

// Upcasts brings events to the newest schemas of their types. It never changes,
// and any number of goroutines use it.
type Upcasts interface {
	// NeedsUpcast reports whether events of a type that were stored with that
	// schema are read in another form. It is asked for every event that is read.
	NeedsUpcast(typ string, schema uint32) bool
	// Upcast brings e, a copy of what is stored, to the newest schema (to is 0):
	// it sets Type, Schema and Data. After an error, whose text is for people, e
	// is as it was.
	Upcast(e *event.Event, to uint32) error
}

// Registered is what became of a schema.
type Registered struct {
	Created bool // false = it was registered before, the same
	Pending bool // it is not in force yet
}

// TypeSchemas is a type and the numbers of its schemas.
type TypeSchemas struct {
	Type    string   `json:"type"`
	Newest  uint32   `json:"newest"`
	Schemas []uint32 `json:"schemas"`
	// Renamed is the type that events of this one are read as, "" = it has its
	// name still.
	Renamed string `json:"renamed,omitzero"`
	// Pending is a schema that is registered but not in force: projections that
	// fold the type are being built for it. 0 = none.
	Pending uint32 `json:"pending,omitzero"`
}

// maxRegistration is how many bytes a registration has, as it is sent.
const maxRegistration = 512 << 10

// pathSchema returns the type and the number in the path.
func (x *exchange) pathSchema() (typ string, number uint32, err error) {
	if typ, err = x.pathText("type"); err != nil {
		return "", 0, err
	}
	if err := (event.Query{Items: []event.QueryItem{{Types: []string{typ}}}}).Check(); err != nil {
		return "", 0, renamed("type", err)
	}
	n, err := x.pathNumber("number")
	if err == nil && n > math.MaxUint32 {
		err = problemf(InvalidRequest, "number: must be at most %d", uint32(math.MaxUint32))
	}
	return typ, uint32(n), err
}

// registerSchema is PUT /v1/types/{type}/schemas/{number}.
func (s *Server) registerSchema(x *exchange) error {
	typ, number, err := x.pathSchema()
	if err != nil {
		return err
	}
	if err := x.noParams(); err != nil {
		return err
	}
	if _, err := x.mediaType(mediaJSON[0]); err != nil {
		return err
	}
	body, err := x.readBody(maxRegistration)
	if err != nil {
		return err
	}
	defer body.release()
	ctx, cancel := context.WithTimeout(x.r.Context(), s.opts.AppendTimeout)
	defer cancel()
	registered, err := s.opts.Types.Register(ctx, typ, number, body.b)
	if err != nil {
		return s.unsettled(err)
	}
	status := http.StatusOK
	switch {
	case registered.Pending:
		status = http.StatusAccepted
	case registered.Created:
		status = http.StatusCreated
	}
	x.Header()["Location"] = []string{x.r.URL.EscapedPath()}
	x.about(s.opts.Waiter.Applied())
	out := appendText([]byte(`{"type":`), typ)
	out = strconv.AppendUint(append(out, `,"number":`...), uint64(number), 10)
	out = strconv.AppendBool(append(out, `,"created":`...), registered.Created)
	if registered.Pending {
		out = append(out, `,"pending":true`...)
	}
	return x.answer(status, append(out, '}'))
}

// readSchema is GET /v1/types/{type}/schemas/{number}.
func (s *Server) readSchema(x *exchange) error {
	typ, number, err := x.pathSchema()
	if err != nil {
		return err
	}
	if _, err := s.asOf(x); err != nil {
		return err
	}
	body, err := s.opts.Types.Schema(typ, number)
	if err != nil {
		return s.notFound(err, "there is no schema "+strconv.FormatUint(uint64(number), 10)+" of type "+strconv.Quote(typ))
	}
	return x.answer(http.StatusOK, body)
}

// listTypes is GET /v1/types.
func (s *Server) listTypes(x *exchange) error {
	if _, err := s.asOf(x); err != nil {
		return err
	}
	list := s.opts.Types.List()
	if list == nil {
		list = []TypeSchemas{}
	}
	return x.answerJSON(struct {
		Types []TypeSchemas `json:"types"`
	}{list})
}
