package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// nodeBinary is the cairn-node that the process tests start. TestMain builds it
// once.
var nodeBinary string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "cairn-node-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	nodeBinary = filepath.Join(dir, "cairn-node")
	build := exec.Command("go", "build", "-ldflags", "-X main.version=v0.0.0-test", "-o", nodeBinary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// small makes a cluster that rolls, saves and snapshots many times in a second
// of load.
var small = []string{"-segment-size", "16KiB", "-savepoint-bytes", "64KiB", "-snapshot-bytes", "512KiB"}

// group is some nodes on free ports of loopback, each a real process.
type group struct {
	t     *testing.T
	nodes []*process
	flags []string
}

// newCluster makes n nodes with empty data that expect each other, and starts
// none. They are killed when the test ends.
func newCluster(t *testing.T, n int, flags ...string) *group {
	t.Helper()
	c := &group{t: t, flags: append([]string{"-expect", fmt.Sprint(n)}, flags...)}
	for range n {
		c.add()
	}
	return c
}

// add makes one more node, with empty data. Who is started after that joins it
// and it joins who is there.
func (c *group) add() *process {
	c.t.Helper()
	n := len(c.nodes) + 1
	p := &process{
		t: c.t, name: fmt.Sprintf("node-%d", n), cluster: c, dir: filepath.Join(c.t.TempDir(), "data"),
		http: freeAddress(c.t), raft: freeAddress(c.t), gossip: freeAddress(c.t),
	}
	c.nodes = append(c.nodes, p)
	c.t.Cleanup(p.cleanup)
	return p
}

// up starts all nodes and waits until they are ready.
func (c *group) up() {
	c.t.Helper()
	for _, p := range c.nodes {
		p.start()
	}
	c.ready()
}

func (c *group) ready() {
	c.t.Helper()
	for _, p := range c.nodes {
		p.waitReady()
	}
}

// process is one node: its place on disk and on the network, which stay, and
// the process, which comes and goes.
type process struct {
	t                  *testing.T
	cluster            *group
	name, dir          string
	http, raft, gossip string
	wrap               []string // command that runs cairn-node, such as nsenter

	mu     sync.Mutex // guards all below
	pid    int        // 0 = not running
	exited chan struct{}
	code   int          // exit code of the last run; -1 = by a signal
	output *lockedBytes // of the last run
}

// start runs the node with its own flags and more.
func (p *process) start(more ...string) {
	p.t.Helper()
	var others []string
	for _, o := range p.cluster.nodes {
		if o != p {
			others = append(others, o.gossip)
		}
	}
	args := append([]string{"-data", p.dir, "-http", p.http, "-raft", p.raft, "-gossip", p.gossip, "-id", p.name}, p.cluster.flags...)
	if len(others) > 0 {
		args = append(args, "-join", strings.Join(others, ","))
	}
	p.exec(append(args, more...)...)
}

// exec runs cairn-node with exactly these arguments.
func (p *process) exec(args ...string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid != 0 {
		p.t.Fatalf("%s runs already", p.name)
	}
	line := append(append([]string{}, p.wrap...), nodeBinary)
	cmd := exec.Command(line[0], append(line[1:], args...)...)
	out := &lockedBytes{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = plainEnvironment()
	cmd.SysProcAttr = dieWithParent()
	started, exited := make(chan error), make(chan struct{})
	// A process that is to die with its parent dies with the *thread* that
	// started it, so that thread is kept until the process has ended.
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = cmd.Wait()
		p.mu.Lock()
		p.pid, p.code = 0, cmd.ProcessState.ExitCode()
		p.mu.Unlock()
		close(exited)
	}()
	if err := <-started; err != nil {
		p.t.Fatalf("start %s: %v", p.name, err)
	}
	p.pid, p.exited, p.output = cmd.Process.Pid, exited, out
}

// signal sends a signal to the process, if it runs.
func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid != 0 {
		_ = syscall.Kill(p.pid, s)
	}
}

func (p *process) running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid != 0
}

// kill is SIGKILL; it returns when the process is gone.
func (p *process) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	p.waitExit(10 * time.Second)
}

// stop is SIGTERM; the process must end with exit code 0.
func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if code := p.waitExit(20 * time.Second); code != 0 {
		p.t.Errorf("%s ended with exit code %d after SIGTERM", p.name, code)
	}
}

// waitExit waits for the end of the process and returns its exit code.
func (p *process) waitExit(limit time.Duration) int {
	p.t.Helper()
	p.mu.Lock()
	exited := p.exited
	p.mu.Unlock()
	select {
	case <-exited:
	case <-time.After(limit):
		p.t.Fatalf("%s has not ended within %s", p.name, limit)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.code
}

// out is what the last run printed.
func (p *process) out() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.output == nil {
		return ""
	}
	return p.output.String()
}

// waitReady waits for a green /readyz.
func (p *process) waitReady() {
	p.t.Helper()
	last := ""
	eventually(p.t, 30*time.Second, func() bool {
		if !p.running() {
			p.t.Fatalf("%s has ended instead of becoming ready:\n%s", p.name, tail(p.out()))
		}
		a, err := p.get("/readyz")
		last = fmt.Sprintf("%d %s %v", a.status, a.body, err)
		return err == nil && a.status == 200
	}, func() string { return fmt.Sprintf("%s is not ready: %s\n%s", p.name, last, tail(p.out())) })
}

func (p *process) cleanup() {
	p.signal(syscall.SIGKILL)
	p.mu.Lock()
	exited := p.exited
	p.mu.Unlock()
	if exited != nil {
		<-exited
	}
	if p.t.Failed() {
		p.t.Logf("the end of the log of %s:\n%s", p.name, tail(p.out()))
	}
}

// eventually polls until done says yes, and fails with the text of what after
// limit.
func eventually(t *testing.T, limit time.Duration, done func() bool, what func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for !done() {
		if !sleep(ctx, 20*time.Millisecond) {
			t.Fatalf("waited %s: %s", limit, what())
		}
	}
}

// sleep pauses between two tries; it reports whether ctx lives on.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// ports are taken from below the range that the system gives to outgoing
// connections: a node that is restarted must find its port still free.
var ports = struct {
	sync.Mutex
	next int
}{next: 20000 + rand.IntN(9000)}

func freeAddress(t *testing.T) string {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	for range 1000 {
		ports.next++
		address := fmt.Sprintf("127.0.0.1:%d", ports.next)
		tcp, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		udp, err := net.ListenPacket("udp", address)
		_ = tcp.Close()
		if err != nil {
			continue
		}
		_ = udp.Close()
		return address
	}
	t.Fatal("no free port")
	return ""
}

// plainEnvironment is the environment without anything that sets up a node.
func plainEnvironment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "CAIRN_") {
			env = append(env, v)
		}
	}
	return env
}

// tail is the end of a log, for a failure message.
func tail(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return "    " + strings.Join(lines[max(0, len(lines)-15):], "\n    ")
}

// lockedBytes collects what a process prints while others read it.
type lockedBytes struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBytes) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBytes) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
