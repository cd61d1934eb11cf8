package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Ports of each node.
const (
	httpPort   = 7070
	raftPort   = 7071
	gossipPort = 7072
)

// Command is what the next start of a node runs.
type Command struct {
	Binary string
	ID     string   // name in the cluster; n1, n2, … at first
	Data   string   // folder
	Expect int      // nodes that found the cluster together
	Join   []string // gossip addresses; those of the nodes before it, and of all that found the cluster
	Args   []string // beyond the above
	Env    []string // beyond the harness's own, without its CAIRN_ variables
}

// Node is one machine: a network namespace, and a process in it or none.
type Node struct {
	lab    *Lab
	number int
	ns     *namespace

	mu      sync.Mutex
	command Command
	process *process // the last one started, or nil
}

func newNode(l *Lab, number int, ns *namespace) *Node {
	c := Command{
		Binary: l.opts.Binary,
		ID:     fmt.Sprintf("n%d", number),
		Expect: l.opts.Nodes,
	}
	c.Data = filepath.Join(l.opts.Dir, c.ID)
	for other := 1; other <= max(l.opts.Nodes, number); other++ {
		if other != number {
			c.Join = append(c.Join, address(other, gossipPort))
		}
	}
	if l.opts.Args != nil {
		c.Args = l.opts.Args(number)
	}
	return &Node{lab: l, number: number, ns: ns, command: c}
}

// address is a machine's address with a port.
func address(machine, port int) string {
	a := machineAddress(machine)
	return net.JoinHostPort(net.IP(a[:]).String(), strconv.Itoa(port))
}

// Number is the node's number from 1 on, the one that links know it by.
func (n *Node) Number() int { return n.number }

// URL is where clients reach the node.
func (n *Node) URL() string { return "http://" + address(n.number, httpPort) }

// LogFile is where all processes of the node write to, one after the other.
func (n *Node) LogFile() string {
	return filepath.Join(n.lab.opts.Dir, fmt.Sprintf("n%d.log", n.number))
}

// Command returns what the next start runs.
func (n *Node) Command() Command {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.command
}

// Change lets f change what the next start runs: another binary, another name
// on a wiped disk. f must not call the node.
func (n *Node) Change(f func(*Command)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(&n.command)
}

// Start starts a process and returns without waiting for it to answer.
func (n *Node) Start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil && n.process.alive() {
		return fmt.Errorf("node %d runs already, as process %d", n.number, n.process.cmd.Process.Pid)
	}
	if err := n.lab.starting(); err != nil {
		return err
	}
	p, err := n.startLocked()
	if err != nil {
		n.lab.waiter.Done()
		return fmt.Errorf("start node %d: %w", n.number, err)
	}
	n.process = p
	go func() {
		defer n.lab.waiter.Done()
		n.await(p)
	}()
	return nil
}

func (n *Node) startLocked() (*process, error) {
	c := n.command
	log, err := os.OpenFile(n.LogFile(), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	args := []string{
		"-id", c.ID, "-data", c.Data, "-expect", strconv.Itoa(c.Expect),
		"-http", address(n.number, httpPort), "-raft", address(n.number, raftPort), "-gossip", address(n.number, gossipPort),
		"-secret-file", n.lab.secretFile(),
	}
	if len(c.Join) > 0 {
		args = append(args, "-join", strings.Join(c.Join, ","))
	}
	cmd := exec.Command(c.Binary, append(args, c.Args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(nodeEnv(), c.Env...)
	note(log, "start %s", cmd)
	if err := n.ns.start(cmd); err != nil {
		note(log, "%v", err)
		return nil, errors.Join(err, log.Close())
	}
	n.lab.opts.Logger.Info("node started", "node", n.number, "id", c.ID, "pid", cmd.Process.Pid, "binary", c.Binary)
	return &process{cmd: cmd, log: log, started: time.Now(), ended: make(chan struct{})}, nil
}

// nodeEnv is the harness's environment without what would set up a node.
func nodeEnv() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "CAIRN_") && !strings.HasPrefix(v, insideVariable+"=") {
			env = append(env, v)
		}
	}
	return env
}

// await waits for the end of a process and records it.
func (n *Node) await(p *process) {
	exit := p.wait(n.number)
	n.mu.Lock()
	exit.Asked, exit.Stopped, exit.At = p.asked, p.stopped, time.Now()
	n.mu.Unlock()
	// Recorded first: who waited for the end finds it among the exits.
	n.lab.record(exit)
	p.exit = exit
	close(p.ended)
	level := n.lab.opts.Logger.Info
	if !exit.Asked {
		level = n.lab.opts.Logger.Warn
	}
	level("node ended", "node", n.number, "pid", exit.PID, "exit", exit.String(), "asked", exit.Asked, "last_line", exit.LastLine)
}

// current is the process that runs, or nil. With ask, its end will be one that
// was asked for.
func (n *Node) current(ask bool) *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil || !n.process.alive() {
		return nil
	}
	n.process.asked = n.process.asked || ask
	return n.process
}

func (n *Node) kill() *process {
	p := n.current(true)
	if p != nil {
		p.signal(syscall.SIGKILL)
	}
	return p
}

// Kill ends the process as kill -9 does and returns when it is gone.
func (n *Node) Kill() error { return n.lab.Kill(n.number) }

// Stop asks the process to end and waits for it. After timeout it kills it and
// returns an error. A paused process is resumed first.
func (n *Node) Stop(timeout time.Duration) error {
	p := n.current(true)
	if p == nil {
		return nil
	}
	n.mu.Lock()
	p.stopped = true
	n.mu.Unlock()
	p.signal(syscall.SIGTERM)
	n.Resume()
	select {
	case <-p.ended:
		return nil
	case <-time.After(timeout):
		return errors.Join(fmt.Errorf("node %d had not stopped after %v", n.number, timeout), n.Kill())
	}
}

// Pause stops the process from running, and returns when it does not any more.
// Its connections stay open, and the kernel goes on acknowledging what it is
// sent, until the buffers are full. If it has not come to rest after a second,
// because a thread of it waits for a disk, that is an error, but it is paused.
func (n *Node) Pause() error {
	n.mu.Lock()
	p := n.process
	if p == nil || !p.alive() {
		n.mu.Unlock()
		return fmt.Errorf("pause node %d: it does not run", n.number)
	}
	if p.paused {
		n.mu.Unlock()
		return nil
	}
	p.paused = true
	p.signal(syscall.SIGSTOP)
	n.mu.Unlock()
	if err := p.awaitStop(time.Second); err != nil {
		return fmt.Errorf("pause node %d: %w", n.number, err)
	}
	return nil
}

// Resume undoes Pause. Without a paused process it does nothing.
func (n *Node) Resume() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := n.process; p != nil && p.paused {
		p.signal(syscall.SIGCONT)
		p.paused = false
	}
}

// Wait waits for the end of the last process started. Its error is that of ctx,
// or that there was none.
func (n *Node) Wait(ctx context.Context) (Exit, error) {
	n.mu.Lock()
	p := n.process
	n.mu.Unlock()
	if p == nil {
		return Exit{}, fmt.Errorf("node %d was never started", n.number)
	}
	select {
	case <-p.ended:
		return p.exit, nil
	case <-ctx.Done():
		return Exit{}, ctx.Err()
	}
}

// Alive says whether the node has a process, paused or not.
func (n *Node) Alive() bool { return n.current(false) != nil }

// PID is the number of the node's process, or 0 without one.
func (n *Node) PID() int {
	if p := n.current(false); p != nil {
		return p.cmd.Process.Pid
	}
	return 0
}
