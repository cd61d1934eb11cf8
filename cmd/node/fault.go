package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"

	eventlog "cairn/log"
	"cairn/snapshot"
)

// fatal returns what is called when a node must not go on: it says why, in one
// line, and ends the process. It waits for nothing, least of all for the part
// that has failed, and does not return.
func fatal(stderr io.Writer, c *Config) func(error) {
	var once sync.Once
	return func(err error) {
		once.Do(func() {
			fmt.Fprintf(stderr, "cairn-node: %s\n", oneLine(explain(err, c)))
			os.Exit(1)
		})
	}
}

// explain adds to an error what its reader can do about it.
func explain(err error, c *Config) error {
	if advice := advice(err, c); advice != "" {
		return fmt.Errorf("%w; %s", err, advice)
	}
	return err
}

func advice(err error, c *Config) string {
	var damagedLog *eventlog.CorruptError
	var damagedSnapshot *snapshot.CorruptError
	switch {
	case errors.As(err, &damagedLog):
		return fmt.Sprintf("nothing was changed. 'cairn check --data %s' finds all damage; fetch damaged segments from another node with: cairn repair --data %s --from URL", c.Data, c.Data)
	case errors.As(err, &damagedSnapshot):
		return fmt.Sprintf("nothing was changed. To get the data from the other nodes, move %s away, start this node with -join and a new -id, and take the old one out with: cairn cluster remove", c.Data)
	case errors.Is(err, eventlog.ErrFormat):
		return "it was written by a newer cairn-node: start that version"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Sprintf("the disk of %s is full: make space and start the node again, what was acknowledged is intact", c.Data)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("the user of this process must own %s and all that is in it", c.Data)
	}
	return ""
}
