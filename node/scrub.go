package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"cairn/client"
	"cairn/fsm"
	eventlog "cairn/log"
	"cairn/snapshot"
)

const (
	scrubRate  = 8 << 20 // bytes a second, if Options has none
	scrubPiece = 256 << 10
	// scrubPause is the time between two passes over the log, and from a segment
	// that could not be repaired until it is looked at again.
	scrubPause = time.Minute
)

// scrubber reads the sealed segments of the log, slowly and for ever, to find
// what the disk has lost before a reader does. A damaged one is fetched from
// another node.
type scrubber struct {
	machine *fsm.Machine
	fs      vfs.FS
	dir     string // where a segment arrives; start-up removes it
	peers   func() map[string]string
	http    *http.Transport
	logger  *slog.Logger
	every   time.Duration // scrubPause, but in tests

	ctx     context.Context
	cancel  context.CancelFunc
	limit   *rate.Limiter
	running sync.WaitGroup

	bytes, passes, damaged, repaired atomic.Uint64
}

func startScrubber(s *scrubber, bytesPerSecond int64) *scrubber {
	if bytesPerSecond == 0 {
		bytesPerSecond = scrubRate
	}
	if s.every == 0 {
		s.every = scrubPause
	}
	s.limit = rate.NewLimiter(rate.Limit(bytesPerSecond), scrubPiece)
	s.http = &http.Transport{ResponseHeaderTimeout: 10 * time.Second, DisableCompression: true, IdleConnTimeout: time.Minute}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.running.Go(s.run)
	return s
}

// close ends the pass under way.
func (s *scrubber) close() {
	s.cancel()
	s.running.Wait()
	s.http.CloseIdleConnections()
}

func (s *scrubber) run() {
	for s.ctx.Err() == nil {
		for _, segment := range s.machine.DurableSegments() {
			if s.ctx.Err() != nil {
				return
			}
			s.scrub(segment.Name)
		}
		s.passes.Add(1)
		s.pause(s.every)
	}
}

func (s *scrubber) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.ctx.Done():
	}
}

// scrub reads one segment, and repairs it if it is damaged.
func (s *scrubber) scrub(name string) {
	err := s.machine.VerifySegment(slowFS{s.fs, s}, name)
	switch {
	case s.ctx.Err() != nil, errors.Is(err, eventlog.ErrNotFound): // an install has replaced the log
		return
	case err == nil:
		return
	case !lost(err):
		s.logger.Warn("segment not read by the scrubber", "segment", name, "error", err)
		return
	}
	s.damaged.Add(1)
	s.logger.Error("segment is damaged", "segment", name, "error", err)
	if err := s.repair(name); err != nil {
		if s.ctx.Err() == nil {
			s.logger.Error("segment not repaired: the node ends when it is read", "segment", name, "error", err)
		}
		return
	}
	s.repaired.Add(1)
	s.logger.Info("segment repaired", "segment", name)
}

// lost reports whether an error means that the disk no longer has a segment as
// it was written. A disk that knows of its loss says so with EIO.
func lost(err error) bool {
	var damage *eventlog.CorruptError
	return errors.As(err, &damage) || errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.EIO)
}

// repair fetches a segment from the other nodes in turn.
func (s *scrubber) repair(name string) error {
	if err := s.fs.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("remove %s: %w", s.dir, err)
	}
	if err := snapshot.MakeDir(s.fs, s.dir, 0o755); err != nil {
		return err
	}
	peers := s.peers()
	urls := slices.Sorted(maps.Values(peers))
	if len(urls) == 0 {
		return errNoPeers
	}
	size, err := s.sizeOf(name)
	if err != nil {
		return err
	}
	path := s.fs.PathJoin(s.dir, name)
	d := snapshot.Download{
		FS: s.fs, Path: path, Part: path + ".part", Size: size,
		Open: func(ctx context.Context, offset int64, attempt int) (io.ReadCloser, error) {
			files, err := client.NewFiles(urls[attempt%len(urls)], s.http)
			if err != nil {
				return nil, err
			}
			return files.Segment(ctx, name, offset, size)
		},
		Verify: func() error { return s.machine.ReplaceSegment(name, path) },
	}
	return errors.Join(d.Run(s.ctx, new(snapshot.Progress)), s.fs.RemoveAll(s.dir))
}

func (s *scrubber) sizeOf(name string) (int64, error) {
	for _, segment := range s.machine.DurableSegments() {
		if segment.Name == name {
			return segment.Size, nil
		}
	}
	return 0, fmt.Errorf("segment %s: %w", name, eventlog.ErrNotFound)
}

// collectors are the scrubber's figures.
func (s *scrubber) collectors() []prometheus.Collector {
	counter := func(name, help string, value *atomic.Uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value.Load()) })
	}
	return []prometheus.Collector{
		counter("cairn_scrub_bytes_total", "Bytes of sealed segments that were read to find damage.", &s.bytes),
		counter("cairn_scrub_passes_total", "Times that all sealed segments were read.", &s.passes),
		counter("cairn_scrub_damaged_segments_total", "Segments that were found damaged.", &s.damaged),
		counter("cairn_scrub_repaired_segments_total", "Damaged segments that were replaced by another node's.", &s.repaired),
	}
}

// slowFS is a file system whose files are read no faster than the scrubber may,
// and from the disk, not from the page cache.
type slowFS struct {
	vfs.FS
	scrubber *scrubber
}

// Open opens a file for reading.
func (f slowFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.Open(name, opts...)
	if err != nil {
		return nil, err
	}
	dropCache(file)
	return slowFile{file, f.scrubber}, nil
}

type slowFile struct {
	vfs.File
	scrubber *scrubber
}

// Read reads on.
func (f slowFile) Read(p []byte) (int, error) {
	p = p[:min(len(p), scrubPiece)]
	if err := f.scrubber.wait(len(p)); err != nil {
		return 0, err
	}
	return f.File.Read(p)
}

// ReadAt reads from an offset on.
func (f slowFile) ReadAt(p []byte, off int64) (int, error) {
	for at := 0; at < len(p); at += scrubPiece {
		if err := f.scrubber.wait(min(len(p)-at, scrubPiece)); err != nil {
			return 0, err
		}
	}
	return f.File.ReadAt(p, off)
}

// wait returns when n bytes more may be read.
func (s *scrubber) wait(n int) error {
	s.bytes.Add(uint64(n))
	return s.limit.WaitN(s.ctx, n)
}
