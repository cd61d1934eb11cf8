package index

// kind says what sort of index term a text is. Kinds are part of the keys on
// disk.
type kind byte

const (
	kindStream      kind = 1
	kindCategory    kind = 2
	kindType        kind = 3 // not of system events: no query matches them
	kindTag         kind = 4 // likewise
	kindCorrelation kind = 5
	kindCausation   kind = 6
	kindCompensates kind = 7
	// kindSystem has one term, the empty text: all events of '$' streams. They
	// are few, and positions have no gaps, so that "every other event" needs
	// no postings of its own.
	kindSystem kind = 8
)

// packedUUID is added to the kind of an id whose text is a canonical lower-case
// UUID: the text is then its 16 bytes, not its 36 characters.
const packedUUID = 0x40

// appendTerm appends the binary form of a term: its kind, then its text. The
// form is a bijection: two terms have the same one only if they are the same.
func appendTerm(dst []byte, k kind, text string) []byte {
	switch k {
	case kindCorrelation, kindCausation, kindCompensates:
		if u, ok := parseUUID(text); ok {
			return append(append(dst, byte(k)|packedUUID), u[:]...)
		}
	}
	return append(append(dst, byte(k)), text...)
}

// parseUUID reads the canonical form of a UUID, 8-4-4-4-12 lower-case
// hexadecimal digits, of any version. Only that form: it must be possible to
// tell the text from the bytes.
func parseUUID(s string) (u [16]byte, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return u, false
	}
	n := 0
	for i := 0; i < len(s); i++ {
		if s[i] == '-' && (i == 8 || i == 13 || i == 18 || i == 23) {
			continue
		}
		var digit byte
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			digit = c - '0'
		case c >= 'a' && c <= 'f':
			digit = c - 'a' + 10
		default:
			return u, false
		}
		u[n/2] = u[n/2]<<4 | digit
		n++
	}
	return u, true
}
