package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"cairn/bug"
	"cairn/client"
	"cairn/jepsen-lite/disk"
	"cairn/jepsen-lite/history"
	"cairn/jepsen-lite/lab"
	"cairn/jepsen-lite/nemesis"
	"cairn/jepsen-lite/workload"
)

// Sizes that make nodes roll, save, take snapshots and install them within
// seconds.
const (
	segmentSize    = "256KiB"
	savepointBytes = "128KiB"
	snapshotBytes  = "512KiB"
	trailingBytes  = "128KiB"
)

// quiet is how long clients go on after the last fault was healed, so that it
// can be seen whether the cluster recovered.
const quiet = 6 * time.Second

// experiment runs a cluster, breaks it, and has the record judged.
func experiment(ctx context.Context, s *settings, stdout io.Writer) error {
	if s.bug == "list" {
		for _, b := range bug.All() {
			fmt.Fprintf(stdout, "%-16s %s\n", b.Name, b.Does)
		}
		return nil
	}
	if err := prepare(s); err != nil {
		return err
	}
	if err := lab.Enter(); err != nil {
		return fmt.Errorf("%w: nodes in namespaces: %w", errRefused, err)
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	fmt.Fprintln(stdout, s.command())
	e := &trial{settings: s, stdout: stdout, logger: slog.New(slog.NewTextHandler(stdout, nil)), disks: map[int]*disk.Disk{}}
	h, err := e.run(ctx)
	if h == nil {
		return err
	}
	return errors.Join(judge(s, h, s.out, stdout), err)
}

// prepare empties the folder of the report and builds what is to be tested. It
// runs outside of the namespaces, once.
func prepare(s *settings) error {
	if seed, err := strconv.ParseUint(os.Getenv(usedSeed), 10, 64); err == nil {
		s.seed = seed
		return nil // inside
	}
	if s.seed == 0 {
		s.seed = rand.Uint64()
	}
	if !slices.ContainsFunc(bug.All(), func(b bug.Description) bool { return s.bug == "" || string(b.Name) == s.bug }) {
		return fmt.Errorf("-bug: there is no %q; -bug list shows them", s.bug)
	}
	if err := clearReport(s.out); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(s.out, "lab"), 0o755); err != nil {
		return err
	}
	if err := build(s, filepath.Join(s.out, "lab")); err != nil {
		return err
	}
	return os.Setenv(usedSeed, strconv.FormatUint(s.seed, 10))
}

// clearReport removes the report of an earlier run, and nothing that is none.
func clearReport(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	ours := len(entries) == 0 || slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == "history.ndjson" || e.Name() == "lab" })
	if _, err := os.Stat(filepath.Join(dir, "lab", "secret")); !ours || len(entries) > 0 && err != nil {
		return fmt.Errorf("-out: %s holds something that is no report; name another folder", dir)
	}
	return os.RemoveAll(dir)
}

// trial is one run.
type trial struct {
	*settings
	stdout   io.Writer
	logger   *slog.Logger
	lab      *lab.Lab
	disks    map[int]*disk.Disk
	recorder *history.Recorder
	load     *workload.Run
	counters *counters
	finds    []string
}

// run goes through a run from the first start to the last stop.
func (e *trial) run(ctx context.Context) (h *history.History, err error) {
	defer func() { err = errors.Join(err, e.close()) }()
	if err := e.open(); err != nil {
		return nil, err
	}
	if err := e.startNodes(ctx); err != nil {
		return nil, err
	}
	if e.recorder, err = history.NewRecorder(e.out); err != nil {
		return nil, err
	}
	e.counters = watchCounters(e.lab)
	defer e.counters.stop()
	options := workload.Options{Names: e.workloads, Rate: e.rate, Seed: e.seed, Recorder: e.recorder}
	for _, n := range e.lab.Nodes() {
		options.Nodes = append(options.Nodes, workload.Node{Name: nodeName(n), URL: n.URL()})
	}
	if e.load, err = workload.Start(ctx, options); err != nil {
		return nil, err
	}
	defer e.load.Stop()
	length, err := e.breakThings(ctx)
	if err != nil {
		return nil, err
	}
	healed := e.recorder.Now()
	wait(ctx, quiet)
	e.load.Stop()
	if ctx.Err() != nil {
		return nil, errInterrupted
	}
	return e.conclude(ctx, length, healed)
}

// open builds the lab, with disks that can fail if a nemesis asks for them.
func (e *trial) open() error {
	var err error
	e.lab, err = lab.New(lab.Options{
		Nodes: e.nodes, Binary: os.Getenv(builtBinary), Dir: filepath.Join(e.out, "lab"), Seed: e.seed,
		Args: func(int) []string {
			return []string{
				"-segment-size", segmentSize, "-savepoint-bytes", savepointBytes, "-snapshot-bytes", snapshotBytes, "-trailing-bytes", trailingBytes,
			}
		},
	})
	if err != nil {
		return err
	}
	fuse := slices.ContainsFunc(e.nemeses, func(n string) bool { return n == "power" || n == "disk" || n == "rot" || n == "usurp" })
	for _, n := range e.lab.Nodes() {
		n.Change(func(c *lab.Command) {
			if old := os.Getenv(builtOld); old != "" {
				c.Binary = old // until the nemesis upgrades it
			}
			c.Env = append(c.Env, "CAIRN_FAULT_CLOCK="+e.clock(n.Number()), "CAIRN_FAULT_BUG="+e.bug)
		})
		if !fuse {
			continue
		}
		backing := filepath.Join(e.out, "lab", nodeName(n)+".disk")
		mounted, err := disk.Mount(disk.Options{Dir: n.Command().Data, Backing: backing, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return fmt.Errorf("%w: FUSE for the disk of %s: %w", errRefused, nodeName(n), err)
		}
		e.disks[n.Number()] = mounted
		n.Change(func(c *lab.Command) { c.Data = filepath.Join(c.Data, "data") }) // a node replaces its folder, which a mount point does not allow
	}
	return nil
}

func (e *trial) clock(node int) string {
	return filepath.Join(e.out, "lab", fmt.Sprintf("n%d.clock", node))
}

// close ends the nodes and their disks.
func (e *trial) close() error {
	var errs []error
	if e.lab != nil {
		errs = append(errs, e.lab.Close())
	}
	for _, d := range e.disks {
		errs = append(errs, d.Unmount())
	}
	return errors.Join(errs...)
}

func (e *trial) startNodes(ctx context.Context) error {
	for _, n := range e.lab.Nodes() {
		if err := n.Start(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for _, n := range e.lab.Nodes() {
		c, err := client.New(client.Config{Nodes: []string{n.URL()}, Fixed: true, AttemptTimeout: time.Second, RetryFor: -1})
		if err != nil {
			return err
		}
		defer c.Close()
		for err = c.Ready(ctx); err != nil; err = c.Ready(ctx) {
			if !wait(ctx, 50*time.Millisecond) || !n.Alive() {
				return fmt.Errorf("%s is not ready, see %s: %w", nodeName(n), n.LogFile(), err)
			}
		}
	}
	return nil
}

// breakThings lets the nemesis work for as long as the run is to take, and says
// what goes on meanwhile.
func (e *trial) breakThings(ctx context.Context) (time.Duration, error) {
	w := &nemesis.World{
		Lab: e.lab, Disks: e.disks, Recorder: e.recorder, Logger: e.logger, Present: os.Getenv(builtBinary), Old: os.Getenv(builtOld),
		Clock: e.clock, Count: measure,
	}
	var err error
	if len(e.nemeses) == 0 {
		wait(ctx, e.length)
	} else {
		err = w.Run(ctx, e.nemeses, e.length, e.seed)
	}
	var find *nemesis.Find
	switch {
	case ctx.Err() != nil:
		return 0, errInterrupted
	case errors.As(err, &find):
		e.found(err)
	case err != nil:
		return 0, err
	}
	return e.recorder.Now(), nil
}

// errInterrupted ends a run that says nothing about Cairn.
var errInterrupted = errors.New("interrupted")

// found notes a promise that was broken before the harness's eyes. The run is
// judged nevertheless, from what is left.
func (e *trial) found(err error) {
	e.logger.Error("find", "what", err)
	e.finds = append(e.finds, err.Error())
}

func nodeName(n *lab.Node) string { return fmt.Sprintf("n%d", n.Number()) }

// wait reports whether ctx was still not done after d.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
