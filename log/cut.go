package eventlog

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// cut is what Open has found that Cut is to change.
type cut struct {
	remove  []string // files that hold nothing up to P
	rewrite bool     // the active segment goes on after P
	footer  bool     // P ends a sealed segment, whose footer may not be durable
}

// Cut removes everything after Options.Through, durably, and makes the log
// ready to be written. Without it nothing is written; a second call does
// nothing. Any error is the end of writing.
//
// The order of its steps does not matter to a crash: whatever is left stands
// after P and is cut the next time. All of it is durable before the first
// Append, so that nothing that was cut can come back beside what is new.
func (l *Log) Cut() error {
	if err := l.writable(); err != nil || l.todo == nil {
		return err
	}
	if err := l.cut(); err != nil {
		return l.poison(fmt.Errorf("cut event log after position %d: %w", l.options.Through, err))
	}
	if len(l.todo.remove) > 0 || l.todo.rewrite {
		l.logger.Info("event log cut", "position", l.options.Through, "removed_files", len(l.todo.remove),
			"tail_index", l.tailIndex)
	}
	l.todo = nil
	l.flusher = startFlusher(l)
	return nil
}

func (l *Log) cut() error {
	for i := len(l.todo.remove) - 1; i >= 0; i-- {
		if err := l.dir.remove(l.todo.remove[i]); err != nil {
			return err
		}
	}
	if l.todo.rewrite {
		if err := l.rewrite(l.active); err != nil {
			return err
		}
	}
	if l.todo.footer {
		if err := l.rewriteFooter(l.segments[len(l.segments)-1]); err != nil {
			return err
		}
	}
	if err := l.dir.sync(); err != nil {
		return err
	}
	if l.active == nil {
		return nil
	}
	f, err := l.dir.open(SegmentName(l.active.base))
	if err != nil {
		return err
	}
	l.file = f
	l.handles.drop(l.active.base) // a reader may have opened what the copy has replaced
	return l.pinActive()
}

// rewrite puts a copy of the file that ends with the segment's frames in its
// place: a file cannot be cut shorter through the file system interface, and
// must not be if another generation links to it.
func (l *Log) rewrite(s *segment) error {
	name := SegmentName(s.base)
	temp := name + tempSuffix
	from := segmentReader{l.handles, s.base}
	to, err := l.dir.fs.Create(l.dir.join(temp), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	buf := make([]byte, min(chunkSize, s.end))
	for off := int64(0); off < s.end && err == nil; off += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), s.end-off)]
		if err = readFull(from, buf, off); err == nil {
			_, err = to.Write(buf)
		}
	}
	if err == nil {
		err = to.Sync()
	}
	if cerr := to.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	return l.dir.rename(temp, name)
}

// rewriteFooter writes the footer that Open has read once more and syncs it.
// It may have been written after the sync that made P durable, or that of an
// earlier process may have gone wrong: read from memory, but not on disk.
func (l *Log) rewriteFooter(s *segment) error {
	f, err := l.dir.open(SegmentName(s.base))
	if err != nil {
		return err
	}
	b := make([]byte, s.size-s.end)
	if err = readFull(f, b, s.end); err == nil {
		_, err = f.WriteAt(b, s.end)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("rewrite the footer of %s: %w", SegmentName(s.base), err)
	}
	return nil
}
