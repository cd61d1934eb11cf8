package lab

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespace is one network namespace. It lives as long as ns is open or a
// process is in it.
type namespace struct {
	ns int // file descriptor of the namespace
	// control is a socket that was made in it. Requests about devices go to the
	// namespace of the socket they are made on, whichever thread makes them.
	control int
}

// onOwnThread runs f on a thread that ends with it, so that no other goroutine
// is ever run in a namespace that f moved its thread to.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: that is what ends the thread
		done <- f()
	}()
	return <-done
}

// newNamespace makes a network namespace with its loopback device up.
func newNamespace() (*namespace, error) {
	var n *namespace
	err := onOwnThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		n, err = openNamespace()
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := n.up("lo"); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// currentNamespace is the one that the harness itself is in.
func currentNamespace() (*namespace, error) { return openNamespace() }

// openNamespace opens the namespace of the calling thread.
func openNamespace() (*namespace, error) {
	ns, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the network namespace: %w", err)
	}
	control, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		_ = unix.Close(ns)
		return nil, fmt.Errorf("open a socket in the network namespace: %w", err)
	}
	return &namespace{ns: ns, control: control}, nil
}

func (n *namespace) close() error {
	return errors.Join(unix.Close(n.control), unix.Close(n.ns))
}

// start starts a process in the namespace.
func (n *namespace) start(cmd *exec.Cmd) error {
	return onOwnThread(func() error {
		if err := unix.Setns(n.ns, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network namespace: %w", err)
		}
		return cmd.Start()
	})
}

// up sets a device up, with flags beside.
func (n *namespace) up(device string, flags ...uint16) error {
	req, err := unix.NewIfreq(device)
	if err != nil {
		return fmt.Errorf("device %q: %w", device, err)
	}
	if err := unix.IoctlIfreq(n.control, unix.SIOCGIFFLAGS, req); err != nil {
		return fmt.Errorf("read the flags of %s: %w", device, err)
	}
	all := req.Uint16() | unix.IFF_UP
	for _, f := range flags {
		all |= f
	}
	req.SetUint16(all)
	if err := unix.IoctlIfreq(n.control, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("set %s up: %w", device, err)
	}
	return nil
}

// address gives a device its address in a network of 24 bits.
func (n *namespace) address(device string, address [4]byte) error {
	for _, set := range []struct {
		request uint
		value   [4]byte
	}{{unix.SIOCSIFADDR, address}, {unix.SIOCSIFNETMASK, [4]byte{255, 255, 255, 0}}} {
		req, err := unix.NewIfreq(device)
		if err != nil {
			return fmt.Errorf("device %q: %w", device, err)
		}
		if err := req.SetInet4Addr(set.value[:]); err != nil {
			return fmt.Errorf("address %v: %w", set.value, err)
		}
		if err := unix.IoctlIfreq(n.control, set.request, req); err != nil {
			return fmt.Errorf("give %s its address: %w", device, err)
		}
	}
	return nil
}
