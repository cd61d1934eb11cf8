package eventlog

const hexDigits = "0123456789abcdef"

// parseUUID returns the 16 bytes of a UUID in canonical form: lower-case, with
// four dashes. Anything else is not ok, since its text could not be given back.
func parseUUID[T string | []byte](s T) (u [16]byte, ok bool) {
	if len(s) != 36 {
		return u, false
	}
	n := 0
	for i := 0; i < 36; i++ {
		c := s[i]
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return u, false
			}
			continue
		}
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		default:
			return u, false
		}
		u[n/2] = u[n/2]<<4 | c
		n++
	}
	return u, true
}

func isUUID(s []byte) bool {
	_, ok := parseUUID(s)
	return ok
}

// appendUUID appends the canonical text of the 16 bytes u.
func appendUUID(dst, u []byte) []byte {
	for i, c := range u {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			dst = append(dst, '-')
		}
		dst = append(dst, hexDigits[c>>4], hexDigits[c&15])
	}
	return dst
}
