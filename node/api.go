package node

import (
	"errors"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"cairn/cluster"
	"cairn/fsm"
	"cairn/httpapi"
	"cairn/index"
	eventlog "cairn/log"
	"cairn/projection"
	"cairn/projection/schema"
)

// corruptGrace is how long a node lives on after a read met damage, so that the
// answer which says so goes out.
const corruptGrace = 200 * time.Millisecond

// newServer makes the HTTP server of a node. Damage that a read meets ends the
// node: what else is damaged nobody knows.
func (n *Node) newServer() (*httpapi.Server, error) {
	// The process has one server, but may have several nodes.
	n.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return httpapi.New(httpapi.Options{
		NodeID:   n.dir.NodeID(),
		Appender: members{n.members},
		Reads:    reads{n.machine},
		Waiter:   reads{n.machine},
		Cluster:  members{n.members},

		Projections: projections{n.machine, n.members},
		Types:       types{projections{n.machine, n.members}},

		Files:    given{n.machine, n.store, n.members, make(chan struct{}, 1)},
		FileRate: n.options.FileRate,
		Classify: classify,
		Logger:   n.options.Logger,
		// The client that met the damage is told of it before the end.
		OnCorrupt:  func(err error) { time.AfterFunc(corruptGrace, func() { n.options.OnFatal(err) }) },
		URL:        n.options.Cluster.HTTP,
		Metrics:    promhttp.HandlerFor(n.registry, promhttp.HandlerOpts{}),
		Registerer: n.registry,
	})
}

// classify is the one table from the errors of the parts to what they mean to a
// client. An error that is not in it leaves an append's outcome open.
func classify(err error) (httpapi.Fault, bool) {
	var damaged *eventlog.CorruptError
	var index *index.CorruptError
	var refused *refusedError
	var building *fsm.BuildingError
	var definition *projection.Error
	var registration *schema.Error
	var number *schema.NumberError
	switch {
	case unknown(err):
		// Whatever caused it: the append may have happened.
		return httpapi.Fault{}, false
	case errors.As(err, &damaged):
		return httpapi.Fault{Code: httpapi.Corrupt, Detail: damaged.Reason, File: damaged.File, Offset: damaged.Offset}, true
	case errors.As(err, &index):
		return httpapi.Fault{Code: httpapi.Corrupt, Detail: index.Error()}, true
	case errors.Is(err, eventlog.ErrNotFound), errors.Is(err, cluster.ErrUnknownMember):
		return httpapi.Fault{Code: httpapi.NotFound}, true
	case errors.Is(err, fsm.ErrNoProjection), errors.Is(err, fsm.ErrNoRow), errors.Is(err, fsm.ErrNoSchema):
		return httpapi.Fault{Code: httpapi.NotFound}, true
	case errors.Is(err, fsm.ErrNotByStream), errors.Is(err, fsm.ErrTooManyEvents):
		return httpapi.Fault{Code: httpapi.InvalidRequest}, true
	case errors.Is(err, fsm.ErrStateTooLarge):
		return httpapi.Fault{Code: httpapi.TooLarge}, true
	case errors.Is(err, projection.ErrRow):
		return httpapi.Fault{Code: httpapi.Corrupt, Detail: err.Error()}, true
	case errors.As(err, &refused) && refused.transient:
		return httpapi.Fault{Code: httpapi.Overloaded}, true
	case errors.As(err, &refused):
		return httpapi.Fault{Code: httpapi.InvalidRequest}, true
	case errors.As(err, &building):
		return httpapi.Fault{Code: httpapi.Building, Progress: building.Progress}, true
	case errors.As(err, &definition):
		return httpapi.Fault{Code: httpapi.BadDefinition, Detail: definition.Message, Path: definition.Path, Line: definition.Line, Column: definition.Column}, true
	case errors.As(err, &registration):
		return httpapi.Fault{Code: httpapi.BadDefinition, Detail: registration.Message, Path: registration.Path, Line: registration.Line, Column: registration.Column}, true
	case errors.As(err, &number):
		return httpapi.Fault{Code: httpapi.SchemaConflict, Newest: number.Newest}, true
	case errors.Is(err, cluster.ErrLastVoter):
		return httpapi.Fault{Code: httpapi.InvalidRequest, Detail: "the last voter can't be removed: let another node join first"}, true
	case errors.Is(err, cluster.ErrNoQuorum):
		return httpapi.Fault{Code: httpapi.NoLeader, Detail: err.Error() + ": start them first"}, true
	case errors.Is(err, cluster.ErrNoLeader):
		return httpapi.Fault{Code: httpapi.NoLeader}, true
	case errors.Is(err, cluster.ErrOverloaded):
		return httpapi.Fault{Code: httpapi.Overloaded}, true
	case errors.Is(err, cluster.ErrTimeout):
		return httpapi.Fault{Code: httpapi.Timeout}, true
	case errors.Is(err, cluster.ErrClosed), errors.Is(err, fsm.ErrClosed):
		return httpapi.Fault{Code: httpapi.Overloaded, Detail: "the node is stopping"}, true
	}
	return httpapi.Fault{}, false
}

func unknown(err error) bool {
	var u *cluster.UnknownError
	return errors.As(err, &u)
}

// register adds what the parts count. Two parts that name a figure alike are a
// fault of ours, but none for which a node should not start.
func (n *Node) register() {
	own := []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "cairn_snapshot_pinned_bytes", Help: "Bytes kept only because a snapshot is being sent.",
		}, func() float64 { return float64(n.store.PinnedBytes()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "cairn_catch_up_fetched_bytes", Help: "Bytes that are here of the snapshot that this node fetches; 0 when it fetches none.",
		}, func() float64 { fetched, _ := n.fetches.bytes(); return float64(fetched) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "cairn_catch_up_missing_bytes", Help: "Bytes of that snapshot that this node did not have.",
		}, func() float64 { _, total := n.fetches.bytes(); return float64(total) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "cairn_build_info", Help: "Always 1; its label is the version of the node.",
			ConstLabels: prometheus.Labels{"version": n.options.Version},
		}, func() float64 { return 1 }),
	}
	for _, c := range slices.Concat(own, n.machine.Collectors(), n.scrubs.collectors()) {
		if err := n.registry.Register(c); err != nil {
			n.options.Logger.Warn("metric left out", "error", err)
		}
	}
}
