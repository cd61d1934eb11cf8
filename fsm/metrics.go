package fsm

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"cairn/index"
)

// stats counts what the machine did since it was opened.
type stats struct {
	commands, events, waits, installs atomic.Uint64
	savepoints                        atomic.Uint64
	savepointNanos                    atomic.Int64
}

func (s *stats) savepoint(took time.Duration) {
	s.savepoints.Add(1)
	s.savepointNanos.Add(int64(took))
}

// Collectors returns the machine's metrics, to be registered by the caller.
func (m *Machine) Collectors() []prometheus.Collector {
	counter := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value)
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	count := func(v *atomic.Uint64) func() float64 { return func() float64 { return float64(v.Load()) } }
	return []prometheus.Collector{
		counter("cairn_applied_commands_total", "Commands applied since the start of the node.", count(&m.stats.commands)),
		counter("cairn_applied_events_total", "Events accepted since the start of the node.", count(&m.stats.events)),
		counter("cairn_savepoints_total", "Savepoints taken since the start of the node.", count(&m.stats.savepoints)),
		counter("cairn_savepoint_seconds_total", "Time spent writing savepoints.",
			func() float64 { return time.Duration(m.stats.savepointNanos.Load()).Seconds() }),
		counter("cairn_savepoint_waits_total", "Times that Apply had to wait for a savepoint.", count(&m.stats.waits)),
		counter("cairn_installs_total", "Snapshots of other nodes installed since the start of the node.", count(&m.stats.installs)),
		counter("cairn_log_rolls_total", "Segments sealed since the start of the node.",
			func() float64 { return float64(m.logStats().Rolls) }),
		gauge("cairn_log_segments", "Segments of the event log.", func() float64 { return float64(m.logStats().Segments) }),
		gauge("cairn_log_bytes", "Size of the event log.", func() float64 { return float64(m.logStats().Bytes) }),
		gauge("cairn_applied_position", "Position of the last applied event.", func() float64 {
			_, position := m.Applied()
			return float64(position)
		}),
		gauge("cairn_durable_position", "Position up to which the newest savepoint reaches.", func() float64 {
			_, position := m.Durable()
			return float64(position)
		}),
		indexCollector{m, indexFigures()},
		projectionCollector{m},
	}
}

// projectionCollector tells how far the projections are, one figure for each
// generation.
type projectionCollector struct{ m *Machine }

var projectionLag = prometheus.NewDesc("cairn_projection_lag_events",
	"Positions by which a projection is behind what this node has applied.", []string{"projection", "generation", "state"}, nil)

// Describe implements prometheus.Collector.
func (c projectionCollector) Describe(out chan<- *prometheus.Desc) { out <- projectionLag }

// Collect implements prometheus.Collector.
func (c projectionCollector) Collect(out chan<- prometheus.Metric) {
	for _, g := range c.m.Catalog().Generations() {
		state, lag := "building", uint64(0)
		if g.Live > 0 {
			state = "live"
		}
		if g.Live == 0 || !g.Guarding() {
			s := c.m.Folded(g.ID)
			lag = s.Head - min(s.Position, s.Head)
		}
		out <- prometheus.MustNewConstMetric(projectionLag, prometheus.GaugeValue, float64(lag), g.Name, strconv.FormatUint(g.ID, 10), state)
	}
}

// indexCollector reads all figures of the index at once, since that costs it
// something.
type indexCollector struct {
	m       *Machine
	figures []indexFigure
}

// indexFigure is one of them.
type indexFigure struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*index.Stats) float64
}

func figure(name, help string, kind prometheus.ValueType, value func(*index.Stats) float64) indexFigure {
	return indexFigure{prometheus.NewDesc("cairn_index_"+name, help, nil, nil), kind, value}
}

// indexFigures is all of them. Counters begin again when a snapshot of another
// node is installed.
func indexFigures() []indexFigure {
	return []indexFigure{
		figure("disk_bytes", "Size of the index on disk.", prometheus.GaugeValue, func(s *index.Stats) float64 { return float64(s.DiskBytes) }),
		figure("overlay_bytes", "Changes of the index that are only in memory.", prometheus.GaugeValue, func(s *index.Stats) float64 { return float64(s.OverlayBytes + s.FrozenBytes) }),
		figure("cache_bytes", "Size of the index's block cache.", prometheus.GaugeValue, func(s *index.Stats) float64 { return float64(s.CacheBytes) }),
		figure("compaction_debt_bytes", "Bytes that compactions of the index have yet to write.", prometheus.GaugeValue, func(s *index.Stats) float64 { return float64(s.CompactionDebt) }),
		figure("open_views", "Readers that hold a view of the index.", prometheus.GaugeValue, func(s *index.Stats) float64 { return float64(s.OpenViews) }),
		figure("cache_hits_total", "Blocks of the index found in its cache.", prometheus.CounterValue, func(s *index.Stats) float64 { return float64(s.CacheHits) }),
		figure("cache_misses_total", "Blocks of the index read from disk.", prometheus.CounterValue, func(s *index.Stats) float64 { return float64(s.CacheMisses) }),
		figure("commits_total", "Batches written to the index.", prometheus.CounterValue, func(s *index.Stats) float64 { return float64(s.Commits) }),
		figure("commit_bytes_total", "Bytes of those batches.", prometheus.CounterValue, func(s *index.Stats) float64 { return float64(s.CommitBytes) }),
		figure("flushes_total", "Memtables of the index written to disk.", prometheus.CounterValue, func(s *index.Stats) float64 { return float64(s.Flushes) }),
		figure("compactions_total", "Compactions of the index.", prometheus.CounterValue, func(s *index.Stats) float64 { return float64(s.Compactions) }),
		figure("write_stalls_total", "Commits that waited for a flush or a compaction.", prometheus.CounterValue, func(s *index.Stats) float64 { return float64(s.WriteStalls) }),
	}
}

// Describe implements prometheus.Collector.
func (c indexCollector) Describe(out chan<- *prometheus.Desc) {
	for _, f := range c.figures {
		out <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c indexCollector) Collect(out chan<- prometheus.Metric) {
	c.m.genMu.RLock()
	s := c.m.gen.index.Stats()
	c.m.genMu.RUnlock()
	for _, f := range c.figures {
		out <- prometheus.MustNewConstMetric(f.desc, f.kind, f.value(&s))
	}
}
