package snapshot

import (
	"fmt"
	"strings"
)

// File is a file, or a prefix of one, with what it must hold.
type File struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
	Hash string `json:"hash"` // SHA-256 of the contents, hex
}

// Segment is a sealed segment of the event log.
type Segment struct {
	Name string `json:"name"`
	Base uint64 `json:"base"` // its first position
	Last uint64 `json:"last"` // its last one
	Size int64  `json:"size"`
	Hash string `json:"hash"` // that of its footer, hex: frames and headers, not payloads
}

// Manifest says of what a snapshot consists: a savepoint (A, P), the segments
// of the log up to P, and a checkpoint of the state at P.
type Manifest struct {
	Format     int       `json:"-"`               // stands in the envelope; 0 is taken as ManifestFormat
	LogID      string    `json:"log_id"`          // names the history
	Version    uint32    `json:"cluster_version"` // the forms that the snapshot's files may have
	Generation string    `json:"generation"`      // on the node that holds the snapshot
	Index      uint64    `json:"index"`           // A: of the last command in the snapshot
	Position   uint64    `json:"position"`        // P: of the last event in it
	Segments   []Segment `json:"segments"`        // ascending, without gaps
	Active     File      `json:"active"`          // the first Size bytes of the unsealed segment; Name "" if P ends a sealed one
	State      string    `json:"state"`           // where the checkpoint was made, see StateName
	StateFiles []File    `json:"state_files"`
}

const (
	// ManifestFormat is the one form of a manifest that this binary knows.
	ManifestFormat = 1
	// MaxManifest bounds an encoded manifest, in bytes.
	MaxManifest = 64 << 20

	checkpointPrefix = "checkpoint-"
	maxName          = 255
	maxStreamSize    = 1 << 60
)

// StateName names the folder in a generation where the state machine makes the
// checkpoint of a savepoint at Raft index A, before it writes the manifest.
func StateName(index uint64) string { return fmt.Sprintf("%s%d", checkpointPrefix, index) }

// Check reports what is wrong with a manifest. Only names that passed it may
// become part of a path.
func (m *Manifest) Check() error {
	if err := m.checkDraft(); err != nil {
		return err
	}
	if m.Active.Name != "" && !isHash(m.Active.Hash) {
		return fmt.Errorf("active segment: %q is not a hash", m.Active.Hash)
	}
	seen := make(map[string]bool, len(m.StateFiles))
	for _, f := range m.StateFiles {
		switch {
		case !isName(f.Name):
			return fmt.Errorf("state file: bad name %q", f.Name)
		case seen[f.Name]:
			return fmt.Errorf("state file %s is there twice", f.Name)
		case f.Size < 0 || f.Size > maxStreamSize:
			return fmt.Errorf("state file %s: bad size %d", f.Name, f.Size)
		case !isHash(f.Hash):
			return fmt.Errorf("state file %s: %q is not a hash", f.Name, f.Hash)
		}
		seen[f.Name] = true
	}
	if m.contentSize() > maxStreamSize {
		return fmt.Errorf("its files add up to more than %d bytes", int64(maxStreamSize))
	}
	return nil
}

// checkDraft is Check for what the state machine writes: without the hash of
// the active segment and without the state's files, which the sink fills in.
func (m *Manifest) checkDraft() error {
	if m.Format != 0 && m.Format != ManifestFormat {
		return fmt.Errorf("format %d is unknown", m.Format)
	}
	if generationNumber(m.Generation) == 0 {
		return fmt.Errorf("bad generation %q", m.Generation)
	}
	if m.State != StateName(m.Index) {
		return fmt.Errorf("bad state folder %q", m.State)
	}
	var last uint64
	for i, s := range m.Segments {
		switch {
		case !isName(s.Name):
			return fmt.Errorf("segment: bad name %q", s.Name)
		case i > 0 && s.Base != last+1, s.Base == 0, s.Last < s.Base:
			return fmt.Errorf("segment %s: positions %d to %d after %d", s.Name, s.Base, s.Last, last)
		case s.Size <= 0 || s.Size > maxStreamSize:
			return fmt.Errorf("segment %s: bad size %d", s.Name, s.Size)
		case !isHash(s.Hash):
			return fmt.Errorf("segment %s: %q is not a hash", s.Name, s.Hash)
		}
		last = s.Last
	}
	return m.checkLogFiles(last)
}

// checkLogFiles checks the names in the log's folder together, and that they
// reach P; last is where the sealed segments end.
func (m *Manifest) checkLogFiles(last uint64) error {
	seen := make(map[string]bool, len(m.Segments)+1)
	for _, s := range m.Segments {
		if seen[s.Name] {
			return fmt.Errorf("segment %s is there twice", s.Name)
		}
		seen[s.Name] = true
	}
	a := m.Active
	switch {
	case a.Name == "" && (a.Size != 0 || a.Hash != ""):
		return fmt.Errorf("active segment without a name")
	case a.Name == "" && m.Position != last:
		return fmt.Errorf("the segments end at position %d, the snapshot at %d", last, m.Position)
	case a.Name == "":
		return nil
	case !isName(a.Name) || seen[a.Name]:
		return fmt.Errorf("active segment: bad name %q", a.Name)
	case a.Size <= 0 || a.Size > maxStreamSize:
		return fmt.Errorf("active segment: bad size %d", a.Size)
	case m.Position <= last:
		return fmt.Errorf("active segment beyond position %d, where the snapshot ends", m.Position)
	}
	return nil
}

// contentSize is the number of bytes of all files together; more than
// maxStreamSize if they do not add up.
func (m *Manifest) contentSize() int64 {
	total := m.Active.Size
	add := func(n int64) {
		if total <= maxStreamSize {
			total += n
		}
	}
	for _, s := range m.Segments {
		add(s.Size)
	}
	for _, f := range m.StateFiles {
		add(f.Size)
	}
	return total
}

// isName reports whether s is safe as one element of a path on any system that
// a snapshot may be sent to.
func isName(s string) bool {
	if s == "" || len(s) > maxName || s == "." || strings.Contains(s, "..") || strings.HasSuffix(s, tmpSuffix) {
		return false
	}
	for _, c := range []byte(s) {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_'
		if !ok {
			return false
		}
	}
	return true
}

// isHash reports whether s is a SHA-256 in lower-case hex.
func isHash(s string) bool {
	if len(s) != 64 {
		return false
	}
	for _, c := range []byte(s) {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return true
}
