//go:build linux

package disk

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if job := os.Getenv("DISK_TEST_JOB"); job != "" {
		os.Exit(runJob(job, os.Getenv("DISK_TEST_DIR")))
	}
	if os.Getenv("DISK_TEST_APART") == "" && os.Getuid() == 0 {
		if code, err := runApart(); err == nil {
			os.Exit(code)
		}
	}
	os.Exit(m.Run()) // who may not have a mount namespace may not mount either
}

// runApart runs the tests in a mount namespace of their own, so that no mount
// stays behind when a test times out and no cleanup runs.
func runApart() (code int, err error) {
	runtime.LockOSThread() // Pdeathsig is sent when the thread ends
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), "DISK_TEST_APART=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	_ = cmd.Wait() // its exit code says it
	return cmd.ProcessState.ExitCode(), nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mount mounts a fresh disk and returns its mount point.
func mount(t *testing.T) (*Disk, string) {
	t.Helper()
	base := t.TempDir()
	return mountAt(t, filepath.Join(base, "mnt"), filepath.Join(base, "backing"))
}

func mountAt(t *testing.T, dir, backing string) (*Disk, string) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o755))
	d, err := Mount(Options{Dir: dir, Backing: backing, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		lacking := errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
		if lacking && !(os.Getenv("CI") == "true" && os.Getuid() == 0) {
			t.Skipf("FUSE cannot be mounted here: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return d, dir
}

// seeded is a source for a test that fails the same way again.
func seeded(t *testing.T) *rand.Rand {
	return rand.New(rand.NewPCG(1, uint64(len(t.Name()))))
}

func lose(t *testing.T, d *Disk, keep float64) Loss {
	t.Helper()
	loss, err := d.PowerLoss(seeded(t), keep)
	must(t, err)
	return loss
}

func open(t *testing.T, path string, flag int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flag, 0o644)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// write makes a file whole; with sync it is durable, its name is not.
func write(t *testing.T, path, content string, sync bool) {
	t.Helper()
	f := open(t, path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	_, err := f.WriteString(content)
	must(t, err)
	if sync {
		must(t, f.Sync())
	}
	must(t, f.Close())
}

func syncDir(t *testing.T, dir string) {
	t.Helper()
	f := open(t, dir, os.O_RDONLY)
	must(t, f.Sync())
	must(t, f.Close())
}

func want(t *testing.T, path, content string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != content {
		t.Errorf("%s = %.40q (%d bytes), %v; want %.40q (%d bytes)", filepath.Base(path), got, len(got), err, content, len(content))
	}
}

func wantNames(t *testing.T, dir string, names ...string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	must(t, err)
	got := []string{}
	for _, e := range list {
		got = append(got, e.Name())
	}
	slices.Sort(names)
	if !slices.Equal(got, names) {
		t.Errorf("names in %s = %q, want %q", filepath.Base(dir), got, names)
	}
}

// What is synced survives, and the rest does not, in the strict reading.
func TestPowerLoss_Strict(t *testing.T) {
	big := strings.Repeat("x", 10_000)
	for _, tc := range []struct {
		name  string
		do    func(t *testing.T, dir string)
		check func(t *testing.T, dir string)
	}{
		{"nothing synced",
			func(t *testing.T, dir string) { write(t, dir+"/a", "1", false) },
			func(t *testing.T, dir string) { wantNames(t, dir) }},
		{"file synced, name not",
			func(t *testing.T, dir string) { write(t, dir+"/a", "1", true) },
			func(t *testing.T, dir string) { wantNames(t, dir) }},
		{"name synced, file not",
			func(t *testing.T, dir string) { write(t, dir+"/a", "1", false); syncDir(t, dir) },
			func(t *testing.T, dir string) { want(t, dir+"/a", "") }},
		{"both synced",
			func(t *testing.T, dir string) { write(t, dir+"/a", big, true); syncDir(t, dir) },
			func(t *testing.T, dir string) { want(t, dir+"/a", big) }},
		{"overwritten and grown",
			func(t *testing.T, dir string) {
				write(t, dir+"/a", big, true)
				syncDir(t, dir)
				f := open(t, dir+"/a", os.O_RDWR)
				_, err := f.WriteAt([]byte("other"), 5000)
				must(t, err)
				_, err = f.WriteAt([]byte("tail"), 20_000)
				must(t, err)
			},
			func(t *testing.T, dir string) { want(t, dir+"/a", big) }},
		{"written through",
			func(t *testing.T, dir string) {
				f := open(t, dir+"/a", os.O_WRONLY|os.O_CREATE|os.O_SYNC)
				_, err := f.WriteString(big)
				must(t, err)
				syncDir(t, dir)
			},
			func(t *testing.T, dir string) { want(t, dir+"/a", big) }},
		{"cut and written again",
			func(t *testing.T, dir string) {
				write(t, dir+"/a", big, true)
				syncDir(t, dir)
				write(t, dir+"/a", "short", false)
			},
			func(t *testing.T, dir string) { want(t, dir+"/a", big) }},
		{"replaced rightly",
			func(t *testing.T, dir string) {
				write(t, dir+"/a", "old", true)
				syncDir(t, dir)
				write(t, dir+"/tmp", "new", true)
				must(t, os.Rename(dir+"/tmp", dir+"/a"))
				syncDir(t, dir)
			},
			func(t *testing.T, dir string) { wantNames(t, dir, "a"); want(t, dir+"/a", "new") }},
		{"replaced, directory not synced",
			func(t *testing.T, dir string) {
				write(t, dir+"/a", "old", true)
				syncDir(t, dir)
				write(t, dir+"/tmp", "new", true)
				must(t, os.Rename(dir+"/tmp", dir+"/a"))
			},
			func(t *testing.T, dir string) { wantNames(t, dir, "a"); want(t, dir+"/a", "old") }},
		{"removed, directory not synced",
			func(t *testing.T, dir string) {
				write(t, dir+"/a", "old", true)
				syncDir(t, dir)
				must(t, os.Remove(dir+"/a"))
				write(t, dir+"/a", "another", true)
			},
			func(t *testing.T, dir string) { want(t, dir+"/a", "old") }},
		{"moved, one directory synced",
			func(t *testing.T, dir string) {
				must(t, os.Mkdir(dir+"/d", 0o755))
				write(t, dir+"/a", "1", true)
				syncDir(t, dir)
				must(t, os.Rename(dir+"/a", dir+"/d/b"))
				syncDir(t, dir+"/d")
			},
			func(t *testing.T, dir string) { want(t, dir+"/a", "1"); want(t, dir+"/d/b", "1") }},
		{"folder moved, one directory synced",
			func(t *testing.T, dir string) {
				must(t, os.MkdirAll(dir+"/from/x", 0o755))
				must(t, os.Mkdir(dir+"/to", 0o755))
				syncDir(t, dir)
				syncDir(t, dir+"/from")
				write(t, dir+"/from/before", "1", true)
				must(t, os.Rename(dir+"/from/x", dir+"/to/x"))
				write(t, dir+"/from/after", "1", true)
				syncDir(t, dir+"/to")
			},
			func(t *testing.T, dir string) { wantNames(t, dir+"/from", "before"); wantNames(t, dir+"/to", "x") }},
		{"tree removed, not synced",
			func(t *testing.T, dir string) {
				must(t, os.MkdirAll(dir+"/x/y", 0o755))
				write(t, dir+"/x/y/f", "1", true)
				for _, s := range []string{"", "/x", "/x/y"} {
					syncDir(t, dir+s)
				}
				must(t, os.RemoveAll(dir+"/x"))
			},
			func(t *testing.T, dir string) { want(t, dir+"/x/y/f", "1") }},
		{"linked, then the first name removed for good",
			func(t *testing.T, dir string) {
				must(t, os.Mkdir(dir+"/d", 0o755))
				write(t, dir+"/a", "1", true)
				must(t, os.Link(dir+"/a", dir+"/d/b"))
				syncDir(t, dir+"/d")
				must(t, os.Remove(dir+"/a"))
				syncDir(t, dir)
			},
			func(t *testing.T, dir string) { wantNames(t, dir, "d"); want(t, dir+"/d/b", "1") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, dir := mount(t)
			tc.do(t, dir)
			lose(t, d, 0)
			tc.check(t, dir)
			lose(t, d, 0) // what came back is durable
			tc.check(t, dir)
		})
	}
}

func TestPowerLoss_KeepsAll(t *testing.T) {
	d, dir := mount(t)
	must(t, os.Mkdir(dir+"/d", 0o755))
	write(t, dir+"/d/a", strings.Repeat("y", 9000), false)
	write(t, dir+"/d/b", "1", false)
	must(t, os.Remove(dir+"/d/b"))
	if loss := lose(t, d, 1); loss != (Loss{}) {
		t.Errorf("lost %+v", loss)
	}
	wantNames(t, dir+"/d", "a")
	want(t, dir+"/d/a", strings.Repeat("y", 9000))
}

func TestPowerLoss_Counts(t *testing.T) {
	d, dir := mount(t)
	write(t, dir+"/kept", "1234567", true)
	syncDir(t, dir)
	f := open(t, dir+"/kept", os.O_RDWR|os.O_APPEND)
	_, err := f.Write(make([]byte, 993))
	must(t, err)
	write(t, dir+"/new", "123", true)
	must(t, os.Rename(dir+"/new", dir+"/newer"))
	got := lose(t, d, 0)
	if want := (Loss{Bytes: 1000 + 3, Files: 1, Names: 2}); got != want {
		t.Errorf("loss %+v, want %+v", got, want)
	}
	c := d.Counters()
	if c.PowerLosses != 1 || c.Lost != got || c.BytesWritten != 7+993+3 || c.Syncs != 3 {
		t.Errorf("counters %+v", c)
	}
	// The kernel must have forgotten what it had cached.
	want(t, dir+"/kept", "1234567")
	if _, err := f.Stat(); err != nil {
		t.Errorf("a handle of what is left: %v", err)
	}
}

// Some writes of many survive, in no order, and some only in part.
func TestPowerLoss_TearsWrites(t *testing.T) {
	d, dir := mount(t)
	const pages = 400
	old, fresh := bytes.Repeat([]byte{1}, pageSize*pages), bytes.Repeat([]byte{2}, pageSize*pages)
	write(t, dir+"/a", string(old), true)
	syncDir(t, dir)
	f := open(t, dir+"/a", os.O_RDWR)
	_, err := f.WriteAt(fresh, 0)
	must(t, err)
	lose(t, d, 0.5)
	got, err := os.ReadFile(dir + "/a")
	must(t, err)
	var whole, lost, torn int
	for i := 0; i < len(got); i += pageSize {
		switch n := bytes.Count(got[i:i+pageSize], []byte{2}); n {
		case pageSize:
			whole++
		case 0:
			lost++
		default:
			torn++
			if n%sectorSize != 0 {
				t.Errorf("page %d: a torn sector", i/pageSize)
			}
		}
	}
	if min(whole, lost, torn) < pages/10 {
		t.Errorf("%d pages whole, %d lost, %d torn", whole, lost, torn)
	}
}

func TestUnmount_PutsBack(t *testing.T) {
	base := t.TempDir()
	mnt, backing := base+"/mnt", base+"/backing"
	d, dir := mountAt(t, mnt, backing)
	must(t, os.MkdirAll(dir+"/d/e", 0o700))
	write(t, dir+"/d/a", "1", false)
	must(t, os.Link(dir+"/d/a", dir+"/d/e/b"))
	write(t, dir+"/gone", "2", true)
	syncDir(t, dir)
	must(t, os.Remove(dir+"/gone"))
	must(t, d.Unmount())
	want(t, backing+"/tree/d/a", "1")
	wantNames(t, backing+"/tree", "d")
	wantNames(t, backing, "tree")

	d, dir = mountAt(t, mnt, backing)
	lose(t, d, 0)
	want(t, dir+"/d/e/b", "1")
	if _, err := Mount(Options{Dir: t.TempDir(), Backing: backing, Logger: slog.New(slog.DiscardHandler)}); !errors.Is(err, ErrNotPutBack) {
		t.Errorf("a second mount: %v", err)
	}
}

// A process in a stalled write and one with an open file do not stop Unmount.
func TestUnmount_Busy(t *testing.T) {
	d, dir := mount(t)
	f := open(t, dir+"/a", os.O_RDWR|os.O_CREATE)
	_, err := d.Inject(Fault{Kind: Stall, Ops: Write})
	must(t, err)
	done := make(chan error)
	go func() {
		_, err := f.Write([]byte("1"))
		done <- err
	}()
	for d.Counters().Stalled == 0 {
		time.Sleep(time.Millisecond)
	}
	must(t, d.Unmount())
	if err := <-done; err == nil {
		t.Error("the stalled write succeeded")
	}
	if _, err := f.Write([]byte("2")); err == nil {
		t.Error("a write after Unmount succeeded")
	}
}
