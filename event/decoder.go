package event

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// Text reads a string.
func (d *Decoder) Text(to *string) error {
	if d.dec.PeekKind() != '"' {
		return d.wrongKind("must be a string")
	}
	tok, err := d.dec.ReadToken()
	if err != nil {
		return err
	}
	*to = tok.String()
	return nil
}

// Texts reads an array of strings.
func (d *Decoder) Texts(to *[]string) error {
	*to = nil
	return d.Array("must be an array of strings", func() error {
		var s string
		if err := d.Text(&s); err != nil {
			return err
		}
		*to = append(*to, s)
		return nil
	})
}

// Array reads an array, whose elements element takes off d one by one.
func (d *Decoder) Array(otherwise string, element func() error) error {
	if d.dec.PeekKind() != '[' {
		return d.wrongKind(otherwise)
	}
	if _, err := d.dec.ReadToken(); err != nil {
		return err
	}
	for d.dec.PeekKind() != ']' {
		if err := element(); err != nil {
			return err
		}
	}
	_, err := d.dec.ReadToken()
	return err
}

// Uint64 reads a whole number from 0 on.
func (d *Decoder) Uint64(to *uint64) error { return d.uint(to, 64) }

// Uint32 reads a whole number from 0 to 2^32-1.
func (d *Decoder) Uint32(to *uint32) error {
	var v uint64
	err := d.uint(&v, 32)
	*to = uint32(v)
	return err
}

func (d *Decoder) uint(to *uint64, bits int) error {
	if d.dec.PeekKind() != '0' {
		return d.wrongKind("must be a whole number, 0 or more")
	}
	tok, err := d.dec.ReadToken()
	if err != nil {
		return err
	}
	if *to, err = strconv.ParseUint(tok.String(), 10, bits); err != nil {
		return errors.New("must be a whole number, 0 or more")
	}
	return nil
}

// Bool reads true or false.
func (d *Decoder) Bool(to *bool) error {
	kind := d.dec.PeekKind()
	if kind != 't' && kind != 'f' {
		return d.wrongKind("must be true or false")
	}
	_, err := d.dec.ReadToken()
	*to = kind == 't'
	return err
}

// Value reads any value and keeps its text, without insignificant white space.
func (d *Decoder) Value(to *[]byte) error {
	v, err := d.dec.ReadValue()
	if err != nil {
		return err
	}
	v = bytes.Clone(v)
	if hasSpace(v) {
		if err := v.Compact(jsontext.PreserveRawStrings(true)); err != nil {
			return err
		}
	}
	*to = v
	return nil
}

// hasSpace reports whether v may hold white space that means nothing. A space
// within a string is such a maybe.
func hasSpace(v []byte) bool {
	return bytes.IndexByte(v, ' ') >= 0 || bytes.IndexByte(v, '\n') >= 0 || bytes.IndexByte(v, '\t') >= 0 || bytes.IndexByte(v, '\r') >= 0
}

// Object reads an object like Value.
func (d *Decoder) Object(to *[]byte) error {
	if d.dec.PeekKind() != '{' {
		return d.wrongKind("must be an object")
	}
	return d.Value(to)
}

// Raw reads any value as it stands; it is valid until the next call on d.
func (d *Decoder) Raw() ([]byte, error) { return d.dec.ReadValue() }

// Base64 reads a string of base64 (RFC 4648, section 4).
func (d *Decoder) Base64(to *[]byte) error {
	var s string
	if err := d.Text(&s); err != nil {
		return err
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return errors.New("must be base64 with padding")
	}
	*to = b
	return nil
}

// Skip passes over a value.
func (d *Decoder) Skip() error { return d.dec.SkipValue() }

// wrongKind says what a value should have been, unless it is no value at all.
func (d *Decoder) wrongKind(otherwise string) error {
	if _, err := d.dec.ReadValue(); err != nil {
		return err
	}
	return errors.New(otherwise)
}
