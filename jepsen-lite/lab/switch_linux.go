package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// MaxNodes is the most nodes a lab has room for.
	MaxNodes = 9
	machines = MaxNodes + 1 // with that of the client

	nearDevice = "eth0" // of a node
	homeDevice = "lab0" // of the client: it lives where the far ends are
)

// A packet socket with PACKET_VNET_HDR hands over, before each Ethernet frame,
// what the sender left to its device to do: a checksum, cutting a large segment
// into packets. Handed on as it is, that stays undone: no wire needs it.
//
//	┌──────────┬───────────────┬──────────┬──────┬─────────────────────────────
//	│ virtio 10│ destination 6 │ source 6 │ type │ IPv4: … source, destination …
//	└──────────┴───────────────┴──────────┴──────┴─────────────────────────────
//	                                             24          36       40
const (
	frameTo     = 10
	frameIP     = frameTo + 2*hardwareAddress + 2
	frameDest   = frameIP + 16
	frameHeader = frameIP + 20
	maxFrame    = frameIP + 1<<16
)

// port is the far end of one machine's device.
type port struct {
	socket *os.File // a packet socket; it sends and receives what the device does
	far    string   // name of the device
}

// ethernet is the network between the machines: one goroutine a port reads what
// its machine sends, and the link to the destination decides what becomes of it.
type ethernet struct {
	ports   [machines]atomic.Pointer[port] // nil until attached
	links   [machines][machines]*link      // by sender and receiver
	delayed *delayLine
	readers sync.WaitGroup
}

// newSwitch is an ethernet without machines. The seed is that of the packets
// which lossy links lose.
func newSwitch(seed uint64) *ethernet {
	e := &ethernet{delayed: newDelayLine()}
	for from := range e.links {
		for to := range e.links[from] {
			e.links[from][to] = newLink(e, from, to, seed)
		}
	}
	return e
}

// machineAddress is the IPv4 address of a machine.
func machineAddress(machine int) [4]byte {
	if machine == Client {
		return [4]byte{10, 7, 0, 254}
	}
	return [4]byte{10, 7, 0, byte(machine)}
}

// machineAt is the machine with an address, or false.
func machineAt(address []byte) (int, bool) {
	last := int(address[3])
	switch {
	case address[0] != 10 || address[1] != 7 || address[2] != 0:
		return 0, false
	case last == 254:
		return Client, true
	}
	return last, last >= 1 && last <= MaxNodes
}

// macAddress is the hardware address of a machine, of the range for private use.
func macAddress(machine int) [hardwareAddress]byte {
	return [hardwareAddress]byte{0x02, 0, 10, 7, 0, byte(machine)}
}

// attach connects a machine in ns. The client's device has another name, since
// it is in the same namespace as all the far ends.
func (e *ethernet) attach(machine int, ns *namespace) (err error) {
	near, far := nearDevice, fmt.Sprintf("wire%d", machine)
	if machine == Client {
		near = homeDevice
	}
	if err := newVeth(far, near, macAddress(machine), ns); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, deleteVeth(far))
		}
	}()
	if err := ns.address(near, machineAddress(machine)); err != nil {
		return err
	}
	here, err := currentNamespace()
	if err != nil {
		return err
	}
	defer here.close()
	// The far end first. A device that has its carrier when it is set up can send
	// from then on, but one that gets its carrier later only when the kernel has
	// come round to it, and until then what it sends is lost. The far end does not
	// mind: its socket goes past the queue that this is about.
	if err := here.up(far, unix.IFF_NOARP); err != nil {
		return err
	}
	// Without ARP a machine sends to a hardware address of no meaning, and the
	// switch puts the receiver's in its place.
	if err := ns.up(near, unix.IFF_NOARP); err != nil {
		return err
	}
	p, err := openPort(far)
	if err != nil {
		return err
	}
	e.ports[machine].Store(p)
	e.readers.Go(func() { e.read(machine, p) })
	return nil
}

// openPort opens a packet socket on a device. It sees IPv4 alone, so a machine
// that asks around by IPv6 gets no answer and makes no noise in the counters.
func openPort(far string) (*port, error) {
	device, err := net.InterfaceByName(far)
	if err != nil {
		return nil, err
	}
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	fail := func(what string, err error) (*port, error) {
		_ = unix.Close(s)
		return nil, fmt.Errorf("%s of the packet socket on %s: %w", what, far, err)
	}
	if err := unix.SetsockoptInt(s, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		return fail("headers", err)
	}
	if err := unix.SetsockoptInt(s, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
		return fail("way past the queue", err)
	}
	// Only root may exceed the system's bound; what does not fit is lost, as in
	// a real switch, and TCP sends it again.
	if unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		if err := unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer); err != nil {
			return fail("buffer", err)
		}
	}
	protocol := binary.NativeEndian.Uint16([]byte{unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff})
	if err := unix.Bind(s, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: device.Index}); err != nil {
		return fail("binding", err)
	}
	return &port{socket: os.NewFile(uintptr(s), far), far: far}, nil
}

// receiveBuffer is how much a port holds until the switch has read it, in bytes.
const receiveBuffer = 8 << 20

// read carries what a machine sends until its port is closed.
func (e *ethernet) read(from int, p *port) {
	frame := make([]byte, maxFrame)
	for {
		n, err := p.socket.Read(frame)
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil || n < frameHeader:
			continue // the device was down for a moment, or it was no IPv4
		}
		if to, ok := machineAt(frame[frameDest:]); ok && to != from {
			e.links[from][to].carry(frame[:n])
		}
	}
}

// deliver hands a frame to the device of a machine and returns whether it could.
func (e *ethernet) deliver(to int, frame []byte) bool {
	p := e.ports[to].Load()
	if p == nil {
		return false
	}
	mac := macAddress(to)
	copy(frame[frameTo:], mac[:])
	_, err := p.socket.Write(frame)
	return err == nil
}

// close ends the goroutines and removes the devices. Nothing may be attached
// any more.
func (e *ethernet) close() error {
	var errs []error
	e.delayed.close()
	for i := range e.ports {
		if p := e.ports[i].Load(); p != nil {
			errs = append(errs, p.socket.Close(), deleteVeth(p.far))
		}
	}
	e.readers.Wait()
	return errors.Join(errs...)
}
