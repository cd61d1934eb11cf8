package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// smallDisk is a file system in memory of a bounded size, in a mount namespace
// of its own, so that nothing of it is left behind. It lives as long as its
// holder, a sleeping process.
type smallDisk struct {
	t      *testing.T
	dir    string
	holder *exec.Cmd
}

// newSmallDisk mounts a disk. It skips the test where that is not allowed.
func newSmallDisk(t *testing.T, size string) *smallDisk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: the disk-full test mounts a small disk, which only root may do")
	}
	d := &smallDisk{t: t, dir: t.TempDir()}
	script := fmt.Sprintf("mount -t tmpfs -o size=%s tmpfs %s && echo mounted && exec sleep 600", size, d.dir)
	d.holder = exec.Command("unshare", "-m", "sh", "-c", script)
	d.holder.SysProcAttr = dieWithParent()
	out, err := d.holder.StdoutPipe()
	if err == nil {
		err = d.holder.Start()
	}
	if err != nil {
		t.Skipf("SKIPPED: no mount namespace: %v", err)
	}
	t.Cleanup(func() {
		_ = d.holder.Process.Kill()
		_ = d.holder.Wait()
	})
	said := make([]byte, 7)
	if n, err := out.Read(said); err != nil || !bytes.Equal(said[:n], []byte("mounted")) {
		t.Skipf("SKIPPED: can't mount a small disk here: %q, %v", said[:n], err)
	}
	return d
}

// enter is the command that runs another one where the disk is mounted.
func (d *smallDisk) enter() []string {
	return []string{"nsenter", "-m", "-t", fmt.Sprint(d.holder.Process.Pid)}
}

func (d *smallDisk) run(line ...string) {
	d.t.Helper()
	args := append(d.enter(), line...)
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s: %v\n%s", strings.Join(line, " "), err, out)
	}
}

// A full disk ends the node, which says so; the cluster goes on; with space
// again it starts and has everything.
func TestProcess_DiskFull(t *testing.T) {
	t.Parallel()
	disk := newSmallDisk(t, "400m")
	c := newCluster(t, 3, small...)
	full := c.nodes[2]
	full.wrap = disk.enter()
	full.dir = filepath.Join(disk.dir, "data")
	c.up()
	l := startLoad(t, c, 8, 2*time.Millisecond)
	l.progress(200)
	// A file takes all but a little of the free space, and the load eats the
	// rest. The node writes meanwhile (a file of its Raft log takes 32 MiB at
	// once): when the file finds less than it was told, the disk is full already.
	disk.run("sh", "-c", fmt.Sprintf(`cd %s
		free=$(df --output=avail -B1 . | tail -n 1)
		head -c $((free - 2097152)) /dev/zero > ballast || test "$(df --output=avail -B1 . | tail -n 1)" -lt 2097152`, disk.dir))
	if code := full.waitExit(60 * time.Second); code != 1 {
		t.Errorf("the node with the full disk ended with exit code %d", code)
	}
	if out := full.out(); !strings.Contains(out, "cairn-node: ") || !strings.Contains(out, "no space left") {
		t.Errorf("the node does not say that its disk is full:\n%s", tail(out))
	} else {
		t.Logf("it says: %s", lastLine(out))
	}
	l.progress(200)
	disk.run("rm", filepath.Join(disk.dir, "ballast"))
	disk.run("mount", "-o", "remount,size=2g", disk.dir)
	full.start()
	full.waitReady()
	l.progress(100)
	l.stop()
	l.checkNodes()
}
