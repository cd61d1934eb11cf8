package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	overheadGoal = 180       // bytes per event besides payload and tags
	raftGoal     = 256 << 20 // bytes of Raft's log
)

// usage is what a node's folder takes on disk, in bytes.
type usage struct {
	log, state int64 // segments, and the index
	raft       int64 // Raft's own log
	snapshots  int64 // files that only a snapshot still holds, and other odds and ends
}

// measureDisk takes a snapshot first, so that all that was applied is counted,
// and gives the index a moment to drop what that has replaced.
func (b *bench) measureDisk(ctx context.Context) ([]line, error) {
	_, saved := b.snapshot(ctx)
	if err := ignoreNoSnapshots(saved); err != nil {
		return nil, err
	}
	time.Sleep(2 * time.Second)
	u, err := usageOf(b.c.leader.dir)
	if err != nil {
		return nil, err
	}
	position, err := b.position(ctx)
	if err != nil {
		return nil, err
	}
	n := float64(position)
	payload := float64(b.s.size) + float64(b.tagBytes.Load())/float64(b.sent())
	each := float64(u.log+u.state) / n
	raft := b.watch.takeRaft()
	lines := []line{{
		Name: "disk per event", Goal: "payload + tags + at most 180 bytes",
		Text: fmt.Sprintf("%.0f bytes: log %.0f, index %.0f; payload and tags %.0f, overhead %.0f; held by snapshots alone %s",
			each, float64(u.log)/n, float64(u.state)/n, payload, each-payload, mib(u.snapshots)),
		Values: map[string]float64{
			"log_bytes": float64(u.log), "state_bytes": float64(u.state), "snapshot_bytes": float64(u.snapshots),
			"payload_per_event": payload, "overhead_per_event": each - payload,
		},
		Verdict: verdict(each-payload <= overheadGoal),
	}, {
		Name: "Raft's log on disk, most since the row before", Goal: "at most 256 MiB", Text: mib(raft),
		Values: map[string]float64{"bytes": float64(raft)}, Verdict: verdict(raft <= raftGoal),
	}}
	if saved != nil {
		lines[0].Text += "; " + saved.Error() + ", so that part of the index may be in memory only"
		lines[0].Verdict = ""
	}
	return lines, nil
}

// inode tells files apart, whatever their names.
type inode struct{ device, number uint64 }

// usageOf adds up the blocks of a node's files. A file with several names counts
// once, for the log or the state if one of them is there.
func usageOf(dir string) (usage, error) {
	var u usage
	seen := map[inode]bool{}
	raft := filepath.Join(dir, "raft", "wal")
	for _, live := range []bool{true, false} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if gone(err) || err == nil && d.IsDir() {
				return nil
			}
			if err != nil {
				return err
			}
			parent := filepath.Base(filepath.Dir(path))
			within := strings.HasPrefix(filepath.Base(filepath.Dir(filepath.Dir(path))), "gen-")
			to := &u.snapshots
			switch {
			case within && parent == "log":
				to = &u.log
			case within && parent == "state":
				to = &u.state
			case filepath.Dir(path) == raft:
				to = &u.raft
			}
			if live == (to == &u.snapshots) {
				return nil
			}
			info, err := d.Info()
			if err != nil {
				return ignoreGone(err)
			}
			st, ok := info.Sys().(*syscall.Stat_t)
			if !ok {
				return errors.ErrUnsupported
			}
			if key := (inode{uint64(st.Dev), st.Ino}); !seen[key] {
				seen[key] = true
				*to += st.Blocks * 512
			}
			return nil
		})
		if err != nil {
			return u, fmt.Errorf("size of %s: %w", dir, err)
		}
	}
	return u, nil
}

// gone reports whether a file was deleted between two looks at it, as those of a
// running node are.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func ignoreGone(err error) error {
	if gone(err) {
		return nil
	}
	return err
}

// raftBytes is what Raft's log takes on the node that has most of it. Any
// goroutine may call it.
func (b *bench) raftBytes() int64 {
	most := int64(0)
	for _, p := range b.c.nodes {
		files, err := filepath.Glob(filepath.Join(p.dir, "raft", "wal", "*"))
		if err != nil {
			continue
		}
		sum := int64(0)
		for _, path := range files {
			var st syscall.Stat_t
			if syscall.Stat(path, &st) == nil {
				sum += st.Blocks * 512
			}
		}
		most = max(most, sum)
	}
	return most
}
