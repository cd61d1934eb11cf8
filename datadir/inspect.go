package datadir

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Inspect locks a directory as Open does, to be read only, and returns what is
// wrong with it instead of refusing: an error for node.json and one for each
// part that is missing. It changes nothing but for making the lock file. Of the
// Dir only the paths, the ids, as far as they could be read, and Close may be
// used. A directory that is not there, is something else, is in use or needs a
// newer binary is an error.
func Inspect(fs vfs.FS, dir string, version uint32) (d *Dir, faults []error, err error) {
	if dir, err = canonical(fs, dir); err != nil {
		return nil, nil, fmt.Errorf("data directory: %w", err)
	}
	st, err := look(fs, dir)
	if err != nil {
		return nil, nil, err
	}
	if st == absent {
		return nil, nil, fmt.Errorf("data directory %s %w", dir, ErrMissing)
	}
	lock, err := lockDir(fs, dir)
	if err != nil {
		return nil, nil, inDir(dir, "data directory", err)
	}
	d = &Dir{fs: fs, path: dir, version: version, lock: lock}
	fault := func(err error) error {
		var missing *MissingPartError
		var damage *DamageError
		if errors.As(err, &missing) || errors.As(err, &damage) {
			faults = append(faults, err)
			return nil
		}
		return err
	}
	d.node, err = readNode(fs, dir, version)
	err = fault(err)
	for _, p := range parts {
		if err == nil {
			err = fault(checkPart(fs, dir, p.path, p.folder))
		}
	}
	if err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	return d, faults, nil
}
