package snapshot

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

var goldenManifest = &Manifest{
	Format: 1, LogID: "log-1", Version: 1, Generation: "gen-000003", Index: 42, Position: 13,
	Segments:   []Segment{{Name: "00000000000000000001.seg", Base: 1, Last: 10, Size: 4096, Hash: strings.Repeat("0a", 32)}},
	Active:     File{Name: "00000000000000000011.seg", Size: 300, Hash: strings.Repeat("1b", 32)},
	State:      "checkpoint-42",
	StateFiles: []File{{Name: "000004.sst", Size: 5, Hash: strings.Repeat("2c", 32)}},
}

var golden = map[string]string{
	"manifest": `cairn-manifest 1
{"log_id":"log-1","cluster_version":1,"generation":"gen-000003","index":42,"position":13,"segments":[{"name":"00000000000000000001.seg","base":1,"last":10,"size":4096,"hash":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"}],"active":{"name":"00000000000000000011.seg","size":300,"hash":"1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b"},"state":"checkpoint-42","state_files":[{"name":"000004.sst","size":5,"hash":"2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c"}]}
sha256 8e9537e6c1228cca527965f40cb06951b9f744e3727e29f71ad599727a0d90fc
`,
	"meta": `cairn-meta 1
{"version":1,"id":"7-44-5","index":44,"term":7,"servers":[{"id":"node-1","address":"127.0.0.1:7011","suffrage":0},{"id":"node-2","address":"127.0.0.1:7021","suffrage":1}],"configuration_index":3}
sha256 e18a2acb6216b0c24a04d6d59c1948fe9f56f4fce44caf7cc5ef0e950a3e0c4e
`,
	"head":      "636169726e736e700100020003020000",
	"savepoint": "636169726e736176010000000807060504030201181716151413121170524265",
	"current":   "gen-000003 crc32c efe9269d\n",
}

var goldenMeta = raft.SnapshotMeta{
	Version: 1, ID: "7-44-5", Index: 44, Term: 7, Configuration: testServers, ConfigurationIndex: 3,
}

func TestFormat_Golden(t *testing.T) {
	head, err := appendStreamHead(nil, kindFull, make([]byte, 0x0203))
	must(t, err)
	for name, got := range map[string]string{
		"manifest":  string(encodeManifest(goldenManifest)),
		"meta":      string(encodeMeta(&goldenMeta)),
		"head":      hexOf(head[:streamHead]),
		"savepoint": hexOf(EncodeSavepoint(0x0102030405060708, 0x1112131415161718)),
		"current":   string(encodeCurrent("gen-000003")),
	} {
		if got != golden[name] {
			t.Errorf("%s changed:\ngot  %s\nwant %s", name, got, golden[name])
		}
	}
	m, err := decodeFullManifest([]byte(golden["manifest"]))
	if err != nil || !reflect.DeepEqual(m, goldenManifest) {
		t.Errorf("decoded %+v, %v", m, err)
	}
	meta, err := decodeMeta([]byte(golden["meta"]))
	if err != nil || !reflect.DeepEqual(meta, goldenMeta) {
		t.Errorf("decoded %+v, %v", meta, err)
	}
	if got := decodeCurrent([]byte(golden["current"])); got != "gen-000003" {
		t.Errorf("decoded %q", got)
	}
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var s []byte
	for _, c := range b {
		s = append(s, digits[c>>4], digits[c&15])
	}
	return string(s)
}

// Every flipped bit, every cut and every surplus byte of what stands on disk is
// an error of its decoder.
func TestFormat_Damage(t *testing.T) {
	for name, c := range map[string]struct {
		encoded []byte
		decode  func([]byte) error
	}{
		"manifest":  {encodeManifest(goldenManifest), func(b []byte) error { _, err := decodeFullManifest(b); return err }},
		"meta":      {encodeMeta(&goldenMeta), func(b []byte) error { _, err := decodeMeta(b); return err }},
		"savepoint": {EncodeSavepoint(3, 4), func(b []byte) error { _, _, err := DecodeSavepoint(b); return err }},
		"current": {encodeCurrent("gen-000003"), func(b []byte) error {
			if decodeCurrent(b) == "" {
				return &CorruptError{currentName, "x"}
			}
			return nil
		}},
	} {
		must(t, c.decode(c.encoded))
		var corrupt *CorruptError
		for bit := range 8 * len(c.encoded) {
			b := bytes.Clone(c.encoded)
			b[bit/8] ^= 1 << (bit % 8)
			if err := c.decode(b); !errors.As(err, &corrupt) {
				t.Fatalf("%s: bit %d flipped: %v", name, bit, err)
			}
		}
		for cut := range c.encoded {
			if err := c.decode(c.encoded[:cut]); !errors.As(err, &corrupt) {
				t.Fatalf("%s: cut at %d: %v", name, cut, err)
			}
		}
		if err := c.decode(append(bytes.Clone(c.encoded), 0)); !errors.As(err, &corrupt) {
			t.Fatalf("%s: a byte more: %v", name, err)
		}
	}
}

// A sound envelope around something that is not what we write.
func TestFormat_Strict(t *testing.T) {
	js := func(s string) []byte { return encodeEnvelope("manifest", 1, rawJSON(s)) }
	body := strings.Split(golden["manifest"], "\n")[1]
	if _, err := decodeFullManifest(js(body)); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"unknown field":  js(strings.Replace(body, `"index":42`, `"index":42,"extra":1`, 1)),
		"twice":          js(strings.Replace(body, `"index":42`, `"index":42,"index":42`, 1)),
		"other case":     js(strings.Replace(body, `"index":42`, `"Index":42`, 1)),
		"missing field":  js(strings.Replace(body, `"index":42,`, ``, 1)),
		"negative":       js(strings.Replace(body, `"index":42`, `"index":-1`, 1)),
		"null":           js("null"),
		"another kind":   encodeEnvelope("meta", 1, rawJSON(body)),
		"another format": encodeEnvelope("manifest", 2, rawJSON(body)),
	} {
		var corrupt *CorruptError
		if _, err := decodeFullManifest(b); !errors.As(err, &corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := decodeFullManifest(encodeEnvelope("manifest", 2, rawJSON(body))); err == nil || !strings.Contains(err.Error(), "format 2 is unknown") {
		t.Errorf("a format from the future: %v", err)
	}
}

type rawJSON string

func (r rawJSON) MarshalJSON() ([]byte, error) { return []byte(r), nil }

func TestManifest_Check(t *testing.T) {
	good := func() *Manifest {
		m := *goldenManifest
		m.Segments = []Segment{m.Segments[0]}
		m.StateFiles = []File{m.StateFiles[0]}
		return &m
	}
	must(t, good().Check())
	must(t, (&Manifest{Generation: "gen-000001", State: "checkpoint-0"}).Check())
	names := []string{"", ".", "..", "../x", "a/b", `a\b`, "/etc", "a..b", "x.tmp", "a\x00", "ä", strings.Repeat("a", 256), "a b"}
	bad := map[string]func(m *Manifest){
		"format":             func(m *Manifest) { m.Format = 2 },
		"generation":         func(m *Manifest) { m.Generation = "gen-1" },
		"generation zero":    func(m *Manifest) { m.Generation = "gen-000000" },
		"generation path":    func(m *Manifest) { m.Generation = "../gen-000001" },
		"state":              func(m *Manifest) { m.State = "checkpoint-41" },
		"segment size":       func(m *Manifest) { m.Segments[0].Size = 0 },
		"segment sizes":      func(m *Manifest) { m.Segments[0].Size = 1<<60 + 1 },
		"segment hash":       func(m *Manifest) { m.Segments[0].Hash = strings.Repeat("A", 64) },
		"segment short hash": func(m *Manifest) { m.Segments[0].Hash = "00" },
		"segment base":       func(m *Manifest) { m.Segments[0].Base = 0 },
		"segment last":       func(m *Manifest) { m.Segments[0].Base = 11 },
		"segment gap":        func(m *Manifest) { m.addSegment("b.seg", 12, 12) },
		"segment twice":      func(m *Manifest) { m.addSegment(m.Segments[0].Name, 11, 12) },
		"active not past":    func(m *Manifest) { m.Position = 10 },
		"active same name":   func(m *Manifest) { m.Active.Name = m.Segments[0].Name },
		"active size":        func(m *Manifest) { m.Active.Size = 0 },
		"active hash":        func(m *Manifest) { m.Active.Hash = "" },
		"no active, size":    func(m *Manifest) { m.Active = File{Size: 1}; m.Position = 10 },
		"no active, beyond":  func(m *Manifest) { m.Active = File{} },
		"state twice":        func(m *Manifest) { m.StateFiles = append(m.StateFiles, m.StateFiles[0]) },
		"state size":         func(m *Manifest) { m.StateFiles[0].Size = -1 },
		"state hash":         func(m *Manifest) { m.StateFiles[0].Hash = "x" },
		"sum of sizes": func(m *Manifest) {
			m.Active.Size, m.Segments[0].Size, m.StateFiles[0].Size = 1<<59, 1<<59, 1
		},
	}
	for _, name := range names {
		bad["segment name "+name] = func(m *Manifest) { m.Segments[0].Name = name }
		bad["state name "+name] = func(m *Manifest) { m.StateFiles[0].Name = name }
		if name != "" {
			bad["active name "+name] = func(m *Manifest) { m.Active.Name = name }
		}
	}
	for what, spoil := range bad {
		m := good()
		spoil(m)
		if err := m.Check(); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

func (m *Manifest) addSegment(name string, base, last uint64) {
	m.Segments = append(m.Segments, Segment{Name: name, Base: base, Last: last, Size: 1, Hash: strings.Repeat("0", 64)})
	m.Position = max(m.Position, last+1)
}

func TestReadManifest(t *testing.T) {
	m := smallModel(10)
	full := m.stream("gen-000003")
	r := bytes.NewReader(full)
	got, err := ReadManifest(r)
	if err != nil || got.Generation != "gen-000003" || got.Index != 10 {
		t.Errorf("ReadManifest = %+v, %v", got, err)
	}
	if want := got.contentSize(); int64(r.Len()) != want {
		t.Errorf("%d bytes are left, want the %d of the files", r.Len(), want)
	}
	local, err := EncodeLocal(m.draft("gen-000003"))
	must(t, err)
	huge := bytes.Clone(full[:streamHead])
	copy(huge[12:], []byte{1, 0, 0, 4}) // 64 MiB and one byte
	for name, b := range map[string][]byte{"local": local, "short head": full[:9], "short manifest": full[:100], "huge": huge} {
		if _, err := ReadManifest(bytes.NewReader(b)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := ReadManifest(bytes.NewReader(full[:100])); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short manifest: %v", err)
	}
	if _, err := EncodeLocal(&Manifest{Generation: "x"}); err == nil {
		t.Error("EncodeLocal of a bad manifest succeeded")
	}
}

// A manifest that claims to be too large is refused at its head.
func TestSink_HugeManifest(t *testing.T) {
	n := newNode(t, vfs.NewMem(), smallModel(10))
	head, err := appendStreamHead(nil, kindFull, nil)
	must(t, err)
	copy(head[12:], []byte{1, 0, 0, 4})
	s := n.create(t, smallModel(30))
	if k, err := s.Write(head); err == nil || k != streamHead {
		t.Errorf("Write = %d, %v", k, err)
	}
	if k, err := s.Write(head); err == nil || k != 0 {
		t.Errorf("Write after an error = %d, %v", k, err)
	}
	must(t, s.Cancel())
}

func FuzzDecodeManifest(f *testing.F) {
	f.Add([]byte(golden["manifest"]))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeFullManifest(b)
		if err == nil && !bytes.Equal(encodeManifest(m), b) {
			t.Error("two encodings of one manifest")
		}
		// The JSON alone, so that the hash does not stop every mutation.
		if m, err = decodeFullManifest(encodeEnvelope("manifest", 1, fuzzJSON(b))); err == nil && m.contentSize() < 0 {
			t.Error("negative size")
		}
	})
}

// fuzzJSON passes valid JSON through and makes the rest null.
func fuzzJSON(b []byte) any {
	var out bytes.Buffer
	if json.Compact(&out, b) != nil {
		return nil
	}
	return rawJSON(out.String())
}

func FuzzSink(f *testing.F) {
	m := newModel(30, []int{20}, 9, 8, map[string]int{"1.sst": 5})
	f.Add(m.stream("gen-000002"), uint8(7))
	f.Add([]byte("cairnsnp"), uint8(1))
	f.Fuzz(func(t *testing.T, stream []byte, chunk uint8) {
		n := newNode(t, vfs.NewMem(), newModel(10, nil, 5, 5, nil))
		before := tree(t, n.fs, "data")
		if n.receive(m, stream, int(chunk)+1) != nil {
			must(t, sameTree(tree(t, n.fs, "data"), before))
			return
		}
		must(t, n.restore())
		if got := n.read(t); len(got) != len(stream) {
			t.Errorf("%d bytes accepted, %d sent on", len(stream), len(got))
		}
	})
}
