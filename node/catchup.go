package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"cairn/client"
	"cairn/cluster"
	"cairn/snapshot"
)

// catchUp fetches the snapshots that the leader offers, over HTTP: segments from
// all nodes in turn, the state's files from the leader, whose snapshot they are.
// It is a cluster.Preparer.
type catchUp struct {
	store  *snapshot.Store
	peers  func() map[string]string // URLs of the other live nodes by id
	http   *http.Transport
	logger *slog.Logger

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex
	job      *fetchJob // under mu, as is the rest; the offer being fetched, or fetched
	failed   int       // fetches in a row that came to nothing
	stranger string    // a leader whose URL is not known
	asked    time.Time // of its first offer
	closed   bool
}

// When fetching is given up, and Raft has to carry a snapshot: without HTTP
// between the nodes that is slow, but works.
const (
	maxFailed = 3
	maxWait   = 10 * time.Second // until gossip tells the leader's URL
)

// fetchJob is one offer.
type fetchJob struct {
	offer    cluster.Offer
	progress snapshot.Progress
	cancel   context.CancelFunc
	done     chan struct{} // closed when it has ended, with err set before
	err      error
}

func newCatchUp(store *snapshot.Store, peers func() map[string]string, logger *slog.Logger) *catchUp {
	c := &catchUp{store: store, peers: peers, logger: logger, http: &http.Transport{
		MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: 10 * time.Second, DisableCompression: true,
		ReadBufferSize: 256 << 10,
	}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Offered begins to fetch a snapshot, or says how far that is. Another one
// than before ends what is under way: its leader no longer asks.
func (c *catchUp) Offered(o cluster.Offer) cluster.Preparation {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return cluster.Preparation{Error: "the node is stopping"}
	}
	if c.failed >= maxFailed { // this one; what was wrong may be right for the next
		c.failed = 0
		return cluster.Preparation{Stream: true}
	}
	if c.peers()[o.Leader] == "" {
		if c.stranger != o.Leader {
			c.stranger, c.asked = o.Leader, time.Now()
		}
		return cluster.Preparation{Stream: time.Since(c.asked) > maxWait}
	}
	c.stranger = ""
	j := c.job
	if j == nil {
		c.beginLocked(o)
		return cluster.Preparation{}
	}
	same := j.offer.Leader == o.Leader && j.offer.Snapshot == o.Snapshot && bytes.Equal(j.offer.Manifest, o.Manifest)
	if !same {
		j.cancel()
	}
	select {
	case <-j.done:
	default:
		return cluster.Preparation{Fetched: j.progress.Fetched.Load(), Total: j.progress.Total.Load()}
	}
	c.job = nil
	switch {
	case !same:
		c.beginLocked(o)
		return cluster.Preparation{}
	case j.err != nil:
		c.failed++
		return cluster.Preparation{Error: j.err.Error()}
	}
	c.failed = 0
	return cluster.Preparation{Ready: true, Total: j.progress.Total.Load()}
}

func (c *catchUp) beginLocked(o cluster.Offer) {
	ctx, cancel := context.WithCancel(c.ctx)
	j := &fetchJob{offer: o, cancel: cancel, done: make(chan struct{})}
	c.job = j
	c.running.Go(func() {
		defer close(j.done)
		defer cancel()
		begun := time.Now()
		c.logger.Info("fetching a snapshot", "leader", o.Leader, "snapshot", o.Snapshot)
		j.err = c.store.Prepare(ctx, o.Manifest, &source{c, o}, &j.progress)
		if j.err != nil && ctx.Err() == nil {
			c.logger.Warn("snapshot not fetched", "leader", o.Leader, "snapshot", o.Snapshot, "error", j.err)
		}
		if j.err == nil {
			c.logger.Info("snapshot fetched", "leader", o.Leader, "snapshot", o.Snapshot, "bytes", j.progress.Total.Load(), "took", time.Since(begun))
		}
	})
}

// bytes returns how much of the offer under way is here, and how much was
// missing.
func (c *catchUp) bytes() (fetched, total int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.job == nil {
		return 0, 0
	}
	return c.job.progress.Fetched.Load(), c.job.progress.Total.Load()
}

// forget removes what an earlier fetch left, when this node needs it no more.
func (c *catchUp) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.job != nil || c.closed {
		return
	}
	if err := c.store.RemoveIncoming(); err != nil {
		c.logger.Warn("removing files fetched earlier", "error", err)
	}
}

// close ends what is under way.
func (c *catchUp) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.running.Wait()
	c.http.CloseIdleConnections()
}

// source is an offered snapshot as snapshot.Source.
type source struct {
	*catchUp
	offer cluster.Offer
}

var errNoPeers = errors.New("no other node is alive")

// retryPause is the time before a second attempt at a file; it grows with each.
const retryPause = 50 * time.Millisecond

// Segment reads from another node at each attempt. The files are spread over the
// followers; the leader, which has the most to do, is asked when one of them can't help.
func (s *source) Segment(ctx context.Context, name string, offset, size int64, attempt int) (io.ReadCloser, error) {
	if err := waitAttempt(ctx, attempt); err != nil {
		return nil, err
	}
	peers := maps.Clone(s.peers())
	leader := peers[s.offer.Leader]
	delete(peers, s.offer.Leader)
	ids := slices.Sorted(maps.Keys(peers))
	var urls []string
	for i := range ids {
		urls = append(urls, peers[ids[(i+int(crc32.ChecksumIEEE([]byte(name))))%len(ids)]])
	}
	if leader != "" { // after one follower: it alone has all that it offers
		urls = slices.Insert(urls, min(1, len(urls)), leader)
	}
	if len(urls) == 0 {
		return nil, errNoPeers
	}
	files, err := client.NewFiles(urls[attempt%len(urls)], s.http)
	if err != nil {
		return nil, err
	}
	return files.Segment(ctx, name, offset, size)
}

func waitAttempt(ctx context.Context, attempt int) error {
	select {
	case <-time.After(time.Duration(attempt) * retryPause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// State reads from the leader.
func (s *source) State(ctx context.Context, name string, offset, size int64, attempt int) (io.ReadCloser, error) {
	if err := waitAttempt(ctx, attempt); err != nil {
		return nil, err
	}
	url := s.peers()[s.offer.Leader]
	if url == "" {
		return nil, fmt.Errorf("the leader %s is not there any more", s.offer.Leader)
	}
	files, err := client.NewFiles(url, s.http)
	if err != nil {
		return nil, err
	}
	return files.State(ctx, s.offer.Snapshot, name, offset, size)
}
