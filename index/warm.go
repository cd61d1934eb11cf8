package index

import (
	"errors"
	"slices"
	"sync"
)

const (
	// warmLeast is from how many unknown streams on it pays to look them up
	// together.
	warmLeast = 32
	// warmReaders look up at once. Most of a look-up is waiting for the disk, or
	// copying what it has cached.
	warmReaders = 4
)

// WarmHeads looks up the heads of streams that Head is about to be asked for,
// several at a time, those that are not known yet: after a restart that is nearly
// all of them, and one after the other they are what a restart waits for. Apply
// goroutine only.
func (x *Index) WarmHeads(streams []string) error {
	if len(streams) < warmLeast {
		return nil
	}
	x.initHeads()
	var unknown []string
	for _, s := range streams {
		if _, ok := x.heads.get(s); !ok {
			unknown = append(unknown, s)
		}
	}
	if len(unknown) < warmLeast {
		return nil
	}
	slices.Sort(unknown)
	unknown = slices.Compact(unknown)
	if len(unknown) < warmLeast {
		return nil
	}
	found, errs := make([]Head, len(unknown)), make([]error, warmReaders)
	var readers sync.WaitGroup
	for r := range warmReaders {
		readers.Go(func() {
			v := x.latest()
			defer v.Close()
			for i := r; i < len(unknown) && errs[r] == nil; i += warmReaders {
				found[i], errs[r] = v.Head(unknown[i])
			}
		})
	}
	readers.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for i, h := range found {
		if h.Version > 0 {
			x.heads.put(unknown[i], h)
		}
	}
	return nil
}
