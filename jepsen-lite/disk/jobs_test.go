//go:build linux

package disk

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// runJob is main of such a process. It prints ready when it has done what the
// test wants, and waits to be killed.
func runJob(job, dir string) int {
	do := map[string]func(string) error{
		"write": writeUnsynced, "lock": lockFiles, "stalled": writeStalled,
		"bbolt": runEngine(openBolt), "pebble": runEngine(openPebble), "wal": runEngine(openWAL),
	}[job]
	if err := do(dir); err != nil {
		fmt.Printf("%s: %v\n", job, err)
		return 1
	}
	fmt.Println("ready")
	select {}
}

// start starts a job and waits until it is ready. kill ends it by SIGKILL.
func start(t *testing.T, job, dir string) (kill func()) {
	t.Helper()
	cmd, out := launch(t, job, dir)
	line, err := out.ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("job %s: %q, %v", job, line, err)
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

func launch(t *testing.T, job, dir string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "DISK_TEST_JOB="+job, "DISK_TEST_DIR="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, bufio.NewReader(out)
}

func writeUnsynced(dir string) error {
	f, err := os.Create(dir + "/a")
	if err != nil {
		return err
	}
	_, err = f.WriteString("not synced")
	return errors.Join(err, os.Mkdir(dir+"/d", 0o755))
}

// A killed process loses nothing while the power stays.
func TestKill_LosesNothing(t *testing.T) {
	_, dir := mount(t)
	start(t, "write", dir)()
	want(t, dir+"/a", "not synced")
	wantNames(t, dir, "a", "d")
}

// lockFiles takes a lock of each kind.
func lockFiles(dir string) error {
	for _, kind := range []string{"flock", "fcntl"} {
		f, err := os.OpenFile(dir+"/"+kind, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		fd := int(f.Fd())
		switch kind {
		case "flock":
			err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		default:
			err = unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		}
		if err != nil {
			return err
		}
		locked = append(locked, f)
	}
	return nil
}

var locked []*os.File // for as long as the process lives

func TestLocks(t *testing.T) {
	_, dir := mount(t)
	kill := start(t, "lock", dir)
	if err := lockFiles(dir); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("a lock that another has: %v", err)
	}
	f := open(t, dir+"/fcntl", os.O_RDWR)
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("a record lock that another has: %v", err)
	}
	kill()
	start(t, "lock", dir)()
}

func writeStalled(dir string) error {
	f, err := os.Create(dir + "/a")
	if err == nil {
		_, err = f.WriteString("1")
	}
	return err
}
