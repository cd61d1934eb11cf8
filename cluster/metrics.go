package cluster

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the figures of the Raft half of a node. Counters and histograms
// are kept here; gauges are read from the node when they are asked for.
type metrics struct {
	entries      prometheus.Counter
	appends      prometheus.Counter
	entryBytes   prometheus.Histogram
	entryAppends prometheus.Histogram
	commit       prometheus.Histogram
	lost         prometheus.Counter

	forwards       prometheus.Counter
	forwardAppends prometheus.Counter
	forwardErrors  prometheus.Counter

	readRounds prometheus.Counter
	elections  prometheus.Counter
	snapshots  prometheus.Counter
	installs   prometheus.Counter

	logEntries prometheus.Counter
	logBytes   prometheus.Counter
	logWrite   prometheus.Histogram
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "cairn_" + name, Help: help})
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "cairn_" + name, Help: help, Buckets: buckets})
	}
	latency := prometheus.ExponentialBuckets(0.0001, 2, 18) // 0.1 ms to 13 s
	return &metrics{
		entries:      counter("proposed_entries_total", "Entries that this node proposed as the leader."),
		appends:      counter("proposed_appends_total", "Appends in the entries that this node proposed."),
		entryBytes:   histogram("proposed_entry_bytes", "Size of the entries proposed.", prometheus.ExponentialBuckets(256, 4, 8)),
		entryAppends: histogram("proposed_entry_appends", "Appends in each entry proposed.", prometheus.ExponentialBuckets(1, 2, 12)),
		commit:       histogram("commit_seconds", "Time from proposing an entry until it was applied here.", latency),
		lost:         counter("proposed_entries_unknown_total", "Entries whose outcome this node could not learn."),

		forwards:       counter("forwarded_batches_total", "Batches of appends sent to the leader."),
		forwardAppends: counter("forwarded_appends_total", "Appends sent to the leader."),
		forwardErrors:  counter("forward_errors_total", "Batches sent to the leader that came to nothing as a whole."),

		readRounds: counter("read_index_rounds_total", "Rounds by which this node, as the leader, confirmed that it still leads."),
		elections:  counter("leadership_changes_total", "Times that this node won or lost leadership."),
		snapshots:  counter("raft_snapshots_total", "Raft snapshots taken here."),
		installs:   counter("raft_installs_total", "Raft snapshots received from the leader and installed."),

		logEntries: counter("raft_log_entries_total", "Entries written to Raft's log."),
		logBytes:   counter("raft_log_written_bytes_total", "Bytes written to Raft's log."),
		logWrite:   histogram("raft_log_write_seconds", "Time of one durable write to Raft's log.", latency),
	}
}

func (m *metrics) stored(entries int, bytes int64, took time.Duration) {
	m.logEntries.Add(float64(entries))
	m.logBytes.Add(float64(bytes))
	m.logWrite.Observe(took.Seconds())
}

func (m *metrics) proposed(appends, bytes int) {
	m.entries.Inc()
	m.appends.Add(float64(appends))
	m.entryBytes.Observe(float64(bytes))
	m.entryAppends.Observe(float64(appends))
}

func (m *metrics) landed(took time.Duration, err error) {
	if err == nil {
		m.commit.Observe(took.Seconds())
		return
	}
	if unknown := (*UnknownError)(nil); errors.As(proposeError(err), &unknown) {
		m.lost.Inc()
	}
}

func (m *metrics) forwarded(appends int, err error) {
	m.forwards.Inc()
	m.forwardAppends.Add(float64(appends))
	if err != nil {
		m.forwardErrors.Inc()
	}
}

// register registers all figures of a node, and undoes it on an error.
func (n *Node) registerMetrics(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	m := n.stats
	all := []prometheus.Collector{
		m.entries, m.appends, m.entryBytes, m.entryAppends, m.commit, m.lost,
		m.forwards, m.forwardAppends, m.forwardErrors,
		m.readRounds, m.elections, m.snapshots, m.installs,
		m.logEntries, m.logBytes, m.logWrite,
	}
	gauge := func(name, help string, f func() float64) {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "cairn_" + name, Help: help}, f))
	}
	gauge("raft_term", "Raft's current term.", func() float64 { return float64(n.raft.CurrentTerm()) })
	gauge("raft_commit_index", "Last index known to be committed.", func() float64 { return float64(n.raft.CommitIndex()) })
	gauge("raft_last_index", "Last index in Raft's log.", func() float64 { return float64(n.raft.LastIndex()) })
	gauge("leader", "1 if this node leads and takes appends.", func() float64 {
		if n.views.load().open() {
			return 1
		}
		return 0
	})
	gauge("raft_contact_seconds", "Time since the leader was last heard of; 0 on the leader.", func() float64 {
		if last := n.raft.LastContact(); n.raft.State() != raft.Leader && !last.IsZero() {
			return time.Since(last).Seconds()
		}
		return 0
	})
	gauge("applied_index", "Index of the last command applied.", func() float64 {
		index, _ := n.sm.Applied()
		return float64(index)
	})
	gauge("raft_log_cache_bytes", "Newest entries of Raft's log kept in memory.", func() float64 { return float64(n.cache.size()) })
	gauge("raft_log_pending_bytes", "Bytes written to Raft's log since the last snapshot.", func() float64 { return float64(n.log.sizes.pending()) })
	gauge("propose_queue_appends", "Appends that wait on the leader to be proposed.", func() float64 {
		count, _ := n.proposer.queue.depth()
		return float64(count)
	})
	for i, c := range all {
		if err := r.Register(c); err != nil {
			for _, done := range all[:i] {
				r.Unregister(done)
			}
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	n.unregister = func() {
		for _, c := range all {
			r.Unregister(c)
		}
	}
	return nil
}
