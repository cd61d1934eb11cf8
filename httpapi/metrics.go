package httpapi

import (
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what an operator wants to know of this package.
type metrics struct {
	requests  *prometheus.CounterVec   // by route, method and status
	seconds   *prometheus.HistogramVec // by route; not of followers and endless appends
	appends   *prometheus.CounterVec   // by outcome
	events    prometheus.Counter       // appended, without duplicates
	read      prometheus.Counter       // events sent to readers and followers
	inFlight  prometheus.Gauge
	streams   prometheus.Gauge
	followers prometheus.Gauge
	wakeUps   prometheus.Counter
	conns     prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cairn_http_requests_total", Help: "Requests that were answered, by route and status.",
		}, []string{"route", "method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "cairn_http_request_seconds", Help: "Time from a request's header to the end of its answer, by route; without followers and append streams.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60},
		}, []string{"route"}),
		appends: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cairn_http_appends_total", Help: "Appends that this node answered, by outcome: accepted, duplicate or the code of the problem.",
		}, []string{"outcome"}),
		events:    prometheus.NewCounter(prometheus.CounterOpts{Name: "cairn_http_appended_events_total", Help: "Events accepted through this node."}),
		read:      prometheus.NewCounter(prometheus.CounterOpts{Name: "cairn_http_read_events_total", Help: "Events sent to readers and followers."}),
		inFlight:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "cairn_http_requests_in_flight", Help: "Requests being served, without followers and append streams."}),
		streams:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "cairn_http_append_streams", Help: "NDJSON appends under way."}),
		followers: prometheus.NewGauge(prometheus.GaugeOpts{Name: "cairn_http_followers", Help: "Followers that are connected."}),
		wakeUps:   prometheus.NewCounter(prometheus.CounterOpts{Name: "cairn_http_follower_wakeups_total", Help: "Times that a follower was woken for an event it asked for."}),
		conns:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "cairn_http_connections", Help: "Open connections."}),
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.seconds, m.appends, m.events, m.read, m.inFlight, m.streams, m.followers, m.wakeUps, m.conns)
	}
	return m
}

var knownMethods = []string{"GET", "POST", "HEAD", "DELETE", "PUT", "PATCH", "OPTIONS"}

// done counts an exchange that has ended.
func (m *metrics) done(x *exchange, took time.Duration) {
	status := x.status
	if status == 0 {
		status = 499 // the client left before there was an answer
	}
	method := x.r.Method
	if !slices.Contains(knownMethods, method) {
		method = "other" // a label must not take whatever a client makes up
	}
	m.requests.WithLabelValues(x.route, method, strconv.Itoa(status)).Inc()
	if !x.long {
		m.seconds.WithLabelValues(x.route).Observe(took.Seconds())
	}
}
