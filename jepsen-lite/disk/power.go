//go:build linux

package disk

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
)

// Loss says what a power loss took.
type Loss struct {
	Bytes int64 // written, not synced, and gone; with files that are gone, all of theirs
	Files int64 // that had a name and have none
	Names int64 // steps on names that were undone: creates, renames, links, removals
}

func (l *Loss) add(o Loss) {
	l.Bytes += o.Bytes
	l.Files += o.Files
	l.Names += o.Names
}

// PowerLoss puts the disk in a state in which a machine could find it after its
// power failed now, and goes on with it. The node must have been killed first
// (a process that still runs is surprised, and its open files may be stale);
// operations that faults hold up end with ECANCELED and without effect.
//
// All that was synced is kept. Of the rest, each with probability keep:
//   - bytes, in no order: by pages of 4 KiB, and every fourth page by sectors
//     of 512 bytes, so that writes tear. Lost bytes are what the disk had
//     before, or zeros. What an fsync that failed should have written is lost
//     always, unless it was written and synced again.
//   - a file's growth: whole, or up to some sector within, as a journal that
//     commits in between would have it; what of it was not written is zeros.
//   - a cut (truncate below the synced size): whole or not at all. If not,
//     all after it in the file that is past the cut is lost too.
//   - names: in each directory a prefix of the steps since its last sync, as
//     journals keep them, each step if the one before it was kept.
//
// The same operations and the same rng give the same state.
func (d *Disk) PowerLoss(rng *rand.Rand, keep float64) (Loss, error) {
	v := d.v
	v.faults.cutPower()
	v.mu.Lock()
	loss, changed, err := v.losePowerLocked(rng, keep)
	v.mu.Unlock()
	// The kernel's page cache would outlive the loss. Without mu, since it may
	// have to wait for a read.
	for _, n := range changed {
		v.server.InodeNotify(n.id, 0, 0)
	}
	if err != nil {
		return loss, fmt.Errorf("power loss: %w", err)
	}
	d.o.Logger.Info("power lost", "dir", d.o.Dir, "keep", keep, "bytes", loss.Bytes, "files", loss.Files, "names", loss.Names)
	return loss, nil
}

func (v *volume) losePowerLocked(rng *rand.Rand, keep float64) (loss Loss, changed []*node, err error) {
	before := v.reachableLocked()
	loss.Names = v.loseNamesLocked(rng, keep)
	after := v.reachableLocked()
	v.relinkLocked(after)

	for _, id := range slices.Sorted(maps.Keys(v.nodes)) {
		n := v.nodes[id]
		if after[n] {
			if n.dir() {
				continue
			}
			lost, hit, err := n.settle(rng, keep)
			if err != nil {
				return loss, changed, fmt.Errorf("%s: %w", n.path(), err)
			}
			loss.Bytes += lost
			if hit {
				changed = append(changed, n)
			}
			if n.handles == 0 {
				n.close()
			}
			continue
		}
		if before[n] && !n.dir() {
			loss.Files++
			loss.Bytes += n.size
		}
		changed = append(changed, n)
		v.vanishLocked(n)
	}
	v.losses++
	v.lost.add(loss)
	return loss, changed, nil
}

// loseNamesLocked undoes what is lost and commits the rest.
func (v *volume) loseNamesLocked(rng *rand.Rand, keep float64) (undone int64) {
	var all []*op
	cut := map[*node]uint64{} // the first step lost
	for _, id := range slices.Sorted(maps.Keys(v.nodes)) {
		n := v.nodes[id]
		for _, o := range n.pending {
			if o.done {
				continue
			}
			all = append(all, o)
			if cut[n] == 0 && rng.Float64() >= keep {
				cut[n] = o.seq
			}
		}
	}
	lost := func(o *op) bool {
		return slices.ContainsFunc(o.changes, func(c change) bool { return cut[c.dir] != 0 && cut[c.dir] <= o.seq })
	}
	// A step of two directories is lost in both, with what follows it there.
	for again := true; again; {
		again = false
		for _, o := range all {
			if !lost(o) {
				continue
			}
			for _, c := range o.changes {
				if cut[c.dir] == 0 || cut[c.dir] > o.seq {
					cut[c.dir], again = o.seq, true
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b *op) int { return cmp.Compare(b.seq, a.seq) })
	for _, o := range all {
		if !o.done && lost(o) {
			v.undoLocked(o)
			undone++
		}
	}
	for _, id := range slices.Sorted(maps.Keys(v.nodes)) {
		if n := v.nodes[id]; n != nil {
			v.commitLocked(n, v.seq)
		}
	}
	return undone
}

// reachableLocked returns what has a name that leads to it.
func (v *volume) reachableLocked() map[*node]bool {
	found := map[*node]bool{v.root: true}
	var walk func(*node)
	walk = func(dir *node) {
		for _, n := range dir.entries {
			found[n] = true
			if n.dir() {
				walk(n)
			}
		}
	}
	walk(v.root)
	return found
}

// relinkLocked counts the links anew.
func (v *volume) relinkLocked(reachable map[*node]bool) {
	for _, n := range v.nodes {
		n.links = 0
	}
	v.root.links = 1
	for dir := range reachable {
		for name, n := range dir.entries {
			n.links++
			n.parent, n.name = dir, name
		}
	}
}

// settle decides what of the file was on the disk. hit says whether it changed.
func (f *file) settle(rng *rand.Rand, keep float64) (lost int64, hit bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.pages) == 0 && f.size == f.synced {
		return 0, false, nil
	}
	if err := f.openLocked(); err != nil {
		return 0, false, err
	}
	size, low := f.size, f.low
	uncut := f.low < f.synced && rng.Float64() >= keep
	if uncut {
		size, low = f.synced, f.synced
	} else if f.size > f.low {
		size = grown(rng, keep, f.low, f.size)
	}
	for _, i := range slices.Sorted(maps.Keys(f.pages)) {
		p := f.pages[i]
		gone := p.doomed | p.dirty&chance(rng, keep)
		if uncut {
			for s := range int64(sectors) {
				if i*pageSize+(s+1)*sectorSize > f.low {
					gone |= 1 << s
				}
			}
		}
		now, err := f.readPageLocked(i)
		if err != nil {
			return lost, true, err
		}
		old, past := p.before(i, low), uint8(0)
		for s := range int64(sectors) {
			if gone&(1<<s) != 0 {
				copy(now[s*sectorSize:(s+1)*sectorSize], old[s*sectorSize:])
			}
			if i*pageSize+s*sectorSize >= size {
				past |= 1 << s
			}
		}
		lost += f.lostBytes(i, (p.dirty|p.doomed)&(gone|past))
		if _, err := f.f.WriteAt(now, i*pageSize); err != nil {
			return lost, true, err
		}
	}
	if err := f.f.Truncate(size); err != nil {
		return lost, true, err
	}
	f.size, f.synced, f.low, f.alloc = size, size, size, size
	f.pages = map[int64]*page{}
	return lost, true, nil
}

// grown chooses how much of the growth from durable to size there is.
func grown(rng *rand.Rand, keep float64, durable, size int64) int64 {
	switch {
	case rng.Float64() < keep:
		return size
	case rng.Float64() < keep:
		some := durable + rng.Int64N(size-durable)
		return max(durable, some&^(sectorSize-1))
	}
	return durable
}

// chance returns the sectors of a page that are lost.
func chance(rng *rand.Rand, keep float64) (gone uint8) {
	if rng.IntN(4) > 0 {
		if rng.Float64() < keep {
			return 0
		}
		return ^uint8(0)
	}
	for s := range sectors {
		if rng.Float64() >= keep {
			gone |= 1 << s
		}
	}
	return gone
}
