package main

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// listen takes the address that clients are served on, and checks that the two
// of the traffic between nodes are free: before anything on disk is touched,
// and with a message that names the flag. Those two are opened again by package
// cluster; should somebody take one in between, its error says so.
func listen(c *Config) (net.Listener, error) {
	l, err := net.Listen("tcp", c.HTTP)
	if err != nil {
		return nil, listenError(c, "http", c.HTTP, err)
	}
	for _, a := range []struct {
		name, address string
		udp           bool
	}{{"raft", c.Raft, false}, {"gossip", c.Gossip, true}} {
		if err := probe(a.address, a.udp); err != nil {
			_ = l.Close()
			return nil, listenError(c, a.name, a.address, err)
		}
	}
	return l, nil
}

// probe opens and closes an address.
func probe(address string, udp bool) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	if err := l.Close(); err != nil || !udp {
		return err
	}
	p, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	return p.Close()
}

func listenError(c *Config, name, address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s: %s is taken by another program: stop that one, or choose another address with -%s", c.from(name), address, name)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s: %s is not an address of this machine: choose one with -%s", c.from(name), address, name)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s: %s may not be used by this user: choose a port above 1023 with -%s", c.from(name), address, name)
	}
	return fmt.Errorf("%s: %w", c.from(name), err)
}
