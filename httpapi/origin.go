package httpapi

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// checkOrigin refuses what a web page of another site may have made a browser
// send to a node on this machine: a name that some DNS server points at
// loopback (Host), and writes from another origin. Off loopback a node has an
// address of its own, and the network decides who may reach it.
func (s *Server) checkOrigin(r *http.Request) error {
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && !isLoopback(local) {
		return nil
	}
	host := bareHost(r.Host)
	if host != "" && !isLocalName(host) && !slices.Contains(s.hosts, host) {
		return problemf(Forbidden, "Host: %q is not a name of this node; on loopback it must be localhost, a loopback address or the configured one", r.Host)
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	for _, origin := range r.Header["Origin"] {
		u, err := url.Parse(origin)
		if err != nil || u.Host == "" || !sameHost(u.Host, r.Host) && !slices.Contains(s.hosts, bareHost(u.Host)) {
			return problemf(Forbidden, "Origin: %q is not this node", origin)
		}
	}
	return nil
}

func isLoopback(a net.Addr) bool {
	ap, err := netip.ParseAddrPort(a.String())
	return err != nil || ap.Addr().Unmap().IsLoopback() // an address of another kind is local too
}

// isLocalName reports whether no DNS server can have a say in what host means.
func isLocalName(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// bareHost is a host without its port, in lower case.
func bareHost(hostport string) string {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
}

// sameHost compares two hosts with their ports; a scheme's own port may be
// left out.
func sameHost(a, b string) bool {
	trim := func(s string) string {
		return strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(s), ":80"), ":443")
	}
	return trim(a) == trim(b)
}
