package expr

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"unicode/utf8"
)

// Pattern is a regular expression (RE2) that means and costs the same on every
// node: both are told by its source, not by what Go's version makes of it.
type Pattern struct {
	*regexp.Regexp
	weight int
}

// maxRepeats is how many copies of a part counted repeats may make, those
// inside each other multiplied.
const maxRepeats = 1000

// MaxPatterns is the most that the patterns of one expression or schema may
// weigh together.
const MaxPatterns = 1 << 14

// CompilePattern compiles a pattern of up to most bytes. Besides what RE2 does
// not have it refuses what depends on the version of Unicode.
func CompilePattern(source string, most int) (*Pattern, error) {
	if len(source) > most {
		return nil, fmt.Errorf("the pattern has %d bytes, the most is %d", len(source), most)
	}
	tree, err := syntax.Parse(source, syntax.Perl&^syntax.UnicodeGroups)
	if err != nil {
		if _, known := syntax.Parse(source, syntax.Perl); known == nil {
			return nil, errors.New(`a pattern has no \p classes: what they hold depends on the version of Unicode`)
		}
		return nil, err
	}
	repeats, err := repeatsOf(tree)
	if err != nil {
		return nil, err
	}
	weight := max(len(source), 1) * repeats
	if weight > MaxPatterns {
		return nil, fmt.Errorf("the pattern is too complex: %d bytes times %d copies that its repeats make, the most is %d", len(source), repeats, MaxPatterns)
	}
	re, err := regexp.Compile(source)
	if err != nil {
		return nil, err
	}
	return &Pattern{re, weight}, nil
}

// Weight is how much it costs to match a byte: the bytes of the pattern, times
// the copies that its repeats make.
func (p *Pattern) Weight() int { return p.weight }

// Steps is what matching a text of so many bytes costs.
func (p *Pattern) Steps(bytes int) int { return 1 + (bytes+1)*p.weight>>3 }

// repeatsOf returns how many copies of a part the repeats in a tree make.
func repeatsOf(re *syntax.Regexp) (int, error) {
	if re.Flags&syntax.FoldCase != 0 && foldsBeyondASCII(re) {
		return 0, errors.New("a pattern ignores case (?i) in ASCII only: other letters depend on the version of Unicode")
	}
	most := 1
	for _, sub := range re.Sub {
		n, err := repeatsOf(sub)
		if err != nil {
			return 0, err
		}
		most = max(most, n)
	}
	if re.Op == syntax.OpRepeat {
		copies := max(re.Min, re.Max, 1)
		if re.Max < 0 {
			copies = re.Min + 1
		}
		most *= copies
	}
	if most > maxRepeats {
		return 0, fmt.Errorf("the pattern is too complex: its repeats make more than %d copies of a part", maxRepeats)
	}
	return most, nil
}

// The two letters beyond ASCII that are another case of one in it: ſ of s and
// K (Kelvin) of k. No version of Unicode adds to them.
const (
	longS  = 0x17f
	kelvin = 0x212a
)

// foldsBeyondASCII reports whether a part without regard to case holds letters
// whose other cases a table must tell.
func foldsBeyondASCII(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			if r >= utf8.RuneSelf && r != longS && r != kelvin {
				return true
			}
		}
	case syntax.OpCharClass:
		return !plainClass(re.Rune)
	}
	return false
}

// plainClass reports whether a class, given by its ranges, has all characters
// beyond ASCII or none, but for those two.
func plainClass(ranges []rune) bool {
	has := func(r rune) bool {
		for i := 0; i < len(ranges); i += 2 {
			if ranges[i] <= r && r <= ranges[i+1] {
				return true
			}
		}
		return false
	}
	all := has(utf8.RuneSelf)
	for i := 0; i < len(ranges); i += 2 {
		// A class changes only where a range begins and behind its end.
		for _, r := range []rune{ranges[i], ranges[i+1] + 1} {
			if r >= utf8.RuneSelf && r <= utf8.MaxRune && has(r) != all && r != longS && r != kelvin {
				return false
			}
			if r > utf8.RuneSelf && has(r-1) != all && r-1 != longS && r-1 != kelvin {
				return false
			}
		}
	}
	return true
}
