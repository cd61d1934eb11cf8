package fsm

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
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
	}
}
