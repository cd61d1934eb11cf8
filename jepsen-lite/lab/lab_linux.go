package lab

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Options are what a lab is built from.
type Options struct {
	Nodes  int    // that found the cluster, 1 to MaxNodes
	Binary string // cairn-node, until a node is told another one
	Dir    string // for data, logs and the secret; made if missing

	// Args gives what a node is started with beyond addresses, data, secret,
	// name, and whom to join. nil = nothing.
	Args func(node int) []string

	Seed   uint64       // of which packets lossy links lose and how late they are
	Logger *slog.Logger // of starts and ends; nil = none
}

// Lab is a network with nodes in it.
type Lab struct {
	opts   Options
	net    *ethernet
	waiter sync.WaitGroup // one for each process that runs

	mu     sync.Mutex
	nodes  []*Node // of number 1, 2, …
	spaces []*namespace
	exits  []Exit
	closed bool
}

// New builds the network and prepares opts.Nodes nodes. None is started yet,
// and their data folders are there and empty, so that one may mount something
// on them. It works only in a program that is inside, see [Enter], and only for
// one lab at a time.
func New(opts Options) (*Lab, error) {
	if os.Getenv(insideVariable) == "" {
		return nil, errors.New("a lab needs namespaces of its own: call Enter first")
	}
	if opts.Nodes < 1 || opts.Nodes > MaxNodes {
		return nil, fmt.Errorf("%d nodes: a lab has 1 to %d", opts.Nodes, MaxNodes)
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("folder of the lab: %w", err)
	}
	opts.Dir = dir
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("folder of the lab: %w", err)
	}
	l := &Lab{opts: opts, net: newSwitch(opts.Seed)}
	if err := os.WriteFile(l.secretFile(), []byte(rand.Text()+"\n"), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("write the secret: %w", err), l.Close())
	}
	home, err := currentNamespace()
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	l.spaces = append(l.spaces, home)
	if err := l.net.attach(Client, home); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	for range opts.Nodes {
		if _, err := l.Add(); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	return l, nil
}

func (l *Lab) secretFile() string { return filepath.Join(l.opts.Dir, "secret") }

// Add prepares one more node, with the next number.
func (l *Lab) Add() (*Node, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	number := len(l.nodes) + 1
	switch {
	case l.closed:
		return nil, errClosed
	case number > MaxNodes:
		return nil, fmt.Errorf("no room for node %d: a lab has at most %d", number, MaxNodes)
	}
	ns, err := newNamespace()
	if err != nil {
		return nil, err
	}
	l.spaces = append(l.spaces, ns)
	if err := l.net.attach(number, ns); err != nil {
		return nil, err
	}
	n := newNode(l, number, ns)
	if err := os.MkdirAll(n.command.Data, 0o755); err != nil {
		return nil, fmt.Errorf("data of %s: %w", n.command.ID, err)
	}
	l.nodes = append(l.nodes, n)
	return n, nil
}

// Node returns the node with a number from 1 on, or panics.
func (l *Lab) Node(number int) *Node {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nodes[number-1]
}

// Nodes returns all nodes in the order of their numbers.
func (l *Lab) Nodes() []*Node {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*Node(nil), l.nodes...)
}

// Cut drops all packets on links from now on, also those that are under way.
// Connections stay open.
func (l *Lab) Cut(links ...Link) {
	l.change(links, func(cut *bool, _ *Quality) { *cut = true })
}

// Restore undoes Cut.
func (l *Lab) Restore(links ...Link) {
	l.change(links, func(cut *bool, _ *Quality) { *cut = false })
}

// Degrade makes links slow or lossy from the next packet on. With the zero
// Quality they are good again; packets under way keep their time.
func (l *Lab) Degrade(q Quality, links ...Link) {
	l.change(links, func(_ *bool, quality *Quality) { *quality = q })
}

// HealAll undoes all of Cut and Degrade.
func (l *Lab) HealAll() {
	l.change(allLinks(), func(cut *bool, q *Quality) { *cut, *q = false, Quality{} })
}

// Traffic returns what links have carried and dropped since the lab was built,
// together; without links, that of all.
func (l *Lab) Traffic(links ...Link) Traffic {
	if len(links) == 0 {
		links = allLinks()
	}
	var sum Traffic
	for _, k := range links {
		sum.add(l.net.links[k.From][k.To].counted())
	}
	return sum
}

func (l *Lab) change(links []Link, f func(cut *bool, q *Quality)) {
	for _, k := range links {
		l.net.links[k.From][k.To].change(f)
	}
}

func allLinks() []Link {
	all := make([]int, machines)
	for i := range all {
		all[i] = i
	}
	return OneWay(all, all)
}

// Kill ends the processes of nodes as kill -9 does, all at once, and returns
// when they are gone. Nodes that don't run stay as they are.
func (l *Lab) Kill(nodes ...int) error {
	ending := make([]*process, 0, len(nodes))
	for _, number := range nodes {
		if p := l.Node(number).kill(); p != nil {
			ending = append(ending, p)
		}
	}
	patience := time.After(killPatience)
	for _, p := range ending {
		select {
		case <-p.ended:
		case <-patience:
			return fmt.Errorf("process %d is still there %v after it was killed: does its disk answer?", p.cmd.Process.Pid, killPatience)
		}
	}
	return nil
}

// killPatience is how long a killed process may take to go. Only one that waits
// for a disk needs more than an instant.
const killPatience = 10 * time.Second

// Exits returns the ends of all processes so far, the earliest first. Whoever
// looks for crashes takes those that nobody Asked for.
func (l *Lab) Exits() []Exit {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Exit(nil), l.exits...)
}

func (l *Lab) record(e Exit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.exits = append(l.exits, e)
}

// starting counts a process that is about to start, or says that it is too late.
func (l *Lab) starting() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errClosed
	}
	l.waiter.Add(1)
	return nil
}

var errClosed = errors.New("the lab is closed")

// Close kills all nodes and takes the network down. What the caller mounted it
// has to unmount itself, after that. If a process does not go, the rest stays
// until the harness ends. A second Close does nothing.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	nodes := l.nodes
	l.mu.Unlock()

	numbers := make([]int, len(nodes))
	for i := range nodes {
		numbers[i] = i + 1
	}
	if err := l.Kill(numbers...); err != nil {
		return err
	}
	l.waiter.Wait()
	errs := []error{l.net.close()}
	for _, ns := range l.spaces {
		errs = append(errs, ns.close())
	}
	return errors.Join(errs...)
}
