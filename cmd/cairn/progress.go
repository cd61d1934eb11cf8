package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// progress shows on a terminal how far an import or export is, in one line
// that is written over again and again. Elsewhere it shows nothing.
type progress struct {
	w     io.Writer
	size  int64 // bytes of the file, 0 = not known
	shown bool  // on a terminal
	begin time.Time

	mu   sync.Mutex
	next time.Time // owned by mu, as is the rest: when to draw again
	line string    // what is drawn
}

func newProgress(w io.Writer, size int64) *progress {
	return &progress{w: w, size: size, shown: isTerminal(w), begin: time.Now()}
}

// update says how many lines are done and where in the file the last one ended.
func (p *progress) update(lines int, offset int64) {
	now := time.Now()
	if !p.shown {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Before(p.next) {
		return
	}
	p.next = now.Add(100 * time.Millisecond)
	p.drawLocked(progressLine(lines, offset, p.size, now.Sub(p.begin)))
}

// progressLine says how far it is, how fast it goes and how long it will take.
func progressLine(lines int, offset, size int64, took time.Duration) string {
	s := fmt.Sprintf("%s lines, %s/s", thousands(lines), thousands(int(float64(lines)/max(took.Seconds(), 0.001))))
	if size == 0 || offset == 0 {
		return s
	}
	part := float64(offset) / float64(size)
	bar := strings.Repeat("█", int(part*20)) + strings.Repeat("░", 20-int(part*20))
	left := time.Duration(float64(took) * (1/part - 1)).Round(time.Second)
	return fmt.Sprintf("%s %3.0f %%  %s, %s left", bar, part*100, s, left)
}

// show draws a text.
func (p *progress) show(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		p.drawLocked(line)
	}
}

// say writes a line of its own.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := p.line
	p.drawLocked("")
	fmt.Fprintf(p.w, "cairn: "+format+"\n", args...)
	p.drawLocked(line)
}

// clear takes the progress off the screen.
func (p *progress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drawLocked("")
}

func (p *progress) drawLocked(line string) {
	if p.shown && (line != "" || p.line != "") {
		fmt.Fprint(p.w, "\r\x1b[K"+line)
	}
	p.line = line
}

// every draws what line returns, some times a second, until stop is called.
func (p *progress) every(line func() string) (stop func()) {
	ending, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-time.After(100 * time.Millisecond):
				p.show(line())
			case <-ending:
				p.clear()
				return
			}
		}
	}()
	return func() {
		close(ending)
		<-ended
	}
}
