package expr

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/parser"
)

// The limits of an expression and of one evaluation. None of them depends on
// time: what goes past one does so on every node.
const (
	MaxSource  = 4 << 10   // bytes of an expression
	MaxNesting = 2         // comprehensions inside each other
	maxText    = 256 << 10 // bytes of a string that is computed
	// maxWork is how many steps one evaluation may take, at most 0.1 µs each:
	// parts of the expression, again for each element of a loop around them;
	// calls; elements looked at; each 16 bytes of text read or made; failures
	// that it goes on after.
	maxWork = 1 << 19
)

// Error is why an expression does not compile, or what went wrong when it was
// evaluated.
type Error struct {
	Line, Column int // from 1, columns in code points
	Message      string
}

func (e *Error) Error() string {
	if e.Line <= 1 {
		return fmt.Sprintf("column %d: %s", e.Column, e.Message)
	}
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
}

// Program is a compiled expression.
type Program struct {
	source    string
	variables int
	slots     int
	root      compiled
	reads     map[string]*reads
	nodes     int
	patterns  int
	frames    sync.Pool
}

// reads is what an expression uses of a variable: these members, each with the
// first place that names it, or the whole.
type reads struct {
	members map[string]place
	whole   bool
}

func (r *reads) add(name string, at place) {
	if first, ok := r.members[name]; !ok || at.before(first) {
		r.members[name] = at
	}
}

// eval computes one part of an expression.
type eval func(f *frame) (Value, error)

// frame is the state of one evaluation.
type frame struct {
	program *Program
	slots   []Value // the program's variables, then those that macros declare
	args    []Value // of the calls that are being evaluated
	work    int     // steps that are left
}

// Compile reads an expression that may use these variables. The error is an
// *Error.
func Compile(source string, variables ...string) (*Program, error) {
	if len(source) > MaxSource {
		return nil, &Error{1, 1, fmt.Sprintf("the expression has %d bytes, the most is %d", len(source), MaxSource)}
	}
	if !utf8.ValidString(source) {
		return nil, &Error{1, 1, "the expression is not UTF-8"}
	}
	tree, err := parse(source)
	if err != nil {
		return nil, err
	}
	c := &compiler{info: tree.SourceInfo(), reads: map[string]*reads{}, slots: len(variables)}
	for i, name := range variables {
		c.scope = append(c.scope, variable{name, i})
		c.reads[name] = &reads{members: map[string]place{}}
	}
	root, err := c.expr(tree.Expr())
	if err != nil {
		return nil, err
	}
	p := &Program{source: source, variables: len(variables), slots: c.slots, root: root, reads: c.reads, nodes: c.nodes, patterns: c.patterns}
	p.frames.New = func() any { return &frame{program: p, slots: make([]Value, p.slots), args: make([]Value, 0, 8)} }
	return p, nil
}

// parse turns the text into a tree whose macros are still calls: this package
// evaluates them by its own rules.
func parse(source string) (*ast.AST, error) {
	p, err := parser.NewParser(
		parser.EnableOptionalSyntax(true),
		parser.EnableIdentEscapeSyntax(true),
		parser.ExpressionSizeCodePointLimit(MaxSource),
		parser.MaxRecursionDepth(250),
		parser.ErrorReportingLimit(1),
	)
	if err != nil {
		return nil, &Error{1, 1, err.Error()}
	}
	tree, errs := p.Parse(common.NewTextSource(source))
	if found := errs.GetErrors(); len(found) > 0 {
		first := found[0]
		return nil, &Error{max(first.Location.Line(), 1), max(first.Location.Column()+1, 1), syntaxMessage(first.Message)}
	}
	return tree, nil
}

// Eval computes the expression with the values of the variables, in the order
// in which Compile was given their names. The error is an *Error.
func (p *Program) Eval(values ...Value) (Value, error) {
	v, _, err := p.EvalWithin(maxWork, values...)
	return v, err
}

// EvalWithin is Eval within so many steps, if they are fewer than those that
// any evaluation has. It returns how many it took: more than it had if it failed
// for the lack of them.
func (p *Program) EvalWithin(steps int, values ...Value) (v Value, took int, err error) {
	if len(values) != p.variables {
		panic(fmt.Sprintf("expr: %d values for %d variables", len(values), p.variables))
	}
	f := p.frames.Get().(*frame)
	copy(f.slots, values)
	steps = min(steps, maxWork)
	f.work = steps
	if err = f.spend(p.nodes); err != nil {
		err = place{1, 1}.wrap(err)
	} else {
		v, err = p.root.run(f)
	}
	took = steps - f.work
	clear(f.slots) // a pooled frame must not keep an event's memory
	p.frames.Put(f)
	return v, took, err
}

// Reads reports whether the expression may look at a member of a variable.
func (p *Program) Reads(variable, member string) bool {
	r := p.reads[variable]
	if r == nil {
		return false
	}
	_, named := r.members[member]
	return r.whole || named
}

// CheckMembers refuses, by an *Error, the first member of a variable that the
// expression names and that is not among those the variable always has.
func (p *Program) CheckMembers(variable string, known []string) error {
	r := p.reads[variable]
	if r == nil {
		return nil
	}
	var first *place
	var message string
	for name, at := range r.members {
		if !slices.Contains(known, name) && (first == nil || at.before(*first)) {
			first = &at
			message = fmt.Sprintf("%s has no member %q; it has %s", variable, clip(name), strings.Join(known, ", "))
		}
	}
	if first == nil {
		return nil
	}
	return first.fail("%s", message)
}

// Yields reports whether the result can be of one of these kinds, as far as
// that shows without evaluating.
func (p *Program) Yields(kinds ...Kind) bool {
	for _, k := range kinds {
		if p.root.kinds.has(k) {
			return true
		}
	}
	return false
}

// Patterns returns what the patterns of all matches() weigh together.
func (p *Program) Patterns() int { return p.patterns }

// Source returns the text of the expression.
func (p *Program) Source() string { return p.source }

// spend takes steps off what is left.
func (f *frame) spend(steps int) error {
	if f.work -= steps; f.work < 0 {
		return errSteps
	}
	return nil
}

// outlive pays for a failure after which the evaluation goes on. It returns an
// error if there is nothing left to go on with.
func (f *frame) outlive(failure error) error {
	e, ok := failure.(*Error)
	if f.work < 0 || !ok {
		return failure
	}
	if err := f.spend(8 + len(e.Message)>>3); err != nil {
		return place{e.Line, e.Column}.wrap(err)
	}
	return nil
}

var errSteps = fmt.Errorf("the evaluation takes more than %d steps", maxWork)

// textSteps is what reading or making so many bytes of text costs.
func textSteps(bytes int) int { return 1 + bytes>>4 }
