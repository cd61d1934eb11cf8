package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Names in the folder of one log. CURRENT is one line, the generation and the
// CRC-32C of its name:
//
//	gen-000001 crc32c 3b1a2c4d
const (
	currentName  = "CURRENT"
	manifestName = "MANIFEST" // in a generation that was received, and in a snapshot's folder
	logName      = "log"
	stateName    = "state"

	generationPrefix = "gen-"
	generationDigits = 6
)

// Generations owns the data generations of one log and says which one is
// current. Its methods may be called from any goroutine.
type Generations struct {
	fs  vfs.FS
	dir string

	mu      sync.Mutex
	current string // owned by mu, as are the next two
	staging string // being written, "" = none
	failed  error  // a Promote that may or may not have taken effect
}

// CreateGenerations makes dir with an empty first generation and CURRENT, all
// durable but the entry of dir in its parent.
func CreateGenerations(fs vfs.FS, dir string) error {
	if err := makeGeneration(fs, fs.PathJoin(dir, generationName(1))); err != nil {
		return fmt.Errorf("create generations: %w", err)
	}
	if err := SyncDir(fs, dir); err != nil { // or a crash may keep the file that names it alone
		return fmt.Errorf("create generations: %w", err)
	}
	if err := ReplaceFile(fs, fs.PathJoin(dir, currentName), encodeCurrent(generationName(1))); err != nil {
		return fmt.Errorf("create generations: %w", err)
	}
	return nil
}

// OpenGenerations opens the generations in dir, before anything else looks
// there. It settles what a crash may have left: an install whose snapshot is in
// the folder snapshots takes effect, every generation but the current one and
// every unfinished checkpoint is removed.
func OpenGenerations(fs vfs.FS, dir, snapshots string) (*Generations, error) {
	g := &Generations{fs: fs, dir: dir}
	path := fs.PathJoin(dir, currentName)
	b, err := readFile(fs, path, 256)
	if err != nil {
		return nil, fmt.Errorf("open generations: %w", err)
	}
	if g.current = decodeCurrent(b); g.current == "" {
		return nil, &CorruptError{path, "it does not name a generation"}
	}
	newest, err := newestFolder(fs, snapshots)
	if err != nil {
		return nil, fmt.Errorf("open generations: %w", err)
	}
	if newest != nil {
		if err := g.settle(newest); err != nil {
			return nil, fmt.Errorf("open generations: %w", err)
		}
	}
	if st, err := fs.Stat(g.Dir()); err != nil || !st.IsDir() {
		return nil, &CorruptError{path, fmt.Sprintf("it names %s, which is missing", g.current)}
	}
	if err := g.sweep(); err != nil {
		return nil, fmt.Errorf("open generations: %w", err)
	}
	return g, nil
}

// settle compares CURRENT with the newest snapshot. A received snapshot's
// folder is renamed into place only when its generation is complete and
// durable, and Raft counts on the state in it from then on: so the folder
// decides, and a staged generation without one never was.
func (g *Generations) settle(newest *folder) error {
	has, want := generationNumber(g.current), generationNumber(newest.manifest.Generation)
	switch {
	case want == has:
		return nil
	case want < has:
		return &CorruptError{newest.path, fmt.Sprintf("it is a snapshot of %s, which %s has replaced",
			newest.manifest.Generation, g.current)}
	}
	if err := checkGenerationFiles(g.fs, g.Path(newest.manifest.Generation), newest.manifest); err != nil {
		return err
	}
	_, err := g.Promote(newest.manifest.Generation)
	return err
}

// sweep removes all generations but the current one, and in that one the
// checkpoint of a snapshot that was not finished; a rebuild of its state it
// finishes or drops.
func (g *Generations) sweep() error {
	names, err := list(g.fs, g.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == g.current || name == currentName {
			continue
		}
		if generationNumber(name) > 0 || strings.HasSuffix(name, tmpSuffix) {
			if err := g.fs.RemoveAll(g.fs.PathJoin(g.dir, name)); err != nil {
				return fmt.Errorf("remove %s: %w", name, err)
			}
		}
	}
	if err := settleState(g.fs, g.Dir()); err != nil {
		return err
	}
	if names, err = list(g.fs, g.Dir()); err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, checkpointPrefix) {
			if err := g.fs.RemoveAll(g.fs.PathJoin(g.Dir(), name)); err != nil {
				return fmt.Errorf("remove %s: %w", name, err)
			}
		}
	}
	return nil
}

// Current returns the name of the current generation.
func (g *Generations) Current() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.current
}

// Path returns the folder of a generation.
func (g *Generations) Path(generation string) string { return g.fs.PathJoin(g.dir, generation) }

// Dir returns the folder of the current generation, with SAVEPOINT in it.
func (g *Generations) Dir() string { return g.Path(g.Current()) }

// LogDir returns the folder of the current event log.
func (g *Generations) LogDir() string { return g.fs.PathJoin(g.Dir(), logName) }

// StateDir returns the folder of the current state.
func (g *Generations) StateDir() string { return g.fs.PathJoin(g.Dir(), stateName) }

// Stage makes the folders of the next generation. Nothing is durable yet, and
// start-up removes it, until the folder of its snapshot is in place. One
// generation is staged at a time, until its Discard or the end of its install.
func (g *Generations) Stage() (generation string, err error) {
	return g.stage(func(path string) error { return makeGeneration(g.fs, path) })
}

// StageFrom is Stage with a folder that has the form of a generation already: it
// is given the generation's name.
func (g *Generations) StageFrom(dir string) (generation string, err error) {
	return g.stage(func(path string) error { return g.fs.Rename(dir, path) })
}

func (g *Generations) stage(make func(path string) error) (generation string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failed != nil {
		return "", g.failed
	}
	if g.staging != "" {
		return "", fmt.Errorf("stage a generation: %s is being staged", g.staging)
	}
	names, err := list(g.fs, g.dir)
	if err != nil {
		return "", fmt.Errorf("stage a generation: %w", err)
	}
	highest := generationNumber(g.current)
	for _, name := range names {
		highest = max(highest, generationNumber(name))
	}
	generation = generationName(highest + 1)
	if err := make(g.Path(generation)); err != nil {
		return "", fmt.Errorf("stage %s: %w", generation, errors.Join(err, g.fs.RemoveAll(g.Path(generation))))
	}
	g.staging = generation
	return generation, nil
}

// Discard removes a generation that was staged and is not to be.
func (g *Generations) Discard(generation string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if generation != g.staging {
		return fmt.Errorf("discard %s: it is not being staged", generation)
	}
	g.staging = ""
	if err := g.fs.RemoveAll(g.Path(generation)); err != nil {
		return fmt.Errorf("discard %s: %w", generation, err)
	}
	return nil
}

// finishStaging writes the manifest of a staged generation whose files are all
// durable, and makes the generation's name durable.
func (g *Generations) finishStaging(generation string, manifest []byte) error {
	if err := ReplaceFile(g.fs, g.fs.PathJoin(g.Path(generation), manifestName), manifest); err != nil {
		return err
	}
	return SyncDir(g.fs, g.dir)
}

// installed ends the staging: the snapshot of the generation is in place, so
// that it may only be promoted from here on.
func (g *Generations) installed(generation string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.staging == generation {
		g.staging = ""
	}
}

// Promote makes a completely received generation the current one and returns
// its folder: durable when it returns nil. For the current one it does nothing.
// After an error only OpenGenerations knows which one is current, so the
// caller must not go on.
func (g *Generations) Promote(generation string) (dir string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.failed != nil:
		return "", g.failed
	case generation == g.current:
		return g.Path(generation), nil
	case generation == g.staging:
		return "", fmt.Errorf("promote %s: it is being staged", generation)
	case generationNumber(generation) < generationNumber(g.current):
		return "", fmt.Errorf("promote %q: %s is current", generation, g.current)
	}
	if _, err := readManifest(g.fs, g.fs.PathJoin(g.Path(generation), manifestName)); err != nil {
		return "", fmt.Errorf("promote %s: %w", generation, err)
	}
	if err := ReplaceFile(g.fs, g.fs.PathJoin(g.dir, currentName), encodeCurrent(generation)); err != nil {
		g.failed = fmt.Errorf("promote %s: %w: %w", generation, ErrFailed, err)
		return "", g.failed
	}
	g.current = generation
	return g.Path(generation), nil
}

// Remove removes a generation that an install has superseded. The state machine
// calls it once nothing of it is open any more; start-up does the rest.
func (g *Generations) Remove(generation string) error {
	if generationNumber(generation) >= generationNumber(g.Current()) {
		return fmt.Errorf("remove %q: it is not before the current generation", generation)
	}
	if err := g.fs.RemoveAll(g.Path(generation)); err != nil {
		return fmt.Errorf("remove %s: %w", generation, err)
	}
	return nil
}

// makeGeneration makes an empty generation and syncs it, not its own name.
func makeGeneration(fs vfs.FS, dir string) error {
	for _, sub := range []string{logName, stateName} {
		if err := fs.MkdirAll(fs.PathJoin(dir, sub), 0o755); err != nil {
			return fmt.Errorf("make %s: %w", dir, err)
		}
	}
	return SyncTree(fs, dir)
}

// checkGenerationFiles checks that a staged generation is the one of manifest
// and holds every file at its length. Their contents were verified before the
// snapshot's folder came into place.
func checkGenerationFiles(fs vfs.FS, dir string, manifest *Manifest) error {
	path := fs.PathJoin(dir, manifestName)
	own, err := readManifest(fs, path)
	if errors.Is(err, os.ErrNotExist) {
		return &CorruptError{dir, "it is not complete, but a snapshot refers to it"}
	}
	if err != nil {
		return err
	}
	if !bytes.Equal(encodeManifest(own), encodeManifest(manifest)) {
		return &CorruptError{path, "it differs from the manifest of the snapshot"}
	}
	for _, f := range manifest.files(fs, fs.PathJoin(dir, logName), fs.PathJoin(dir, stateName)) {
		if err := checkSize(fs, f); err != nil {
			return err
		}
	}
	return nil
}

func generationName(n uint64) string {
	return fmt.Sprintf("%s%0*d", generationPrefix, generationDigits, n)
}

// generationNumber is 0 for what is not the name of a generation.
func generationNumber(name string) uint64 {
	digits, ok := strings.CutPrefix(name, generationPrefix)
	n, err := strconv.ParseUint(digits, 10, 63)
	if !ok || err != nil || generationName(n) != name {
		return 0
	}
	return n
}

func encodeCurrent(generation string) []byte {
	return fmt.Appendf(nil, "%s crc32c %08x\n", generation, crc32.Checksum([]byte(generation), castagnoli))
}

// decodeCurrent returns "" for what encodeCurrent did not write.
func decodeCurrent(b []byte) string {
	generation, _, _ := strings.Cut(string(b), " ")
	if generationNumber(generation) == 0 || !bytes.Equal(b, encodeCurrent(generation)) {
		return ""
	}
	return generation
}
