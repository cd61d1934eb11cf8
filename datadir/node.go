package datadir

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"regexp"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// node.json is one JSON object, written in one form only:
//
//	{
//	  "format": 1,
//	  "node_id": "node-5f3a01bc",
//	  "log_id": "",
//	  "min_version": 1,
//	  "sum": "crc32c 9d2e41f0"
//	}
//
// In every format, also a later one: format is a number, and sum is the last
// member and covers every byte before its name's first quote. So a newer
// format is told from damage.
const (
	nodeFile   = "node.json"
	nodeFormat = 1
	maxNode    = 64 << 10
	sumLabel   = `"sum": "crc32c `
)

// node is what node.json says.
type node struct {
	Format     uint32 `json:"format"`
	NodeID     string `json:"node_id"`
	LogID      string `json:"log_id"` // "" until the node has seen the birth of a log
	MinVersion uint32 `json:"min_version"`
}

// idForm is that of node ids: readable in logs, safe in a URL and a file name.
var idForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// logForm is that of log ids: whatever names a history, in one line.
var logForm = regexp.MustCompile(`^[!-~]{1,128}$`)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encodeNode(n node) []byte {
	js, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("datadir: encode %s: %v", nodeFile, err)) // a plain struct of strings and numbers
	}
	b := append(bytes.TrimSuffix(js, []byte("\n}")), ",\n  "...)
	return fmt.Appendf(b, "%s%08x\"\n}\n", sumLabel, crc32.Checksum(b, castagnoli))
}

// errFormat carries the number of a sound node.json of an unknown format.
type errFormat uint32

func (e errFormat) Error() string { return fmt.Sprintf("format %d", uint32(e)) }

// decodeNode reads what encodeNode wrote, byte for byte, and nothing else.
func decodeNode(b []byte) (node, error) {
	i := bytes.LastIndex(b, []byte(sumLabel))
	if i < 0 {
		return node{}, errors.New("it has no checksum")
	}
	if want := fmt.Sprintf("%s%08x\"\n}\n", sumLabel, crc32.Checksum(b[:i], castagnoli)); string(b[i:]) != want {
		return node{}, errors.New("its checksum is wrong")
	}
	var n node
	if err := json.Unmarshal(b, &n); err != nil {
		return node{}, err
	}
	if n.Format != nodeFormat {
		return node{}, errFormat(n.Format)
	}
	if !bytes.Equal(encodeNode(n), b) {
		return node{}, errors.New("it is not in the one form that is written")
	}
	return n, nil
}

// readNode reads and judges node.json.
func readNode(fs vfs.FS, dir string, version uint32) (node, error) {
	path := fs.PathJoin(dir, nodeFile)
	b, err := readFile(fs, path, maxNode)
	if errors.Is(err, os.ErrNotExist) {
		return node{}, &MissingPartError{dir, nodeFile}
	}
	if err != nil {
		return node{}, err
	}
	n, err := decodeNode(b)
	var format errFormat
	switch {
	case errors.As(err, &format):
		return node{}, &VersionError{Dir: dir, What: "format", Needs: uint32(format), Knows: nodeFormat}
	case err != nil:
		return node{}, &DamageError{path, err.Error()}
	case n.MinVersion > version:
		return node{}, &VersionError{Dir: dir, What: "cluster version", Needs: n.MinVersion, Knows: version}
	}
	return n, nil
}

// newNodeID makes an id that no node had before, a wiped one's included.
func newNodeID() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails, by its contract
	return "node-" + hex.EncodeToString(b[:])
}
