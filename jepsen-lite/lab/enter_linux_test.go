package lab

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestEnter_FirstProcessAlone(t *testing.T) {
	inside(t)
	if pid := os.Getpid(); pid != 1 {
		t.Errorf("process %d, want 1", pid)
	}
	if uid := os.Getuid(); uid != 0 {
		t.Errorf("user %d, want 0", uid)
	}
	onlyLoopback(t)
}

// outside is this binary as one of the fakes, as if from outside. Labs don't
// have to be nested; this is to see an Enter from both sides.
func outside(t *testing.T, name string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	inside(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Dir = t.TempDir()
	cmd.Env = append(nodeEnv(), fakeVariable+"="+name)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, bufio.NewReader(out)
}

func TestEnter_PassesStatusOn(t *testing.T) {
	cmd, out := outside(t, "status")
	said, _ := io.ReadAll(out)
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 7 {
		t.Errorf("status %d, want 7: %s", got, said)
	}
}

func TestEnter_PassesSignalsOn(t *testing.T) {
	cmd, out := outside(t, "wait")
	if line, _ := out.ReadString('\n'); line != "inside\n" {
		t.Fatalf("it said %q", line)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// What is inside holds the pipe open as long as it lives.
func TestEnter_InsideDiesWithOutside(t *testing.T) {
	cmd, out := outside(t, "wait")
	if line, _ := out.ReadString('\n'); line != "inside\n" {
		t.Fatalf("it said %q", line)
	}
	begin := time.Now()
	_ = cmd.Process.Kill()
	if rest, err := io.ReadAll(out); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// A node dies with its harness, however that ends.
func TestEnter_PanicLeavesNoNode(t *testing.T) {
	cmd, out := outside(t, "panic")
	if line, _ := out.ReadString('\n'); line != "inside\n" {
		t.Fatalf("it said %q", line)
	}
	eventually(t, func() error {
		if serving(t) != 1 {
			return errors.New("its node does not run")
		}
		return nil
	})
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 2 {
		t.Errorf("status %d, want 2, that of a panic", got)
	}
	if got := serving(t); got != 0 {
		t.Errorf("%d nodes are left", got)
	}
}

// serving counts the fake nodes among all processes that can be seen.
func serving(t *testing.T) int {
	t.Helper()
	environments, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, name := range environments {
		env, _ := os.ReadFile(name) // gone meanwhile, or another user's
		if strings.Contains(string(env), fakeVariable+"=serve\x00") {
			count++
		}
	}
	return count
}

func TestMaySkip(t *testing.T) {
	for _, c := range []struct {
		uid, ci string
		want    bool
	}{{"0", "true", false}, {"0", "", true}, {"1000", "true", true}} {
		t.Setenv(insideVariable, c.uid)
		t.Setenv("CI", c.ci)
		if got := MaySkip(); got != c.want {
			t.Errorf("uid %s, CI=%q: got %v", c.uid, c.ci, got)
		}
	}
}

func TestNew_OnlyInside(t *testing.T) {
	t.Setenv(insideVariable, "")
	if _, err := New(Options{Nodes: 1, Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "Enter") {
		t.Errorf("got %v", err)
	}
}
