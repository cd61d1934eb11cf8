package httpapi

import (
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/gorilla/mux"
)

// route is one path and the methods it takes.
type route struct {
	path    string
	methods []method
}

type method struct {
	name   string
	handle func(*Server, *exchange) error
	write  bool // the answer names the leader
}

const pathStreamEvents = "/v1/streams/{stream}/events"

// routes is every route, the hot ones first: the router tries them in order.
var routes = []route{
	{pathStreamEvents, []method{{"POST", (*Server).appendToStream, true}, {"GET", (*Server).readStream, false}}},
	{"/v1/append", []method{{"POST", (*Server).appendToStreams, true}}},
	{"/v1/events", []method{{"GET", (*Server).readEvents, false}}},
	{"/v1/events/{position}", []method{{"GET", (*Server).readEvent, false}}},
	{"/v1/streams/{stream}/events/{version}", []method{{"GET", (*Server).readVersion, false}}},
	{"/v1/streams/{stream}", []method{{"HEAD", (*Server).headStream, false}}},
	{"/v1/query", []method{{"POST", (*Server).query, false}}},
	{"/v1/streams", []method{{"GET", (*Server).listStreams, false}}},
	{"/v1/streams/{stream}/state", []method{{"GET", (*Server).streamState, false}}},
	{"/v1/projections/{name}/rows/{key}", []method{{"GET", (*Server).readRow, false}}},
	{"/v1/projections/{name}/rows/{key}/history", []method{{"GET", (*Server).rowHistory, false}}},
	{"/v1/projections/{name}/rows", []method{{"GET", (*Server).readRows, false}}},
	{pathProjection, []method{
		{"PUT", (*Server).defineProjection, true}, {"GET", (*Server).projection, false}, {"DELETE", (*Server).deleteProjection, true},
	}},
	{"/v1/projections", []method{{"GET", (*Server).listProjections, false}}},
	{"/v1/types/{type}/schemas/{number}", []method{{"PUT", (*Server).registerSchema, true}, {"GET", (*Server).readSchema, false}}},
	{"/v1/types", []method{{"GET", (*Server).listTypes, false}}},
	{"/readyz", []method{{"GET", (*Server).ready, false}, {"HEAD", (*Server).ready, false}}},
	{"/healthz", []method{{"GET", (*Server).healthy, false}, {"HEAD", (*Server).healthy, false}}},
	{"/metrics", []method{{"GET", (*Server).measures, false}}},
	{"/v1/cluster", []method{{"GET", (*Server).clusterStatus, false}}},
	{"/v1/cluster/transfer", []method{{"POST", (*Server).transfer, true}}},
	{"/v1/cluster/members/{id}", []method{{"DELETE", (*Server).removeMember, true}}},
	{"/v1/segments", []method{{"GET", (*Server).logFiles, false}}},
	{"/v1/segments/{name}", []method{{"GET", (*Server).readSegment, false}, {"HEAD", (*Server).readSegment, false}}},
	{"/v1/snapshots", []method{{"POST", (*Server).takeSnapshot, false}}},
	{"/v1/snapshots/{id}/state/{name}", []method{{"GET", (*Server).readState, false}, {"HEAD", (*Server).readState, false}}},
	{"/v1/openapi.json", []method{{"GET", (*Server).openAPI, false}}},
}

// newRouter matches on the path as it was sent, so that a name may hold a
// percent-encoded slash, and never redirects.
func (s *Server) newRouter() *mux.Router {
	router := mux.NewRouter().UseEncodedPath().SkipClean(true)
	for i := range routes {
		router.Handle(routes[i].path, s.serve(&routes[i]))
	}
	router.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		x := w.(*exchange)
		x.fail(problemf(NotFound, "there is no route %s; GET /v1/openapi.json describes all", x.r.URL.EscapedPath()))
	})
	return router
}

// serve answers the requests of one route.
func (s *Server) serve(rt *route) http.Handler {
	names := make([]string, len(rt.methods))
	for i, m := range rt.methods {
		names[i] = m.name
	}
	allow := strings.Join(names, ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := w.(*exchange)
		x.r, x.route = r, rt.path
		for i := range rt.methods {
			if m := &rt.methods[i]; m.name == r.Method {
				x.write = m.write
				x.run(m)
				return
			}
		}
		p := problemf(MethodNotAllowed, "%s takes %s", rt.path, allow)
		p.header = [2]string{"Allow", allow}
		x.fail(p)
	})
}

// run calls the handler. A panic costs only this request, and is an answer if
// none went out yet.
func (x *exchange) run(m *method) {
	defer func() {
		fault := recover()
		if fault == nil {
			return
		}
		if fault == http.ErrAbortHandler {
			panic(fault)
		}
		x.s.logger.Error("handler panicked", "route", x.route, "panic", fmt.Sprint(fault), "stack", string(debug.Stack()))
		if x.status != 0 {
			panic(http.ErrAbortHandler)
		}
		x.problem(problemf(Internal, "the log of the node says what happened"))
	}()
	if err := m.handle(x.s, x); err != nil {
		x.fail(err)
	}
}
