package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// insideVariable is set inside, to the user that the program was started by.
const insideVariable = "JEPSEN_LAB_UID"

// Enter runs the program in namespaces of its own: for processes, mounts and
// network, and for a user other than root also for users, where it then is root.
// It has to be the first thing main does, because it starts the program once
// more, with the same arguments. Outside it passes signals on, waits, and ends
// the process with the exit status of the one inside, 128 + N after signal N;
// inside it returns nil. An error says what the kernel or the machine refuses;
// [MaySkip] says whether one may go on without.
func Enter() error {
	if os.Getenv(insideVariable) != "" {
		if err := settle(); err != nil {
			return fmt.Errorf("set up the new namespaces: %w", err)
		}
		return nil
	}
	status, err := runInside()
	if err != nil {
		return fmt.Errorf("start in new namespaces as uid %d: %w (they need root with CAP_SYS_ADMIN, or user namespaces that every user may make)", os.Getuid(), err)
	}
	os.Exit(status)
	return nil
}

// MaySkip says whether a test that can't Enter may be skipped. As root with
// CI=true it may not: there it would never run at all, unnoticed.
func MaySkip() bool {
	uid := os.Getenv(insideVariable)
	if uid == "" {
		uid = strconv.Itoa(os.Getuid())
	}
	return uid != "0" || os.Getenv("CI") != "true"
}

// runInside runs this program in new namespaces and returns its exit status.
func runInside() (int, error) {
	// The signal at a parent's death is that of the thread which forked.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	uid, gid := os.Getuid(), os.Getgid()
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideVariable+"="+strconv.Itoa(uid))
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
		// A terminal signals its whole process group; here once is enough.
		Setpgid: true,
	}
	if uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	if err := cmd.Start(); err != nil {
		signal.Stop(signals)
		return 0, err
	}
	ended, forwarded := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(forwarded)
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s) // it fails only after the end
			case <-ended:
				return
			}
		}
	}()
	err = cmd.Wait()
	signal.Stop(signals)
	close(ended)
	<-forwarded
	return exitStatus(cmd.ProcessState, err)
}

// exitStatus is what a shell would call the status of a process that Wait gave
// err for.
func exitStatus(state *os.ProcessState, err error) (int, error) {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return state.ExitCode(), nil
}

// settle makes the new namespaces usable and tries once all that New needs, so
// that a refusal is known before anything is built on it.
func settle() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to itself: %w", err)
	}
	// In a container the kernel may refuse a fresh /proc to a user namespace.
	// Nothing here needs one: the old one shows the processes as well, by the
	// numbers that they have outside.
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("mount /proc: %w", err)
	}
	here, err := currentNamespace()
	if err != nil {
		return err
	}
	defer here.close()
	if err := here.up("lo"); err != nil {
		return err
	}
	ns, err := newNamespace()
	if err != nil {
		return err
	}
	defer ns.close()
	probe := newSwitch(0)
	defer probe.close()
	return probe.attach(1, ns)
}
