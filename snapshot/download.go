package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// downloadAttempts is how often a file is asked for, without a byte of it
// coming, before it is given up; downloadPause the time between two attempts of
// one who has patience.
const (
	downloadAttempts = 5
	downloadPause    = 250 * time.Millisecond
)

// Progress counts the bytes of downloads. Any goroutine may read it.
type Progress struct {
	Total   atomic.Int64 // of all files that this node did not have
	Fetched atomic.Int64 // of them, those that are here
}

// Download brings one file here, over faults of whoever sends it and across
// restarts: it goes on where it was broken off.
type Download struct {
	FS   vfs.FS
	Path string // of the complete file
	Part string // of what has come of it until then, on the same file system
	Size int64  // of the file, in bytes
	// Open reads the file from offset on. attempt counts from 0: a source with
	// several senders asks another one each time.
	Open func(ctx context.Context, offset int64, attempt int) (io.ReadCloser, error)
	// Patience is how long to go on asking while nothing comes. 0 = not longer than
	// a few attempts at once take.
	Patience time.Duration
	// Verify checks the complete file at Path. When it fails the file is fetched
	// anew, all of it.
	Verify func() error
}

// Run returns nil when the file is complete, verified and synced; its name is
// the caller's to sync.
func (d *Download) Run(ctx context.Context, p *Progress) error {
	var errs error
	last := time.Now() // when something came
	for attempt, idle := 0, 0; idle < downloadAttempts || time.Since(last) < d.Patience; attempt++ {
		if err := d.pause(ctx, attempt); err != nil {
			errs = errors.Join(errs, err)
			break
		}
		came, err := d.once(ctx, p, attempt)
		if err == nil {
			if err = d.Verify(); err == nil {
				return nil
			}
			// Whether the sender's copy is damaged or what a crash left of ours.
			p.Fetched.Add(-d.Size)
			err, came = errors.Join(err, d.FS.RemoveAll(d.Path)), false
		}
		if idle++; came {
			idle, last, errs = 0, time.Now(), nil
		}
		if errs = errors.Join(errs, err); ctx.Err() != nil || isSyncError(err) {
			break
		}
	}
	return fmt.Errorf("fetch %s: %w", d.FS.PathBase(d.Path), errs)
}

// pause waits before all attempts but the first.
func (d *Download) pause(ctx context.Context, attempt int) error {
	if attempt == 0 || d.Patience == 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(downloadPause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// once appends to what is there of the file until it has its length, and reports
// whether anything came.
func (d *Download) once(ctx context.Context, p *Progress, attempt int) (came bool, err error) {
	w, have, err := openPart(d.FS, d.Part, d.Size)
	if err != nil {
		return false, err
	}
	p.Fetched.Add(have)
	begun := have
	err = d.receive(ctx, w, have, attempt, func(n int64) {
		have += n
		p.Fetched.Add(n)
	})
	if err == nil && have < d.Size {
		err = fmt.Errorf("it ended at %d of %d bytes: %w", have, d.Size, io.ErrUnexpectedEOF)
	}
	err = errors.Join(err, w.close())
	if err == nil {
		if err = d.FS.Rename(d.Part, d.Path); err != nil {
			err = fmt.Errorf("rename %s: %w", d.Part, err)
		}
	}
	if err != nil {
		p.Fetched.Add(-have)
	}
	return have > begun, err
}

// receive copies from offset on.
func (d *Download) receive(ctx context.Context, w *partWriter, offset int64, attempt int, tell func(n int64)) error {
	if offset == d.Size {
		return nil
	}
	body, err := d.Open(ctx, offset, attempt)
	if err != nil {
		return err
	}
	return errors.Join(w.copy(io.LimitReader(body, d.Size-offset), tell), body.Close())
}
