package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"syscall"
	"time"
)

const (
	scanGoal    = 800_000 // events/s
	scanBuffer  = 1 << 20
	scanTimeout = 10 * time.Minute
	ndjson      = "application/x-ndjson"
)

// measureScan reads the whole log twice and tells of the better one: the first
// finds less of it in the page cache.
func (b *bench) measureScan(ctx context.Context) ([]line, error) {
	best, client, events, bytes := 0.0, 0.0, 0, int64(0)
	for range 2 {
		begun, used := time.Now(), processorTime()
		lines, size, err := b.scan(ctx)
		if err != nil {
			return nil, err
		}
		took := time.Since(begun)
		if rate := float64(lines) / took.Seconds(); rate > best {
			best, client = rate, (processorTime()-used).Seconds()/took.Seconds()
		}
		events, bytes = lines, size
	}
	if want, err := b.position(ctx); err != nil || events != want || events == 0 {
		return nil, errors.Join(err, fmt.Errorf("%d events came of %d", events, want))
	}
	return []line{{
		Name: "full scan, NDJSON, one connection", Goal: "≥ 800,000 events/s",
		Text:   fmt.Sprintf("%s events/s of %d bytes each; the client took %.0f %% of a core", count(best), bytes/int64(events), 100*client),
		Values: map[string]float64{"rate": best, "bytes": float64(bytes), "client_cores": client}, Verdict: verdict(best >= scanGoal),
	}}, nil
}

// processorTime is what this program has used so far.
func processorTime() time.Duration {
	var used syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &used) != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// position is that of the leader's last event.
func (b *bench) position(ctx context.Context) (int, error) {
	values, err := b.c.scrape(ctx, b.c.leader)
	return int(values[metricPosition]), err
}

// scan returns how many lines and bytes a read of the whole log gives.
func (b *bench) scan(ctx context.Context) (lines int, size int64, err error) {
	c, err := dial(ctx, b.c.leader.http)
	if err != nil {
		return 0, 0, err
	}
	defer c.close()
	stop := context.AfterFunc(ctx, c.close)
	defer stop()
	h, err := c.begin(getRequest(b.c.leader.http, "/v1/events", ndjson), scanTimeout)
	if err != nil {
		return 0, 0, err
	}
	if h.status != 200 || !h.chunked {
		return 0, 0, fmt.Errorf("a scan was answered with status %d, chunked: %v", h.status, h.chunked)
	}
	return countLines(c.r, make([]byte, scanBuffer))
}

// countLines reads a chunked body to its end and counts its lines and bytes. It
// looks at the bytes where they were read to, and copies none: the server is to
// be measured, not the client. The buffer must have room for the line before a
// chunk.
func countLines(r io.Reader, buffer []byte) (lines int, size int64, err error) {
	left := 0 // of the chunk
	have := 0 // bytes in the buffer that are yet to be looked at
	for {
		n, err := r.Read(buffer[have:])
		if n == 0 && err != nil {
			return lines, size, fmt.Errorf("the answer ended early: %w", err)
		}
		b := buffer[:have+n]
		for {
			part := b[:min(left, len(b))]
			lines += bytes.Count(part, newline)
			size += int64(len(part))
			left -= len(part)
			b = b[len(part):]
			if left > 0 {
				break
			}
			next, rest, ok, err := chunkLine(b)
			if err != nil {
				return lines, size, err
			}
			if !ok {
				break
			}
			if next == 0 {
				return lines, size, nil
			}
			left, b = next, rest
		}
		have = copy(buffer, b)
		if have == len(buffer) {
			return lines, size, errors.New("a line before a chunk is too long")
		}
	}
}

var newline = []byte("\n")

// chunkLine reads the line before a chunk, behind the end of the one before if
// there was one. ok is false if b does not have all of it.
func chunkLine(b []byte) (size int, rest []byte, ok bool, err error) {
	b = bytes.TrimPrefix(b, []byte("\r\n"))
	line, rest, ok := bytes.Cut(b, []byte("\r\n"))
	if !ok || len(line) == 0 {
		return 0, b, false, nil
	}
	n, err := strconv.ParseUint(string(line), 16, 31)
	if err != nil {
		return 0, nil, false, fmt.Errorf("the line before a chunk: %w", err)
	}
	return int(n), rest, true, nil
}
