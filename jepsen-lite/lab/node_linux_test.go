package lab

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestNode_KillAndStartAgain(t *testing.T) {
	l := newLab(t, 1)
	n := l.Node(1)
	start(t, n)
	first := n.PID()
	if err := n.Start(); err == nil {
		t.Error("a node that runs was started again")
	}
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	if n.Alive() || n.PID() != 0 || syscall.Kill(first, 0) == nil {
		t.Error("alive after Kill")
	}
	start(t, n)
	if n.PID() == first {
		t.Error("it is still the first process")
	}
	if err := n.Stop(5 * time.Second); err != nil {
		t.Error(err)
	}
	exits := l.Exits()
	if len(exits) != 2 {
		t.Fatalf("exits: %v", exits)
	}
	for i, want := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		if got := exits[i]; got.Signal != want || !got.Asked || got.Node != 1 || got.LastLine != "serving" {
			t.Errorf("exit %d: got %+v, want asked for, by %v", i, got, want)
		}
	}
	text, err := os.ReadFile(n.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	for word, want := range map[string]int{noteMark: 4, " start ": 2, " end: signal: killed": 1, "serving\n": 2} {
		if got := strings.Count(string(text), word); got != want {
			t.Errorf("%q is %d times in the log, want %d:\n%s", word, got, want, text)
		}
	}
}

func TestNode_EndsByItself(t *testing.T) {
	l := newLab(t, 1)
	n := l.Node(1)
	fake(n, "crash")
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	exit, err := n.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if exit.Asked || exit.Code != 3 || exit.LastLine != "what a pity" {
		t.Errorf("got %+v, want status 3, not asked for", exit)
	}
	if exits := l.Exits(); len(exits) != 1 || exits[0] != exit {
		t.Errorf("exits: %v", exits)
	}
}

func TestNode_ChangeOfBinaryThatIsNotThere(t *testing.T) {
	l := newLab(t, 1)
	n := l.Node(1)
	good := n.Command().Binary
	n.Change(func(c *Command) { c.Binary = filepath.Join(t.TempDir(), "none") })
	if err := n.Start(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	n.Change(func(c *Command) { c.Binary = good })
	start(t, n)
}

func TestNode_Pause(t *testing.T) {
	l := newLab(t, 1)
	n := l.Node(1)
	if n.Pause() == nil {
		t.Error("a node that does not run was paused")
	}
	start(t, n)
	for range 2 {
		if err := n.Pause(); err != nil {
			t.Fatal(err)
		}
		if get(n.URL()+"/hello") == nil {
			t.Error("a paused node answers")
		}
		n.Resume()
		if err := get(n.URL() + "/hello"); err != nil {
			t.Errorf("resumed: %v", err)
		}
	}
	if err := n.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := n.Stop(5 * time.Second); err != nil {
		t.Errorf("stop of a paused node: %v", err)
	}
}

func TestLab_AddUpToMaxNodes(t *testing.T) {
	l := newLab(t, 1)
	start(t, l.Node(1))
	for range MaxNodes - 1 {
		if _, err := l.Add(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Add(); err == nil {
		t.Errorf("more than %d nodes", MaxNodes)
	}
	last := l.Node(MaxNodes)
	fake(last, "serve")
	start(t, last)
	if err := ask(last, l.Node(1)); err != nil {
		t.Error(err)
	}
	if got := len(last.Command().Join); got != MaxNodes-1 {
		t.Errorf("%s joins %v", last.Command().ID, last.Command().Join)
	}
}

func TestClose_LeavesNothing(t *testing.T) {
	inside(t)
	goroutines := runtime.NumGoroutine()
	l := newLab(t, 2)
	start(t, l.Nodes()...)
	pids := []int{l.Node(1).PID(), l.Node(2).PID()}
	if err := l.Node(2).Pause(); err != nil {
		t.Fatal(err)
	}
	l.Degrade(Quality{Delay: time.Hour}, Link{Client, 1})
	_ = get(l.Node(1).URL() + "/hello") // leaves packets under way
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
			t.Errorf("process %d: %v", pid, err)
		}
	}
	if err := l.Node(1).Start(); !errors.Is(err, errClosed) {
		t.Errorf("start after Close: %v", err)
	}
	onlyLoopback(t)
	eventually(t, func() error { // the HTTP client's own end a moment later
		if now := runtime.NumGoroutine(); now > goroutines {
			return errors.New("goroutines are left")
		}
		return nil
	})
}

// onlyLoopback fails if the harness's namespace has another device, or that
// one is down.
func onlyLoopback(t *testing.T) {
	t.Helper()
	devices, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	if len(devices) != 1 || devices[0].Name != "lo" || devices[0].Flags&net.FlagUp == 0 {
		t.Errorf("devices: %v", devices)
	}
}
