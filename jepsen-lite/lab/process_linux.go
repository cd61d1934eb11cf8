package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Exit is the end of one process of a node.
type Exit struct {
	Node     int
	PID      int
	Code     int            // exit status, -1 if a signal ended it
	Signal   syscall.Signal // that ended it, or 0
	Asked    bool           // by Kill, Stop or Close; otherwise it ended by itself
	Stopped  bool           // by Stop, to which a sound process answers with status 0
	At       time.Time
	Ran      time.Duration
	LastLine string // that it wrote
}

// String is the exit status or the signal.
func (e Exit) String() string {
	if e.Code < 0 {
		return "signal: " + e.Signal.String()
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// process is one start of a node.
type process struct {
	cmd     *exec.Cmd
	log     *os.File
	started time.Time
	asked   bool // Node.mu
	stopped bool // Node.mu
	paused  bool // Node.mu

	ended chan struct{} // closed when exit is set
	exit  Exit
}

func (p *process) alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// signal sends a signal. A process that has ended meanwhile needs none.
func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// awaitStop waits until a process that was sent SIGSTOP does not run any more.
func (p *process) awaitStop(timeout time.Duration) error {
	for deadline := time.Now().Add(timeout); ; time.Sleep(time.Millisecond) {
		// WSTOPPED alone: its end is reported to await, and to nobody else.
		var state unix.Siginfo
		err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, &state, unix.WSTOPPED|unix.WNOHANG, nil)
		switch {
		case err == nil && state.Signo != 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("it ended instead: %w", err)
		case time.Now().After(deadline):
			return fmt.Errorf("it still runs after %v", timeout)
		}
	}
}

// wait waits for the process's end and closes its log.
func (p *process) wait(node int) Exit {
	// What it returns beside the state would be of pipes, and there are none.
	_ = p.cmd.Wait()
	exit := Exit{
		Node:     node,
		PID:      p.cmd.Process.Pid,
		Code:     p.cmd.ProcessState.ExitCode(),
		Ran:      time.Since(p.started),
		LastLine: lastLine(p.log),
	}
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		exit.Signal = status.Signal()
	}
	note(p.log, "end: %v", exit)
	_ = p.log.Close()
	return exit
}

// noteMark begins the lines in a node's log that are the lab's.
const noteMark = "=== lab "

// note writes a line of the lab into a node's log. The log is there for people
// to read, so a run goes on without the line.
func note(log *os.File, format string, args ...any) {
	_, _ = fmt.Fprintf(log, "%s%s %s\n", noteMark, time.Now().UTC().Format(time.RFC3339Nano), fmt.Sprintf(format, args...))
}

// lastLine is the last line in a node's log that the node itself wrote since
// it was started, or "".
func lastLine(log *os.File) string {
	const most = 8 << 10
	size, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	tail := make([]byte, min(size, most))
	if _, err := log.ReadAt(tail, size-int64(len(tail))); err != nil {
		return ""
	}
	line := string(tail[bytes.LastIndexByte(bytes.TrimRight(tail, "\n"), '\n')+1:])
	if strings.HasPrefix(line, noteMark) {
		return ""
	}
	return strings.TrimRight(line, "\n")
}
