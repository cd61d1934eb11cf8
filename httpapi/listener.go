package httpapi

import (
	"net"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// limitedListener has at most so many connections open at once; the next one
// waits, in the queue of the operating system, until another is closed.
type limitedListener struct {
	net.Listener
	places chan struct{} // holds a token for each open connection
	open   prometheus.Gauge
	closed chan struct{}
	once   sync.Once
}

func newLimitedListener(l net.Listener, most int, open prometheus.Gauge) *limitedListener {
	return &limitedListener{Listener: l, places: make(chan struct{}, most), open: open, closed: make(chan struct{})}
}

func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	l.open.Inc()
	return &limitedConn{Conn: c, l: l}, nil
}

func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// limitedConn gives its place back when it is closed.
type limitedConn struct {
	net.Conn
	l    *limitedListener
	once sync.Once
}

func (c *limitedConn) Close() error {
	c.once.Do(func() {
		c.l.open.Dec()
		<-c.l.places
	})
	return c.Conn.Close()
}

// CloseWrite lets the server end an answer before it closes a connection on
// which more was sent than it read.
func (c *limitedConn) CloseWrite() error {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		return tcp.CloseWrite()
	}
	return nil
}
