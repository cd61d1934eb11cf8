// Package projection folds events into rows: it reads definitions, compiles
// them, and takes one row one event further.
//
// Everything here is a pure function of the definition, the row and the event:
// the same bytes come out on every node, at any time, so that it may run where
// the log decides. It stores nothing and starts no goroutine. A Projection is
// immutable and may be used by any number of goroutines; an Input belongs to
// one. State machine, background folders and reads of the past all fold by it.
package projection

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"cairn/event"
	"cairn/projection/expr"
)

// Engine is the number of the rules by which expressions are evaluated and
// rows are written. A definition pins it; it rises when any result changes.
const Engine = 1

// The limits of definitions and rows, in bytes where they are about text.
const (
	MaxDefinition = 64 << 10
	MaxState      = 64 << 10 // canonical JSON of a row
	MaxKey        = 512
	maxName       = 64
	maxMatch      = 256 // of each: streams, types, tags
	maxGuards     = 64  // of one type
	maxRules      = 256 // expressions, the key among them
	maxPatterns   = 4 * expr.MaxPatterns
	maxMessage    = 512
)

// Definition says which events make rows, and how. That of ParseDefinition has
// all defaults filled in.
type Definition struct {
	Name   string
	Match  Match
	Key    string             // CEL
	Init   json.RawMessage    // canonical JSON, an object
	When   map[string]string  // CEL by type of event, "*" = any other
	Guards map[string][]Guard // by type of event, "*" = every one, after those of its own
}

// Match chooses events: all members that are set must hold. Events of '$'
// streams never match.
type Match struct {
	Streams      []string // one of them
	StreamPrefix string
	Category     string
	Types        []string // one of them
	Tags         []string // all of them
}

// Guard is a rule that must be true before an event is accepted.
type Guard struct {
	Rule    string // CEL
	Message string // for people, when it is not true
}

// Error is why a definition is refused.
type Error struct {
	Path         string // where in the definition, such as when.FundsDeposited
	Line, Column int    // in the expression, from 1; 0 = it is not about one place of it
	Message      string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Path + ": " + e.Message
	}
	return fmt.Sprintf("%s, line %d, column %d: %s", e.Path, e.Line, e.Column, e.Message)
}

func wrong(path, format string, args ...any) error {
	return &Error{Path: path, Message: fmt.Sprintf(format, args...)}
}

// ParseDefinition reads a definition, strictly, and fills in what it leaves
// out. Its name may be missing, else it must be the one given. It does not look
// into expressions, Compile does. The error is an *Error.
func ParseDefinition(name string, b []byte) (*Definition, error) {
	if len(b) > MaxDefinition {
		return nil, wrong("definition", "%d bytes are over the limit of %d", len(b), MaxDefinition)
	}
	if !validName(name) {
		return nil, wrong("name", "%q must begin with a letter or digit, followed by up to %d of a-z, 0-9, '_', '-' and '.'", name, maxName-1)
	}
	d := &Definition{Name: name}
	if err := event.DecodeObject(b, d.member); err != nil {
		return nil, definitionError("", err)
	}
	if err := d.settle(name); err != nil {
		return nil, err
	}
	if size := len(d.Canonical()); size > MaxDefinition { // numbers of init may be longer there, and text
		return nil, wrong("definition", "%d bytes in canonical form are over the limit of %d", size, MaxDefinition)
	}
	return d, nil
}

// validName keeps a name usable in a path, a file name and a flag.
func validName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if ('a' > c || c > 'z') && ('0' > c || c > '9') && (i == 0 || c != '_' && c != '-' && c != '.') {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

func (d *Definition) member(name string, dec *event.Decoder) error {
	switch name {
	case "name":
		return dec.Text(&d.Name)
	case "match":
		return object(dec, d.Match.member)
	case "key":
		return dec.Text(&d.Key)
	case "init":
		return dec.Object((*[]byte)(&d.Init))
	case "when":
		d.When = map[string]string{}
		return object(dec, func(typ string, dec *event.Decoder) error {
			var source string
			err := dec.Text(&source)
			d.When[typ] = source
			return err
		})
	case "guards":
		d.Guards = map[string][]Guard{}
		return object(dec, func(typ string, dec *event.Decoder) error {
			d.Guards[typ] = []Guard{}
			return dec.Array("must be an array of guards", func() error {
				var g Guard
				err := object(dec, g.member)
				d.Guards[typ] = append(d.Guards[typ], g)
				return err
			})
		})
	}
	return event.ErrUnknownMember
}

// object reads an object off dec, whose members member takes.
func object(dec *event.Decoder, member func(string, *event.Decoder) error) error {
	var b []byte
	if err := dec.Object(&b); err != nil {
		return err
	}
	return event.DecodeObject(b, member)
}

func (m *Match) member(name string, dec *event.Decoder) error {
	switch name {
	case "streams":
		return texts(dec, &m.Streams)
	case "stream_prefix":
		return dec.Text(&m.StreamPrefix)
	case "category":
		return dec.Text(&m.Category)
	case "types":
		return texts(dec, &m.Types)
	case "tags":
		return texts(dec, &m.Tags)
	}
	return event.ErrUnknownMember
}

// texts reads an array, which stays apart from a missing one when it is empty.
func texts(dec *event.Decoder, to *[]string) error {
	err := dec.Texts(to)
	if *to == nil {
		*to = []string{}
	}
	return err
}

func (g *Guard) member(name string, dec *event.Decoder) error {
	switch name {
	case "rule":
		return dec.Text(&g.Rule)
	case "message":
		return dec.Text(&g.Message)
	}
	return event.ErrUnknownMember
}

// definitionError makes an *Error of what decoding says.
func definitionError(path string, err error) error {
	var invalid *event.InvalidError
	if !errors.As(err, &invalid) {
		return wrong(path, "%v", err)
	}
	field := invalid.Field
	if field == "body" && path == "" {
		field = "definition"
	}
	return wrong(strings.TrimPrefix(path+"."+field, "."), "%s", invalid.Reason)
}

// settle checks what each member may be and fills in the defaults.
func (d *Definition) settle(name string) error {
	if d.Name != name {
		return wrong("name", "is %q, but the projection is called %q", d.Name, name)
	}
	if err := d.Match.settle(); err != nil {
		return err
	}
	if d.Key == "" {
		d.Key = "event.stream"
	}
	if d.Init == nil {
		d.Init = json.RawMessage("{}")
	}
	init, err := expr.Parse(d.Init)
	if err != nil {
		return wrong("init", "%v", err)
	}
	if d.Init, err = init.AppendJSON(nil, MaxState); err != nil {
		return wrong("init", "%v", err)
	}
	if d.When == nil {
		d.When = map[string]string{"*": "event.data"}
	}
	for _, typ := range slices.Sorted(maps.Keys(d.When)) {
		if err := d.checkType("when", typ); err != nil {
			return err
		}
	}
	rules := 1 + len(d.When)
	for _, typ := range slices.Sorted(maps.Keys(d.Guards)) {
		rules += len(d.Guards[typ])
		if err := d.checkType("guards", typ); err != nil {
			return err
		}
		if err := checkGuards("guards."+typ, d.Guards[typ]); err != nil {
			return err
		}
	}
	if rules > maxRules {
		return wrong("definition", "%d expressions are over the limit of %d", rules, maxRules)
	}
	return nil
}

// checkType refuses the name of a type that no event of the projection can have.
func (d *Definition) checkType(member, typ string) error {
	if typ == "" {
		return wrong(member, "the name of a type must not be empty; \"*\" stands for any")
	}
	if typ != "*" && !d.Match.mayMatchType(typ) {
		return wrong(member+"."+typ, "match.types does not name this type, so no such event comes here")
	}
	return nil
}

func checkGuards(path string, guards []Guard) error {
	if len(guards) == 0 || len(guards) > maxGuards {
		return wrong(path, "there must be 1 to %d guards", maxGuards)
	}
	for i, g := range guards {
		at := fmt.Sprintf("%s[%d]", path, i)
		if g.Rule == "" {
			return wrong(at+".rule", "must not be empty")
		}
		if len(g.Message) > maxMessage {
			return wrong(at+".message", "%d bytes are over the limit of %d", len(g.Message), maxMessage)
		}
	}
	return nil
}

// settle brings a Match into the one form of all that mean the same.
func (m *Match) settle() error {
	for _, list := range []struct {
		name  string
		texts *[]string
		most  int
	}{{"streams", &m.Streams, event.MaxStream}, {"types", &m.Types, event.MaxType}, {"tags", &m.Tags, event.MaxTag}} {
		path := "match." + list.name
		if *list.texts != nil && len(*list.texts) == 0 {
			return wrong(path, "is empty; leave it out to match any")
		}
		if len(*list.texts) > maxMatch {
			return wrong(path, "%d are over the limit of %d", len(*list.texts), maxMatch)
		}
		for i, s := range *list.texts {
			if s == "" || len(s) > list.most || !utf8.ValidString(s) {
				return wrong(fmt.Sprintf("%s[%d]", path, i), "must have 1 to %d bytes of UTF-8", list.most)
			}
		}
		slices.Sort(*list.texts)
		*list.texts = slices.Compact(*list.texts)
	}
	for i, s := range m.Streams {
		if event.IsSystem(s) {
			return wrong(fmt.Sprintf("match.streams[%d]", i), "%q is one of the store's own, which projections don't see", s)
		}
	}
	if event.IsSystem(m.StreamPrefix) || event.IsSystem(m.Category) {
		return wrong("match", "streams that begin with '$' are the store's own, which projections don't see")
	}
	return nil
}

func (m *Match) mayMatchType(typ string) bool {
	if len(m.Types) == 0 {
		return true
	}
	_, ok := slices.BinarySearch(m.Types, typ)
	return ok
}

// Guarding reports whether there are guards.
func (d *Definition) Guarding() bool { return len(d.Guards) > 0 }

// Rules reports whether there is a "when" or a guard for events of that type
// itself, not by "*".
func (d *Definition) Rules(typ string) bool {
	if typ == "*" {
		return false
	}
	_, folds := d.When[typ]
	_, guarded := d.Guards[typ]
	return folds || guarded
}

// Canonical returns the definition as canonical JSON with all defaults: two
// that mean the same give the same bytes.
func (d *Definition) Canonical() []byte {
	match := fields{}
	match.texts("streams", d.Match.Streams)
	match.text("stream_prefix", d.Match.StreamPrefix)
	match.text("category", d.Match.Category)
	match.texts("types", d.Match.Types)
	match.texts("tags", d.Match.Tags)
	when, guards := fields{}, fields{}
	for typ, source := range d.When {
		when.text(typ, source)
	}
	for typ, list := range d.Guards {
		all := make([]expr.Value, len(list))
		for i, g := range list {
			one := fields{"rule": expr.TextOf(g.Rule)}
			one.text("message", g.Message)
			all[i] = one.value()
		}
		guards[typ] = expr.ListOf(all...)
	}
	init, err := expr.Parse(d.Init)
	if err != nil {
		panic(fmt.Sprintf("projection: init of a definition that was parsed: %v", err))
	}
	whole := fields{
		"name": expr.TextOf(d.Name), "match": match.value(), "key": expr.TextOf(d.Key), "init": init,
		"when": when.value(), "guards": guards.value(),
	}
	b, err := whole.value().AppendJSON(nil, 8*MaxDefinition)
	if err != nil {
		panic(fmt.Sprintf("projection: a definition that was parsed: %v", err))
	}
	return b
}

// fields are the members of an object that is being written.
type fields map[string]expr.Value

func (f fields) text(name, s string) {
	if s != "" {
		f[name] = expr.TextOf(s)
	}
}

func (f fields) texts(name string, all []string) {
	if len(all) == 0 {
		return
	}
	values := make([]expr.Value, len(all))
	for i, s := range all {
		values[i] = expr.TextOf(s)
	}
	f[name] = expr.ListOf(values...)
}

func (f fields) value() expr.Value {
	names := slices.Sorted(maps.Keys(f))
	values := make([]expr.Value, len(names))
	for i, name := range names {
		values[i] = f[name]
	}
	return expr.MapOf(names, values)
}
