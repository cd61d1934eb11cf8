package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Inside the namespaces there is no network to fetch modules from, so that all
// is built before. These variables tell the program inside where it lies.
const (
	builtBinary = "JEPSEN_LITE_BINARY"
	builtOld    = "JEPSEN_LITE_OLD_BINARY"
	usedSeed    = "JEPSEN_LITE_SEED"
)

// build makes the binaries that a run needs, unless they are there already.
func build(s *settings, dir string) error {
	if os.Getenv(builtBinary) != "" {
		return nil
	}
	binary := s.binary
	if binary == "" {
		binary = filepath.Join(dir, "cairn-node")
		if err := goBuild(".", binary); err != nil {
			return err
		}
	}
	binary, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	if s.from != "" {
		old, err := buildCommit(s.from, dir)
		if err != nil {
			return err
		}
		if err := os.Setenv(builtOld, old); err != nil {
			return err
		}
	}
	return os.Setenv(builtBinary, binary)
}

// goBuild builds cairn-node from the repository in a folder.
func goBuild(repository, binary string) error {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	c := exec.Command("go", "build", "-tags", "faults", "-o", binary, "./cmd/node")
	c.Dir = repository
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build cairn-node (run this in the repository, or name one with -binary): %w\n%s", err, out)
	}
	return nil
}

// buildCommit builds cairn-node as of a commit.
func buildCommit(commit, dir string) (binary string, err error) {
	tree := filepath.Join(dir, "old-source")
	git := func(args ...string) error {
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, out)
		}
		return nil
	}
	if err := git("worktree", "add", "--detach", "--force", tree, commit); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, git("worktree", "remove", "--force", tree)) }()
	binary, err = filepath.Abs(filepath.Join(dir, "cairn-node-old"))
	if err != nil {
		return "", err
	}
	return binary, goBuild(tree, binary)
}
