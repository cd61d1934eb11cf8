package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

// Options configures a Server. The first group is required.
type Options struct {
	NodeID   string // sent as Cairn-Node
	Appender Appender
	Reads    Reads
	Waiter   Waiter
	Cluster  Cluster
	Files    Files
	// Projections are what the log is folded into.
	Projections Projections
	// Types are the schemas of event types.
	Types Types
	// Classify says what an error of the seven above means to a client. Of one
	// it does not know, an append's outcome is unknown and anything else is a
	// fault of the server.
	Classify func(error) (Fault, bool)
	Logger   *slog.Logger

	// OnCorrupt is called once, with the first error that Classify calls
	// corrupt. The node is expected to stop serving.
	OnCorrupt func(error)
	// URL is where clients reach this node, if that is not where it listens:
	// its host is accepted as Host on loopback too, as are Hosts.
	URL   string
	Hosts []string

	Metrics    http.Handler          // of GET /metrics; nil = 404
	Registerer prometheus.Registerer // nil = metrics are not registered

	AppendTimeout time.Duration // for one append's outcome; 0 = 10 s
	BodyTimeout   time.Duration // for a body, and for one line of NDJSON, to arrive; 0 = 30 s
	StallTimeout  time.Duration // for a client to take a piece of its answer; 0 = 30 s
	IdleTimeout   time.Duration // of a connection without a request; 0 = 2 min
	Heartbeat     time.Duration // between a follower's signs of life; 0 = 10 s
	WakeDelay     time.Duration // least time between two wake-ups of followers; 0 = 2 ms

	FileRate int64 // bytes of files a second that are sent to all; 0 = 128 MiB

	MaxConnections int   // further ones wait; 0 = 16,384
	MaxRequests    int   // at once, without streams; further ones are refused; 0 = 8,192
	MaxStreams     int   // followers and NDJSON appends at once; further ones are refused; 0 = 12,288
	MaxHeldBytes   int64 // of requests and answers in memory at once; 0 = 256 MiB
}

func (o *Options) validate() error {
	var faults []error
	for name, missing := range map[string]bool{
		"node id": o.NodeID == "", "appender": o.Appender == nil, "reads": o.Reads == nil, "waiter": o.Waiter == nil,
		"cluster": o.Cluster == nil, "files": o.Files == nil, "projections": o.Projections == nil, "types": o.Types == nil, "classify": o.Classify == nil, "logger": o.Logger == nil,
	} {
		if missing {
			faults = append(faults, fmt.Errorf("%s: is missing", name))
		}
	}
	if o.MaxHeldBytes != 0 && o.MaxHeldBytes < 4*maxBody {
		faults = append(faults, fmt.Errorf("max held bytes: %d is below %d", o.MaxHeldBytes, 4*maxBody))
	}
	if o.URL != "" {
		if u, err := url.Parse(o.URL); err != nil || u.Host == "" {
			faults = append(faults, fmt.Errorf("url: %q is not one", o.URL))
		}
	}
	return errors.Join(faults...)
}

func orDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

func (o *Options) setDefaults() {
	orDefault(&o.AppendTimeout, 10*time.Second)
	orDefault(&o.BodyTimeout, 30*time.Second)
	orDefault(&o.StallTimeout, 30*time.Second)
	orDefault(&o.IdleTimeout, 2*time.Minute)
	orDefault(&o.Heartbeat, 10*time.Second)
	orDefault(&o.WakeDelay, 2*time.Millisecond)
	orDefault(&o.FileRate, 128<<20)
	orDefault(&o.MaxConnections, 16<<10)
	orDefault(&o.MaxRequests, 8<<10)
	orDefault(&o.MaxStreams, 12<<10)
	orDefault(&o.MaxHeldBytes, 256<<20)
	if o.OnCorrupt == nil {
		o.OnCorrupt = func(error) {}
	}
}

// Server serves the API. New makes it.
type Server struct {
	opts    Options
	logger  *slog.Logger
	http    *http.Server
	handler http.Handler // the router
	hosts   []string     // names accepted as Host on loopback
	nodeID  []string     // value of Cairn-Node
	metrics *metrics
	budget  *budget
	hub     *hub

	fileRate *rate.Limiter // of all files together

	requests atomic.Int64 // being served, without streams
	streams  atomic.Int64 // followers and NDJSON appends
	started  atomic.Bool  // has applied, at least once, what was committed when it started
	corrupt  sync.Once

	stopping chan struct{} // closed when the server is to end
	stop     sync.Once
}

// New returns a server that does not listen yet. It has a goroutine, which
// Shutdown ends.
func New(o Options) (*Server, error) {
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("httpapi: %w", err)
	}
	o.setDefaults()
	s := &Server{
		opts: o, logger: o.Logger, nodeID: []string{o.NodeID}, stopping: make(chan struct{}),
		metrics: newMetrics(o.Registerer), budget: newBudget(o.MaxHeldBytes),
		fileRate: newRate(o.FileRate),
	}
	for _, host := range o.Hosts {
		s.hosts = append(s.hosts, bareHost(host))
	}
	if u, err := url.Parse(o.URL); err == nil && u.Host != "" {
		s.hosts = append(s.hosts, bareHost(u.Host))
	}
	s.handler = s.newRouter()
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		WriteTimeout:      2 * time.Minute, // what has longer to live says so itself
		IdleTimeout:       o.IdleTimeout,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 250,
			// What a client may send ahead of a handler that does not read.
			MaxReceiveBufferPerConnection: 512 << 10,
			MaxReceiveBufferPerStream:     256 << 10,
			SendPingTimeout:               15 * time.Second,
			PingTimeout:                   15 * time.Second,
			WriteByteTimeout:              o.StallTimeout,
		},
	}
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetUnencryptedHTTP2(true)
	s.hub = startHub(o.Reads, o.Waiter, o.WakeDelay, o.Logger, s.metrics)
	return s, nil
}

// Serve answers on l until Shutdown, which is not an error, or until l fails.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(newLimitedListener(l, s.opts.MaxConnections, s.metrics.conns))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve http: %w", err)
}

// Shutdown ends followers and append streams, lets other requests finish until
// ctx is done, and then closes what is left.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop.Do(func() { close(s.stopping) })
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	s.hub.close()
	return err
}

// isStopping reports whether Shutdown was called.
func (s *Server) isStopping() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}

// ServeHTTP answers one request. Serve calls it; tests may.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	x := &exchange{s: s, w: w, r: r, rc: http.NewResponseController(w), route: "other"}
	inFlight := s.requests.Add(1)
	s.metrics.inFlight.Inc()
	defer func() {
		x.leave()
		s.metrics.done(x, time.Since(begin))
	}()
	h := w.Header()
	h["Cairn-Node"] = s.nodeID
	h["Cache-Control"] = noStore
	h["X-Content-Type-Options"] = noSniff
	if err := s.checkOrigin(r); err != nil {
		x.fail(err)
		return
	}
	if inFlight > int64(s.opts.MaxRequests) {
		x.fail(problemf(Overloaded, "the node serves as many requests as it may at once"))
		return
	}
	s.handler.ServeHTTP(x, r)
}

// stay counts x as a stream from now on instead of as a request.
func (x *exchange) stay() error {
	if x.s.streams.Add(1) > int64(x.s.opts.MaxStreams) {
		x.s.streams.Add(-1)
		return problemf(Overloaded, "the node serves as many followers and append streams as it may at once")
	}
	x.leave()
	x.long = true
	return nil
}

// leave gives back the place of x among the requests or streams.
func (x *exchange) leave() {
	if x.long {
		x.s.streams.Add(-1)
		return
	}
	x.s.requests.Add(-1)
	x.s.metrics.inFlight.Dec()
}
