package eventlog

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

func flushedLog(t *testing.T, fs vfs.FS, flush int64, onError func(error)) *Log {
	t.Helper()
	l, err := Open(Options{FS: fs, Dir: "log", Flush: flush, OnError: onError})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Cut(); err != nil {
		t.Fatal(err)
	}
	if err := l.Create(testID, 1<<20); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestFlusher_SyncsInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewCrashableMem()
		l := flushedLog(t, mem, 1000, nil)
		defer closeTest(t, l)
		for i, f := range testScript(1, 40, 2) {
			appendFrames(t, l, []testFrame{f})
			synctest.Wait()
			if l.Unsynced() > 1000+600 {
				t.Fatalf("%d bytes not synced after frame %d", l.Unsynced(), i)
			}
		}
		if s := l.Stats(); s.Syncs < 5 {
			t.Errorf("%d syncs of %d bytes", s.Syncs, s.Bytes)
		}
		// The directory is left to Sync.
		if names, _ := mem.CrashClone(vfs.CrashCloneCfg{}).List("log"); len(names) != 0 {
			t.Errorf("the file's name is durable: %v", names)
		}
	})
}

func TestFlusher_Never(t *testing.T) {
	l := flushedLog(t, vfs.NewMem(), -1, nil)
	appendFrames(t, l, testScript(1, 40, 2))
	if s := l.Stats(); s.Syncs != 0 {
		t.Errorf("%d syncs", s.Syncs)
	}
	closeTest(t, l)
}

func TestFlusher_ErrorPoisons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail := errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpFileSyncData {
				return errorfs.ErrInjected
			}
			return nil
		})
		var reported []error
		l := flushedLog(t, errorfs.Wrap(vfs.NewMem(), fail), 1000, func(err error) { reported = append(reported, err) })
		defer closeTest(t, l)
		frames := testScript(1, 40, 2)
		var b FrameBuilder
		var err error
		n := 0
		for ; err == nil && n < len(frames); n++ {
			frames[n].build(&b)
			err = l.Append(&b)
			synctest.Wait()
		}
		if !errors.Is(err, ErrPoisoned) || !errors.Is(err, errorfs.ErrInjected) {
			t.Fatalf("Append = %v", err)
		}
		if err := l.Sync(l.Last()); !errors.Is(err, ErrPoisoned) {
			t.Errorf("Sync = %v", err)
		}
		if len(reported) != 1 || !errors.Is(reported[0], errorfs.ErrInjected) || !strings.Contains(reported[0].Error(), SegmentName(1)) {
			t.Errorf("reported %v", reported)
		}
		checkLog(t, l, allEvents(frames[:n-1]))
	})
}
