//go:build linux

package disk

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func inject(t *testing.T, d *Disk, f Fault) (release func()) {
	t.Helper()
	release, err := d.Inject(f)
	must(t, err)
	return release
}

// wantErrno checks an error; 0 is none.
func wantErrno(t *testing.T, what string, got error, want unix.Errno) {
	t.Helper()
	if want == 0 && got != nil || want != 0 && !errors.Is(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestFault_EIO(t *testing.T) {
	d, dir := mount(t)
	write(t, dir+"/a.log", "1234", true)
	write(t, dir+"/b", "1234", true)
	write(t, dir+"/other", "1234", true)
	f := open(t, dir+"/a.log", os.O_RDWR)
	buf := make([]byte, 4)
	for _, tc := range []struct {
		op Ops
		do func() error
	}{
		{Read, func() error { _, err := f.ReadAt(buf, 0); return err }},
		{Write, func() error { _, err := f.WriteAt(buf, 0); return err }},
		{Write, func() error { return f.Truncate(10) }},
		{Write, func() error { return unix.Fallocate(int(f.Fd()), 0, 0, 100) }},
		{Sync, f.Sync},
		{Names, func() error { return os.Rename(dir+"/b", dir+"/b.log") }},
		{Names, func() error { return os.Link(dir+"/b.log", dir+"/l.log") }},
		{Names, func() error { return os.Mkdir(dir+"/c.log", 0o755) }},
	} {
		before := d.Counters().Failed
		release := inject(t, d, Fault{Kind: EIO, Ops: tc.op, Glob: "*.log"})
		wantErrno(t, "with the fault", tc.do(), unix.EIO)
		if d.Counters().Failed == before {
			t.Errorf("ops %b: not counted", tc.op)
		}
		want(t, dir+"/other", "1234")
		release()
		release()
		wantErrno(t, "after the fault", tc.do(), 0)
	}
}

// Fsyncgate: what a failed fsync should have written is lost though the next
// fsync succeeds, and is safe once it is written again.
func TestFault_FailedSync(t *testing.T) {
	for _, again := range []bool{false, true} {
		d, dir := mount(t)
		write(t, dir+"/a", strings.Repeat("o", 3*pageSize), true)
		syncDir(t, dir)
		f := open(t, dir+"/a", os.O_RDWR)
		put := func(s string, at int64) {
			_, err := f.WriteAt([]byte(s), at)
			must(t, err)
		}
		put("doomed", 0)
		release := inject(t, d, Fault{Kind: EIO, Ops: Sync})
		wantErrno(t, "fsync", f.Sync(), unix.EIO)
		release()
		put("safe", pageSize)
		if again {
			put("d", 0)
		}
		must(t, f.Sync())
		first := "doomed"
		want(t, dir+"/a", first+strings.Repeat("o", pageSize-6)+"safe"+strings.Repeat("o", 2*pageSize-4))
		lose(t, d, 1)
		if !again {
			first = "oooooo"
		}
		want(t, dir+"/a", first+strings.Repeat("o", pageSize-6)+"safe"+strings.Repeat("o", 2*pageSize-4))
	}
}

// A failed fsync after a cut: the cut is in the journal of the next, the bytes
// are in neither.
func TestFault_FailedSyncAfterCut(t *testing.T) {
	d, dir := mount(t)
	write(t, dir+"/a", strings.Repeat("o", 2*pageSize), true)
	syncDir(t, dir)
	f := open(t, dir+"/a", os.O_RDWR)
	must(t, f.Truncate(100))
	_, err := f.WriteAt([]byte(strings.Repeat("n", pageSize)), 0)
	must(t, err)
	release := inject(t, d, Fault{Kind: EIO, Ops: Sync})
	wantErrno(t, "fsync", f.Sync(), unix.EIO)
	release()
	must(t, f.Sync())
	lose(t, d, 1)
	want(t, dir+"/a", strings.Repeat("o", 100)+strings.Repeat("\x00", pageSize-100))
}

func TestFault_NoSpace(t *testing.T) {
	d, dir := mount(t)
	write(t, dir+"/old", strings.Repeat("1", 5000), true)
	release := inject(t, d, Fault{Kind: NoSpace, Free: 10_000})
	f := open(t, dir+"/a", os.O_RDWR|os.O_CREATE)
	n, err := f.Write(make([]byte, 12_000))
	if n != 10_000 {
		t.Errorf("wrote %d", n)
	}
	wantErrno(t, "write", err, unix.ENOSPC)
	wantErrno(t, "allocate", unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 20_000), unix.ENOSPC)
	_, err = f.WriteAt(make([]byte, 10_000), 0)
	wantErrno(t, "overwrite", err, 0)
	must(t, os.Remove(dir+"/old"))
	syncDir(t, dir) // only now can nothing bring it back
	must(t, f.Truncate(9000))
	_, err = f.WriteAt(make([]byte, 6000), 9000)
	wantErrno(t, "write into what was freed", err, 0)
	var s unix.Statfs_t
	must(t, unix.Statfs(dir, &s))
	if s.Bavail != 0 {
		t.Errorf("%d blocks free", s.Bavail)
	}
	release()
	_, err = f.Write(make([]byte, 100_000))
	wantErrno(t, "after the fault", err, 0)
	if c := d.Counters(); c.NoSpace < 2 {
		t.Errorf("counters %+v", c)
	}
}

func TestFault_Torn(t *testing.T) {
	d, dir := mount(t)
	write(t, dir+"/a", strings.Repeat("o", 4096), true)
	want(t, dir+"/a", strings.Repeat("o", 4096)) // into the kernel's cache
	f := open(t, dir+"/a", os.O_RDWR)
	release := inject(t, d, Fault{Kind: Torn, Glob: "a"})
	_, err := f.WriteAt([]byte(strings.Repeat("n", 4096)), 0)
	wantErrno(t, "write", err, unix.EIO)
	release()
	f.Close()
	want(t, dir+"/a", strings.Repeat("n", 2048)+strings.Repeat("o", 2048))
	if c := d.Counters(); c.Torn != 1 {
		t.Errorf("counters %+v", c)
	}
}

func TestFault_Stall(t *testing.T) {
	d, dir := mount(t)
	f := open(t, dir+"/a", os.O_RDWR|os.O_CREATE)

	slow := inject(t, d, Fault{Kind: Stall, Ops: Sync, For: 30 * time.Millisecond})
	begin := time.Now()
	must(t, f.Sync())
	if took := time.Since(begin); took < 30*time.Millisecond {
		t.Errorf("a slow fsync took %v", took)
	}
	slow()

	stall := func() (release func(), done chan error) {
		release = inject(t, d, Fault{Kind: Stall, Ops: Write})
		before := d.Counters().Stalled
		done = make(chan error)
		go func() {
			_, err := f.WriteAt([]byte("1"), 0)
			done <- err
		}()
		for d.Counters().Stalled == before {
			time.Sleep(time.Millisecond)
		}
		return release, done
	}
	release, done := stall()
	want(t, dir+"/a", "") // others go on
	release()
	wantErrno(t, "a released write", <-done, 0)
	want(t, dir+"/a", "1")

	syncDir(t, dir)
	release, done = stall()
	lose(t, d, 0)
	wantErrno(t, "a write when the power went", <-done, unix.ECANCELED)
	release()
	want(t, dir+"/a", "")
}

// A process that hangs in a stalled operation can be killed.
func TestFault_StallKilled(t *testing.T) {
	d, dir := mount(t)
	release := inject(t, d, Fault{Kind: Stall, Ops: Write})
	defer release()
	cmd, _ := launch(t, "stalled", dir)
	for d.Counters().Stalled == 0 {
		time.Sleep(time.Millisecond)
	}
	must(t, cmd.Process.Kill())
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Error(err)
	}
	want(t, dir+"/a", "")
}

func TestFlipBit(t *testing.T) {
	d, dir := mount(t)
	text := strings.Repeat("o", 3*pageSize)
	write(t, dir+"/a", text, true)
	write(t, dir+"/b", text, true)
	syncDir(t, dir)
	want(t, dir+"/a", text) // into the kernel's cache
	f := open(t, dir+"/a", os.O_RDWR)
	_, err := f.WriteAt([]byte("unsynced"), 0)
	must(t, err)
	rotten, rng := []byte(text), seeded(t)
	for range 30 {
		flip, err := d.FlipBit(rng, "a")
		must(t, err)
		if flip.Path != "a" || flip.Offset < pageSize || flip.Offset >= 3*pageSize {
			t.Errorf("flip %+v", flip)
		}
		rotten[flip.Offset] ^= 1 << flip.Bit
	}
	lose(t, d, 0)
	want(t, dir+"/a", string(rotten))
	want(t, dir+"/b", text)
	if _, err := d.FlipBit(seeded(t), "c*"); !errors.Is(err, ErrNothingToFlip) {
		t.Errorf("no file: %v", err)
	}
	if _, err := d.FlipBit(seeded(t), "["); err == nil {
		t.Error("a bad glob was taken")
	}
}
