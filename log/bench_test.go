package eventlog

import (
	"bytes"
	"fmt"
	"testing"

	"cairn/event"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// benchFrame makes a frame of n events with 256 bytes of data each.
func benchFrame(n int) testFrame {
	var f testFrame
	for i := range n {
		f.events = append(f.events, event.Event{
			Version: 1, Stream: "account-4711", Type: "FundsDeposited",
			ID: "018bcfe5-6800-7000-8000-0000000000ff", Tags: []string{"customer:17"},
			Data: bytes.Repeat([]byte{'7'}, 256), AppendSize: uint32(n), AppendPlace: uint32(i),
		})
	}
	return f
}

// benchLog opens a log in a folder on disk.
func benchLog(b *testing.B) *Log {
	b.Helper()
	l, err := Open(Options{FS: vfs.Default, Dir: b.TempDir() + "/log"})
	if err != nil {
		b.Fatal(err)
	}
	if err := l.Cut(); err != nil {
		b.Fatal(err)
	}
	if err := l.Create(testID, 64<<20); err != nil {
		b.Fatal(err)
	}
	return l
}

func (f *testFrame) appendNext(b *testing.B, l *Log, frame *FrameBuilder) {
	next := l.Last() + 1
	frame.Reset(next, 1, next, 5)
	for i := range f.events {
		f.events[i].Position, f.events[i].Time = next+uint64(i), 5
		frame.Add(&f.events[i], [16]byte{1})
	}
	if err := l.Append(frame); err != nil {
		b.Fatal(err)
	}
}

// One operation is one event.
func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprintf("frame=%d", n), func(b *testing.B) {
			l := benchLog(b)
			f := benchFrame(n)
			var frame FrameBuilder
			b.ReportAllocs()
			for i := 0; i < b.N; i += n {
				f.appendNext(b, l, &frame)
			}
			b.StopTimer()
			closeTest(b, l)
		})
	}
}

func BenchmarkRead(b *testing.B) {
	const events = 20_000
	l := benchLog(b)
	defer closeTest(b, l)
	f := benchFrame(100)
	var frame FrameBuilder
	for l.Last() < events {
		f.appendNext(b, l, &frame)
	}
	b.Run("point", func(b *testing.B) {
		b.ReportAllocs()
		for i := range uint64(b.N) {
			if _, err := l.Read(1 + i*7919%events); err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, scan := range map[string]func() *Scanner{
		"up": func() *Scanner { return l.Scan(1) }, "down": func() *Scanner { return l.ScanBack(events) },
	} {
		b.Run("scan="+name, func(b *testing.B) {
			b.ReportAllocs()
			s := scan()
			for range b.N {
				if !s.Next() {
					if s.Err() != nil {
						b.Fatal(s.Err())
					}
					s.Close()
					s = scan()
				}
			}
			s.Close()
		})
	}
}
