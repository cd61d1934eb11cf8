package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"cairn/event"
)

// clusterTimeout is for a change of the cluster to be done.
const clusterTimeout = 30 * time.Second

// clusterStatus is GET /v1/cluster.
func (s *Server) clusterStatus(x *exchange) error {
	if err := x.noParams(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(x.r.Context(), defaultTimeout)
	defer cancel()
	status := s.opts.Cluster.Status(ctx)
	if status.Members == nil {
		status.Members = []Member{}
	}
	body, err := json.Marshal(status)
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	x.about(s.opts.Waiter.Applied())
	return x.answer(http.StatusOK, body)
}

// transfer is POST /v1/cluster/transfer. It needs a Content-Type even without a
// body: a request without one is something a web page may send.
func (s *Server) transfer(x *exchange) error {
	if err := x.noParams(); err != nil {
		return err
	}
	if _, err := x.mediaType(mediaJSON[0]); err != nil {
		return err
	}
	body, err := x.readBody(freeBytes)
	if err != nil {
		return err
	}
	defer body.release()
	to := ""
	if len(body.b) > 0 {
		err = event.DecodeObject(body.b, func(name string, d *event.Decoder) error {
			if name != "to" {
				return event.ErrUnknownMember
			}
			return d.Text(&to)
		})
		if err != nil {
			return requestError(err)
		}
	}
	ctx, cancel := context.WithTimeout(x.r.Context(), clusterTimeout)
	defer cancel()
	if err := s.opts.Cluster.Transfer(ctx, to); err != nil {
		return s.notFound(err, fmt.Sprintf("there is no member %q", clip(to)))
	}
	x.WriteHeader(http.StatusNoContent)
	return nil
}

// removeMember is DELETE /v1/cluster/members/{id}.
func (s *Server) removeMember(x *exchange) error {
	if err := x.noParams(); err != nil {
		return err
	}
	id, err := x.pathText("id")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(x.r.Context(), clusterTimeout)
	defer cancel()
	if err := s.opts.Cluster.Remove(ctx, id); err != nil {
		return s.notFound(err, fmt.Sprintf("there is no member %q", clip(id)))
	}
	x.WriteHeader(http.StatusNoContent)
	return nil
}

// healthy is GET /healthz: the process lives and serves.
func (s *Server) healthy(x *exchange) error {
	return x.answer(http.StatusOK, []byte(`{"status":"ok"}`))
}

// ready is GET /readyz: traffic may be sent here.
func (s *Server) ready(x *exchange) error {
	if s.isStopping() {
		return problemf(Overloaded, "the node is stopping")
	}
	if err := s.opts.Cluster.Ready(); err != nil {
		if _, leader := s.opts.Cluster.Leader(); leader == "" {
			return problemf(NoLeader, "%v", err)
		}
		return problemf(Timeout, "%v", err)
	}
	s.started.Store(true)
	return x.answer(http.StatusOK, []byte(`{"status":"ready"}`))
}

// measures is GET /metrics.
func (s *Server) measures(x *exchange) error {
	if s.opts.Metrics == nil {
		return problemf(NotFound, "this node has no metrics")
	}
	s.opts.Metrics.ServeHTTP(x, x.r)
	return nil
}
