//go:build linux

package disk

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
)

// Flip is a bit that has turned.
type Flip struct {
	Path   string // relative to the mount
	Offset int64  // of the byte
	Bit    int
}

// ErrNothingToFlip is returned when no synced byte of a file matches.
var ErrNothingToFlip = errors.New("no synced byte to flip")

// FlipBit turns one bit of a synced byte in a file that the glob (as
// Fault.Glob) chooses; reads see it at once. It waits for reads under way.
func (d *Disk) FlipBit(rng *rand.Rand, glob string) (Flip, error) {
	if _, err := path.Match(glob, ""); err != nil {
		return Flip{}, fmt.Errorf("flip bit: glob %q: %w", glob, err)
	}
	v := d.v
	flip, n, err := v.flip(rng, &active{Fault: Fault{Glob: glob}})
	if err != nil {
		return flip, fmt.Errorf("flip bit: %w", err)
	}
	v.server.InodeNotify(n.id, 0, 0)
	v.faults.flipped.Add(1)
	d.o.Logger.Info("bit flipped", "dir", d.o.Dir, "path", flip.Path, "offset", flip.Offset, "bit", flip.Bit)
	return flip, nil
}

func (v *volume) flip(rng *rand.Rand, where *active) (Flip, *node, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var files []*node
	for n := range v.reachableLocked() {
		if !n.dir() && where.meets(Read, n.path()) {
			files = append(files, n)
		}
	}
	slices.SortFunc(files, func(a, b *node) int { return strings.Compare(a.path(), b.path()) })
	rng.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	for _, n := range files {
		at, bit, err := n.flip(rng)
		if !errors.Is(err, ErrNothingToFlip) {
			return Flip{Path: n.path(), Offset: at, Bit: bit}, n, err
		}
	}
	return Flip{}, nil, ErrNothingToFlip
}

// flip turns a bit of the object and leaves what is noted for a loss alone.
func (f *file) flip(rng *rand.Rand) (at int64, bit int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for range 100 {
		end := min(f.size, f.synced)
		if end == 0 {
			break
		}
		if at = rng.Int64N(end); f.pages[at/pageSize] != nil {
			continue
		}
		if f.f == nil {
			defer f.closeLocked()
			if err := f.openLocked(); err != nil {
				return 0, 0, err
			}
		}
		var b [1]byte
		if _, err := f.f.ReadAt(b[:], at); err != nil {
			return 0, 0, err
		}
		bit = rng.IntN(8)
		b[0] ^= 1 << bit
		_, err = f.f.WriteAt(b[:], at)
		return at, bit, err
	}
	return 0, 0, ErrNothingToFlip
}
