package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// CheckpointFile is a CheckpointStore in a file of one line, position@log. It
// is replaced as a whole and synced, so that a crash leaves the old line or
// the new one. One program at a time may use a file.
type CheckpointFile string

// Load returns the checkpoint in the file, the zero Checkpoint if it does not
// exist.
func (f CheckpointFile) Load(context.Context) (Checkpoint, error) {
	b, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return Checkpoint{}, nil
	}
	if err != nil {
		return Checkpoint{}, err
	}
	number, log, ok := strings.Cut(strings.TrimSuffix(string(b), "\n"), "@")
	position, err := strconv.ParseUint(number, 10, 64)
	if err != nil || !ok || log == "" {
		return Checkpoint{}, fmt.Errorf("%s holds no checkpoint of the form position@log: %.100q", string(f), b)
	}
	return Checkpoint{Log: log, Position: position}, nil
}

// Save writes p to the file.
func (f CheckpointFile) Save(_ context.Context, p Checkpoint) error {
	folder := filepath.Dir(string(f))
	next, err := os.CreateTemp(folder, filepath.Base(string(f))+".*")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(next, "%d@%s\n", p.Position, p.Log)
	err = errors.Join(err, next.Sync(), next.Close())
	if err == nil {
		err = os.Rename(next.Name(), string(f))
	}
	if err != nil {
		return errors.Join(err, os.Remove(next.Name()))
	}
	return syncFolder(folder)
}

// syncFolder makes a rename in a folder durable.
func syncFolder(name string) error {
	folder, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
