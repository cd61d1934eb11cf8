package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
)

// A snapshot stream, what a sink is given and what Open yields; little-endian:
//
//	offset  0          8         10      12       16
//	        +----------+---------+-------+--------+----------+--------+--------+---
//	        | magic    | version | kind  | length | manifest | file 1 | file 2 | …
//	        | cairnsnp | u16     | u16   | u32    | length B | Size B | Size B |
//	        +----------+---------+-------+--------+----------+--------+--------+---
//
// kind 1, local: a manifest alone, of a snapshot of this node's own.
// kind 2, full: the files follow in the order of the manifest: the sealed
// segments, the prefix of the active one, the state files. Nothing follows them.
// kind 3, prepared: a manifest alone, of a snapshot whose files the receiver has
// fetched already.
// Every file is covered by its hash in the manifest, the manifest by its own.
const (
	streamMagic   = "cairnsnp"
	streamVersion = 1
	streamHead    = 16
)

type streamKind uint16

const (
	kindLocal    streamKind = 1
	kindFull     streamKind = 2
	kindPrepared streamKind = 3
)

// EncodeLocal returns the whole stream of a local snapshot: what Persist writes
// to its sink. The sink lists and hashes the checkpoint and the active segment
// itself: StateFiles and Active.Hash are to be empty.
func EncodeLocal(m *Manifest) ([]byte, error) {
	if err := m.checkDraft(); err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return appendStreamHead(nil, kindLocal, encodeManifest(m))
}

func appendStreamHead(dst []byte, kind streamKind, manifest []byte) ([]byte, error) {
	if len(manifest) > MaxManifest {
		return nil, fmt.Errorf("manifest of %d bytes is larger than %d", len(manifest), MaxManifest)
	}
	dst = append(dst, streamMagic...)
	dst = binary.LittleEndian.AppendUint16(dst, streamVersion)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(kind))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(manifest)))
	return append(dst, manifest...), nil
}

// decodeStreamHead reads the first streamHead bytes of a stream.
func decodeStreamHead(b []byte) (kind streamKind, length int, err error) {
	corrupt := func(format string, args ...any) (streamKind, int, error) {
		return 0, 0, &CorruptError{"snapshot stream", fmt.Sprintf(format, args...)}
	}
	if !bytes.HasPrefix(b, []byte(streamMagic)) {
		return corrupt("it does not begin with %q", streamMagic)
	}
	if v := binary.LittleEndian.Uint16(b[8:]); v != streamVersion {
		return corrupt("its version %d is unknown to this binary, which knows %d", v, streamVersion)
	}
	kind = streamKind(binary.LittleEndian.Uint16(b[10:]))
	if kind < kindLocal || kind > kindPrepared {
		return corrupt("its kind %d is unknown", kind)
	}
	n := binary.LittleEndian.Uint32(b[12:])
	if n == 0 || n > MaxManifest {
		return corrupt("its manifest has %d bytes, at most %d are allowed", n, MaxManifest)
	}
	return kind, int(n), nil
}

// ReadManifest reads the head of a full stream, which is all that Restore needs
// of it: the files lie in the manifest's generation already.
func ReadManifest(r io.Reader) (*Manifest, error) {
	var head [streamHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	kind, length, err := decodeStreamHead(head[:])
	if err != nil {
		return nil, err
	}
	if kind != kindFull {
		return nil, &CorruptError{"snapshot stream", "it holds a manifest without its files"}
	}
	b, err := io.ReadAll(io.LimitReader(r, int64(length)))
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if len(b) < length {
		return nil, fmt.Errorf("read manifest: %w", io.ErrUnexpectedEOF)
	}
	return decodeFullManifest(b)
}

// encodeManifest returns a manifest in its envelope. The same manifest always
// gives the same bytes.
func encodeManifest(m *Manifest) []byte {
	c := *m
	if c.Segments == nil {
		c.Segments = []Segment{}
	}
	if c.StateFiles == nil {
		c.StateFiles = []File{}
	}
	return encodeEnvelope("manifest", ManifestFormat, &c)
}

// decodeManifest reads what encodeManifest wrote, byte for byte, and nothing
// else. What it says is still to be checked.
func decodeManifest(b []byte) (*Manifest, error) {
	m := &Manifest{Format: ManifestFormat}
	if err := decodeEnvelope(b, "manifest", ManifestFormat, m); err != nil {
		return nil, err
	}
	if !bytes.Equal(encodeManifest(m), b) {
		return nil, &CorruptError{"manifest", "it is not in the one form that is written"}
	}
	return m, nil
}

// decodeFullManifest also checks that the manifest is complete and sound.
func decodeFullManifest(b []byte) (*Manifest, error) {
	m, err := decodeManifest(b)
	if err != nil {
		return nil, err
	}
	if err := m.Check(); err != nil {
		return nil, &CorruptError{"manifest", err.Error()}
	}
	return m, nil
}

// An envelope, for MANIFEST and META: three lines.
//
//	cairn-<what> <format>
//	<JSON>
//	sha256 <64 hex digits>
//
// The hash covers everything before its line.
const envelopeTail = len("sha256 \n") + 2*sha256.Size

func encodeEnvelope(what string, format int, body any) []byte {
	js, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("snapshot: encode %s: %v", what, err)) // plain structs of strings and numbers
	}
	b := fmt.Appendf(nil, "cairn-%s %d\n%s\n", what, format, js)
	sum := sha256.Sum256(b)
	return fmt.Appendf(b, "sha256 %x\n", sum)
}

// decodeEnvelope checks the hash before it looks at anything else.
func decodeEnvelope(b []byte, what string, format int, body any) error {
	corrupt := func(reason string) error { return &CorruptError{what, reason} }
	if len(b) <= envelopeTail {
		return corrupt("it is too short")
	}
	covered, tail := b[:len(b)-envelopeTail], b[len(b)-envelopeTail:]
	sum := sha256.Sum256(covered)
	if string(tail) != "sha256 "+hex.EncodeToString(sum[:])+"\n" {
		return corrupt("its hash is wrong")
	}
	first, js, ok := bytes.Cut(covered, []byte("\n"))
	number, isWhat := bytes.CutPrefix(first, []byte("cairn-"+what+" "))
	got, err := strconv.Atoi(string(number))
	if !ok || !isWhat || err != nil {
		return corrupt("it does not say that it is one")
	}
	if got != format {
		return corrupt(fmt.Sprintf("its format %d is unknown to this binary, which knows %d", got, format))
	}
	dec := json.NewDecoder(bytes.NewReader(js))
	dec.DisallowUnknownFields()
	if err := dec.Decode(body); err != nil {
		return corrupt(err.Error())
	}
	if rest := js[dec.InputOffset():]; string(rest) != "\n" {
		return corrupt("something follows its JSON")
	}
	return nil
}
