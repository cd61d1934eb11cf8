package client

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// The codes of the problems a server answers with.
const (
	CodeInvalidRequest   = "invalid-request"
	CodeInvalidEvent     = "invalid-event"
	CodeForbidden        = "forbidden"
	CodeNotFound         = "not-found"
	CodeMethodNotAllowed = "method-not-allowed"
	CodeConditionFailed  = "condition-failed"
	CodeIDReused         = "id-reused"
	CodeGuardFailed      = "guard-failed"
	CodeLogChanged       = "log-changed"
	CodeSchemaConflict   = "schema-conflict"
	CodeTooLarge         = "too-large"
	CodeMediaType        = "unsupported-media-type"
	CodeSchemaViolation  = "schema-violation"
	CodeFoldFailed       = "fold-failed"
	CodeBadDefinition    = "bad-definition"
	CodeBuilding         = "projection-building"
	CodeOverloaded       = "overloaded"
	CodeNoLeader         = "no-leader"
	CodeTimeout          = "timeout"
	CodeNotAttempted     = "not-attempted"
	CodeOutcomeUnknown   = "outcome-unknown"
	CodeCorrupt          = "corrupt"
)

const problemPrefix = "urn:cairn:error:"

// Problem is a server's refusal: a problem document (RFC 9457) with the
// members Cairn adds. It is the error of every call that a node answered with
// a status of 400 or more.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`

	Code string `json:"-"` // what follows the prefix of Type: one of the Code constants
	Node string `json:"-"` // the id of the node that answered, or its address
	// Position is what the answer is as of, if it says: that a stream does not
	// exist, for one. 0 = it does not say.
	Position uint64 `json:"-"`

	// Of condition-failed.
	Condition           jsontext.Value `json:"condition"` // which one
	Stream              string         `json:"stream"`
	Expected            jsontext.Value `json:"expected"` // a version, or what else the condition asked for
	Actual              uint64         `json:"actual"`   // the version the stream has
	ConflictingPosition uint64         `json:"conflicting_position"`
	ConflictingType     string         `json:"conflicting_type"` // "" = the node did not have the event yet

	// Of id-reused and outcome-unknown.
	IDs []ProblemID `json:"ids"`

	// Of guard-failed and fold-failed: which projection refused the append.
	Projection string `json:"projection"`
	Event      int    `json:"event"`   // place of the event in the append, from 0; of schema-violation too
	Key        string `json:"key"`     // of the row
	Message    string `json:"message"` // why; of bad-definition too
	// Of guard-failed.
	Guard         string `json:"guard"`          // the rule that is not true
	StatePosition uint64 `json:"state_position"` // of the last event in the state that the guard saw; 0 = there was none

	// Of schema-violation.
	EventType string         `json:"event_type"`
	Schema    uint32         `json:"schema"` // its number
	Errors    []ProblemPlace `json:"errors"`

	// Of bad-definition: where the fault is.
	Path   string `json:"path"`   // in the definition, as in when.FundsDeposited
	Line   int    `json:"line"`   // in the expression there, from 1; 0 = not in one
	Column int    `json:"column"` // in that line

	Progress float64 `json:"progress"` // of projection-building, 0 to 1

	Newest uint32 `json:"newest"` // of schema-conflict: number of the type's newest schema, 0 = it has none

	Log string `json:"log"` // of log-changed

	// Of corrupt.
	File   string `json:"file"`
	Offset int64  `json:"offset"`
}

// ProblemPlace is a place in an event's data that is against a schema.
type ProblemPlace struct {
	Path    string `json:"path"` // JSON pointer (RFC 6901)
	Message string `json:"message"`
}

// ProblemID is an id that a problem is about, with the position of the event
// that has it, or 0.
type ProblemID struct {
	ID       string
	Stream   string
	Position uint64
}

// UnmarshalJSON takes an id alone or an object with it.
func (p *ProblemID) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &p.ID)
	}
	var form struct {
		ID       string `json:"id"`
		Stream   string `json:"stream"`
		Position uint64 `json:"position"`
	}
	err := json.Unmarshal(b, &form)
	p.ID, p.Stream, p.Position = form.ID, form.Stream, form.Position
	return err
}

func (p *Problem) Error() string {
	what := p.Detail
	if what == "" {
		what = p.Title
	}
	if what == "" {
		what = http.StatusText(p.Status)
	}
	if p.Code == "" {
		return fmt.Sprintf("status %d: %s", p.Status, what)
	}
	return p.Code + ": " + what
}

// decodeProblem makes a Problem of any answer with a status of 400 or more,
// also one that came from something in between.
func decodeProblem(status int, node string, body []byte) *Problem {
	p := &Problem{}
	if err := json.Unmarshal(body, p); err != nil {
		// A newer server may give a member another form: what matters most is
		// in these four.
		var core struct {
			Type   string `json:"type"`
			Title  string `json:"title"`
			Status int    `json:"status"`
			Detail string `json:"detail"`
		}
		if json.Unmarshal(body, &core) != nil {
			text := strings.Join(strings.Fields(string(body[:min(len(body), 200)])), " ")
			core.Detail = strings.ToValidUTF8(text, "?")
		}
		*p = Problem{Type: core.Type, Title: core.Title, Status: core.Status, Detail: core.Detail}
	}
	if p.Status == 0 {
		p.Status = status
	}
	if code, ok := strings.CutPrefix(p.Type, problemPrefix); ok {
		p.Code = code
	}
	p.Node = node
	return p
}

// transient reports whether the same request may succeed a moment later or at
// another node. To build a projection may take hours.
func (p *Problem) transient() bool {
	return p.Status >= 500 && p.Code != CodeBuilding || p.Code == CodeNotAttempted
}

// unknown reports whether an append that was answered with p may have happened.
// Only a 503 promises that it has not.
func (p *Problem) unknown() bool {
	return p.Status >= 500 && p.Status != http.StatusServiceUnavailable
}

// mayHoldLater reports whether what p says stands in the way may go away: a
// stream that is behind a version can reach it, one that is past it never
// returns. The state that a guard sees may become any other.
func (p *Problem) mayHoldLater() bool {
	switch p.Code {
	case CodeGuardFailed, CodeFoldFailed, CodeSchemaViolation:
		return true
	}
	if p.Code != CodeConditionFailed || p.ConflictingPosition != 0 {
		return false
	}
	var expected uint64
	if err := json.Unmarshal(p.Expected, &expected); err != nil {
		return p.Actual == 0
	}
	return p.Actual < expected
}

// UnavailableError says that no node could serve a request. Nothing was
// written by it.
type UnavailableError struct {
	Nodes    []string // that were tried
	Attempts int
	Err      error // of the last attempt
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("no node could serve it, %s tried of %s: %v",
		count(e.Attempts, "attempt"), strings.Join(e.Nodes, ", "), e.Err)
}

func (e *UnavailableError) Unwrap() error { return e.Err }

// UnknownError says that an append may or may not have happened. To repeat it
// with the same ids is safe: it will be in the log once.
type UnknownError struct {
	IDs []string // of its events, in their order
	Err error    // what stands in the way of knowing
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("it is not known whether the append happened (%s): %v", count(len(e.IDs), "event"), e.Err)
}

func (e *UnknownError) Unwrap() error { return e.Err }

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// IsConflict reports whether an append was refused because of what is in the
// log already: a condition or a guard did not hold, or an id is taken.
func IsConflict(err error) bool {
	if IsUnknown(err) {
		return false
	}
	switch codeOf(err) {
	case CodeConditionFailed, CodeGuardFailed, CodeIDReused:
		return true
	}
	return false
}

// IsIDReused reports whether an append was refused because one of its ids is
// that of an earlier event, of another append than this one.
func IsIDReused(err error) bool { return !IsUnknown(err) && codeOf(err) == CodeIDReused }

// IsUnknown reports whether it is not known if an append happened.
func IsUnknown(err error) bool {
	var unknown *UnknownError
	return errors.As(err, &unknown) || codeOf(err) == CodeOutcomeUnknown
}

// IsGuardFailed reports whether a guard of a projection refused an append; the
// Problem says which.
func IsGuardFailed(err error) bool { return !IsUnknown(err) && codeOf(err) == CodeGuardFailed }

// IsBadDefinition reports whether a definition was refused; the Problem says
// where its fault is.
func IsBadDefinition(err error) bool { return codeOf(err) == CodeBadDefinition }

// IsBuilding reports whether a projection can't be read yet; the Problem says how
// much of it is built.
func IsBuilding(err error) bool { return codeOf(err) == CodeBuilding }

// IsNotFound reports whether what was asked for does not exist.
func IsNotFound(err error) bool { return codeOf(err) == CodeNotFound }

// IsLogChanged reports whether a position belongs to another log than the one
// the cluster has now.
func IsLogChanged(err error) bool { return codeOf(err) == CodeLogChanged }

// IsUnavailable reports whether no node could serve the request. An append
// that failed so was not written.
func IsUnavailable(err error) bool {
	var unavailable *UnavailableError
	return errors.As(err, &unavailable) && !IsUnknown(err)
}

func codeOf(err error) string {
	var p *Problem
	if errors.As(err, &p) {
		return p.Code
	}
	return ""
}
