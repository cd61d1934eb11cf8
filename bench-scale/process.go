package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// process is one node. Its addresses and its folder stay the same over restarts.
type process struct {
	id                 string
	dir, log           string // its data, and what it prints
	http, raft, gossip string
	cmd                *exec.Cmd     // nil while it does not run
	alive              atomic.Int64  // its pid while it runs
	ended              chan struct{} // closed when it has
}

// newProcess chooses free ports. Another program may take one before the node
// does; then the node ends, and says so in its log.
func newProcess(i int, data, out string) (*process, error) {
	id := fmt.Sprintf("node-%d", i)
	p := &process{id: id, dir: filepath.Join(data, id), log: filepath.Join(out, id+".log")}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(p.log, nil, 0o644); err != nil {
		return nil, err
	}
	for _, address := range []*string{&p.http, &p.raft, &p.gossip} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // only now, so that all three differ
		*address = l.Addr().String()
	}
	return p, nil
}

func (p *process) start(binary string, all []*process) error {
	var join []string
	for _, other := range all {
		if other != p {
			join = append(join, other.gossip)
		}
	}
	out, err := os.OpenFile(p.log, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer out.Close() // the child has its own
	p.cmd = exec.Command(binary, "-data", p.dir, "-http", p.http, "-raft", p.raft, "-gossip", p.gossip,
		"-id", p.id, "-expect", fmt.Sprint(len(all)), "-join", strings.Join(join, ","))
	p.cmd.Stdout, p.cmd.Stderr = out, out
	// A group of its own: Ctrl-C is for this program, which then ends the nodes.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		p.cmd = nil
		return err
	}
	cmd, ended := p.cmd, make(chan struct{})
	p.ended = ended
	p.alive.Store(int64(p.pid()))
	go func() { // ends with the process, for which end waits
		_ = cmd.Wait()
		p.alive.Store(0)
		close(ended)
	}()
	return nil
}

// pid is that of a node which was started and not ended.
func (p *process) pid() int { return p.cmd.Process.Pid }

// running is its pid for those who watch meanwhile; 0 while it does not run. Any
// goroutine may call it.
func (p *process) running() int { return int(p.alive.Load()) }

// end sends a signal and waits for the process to end.
func (p *process) end(signal syscall.Signal) {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(signal) // it may have ended already
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	p.cmd = nil
}

// awaitReady waits until /readyz is 200.
func (p *process) awaitReady(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last error
	for {
		if last = p.ready(ctx); last == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s has ended; see %s", p.id, p.log)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %s: %w", p.id, limit, errors.Join(ctx.Err(), last))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (p *process) ready(ctx context.Context) error {
	c, err := dial(ctx, p.http)
	if err != nil {
		return err
	}
	defer c.close()
	a, err := c.do(getRequest(p.http, "/readyz", "application/json"))
	if err == nil && a.status != 200 {
		err = a.unexpected("/readyz")
	}
	return err
}
