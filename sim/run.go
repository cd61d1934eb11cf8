package sim

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"cairn/jepsen-lite/check"
	"cairn/jepsen-lite/history"
)

const (
	formTime   = 30 * time.Second // until a new cluster must have formed
	quietTime  = 6 * time.Second  // that clients go on when all is healed
	settleTime = time.Minute      // until all nodes must be ready when all is healed
	clients    = 6
	watchers   = 2 // followers
)

// Options of Run.
type Options struct {
	Seed   uint64        // every third one has five nodes, the others three
	Length time.Duration // of the part with faults; 0 = 55 s, so that clients work for a minute
	Level  slog.Level    // least level of the nodes' log lines that are kept
}

// Result is what a run came to.
type Result struct {
	Options  Options
	History  *history.History
	Verdicts []check.Verdict
	Failures []string           // what is wrong beside the verdicts: fatal errors, nodes that do not start
	Virtual  time.Duration      // until the last client had ended
	Totals   map[string]float64 // metrics of all nodes, added up
	log      *journal
}

// Valid says that nothing is wrong.
func (r *Result) Valid() bool { return len(r.Failures) == 0 && check.Valid(r.Verdicts) }

// WriteLog writes what the nodes have logged.
func (r *Result) WriteLog(w io.Writer) error {
	_, err := r.log.WriteTo(w)
	return err
}

// Run simulates one cluster. It must be called in a synctest bubble, in which
// it leaves no goroutine behind unless a node has met a fatal error.
func Run(o Options) *Result {
	o.Length = cmp.Or(o.Length, 55*time.Second)
	nodes := 3
	if o.Seed%3 == 0 {
		nodes = 5
	}
	began := time.Now()
	result := &Result{Options: o, log: &journal{began: began, level: o.Level}}
	w, err := newWorld(o.Seed, nodes, result.log)
	if err != nil {
		result.Failures = []string{err.Error()}
		return result
	}
	h := w.live(o)
	w.stopAll(h)
	if len(h.Nodes) > 0 {
		if result.History, err = w.rec.Finish(*h); err != nil {
			w.fail("%v", err)
		}
		result.Verdicts = check.All(result.History, check.Options{Rate: -1, Worked: []string{}})
	}
	result.Failures, result.Totals, result.Virtual = w.failures(), w.totals, w.ended
	return result
}

// live is the life of the cluster, from its forming until it has healed.
func (w *world) live(o Options) *history.History {
	h := &history.History{Seed: o.Seed, Command: fmt.Sprintf("make sim SEED=%d SEEDS=1", o.Seed)}
	for _, host := range w.hosts {
		host.start(0)
	}
	if err := w.settled(formTime); err != nil {
		w.fail("the cluster did not form: %v", err)
		return h
	}
	working, stopWork := context.WithCancel(context.Background())
	defer stopWork()
	breaking, heal := context.WithCancel(context.Background())
	defer heal()
	var work, nemeses, following sync.WaitGroup
	for i := range clients {
		c := newClient(w, i+1)
		work.Go(func() { c.work(working) })
	}
	end := &finish{}
	list := make([]history.Follower, watchers)
	for i := range watchers {
		f := &follower{w: w, id: i + 1, rng: w.fork()}
		following.Go(func() { list[i] = f.follow(context.Background(), end) })
	}
	for _, groups := range []string{"process network", "other", "process", "network other"}[2*(o.Seed/2%2):][:2] {
		n := &nemesis{w: w, rng: w.fork(), groups: groups}
		nemeses.Go(func() { n.work(breaking) })
	}
	time.Sleep(o.Length)
	h.Length = w.rec.Now()
	heal()
	nemeses.Wait()
	w.log.note("all is healed")
	h.Healed = w.rec.Now()
	time.Sleep(quietTime)
	stopWork()
	work.Wait()
	w.ended = time.Since(w.began)
	if err := w.settled(settleTime); err != nil {
		w.fail("the cluster did not recover: %v", err)
	} else {
		h.Nodes = w.readAll()
	}
	last := uint64(0)
	for i := range h.Nodes {
		last = max(last, uint64(len(h.Nodes[i].Events)))
	}
	end.set(last)
	following.Wait()
	h.Followers = list
	return h
}

// readAll reads the whole log from every node.
func (w *world) readAll() []history.Node {
	var nodes []history.Node
	for _, h := range w.hosts {
		r := h.current()
		if r == nil {
			w.fail("%s has gone down when all was healed", h.name)
			return nil
		}
		ctx, cancel := context.WithTimeout(context.Background(), settleTime)
		var q history.Read
		err := r.read(ctx, &q)
		cancel()
		if err != nil {
			w.fail("read all of %s: %v", h.name, err)
		}
		nodes = append(nodes, history.Node{Name: h.name, LogID: r.node.Machine().LogID(), Events: q.Events})
	}
	return nodes
}

// stopAll stops the nodes cleanly, which makes all they have durable, and looks
// at their segments.
func (w *world) stopAll(h *history.History) {
	for i, host := range w.hosts {
		if err := host.stop(); err != nil {
			w.fail("%s does not stop cleanly: %v", host.name, err)
		}
		if i < len(h.Nodes) {
			segments, err := host.segments()
			if err != nil {
				w.fail("segments of %s: %v", host.name, err)
			}
			h.Nodes[i].Segments = segments
		}
	}
	for _, host := range w.hosts {
		host.past.Wait()
	}
	time.Sleep(time.Minute) // for what Raft and the gossip still wait for
}

// segments reads the segments of a host that is down.
func (h *host) segments() ([]history.Segment, error) {
	current, err := h.read("logs", "main", "CURRENT")
	if err != nil {
		return nil, err
	}
	generation, _, _ := strings.Cut(strings.TrimSpace(string(current)), " ")
	names, err := h.fs.List(h.fs.PathJoin(dataDir, "logs", "main", generation, "log"))
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var all []history.Segment
	for _, name := range names {
		if !strings.HasSuffix(name, ".seg") {
			continue
		}
		b, err := h.read("logs", "main", generation, "log", name)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(b)
		all = append(all, history.Segment{Name: name, Size: int64(len(b)), Sum: hex.EncodeToString(sum[:])})
	}
	return all, nil
}

func (h *host) read(path ...string) ([]byte, error) {
	f, err := h.fs.Open(h.fs.PathJoin(append([]string{dataDir}, path...)...))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// finish is what the followers must reach to be done.
type finish struct {
	mu   sync.Mutex
	last uint64 // 0 = not known yet; under mu
	over bool   // under mu
}

func (f *finish) set(last uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last, f.over = last, true
}

// reached says that a follower is done at this position.
func (f *finish) reached(position uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.over && position >= f.last
}
