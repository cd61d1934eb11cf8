package lab

import (
	"encoding/binary"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// A request about devices goes to the kernel as one netlink message (native
// byte order, everything at multiples of 4):
//
//	┌────────┬──────┬───────┬─────┬──────┐┌───────────┐┌──────────────────────
//	│ length │ type │ flags │ seq │ port ││ ifinfomsg ││ length type value …
//	│   4    │  2   │   2   │  4  │  4   ││    16     ││   2     2
//	└────────┴──────┴───────┴─────┴──────┘└───────────┘└──────────────────────
//
// and comes back as an error message, whose number is 0 for success.

// vethInfoPeer is the attribute with the other end of a veth pair.
const vethInfoPeer = 1

// hardwareAddress is the size of an Ethernet address in bytes.
const hardwareAddress = 6

// attribute is one netlink attribute around value.
func attribute(kind uint16, value ...byte) []byte {
	b := make([]byte, unix.SizeofRtAttr, unix.SizeofRtAttr+len(value)+3)
	binary.NativeEndian.PutUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	binary.NativeEndian.PutUint16(b[2:], kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func textAttribute(kind uint16, text string) []byte {
	return attribute(kind, append([]byte(text), 0)...)
}

// concat is its parts one after the other.
func concat(parts ...[]byte) []byte {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// newVeth makes a veth pair: far in the harness's namespace, and near in ns,
// with the given hardware address. Both are down.
func newVeth(far, near string, address [hardwareAddress]byte, ns *namespace) error {
	fd := binary.NativeEndian.AppendUint32(nil, uint32(ns.ns))
	peer := concat(make([]byte, unix.SizeofIfInfomsg),
		textAttribute(unix.IFLA_IFNAME, near),
		attribute(unix.IFLA_ADDRESS, address[:]...),
		attribute(unix.IFLA_NET_NS_FD, fd...))
	pair := concat(make([]byte, unix.SizeofIfInfomsg),
		textAttribute(unix.IFLA_IFNAME, far),
		attribute(unix.IFLA_LINKINFO, concat(
			textAttribute(unix.IFLA_INFO_KIND, "veth"),
			attribute(unix.IFLA_INFO_DATA, attribute(vethInfoPeer, peer...)...))...))
	if err := askKernel(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, pair); err != nil {
		return fmt.Errorf("make the veth pair %s and %s: %w", far, near, err)
	}
	return nil
}

// deleteVeth removes a pair by the name of its far end.
func deleteVeth(far string) error {
	device, err := net.InterfaceByName(far)
	if err != nil {
		return err
	}
	body := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(body[4:], uint32(device.Index))
	if err := askKernel(unix.RTM_DELLINK, 0, body); err != nil {
		return fmt.Errorf("remove %s: %w", far, err)
	}
	return nil
}

// askKernel sends one netlink request and waits for its answer.
func askKernel(kind uint16, flags uint16, body []byte) error {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	message := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	message = binary.NativeEndian.AppendUint16(message, kind)
	message = binary.NativeEndian.AppendUint16(message, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	message = binary.NativeEndian.AppendUint32(message, 1)
	message = binary.NativeEndian.AppendUint32(message, 0)
	message = append(message, body...)
	if err := unix.Sendto(s, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(s, answer, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return fmt.Errorf("netlink answer of %d bytes is not the expected one", n)
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}
